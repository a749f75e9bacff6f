#pragma once
// Python objects as trees, and back.

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "api/leaf_args.h"
#include "api/tree.h"
#include "native.h"

namespace stepstone::python {

// What one node of a tree was in Python: how a restore makes the same of it again.
struct Origin {
  enum class Kind : std::uint8_t {
    kPlain,    // Made without help: a container, a scalar, numpy.ndarray.
    kScalar,   // A numpy scalar: made of an array of rank 0.
    kFinish,   // A leaf whose value goes through `call`.
    kRebuild,  // A container that `call` makes of its children.
  };
  Kind kind = Kind::kPlain;
  nb::object object;  // Of a leaf: the caller's, whose memory the tree may borrow.
  nb::object call;
};

// A tree and, where it was made of Python objects, the origin of each of its nodes in preorder.
struct PythonTree {
  Tree tree;
  std::vector<Origin> origins;
  std::vector<nb::object> kept;  // What the hook made, whose memory the tree may borrow.
  bool is_read_only = false;     // Its arrays may be mapped, and become such as cannot be written.
};

// As _native.pyi says of Tree.from_python. With the GIL.
PythonTree from_python(nb::handle value, nb::handle hook);
// As Tree.to_python; `make_node` and `like` may be null. With the GIL.
nb::object to_python(const PythonTree& tree, nb::handle make_node, const PythonTree* like);
nb::object leaf_to_python(const Leaf& leaf);

nb::object label_to_python(const PathComponent& label);

// Finds paths of a tree, which must outlive it, by their labels as Python has them: a string is a
// key or an attribute, a number a position or a key. Containers are indexed when a path first leads
// through them, so that options for each of very many leaves do not take quadratic time.
class PathFinder {
 public:
  explicit PathFinder(const Tree& tree) : tree_(&tree) {}

  // kNotFound: there is no such node. With the GIL.
  Result<LeafPath> find(nb::handle labels);

 private:
  struct Children {
    std::unordered_map<std::string_view, const Tree::Child*> by_name;
    std::unordered_map<std::int64_t, const Tree::Child*> by_number;
  };

  Result<const Tree::Child*> child_of(const Tree& tree, nb::handle label);

  const Tree* tree_;
  std::unordered_map<const Tree*, Children> children_;
};

// numpy's C interface, once per process. Raises ImportError.
void import_numpy();
struct NumpyForm {
  bool as_bits = false;  // Without ml_dtypes, which its dtype needs: unsigned integers as wide.
  bool is_read_only = false;
};
// A new array that shares in the bytes of `array`, or has a copy of borrowed ones.
nb::object numpy_array(const Array& array, NumpyForm form = {});
// An Array that borrows a numpy.ndarray's memory; nullopt: its dtype is none of ours.
std::optional<Array> borrow_numpy(nb::handle array);
bool is_numpy_array(nb::handle value);
bool is_numpy_scalar(nb::handle value);
// Elements of 2 or 4 bits, one per byte, packed.
Array pack(const Array& unpacked, DType dtype);

}  // namespace stepstone::python
