#pragma once
// Keeps just the chunks that somebody refers to when a file of `leaves` is rewritten.

#include <rocksdb/compaction_filter.h>

#include <memory>
#include <mutex>

#include "engine/references.h"

namespace stepstone {

// Without a set, and for keys of other saves, everything is kept.
class LiveChunkFilterFactory : public rocksdb::CompactionFilterFactory {
 public:
  const char* Name() const override { return "StepstoneLiveChunkFilterFactory"; }

  // For the compactions that begin from now on: all that is wanted of `save`. Null: no set.
  void set(SaveId save, std::shared_ptr<const ChunkSet> live);

  std::unique_ptr<rocksdb::CompactionFilter> CreateCompactionFilter(
      const rocksdb::CompactionFilter::Context& context) override;

 private:
  std::mutex mutex_;
  SaveId save_;
  std::shared_ptr<const ChunkSet> live_;
};

}  // namespace stepstone
