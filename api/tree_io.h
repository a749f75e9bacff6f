#pragma once
// Trees into and out of the engine: what the standard handler does.

#include <string>
#include <string_view>

#include "api/tree.h"
#include "engine/store.h"

namespace stepstone {

// The handler's name, recorded with the item.
inline constexpr std::string_view kStandardHandler = "standard";
// The item of a checkpoint that is a single object.
inline constexpr std::string_view kDefaultItem = "default";

// Whether the tree can be saved. kInvalidArgument, kLimit: it cannot; the message names the leaf.
Result<void> check_tree(const Tree& tree);

// The tree with whatever borrows memory replaced by copies.
Tree staged(const Tree& tree);

// Adds the tree to a save as `item`; borrowed arrays must stay as they are until the commit.
// kInvalidArgument, kLimit: as check_tree.
Result<void> put_tree(StepWriter& writer, std::string_view item, const Tree& tree);

// Restores an item as it was saved, or (target not null) into a target; see args::StandardRestore.
Result<Tree> read_tree(const StepReader& reader, std::string_view item, const Tree* target);

}  // namespace stepstone
