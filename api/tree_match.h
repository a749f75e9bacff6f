#pragma once
// Which stored leaf goes where in what a restore returns.

#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "api/args.h"
#include "api/stored_item.h"
#include "api/tree.h"

namespace stepstone {

// The paths of many leaves: each is a node's label and where the container is that it stands in, so
// that a leaf costs no memory of its own. The labels have to outlive them.
class NodePlaces {
 public:
  static constexpr std::size_t kRoot = std::numeric_limits<std::size_t>::max();

  std::size_t add(std::size_t container, const PathComponent& label) {
    places_.push_back({container, &label});
    return places_.size() - 1;
  }
  void reserve(std::size_t count) { places_.reserve(count); }
  std::size_t container_of(std::size_t place) const { return places_[place].container; }
  LeafPath path(std::size_t place) const;

 private:
  struct Place {
    std::size_t container;
    const PathComponent* label;
  };
  std::vector<Place> places_;
};

// One leaf of the result.
struct LeafMatch {
  std::size_t place = NodePlaces::kRoot;  // In TreeMatch::places.
  std::size_t first_source = 0;           // In TreeMatch::sources.
  std::size_t source_count = 0;           // None: the target's own value.
  const Leaf* target = nullptr;           // Null: as saved.
  const Transform* transform = nullptr;
};

struct TreeMatch {
  Tree result;  // With the target's values, or anything, where leaves are still to be filled in.
  std::vector<LeafMatch> leaves;     // One for each leaf of `result`, in its order.
  std::vector<std::size_t> sources;  // Of all of them, in StoredItem::leaves.
  NodePlaces places;                 // Good as long as `result` and the target are.
  RestoreReport report;

  std::span<const std::size_t> sources_of(const LeafMatch& leaf) const {
    return std::span(sources).subspan(leaf.first_source, leaf.source_count);
  }
  LeafPath path_of(const LeafMatch& leaf) const { return places.path(leaf.place); }
  std::string text_of(const LeafMatch& leaf) const { return to_text(path_of(leaf)); }  // As shown.
};

// Every difference is collected instead of stopping at the first, because whoever renamed a layer
// wants to see all of it. Empty: none.
class Differences {
 public:
  void add(const std::string& leaf, std::string_view what);
  // kMismatch, naming the first few and counting the rest; `where` is the item.
  Result<void> check(std::string_view where) const;

 private:
  std::vector<std::string> differences_;
};

// `item` is what there is at args.subtree, and gives its skeleton away where that is the result;
// both it and `args` must outlive the match. kMismatch: the trees differ. kInvalidArgument: a
// transform, or a path, that makes no sense.
Result<TreeMatch> match_tree(StoredItem& item, const args::PyTreeRestore& args);

}  // namespace stepstone
