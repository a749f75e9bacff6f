#pragma once
// The shape of an item's tree without its leaves: which containers it has, of which kind, in which
// order their children stand. Leaf paths alone cannot tell a list from a tuple, or show an empty
// dict.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "error.h"
#include "leaf_path.h"

namespace stepstone {

enum class NodeKind : std::uint8_t {
  kLeaf = 1,
  kDict = 2,        // Children labelled by integer or string keys, in the caller's order.
  kList = 3,        // Children are positions.
  kTuple = 4,       // Children are positions.
  kNamedTuple = 5,  // Children labelled by attributes; has a type name.
  kCustom =
      6,  // A dataclass or another registered node: attributes, keys or positions; a type name.
};

std::string_view to_string(NodeKind kind);

// Preorder, as parallel vectors.
struct TreeStructure {
  std::vector<NodeKind> kinds;
  std::vector<std::uint32_t> child_counts;  // One per container.
  std::vector<std::string> type_names;      // Each name once.
  std::vector<std::uint32_t> type_indices;  // One per kNamedTuple and kCustom.
  std::string labels;  // Encoded components of the children of kDict, kNamedTuple and kCustom.

  bool operator==(const TreeStructure&) const = default;
};

// Visits the nodes in preorder.
struct TreeVisitor {
  // `label` is null for the root. Called for every node; `type_name` is empty where there is none.
  std::function<Result<void>(NodeKind kind, const PathComponent* label, std::string_view type_name,
                             std::uint32_t child_count)>
      enter;
  // `encoded_path` is closed. Called for every leaf, after enter.
  std::function<Result<void>(const std::string& encoded_path)> leaf;
  // Called when all children of a container have been visited.
  std::function<Result<void>(NodeKind kind)> leave;
  // The structure was visited before without an error, or decoded: siblings are not compared again.
  bool is_checked = false;
};

// Checks the structure while it walks it (counts, labels, depth, limits, siblings distinct):
// kCorrupt for anything that does not hold, or the visitor's own error. Callbacks may be empty.
Result<void> visit(const TreeStructure& structure, const TreeVisitor& visitor);

// The part of a structure that is the node at `path` and what stands below it; the type names that
// it uses alone. What it passes over is not looked into, and takes a few nanoseconds a node.
// kNotFound: there is no such node. kCorrupt: there is less than the counts say.
Result<TreeStructure> substructure(const TreeStructure& structure, const LeafPath& path);

// The structure without the leaves that `keep` says no to, and without the containers that have
// lost all of theirs; nullopt: nothing is left. Paths stay what they are, so that the children of a
// list or tuple can only be left out from its end on: kInvalidArgument for any other. The errors of
// `keep`; kCorrupt, as of visit().
Result<std::optional<TreeStructure>> prune(
    const TreeStructure& structure,
    const std::function<Result<bool>(const std::string& encoded_path)>& keep);

// The structure of a tree that is one leaf and nothing else.
TreeStructure leaf_structure();

}  // namespace stepstone
