#pragma once
// Part of an array out of the store.

#include <span>
#include <string_view>
#include <vector>

#include "api/leaf_args.h"
#include "engine/store.h"

namespace stepstone {

// Reads the elements of `slice`, which is a whole_slice() of the array, packed into `destination`,
// which has exactly their size. Only chunks that the slice touches are read, each about once.
// kCorrupt, kIo.
Result<void> read_slice(const StepReader& reader, std::string_view item, const StoredLeaf& leaf,
                        const std::vector<Slice>& slice, std::span<std::byte> destination);

}  // namespace stepstone
