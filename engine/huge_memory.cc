#include "engine/huge_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <new>

namespace stepstone {
namespace {

// Free page reporting is on when the kernel has the order of the blocks that it reports; without a
// hypervisor that listens, the order is negative or above any that there is.
bool reports_free_pages() {
  constexpr int kOrderMax = 9;  // 2 MiB.
  std::ifstream file("/sys/module/page_reporting/parameters/page_reporting_order");
  int order = -1;
  return file >> order && order >= 0 && order <= kOrderMax;
}

std::shared_ptr<std::byte[]> allocate_aligned(std::size_t alignment, std::size_t size_bytes,
                                              bool is_huge) {
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, size_bytes) != 0) throw std::bad_alloc();
  // Advice: where the kernel does not take it, small pages do.
  if (is_huge) madvise(memory, size_bytes / kHugePageSizeBytes * kHugePageSizeBytes, MADV_HUGEPAGE);
  return {static_cast<std::byte*>(memory), [](std::byte* bytes) { std::free(bytes); }};
}

}  // namespace

bool huge_pages_pay() {
  static const bool kPay = !reports_free_pages();
  return kPay;
}

std::shared_ptr<std::byte[]> allocate_huge(std::size_t size_bytes) {
  // What the bytes are handed to may want whole cache lines, as XLA does.
  constexpr std::size_t kAlignment = 64;
  if (size_bytes < kAlignedSizeBytesMin)
    return std::make_shared_for_overwrite<std::byte[]>(size_bytes);
  // Less has no huge page inside of it, or hardly one.
  const bool is_huge = size_bytes >= 2 * kHugePageSizeBytes && huge_pages_pay();
  return allocate_aligned(is_huge ? kHugePageSizeBytes : kAlignment, size_bytes, is_huge);
}

std::shared_ptr<std::byte[]> allocate_direct_io(std::size_t size_bytes) {
  return allocate_aligned(kHugePageSizeBytes, size_bytes, true);
}

int populate(std::span<std::byte> memory) {
  if (memory.empty()) return 0;
#ifdef MADV_POPULATE_WRITE
  static const auto kPageSizeBytes = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const std::size_t before = reinterpret_cast<std::uintptr_t>(memory.data()) % kPageSizeBytes;
  if (madvise(memory.data() - before, before + memory.size(), MADV_POPULATE_WRITE) == 0) return 0;
  return errno;
#else
  return EINVAL;
#endif
}

void prepare_to_fill(std::span<std::byte> memory) {
  // A few first touches cost no more than a call.
  constexpr std::size_t kSizeBytesMin = std::size_t{32} << 10;
  if (memory.size() >= kSizeBytesMin) populate(memory);
}

}  // namespace stepstone
