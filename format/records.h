#pragma once
// The records as values, and their bytes.
//
// On disk a record is a flatbuffer (format/schema/*.fbs) followed by the 16 bytes of its XXH3-128
// hash (low half first, little-endian). It carries its own key. decode_* check, in this order:
// size, hash, file identifier, flatbuffer structure, format version, required features, own key
// against the key that it was read under, and then the meaning of every field; a value that comes
// out of them is safe to use. Errors of every decode_*: kCorrupt; kUnsupported for a newer version
// or an unknown required feature. Errors of every encode_*: kLimit, kInvalidArgument, for a value
// that decode_* would refuse.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dtype.h"
#include "error.h"
#include "hash.h"
#include "keys.h"
#include "tree_structure.h"

namespace stepstone {

inline constexpr std::uint32_t kFormatVersion = 1;
// Bits of `required_features`. In a LeafRecord: it has an alignment. In everything else there are
// none yet.
inline constexpr std::uint64_t kFeatureAlignment = 1;

struct StoreRecord {
  Hash128 store_id;
  std::int64_t created_unix_ns = 0;
  std::uint64_t sequence = 0;
  std::uint64_t step_count = 0;
  Hash128 steps_digest;
  std::uint64_t newest_step = 0;
  Hash128 newest_step_hash;
  std::uint32_t next_generation = 1;
  std::string custom_metadata;      // JSON text, or empty.
  std::string preservation_policy;  // JSON text, or empty: by which rule steps are kept.

  bool operator==(const StoreRecord&) const = default;
};

struct ItemSummary {
  std::string name;
  std::string handler;
  std::uint64_t leaf_count = 0;
  std::uint64_t size_bytes = 0;

  bool operator==(const ItemSummary&) const = default;
};

struct SegmentInfo {
  std::uint64_t size_bytes = 0;
  std::uint64_t data_size_bytes = 0;
  Hash128 tail_hash;

  bool operator==(const SegmentInfo&) const = default;
};

enum class Placement : std::uint8_t { kSegments = 0, kSmall = 1 };

struct StepRecord {
  SaveId save;
  std::uint64_t sequence = 0;
  Hash128 previous_hash;
  std::int64_t started_unix_ns = 0;
  std::int64_t committed_unix_ns = 0;
  std::uint64_t size_bytes = 0;
  Placement placement = Placement::kSegments;
  std::vector<SegmentInfo> segments;
  std::vector<ItemSummary> items;    // Sorted by name, names distinct.
  std::string metrics;               // JSON text, or empty.
  std::string custom_metadata;       // JSON text, or empty.
  std::vector<SaveId> origin_saves;  // Other saves that hold chunks of this step, ascending.
  std::string store_metadata;        // Of the highest step in a portable file; JSON text, or empty.

  bool operator==(const StepRecord&) const = default;
};

struct ItemRecord {
  std::string handler;
  std::uint64_t leaf_count = 0;
  std::uint64_t size_bytes = 0;
  TreeStructure structure;
  std::string custom_metadata;  // JSON text, or empty.

  bool operator==(const ItemRecord&) const = default;
};

// How a chunk is stored; format/chunk_codec.h.
enum class Codec : std::uint8_t { kRaw = 0, kConstant = 1, kPlanes = 2, kDelta = 3 };
inline constexpr Codec kCodecLast = Codec::kDelta;

// A run of chunks that stand elsewhere, each under its own number.
struct ChunkOrigin {
  std::uint32_t first_chunk = 0;
  std::uint32_t chunk_count = 0;
  SaveId save;
  std::uint32_t source = 0;  // 0: the leaf's own item and path; n: those of sources[n - 1].

  bool operator==(const ChunkOrigin&) const = default;
};

struct ChunkSource {
  std::string item;
  std::string encoded_path;

  bool operator==(const ChunkSource&) const = default;
};

// Where the chunks from `first_chunk` up to the next extent's stand back to back in a file. A hint
// that saves the look-up by key; what is read with its help is to be checked like anything else.
struct ChunkExtent {
  std::uint32_t first_chunk = 0;
  std::uint32_t segment = 0;  // Among the segments of the save that holds the chunks.
  std::uint64_t offset_bytes = 0;

  bool operator==(const ChunkExtent&) const = default;
};

// What a chunk of codec delta differs from: the chunk of the same number and size in some leaf,
// which is no delta itself.
struct ChunkBase {
  std::uint32_t chunk = 0;
  SaveId save;               // That holds it.
  std::uint32_t source = 0;  // As in ChunkOrigin.
  Codec codec = Codec::kRaw;
  std::uint32_t stored_size = 0;  // In bytes.
  Hash128 hash;

  bool operator==(const ChunkBase&) const = default;
};

struct LeafRecord {
  LeafKind kind = LeafKind::kArray;
  std::optional<DType> dtype;  // Set exactly for kArray.
  std::vector<std::uint64_t> shape;
  std::uint64_t size_bytes = 0;
  std::uint32_t chunk_size_bytes = 0;
  std::vector<Hash128> hashes;
  std::optional<std::vector<std::byte>> inline_bytes;
  std::vector<Codec> codecs;
  std::vector<ChunkOrigin> origins;
  std::vector<ChunkSource> sources;
  std::vector<std::uint32_t> stored_sizes;  // One per chunk, in bytes; empty: those of the chunks.
  std::vector<ChunkExtent> extents;
  std::vector<ChunkBase> bases;  // One per chunk of codec delta, ascending.
  // The values of raw chunks, the leaf's and of its bases, may begin with zeros, fewer than this,
  // that do not belong to the chunk. Where extents lead they are as many as bring the chunk to a
  // multiple of it in the file. 0 or a power of two.
  std::uint32_t alignment_bytes = 0;

  bool operator==(const LeafRecord&) const = default;

  std::uint32_t chunk_count() const { return static_cast<std::uint32_t>(hashes.size()); }
  // Size of chunk `chunk`, which must be below chunk_count().
  std::size_t chunk_size_at(std::uint32_t chunk) const;
  // Of its value in the database.
  std::size_t stored_size_at(std::uint32_t chunk) const;
  Codec codec_at(std::uint32_t chunk) const;
  // The one that covers `chunk`, or null: it is in the leaf's own place.
  const ChunkOrigin* origin_of(std::uint32_t chunk) const;
  // What `chunk` differs from, or null: it is no delta.
  const ChunkBase* base_of(std::uint32_t chunk) const;
};

// `key` is the database key that the record will stand under.
Result<std::string> encode(const StoreRecord& record, std::string_view key);
Result<std::string> encode(const StepRecord& record, std::string_view key);
Result<std::string> encode(const ItemRecord& record, std::string_view key);
Result<std::string> encode(const LeafRecord& record, std::string_view key);

// What encode() would refuse about a leaf, found before a byte of it is written.
Result<void> check(const LeafRecord& record);

Result<StoreRecord> decode_store_record(std::string_view bytes, std::string_view key);
Result<StepRecord> decode_step_record(std::string_view bytes, std::string_view key);
// Of the structure, the part at `below` (see substructure()) and no more, unless that is empty. The
// counts stay those of the whole item. kNotFound: it has no such node.
Result<ItemRecord> decode_item_record(std::string_view bytes, std::string_view key,
                                      const LeafPath& below = {});
Result<LeafRecord> decode_leaf_record(std::string_view bytes, std::string_view key);

// The hash that closes an encoded record; `bytes` must have come out of encode() or passed a
// decode_*.
Hash128 record_hash(std::string_view bytes);

}  // namespace stepstone
