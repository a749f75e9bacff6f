#pragma once
// Parts of arrays: slices, and arrays made larger or smaller at the end of their axes.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "api/array.h"
#include "api/leaf_args.h"

namespace stepstone {

// A slice for every axis. kMismatch: the slice has more axes than the shape, ends before it begins,
// or goes beyond the shape.
Result<std::vector<Slice>> whole_slice(const std::vector<Slice>& slice, Shape shape);

std::vector<std::uint64_t> shape_of(const std::vector<Slice>& slice);

// Calls visit(first element in the array, how many) for each run of adjacent elements of a slice,
// ascending. `slice` is a whole_slice() of `shape`. The first error ends it.
Result<void> for_each_run(
    const std::vector<Slice>& slice, Shape shape,
    const std::function<Result<void>(std::uint64_t first, std::uint64_t count)>& visit);

// Copies elements, which may be packed, by their numbers.
void copy_elements(const std::byte* source, std::uint64_t source_first, std::byte* target,
                   std::uint64_t target_first, std::uint64_t count, unsigned bits);

// The array with zeros behind the end, or without the end, of each axis, in C-contiguous memory.
// The rank must be the same. kLimit: no memory.
Result<Array> resized(const Array& array, const std::vector<std::uint64_t>& shape);

}  // namespace stepstone
