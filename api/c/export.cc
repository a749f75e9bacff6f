// Restores a step as it was saved and saves it again, each item with the handler that it had.
#include <fmt/format.h>

#include "api/c/call.h"
#include "api/c/handles.h"
#include "api/checkpoint_plan.h"
#include "api/checkpointer.h"
#include "api/stateful.h"

namespace stepstone::c {
namespace {

// Stands for the object that an item was the state of.
class RestoredState final : public StatefulCheckpointable {
 public:
  explicit RestoredState(Tree state) : state_(std::move(state)) {}
  Result<Tree> save_state() const override { return state_; }
  Result<void> load_state(const Tree& state) override {
    state_ = state;
    return {};
  }

 private:
  Tree state_;
};

std::optional<Tree> unless_none(const Tree& tree) {
  return tree == Tree() ? std::nullopt : std::optional(tree);
}

// `states` keeps what the arguments only refer to.
Result<AnyValue> save_args_of(const ItemMetadata& item, const AnyValue& restored,
                              std::vector<std::unique_ptr<RestoredState>>& states) {
  if (item.handler == "array")
    return AnyValue(args::ArraySave(STEPSTONE_TRY(restored.get<Array>())));
  if (item.handler == "proto") {
    return AnyValue(args::ProtoSave(STEPSTONE_TRY(restored.get<ProtoMessage>())));
  }
  if (item.handler == "random_key") {
    return AnyValue(args::RandomKeySave(STEPSTONE_TRY(restored.get<RandomKey>())));
  }
  Tree tree = STEPSTONE_TRY(restored.get<Tree>());
  if (item.handler == "json") return AnyValue(args::JsonSave(std::move(tree)));
  if (item.handler == "stateful") {
    states.push_back(std::make_unique<RestoredState>(std::move(tree)));
    return AnyValue(args::StatefulSave(*states.back()));
  }
  if (item.handler == "pytree") {
    return AnyValue(args::PyTreeSave(std::move(tree), {}, unless_none(item.custom_metadata)));
  }
  if (item.handler == "standard") {
    return AnyValue(args::StandardSave(std::move(tree), {}, unless_none(item.custom_metadata)));
  }
  return fail(ErrorCode::kUnsupported,
              fmt::format("its handler '{}' is not one that can be exported from C",
                          printable(item.handler)));
}

// What is held says nothing of custom metadata. Two looks at it that agree, with the hold between
// them, are of the save that is held. kBusy: the step is being replaced just now.
struct HeldWithMetadata {
  HeldStep held;
  StepMetadata metadata;
};
Result<HeldWithMetadata> hold_with_metadata(CheckpointManager& manager, std::uint64_t step) {
  const std::uint64_t number = STEPSTONE_TRY(manager.hold(step_or_latest(step))).step();
  const StepMetadata before = STEPSTONE_TRY(manager.metadata(number));
  HeldStep held = STEPSTONE_TRY(manager.hold(number));
  StepMetadata after = STEPSTONE_TRY(manager.metadata(number));
  if (before.init_timestamp_ns != after.init_timestamp_ns ||
      before.commit_timestamp_ns != after.commit_timestamp_ns) {
    return fail(ErrorCode::kBusy,
                fmt::format("step {} was replaced while it was looked at: try again", number));
  }
  return HeldWithMetadata{std::move(held), std::move(after)};
}

Result<void> export_step(const HeldWithMetadata& from, const char* path, bool replace) {
  const HeldStep& held = from.held;
  CheckpointOptions options;
  options.force = replace;
  options.custom_metadata = unless_none(from.metadata.custom_metadata);
  args::Composite whole;
  std::vector<std::unique_ptr<RestoredState>> states;
  for (const std::string& name : held.item_names()) {
    const auto where = fmt::format("step {} item '{}'", held.step(), printable(name));
    const ItemMetadata item = STEPSTONE_TRY(held.item_metadata(name));
    const AnyValue all = STEPSTONE_TRY(held.restore_any(args::Composite({{name, {}}})));
    const AnyValue* const restored = all.get_if<args::Composite>()->find(name);
    whole.set(name, STEPSTONE_TRY_CONTEXT(save_args_of(item, *restored, states), where));
  }
  const bool is_single = whole.size() == 1 && whole.contains(kDefaultItem);
  return Checkpointer().save(path, is_single ? *whole.find(kDefaultItem) : AnyValue(whole),
                             options);
}

}  // namespace
}  // namespace stepstone::c

using namespace stepstone;  // NOLINT(google-build-using-namespace)

stepstone_code stepstone_export(stepstone_store* store, uint64_t step, const char* path,
                                int32_t replace) {
  return c::guarded([&]() -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"store", store}, {"path", path}}));
    const c::HeldWithMetadata from = STEPSTONE_TRY(c::hold_with_metadata(*store->manager, step));
    return c::export_step(from, path, replace != 0);
  });
}
