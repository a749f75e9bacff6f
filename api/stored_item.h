#pragma once
// An item, or a part of it, as its records describe it, before any of its bytes are read.

#include <string>
#include <string_view>
#include <vector>

#include "api/item_metadata.h"
#include "api/tree.h"
#include "engine/store.h"

namespace stepstone {

struct StoredItem {
  std::string where;  // "step 40 item 'state'", for messages.
  std::string name;
  ItemRecord record;               // With the structure of what was read.
  std::vector<StoredLeaf> leaves;  // Sorted by path.
  // The containers; each leaf is the number of its entry in `leaves`.
  Tree skeleton;

  // `subtree` is the path, as it is shown, of the part to read; empty: all of it. Other parts cost
  // nothing where it is a leaf, and where it is a container as good as nothing: the item's
  // structure is one record. kNotFound: no such item or node. kInvalidArgument: no path. kCorrupt,
  // kIo.
  static Result<StoredItem> read(const StepReader& reader, std::string_view name,
                                 const std::string& subtree = {});

  // Of a leaf of the skeleton.
  const LeafRecord& record_of(const Tree& leaf) const;
};

// What the records of a leaf say; a target that it fits as it is.
Leaf abstract_leaf(const LeafRecord& record);

// The value of a leaf of any kind but an array. kCorrupt: these are not the bytes of such a value.
Result<Leaf> decode_value(const LeafRecord& record, std::span<const std::byte> bytes);

}  // namespace stepstone
