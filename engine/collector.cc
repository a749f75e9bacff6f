// A file of `leaves` belongs to one save, and is dropped whole with it. A file of `small` holds
// many steps; flushes and compactions leave the dead ones out, but a file that is moved from level
// to level, or that no compaction has a reason to touch, keeps what died in it. So the collector
// weighs the files against what is alive, now and then, and compacts those that are mostly dead.
#include "engine/collector.h"

#include <rocksdb/convenience.h>
#include <rocksdb/metadata.h>

#include <algorithm>
#include <map>
#include <string>
#include <system_error>
#include <vector>

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

Collector::Collector(rocksdb::DB& database, Families families,
                     std::shared_ptr<SaveRegistry> registry)
    : database_(database), families_(families), registry_(std::move(registry)) {}

Collector::~Collector() {
  if (!thread_.joinable()) return;
  is_canceled_ = true;
  registry_->stop();
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
  for (SaveRegistry::Garbage garbage = registry_->take_garbage(); !garbage.is_empty();
       garbage = registry_->take_garbage()) {
    for (const SaveId save : garbage.dead) drop_save(save);
    if (garbage.is_small_due) shrink_small();
    registry_->collected();
  }
}

void Collector::drop_save(SaveId save) {
  const KeyRange range = save_range(save);
  const rocksdb::Slice begin(range.begin);
  const rocksdb::Slice end(range.end);
  const rocksdb::RangePtr whole_save(&begin, &end);
  rocksdb::DeleteFilesInRanges(&database_, families_.leaves, &whole_save, 1, /*include_end=*/false)
      .PermitUncheckedError();
}

void Collector::shrink_small() {
  const std::map<SaveId, std::uint64_t> alive = registry_->small_saves();
  std::uint64_t alive_bytes = 0;
  for (const auto& [save, size_bytes] : alive) alive_bytes += size_bytes;
  const auto is_bloated = [&](const std::vector<SmallFile>& files) {
    std::uint64_t size_bytes = 0;
    for (const SmallFile& file : files) size_bytes += file.size_bytes;
    return size_bytes > 2 * alive_bytes + kSmallSlackSizeBytes;
  };
  const std::vector<SmallFile> files = files_of(database_, families_.small);
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
  if (is_bloated(files_of(database_, families_.small))) compact_small(std::nullopt);
}

void Collector::compact_small(const std::optional<KeyRange>& range) {
  rocksdb::CompactRangeOptions options;
  options.exclusive_manual_compaction = false;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  options.max_subcompactions = 1;
  options.canceled = &is_canceled_;
  const rocksdb::Slice begin(range ? range->begin : "");
  const rocksdb::Slice end(range ? range->end : "");
  database_.CompactRange(options, families_.small, range ? &begin : nullptr, range ? &end : nullptr)
      .PermitUncheckedError();
}

}  // namespace stepstone
