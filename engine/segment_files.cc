#include "engine/segment_files.h"

#include <algorithm>
#include <set>

namespace stepstone {
namespace {

// A step may share chunks with thousands of others; what is beyond this is looked up by key.
constexpr std::size_t kOpenFilesMax = 256;

}  // namespace

std::shared_ptr<rocksdb::FSRandomAccessFile> SegmentFiles::find(SaveId save,
                                                                std::uint32_t segment) {
  const std::scoped_lock lock(mutex_);
  if (!is_listed_) list();
  const auto found = files_.find(save);
  if (found == files_.end() || segment >= found->second.size()) return nullptr;
  File& file = found->second[segment];
  if (file.opened != nullptr) return file.opened;
  if (open_count_ == kOpenFilesMax) return nullptr;
  std::unique_ptr<rocksdb::FSRandomAccessFile> opened;
  const rocksdb::IOStatus status =
      store_.file_system().NewRandomAccessFile(file.path, rocksdb::FileOptions(), &opened, nullptr);
  if (!status.ok()) {
    files_.erase(found);
    return nullptr;
  }
  ++open_count_;
  file.opened = std::move(opened);
  return file.opened;
}

void SegmentFiles::give_up(SaveId save) {
  const std::scoped_lock lock(mutex_);
  files_.erase(save);
}

void SegmentFiles::list() {
  is_listed_ = true;
  std::set<SaveId> saves(record_.origin_saves.begin(), record_.origin_saves.end());
  saves.insert(record_.save);
  for (rocksdb::LiveFileMetaData& file : store_.segment_files(saves)) {
    const SaveId save = *save_of_key(file.smallestkey);
    std::vector<File>& files = files_[save];
    // The records of a step that is gone are gone, too; the numbers of the other files stay.
    if (files.empty() && file.smallestkey >= region_range(save, Region::kChunk).begin) {
      files.emplace_back();
    }
    files.push_back({file.db_path + "/" + file.relative_filename, nullptr});
  }
  if (files_[record_.save].size() != record_.segments.size()) files_.erase(record_.save);
}

}  // namespace stepstone
