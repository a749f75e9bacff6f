#pragma once
// Drops what nobody can reach any more from the column family `small` whenever RocksDB writes one
// of its files: when it flushes as well as when it compacts.

#include <rocksdb/compaction_filter.h>

#include <memory>

#include "engine/save_registry.h"

namespace stepstone {

std::shared_ptr<rocksdb::CompactionFilterFactory> dead_save_filter(
    std::shared_ptr<const SaveRegistry> registry);

}  // namespace stepstone
