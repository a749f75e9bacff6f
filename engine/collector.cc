// A file of `leaves` belongs to one save, and is dropped whole with it. A hollow save, which others
// still refer to, keeps the files that hold something of theirs; one of which most is dead is
// rewritten without that. A file of `small` holds many steps; flushes and compactions leave the
// dead ones out, but a file that is moved from level to level, or that no compaction has a reason
// to touch, keeps what died in it. So the collector weighs these files against what is alive, now
// and then, and compacts those that are mostly dead.
#include "engine/collector.h"

#include <rocksdb/convenience.h>
#include <rocksdb/metadata.h>

#include <algorithm>
#include <map>
#include <string>
#include <system_error>
#include <vector>

#include "engine/references.h"
#include "engine/store_impl.h"

namespace stepstone {
namespace {

// Dead bytes in files of `small` that are not worth a compaction.
constexpr std::uint64_t kSmallSlackSizeBytes = std::uint64_t{8} << 20;

struct SmallFile {
  std::string begin;
  std::string end;  // Its last key.
  std::uint64_t size_bytes = 0;
};

// In key order.
std::vector<SmallFile> files_of(rocksdb::DB& database, rocksdb::ColumnFamilyHandle* family) {
  rocksdb::ColumnFamilyMetaData meta;
  database.GetColumnFamilyMetaData(family, &meta);
  std::vector<SmallFile> files;
  for (const rocksdb::LevelMetaData& level : meta.levels) {
    for (const rocksdb::SstFileMetaData& file : level.files) {
      files.push_back({file.smallestkey, file.largestkey, file.size});
    }
  }
  std::sort(files.begin(), files.end(),
            [](const SmallFile& a, const SmallFile& b) { return a.begin < b.begin; });
  return files;
}

bool is_mostly_dead(const SmallFile& file, const std::map<SaveId, std::uint64_t>& alive) {
  const std::optional<SaveId> first = save_of_key(file.begin);
  const std::optional<SaveId> last = save_of_key(file.end);
  if (!first || !last) return false;
  std::uint64_t alive_bytes = 0;
  for (auto save = alive.lower_bound(*first); save != alive.end() && save->first <= *last; ++save) {
    alive_bytes += save->second;
  }
  return file.size_bytes > 2 * alive_bytes;
}

}  // namespace

Collector::Collector(StoreImpl& store, std::shared_ptr<LiveChunkFilterFactory> filter)
    : store_(store), registry_(store.registry()), filter_(std::move(filter)) {}

Collector::~Collector() {
  if (!thread_.joinable()) return;
  is_canceled_ = true;
  registry_.stop();
  // Ends a compaction that is under way, without harm.
  store_.database().DisableManualCompaction();
  thread_.join();
}

Result<void> Collector::start() {
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error&) {
    return fail(ErrorCode::kLimit, "no thread is to be had for the collector");
  }
  return {};
}

void Collector::run() {
  for (SaveRegistry::Garbage garbage = registry_.take_garbage(); !garbage.is_empty();
       garbage = registry_.take_garbage()) {
    for (const SaveId save : garbage.dead) drop_save(save);
    for (const SaveId save : garbage.hollow) shrink_hollow(save);
    if (garbage.is_small_due) shrink_small();
    registry_.collected();
  }
}

bool Collector::may_delete() const { return store_.check_writable().has_value(); }

bool Collector::may_rewrite() const { return !is_canceled_ && may_delete(); }

void Collector::drop_files(const KeyRange& range, bool includes_end) {
  if (!may_delete()) return;
  const rocksdb::Slice begin(range.begin);
  const rocksdb::Slice end(range.end);
  const rocksdb::RangePtr files(&begin, &end);
  rocksdb::DeleteFilesInRanges(&store_.database(), store_.leaves(), &files, 1, includes_end)
      .PermitUncheckedError();
}

void Collector::drop_save(SaveId save) {
  drop_files(save_range(save), /*includes_end=*/false);
  reference_sizes_.erase(save);
  dead_bytes_max_.erase(save);
}

std::optional<std::uint64_t> Collector::reference_size_bytes(SaveId referrer, SaveId origin) {
  auto known = reference_sizes_.find(referrer);
  if (known == reference_sizes_.end()) {
    std::map<SaveId, std::uint64_t> sizes;
    const Result<void> visited = visit_references(
        store_, referrer,
        [&](SaveId save, const std::string&, std::uint32_t size) { sizes[save] += size; });
    if (!visited) return std::nullopt;
    known = reference_sizes_.emplace(referrer, std::move(sizes)).first;
  }
  return known->second[origin];
}

void Collector::shrink_hollow(SaveId save) {
  const std::vector<SaveRegistry::Referrer> referrers = registry_.lease_referrers(save);
  if (referrers.empty()) return;
  // Nobody asks for the records of a step that is gone. They have files of their own.
  const KeyRange chunks = region_range(save, Region::kChunk);
  drop_files({save_range(save).begin, chunks.begin}, /*includes_end=*/false);
  std::vector<rocksdb::LiveFileMetaData> files = store_.segment_files({save});
  std::uint64_t stored_bytes = 0;
  std::uint64_t least_bytes = ~std::uint64_t{0};
  for (const rocksdb::LiveFileMetaData& file : files) {
    stored_bytes += file.size;
    least_bytes = std::min<std::uint64_t>(least_bytes, file.size);
  }
  // To look through all records that refer to these files is worth it only if one of them can be
  // mostly dead, and if more can be dead than when it was done last.
  std::uint64_t alive_bytes_min = 0;
  for (const SaveRegistry::Referrer& referrer : referrers) {
    const auto size_bytes = reference_size_bytes(referrer.save, save);
    if (!size_bytes) return;
    alive_bytes_min = std::max(alive_bytes_min, *size_bytes);
  }
  const std::uint64_t dead_bytes_max = stored_bytes - std::min(stored_bytes, alive_bytes_min);
  if (files.empty() || dead_bytes_max <= least_bytes / 2) return;
  const auto last = dead_bytes_max_.find(save);
  if (last != dead_bytes_max_.end() && dead_bytes_max < last->second + stored_bytes / 16) return;

  const auto live = std::make_shared<ChunkSet>();
  for (const SaveRegistry::Referrer& referrer : referrers) {
    const Result<void> visited = visit_references(
        store_, referrer.save, [&](SaveId origin, const std::string& key, std::uint32_t size) {
          if (origin == save) live->add(key, size);
        });
    if (!visited || !may_rewrite()) return;
  }
  dead_bytes_max_[save] = dead_bytes_max;
  for (const rocksdb::LiveFileMetaData& file : files) {
    const std::uint64_t alive_bytes = live->size_bytes_between(file.smallestkey, file.largestkey);
    if (alive_bytes == 0) {
      drop_files({file.smallestkey, file.largestkey}, /*includes_end=*/true);
    } else if (alive_bytes < file.size / 2) {
      rewrite(save, file, live);
    }
  }
}

void Collector::rewrite(SaveId save, const rocksdb::LiveFileMetaData& file,
                        std::shared_ptr<const ChunkSet> live) {
  if (!may_rewrite()) return;
  filter_->set(save, std::move(live));
  rocksdb::CompactionOptions options;
  options.compression = rocksdb::kNoCompression;
  options.max_subcompactions = 1;
  store_.database()
      .CompactFiles(options, store_.leaves(), {file.relative_filename}, file.level)
      .PermitUncheckedError();
  filter_->set({}, nullptr);
}

void Collector::shrink_small() {
  if (!may_rewrite()) return;
  const std::map<SaveId, std::uint64_t> alive = registry_.small_saves();
  std::uint64_t alive_bytes = 0;
  for (const auto& [save, size_bytes] : alive) alive_bytes += size_bytes;
  const auto is_bloated = [&](const std::vector<SmallFile>& files) {
    std::uint64_t size_bytes = 0;
    for (const SmallFile& file : files) size_bytes += file.size_bytes;
    return size_bytes > 2 * alive_bytes + kSmallSlackSizeBytes;
  };
  const std::vector<SmallFile> files = files_of(store_.database(), store_.small());
  if (!is_bloated(files)) return;
  // Neighbours go together. Steps that are retired in their order leave whole files without a
  // living entry, of which hardly a block is read.
  for (std::size_t i = 0; i < files.size();) {
    std::size_t end = i;
    std::string last_key;
    for (; end < files.size() && is_mostly_dead(files[end], alive); ++end) {
      last_key = std::max(last_key, files[end].end);
    }
    if (end == i) {
      ++i;
      continue;
    }
    compact_small(KeyRange{files[i].begin, last_key});
    i = end;
  }
  // Files of several levels can share a step's range, which makes each look more alive than it is.
  if (is_bloated(files_of(store_.database(), store_.small()))) compact_small(std::nullopt);
}

void Collector::compact_small(const std::optional<KeyRange>& range) {
  rocksdb::CompactRangeOptions options;
  options.exclusive_manual_compaction = false;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  options.max_subcompactions = 1;
  options.canceled = &is_canceled_;
  const rocksdb::Slice begin = range ? rocksdb::Slice(range->begin) : rocksdb::Slice();
  const rocksdb::Slice end = range ? rocksdb::Slice(range->end) : rocksdb::Slice();
  store_.database()
      .CompactRange(options, store_.small(), range ? &begin : nullptr, range ? &end : nullptr)
      .PermitUncheckedError();
}

}  // namespace stepstone
