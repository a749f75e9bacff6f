#pragma once
// What a save is going to write, leaf by leaf.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/chunk_places.h"
#include "engine/leaf_source.h"
#include "engine/store.h"
#include "format/chunk_codec.h"
#include "format/records.h"

namespace stepstone {

struct PlannedItem {
  std::string handler;
  TreeStructure structure;
  std::string custom_metadata;
  std::uint64_t leaf_count = 0;
  std::uint64_t size_bytes = 0;
};

// What an earlier step holds of a leaf.
struct BaseLeaf {
  LeafRecord record;
  std::vector<ChunkPlace> places;
  std::vector<bool> is_offered;  // The chunks that may be referred to; empty: all.

  // What a delta of the chunk of this number would differ from: that chunk, or, where it is a delta
  // itself, what that one differs from. nullopt: there is none.
  std::optional<ChunkBase> delta_base(const LeafRecord& leaf, std::uint32_t chunk) const {
    if (chunk >= record.chunk_count() || (!is_offered.empty() && !is_offered[chunk]) ||
        record.chunk_size_at(chunk) != leaf.chunk_size_at(chunk)) {
      return std::nullopt;
    }
    if (const ChunkBase* const base = record.base_of(chunk)) return *base;
    return ChunkBase{.chunk = chunk,
                     .save = places[chunk].save,
                     .source = places[chunk].source,
                     .codec = record.codec_at(chunk),
                     .stored_size = static_cast<std::uint32_t>(record.stored_size_at(chunk)),
                     .hash = record.hashes[chunk]};
  }

  // Whether it has the same chunk as `leaf`, whose hash is known.
  bool has(const LeafRecord& leaf, std::uint32_t chunk) const {
    return chunk < record.chunk_count() && (is_offered.empty() || is_offered[chunk]) &&
           record.chunk_size_at(chunk) == leaf.chunk_size_at(chunk) &&
           record.hashes[chunk] == leaf.hashes[chunk];
  }
};

struct PlannedLeaf {
  const std::string* item = nullptr;  // Points to the key of the item's entry, which does not move.
  std::string encoded_path;
  LeafRecord record;
  std::shared_ptr<const LeafSource> source;
  bool is_inline = false;
  bool is_shareable = true;
  Compression compression = Compression::kNone;
  bool is_encoded = false;  // Its chunks go through the encoder...
  bool is_delta = false;    // ...as differences from those of `base`, where that is smaller.
  bool is_hashed = false;   // The record's hashes are known before the chunks are written.
  const PlannedLeaf* equal = nullptr;  // A leaf of the same save with the same bytes.
  std::unique_ptr<BaseLeaf> base;      // Null: nothing to share with.
  std::vector<ChunkPlace> places;      // One per chunk, unless inline.
  std::vector<ChunkBase> bases;        // Of the chunks that are deltas, by number; empty: none is.

  ElementLayout layout() const {
    return record.dtype ? element_layout(*record.dtype) : ElementLayout();
  }
  // Chunks that need to be looked at: those of an equal leaf stand there.
  std::uint32_t planned_chunk_count() const {
    return is_inline || equal != nullptr ? 0 : record.chunk_count();
  }
};

// kLimit: the chunk size is out of bounds.
Result<void> check_chunk_size(std::uint32_t size_bytes);

// The record of a leaf that is to be saved, its hashes yet unknown. kInvalidArgument, kLimit: the
// description does not hold together.
Result<LeafRecord> plan_record(const LeafInfo& info, std::uint32_t chunk_size_bytes);

// Exactly one leaf for each place of the structure; `paths` ascend. kMismatch: names the first for
// which that does not hold. kInvalidArgument, kLimit: no tree has this structure.
Result<void> check_paths(std::uint64_t step, const std::string& item,
                         const TreeStructure& structure,
                         const std::vector<const std::string*>& paths);

}  // namespace stepstone
