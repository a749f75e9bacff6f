#pragma once
// The one hash of the formats: XXH3-128, seed 0, over bytes exactly as they stand. It finds
// accidents (flipped bits, torn writes, misplaced blocks), not forgeries.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace stepstone {

struct Hash128 {
  std::uint64_t low = 0;
  std::uint64_t high = 0;

  auto operator<=>(const Hash128&) const = default;
};

// Runs at memory speed: the widest vector unit of this processor is chosen at run time.
Hash128 hash128(std::span<const std::byte> bytes);

// 32 hexadecimal digits, the high half first.
std::string to_string(Hash128 hash);

// Addition modulo 2^128 per half: a digest of a set that does not depend on the order and from
// which a member can be taken away again. HEAD uses it to witness exactly which step records exist.
inline Hash128 operator+(Hash128 a, Hash128 b) { return {a.low + b.low, a.high + b.high}; }
inline Hash128 operator-(Hash128 a, Hash128 b) { return {a.low - b.low, a.high - b.high}; }

}  // namespace stepstone
