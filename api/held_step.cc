#include "api/held_step.h"

#include <fmt/format.h>

#include <new>

#include "api/checkpoint_history.h"
#include "api/checkpoint_plan.h"
#include "api/shared_store.h"
#include "api/tree_reader.h"

namespace stepstone {
namespace {

std::string names_of(const StepRecord& record) {
  std::string names;
  for (const ItemSummary& item : record.items) {
    names += (names.empty() ? "'" : ", '") + printable(item.name) + "'";
  }
  return names;
}

}  // namespace

Result<AnyValue> restore_step(const StepReader& reader, const args::CheckpointArgs& args,
                              const HandlerRegistry& registry, RestoreStatistics* statistics) {
  const StepRecord& record = reader.record();
  const bool is_single = is_single_item(record);
  const args::Composite* const items = args.get_if<args::Composite>();
  if (items == nullptr && args.has_value() && !is_single) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("step {} has the items {}: restore them with args::Composite",
                            record.save.step, names_of(record)));
  }
  if (items != nullptr && is_single && !items->contains(kDefaultItem)) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("step {} is one object without named items: restore it with the "
                            "arguments of that object instead of args::Composite",
                            record.save.step));
  }
  if (items == nullptr && is_single) {
    return restore_item(reader, kDefaultItem, args, registry, statistics);
  }
  return AnyValue(STEPSTONE_TRY(
      restore_items(reader, items == nullptr ? args::Composite() : *items, registry, statistics)));
}

HeldStep::HeldStep(std::unique_ptr<SharedStore> store, std::shared_ptr<const StepReader> reader,
                   HandlerRegistry registry)
    : store_(std::move(store)), reader_(std::move(reader)), registry_(std::move(registry)) {}

HeldStep::HeldStep(HeldStep&&) noexcept = default;

// Whatever this held goes with `other`, in the right order.
HeldStep& HeldStep::operator=(HeldStep&& other) noexcept {
  std::swap(store_, other.store_);
  std::swap(reader_, other.reader_);
  std::swap(registry_, other.registry_);
  return *this;
}

HeldStep::~HeldStep() = default;

std::uint64_t HeldStep::step() const { return reader_->record().save.step; }

std::vector<std::string> HeldStep::item_names() const {
  std::vector<std::string> names;
  for (const ItemSummary& item : reader_->record().items) names.push_back(item.name);
  return names;
}

Result<AnyValue> HeldStep::restore_any(const args::CheckpointArgs& args) const {
  try {
    return restore_step(*reader_, args, registry_);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kLimit, fmt::format("step {}: out of memory", step()));
  }
}

Result<ItemMetadata> HeldStep::item_metadata(const std::string& item) const {
  return stepstone::item_metadata(*reader_, item, registry_);
}

Result<LeafMetadata> HeldStep::leaf_metadata(const std::string& item, const LeafPath& path) const {
  return read_leaf_metadata(*reader_, item, path);
}

std::uint64_t HeldStep::leaf_count(const std::string& item) const {
  for (const ItemSummary& summary : reader_->record().items) {
    if (summary.name == item) return summary.leaf_count;
  }
  return 0;
}

std::optional<Tree> HeldStep::metrics() const { return checkpoint_info(reader_->record()).metrics; }

}  // namespace stepstone
