#include "engine/staging_pool.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <mutex>

#include "engine/huge_memory.h"
#include "engine/parallel.h"
#include "format/assert.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace stepstone {
namespace {

static_assert(StagingPool::kSlabSizeBytes % StagingPool::kPieceSizeBytes == 0);
static_assert(StagingPool::kPieceSizeBytes % kHugePageSizeBytes == 0);

// Address space for so many slabs, aligned to huge pages; all in one call, so that the kernel can
// refuse what is beyond all its memory. Null: there is none.
std::byte* map_slabs(std::uint64_t count) {
  const std::uint64_t count_max =
      std::numeric_limits<std::size_t>::max() / StagingPool::kSlabSizeBytes - 1;
  if (count > count_max) return nullptr;
  const std::size_t size = static_cast<std::size_t>(count) * StagingPool::kSlabSizeBytes;
  void* const mapped = mmap(nullptr, size + kHugePageSizeBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(mapped);
  const std::size_t head =
      (kHugePageSizeBytes - reinterpret_cast<std::uintptr_t>(begin) % kHugePageSizeBytes) %
      kHugePageSizeBytes;
  if (head != 0) munmap(begin, head);
  std::byte* const slabs = begin + head;
  munmap(slabs + size, kHugePageSizeBytes - head);
  // Advice that may be refused. The second: a child of fork() that shared these pages would make
  // this process fault again in each of them.
  if (huge_pages_pay()) madvise(slabs, size, MADV_HUGEPAGE);
  madvise(slabs, size, MADV_DONTFORK);
  return slabs;
}

// Has the kernel put pages behind [begin, end).
Result<void> make_resident(std::byte* begin, std::byte* end) {
  const int error = populate({begin, end});
  if (error == 0) return {};
  if (error == ENOMEM || error == EFAULT) {
    return fail(ErrorCode::kLimit, "no memory left to copy arrays into");
  }
  // A kernel that does not know that.
  const auto page_size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  for (std::byte* at = begin; at < end;
       at += page_size - reinterpret_cast<std::uintptr_t>(at) % page_size) {
    *const_cast<volatile std::byte*>(at) = std::byte{};
  }
  return {};
}

}  // namespace

class StagingPool::Slabs {
 public:
  explicit Slabs(unsigned thread_count) : thread_count_(effective_thread_count(thread_count)) {}
  ~Slabs() { trim(); }
  Slabs(const Slabs&) = delete;
  Slabs& operator=(const Slabs&) = delete;

  unsigned thread_count() const { return thread_count_; }

  Result<void> allocate(std::uint64_t size_bytes, StagingBuffer& buffer) {
    const std::scoped_lock lock(mutex_);
    std::vector<StagingBuffer::Part>& parts = buffer.parts_;
    std::uint64_t needed = (size_bytes + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes;
    buffer.size_bytes_ = size_bytes;
    // Behind the buffer before this one, if it is still there.
    std::uint64_t room = 0;
    if (last_ < slabs_.size() && slabs_[last_].buffer_count != 0) {
      room = kSlabSizeBytes - slabs_[last_].used_bytes;
    }
    if (room != 0) {
      buffer.first_offset_ = slabs_[last_].used_bytes;
      parts.push_back(part(last_));
    }
    for (std::size_t next = 0; room < needed; ++next) {
      if (next == slabs_.size()) STEPSTONE_TRY(add_slabs(needed - room));
      if (!is_free(next)) continue;
      parts.push_back(part(next));
      room += kSlabSizeBytes;
    }
    // Nothing can fail any more.
    for (const StagingBuffer::Part& taken : parts) {
      Slab& slab = slabs_[taken.slab];
      ++slab.buffer_count;
      const std::uint64_t size = std::min<std::uint64_t>(needed, kSlabSizeBytes - slab.used_bytes);
      slab.used_bytes += static_cast<std::size_t>(size);
      needed -= size;
      last_ = taken.slab;
    }
    return {};
  }

  void release(const StagingBuffer& buffer) {
    const std::scoped_lock lock(mutex_);
    for (const StagingBuffer::Part& part : buffer.parts_) {
      Slab& slab = slabs_[part.slab];
      if (--slab.buffer_count == 0) slab.used_bytes = 0;
    }
  }

  // The buffer's pages have been given to it.
  void note_resident(const StagingBuffer& buffer) {
    const std::scoped_lock lock(mutex_);
    std::uint64_t end = buffer.first_offset_ + buffer.size_bytes_;
    for (const StagingBuffer::Part& part : buffer.parts_) {
      std::size_t& resident = slabs_[part.slab].resident_bytes;
      const std::uint64_t size = std::min<std::uint64_t>(end, kSlabSizeBytes);
      resident = std::max(resident, static_cast<std::size_t>(size));
      end -= size;
    }
  }

  std::uint64_t capacity_bytes() const {
    const std::scoped_lock lock(mutex_);
    std::uint64_t count = 0;
    for (const Slab& slab : slabs_) count += slab.memory != nullptr ? 1 : 0;
    return count * kSlabSizeBytes;
  }

  void trim() {
    const std::scoped_lock lock(mutex_);
    for (std::size_t i = 0; i < slabs_.size(); ++i) {
      if (!is_free(i)) continue;
      munmap(slabs_[i].memory, kSlabSizeBytes);
      slabs_[i] = Slab();
    }
    while (!slabs_.empty() && slabs_.back().memory == nullptr) slabs_.pop_back();
  }

 private:
  struct Slab {
    std::byte* memory = nullptr;  // Null: given back; only where later slabs are in use.
    std::size_t used_bytes = 0;   // From the beginning; 0 where it is free.
    std::size_t resident_bytes = 0;
    std::size_t buffer_count = 0;
  };

  // All with mutex_ held.
  bool is_free(std::size_t index) const {
    return slabs_[index].memory != nullptr && slabs_[index].buffer_count == 0;
  }
  StagingBuffer::Part part(std::size_t index) const {
    const Slab& slab = slabs_[index];
    return {index, slab.memory, slab.resident_bytes};
  }
  Result<void> add_slabs(std::uint64_t size_bytes) {
    const std::uint64_t count = (size_bytes + kSlabSizeBytes - 1) / kSlabSizeBytes;
    std::byte* const memory = map_slabs(count);
    if (memory == nullptr) {
      return fail(ErrorCode::kLimit,
                  fmt::format("no memory to copy {} bytes of arrays into", size_bytes));
    }
    slabs_.reserve(slabs_.size() + static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < count; ++i) {
      slabs_.emplace_back().memory = memory + i * kSlabSizeBytes;
    }
    return {};
  }

  const unsigned thread_count_;
  mutable std::mutex mutex_;
  std::vector<Slab> slabs_;
  std::size_t last_ = 0;  // Where the newest buffer ends.
};

StagingPool::StagingPool(unsigned thread_count) : slabs_(std::make_shared<Slabs>(thread_count)) {}

Result<std::shared_ptr<StagingBuffer>> StagingPool::allocate(std::uint64_t size_bytes) {
  std::shared_ptr<StagingBuffer> buffer(new StagingBuffer);
  STEPSTONE_TRY(slabs_->allocate(size_bytes, *buffer));
  buffer->slabs_ = slabs_;
  return buffer;
}

Result<void> StagingPool::reserve(std::uint64_t size_bytes) {
  const Result<std::shared_ptr<StagingBuffer>> buffer = allocate(size_bytes);
  if (!buffer) return tl::unexpected<Error>(buffer.error());
  return (*buffer)->fill([](std::uint64_t, std::span<std::byte>) { return Result<void>(); });
}

std::uint64_t StagingPool::capacity_bytes() const { return slabs_->capacity_bytes(); }

void StagingPool::trim() { slabs_->trim(); }

StagingBuffer::~StagingBuffer() {
  if (slabs_ != nullptr) slabs_->release(*this);
}

Result<void> StagingBuffer::fill(
    const std::function<Result<void>(std::uint64_t offset, std::span<std::byte> destination)>&
        write) {
  constexpr std::uint64_t kPiece = StagingPool::kPieceSizeBytes;
  if (size_bytes_ == 0) return {};
  // Places count from the beginning of the first slab, so that no piece lies in two.
  const std::uint64_t end = first_offset_ + size_bytes_;
  const std::uint64_t first_piece = first_offset_ / kPiece;
  const std::uint64_t piece_count = (end + kPiece - 1) / kPiece - first_piece;
  STEPSTONE_TRY(parallel_for(
      slabs_->thread_count(), static_cast<std::size_t>(piece_count),
      [&](std::size_t index) -> Result<void> {
        const std::uint64_t at =
            std::max<std::uint64_t>(first_offset_, (first_piece + index) * kPiece);
        const std::uint64_t stop = std::min(end, (first_piece + index + 1) * kPiece);
        const Part& part = parts_[static_cast<std::size_t>(at / StagingPool::kSlabSizeBytes)];
        const auto in_slab = static_cast<std::size_t>(at % StagingPool::kSlabSizeBytes);
        const std::span<std::byte> memory(part.memory + in_slab,
                                          static_cast<std::size_t>(stop - at));
        if (part.resident_bytes < in_slab + memory.size()) {
          STEPSTONE_TRY(make_resident(part.memory + std::max(in_slab, part.resident_bytes),
                                      memory.data() + memory.size()));
        }
        return write(at - first_offset_, memory);
      }));
  slabs_->note_resident(*this);
  return {};
}

std::span<const std::byte> StagingBuffer::view(std::uint64_t offset, std::size_t size,
                                               std::span<std::byte> scratch) const {
  STEPSTONE_ASSERT(offset <= size_bytes_ && size <= size_bytes_ - offset);
  if (size == 0) return {};
  std::size_t done = 0;
  while (true) {
    const std::uint64_t at = first_offset_ + offset + done;
    const auto in_slab = static_cast<std::size_t>(at % StagingPool::kSlabSizeBytes);
    const std::byte* const memory =
        parts_[static_cast<std::size_t>(at / StagingPool::kSlabSizeBytes)].memory + in_slab;
    const std::size_t adjacent = std::min(size - done, StagingPool::kSlabSizeBytes - in_slab);
    if (adjacent == size) return {memory, size};
    std::memcpy(scratch.data() + done, memory, adjacent);
    done += adjacent;
    if (done == size) return scratch.first(size);
  }
}

void copy_past_caches(std::span<std::byte> destination, const std::byte* source) {
  std::byte* to = destination.data();
  std::size_t size = destination.size();
#ifdef __SSE2__
  constexpr std::size_t kLine = 64;
  constexpr std::size_t kSmall = std::size_t{16} << 10;
  if (size >= kSmall) {
    const std::size_t head = (kLine - reinterpret_cast<std::uintptr_t>(to) % kLine) % kLine;
    std::memcpy(to, source, head);
    to += head;
    source += head;
    size -= head;
    for (; size >= kLine; size -= kLine, to += kLine, source += kLine) {
      const auto* const in = reinterpret_cast<const __m128i*>(source);
      auto* const out = reinterpret_cast<__m128i*>(to);
      const __m128i a = _mm_loadu_si128(in);
      const __m128i b = _mm_loadu_si128(in + 1);
      const __m128i c = _mm_loadu_si128(in + 2);
      const __m128i d = _mm_loadu_si128(in + 3);
      _mm_stream_si128(out, a);
      _mm_stream_si128(out + 1, b);
      _mm_stream_si128(out + 2, c);
      _mm_stream_si128(out + 3, d);
    }
    // Such stores are not ordered with what tells other threads about them.
    _mm_sfence();
  }
#endif
  if (size != 0) std::memcpy(to, source, size);
}

}  // namespace stepstone
