#pragma once
// What a thread needs to read encoded chunks, kept between chunks.

#include <memory>
#include <mutex>
#include <vector>

#include "format/chunk_codec.h"

namespace stepstone {

struct ChunkScratch {
  std::vector<std::byte> stored;
  std::vector<std::byte> decoded;
  std::vector<std::byte> base;
  ChunkDecoder decoder;
};

// As many as there are threads at once. Safe from several threads.
class ChunkScratchPool {
 public:
  // Gives it back at its end.
  class Lease {
   public:
    Lease(ChunkScratchPool& pool, std::unique_ptr<ChunkScratch> scratch)
        : pool_(pool), scratch_(std::move(scratch)) {}
    ~Lease() { pool_.give(std::move(scratch_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    ChunkScratch* operator->() const { return scratch_.get(); }

   private:
    ChunkScratchPool& pool_;
    std::unique_ptr<ChunkScratch> scratch_;
  };

  Lease take() {
    const std::scoped_lock lock(mutex_);
    if (free_.empty()) return Lease(*this, std::make_unique<ChunkScratch>());
    std::unique_ptr<ChunkScratch> scratch = std::move(free_.back());
    free_.pop_back();
    return Lease(*this, std::move(scratch));
  }

 private:
  void give(std::unique_ptr<ChunkScratch> scratch) {
    const std::scoped_lock lock(mutex_);
    free_.push_back(std::move(scratch));
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<ChunkScratch>> free_;
};

}  // namespace stepstone
