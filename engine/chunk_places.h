#pragma once
// Where the chunks of a leaf stand, one by one: what a LeafRecord says in runs (origins and
// extents), and the layout of the data blocks that it follows from.

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "format/records.h"

namespace stepstone {

struct ChunkPlace {
  static constexpr std::uint32_t kUnknownSegment = ~std::uint32_t{0};

  SaveId save;
  std::uint32_t source = 0;                 // As in ChunkOrigin.
  std::uint32_t segment = kUnknownSegment;  // Among the segments of `save`.
  std::uint64_t offset_bytes = 0;           // Of the chunk's data block in that segment.
  std::uint32_t alignment_bytes = 0;        // As in LeafRecord: what it was padded for, if raw.

  bool has_extent() const { return segment != kUnknownSegment; }
};

// Raw chunks are brought to multiples of this in their files: from other addresses the kernel's
// copy to a restored array, which is aligned itself, takes a fifth longer.
inline constexpr std::uint32_t kChunkAlignmentBytes = 64;

// In a segment of chunks each has a data block of its own. What RocksDB puts around key and value
// there: a header of three numbers, 8 bytes behind the key, a table of one restart point, the
// block's trailer.
std::uint64_t chunk_block_size_bytes(std::size_t key_size_bytes, std::size_t value_size_bytes);

// The zeros in front of a raw chunk in its value, if the block begins at `offset_bytes` of a file.
// `alignment_bytes` is 0 (none) or a power of two.
std::size_t padding_size_bytes(std::uint64_t offset_bytes, std::size_t key_size_bytes,
                               std::size_t chunk_size_bytes, std::uint32_t alignment_bytes);

// Where in its file the value of a chunk begins whose place has an extent.
std::uint64_t value_offset_bytes(const LeafRecord& record, std::string_view item,
                                 std::string_view encoded_path, std::uint32_t chunk,
                                 const ChunkPlace& place);

// The places of the chunks [first, first + count) of the leaf that `record` describes, which stands
// at `item` and `encoded_path` in `own`. The range must be inside the leaf.
std::vector<ChunkPlace> places_of(const LeafRecord& record, SaveId own, std::string_view item,
                                  std::string_view encoded_path, std::uint32_t first,
                                  std::uint32_t count);

// The other way: fills in the origins and extents of `record`, whose sources, stored sizes and
// bases are complete, from one place per chunk; its alignment too. Sources that no place and no
// base uses are dropped.
void set_places(LeafRecord& record, SaveId own, std::string_view item,
                std::string_view encoded_path, std::vector<ChunkPlace> places);

}  // namespace stepstone
