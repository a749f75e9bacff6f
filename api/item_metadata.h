#pragma once
// What a checkpoint says about an item without reading its arrays.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
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

struct StepMetadata {
  std::uint64_t step = 0;
  std::vector<std::pair<std::string, ItemMetadata>> items;  // By name.
  Tree metrics;                                             // None: it was saved without.
  Tree custom_metadata;                                     // None: it was saved without.
  std::int64_t init_timestamp_ns = 0;  // When the save began and was committed, since 1970.
  std::int64_t commit_timestamp_ns = 0;
  std::uint64_t size_bytes = 0;  // Of all leaves.

  // Null: there is no such item. Valid as long as this.
  const ItemMetadata* find(std::string_view item) const;
};

}  // namespace stepstone
