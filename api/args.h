#pragma once
// What to save and how to restore it. Each kind of object has a pair of these, as in Orbax.

#include <optional>
#include <utility>

#include "tree.h"

namespace stepstone::args {

// A tree of arrays, scalars, strings and bytes.
struct StandardSave {
  Tree item;

  explicit StandardSave(Tree tree) : item(std::move(tree)) {}
};

// Without a target: the tree exactly as it was saved. With one: the stored tree must have the
// target's containers and labels, and each stored leaf goes where the target has
// - an Array or AbstractArray: the same shape, cast to its dtype;
// - a bool, int, float or complex: a scalar or an array of rank 0, cast to that type;
// - a string, bytes, big integer or None: the same kind.
// A cast that loses what the type stands for is an error (kMismatch): float to integer, complex to
// real, an integer that does not fit. Between floating-point types it rounds to nearest, ties to
// even.
struct StandardRestore {
  std::optional<Tree> item;

  StandardRestore() = default;
  explicit StandardRestore(Tree target) : item(std::move(target)) {}
};

}  // namespace stepstone::args
