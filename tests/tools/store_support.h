#pragma once
// Stores for the tests of the tool: trees saved as steps.

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "api/tree.h"
#include "engine/store.h"

namespace stepstone::tool {

// Saves the items as one step of a store that is made if it is missing.
void save_step(const std::filesystem::path& store, std::uint64_t step,
               const std::vector<std::pair<std::string, Tree>>& items,
               const SaveOptions& options = {});

// The same with `tree` as the item "default".
void save_tree(const std::filesystem::path& store, std::uint64_t step, const Tree& tree,
               const SaveOptions& options = {});

// An array of rank 1.
Array floats(const std::vector<float>& values);

}  // namespace stepstone::tool
