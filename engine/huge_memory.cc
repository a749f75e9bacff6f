#include "engine/huge_memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

namespace stepstone {
namespace {

constexpr std::size_t kHugePageSizeBytes = std::size_t{2} << 20;

}  // namespace

std::shared_ptr<std::byte[]> allocate_huge(std::size_t size_bytes) {
  // Less has no huge page inside of it, or hardly one.
  if (size_bytes < 2 * kHugePageSizeBytes) {
    return std::make_shared_for_overwrite<std::byte[]>(size_bytes);
  }
  void* memory = nullptr;
  if (posix_memalign(&memory, kHugePageSizeBytes, size_bytes) != 0) throw std::bad_alloc();
  // Advice: where the kernel does not take it, small pages do.
  madvise(memory, size_bytes / kHugePageSizeBytes * kHugePageSizeBytes, MADV_HUGEPAGE);
  return {static_cast<std::byte*>(memory), [](std::byte* bytes) { std::free(bytes); }};
}

}  // namespace stepstone
