#include "tools/formats/kept_leaves.h"

#include <algorithm>
#include <optional>

namespace stepstone::tool {
namespace {

struct Node {
  NodeKind kind = NodeKind::kLeaf;
  std::optional<PathComponent> label;  // As the structure has it: none in a list.
  std::string type_name;
  std::size_t leaf = 0;  // Its place among the leaves.
  std::vector<Node> children;
};

Result<Node> to_tree(const TreeStructure& structure) {
  Node root;
  std::vector<Node*> open;
  std::size_t leaf_count = 0;
  TreeVisitor visitor;
  visitor.enter = [&](NodeKind kind, const PathComponent* label, std::string_view type_name,
                      std::uint32_t child_count) -> Result<void> {
    Node* node = &root;
    // The vectors were reserved, so that nodes stay where they are.
    if (!open.empty()) node = &open.back()->children.emplace_back();
    node->kind = kind;
    if (label != nullptr) node->label = *label;
    node->type_name = type_name;
    if (kind == NodeKind::kLeaf) {
      node->leaf = leaf_count++;
    } else {
      node->children.reserve(child_count);
      open.push_back(node);
    }
    return {};
  };
  visitor.leave = [&](NodeKind /*kind*/) -> Result<void> {
    open.pop_back();
    return {};
  };
  STEPSTONE_TRY(visit(structure, visitor));
  return root;
}

// False: nothing of it is kept.
bool prune(Node& node, const std::vector<bool>& is_kept) {
  if (node.kind == NodeKind::kLeaf) return is_kept[node.leaf];
  const bool is_sequence = node.kind == NodeKind::kList || node.kind == NodeKind::kTuple;
  for (std::size_t i = 0; is_sequence && i < node.children.size(); ++i) {
    node.children[i].label = PathComponent::key(static_cast<std::int64_t>(i));
  }
  const std::size_t count = node.children.size();
  std::vector<Node> kept;
  for (Node& child : node.children) {
    if (prune(child, is_kept)) kept.push_back(std::move(child));
  }
  node.children = std::move(kept);
  if (is_sequence && node.children.size() != count) node.kind = NodeKind::kDict;
  return !node.children.empty();
}

class Emitter {
 public:
  explicit Emitter(Contents& from) : from_(from) {}

  Result<void> emit(const Node& node) {
    TreeStructure& structure = kept_.structure;
    structure.kinds.push_back(node.kind);
    if (node.kind == NodeKind::kLeaf) {
      ContentLeaf& leaf = from_.leaves[node.leaf];
      leaf.encoded_path = STEPSTONE_TRY(encode_path(path_));
      kept_.leaves.push_back(std::move(leaf));
      return {};
    }
    structure.child_counts.push_back(static_cast<std::uint32_t>(node.children.size()));
    if (node.kind == NodeKind::kNamedTuple || node.kind == NodeKind::kCustom) {
      structure.type_indices.push_back(index_of(node.type_name));
    }
    const bool is_sequence = node.kind == NodeKind::kList || node.kind == NodeKind::kTuple;
    for (std::size_t i = 0; i < node.children.size(); ++i) {
      const Node& child = node.children[i];
      path_.push_back(is_sequence ? PathComponent::index(static_cast<std::uint32_t>(i))
                                  : *child.label);
      if (!is_sequence) append_component(structure.labels, path_.back());
      STEPSTONE_TRY(emit(child));
      path_.pop_back();
    }
    return {};
  }

  Contents take() {
    kept_.custom_metadata = std::move(from_.custom_metadata);
    return std::move(kept_);
  }

 private:
  std::uint32_t index_of(const std::string& type_name) {
    std::vector<std::string>& names = kept_.structure.type_names;
    const auto found = std::find(names.begin(), names.end(), type_name);
    const auto index = static_cast<std::uint32_t>(found - names.begin());
    if (found == names.end()) names.push_back(type_name);
    return index;
  }

  Contents& from_;
  LeafPath path_;
  Contents kept_;
};

}  // namespace

Result<Contents> keep_leaves(Contents contents, const std::vector<bool>& is_kept) {
  Node root = STEPSTONE_TRY(to_tree(contents.structure));
  prune(root, is_kept);
  Emitter emitter(contents);
  STEPSTONE_TRY(emitter.emit(root));
  return emitter.take();
}

Result<Contents> select_leaves(Contents contents, const LeafSelection& selection) {
  if (selection.selects_all()) return contents;
  // By their paths, since a reader may give them in the order of its file.
  std::sort(
      contents.leaves.begin(), contents.leaves.end(),
      [](const ContentLeaf& a, const ContentLeaf& b) { return a.encoded_path < b.encoded_path; });
  std::vector<ContentLeaf> ordered;
  std::vector<bool> is_kept;
  TreeVisitor visitor;
  visitor.leaf = [&](const std::string& encoded_path) -> Result<void> {
    const auto found = std::lower_bound(
        contents.leaves.begin(), contents.leaves.end(), encoded_path,
        [](const ContentLeaf& leaf, const std::string& path) { return leaf.encoded_path < path; });
    if (found == contents.leaves.end() || found->encoded_path != encoded_path) {
      return fail(ErrorCode::kCorrupt, "leaf '" + to_text(encoded_path) + "' is missing");
    }
    const LeafPath path = STEPSTONE_TRY(decode_path(encoded_path));
    is_kept.push_back(selection.selects(path, to_text(path)));
    // The path stays, to be searched by; every path occurs once in a structure.
    ordered.push_back({.encoded_path = encoded_path,
                       .info = std::move(found->info),
                       .source = std::move(found->source),
                       .piece_size_bytes = found->piece_size_bytes});
    return {};
  };
  STEPSTONE_TRY(visit(contents.structure, visitor));
  if (std::find(is_kept.begin(), is_kept.end(), true) == is_kept.end()) {
    return fail(ErrorCode::kNotFound, "no leaf is one that was asked for");
  }
  contents.leaves = std::move(ordered);
  return keep_leaves(std::move(contents), is_kept);
}

}  // namespace stepstone::tool
