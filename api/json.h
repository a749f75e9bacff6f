#pragma once
// JSON text and trees.

#include <string>
#include <string_view>

#include "api/tree.h"

namespace stepstone {

// Dicts with string keys, lists and tuples, strings, bools, None, and numbers of any size; a float
// that JSON has no number for becomes {"__float__": "nan"}, an integer over 64 bits {"__int__":
// "123"}. Keys stay in their order. kInvalidArgument: names the leaf that is something else, or a
// dict that looks like one of these two.
Result<std::string> to_json(const Tree& tree);

// The inverse; a tuple comes back as a list. kCorrupt: not such a text.
Result<Tree> from_json(std::string_view text);

}  // namespace stepstone
