#include "api/tree.h"

#include <bit>

namespace stepstone {
namespace {

Tree labelled(NodeKind kind, std::string type_name, PathComponent::Kind label,
              std::vector<std::pair<std::string, Tree>> fields) {
  std::vector<Tree::Child> children;
  children.reserve(fields.size());
  for (auto& [name, tree] : fields) {
    children.push_back({PathComponent{label, 0, std::move(name)}, std::move(tree)});
  }
  return Tree::container(kind, std::move(type_name), std::move(children));
}

Tree sequence(NodeKind kind, std::vector<Tree> trees) {
  std::vector<Tree::Child> children;
  children.reserve(trees.size());
  for (Tree& tree : trees) {
    const auto position = static_cast<std::uint32_t>(children.size());
    children.push_back({PathComponent::index(position), std::move(tree)});
  }
  return Tree::container(kind, {}, std::move(children));
}

bool same_bits(double a, double b) {
  return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
}

// As ==, but floating-point values by their bits, so that what was restored can equal what was
// saved.
bool same_leaf(const Leaf& a, const Leaf& b) {
  if (a.index() != b.index()) return false;
  if (const auto* number = std::get_if<double>(&a)) return same_bits(*number, std::get<double>(b));
  if (const auto* number = std::get_if<std::complex<double>>(&a)) {
    const auto& other = std::get<std::complex<double>>(b);
    return same_bits(number->real(), other.real()) && same_bits(number->imag(), other.imag());
  }
  return a == b;
}

void visit_leaves(const Tree& tree, LeafPath& path,
                  const std::function<void(const LeafPath& path, const Leaf& leaf)>& visit) {
  if (tree.is_leaf()) {
    visit(path, tree.leaf());
    return;
  }
  for (const Tree::Child& child : tree.children()) {
    path.push_back(child.label);
    visit_leaves(child.tree, path, visit);
    path.pop_back();
  }
}

}  // namespace

Tree Tree::dict(std::vector<std::pair<std::string, Tree>> children) {
  return labelled(NodeKind::kDict, {}, PathComponent::Kind::kStringKey, std::move(children));
}

Tree Tree::integer_dict(std::vector<std::pair<std::int64_t, Tree>> children) {
  std::vector<Child> labelled_children;
  labelled_children.reserve(children.size());
  for (auto& [key, tree] : children) {
    labelled_children.push_back({PathComponent::key(key), std::move(tree)});
  }
  return container(NodeKind::kDict, {}, std::move(labelled_children));
}

Tree Tree::list(std::vector<Tree> children) {
  return sequence(NodeKind::kList, std::move(children));
}

Tree Tree::tuple(std::vector<Tree> children) {
  return sequence(NodeKind::kTuple, std::move(children));
}

Tree Tree::named_tuple(std::string type_name, std::vector<std::pair<std::string, Tree>> fields) {
  return labelled(NodeKind::kNamedTuple, std::move(type_name), PathComponent::Kind::kAttribute,
                  std::move(fields));
}

Tree Tree::custom(std::string type_name, std::vector<std::pair<std::string, Tree>> fields) {
  return labelled(NodeKind::kCustom, std::move(type_name), PathComponent::Kind::kAttribute,
                  std::move(fields));
}

Tree Tree::container(NodeKind kind, std::string type_name, std::vector<Child> children) {
  Tree tree;
  tree.kind_ = kind;
  tree.type_name_ = std::move(type_name);
  tree.children_ = std::move(children);
  return tree;
}

const Tree* Tree::find(const LeafPath& path) const {
  const Tree* tree = this;
  for (const PathComponent& component : path) {
    const Tree* next = nullptr;
    for (const Child& child : tree->children_) {
      if (child.label == component) next = &child.tree;
    }
    if (next == nullptr) return nullptr;
    tree = next;
  }
  return tree;
}

const Tree* Tree::find(std::string_view path) const {
  const Result<LeafPath> parsed = parse_path(path);
  return parsed ? find(*parsed) : nullptr;
}

Tree* Tree::find(std::string_view path) {
  return const_cast<Tree*>(std::as_const(*this).find(path));
}

void Tree::for_each_leaf(
    const std::function<void(const LeafPath& path, const Leaf& leaf)>& visit) const {
  LeafPath path;
  visit_leaves(*this, path, visit);
}

bool operator==(const Tree& a, const Tree& b) {
  return a.kind_ == b.kind_ && a.type_name_ == b.type_name_ && a.children_ == b.children_ &&
         same_leaf(a.leaf_, b.leaf_);
}

}  // namespace stepstone
