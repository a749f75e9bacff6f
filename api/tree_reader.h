#pragma once
// A tree on its way out of the engine.

#include <string_view>

#include "api/args.h"
#include "api/item_metadata.h"
#include "api/statistics.h"
#include "api/tree.h"
#include "engine/store.h"

namespace stepstone {

// Restores an item as it was saved or as `args` say. Adds sizes and times, but not the total, to
// `statistics` unless it is null.
Result<Tree> read_tree(const StepReader& reader, std::string_view item,
                       const args::PyTreeRestore& args = {},
                       RestoreStatistics* statistics = nullptr);

// Reads the records of an item, and no chunks.
Result<ItemMetadata> read_metadata(const StepReader& reader, std::string_view item);

// Reads one record. kNotFound: there is no leaf of this path.
Result<LeafMetadata> read_leaf_metadata(const StepReader& reader, std::string_view item,
                                        const LeafPath& path);

}  // namespace stepstone
