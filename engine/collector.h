#pragma once
// Frees the space of what nobody can reach any more, in a thread of its own: the files of dead
// saves in `leaves`, and the remains of dead steps in `small`. A save and a reader never wait for
// it. What fails is left lying, and found again by the next open.

#include <rocksdb/db.h>

#include <atomic>
#include <memory>
#include <optional>
#include <thread>

#include "engine/save_registry.h"
#include "format/error.h"
#include "format/keys.h"

namespace stepstone {

class Collector {
 public:
  struct Families {
    rocksdb::ColumnFamilyHandle* small;
    rocksdb::ColumnFamilyHandle* leaves;
  };

  // `database` must outlive the collector.
  Collector(rocksdb::DB& database, Families families, std::shared_ptr<SaveRegistry> registry);
  // Stops.
  ~Collector();
  Collector(const Collector&) = delete;
  Collector& operator=(const Collector&) = delete;

  // kLimit: no thread is to be had.
  Result<void> start();

 private:
  void run();
  void drop_save(SaveId save);
  // Compacts `small` when most of what its files hold is dead.
  void shrink_small();
  // nullopt: all of it.
  void compact_small(const std::optional<KeyRange>& range);

  rocksdb::DB& database_;
  const Families families_;
  const std::shared_ptr<SaveRegistry> registry_;
  std::atomic<bool> is_canceled_ = false;  // What takes long is given up.
  std::thread thread_;
};

}  // namespace stepstone
