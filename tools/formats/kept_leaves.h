#pragma once
// A part of a tree.

#include <vector>

#include "format/error.h"
#include "tools/formats/contents.h"
#include "tools/leaf_selection.h"

namespace stepstone::tool {

// The contents with the leaves alone for which `is_kept` is true, and the containers on the way to
// them. The leaves stand in the structure's order, and so do those of the result. A list or tuple
// that loses an element becomes a dict of the positions that stay, so that every leaf still says
// where it was. kCorrupt: the structure does not hold together.
Result<Contents> keep_leaves(Contents contents, const std::vector<bool>& is_kept);

// The same with those that the selection selects, of leaves in any order. kNotFound: it selects
// none.
Result<Contents> select_leaves(Contents contents, const LeafSelection& selection);

}  // namespace stepstone::tool
