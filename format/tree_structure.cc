#include "format/tree_structure.h"

#include <cstddef>
#include <unordered_map>
#include <unordered_set>

#include "format/limits.h"

namespace stepstone {
namespace {

bool has_labels(NodeKind kind) {
  return kind == NodeKind::kDict || kind == NodeKind::kNamedTuple || kind == NodeKind::kCustom;
}

bool has_type_name(NodeKind kind) {
  return kind == NodeKind::kNamedTuple || kind == NodeKind::kCustom;
}

bool may_label(NodeKind parent, PathComponent::Kind label) {
  switch (parent) {
    case NodeKind::kDict:
      return label == PathComponent::Kind::kIntegerKey || label == PathComponent::Kind::kStringKey;
    case NodeKind::kNamedTuple:
      return label == PathComponent::Kind::kAttribute;
    default:
      return true;
  }
}

tl::unexpected<Error> corrupt_tree(std::string_view what) {
  return fail(ErrorCode::kCorrupt, "tree structure: " + std::string(what));
}

// Tells whether labels differ, cheaply while each is greater than the one before, as in a dict
// whose keys were sorted.
class DistinctLabels {
 public:
  // False: it was there. The views must last.
  bool insert(std::string_view label) {
    if (unsorted_.empty() && (sorted_.empty() || sorted_.back() < label)) {
      sorted_.push_back(label);
      return true;
    }
    if (unsorted_.empty()) unsorted_.insert(sorted_.begin(), sorted_.end());
    return unsorted_.insert(label).second;
  }

 private:
  std::vector<std::string_view> sorted_;
  std::unordered_set<std::string_view> unsorted_;  // All of them, once one was out of order.
};

// A container whose children are being visited.
struct OpenNode {
  NodeKind kind;
  std::uint32_t child_count;
  std::uint32_t next_child = 0;
  std::size_t path_size = 0;   // Of the encoded path to this node.
  DistinctLabels labels = {};  // Of the children so far; views into the structure.
};

// One pass over a structure; the members are cursors into its vectors.
class Walk {
 public:
  Walk(const TreeStructure& structure, const TreeVisitor& visitor)
      : structure_(structure), visitor_(visitor), labels_(structure.labels) {}

  Result<void> run() {
    if (structure_.kinds.size() > limits::kNodesPerItemMax) {
      return fail(ErrorCode::kLimit, "tree structure: over the limit of " +
                                         std::to_string(limits::kNodesPerItemMax) + " nodes");
    }
    STEPSTONE_TRY(enter_node(nullptr));
    while (!open_.empty()) {
      OpenNode& parent = open_.back();
      path_.resize(parent.path_size);
      if (parent.next_child == parent.child_count) {
        if (visitor_.leave) STEPSTONE_TRY(visitor_.leave(parent.kind));
        open_.pop_back();
        continue;
      }
      const PathComponent label = STEPSTONE_TRY(next_label(parent));
      append_component(path_, label);
      ++parent.next_child;
      STEPSTONE_TRY(enter_node(&label));
    }
    const bool is_used_up =
        next_node_ == structure_.kinds.size() && next_count_ == structure_.child_counts.size() &&
        next_type_ == structure_.type_indices.size() &&
        structure_.type_names.size() <= structure_.type_indices.size() && labels_.empty();
    if (!is_used_up) return corrupt_tree("there is more than the tree needs");
    return {};
  }

 private:
  Result<void> enter_node(const PathComponent* label) {
    if (next_node_ == structure_.kinds.size()) return corrupt_tree("a node is missing");
    const NodeKind kind = structure_.kinds[next_node_++];
    if (kind < NodeKind::kLeaf || kind > NodeKind::kCustom)
      return corrupt_tree("unknown kind of node");
    if (path_.size() + 1 > limits::kEncodedPathSizeBytesMax) {
      return fail(ErrorCode::kLimit, "leaf path '" + printable(path_.substr(0, 64)) +
                                         "…' is over the limit of encoded bytes");
    }
    if (kind == NodeKind::kLeaf) {
      if (visitor_.enter) STEPSTONE_TRY(visitor_.enter(kind, label, {}, 0));
      path_ += kPathEnd;
      if (visitor_.leaf) STEPSTONE_TRY(visitor_.leaf(path_));
      return {};
    }
    if (open_.size() == limits::kDepthMax) {
      return fail(ErrorCode::kLimit, "the tree is nested deeper than the limit of " +
                                         std::to_string(limits::kDepthMax));
    }
    if (next_count_ == structure_.child_counts.size())
      return corrupt_tree("a child count is missing");
    const std::uint32_t child_count = structure_.child_counts[next_count_++];
    std::string_view type_name;
    if (has_type_name(kind)) {
      if (next_type_ == structure_.type_indices.size())
        return corrupt_tree("a type name is missing");
      const std::uint32_t type = structure_.type_indices[next_type_++];
      if (type >= structure_.type_names.size()) return corrupt_tree("a type name is missing");
      type_name = structure_.type_names[type];
      if (type_name.size() > limits::kNameSizeBytesMax) {
        return fail(ErrorCode::kLimit, "a type name is over the limit of 4096 bytes");
      }
    }
    if (visitor_.enter) STEPSTONE_TRY(visitor_.enter(kind, label, type_name, child_count));
    open_.push_back({.kind = kind, .child_count = child_count, .path_size = path_.size()});
    return {};
  }

  Result<PathComponent> next_label(OpenNode& parent) {
    if (!has_labels(parent.kind)) return PathComponent::index(parent.next_child);
    const std::string_view before = labels_;
    PathComponent label = STEPSTONE_TRY(take_component(&labels_));
    if (!may_label(parent.kind, label.kind))
      return corrupt_tree("a child has the wrong kind of label");
    const std::string_view encoded = before.substr(0, before.size() - labels_.size());
    if (!visitor_.is_checked && !parent.labels.insert(encoded)) {
      return corrupt_tree("two children have the same label '" + printable(label.name) + "'");
    }
    return label;
  }

  const TreeStructure& structure_;
  const TreeVisitor& visitor_;
  std::string_view labels_;
  std::size_t next_node_ = 0;
  std::size_t next_count_ = 0;
  std::size_t next_type_ = 0;
  std::vector<OpenNode> open_;
  std::string path_;  // To the node being visited, not closed.
};

// Goes through a structure without making anything of it. The functions give false where there is
// less than there should be.
class Skim {
 public:
  explicit Skim(const TreeStructure& structure)
      : structure_(structure), labels_(structure.labels) {}

  // From a container to its child of this label. kNotFound: it has none, or is a leaf.
  Result<void> descend(const PathComponent& label) {
    OpenNode node;
    if (!enter(&node)) return cut_off();
    std::string encoded;
    append_component(encoded, label);
    for (std::uint32_t child = 0; child < node.children_left; ++child) {
      // No label is the beginning of another.
      const bool is_found =
          node.has_labels ? labels_.starts_with(encoded) : label == PathComponent::index(child);
      if (node.has_labels && !skip_label()) return cut_off();
      if (is_found) return {};
      if (!skip_node()) return cut_off();
    }
    return fail(ErrorCode::kNotFound, "there is no such node");
  }

  // The node that comes next, and all below it.
  Result<TreeStructure> take() {
    const Skim begin = *this;
    if (!skip_node()) return cut_off();
    TreeStructure part;
    part.kinds = slice(structure_.kinds, begin.next_node_, next_node_);
    part.child_counts = slice(structure_.child_counts, begin.next_count_, next_count_);
    part.type_indices = slice(structure_.type_indices, begin.next_type_, next_type_);
    part.labels = begin.labels_.substr(0, begin.labels_.size() - labels_.size());
    std::unordered_map<std::uint32_t, std::uint32_t> numbers;
    for (std::uint32_t& type : part.type_indices) {
      if (type >= structure_.type_names.size()) return corrupt_tree("a type name is missing");
      const auto [entry, is_new] =
          numbers.emplace(type, static_cast<std::uint32_t>(part.type_names.size()));
      if (is_new) part.type_names.push_back(structure_.type_names[type]);
      type = entry->second;
    }
    return part;
  }

 private:
  struct OpenNode {
    bool has_labels = false;
    std::uint32_t children_left = 0;
  };

  static tl::unexpected<Error> cut_off() { return corrupt_tree("a node is missing"); }

  template <typename T>
  static std::vector<T> slice(const std::vector<T>& all, std::size_t begin, std::size_t end) {
    return {all.begin() + static_cast<std::ptrdiff_t>(begin),
            all.begin() + static_cast<std::ptrdiff_t>(end)};
  }

  // A leaf is a node without children.
  bool enter(OpenNode* node) {
    if (next_node_ == structure_.kinds.size()) return false;
    const NodeKind kind = structure_.kinds[next_node_++];
    *node = {has_labels(kind), 0};
    if (kind == NodeKind::kLeaf) return true;
    if (next_count_ == structure_.child_counts.size()) return false;
    node->children_left = structure_.child_counts[next_count_++];
    if (!has_type_name(kind)) return true;
    return next_type_++ < structure_.type_indices.size();
  }

  bool skip_node() {
    open_.clear();
    while (true) {
      OpenNode node;
      if (!enter(&node)) return false;
      open_.push_back(node);
      while (open_.back().children_left == 0) {
        open_.pop_back();
        if (open_.empty()) return true;
      }
      --open_.back().children_left;
      if (open_.back().has_labels && !skip_label()) return false;
    }
  }

  // See append_component().
  bool skip_label() {
    if (labels_.empty()) return false;
    const auto kind = static_cast<PathComponent::Kind>(labels_.front());
    std::size_t end = 1 + sizeof(std::uint64_t);
    if (kind == PathComponent::Kind::kStringKey || kind == PathComponent::Kind::kAttribute) {
      end = labels_.find(std::string_view("\0\1", 2), 1);
      if (end == std::string_view::npos) return false;
      end += 2;
    }
    if (labels_.size() < end) return false;
    labels_.remove_prefix(end);
    return true;
  }

  const TreeStructure& structure_;
  std::string_view labels_;
  std::size_t next_node_ = 0;
  std::size_t next_count_ = 0;
  std::size_t next_type_ = 0;
  std::vector<OpenNode> open_;  // Of skip_node(), kept for its memory.
};

}  // namespace

std::string_view to_string(NodeKind kind) {
  switch (kind) {
    case NodeKind::kLeaf:
      return "leaf";
    case NodeKind::kDict:
      return "dict";
    case NodeKind::kList:
      return "list";
    case NodeKind::kTuple:
      return "tuple";
    case NodeKind::kNamedTuple:
      return "named_tuple";
    case NodeKind::kCustom:
      return "custom";
  }
  return "unknown";
}

Result<void> visit(const TreeStructure& structure, const TreeVisitor& visitor) {
  return Walk(structure, visitor).run();
}

Result<TreeStructure> substructure(const TreeStructure& structure, const LeafPath& path) {
  Skim skim(structure);
  for (const PathComponent& label : path) STEPSTONE_TRY(skim.descend(label));
  return skim.take();
}

TreeStructure leaf_structure() {
  TreeStructure structure;
  structure.kinds.push_back(NodeKind::kLeaf);
  return structure;
}

}  // namespace stepstone
