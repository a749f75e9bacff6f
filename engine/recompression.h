#pragma once
// Encodes again what a step holds: Store::recompress(), and the same in the background.

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/store.h"
#include "engine/throttle.h"

namespace stepstone {

class StoreImpl;

class Recompression {
 public:
  struct Settings {
    unsigned thread_count = 1;
    // Gives up early where a sample does not become smaller.
    bool samples_first = false;
    // Steps that will not be recompressed: what they refer to stays where it is, or it would be
    // stored twice.
    std::vector<std::uint64_t> untouched_steps;
    Throttle* throttle = nullptr;  // Null: none. For what is read of the step.
  };

  struct Outcome {
    SaveId save;  // That the step is now.
    RecompressCounters counters;
  };

  // See Store::recompress(). kClosed also when the throttle was cancelled.
  static Result<Outcome> run(const std::shared_ptr<StoreImpl>& store, std::uint64_t step,
                             const Settings& settings);
};

}  // namespace stepstone
