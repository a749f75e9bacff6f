#pragma once
// A tree on its way out of the engine: what the standard handler does to restore one.

#include <string_view>

#include "api/statistics.h"
#include "api/tree.h"
#include "engine/store.h"

namespace stepstone {

// Restores an item as it was saved, or (target not null) into a target; see args::StandardRestore.
// Puts sizes and times, but not the total, into `statistics` unless it is null.
Result<Tree> read_tree(const StepReader& reader, std::string_view item, const Tree* target,
                       RestoreStatistics* statistics = nullptr);

}  // namespace stepstone
