#pragma once
// What a checkpoint holds: a tree of named values, as Python's containers and JAX's pytrees are.

#include <complex>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "../format/error.h"
#include "../format/leaf_path.h"
#include "../format/tree_structure.h"
#include "array.h"

namespace stepstone {

// An integer that int64 cannot hold: decimal digits, '-' in front if negative, no leading zeros.
struct BigInteger {
  std::string decimal;
  bool operator==(const BigInteger&) const = default;
};

struct Bytes {
  std::string bytes;
  bool operator==(const Bytes&) const = default;
};

struct None {
  bool operator==(const None&) const = default;
};

// In a restore target only: "an array of this dtype and shape goes here".
struct AbstractArray {
  DType dtype = DType::kFloat32;
  std::vector<std::uint64_t> shape;
  bool operator==(const AbstractArray&) const = default;
};

// In a restore target: "do not read this leaf"; and in what was restored: it was not read.
struct Placeholder {
  bool operator==(const Placeholder&) const = default;
};

// Strings are UTF-8.
using Leaf = std::variant<None, Array, AbstractArray, bool, std::int64_t, BigInteger, double,
                          std::complex<double>, std::string, Bytes, Placeholder>;

// A leaf, or a container of trees. A value type; copying copies the containers and shares the
// arrays.
//
//   Tree state = Tree::dict({{"step", 7}, {"params", Tree::dict({{"w", w}, {"b", b}})}});
class Tree {
 public:
  struct Child;

  Tree();  // None.
  // NOLINTBEGIN(google-explicit-constructor)
  Tree(Leaf leaf);
  Tree(Array array);
  Tree(AbstractArray array);
  Tree(bool value);
  Tree(int value);
  Tree(std::int64_t value);
  Tree(double value);
  Tree(std::complex<double> value);
  Tree(std::string value);
  Tree(const char* value);
  Tree(Bytes value);
  Tree(BigInteger value);
  Tree(None value);
  Tree(Placeholder value);
  // NOLINTEND(google-explicit-constructor)
  Tree(const Tree&);
  Tree(Tree&&) noexcept;
  Tree& operator=(const Tree&);
  Tree& operator=(Tree&&) noexcept;
  ~Tree();

  static Tree dict(std::vector<std::pair<std::string, Tree>> children = {});
  static Tree integer_dict(std::vector<std::pair<std::int64_t, Tree>> children);
  static Tree list(std::vector<Tree> children = {});
  static Tree tuple(std::vector<Tree> children = {});
  static Tree named_tuple(std::string type_name, std::vector<std::pair<std::string, Tree>> fields);
  // A dataclass or any other node with attributes.
  static Tree custom(std::string type_name, std::vector<std::pair<std::string, Tree>> fields);
  // Any container; the labels are checked when the tree is saved. `type_name` is for named tuples
  // and custom nodes.
  static Tree container(NodeKind kind, std::string type_name, std::vector<Child> children);

  NodeKind kind() const { return kind_; }
  bool is_leaf() const { return kind_ == NodeKind::kLeaf; }
  // Of a leaf; None for a container.
  const Leaf& leaf() const { return leaf_; }
  // The leaf's value as T, or null where it is something else: `tree.find("w")->get_if<Array>()`.
  template <typename T>
  const T* get_if() const {
    return std::get_if<T>(&leaf_);
  }
  template <typename T>
  T* get_if() {
    return std::get_if<T>(&leaf_);
  }

  const std::string& type_name() const { return type_name_; }
  // In the caller's order; positions for lists and tuples.
  const std::vector<Child>& children() const { return children_; }
  std::vector<Child>& children() { return children_; }

  // The subtree at a path as text: "params/layer0/w". Null if there is none.
  const Tree* find(std::string_view path) const;
  Tree* find(std::string_view path);
  const Tree* find(const LeafPath& path) const;

  // Visits every leaf, in the order of the tree.
  void for_each_leaf(
      const std::function<void(const LeafPath& path, const Leaf& leaf)>& visit) const;

  // Same containers, labels, order, kinds and leaves; NaN equals the same NaN.
  friend bool operator==(const Tree& a, const Tree& b);

 private:
  NodeKind kind_ = NodeKind::kLeaf;
  Leaf leaf_;
  std::string type_name_;
  std::vector<Child> children_;
};

struct Tree::Child {
  PathComponent label;
  Tree tree;
  bool operator==(const Child&) const = default;
};

// Here, where Child is complete: clang wants that of a vector that it destroys.
inline Tree::Tree() : leaf_(None{}) {}
inline Tree::Tree(Leaf leaf) : leaf_(std::move(leaf)) {}
inline Tree::Tree(Array array) : leaf_(std::move(array)) {}
inline Tree::Tree(AbstractArray array) : leaf_(std::move(array)) {}
inline Tree::Tree(bool value) : leaf_(value) {}
inline Tree::Tree(int value) : leaf_(static_cast<std::int64_t>(value)) {}
inline Tree::Tree(std::int64_t value) : leaf_(value) {}
inline Tree::Tree(double value) : leaf_(value) {}
inline Tree::Tree(std::complex<double> value) : leaf_(value) {}
inline Tree::Tree(std::string value) : leaf_(std::move(value)) {}
inline Tree::Tree(const char* value) : leaf_(std::string(value)) {}
inline Tree::Tree(Bytes value) : leaf_(std::move(value)) {}
inline Tree::Tree(BigInteger value) : leaf_(std::move(value)) {}
inline Tree::Tree(None value) : leaf_(value) {}
inline Tree::Tree(Placeholder value) : leaf_(value) {}
inline Tree::Tree(const Tree&) = default;
inline Tree::Tree(Tree&&) noexcept = default;
inline Tree& Tree::operator=(const Tree&) = default;
inline Tree& Tree::operator=(Tree&&) noexcept = default;
inline Tree::~Tree() = default;

}  // namespace stepstone
