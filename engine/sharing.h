#pragma once
// Finding out, before a save writes anything, which of its bytes may be there already: in an
// earlier step, or in another leaf of the same save.

#include <memory>
#include <span>

#include "engine/save_plan.h"
#include "engine/store_impl.h"

namespace stepstone {

// The earlier step that a save shares chunks with, held against collection while this lives.
class SharingBase {
 public:
  // The latest step before `step`, or else, unless `only_earlier`, the latest; null: none whose
  // chunks could be shared.
  static std::unique_ptr<SharingBase> open(std::shared_ptr<StoreImpl> store, std::uint64_t step,
                                           bool only_earlier = false);
  ~SharingBase();
  SharingBase(const SharingBase&) = delete;
  SharingBase& operator=(const SharingBase&) = delete;

  // The one that made the earlier step.
  SaveId save() const;

  // Whether the earlier step's own segments hold less than half of its bytes.
  bool is_mostly_shared() const;

  // Sets `base` of those leaves whose chunks the earlier step has under the same item and path, cut
  // in the same way. A record that cannot be read is no reason to fail: its leaf is not shared.
  // `leaves` are of one item, sorted by path.
  void find(std::span<PlannedLeaf> leaves) const;

  // The bytes of what a chunk of `leaf`, which find() has seen, may differ from. kCorrupt, kIo.
  // Safe from several threads.
  Result<void> read_base(const PlannedLeaf& leaf, const ChunkBase& base,
                         std::span<std::byte> destination) const;

 private:
  class Impl;
  explicit SharingBase(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

// Sets `equal` of leaves that have the same bytes as one before them (tied weights, optimizer
// moments that are still zero), and `is_hashed` of all that it had to hash to know. Leaves differ
// in a few sampled bytes as a rule, and then cost no more than reading these. Errors: those of the
// leaves' sources.
Result<void> find_equal_leaves(std::uint64_t step, std::span<PlannedLeaf> leaves,
                               unsigned thread_count);

// Completes a leaf that `equal` tells of, once that one's places are known.
void refer_to_equal_leaf(PlannedLeaf& leaf, SaveId save);

}  // namespace stepstone
