// Who takes the room. A segment belongs to the save that wrote it; what a step has in others is
// read from its leaf records.
#include <algorithm>
#include <map>
#include <set>

#include "engine/references.h"
#include "engine/rocksdb_support.h"
#include "engine/store_impl.h"

namespace stepstone {
namespace {

// Key ranges of saves in `small`, weighed by RocksDB.
std::uint64_t small_size_bytes(StoreImpl& store, SaveId save) {
  const KeyRange range = save_range(save);
  const rocksdb::Range whole_save(range.begin, range.end);
  rocksdb::SizeApproximationOptions options;
  options.include_memtables = true;
  std::uint64_t size_bytes = 0;
  if (!store.database()
           .GetApproximateSizes(options, store.small(), &whole_save, 1, &size_bytes)
           .ok()) {
    return 0;
  }
  return size_bytes;
}

}  // namespace

Result<StoreUsage> StoreImpl::usage() {
  // Held, so that none of them goes while it is looked at.
  std::vector<SaveRegistry::Leased> held;
  std::set<SaveId> visible;
  for (const std::uint64_t step : registry_->steps()) {
    std::optional<SaveRegistry::Leased> leased = registry_->lease(step);
    if (!leased) continue;  // Retired a moment ago.
    visible.insert(leased->record.save);
    held.push_back(*std::move(leased));
  }
  StoreUsage usage;
  std::map<SaveId, std::uint64_t> file_bytes;
  std::uint64_t small_bytes = 0;
  for (const rocksdb::LiveFileMetaData& file : table_files()) {
    const std::optional<SaveId> save = save_of_key(file.smallestkey);
    usage.stored_bytes += file.size;
    if (file.column_family_name == kLeavesColumnFamily && save) file_bytes[*save] += file.size;
    if (file.column_family_name == kSmallColumnFamily) small_bytes += file.size;
  }
  std::map<SaveId, ChunkSet> referred;  // In saves that are not visible.
  std::uint64_t small_alive_bytes = 0;
  for (const SaveRegistry::Leased& leased : held) {
    const StepRecord& record = leased.record;
    StepUsage step{.step = record.save.step, .size_bytes = record.size_bytes};
    if (record.placement == Placement::kSmall) {
      step.stored_bytes = small_size_bytes(*this, record.save);
      small_alive_bytes += step.stored_bytes;
    } else {
      step.stored_bytes = file_bytes[record.save];
    }
    STEPSTONE_TRY(visit_references(
        *this, record.save, [&](SaveId origin, const std::string& key, std::uint32_t size_bytes) {
          step.shared_bytes += size_bytes;
          if (!visible.contains(origin)) referred[origin].add(key, size_bytes);
        }));
    usage.steps.push_back(step);
  }
  for (const auto& [save, size_bytes] : file_bytes) {
    if (visible.contains(save)) continue;
    const auto alive = referred.find(save);
    const std::uint64_t alive_bytes = alive == referred.end() ? 0 : alive->second.size_bytes();
    usage.hidden_bytes += size_bytes;
    usage.reclaimable_bytes += size_bytes - std::min(size_bytes, alive_bytes);
  }
  usage.reclaimable_bytes += small_bytes - std::min(small_bytes, small_alive_bytes);
  return usage;
}

}  // namespace stepstone
