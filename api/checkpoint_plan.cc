// One ItemWriter per item carries what its handler wrote from the blocking part to the commit.
#include "api/checkpoint_plan.h"

#include <fmt/format.h>

#include <exception>
#include <new>

#include "api/json.h"
#include "api/tree_plan.h"
#include "format/limits.h"

namespace stepstone {
namespace {

std::string item_name(std::uint64_t step, std::string_view item) {
  return fmt::format("step {} item '{}'", step, printable(item));
}

// Names the step and item, which not every handler does by itself.
template <typename T>
Result<T> named(Result<T> result, const std::string& where) {
  if (result || result.error().message.find(where) != std::string::npos) return result;
  return tl::unexpected<Error>(with_context(std::move(result).error(), where));
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

// An object without arguments around it gets those of the handler that would save it.
AnyValue with_arguments(const AnyValue& value, std::string_view item,
                        const HandlerRegistry& registry) {
  std::vector<AnyValue> candidates;
  if (const auto* const tree = value.get_if<Tree>()) {
    candidates = {args::StandardSave(*tree), args::PyTreeSave(*tree), args::JsonSave(*tree)};
  } else if (const auto* const array = value.get_if<Array>()) {
    candidates = {args::ArraySave(*array)};
  } else if (const auto* const message = value.get_if<ProtoMessage>()) {
    candidates = {args::ProtoSave(*message)};
  } else if (const auto* const key = value.get_if<RandomKey>()) {
    candidates = {args::RandomKeySave(*key)};
  }
  for (AnyValue& candidate : candidates) {
    if (registry.for_save(item, candidate)) return std::move(candidate);
  }
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
  std::string handler_name;  // As it is recorded.
  bool is_put = false;

  std::string name() const { return item_name(writer.step(), writer.name()); }

  Result<void> begin(const AnyValue& args) {
    background =
        STEPSTONE_TRY(guarded(*handler, [&] { return handler->begin_save(args, writer); }));
    handler_name = handler->recorded_name(args);
    return background ? Result<void>() : check_written();
  }

  Result<void> check_written() const {
    if (writer.plan_ != nullptr) return {};
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("handler '{}' did not write it", handler->type_name()));
  }

  Result<void> put(StepWriter& step_writer, const StorageOptions& storage) {
    is_put = true;
    return writer.plan_->put(step_writer, writer.name(), handler_name, storage.compression_rules,
                             writer.custom_metadata_);
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
    const AnyValue save_args = with_arguments(value, name, registry);
    plan.items_.push_back(
        {STEPSTONE_TRY_CONTEXT(registry.for_save(name, save_args), item_name(step, name)),
         ItemWriter(step, name),
         BackgroundSave(),
         {}});
    STEPSTONE_TRY(named(plan.items_.back().begin(save_args), item_name(step, name)));
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
    STEPSTONE_TRY(named(item.put(writer, storage_), item.name()));
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
    STEPSTONE_TRY(
        named(guarded(*item.handler, [&] { return item.background(item.writer); }), item.name()));
    STEPSTONE_TRY(named(item.check_written(), item.name()));
    STEPSTONE_TRY(named(item.put(writer, storage_), item.name()));
    // With what it holds.
    item.background = nullptr;
  }
  for (Item& item : items_) {
    STEPSTONE_TRY(named(guarded(*item.handler, [&] { return item.handler->finalize(item.writer); }),
                        item.name()));
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
  return named(guarded(*handler, [&] { return handler->restore_any(args, item_reader); }), where);
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
  return named(guarded(**handler, [&] { return (*handler)->metadata(item_reader); }),
               item_reader.where());
}

const ItemMetadata* StepMetadata::find(std::string_view item) const {
  for (const auto& [name, metadata] : items) {
    if (name == item) return &metadata;
  }
  return nullptr;
}

Result<StepMetadata> step_metadata(const StepReader& reader, const HandlerRegistry& registry,
                                   const std::optional<std::string>& only_item) {
  const StepRecord& record = reader.record();
  StepMetadata metadata{.step = record.save.step,
                        .items = {},
                        .metrics = {},
                        .custom_metadata = {},
                        .init_timestamp_ns = record.started_unix_ns,
                        .commit_timestamp_ns = record.committed_unix_ns,
                        .size_bytes = record.size_bytes};
  const auto json = [&](const std::string& text, std::string_view what) -> Result<Tree> {
    if (text.empty()) return Tree();
    return STEPSTONE_TRY_CONTEXT(from_json(text), fmt::format("step {} {}", metadata.step, what));
  };
  metadata.metrics = STEPSTONE_TRY(json(record.metrics, "metrics"));
  metadata.custom_metadata = STEPSTONE_TRY(json(record.custom_metadata, "custom metadata"));
  std::vector<std::string> names;
  if (only_item) {
    names.push_back(*only_item);
  } else {
    for (const ItemSummary& item : record.items) names.push_back(item.name);
  }
  for (std::string& name : names) {
    ItemMetadata item = STEPSTONE_TRY(item_metadata(reader, name, registry));
    metadata.items.emplace_back(std::move(name), std::move(item));
  }
  return metadata;
}

}  // namespace stepstone
