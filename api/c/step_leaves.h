#pragma once
// The leaves of a step that is open in C. What describes a leaf is handed out, and so must stay
// until the step is freed; it is looked up when it is first asked for: one leaf of a million is one
// record. Safe from several threads.

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "api/held_step.h"

namespace stepstone::c {

class StepLeaves {
 public:
  struct Leaf {
    std::string item;
    LeafPath path;
    LeafMetadata metadata;
  };
  struct Item {
    Tree tree;                        // As ItemMetadata::tree.
    std::vector<const Leaf*> leaves;  // In its order.
  };
  // Everything there is. What it points to, and it itself, never moves.
  struct Listing {
    std::map<std::string, Item> items;
    std::vector<const Leaf*> leaves;  // In the order of the items' names, then of their trees.
  };

  explicit StepLeaves(HeldStep held) : held_(std::move(held)) {}

  const HeldStep& held() const { return held_; }
  // "step 40 item 'state' leaf 'w'", for messages.
  std::string name_of(const std::string& item, std::string_view path) const;

  std::uint64_t count() const;  // Of all items.
  // By the path's text. kNotFound: no such item or leaf. kInvalidArgument: no path. kCorrupt, kIo.
  Result<const Leaf*> find(const std::string& item, const char* path) const;
  // Reads the records of all leaves, once. kCorrupt, kIo.
  Result<const Listing*> list() const;

 private:
  HeldStep held_;
  mutable std::mutex mutex_;  // Guards what follows.
  mutable std::map<std::pair<std::string, LeafPath>, Leaf> known_;
  mutable std::optional<Listing> listing_;
};

}  // namespace stepstone::c
