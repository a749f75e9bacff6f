#include "api/c/step_leaves.h"

#include <fmt/format.h>

namespace stepstone::c {

std::string StepLeaves::name_of(const std::string& item, std::string_view path) const {
  return fmt::format("step {} item '{}' leaf '{}'", held_.step(), printable(item), path);
}

std::uint64_t StepLeaves::count() const {
  std::uint64_t count = 0;
  for (const std::string& item : held_.item_names()) count += held_.leaf_count(item);
  return count;
}

Result<const StepLeaves::Leaf*> StepLeaves::find(const std::string& item, const char* path) const {
  LeafPath parsed = STEPSTONE_TRY_CONTEXT(parse_path(path), name_of(item, printable(path)));
  const std::scoped_lock lock(mutex_);
  std::pair<std::string, LeafPath> key(item, std::move(parsed));
  auto found = known_.find(key);
  if (found == known_.end()) {
    LeafMetadata metadata = STEPSTONE_TRY(held_.leaf_metadata(item, key.second));
    Leaf leaf = {item, key.second, std::move(metadata)};
    found = known_.emplace(std::move(key), std::move(leaf)).first;
  }
  return &found->second;
}

Result<const StepLeaves::Listing*> StepLeaves::list() const {
  const std::scoped_lock lock(mutex_);
  if (listing_) return &*listing_;
  Listing listing;
  for (const std::string& name : held_.item_names()) {
    ItemMetadata metadata = STEPSTONE_TRY(held_.item_metadata(name));
    Item& item = listing.items[name];
    std::size_t position = 0;
    metadata.tree.for_each_leaf([&](const LeafPath& path, const stepstone::Leaf& /*leaf*/) {
      LeafMetadata& leaf = metadata.leaves[position++];
      const auto entry =
          known_.try_emplace(std::pair(name, path), Leaf{name, path, std::move(leaf)}).first;
      item.leaves.push_back(&entry->second);
    });
    item.tree = std::move(metadata.tree);
    listing.leaves.insert(listing.leaves.end(), item.leaves.begin(), item.leaves.end());
  }
  listing_ = std::move(listing);
  return &*listing_;
}

}  // namespace stepstone::c
