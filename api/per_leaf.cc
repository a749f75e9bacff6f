#include "api/per_leaf.h"

#include <fnmatch.h>

#include <algorithm>

#include "api/tree.h"

namespace stepstone {
namespace {

using Paths = std::span<const LeafPath* const>;

// Orders paths that agree in the components before `depth`, and labels among them.
struct ByLabel {
  std::size_t depth;

  bool operator()(const LeafPath* path, const PathComponent& label) const {
    return (*path)[depth] < label;
  }
  bool operator()(const PathComponent& label, const LeafPath* path) const {
    return label < (*path)[depth];
  }
};

// `paths` are sorted, and begin with the `depth` components that lead to `tree`.
const LeafPath* find_missing(const Tree& tree, Paths paths, std::size_t depth) {
  if (!paths.empty() && paths.front()->size() == depth) paths = paths.subspan(1);
  std::size_t found_count = 0;
  for (const Tree::Child& child : tree.children()) {
    if (found_count == paths.size()) break;
    const auto below =
        std::equal_range(paths.begin(), paths.end(), child.label, ByLabel{.depth = depth});
    if (below.first == below.second) continue;
    const LeafPath* const missing =
        find_missing(child.tree, Paths(below.first, below.second), depth + 1);
    if (missing != nullptr) return missing;
    found_count += static_cast<std::size_t>(below.second - below.first);
  }
  if (found_count == paths.size()) return nullptr;
  for (const LeafPath* const path : paths) {
    if (tree.find(LeafPath{(*path)[depth]}) == nullptr) return path;
  }
  return nullptr;
}

}  // namespace

bool LeafIndex::Before::operator()(std::span<const PathComponent> a,
                                   std::span<const PathComponent> b) const {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
}

void LeafIndex::add(const LeafSelector& where) {
  const std::size_t entry = entry_count_++;
  if (where.pattern.empty()) {
    by_path_.emplace(where.path, entry);
  } else {
    patterns_.push_back({where.pattern, entry});
  }
}

std::optional<std::size_t> LeafIndex::find(const LeafPath& leaf,
                                           const std::string& leaf_text) const {
  std::size_t first = entry_count_;
  if (!by_path_.empty()) {
    for (std::size_t depth = 0; depth <= leaf.size(); ++depth) {
      const auto found = by_path_.find(std::span(leaf).first(depth));
      if (found != by_path_.end()) first = std::min(first, found->second);
    }
  }
  for (const Pattern& pattern : patterns_) {
    if (pattern.entry > first) break;
    if (fnmatch(pattern.text.c_str(), leaf_text.c_str(), 0) == 0) first = pattern.entry;
  }
  if (first == entry_count_) return std::nullopt;
  return first;
}

const LeafPath* LeafIndex::missing_from(const Tree& tree) const {
  std::vector<const LeafPath*> paths;
  paths.reserve(by_path_.size());
  for (const auto& [path, entry] : by_path_) paths.push_back(&path);
  return find_missing(tree, paths, 0);
}

}  // namespace stepstone
