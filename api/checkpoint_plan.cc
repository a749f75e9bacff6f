// One ItemWriter per item carries what its handler wrote from the blocking part to the commit.
#include "api/checkpoint_plan.h"

#include <fmt/format.h>

#include <exception>
#include <new>

#include "api/tree_plan.h"
#include "format/limits.h"

namespace stepstone {
namespace {

std::string item_name(std::uint64_t step, std::string_view item) {
  return fmt::format("step {} item '{}'", step, printable(item));
}

// Handlers may be anybody's: what they throw must not get past them.
template <typename Call>
auto guarded(const AnyCheckpointHandler& handler, Call call) -> decltype(call()) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kLimit, "out of memory");
  } catch (const std::exception& exception) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("handler '{}' threw: {}", handler.type_name(), exception.what()));
  } catch (...) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("handler '{}' threw", handler.type_name()));
  }
}

// Objects that only one kind of arguments is for need not be wrapped in them.
AnyValue with_arguments(const AnyValue& value) {
  if (const auto* const tree = value.get_if<Tree>()) return args::StandardSave(*tree);
  if (const auto* const array = value.get_if<Array>()) return args::ArraySave(*array);
  if (const auto* const message = value.get_if<ProtoMessage>()) return args::ProtoSave(*message);
  if (const auto* const key = value.get_if<RandomKey>()) return args::RandomKeySave(*key);
  return value;
}

std::string names_of(const StepRecord& record) {
  std::string names;
  for (const ItemSummary& item : record.items) {
    names += (names.empty() ? "'" : ", '") + printable(item.name) + "'";
  }
  return names;
}

Result<std::string> recorded_handler(const StepReader& reader, std::string_view item) {
  for (const ItemSummary& summary : reader.record().items) {
    if (summary.name == item) return summary.handler;
  }
  return fail(ErrorCode::kNotFound,
              fmt::format("it is not there; the step has {}", names_of(reader.record())));
}

}  // namespace

struct CheckpointPlan::Item {
  std::shared_ptr<const AnyCheckpointHandler> handler;
  ItemWriter writer;
  BackgroundSave background;
  bool is_put = false;

  std::string name() const { return item_name(writer.step(), writer.name()); }

  Result<void> begin(const AnyValue& args) {
    background =
        STEPSTONE_TRY(guarded(*handler, [&] { return handler->begin_save(args, writer); }));
    return background ? Result<void>() : check_written();
  }

  Result<void> check_written() const {
    if (writer.plan_ != nullptr) return {};
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("handler '{}' did not write it", handler->type_name()));
  }

  Result<void> put(StepWriter& step_writer, const StorageOptions& storage) {
    is_put = true;
    return writer.plan_->put(step_writer, writer.name(), handler->type_name(),
                             storage.compression_rules, writer.custom_metadata_);
  }
};

CheckpointPlan::CheckpointPlan(StorageOptions storage) : storage_(std::move(storage)) {}
CheckpointPlan::~CheckpointPlan() = default;
CheckpointPlan::CheckpointPlan(CheckpointPlan&&) noexcept = default;
CheckpointPlan& CheckpointPlan::operator=(CheckpointPlan&&) noexcept = default;

Result<CheckpointPlan> CheckpointPlan::make(std::uint64_t step, const args::CheckpointArgs& args,
                                            const HandlerRegistry& registry,
                                            const StorageOptions& storage) {
  args::Composite single;
  const auto* composite = args.get_if<args::Composite>();
  if (composite == nullptr) {
    single.set(std::string(kDefaultItem), args);
    composite = &single;
  }
  if (composite->empty()) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("step {}: there are no items to save", step));
  }
  CheckpointPlan plan(storage);
  for (const auto& [name, value] : *composite) {
    if (name.empty() || name.size() > limits::kNameSizeBytesMax) {
      return fail(name.empty() ? ErrorCode::kInvalidArgument : ErrorCode::kLimit,
                  fmt::format("{}: a name has 1 to {} bytes", item_name(step, name),
                              limits::kNameSizeBytesMax));
    }
    const AnyValue save_args = with_arguments(value);
    plan.items_.push_back(
        {STEPSTONE_TRY_CONTEXT(registry.for_save(name, save_args), item_name(step, name)),
         ItemWriter(step, name), BackgroundSave()});
    STEPSTONE_TRY_CONTEXT(plan.items_.back().begin(save_args), item_name(step, name));
  }
  return plan;
}

std::uint64_t CheckpointPlan::leaf_count() const {
  std::uint64_t count = 0;
  for (const Item& item : items_) {
    if (item.writer.plan_ != nullptr) count += item.writer.plan_->leaf_count();
  }
  return count;
}

std::uint64_t CheckpointPlan::size_bytes() const {
  std::uint64_t size = 0;
  for (const Item& item : items_) {
    if (item.writer.plan_ != nullptr) size += item.writer.plan_->size_bytes();
  }
  return size;
}

Result<void> CheckpointPlan::put(StepWriter& writer) {
  for (Item& item : items_) {
    if (item.background) continue;
    STEPSTONE_TRY_CONTEXT(item.put(writer, storage_), item.name());
  }
  return {};
}

Result<std::uint64_t> CheckpointPlan::stage(StagingPool& pool) {
  std::vector<TreePlan*> plans;
  for (Item& item : items_) {
    if (item.writer.plan_ != nullptr) plans.push_back(item.writer.plan_.get());
  }
  return TreePlan::stage(plans, pool);
}

Result<void> CheckpointPlan::run_background(StepWriter& writer) {
  for (Item& item : items_) {
    if (!item.background) continue;
    STEPSTONE_TRY_CONTEXT(guarded(*item.handler, [&] { return item.background(item.writer); }),
                          item.name());
    STEPSTONE_TRY_CONTEXT(item.check_written(), item.name());
    STEPSTONE_TRY_CONTEXT(item.put(writer, storage_), item.name());
    // With what it holds.
    item.background = nullptr;
  }
  for (Item& item : items_) {
    STEPSTONE_TRY_CONTEXT(
        guarded(*item.handler, [&] { return item.handler->finalize(item.writer); }), item.name());
  }
  return {};
}

bool is_single_item(const StepRecord& step) {
  return step.items.size() == 1 && step.items.front().name == kDefaultItem;
}

Result<AnyValue> restore_item(const StepReader& reader, std::string_view item, const AnyValue& args,
                              const HandlerRegistry& registry, RestoreStatistics* statistics) {
  const ItemReader item_reader(reader, std::string(item), statistics);
  const std::string where = item_reader.where();
  const std::string recorded = STEPSTONE_TRY_CONTEXT(recorded_handler(reader, item), where);
  const auto handler = STEPSTONE_TRY_CONTEXT(registry.for_restore(item, args, recorded), where);
  Result<AnyValue> restored =
      guarded(*handler, [&] { return handler->restore_any(args, item_reader); });
  // A handler of the user's need not know where it is.
  if (!restored && restored.error().message.find(where) == std::string::npos) {
    return tl::unexpected<Error>(with_context(std::move(restored).error(), where));
  }
  return restored;
}

Result<args::Composite> restore_items(const StepReader& reader, const args::Composite& args,
                                      const HandlerRegistry& registry,
                                      RestoreStatistics* statistics) {
  args::Composite wanted = args;
  if (wanted.empty()) {
    for (const ItemSummary& item : reader.record().items) wanted.set(item.name, {});
  }
  args::Composite restored;
  for (const auto& [name, item_args] : wanted) {
    restored.set(name, STEPSTONE_TRY(restore_item(reader, name, item_args, registry, statistics)));
  }
  return restored;
}

Result<ItemMetadata> item_metadata(const StepReader& reader, std::string_view item,
                                   const HandlerRegistry& registry) {
  const ItemReader item_reader(reader, std::string(item), nullptr);
  const std::string recorded =
      STEPSTONE_TRY_CONTEXT(recorded_handler(reader, item), item_reader.where());
  const auto handler = registry.for_restore(item, {}, recorded);
  if (!handler) return item_reader.metadata();
  return guarded(**handler, [&] { return (*handler)->metadata(item_reader); });
}

}  // namespace stepstone
