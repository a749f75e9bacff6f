#pragma once
// What a save is going to write, leaf by leaf.

#include <cstdint>
#include <memory>
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
};

struct PlannedLeaf {
  const std::string* item = nullptr;  // Points to the key of the item's entry, which does not move.
  std::string encoded_path;
  LeafRecord record;
  std::shared_ptr<const LeafSource> source;
  bool is_inline = false;
  bool is_shareable = true;
  Compression compression = Compression::kNone;
  bool is_encoded = false;  // Its chunks go through the encoder.
  bool is_hashed = false;   // The record's hashes are known before the chunks are written.
  const PlannedLeaf* equal = nullptr;  // A leaf of the same save with the same bytes.
  std::unique_ptr<BaseLeaf> base;      // Null: nothing to share with.
  std::vector<ChunkPlace> places;      // One per chunk, unless inline.

  ElementLayout layout() const {
    return record.dtype ? element_layout(*record.dtype) : ElementLayout();
  }
  // Chunks that need to be looked at: those of an equal leaf stand there.
  std::uint32_t planned_chunk_count() const {
    return is_inline || equal != nullptr ? 0 : record.chunk_count();
  }
};

}  // namespace stepstone
