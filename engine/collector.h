#pragma once
// Frees the space of what nobody can reach any more, in a thread of its own: the files of dead
// saves in `leaves`, the dead part of hollow ones, and the remains of dead steps in `small`. A save
// and a reader never wait for it. What fails is left lying; a later look, or the next open, finds
// it again.

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "engine/live_chunk_filter.h"
#include "engine/save_registry.h"
#include "format/error.h"
#include "format/keys.h"

namespace rocksdb {
struct LiveFileMetaData;
}

namespace stepstone {

class StoreImpl;

class Collector {
 public:
  // `store` must outlive the collector, which closes before the database does. `filter` is that of
  // the column family `leaves`.
  Collector(StoreImpl& store, std::shared_ptr<LiveChunkFilterFactory> filter);
  // Drops what is quickly dropped, gives up the rest, and stops.
  ~Collector();
  Collector(const Collector&) = delete;
  Collector& operator=(const Collector&) = delete;

  // kLimit: no thread is to be had.
  Result<void> start();

 private:
  void run();
  // Not after a failure that leaves unknown which steps are there, nor when it would take long and
  // somebody waits.
  bool may_delete() const;
  bool may_rewrite() const;

  void drop_save(SaveId save);
  void drop_files(const KeyRange& range, bool includes_end);
  void shrink_hollow(SaveId save);
  void rewrite(SaveId save, const rocksdb::LiveFileMetaData& file,
               std::shared_ptr<const ChunkSet> live);
  // How much of `origin` the save refers to; nullopt: its records cannot be read.
  std::optional<std::uint64_t> reference_size_bytes(SaveId referrer, SaveId origin);

  // Compacts `small` when most of what its files hold is dead.
  void shrink_small();
  // nullopt: all of it.
  void compact_small(const std::optional<KeyRange>& range);

  StoreImpl& store_;
  SaveRegistry& registry_;
  const std::shared_ptr<LiveChunkFilterFactory> filter_;
  // What saves in use refer to, by origin. To read it from their records takes long.
  std::map<SaveId, std::map<SaveId, std::uint64_t>> reference_sizes_;
  // At most so many bytes of a hollow save's files were dead when they were looked through.
  std::map<SaveId, std::uint64_t> dead_bytes_max_;
  std::atomic<bool> is_canceled_ = false;
  std::thread thread_;
};

}  // namespace stepstone
