#include "tools/bench/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <string>

#include "engine/parallel.h"
#include "tools/system.h"

namespace stepstone::bench {
namespace {

constexpr std::size_t kIntervals = 4096;

// The normal distribution's quantiles at i / kIntervals, by bisection; a number is drawn by
// choosing an interval and a point in it. The two outermost intervals end at 5 standard deviations.
std::array<float, kIntervals + 1> make_quantiles() {
  std::array<float, kIntervals + 1> quantiles = {};
  for (std::size_t i = 0; i <= kIntervals; ++i) {
    const double probability = static_cast<double>(i) / kIntervals;
    double low = -5;
    double high = 5;
    for (int step = 0; step < 40; ++step) {
      const double middle = (low + high) / 2;
      (std::erfc(-middle / std::sqrt(2.0)) / 2 < probability ? low : high) = middle;
    }
    quantiles[i] = static_cast<float>((low + high) / 2);
  }
  return quantiles;
}

}  // namespace

Result<Memory> Memory::allocate(std::size_t size_bytes) {
  const std::size_t padded =
      std::max<std::size_t>(1, (size_bytes + kPieceBytes - 1) / kPieceBytes) * kPieceBytes;
  void* const pages =
      ::mmap(nullptr, padded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) {
    return fail(ErrorCode::kLimit, "memory for the benchmark: " + std::string(strerror(errno)));
  }
  Memory memory;
  memory.memory_ = {static_cast<std::byte*>(pages),
                    [padded](std::byte* begin) { ::munmap(begin, padded); }};
  memory.size_bytes_ = size_bytes;
  ::madvise(pages, padded, MADV_HUGEPAGE);
  const auto touch = [&](std::size_t piece) -> Result<void> {
    std::memset(memory.memory_.get() + piece * kPieceBytes, 0, kPieceBytes);
    return {};
  };
  STEPSTONE_TRY(parallel_for(effective_thread_count(0), padded / kPieceBytes, touch));
  return memory;
}

std::uint64_t mix(std::uint64_t value) {
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EB;
  return value ^ (value >> 31);
}

void fill_normal(std::span<std::byte> bytes, std::uint64_t seed) {
  static const std::array<float, kIntervals + 1> kQuantiles = make_quantiles();
  const auto draw = [](std::uint32_t random) {
    const std::size_t interval = random >> 20;
    const float place = static_cast<float>(random & 0xFFFFF) * 0x1p-20F;
    return kQuantiles[interval] + place * (kQuantiles[interval + 1] - kQuantiles[interval]);
  };
  const auto fill_piece = [&](std::size_t piece) -> Result<void> {
    const std::size_t begin = piece * kPieceBytes;
    const std::size_t end = std::min(begin + kPieceBytes, bytes.size());
    std::uint64_t state = mix(seed * 0x9E3779B97F4A7C15 + piece);
    for (std::size_t offset = begin; offset < end; offset += 2 * sizeof(float)) {
      state += 0x9E3779B97F4A7C15;
      const std::uint64_t random = mix(state);
      const float numbers[] = {draw(static_cast<std::uint32_t>(random)),
                               draw(static_cast<std::uint32_t>(random >> 32))};
      std::memcpy(bytes.data() + offset, numbers, std::min(sizeof(numbers), end - offset));
    }
    return {};
  };
  const std::size_t pieces = (bytes.size() + kPieceBytes - 1) / kPieceBytes;
  (void)parallel_for(effective_thread_count(0), pieces, fill_piece);
}

std::uint64_t status_bytes(const char* name) {
  std::ifstream status("/proc/self/status");
  const std::string wanted = std::string(name) + ":";
  std::string word;
  std::uint64_t kibibytes = 0;
  while (status >> word && word != wanted) {
  }
  status >> kibibytes;
  return kibibytes * 1024;
}

void reset_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

}  // namespace stepstone::bench
