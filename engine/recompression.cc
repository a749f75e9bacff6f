// A step is recompressed by saving it again, from a reader of itself: so it is an ordinary commit
// to whoever reads meanwhile, and to a crash.
#include "engine/recompression.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "engine/references.h"
#include "engine/replacement.h"
#include "engine/step_reader.h"
#include "engine/store_impl.h"

namespace stepstone {
namespace {

// A leaf of a step that is held; each byte is checked as it is read.
class StoredSource final : public LeafSource {
 public:
  StoredSource(const StepReaderImpl& reader, const std::string& item, const StoredLeaf& leaf,
               Throttle* throttle)
      : reader_(reader), item_(item), leaf_(leaf), throttle_(throttle) {}

  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> scratch) const override {
    if (throttle_ != nullptr && !throttle_->wait(size)) {
      return fail(ErrorCode::kClosed, "the store is being closed");
    }
    const std::span<std::byte> bytes = scratch.first(size);
    STEPSTONE_TRY(reader_.read_bytes(item_, leaf_, offset, bytes));
    return bytes;
  }

 private:
  const StepReaderImpl& reader_;
  const std::string& item_;
  const StoredLeaf leaf_;
  Throttle* const throttle_;
};

// What the steps refer to in the saves that `replaced` has chunks in. One whose records cannot be
// read is no reason not to go on: nothing is deleted that it may refer to.
std::map<SaveId, ChunkSet> references_to(const StepRecord& replaced, StoreImpl& store,
                                         const std::vector<std::uint64_t>& steps) {
  std::set<SaveId> wanted(replaced.origin_saves.begin(), replaced.origin_saves.end());
  wanted.insert(replaced.save);
  std::map<SaveId, ChunkSet> references;
  for (const std::uint64_t step : steps) {
    const auto leased = store.registry().lease(step);
    if (!leased) continue;  // Retired a moment ago.
    const std::vector<SaveId>& origins = leased->record.origin_saves;
    if (std::none_of(origins.begin(), origins.end(),
                     [&](SaveId origin) { return wanted.contains(origin); })) {
      continue;
    }
    (void)visit_references(store, leased->record.save,
                           [&](SaveId origin, const std::string& key, std::uint32_t size_bytes) {
                             if (wanted.contains(origin)) references[origin].add(key, size_bytes);
                           });
  }
  return references;
}

Result<void> put_stored(StepWriter& writer, const StepReaderImpl& reader, const std::string& item,
                        const std::vector<StoredLeaf>& leaves, Throttle* throttle) {
  ItemRecord record = STEPSTONE_TRY(reader.read_item(item));
  STEPSTONE_TRY(writer.put_item(item, std::move(record.handler), std::move(record.structure),
                                std::move(record.custom_metadata)));
  for (const StoredLeaf& leaf : leaves) {
    STEPSTONE_TRY(writer.put_leaf(item, leaf.encoded_path,
                                  {.kind = leaf.record.kind,
                                   .dtype = leaf.record.dtype,
                                   .shape = leaf.record.shape,
                                   .size_bytes = leaf.record.size_bytes,
                                   .compression = {},
                                   .chunk_size_bytes = leaf.record.chunk_size_bytes},
                                  std::make_shared<StoredSource>(reader, item, leaf, throttle)));
  }
  return {};
}

}  // namespace

Result<Recompression::Outcome> Recompression::run(const std::shared_ptr<StoreImpl>& store,
                                                  std::uint64_t step, const Settings& settings) {
  STEPSTONE_TRY(store->check_writable());
  std::optional<SaveRegistry::Leased> leased = store->registry().lease(step);
  if (!leased) return fail(ErrorCode::kNotFound, step_name(step) + " is not there");
  const StepReaderImpl reader(store, *std::move(leased));
  const StepRecord& replaced = reader.record();
  if (replaced.placement == Placement::kSmall)
    return Outcome{.save = replaced.save, .counters = {}};

  std::map<std::string, std::vector<StoredLeaf>> items;
  std::vector<StoredLeaf> all_leaves;
  for (const ItemSummary& item : replaced.items) {
    std::vector<StoredLeaf>& leaves = items[item.name];
    leaves = STEPSTONE_TRY(reader.read_leaves(item.name));
    all_leaves.insert(all_leaves.end(), leaves.begin(), leaves.end());
  }
  const SaveOptions options{.overwrite = true,
                            .compression = Compression::kAlways,
                            .metrics = replaced.metrics,
                            .custom_metadata = replaced.custom_metadata};
  Replacement replacement(reader, std::move(all_leaves),
                          {.thread_count = settings.thread_count,
                           .samples_first = settings.samples_first,
                           .held = references_to(replaced, *store, settings.untouched_steps)});
  const auto writer = STEPSTONE_TRY(StepWriter::replace(store, options, replacement));
  for (const auto& [item, leaves] : items) {
    STEPSTONE_TRY(put_stored(*writer, reader, item, leaves, settings.throttle));
  }
  const StepRecord record = STEPSTONE_TRY(writer->commit());
  Outcome outcome{.save = record.save, .counters = {}};
  if (record.save != replaced.save) {
    outcome.counters = {.was_replaced = true,
                        .bytes_before = replacement.bytes_before(),
                        .bytes_after = replacement.bytes_after()};
  }
  return outcome;
}

}  // namespace stepstone
