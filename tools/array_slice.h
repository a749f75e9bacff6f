#pragma once
// Slices of arrays as Python writes them: `[0:10, :]`, `[-1]`, `[..., 3]`.

#include <cstdint>
#include <string_view>
#include <vector>

#include "api/leaf_args.h"
#include "format/dtype.h"
#include "format/error.h"

namespace stepstone::tool {

struct ArraySlice {
  std::vector<Slice> axes;           // One for every axis of the array.
  std::vector<std::uint64_t> shape;  // Of what is selected: without the axes that have a number.
};

// What stands between the brackets, for an array of this shape. As in Python: `begin:end`, either
// of them left out, negative ones counted from the end, what lies beyond the array cut off; a
// number alone selects one place and drops the axis; `...` once, for as many whole axes as there is
// room for; axes that are not named are whole. kInvalidArgument: another form (steps are one), more
// axes than the array has, or a number beyond it.
Result<ArraySlice> parse_slice(std::string_view text, Shape shape);

}  // namespace stepstone::tool
