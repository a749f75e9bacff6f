#include "engine/staging_pool.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#include "engine/huge_memory.h"

namespace stepstone {
namespace {

constexpr std::uint64_t kSlab = StagingPool::kSlabSizeBytes;
constexpr std::uint64_t kPiece = StagingPool::kPieceSizeBytes;
constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

std::byte byte_at(std::uint64_t offset, unsigned seed) {
  return static_cast<std::byte>((offset * 31 + (offset >> 12) + seed) & 0xFF);
}

std::shared_ptr<StagingBuffer> allocate(StagingPool& pool, std::uint64_t size) {
  auto buffer = pool.allocate(size);
  EXPECT_TRUE(buffer.has_value());
  return buffer ? *std::move(buffer) : nullptr;
}

// Only every so many bytes are written and looked at, for the sake of slow sanitizers.
constexpr std::uint64_t kStride = 61;
std::size_t first_of_stride(std::uint64_t offset) {
  return static_cast<std::size_t>((kStride - offset % kStride) % kStride);
}

// A buffer with bytes that tell where they are and whose.
std::shared_ptr<StagingBuffer> filled(StagingPool& pool, std::uint64_t size, unsigned seed) {
  auto buffer = allocate(pool, size);
  EXPECT_TRUE(buffer->fill([&](std::uint64_t offset, std::span<std::byte> piece) {
    for (std::size_t i = first_of_stride(offset); i < piece.size(); i += kStride) {
      piece[i] = byte_at(offset + i, seed);
    }
    return Result<void>();
  }));
  return buffer;
}

// Looks at the buffer in windows of `window` bytes.
bool holds(const StagingBuffer& buffer, unsigned seed, std::size_t window) {
  std::vector<std::byte> scratch(window);
  for (std::uint64_t at = 0; at < buffer.size_bytes(); at += window) {
    const auto size =
        static_cast<std::size_t>(std::min<std::uint64_t>(window, buffer.size_bytes() - at));
    const std::span<const std::byte> view = buffer.view(at, size, scratch);
    if (view.size() != size) return false;
    for (std::size_t i = first_of_stride(at); i < size; i += kStride) {
      if (view[i] != byte_at(at + i, seed)) return false;
    }
  }
  return true;
}

const std::byte* begin_of(const StagingBuffer& buffer) { return buffer.view(0, 1, {}).data(); }

TEST(StagingPool, GivesBackWhatWasPutIn) {
  StagingPool pool(2);
  for (const std::uint64_t size : {std::uint64_t{1}, std::uint64_t{63}, kPiece - 1, kPiece + 1,
                                   kSlab, kSlab + 1, 2 * kSlab + 100}) {
    EXPECT_TRUE(holds(*filled(pool, size, 1), 1, 100'000)) << size;
  }
}

TEST(StagingPool, BuffersThatLiveTogetherDoNotOverlap) {
  StagingPool pool(2);
  std::vector<std::shared_ptr<StagingBuffer>> buffers;
  for (unsigned i = 0; i < 12; ++i) buffers.push_back(filled(pool, i * 977'777 + i, i));
  // Room in the middle is used again.
  buffers[3].reset();
  buffers[10].reset();
  buffers.push_back(filled(pool, kSlab, 12));
  for (unsigned i = 0; i < buffers.size(); ++i) {
    EXPECT_TRUE(buffers[i] == nullptr || holds(*buffers[i], i, 256 << 10)) << i;
  }
}

TEST(StagingPool, PiecesCoverTheBufferOnceAndAreAligned) {
  StagingPool pool(3);
  const auto before = allocate(pool, 5 * StagingPool::kAlignmentBytes);
  const std::uint64_t size = 2 * kSlab + 3 * kPiece + 7;
  const auto buffer = allocate(pool, size);
  std::mutex mutex;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> pieces;
  ASSERT_TRUE(buffer->fill([&](std::uint64_t offset, std::span<std::byte> piece) {
    const std::scoped_lock lock(mutex);
    pieces.emplace_back(offset, piece.size());
    return Result<void>();
  }));
  std::sort(pieces.begin(), pieces.end());
  std::uint64_t end = 0;
  for (const auto& [offset, piece_size] : pieces) {
    EXPECT_EQ(offset, end);
    EXPECT_LE(piece_size, kPiece);
    end += piece_size;
  }
  EXPECT_EQ(end, size);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(begin_of(*buffer)) % StagingPool::kAlignmentBytes, 0U);
}

TEST(StagingPool, AViewInOneSlabIsNotCopied) {
  StagingPool pool(1);
  const auto buffer = filled(pool, 2 * kSlab, 7);
  std::vector<std::byte> scratch(100);
  EXPECT_NE(buffer->view(kSlab - 100, 100, scratch).data(), scratch.data());
  EXPECT_NE(buffer->view(kSlab, 100, scratch).data(), scratch.data());
  EXPECT_EQ(buffer->view(kSlab - 1, 100, scratch).data(), scratch.data());
}

TEST(StagingPool, UsesTheSameMemoryForOneSaveAfterTheOther) {
  StagingPool pool(2);
  const std::byte* const first = begin_of(*filled(pool, 3 * kSlab - 5, 0));
  const std::uint64_t capacity = pool.capacity_bytes();
  EXPECT_EQ(capacity, 3 * kSlab);
  for (unsigned i = 1; i <= 50; ++i) {
    EXPECT_EQ(begin_of(*allocate(pool, 3 * kSlab - i * 1000)), first);
  }
  EXPECT_EQ(pool.capacity_bytes(), capacity);
}

TEST(StagingPool, AQueueNeedsTwoSlabsMoreThanItsBytesAtMost) {
  StagingPool pool(2);
  std::vector<std::shared_ptr<StagingBuffer>> queue;
  constexpr std::uint64_t kSize = 5 * kMiB + 100;
  for (unsigned i = 0; i < 200; ++i) {
    queue.push_back(allocate(pool, kSize));
    if (queue.size() > 8) queue.erase(queue.begin());
  }
  EXPECT_LE(pool.capacity_bytes(), 9 * kSize + 2 * kSlab);
  // Small saves lie side by side.
  StagingPool small(1);
  queue.clear();
  for (unsigned i = 0; i < 10'000; ++i) queue.push_back(allocate(small, 100));
  EXPECT_EQ(small.capacity_bytes(), kSlab);
}

TEST(StagingPool, ReservedMemoryHasItsPages) {
  StagingPool pool(2);
  const std::uint64_t size = kSlab + 3 * kMiB;
  ASSERT_TRUE(pool.reserve(size));
  EXPECT_EQ(pool.capacity_bytes(), 2 * kSlab);
  const auto buffer = allocate(pool, size);
  EXPECT_EQ(pool.capacity_bytes(), 2 * kSlab);
  const auto page_size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  for (const auto& [offset, part] :
       {std::pair(std::uint64_t{0}, kSlab), std::pair(kSlab, 3 * kMiB)}) {
    std::vector<unsigned char> is_resident(static_cast<std::size_t>(part) / page_size);
    // The page's address, and mincore takes it without const.
    auto* const memory =
        const_cast<std::byte*>(buffer->view(offset, static_cast<std::size_t>(part), {}).data());
    ASSERT_EQ(mincore(memory, static_cast<std::size_t>(part), is_resident.data()), 0);
    EXPECT_EQ(std::count_if(is_resident.begin(), is_resident.end(),
                            [](unsigned char flags) { return (flags & 1) == 0; }),
              0);
  }
}

TEST(StagingPool, TrimGivesBackWhatNobodyHolds) {
  StagingPool pool(2);
  auto first = filled(pool, 2 * kSlab, 1);
  const auto second = filled(pool, 2 * kSlab, 2);
  first.reset();
  pool.trim();
  EXPECT_EQ(pool.capacity_bytes(), 2 * kSlab);
  EXPECT_TRUE(holds(*second, 2, 256 << 10));
  const auto third = filled(pool, 3 * kSlab, 3);
  EXPECT_EQ(pool.capacity_bytes(), 5 * kSlab);
  EXPECT_TRUE(holds(*second, 2, 256 << 10));
  EXPECT_TRUE(holds(*third, 3, 256 << 10));
}

TEST(StagingPool, ABufferMayOutliveThePool) {
  std::shared_ptr<StagingBuffer> buffer;
  {
    StagingPool pool(1);
    buffer = filled(pool, kPiece, 5);
  }
  EXPECT_TRUE(holds(*buffer, 5, 4096));
}

TEST(StagingPool, TooMuchIsRefusedAndChangesNothing) {
  StagingPool pool(1);
  const auto buffer = filled(pool, 100, 1);
  for (const std::uint64_t size : {std::uint64_t{1} << 60, ~std::uint64_t{0} - 200}) {
    const auto refused = pool.allocate(size);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kLimit);
  }
  EXPECT_EQ(pool.capacity_bytes(), kSlab);
  EXPECT_TRUE(holds(*buffer, 1, 100));
  EXPECT_TRUE(holds(*filled(pool, 100, 2), 2, 100));
}

TEST(StagingPool, ReturnsTheErrorOfTheCopy) {
  StagingPool pool(2);
  const auto buffer = allocate(pool, 4 * kPiece);
  const Result<void> failed = buffer->fill([](std::uint64_t offset, std::span<std::byte>) {
    return offset == 0 ? Result<void>(fail(ErrorCode::kIo, "here")) : Result<void>();
  });
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "here");
}

TEST(StagingPool, EmptyBuffersAreFine) {
  StagingPool pool(2);
  const auto buffer = filled(pool, 0, 1);
  EXPECT_EQ(pool.capacity_bytes(), 0U);
  EXPECT_TRUE(buffer->view(0, 0, {}).empty());
  ASSERT_TRUE(pool.reserve(0));
}

TEST(CopyPastCaches, CopiesEverySizeAndAlignment) {
  constexpr std::size_t kSize = 100'000;
  std::vector<std::byte> source(kSize);
  for (std::size_t i = 0; i < kSize; ++i) source[i] = byte_at(i, 3);
  for (const std::size_t size : {0U, 1U, 63U, 64U, 16383U, 16384U, 16385U, 50000U, 65536U + 17}) {
    for (const std::size_t shift : {0U, 1U, 17U, 63U}) {
      std::vector<std::byte> destination(kSize, std::byte{0xEE});
      copy_past_caches(std::span(destination).subspan(shift, size), source.data() + 5);
      EXPECT_TRUE(std::equal(source.begin() + 5, source.begin() + 5 + static_cast<int>(size),
                             destination.begin() + static_cast<int>(shift)))
          << size << ' ' << shift;
      const auto untouched = std::count(destination.begin(), destination.end(), std::byte{0xEE});
      const auto copied_alike = std::count(
          source.begin() + 5, source.begin() + 5 + static_cast<int>(size), std::byte{0xEE});
      EXPECT_EQ(untouched, static_cast<std::ptrdiff_t>(kSize - size) + copied_alike);
    }
  }
}

// Of [begin, end), which mincore() tells.
std::size_t resident_pages(std::byte* begin, std::size_t count) {
  std::vector<unsigned char> pages(count);
  const auto page_size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  EXPECT_EQ(mincore(begin, count * page_size, pages.data()), 0);
  return static_cast<std::size_t>(std::count_if(
      pages.begin(), pages.end(), [](unsigned char page) { return (page & 1) != 0; }));
}

TEST(PopulateTest, PagesAreThereAndTheirBytesWhatTheyWere) {
  constexpr std::size_t kPages = 64;
  const auto page_size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* const mapped =
      mmap(nullptr, kPages * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(mapped, MAP_FAILED);
  auto* const memory = static_cast<std::byte*>(mapped);
  madvise(memory, kPages * page_size, MADV_NOHUGEPAGE);
  memory[0] = memory[8 * page_size] = std::byte{7};
  ASSERT_EQ(resident_pages(memory, kPages), 2U);
  // From the middle of page 4 to the middle of page 19.
  const int error = populate({memory + 4 * page_size + 100, 15 * page_size});
  if (error == EINVAL) {
    munmap(mapped, kPages * page_size);
    GTEST_SKIP() << "this kernel hands out pages at their first touch only";
  }
  EXPECT_EQ(error, 0);
  EXPECT_EQ(resident_pages(memory, kPages), 1U + 16U);
  EXPECT_EQ(memory[8 * page_size], std::byte{7});
  EXPECT_EQ(memory[9 * page_size], std::byte{0});
  EXPECT_EQ(populate({}), 0);
  EXPECT_EQ(resident_pages(memory, kPages), 1U + 16U);

  // What may not be written stays as it is, and the answer says so.
  ASSERT_EQ(mprotect(memory, page_size, PROT_READ), 0);
  EXPECT_NE(populate({memory, page_size}), 0);
  EXPECT_EQ(memory[0], std::byte{7});
  munmap(mapped, kPages * page_size);
}

}  // namespace
}  // namespace stepstone
