#pragma once
// Every limit of the formats, in one place. Each is enforced when writing, so that nothing can be
// saved that could not be read, and again when reading, because bytes on a disk are not ours.

#include <cstddef>
#include <cstdint>

namespace stepstone::limits {

// A step is a non-negative 64-bit number: language bindings have signed integers.
inline constexpr std::uint64_t kStepMax = (std::uint64_t{1} << 63) - 1;

inline constexpr std::size_t kNameSizeBytesMax = 4096;  // An item's name, a key, an attribute.
inline constexpr std::size_t kEncodedPathSizeBytesMax = std::size_t{32} << 10;
inline constexpr std::size_t kDepthMax = 128;  // Components in a leaf path, nesting of a tree.
inline constexpr std::size_t kItemsPerStepMax = 1024;
inline constexpr std::uint32_t kNodesPerItemMax = std::uint32_t{1} << 25;

inline constexpr std::size_t kRankMax = 32;
inline constexpr std::uint32_t kChunkSizeBytesMin = std::uint32_t{4} << 10;
inline constexpr std::uint32_t kChunkSizeBytesMax = std::uint32_t{16} << 20;
inline constexpr std::uint32_t kChunksPerLeafMax = std::uint32_t{1} << 22;
inline constexpr std::uint32_t kChunkAlignmentBytesMax = std::uint32_t{4} << 10;
inline constexpr std::uint64_t kLeafSizeBytesMax = std::uint64_t{1} << 40;

// RocksDB 7.8 truncates values of 4 GiB without a word, and flatbuffers end at 2 GiB.
inline constexpr std::size_t kRecordSizeBytesMax = std::size_t{1} << 30;
inline constexpr std::size_t kInlineSizeBytesMax = std::size_t{64} << 10;
inline constexpr std::size_t kMetadataSizeBytesMax = std::size_t{64} << 20;  // JSON text.
// Also JSON text; rewritten by every commit.
inline constexpr std::size_t kStoreMetadataSizeBytesMax = std::size_t{64} << 10;
inline constexpr std::size_t kSegmentsPerStepMax = 4096;
inline constexpr std::size_t kSourcesPerLeafMax = 1024;
inline constexpr std::size_t kOriginSavesPerStepMax = std::size_t{64} << 10;

// Of a portable file's index.
inline constexpr std::size_t kIndexPageEntriesMax = 1024;
inline constexpr std::uint32_t kIndexLevelMax = 31;

}  // namespace stepstone::limits
