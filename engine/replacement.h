#pragma once
// A save that stores again, in fewer bytes, what a step holds already: which of its chunks are
// written, and which are referred to where they stand.

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "engine/references.h"
#include "engine/save_plan.h"
#include "engine/step_reader.h"
#include "engine/store.h"

namespace stepstone {

class Replacement {
 public:
  struct Settings {
    unsigned thread_count = 1;
    // Gives up, before it writes anything, where a sample of the chunks does not become smaller.
    bool samples_first = false;
    // Chunks that others need where they are, by save.
    std::map<SaveId, ChunkSet> held;
  };

  // `replaced` must outlive the replacement; `leaves` are all of its leaves, by item and path.
  Replacement(const StepReaderImpl& replaced, std::vector<StoredLeaf> leaves, Settings settings);

  const StepRecord& replaced() const { return replaced_.record(); }
  unsigned thread_count() const { return settings_.thread_count; }

  // The three moments of the save. `leaves` are those of the constructor, in the same order.

  // Takes the hashes over, so that leaves and chunks are compared without reading them.
  void adopt_hashes(std::span<PlannedLeaf> leaves) const;
  // When the leaves know what the step before has of them: has the save refer to that, and leave
  // alone what is stored encoded in other saves or held. False: nothing would become smaller.
  // Errors: those of the leaves' sources.
  Result<bool> plan(std::span<PlannedLeaf> leaves);
  // When all places are known: whether it was worth it. `save` is the new save's.
  bool is_smaller(std::span<const PlannedLeaf> leaves, SaveId save);

  // Of the chunks that stand elsewhere now than before: what they took, and take.
  std::uint64_t bytes_before() const { return bytes_before_; }
  std::uint64_t bytes_after() const { return bytes_after_; }

 private:
  struct RawChunk {
    const PlannedLeaf* leaf;
    std::uint32_t chunk;
  };

  void hold_places_of_others(std::span<const PlannedLeaf> leaves);
  bool stays(const PlannedLeaf& leaf, const StoredLeaf& stored, std::uint32_t chunk,
             const ChunkPlace& place) const;
  static Result<bool> sample_becomes_smaller(std::span<const RawChunk> chunks);

  const StepReaderImpl& replaced_;
  const std::vector<StoredLeaf> leaves_;
  Settings settings_;
  std::uint64_t bytes_before_ = 0;
  std::uint64_t bytes_after_ = 0;
};

}  // namespace stepstone
