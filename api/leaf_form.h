#pragma once
// What a stored leaf becomes when it is restored: its form, checked before any byte is read, and
// then its value.

#include <optional>
#include <string>
#include <vector>

#include "api/leaf_args.h"
#include "api/tree.h"

namespace stepstone {

struct LeafForm {
  // Nothing: the leaf stays as it is. Otherwise the element type and shape of the result.
  std::optional<AbstractArray> array;
  bool is_scalar = false;  // A number instead of an array of rank 0.
};

// "an array float32 (3, 4)", "a string".
std::string describe(const Leaf& leaf);

// The form that `target` (null: as saved) and `args` ask for, of a leaf that `stored` describes:
// its value, or an AbstractArray in place of an array; sliced already. kMismatch: it cannot take
// that form; the message says both sides. kInvalidArgument: args.destination has another size.
Result<LeafForm> form_of(const Leaf& stored, const Leaf* target, const RestoreArgs& args);

// Brings a leaf into its form. kMismatch: an integer does not fit. kLimit: no memory.
Result<Leaf> into_form(Leaf leaf, const LeafForm& form, const RestoreArgs& args);

}  // namespace stepstone
