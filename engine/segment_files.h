#pragma once
// The segment files that a reader goes to without asking RocksDB for each chunk.

#include <rocksdb/file_system.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/store_impl.h"

namespace stepstone {

// Of one step, which must be leased for as long as this lives. Safe from several threads.
class SegmentFiles {
 public:
  SegmentFiles(const StoreImpl& store, const StepRecord& record) : store_(store), record_(record) {}

  // Null: unknown, given up, or it cannot be opened. The chunk is then to be looked up by its key.
  std::shared_ptr<rocksdb::FSRandomAccessFile> find(SaveId save, std::uint32_t segment);

  // The files of `save` did not hold what the records say: they were rewritten, or are damaged.
  void give_up(SaveId save);

 private:
  struct File {
    std::string path;
    std::shared_ptr<rocksdb::FSRandomAccessFile> opened;
  };

  void list();

  const StoreImpl& store_;
  const StepRecord& record_;
  std::mutex mutex_;
  bool is_listed_ = false;
  std::size_t open_count_ = 0;
  std::map<SaveId, std::vector<File>> files_;
};

}  // namespace stepstone
