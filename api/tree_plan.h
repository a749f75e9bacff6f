#pragma once
// A tree on its way into the engine: what the standard handler does to save one.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "api/storage_options.h"
#include "api/tree.h"
#include "engine/staging_pool.h"
#include "engine/store.h"

namespace stepstone {

// The handler's name, recorded with the item.
inline constexpr std::string_view kStandardHandler = "standard";
// The item of a checkpoint that is a single object.
inline constexpr std::string_view kDefaultItem = "default";

class ArraySource;

// A tree taken apart for a save: its structure, and for each leaf where its bytes come from. Holds
// copies of the arrays (which share their bytes with the tree's), not the tree.
class TreePlan {
 public:
  // kInvalidArgument, kLimit: the tree cannot be saved; the message names the leaf.
  static Result<TreePlan> make(const Tree& tree);

  std::uint64_t leaf_count() const { return leaf_count_; }
  std::uint64_t size_bytes() const { return size_bytes_; }  // Of all leaves.

  // Adds the tree to a save as `item`. Until the commit, borrowed arrays must stay as they are,
  // unless stage() is called. To be called once. Errors as of StepWriter.
  Result<void> put(StepWriter& writer, std::string_view item,
                   const std::vector<CompressionRule>& rules = {});

  // Copies the borrowed arrays into the pool, packed and on all threads; the save will take them
  // from there, and gives the memory back with the last of its sources. Returns how many bytes were
  // copied. kLimit: no memory; nothing was changed.
  Result<std::uint64_t> stage(StagingPool& pool);

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

// Whether the tree can be saved: TreePlan::make's errors.
Result<void> check_tree(const Tree& tree);

// TreePlan::make and put in one.
Result<void> put_tree(StepWriter& writer, std::string_view item, const Tree& tree,
                      const std::vector<CompressionRule>& rules = {});

}  // namespace stepstone
