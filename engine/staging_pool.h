#pragma once
// Memory for copies of what a trainer may change while a save in the background writes it.
// Allocated once and used again: a page that the kernel hands out for the first time costs several
// times as long as the copy into it.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "format/error.h"

namespace stepstone {

class StagingBuffer;

// Slabs of memory that buffers share one after the other. A slab is free once the last buffer in it
// has gone; it goes back to the operating system with the pool, or by trim(). Safe from several
// threads.
class StagingPool {
 public:
  static constexpr std::size_t kAlignmentBytes = 64;
  // Buffers of saves that wait in a queue lie side by side, so that at most the first slab and the
  // last of the queue are held without being needed.
  static constexpr std::size_t kSlabSizeBytes = std::size_t{16} << 20;
  // What one thread copies at a time: a huge page.
  static constexpr std::size_t kPieceSizeBytes = std::size_t{2} << 20;

  // Buffers are filled by so many threads; 0: one per processor.
  explicit StagingPool(unsigned thread_count = 0);

  // Room for `size_bytes`, which is back in the pool when the last reference to the buffer goes;
  // that may be after the pool itself. kLimit: no memory.
  Result<std::shared_ptr<StagingBuffer>> allocate(std::uint64_t size_bytes);

  // Makes sure that the pool has `size_bytes` (beside what buffers hold now), and that the kernel
  // has given it the pages, on all threads. kLimit.
  Result<void> reserve(std::uint64_t size_bytes);

  // Of all slabs, used or free.
  std::uint64_t capacity_bytes() const;

  // Gives all free slabs back to the operating system.
  void trim();

 private:
  friend class StagingBuffer;
  class Slabs;

  std::shared_ptr<Slabs> slabs_;
};

// A part of the pool, addressed as if it were contiguous. Not thread-safe, but that several threads
// may view() it once it has been filled.
class StagingBuffer {
 public:
  ~StagingBuffer();
  StagingBuffer(const StagingBuffer&) = delete;
  StagingBuffer& operator=(const StagingBuffer&) = delete;

  std::uint64_t size_bytes() const { return size_bytes_; }

  // Calls write(offset, destination) for adjacent pieces that cover the buffer, from the pool's
  // threads at once; `destination` is the memory at `offset`. Returns the first error of `write`,
  // or kLimit: the kernel has no pages left.
  Result<void> fill(const std::function<Result<void>(std::uint64_t offset,
                                                     std::span<std::byte> destination)>& write);

  // The `size` bytes at `offset`: as they lie in the pool, or, where they do not lie in one slab,
  // copied into `scratch`, which has at least `size` bytes.
  std::span<const std::byte> view(std::uint64_t offset, std::size_t size,
                                  std::span<std::byte> scratch) const;

 private:
  friend class StagingPool;
  friend class StagingPool::Slabs;

  struct Part {
    std::size_t slab;  // Index in the pool.
    std::byte* memory;
    std::size_t resident_bytes;  // Of the slab's beginning, when the buffer was allocated.
  };

  StagingBuffer() = default;

  std::shared_ptr<StagingPool::Slabs> slabs_;
  std::vector<Part> parts_;       // Each is used from its beginning to its end, but...
  std::size_t first_offset_ = 0;  // ...the first from here,
  std::uint64_t size_bytes_ = 0;  // and the last as far as this goes.
};

// memcpy past the caches for all but small sizes: what is staged is read again only when it has
// long been driven out of them. (glibc does that from a size on that it derives from the cache,
// here 192 MiB.)
void copy_past_caches(std::span<std::byte> destination, const std::byte* source);

}  // namespace stepstone
