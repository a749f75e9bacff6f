#pragma once
// What the reader and the writer of GGUF files share.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "format/dtype.h"

namespace stepstone::tool::gguf {

inline constexpr std::string_view kMagic = "GGUF";
inline constexpr std::uint32_t kVersion = 3;
inline constexpr std::uint64_t kAlignmentBytes = 32;  // Unless `general.alignment` says another.
inline constexpr std::size_t kRankMax = 4;            // ggml's.

// ggml's numbers of what a store has, too.
inline constexpr std::array<std::pair<std::uint32_t, DType>, 8> kTypes = {{
    {0, DType::kFloat32},
    {1, DType::kFloat16},
    {24, DType::kInt8},
    {25, DType::kInt16},
    {26, DType::kInt32},
    {27, DType::kInt64},
    {28, DType::kFloat64},
    {30, DType::kBfloat16},
}};

// `size_bytes` must be so far from 2^64 that it can be rounded up.
inline std::uint64_t aligned(std::uint64_t size_bytes, std::uint64_t alignment_bytes) {
  return (size_bytes + alignment_bytes - 1) / alignment_bytes * alignment_bytes;
}

}  // namespace stepstone::tool::gguf
