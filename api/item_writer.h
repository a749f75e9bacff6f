#pragma once
// What a handler sees of the item that it saves.

#include <cstdint>
#include <memory>
#include <string>

#include "leaf_args.h"
#include "tree.h"

namespace stepstone {

class CheckpointPlan;
class TreePlan;

// One item of a step that is being saved. Not thread-safe.
class ItemWriter {
 public:
  ~ItemWriter();
  ItemWriter(ItemWriter&&) noexcept;
  ItemWriter& operator=(ItemWriter&&) noexcept;

  std::uint64_t step() const { return step_; }
  const std::string& name() const { return name_; }

  // Makes the tree the item's content. To be called once. Arrays that own their bytes are referred
  // to; borrowed ones are copied before the trainer goes on, and in a background part must stay as
  // they are until the commit: hand over owned ones there. kInvalidArgument, kLimit: the tree
  // cannot be saved, or was written already; the message names the leaf.
  Result<void> write(const Tree& tree, const PerLeaf<SaveArgs>& save_args = {});
  // As JsonSave.
  Result<void> set_custom_metadata(const Tree& json);

 private:
  friend class CheckpointPlan;
  ItemWriter(std::uint64_t step, std::string name);

  std::uint64_t step_;
  std::string name_;
  std::string custom_metadata_;  // JSON text.
  std::unique_ptr<TreePlan> plan_;
};

}  // namespace stepstone
