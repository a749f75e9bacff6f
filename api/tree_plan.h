#pragma once
// A tree on its way into the engine.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/leaf_args.h"
#include "api/storage_options.h"
#include "api/tree.h"
#include "engine/staging_pool.h"
#include "engine/store.h"

namespace stepstone {

class ArraySource;

// A tree taken apart for a save: its structure, and for each leaf where its bytes come from. Holds
// copies of the arrays (which share their bytes with the tree's), not the tree.
class TreePlan {
 public:
  // kInvalidArgument, kLimit, kMismatch: the tree cannot be saved, or not so; the message names the
  // leaf.
  static Result<TreePlan> make(const Tree& tree, const PerLeaf<SaveArgs>& save_args = {});

  std::uint64_t leaf_count() const { return leaf_count_; }
  std::uint64_t size_bytes() const { return size_bytes_; }  // Of all leaves.

  // Adds the tree to a save. Until the commit, borrowed arrays must stay as they are, unless
  // stage() is called. To be called once. Errors as of StepWriter.
  Result<void> put(StepWriter& writer, std::string_view item, std::string_view handler,
                   const std::vector<CompressionRule>& rules = {},
                   std::string custom_metadata = {});

  // Copies the borrowed arrays of all plans into the pool, packed and on all threads; the save will
  // take them from there, and gives the memory back with the last of its sources. Returns how many
  // bytes were copied. kLimit: no memory; nothing was changed.
  static Result<std::uint64_t> stage(std::span<TreePlan* const> plans, StagingPool& pool);

 private:
  struct PlannedLeaf {
    std::string encoded_path;
    LeafInfo info;
    std::shared_ptr<const LeafSource> source;
  };

  TreeStructure structure_;
  std::vector<PlannedLeaf> leaves_;  // Until put().
  std::vector<std::shared_ptr<ArraySource>> borrowed_;
  std::uint64_t leaf_count_ = 0;
  std::uint64_t size_bytes_ = 0;
};

// A tree as the standard handler saves it: TreePlan::make and put in one.
Result<void> put_tree(StepWriter& writer, std::string_view item, const Tree& tree,
                      const std::vector<CompressionRule>& rules = {});

}  // namespace stepstone
