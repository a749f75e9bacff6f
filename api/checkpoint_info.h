#pragma once
// What policies are told about a checkpoint.

#include <chrono>
#include <cstdint>
#include <optional>

#include "tree.h"

namespace stepstone {

struct CheckpointInfo {
  std::uint64_t step = 0;
  std::chrono::system_clock::time_point time = {};  // When its save was begun.
  std::optional<Tree> metrics = {};                 // As they were given with the save.

  bool operator==(const CheckpointInfo&) const = default;
};

}  // namespace stepstone
