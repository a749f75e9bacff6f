#pragma once
// Random trees of everything that a tree can hold, with names that break lesser formats.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "api/tree.h"
#include "tests/api/support.h"

namespace stepstone::testing {

// Keeps the memory that the arrays of its trees borrow.
class TreeMaker {
 public:
  explicit TreeMaker(std::uint64_t seed) : random_(seed) {}

  Random& random() { return random_; }

  Tree tree(std::size_t depth_max = 5);
  Leaf leaf();
  // Owned, borrowed or strided.
  Array array(DType dtype, std::vector<std::uint64_t> shape);
  Array array();
  std::vector<std::uint64_t> shape();
  std::string name();

 private:
  Tree container(std::size_t depth_max);

  Random random_;
  std::vector<std::unique_ptr<std::vector<std::byte>>> memory_;
};

// The same tree with `change` made to every leaf.
Tree with_leaves(const Tree& tree, const std::function<Leaf(const Leaf& leaf)>& change);

// The same tree with the children of dicts and custom nodes in another order.
Tree reordered(const Tree& tree, Random& random);

}  // namespace stepstone::testing
