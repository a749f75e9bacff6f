#include "engine/chunk_places.h"

#include <algorithm>

#include "format/assert.h"

namespace stepstone {
namespace {

constexpr std::uint64_t kBytesBehindValue = 13;

std::uint64_t varint_size_bytes(std::uint64_t value) {
  std::uint64_t size = 1;
  for (; value >= 128; value >>= 7) ++size;
  return size;
}

// Of all chunks that stand under one source alike: the chunk's number has a fixed size.
std::size_t key_size_bytes(const LeafRecord& record, std::uint32_t source, std::string_view item,
                           std::string_view encoded_path) {
  if (source == 0) return chunk_key({}, item, encoded_path, 0).size();
  const ChunkSource& place = record.sources[source - 1];
  return chunk_key({}, place.item, place.encoded_path, 0).size();
}

void keep_used_sources(LeafRecord& record, std::vector<ChunkPlace>& places) {
  if (record.sources.empty()) return;
  std::vector<std::uint32_t> new_numbers(record.sources.size() + 1, 0);
  std::vector<ChunkSource> used;
  const auto renumber = [&](std::uint32_t& source) {
    if (source == 0) return;
    std::uint32_t& number = new_numbers[source];
    if (number == 0) {
      used.push_back(record.sources[source - 1]);
      number = static_cast<std::uint32_t>(used.size());
    }
    source = number;
  };
  for (ChunkPlace& place : places) renumber(place.source);
  for (ChunkBase& base : record.bases) renumber(base.source);
  record.sources = std::move(used);
}

// Of the block of a chunk that stands at `place`.
std::uint64_t block_size_at(const LeafRecord& record, std::uint32_t chunk, const ChunkPlace& place,
                            std::size_t key_size) {
  const std::size_t stored_size = record.stored_size_at(chunk);
  const std::size_t padding_size =
      record.codec_at(chunk) != Codec::kRaw
          ? 0
          : padding_size_bytes(place.offset_bytes, key_size, stored_size, place.alignment_bytes);
  return chunk_block_size_bytes(key_size, padding_size + stored_size);
}

bool is_same_origin(const ChunkPlace& a, const ChunkPlace& b) {
  return a.save == b.save && a.source == b.source;
}

}  // namespace

std::uint64_t chunk_block_size_bytes(std::size_t key_size_bytes, std::size_t value_size_bytes) {
  const std::uint64_t internal_key_size_bytes = key_size_bytes + 8;
  const std::uint64_t header_size_bytes =
      1 + varint_size_bytes(internal_key_size_bytes) + varint_size_bytes(value_size_bytes);
  return header_size_bytes + internal_key_size_bytes + value_size_bytes + kBytesBehindValue;
}

std::size_t padding_size_bytes(std::uint64_t offset_bytes, std::size_t key_size_bytes,
                               std::size_t chunk_size_bytes, std::uint32_t alignment_bytes) {
  if (alignment_bytes == 0) return 0;
  const std::uint64_t begin = offset_bytes +
                              chunk_block_size_bytes(key_size_bytes, chunk_size_bytes) -
                              kBytesBehindValue - chunk_size_bytes;
  return static_cast<std::size_t>(-begin & (alignment_bytes - 1));
}

std::uint64_t value_offset_bytes(const LeafRecord& record, std::string_view item,
                                 std::string_view encoded_path, std::uint32_t chunk,
                                 const ChunkPlace& place) {
  const std::size_t key_size = key_size_bytes(record, place.source, item, encoded_path);
  return place.offset_bytes + block_size_at(record, chunk, place, key_size) - kBytesBehindValue -
         record.stored_size_at(chunk);
}

std::vector<ChunkPlace> places_of(const LeafRecord& record, SaveId own, std::string_view item,
                                  std::string_view encoded_path, std::uint32_t first,
                                  std::uint32_t count) {
  STEPSTONE_ASSERT(std::uint64_t{first} + count <= record.chunk_count());
  std::vector<ChunkPlace> places;
  if (count == 0) return places;
  places.reserve(count);
  std::uint32_t key_source = ~std::uint32_t{0};
  std::size_t key_size = 0;
  const auto size_at = [&](std::uint32_t chunk, const ChunkPlace& place) {
    if (place.source != key_source) {
      key_source = place.source;
      key_size = key_size_bytes(record, place.source, item, encoded_path);
    }
    return block_size_at(record, chunk, place, key_size);
  };
  auto extent = std::upper_bound(
      record.extents.begin(), record.extents.end(), first,
      [](std::uint32_t chunk, const ChunkExtent& e) { return chunk < e.first_chunk; });
  const std::uint32_t begin = extent == record.extents.begin() ? first : (--extent)->first_chunk;
  ChunkPlace place;
  place.alignment_bytes = record.alignment_bytes;
  for (std::uint32_t chunk = begin; chunk < first + count; ++chunk) {
    const ChunkOrigin* const origin = record.origin_of(chunk);
    place.save = origin == nullptr ? own : origin->save;
    place.source = origin == nullptr ? 0 : origin->source;
    if (extent != record.extents.end() && extent->first_chunk == chunk) {
      place.segment = extent->segment;
      place.offset_bytes = extent->offset_bytes;
      ++extent;
    }
    if (chunk >= first) places.push_back(place);
    if (place.has_extent()) place.offset_bytes += size_at(chunk, place);
  }
  return places;
}

void set_places(LeafRecord& record, SaveId own, std::string_view item,
                std::string_view encoded_path, std::vector<ChunkPlace> places) {
  STEPSTONE_ASSERT(places.size() == record.chunk_count());
  record.origins.clear();
  record.extents.clear();
  keep_used_sources(record, places);
  record.alignment_bytes = record.bases.empty() ? 0 : kChunkAlignmentBytes;
  for (const ChunkPlace& place : places) {
    record.alignment_bytes = std::max(record.alignment_bytes, place.alignment_bytes);
  }
  // An extent reaches to the next one, so that the gap behind a run of unknown place could not be
  // told from the run; and an alignment holds for all of them.
  const bool has_extents = std::all_of(places.begin(), places.end(), [&](const ChunkPlace& place) {
    return place.has_extent() && place.alignment_bytes == record.alignment_bytes;
  });
  ChunkPlace expected;  // What the runs so far say about the next chunk.
  for (std::uint32_t chunk = 0; chunk < record.chunk_count(); ++chunk) {
    const ChunkPlace& place = places[chunk];
    const bool continues = chunk != 0 && is_same_origin(place, expected);
    if (place.save != own || place.source != 0) {
      if (continues) {
        ++record.origins.back().chunk_count;
      } else {
        record.origins.push_back({chunk, 1, place.save, place.source});
      }
    }
    if (has_extents && !(continues && place.segment == expected.segment &&
                         place.offset_bytes == expected.offset_bytes)) {
      record.extents.push_back({chunk, place.segment, place.offset_bytes});
    }
    expected = place;
    expected.offset_bytes += block_size_at(
        record, chunk, place, key_size_bytes(record, place.source, item, encoded_path));
  }
}

}  // namespace stepstone
