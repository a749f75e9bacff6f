#pragma once
// What a checkpoint says about an item without reading its arrays.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tree.h"

namespace stepstone {

struct LeafMetadata {
  std::string path;  // As it is shown: "params/dense/w".
  LeafKind kind = LeafKind::kArray;
  std::optional<DType> dtype;  // Of arrays.
  std::vector<std::uint64_t> shape;
  std::uint64_t size_bytes = 0;
  // In the store, compressed; bytes that several leaves or steps share are counted for each.
  std::uint64_t stored_bytes = 0;
  std::uint32_t chunk_size_bytes = 0;

  bool operator==(const LeafMetadata&) const = default;
};

struct ItemMetadata {
  std::string handler;   // The name of the handler that saved it.
  Tree custom_metadata;  // None: it was saved without.
  // The item as it is stored, an AbstractArray for each array and an empty value (0, 0.0, "") for
  // each other leaf: a target that restores it as it is. A handler may store an item otherwise than
  // it was given: a JSON item is one string.
  Tree tree;
  std::vector<LeafMetadata> leaves;  // In the order of the tree.
  std::uint64_t size_bytes = 0;      // Of all leaves.
  std::uint64_t stored_bytes = 0;

  bool operator==(const ItemMetadata&) const = default;
};

}  // namespace stepstone
