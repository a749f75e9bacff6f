#pragma once
// A checkpoint on its way into and out of the engine: the handlers' work, item by item.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/args.h"
#include "api/handler_registry.h"
#include "api/item_metadata.h"
#include "api/statistics.h"
#include "api/storage_options.h"
#include "engine/staging_pool.h"
#include "engine/store.h"

namespace stepstone {

// The item of a checkpoint that is a single object.
inline constexpr std::string_view kDefaultItem = "default";

// The life of a save: make(), put() and stage() while the trainer waits, run_background() on the
// thread that commits, then StepWriter::commit(). The plan may go before the commit. Not
// thread-safe.
class CheckpointPlan {
 public:
  // Runs the blocking part of every handler and checks everything that can be checked. `args` is a
  // Composite, or the arguments of one object, which becomes the item `default`. Nothing was
  // written on an error. kInvalidArgument, kLimit; whatever a handler returns. Messages name step,
  // item and leaf.
  static Result<CheckpointPlan> make(std::uint64_t step, const args::CheckpointArgs& args,
                                     const HandlerRegistry& registry,
                                     const StorageOptions& storage = {});
  ~CheckpointPlan();
  CheckpointPlan(CheckpointPlan&&) noexcept;
  CheckpointPlan& operator=(CheckpointPlan&&) noexcept;

  // Of the items that have no background part left: it grows in run_background().
  std::uint64_t leaf_count() const;
  std::uint64_t size_bytes() const;

  // Adds what is ready to the save. To be called once.
  Result<void> put(StepWriter& writer);

  // Copies borrowed arrays, after which the caller may change them. Returns how many bytes. kLimit.
  // Without it, they must stay as they are until the commit.
  Result<std::uint64_t> stage(StagingPool& pool);

  // The handlers' background parts, adding their items to the save; then finalize() of each. An
  // error means: do not commit. To be called once, after put().
  Result<void> run_background(StepWriter& writer);

 private:
  struct Item;
  explicit CheckpointPlan(StorageOptions storage);

  StorageOptions storage_;
  std::vector<Item> items_;
};

// Whether `step` was saved from one object, not from a Composite.
bool is_single_item(const StepRecord& step);

// Restores one item with `args`, or, where these hold nothing, as the handler recorded with it
// does. kNotFound: there is no such item; the message names those there are. Sizes and times, but
// not the total, are added to `statistics` unless it is null.
Result<AnyValue> restore_item(const StepReader& reader, std::string_view item, const AnyValue& args,
                              const HandlerRegistry& registry,
                              RestoreStatistics* statistics = nullptr);

// The items that `args` names; all, where it is empty. In the order of `args`, or of the names.
// kNotFound, kUnsupported and whatever restore_item gives.
Result<args::Composite> restore_items(const StepReader& reader, const args::Composite& args,
                                      const HandlerRegistry& registry,
                                      RestoreStatistics* statistics = nullptr);

// Reads no arrays. An item whose handler is not registered is described all the same, as it is
// stored.
Result<ItemMetadata> item_metadata(const StepReader& reader, std::string_view item,
                                   const HandlerRegistry& registry);

// Of all items, or of the one that is named.
Result<StepMetadata> step_metadata(const StepReader& reader, const HandlerRegistry& registry,
                                   const std::optional<std::string>& only_item = std::nullopt);

}  // namespace stepstone
