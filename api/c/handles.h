#pragma once
// What the opaque handles of the C interface are.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "api/c/step_leaves.h"
#include "api/c/stepstone.h"
#include "api/checkpoint_manager.h"

// Their names are the C header's.
// NOLINTBEGIN(readability-identifier-naming)
struct stepstone_store {
  std::unique_ptr<stepstone::CheckpointManager> manager;
};

struct stepstone_checkpoint {
  // Sorted, so that the leaves below one node stand together.
  std::map<std::string, std::map<stepstone::LeafPath, stepstone::Leaf>> items;
  std::string metrics;
  std::string custom_metadata;
};

struct stepstone_step {
  explicit stepstone_step(stepstone::HeldStep held) : leaves(std::move(held)) {}

  stepstone::c::StepLeaves leaves;
};
// NOLINTEND(readability-identifier-naming)

namespace stepstone::c {

// What stepstone_save() gives the manager.
args::CheckpointArgs save_args(const stepstone_checkpoint& checkpoint);

inline std::optional<std::uint64_t> step_or_latest(std::uint64_t step) {
  return step == STEPSTONE_LATEST ? std::nullopt : std::optional(step);
}

}  // namespace stepstone::c
