#pragma once
// Memory to measure with: page-aligned, huge-page advised and faulted in before any clock runs.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "format/error.h"

namespace stepstone::bench {

// The size of a raw read or write, and what Memory is padded to: O_DIRECT writes whole pieces.
inline constexpr std::size_t kPieceBytes = std::size_t{1} << 20;

class Memory {
 public:
  Memory() = default;
  // Zeros, all pages faulted in. kLimit.
  static Result<Memory> allocate(std::size_t size_bytes);

  std::size_t size_bytes() const { return size_bytes_; }
  std::span<std::byte> bytes() { return {memory_.get(), size_bytes_}; }
  std::span<const std::byte> bytes() const { return {memory_.get(), size_bytes_}; }
  // Keeps the memory alive.
  std::shared_ptr<const void> owner() const { return memory_; }

 private:
  std::shared_ptr<std::byte> memory_;
  std::size_t size_bytes_ = 0;
};

// Normally distributed float32 numbers that depend on `seed` and their position alone.
void fill_normal(std::span<std::byte> bytes, std::uint64_t seed);

// A well-mixed 64-bit number for each input: splitmix64's finalizer (Steele, Lea and Flood, 2014).
std::uint64_t mix(std::uint64_t value);

// A field of /proc/self/status such as "VmHWM", in bytes.
std::uint64_t status_bytes(const char* name);
// From here on VmHWM, the peak of the resident memory, counts anew.
void reset_peak();

}  // namespace stepstone::bench
