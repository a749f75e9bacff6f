#pragma once
// What a file of another format holds, as a step's item would hold it: the one value that every
// reader gives and every writer takes.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/leaf_source.h"
#include "engine/store.h"
#include "format/error.h"
#include "format/tree_structure.h"

namespace stepstone::tool {

// What a stranger's file may grow to when it is unpacked, as a multiple of its own size: what
// deflate reaches at most. Views that name the same bytes again and again, and archives whose
// entries do, are held to it too.
inline constexpr std::uint64_t kExpansionMax = 1032;

// A leaf and where its bytes come from.
struct ContentLeaf {
  std::string encoded_path;
  LeafInfo info;
  std::shared_ptr<const LeafSource> source;
  // How much of it is best read at once, from multiples of the same: whole chunks where it comes
  // out of a store. A multiple of 16.
  std::uint64_t piece_size_bytes = std::uint64_t{4} << 20;
};

struct Contents {
  TreeStructure structure;
  std::vector<ContentLeaf> leaves;  // Those of the structure, in any order.
  std::string custom_metadata;      // JSON text for the item, or empty.

  std::uint64_t size_bytes() const;  // Of all leaves.
};

// The name of a leaf in a format that has flat names: the parts of its path joined by '.'.
// kUnsupported: the item is itself one leaf, which has no name.
Result<std::string> flat_name(const std::string& encoded_path);

// The names of all leaves, in their order. kInvalidArgument: two leaves would have the same one,
// as those of {'a.b': 1, 'a': {'b': 2}}. kUnsupported: as flat_name(), or a leaf that is not an
// array, which `format_name` cannot hold.
Result<std::vector<std::string>> flat_names(const Contents& contents, std::string_view format_name);

// The structure of a flat dict with these keys.
TreeStructure flat_dict(const std::vector<std::string>& keys);

// An array as a leaf of a flat dict. kLimit: a name over limits::kNameSizeBytesMax, or a shape over
// the limits.
Result<ContentLeaf> flat_leaf(std::string name, DType dtype, std::vector<std::uint64_t> shape,
                              std::shared_ptr<const LeafSource> source);

// Calls `consume` with the bytes of a leaf from front to back. Memory: one piece. Whatever
// `consume` returns as an error ends it.
Result<void> stream(const ContentLeaf& leaf,
                    const std::function<Result<void>(std::span<const std::byte> piece)>& consume);

// A name from a file, fit for a message whatever it holds and however long it is.
std::string shown(std::string_view name);

}  // namespace stepstone::tool
