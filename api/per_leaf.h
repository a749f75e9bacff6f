#pragma once
// Options that differ from leaf to leaf.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../format/error.h"
#include "../format/leaf_path.h"

namespace stepstone {

// Which leaves one entry of a PerLeaf is for.
struct LeafSelector {
  // Path: the leaf there, or every leaf below it. Pattern: the leaves whose path, as it is shown
  // ("params/dense/w"), matches; `*` stands for any characters, `/` included, `?` for one, `[ab]`
  // for one of these (fnmatch(3)).
  LeafPath path;
  std::string pattern;  // Empty: `path` decides.

  bool selects(const LeafPath& leaf, const std::string& leaf_text) const;
};

// Options for the leaves of a tree, given once for all, as a tree, by path or by pattern; of the
// entries that select a leaf the first is its own, and a leaf that none selects has none.
//
//   PerLeaf<SaveArgs> by_pattern;
//   by_pattern.add("*/embedding", {.dtype = DType::kBfloat16}).add("*", {.share = false});
//   PerLeaf<SaveArgs> as_tree = PerLeaf<SaveArgs>::dict(
//       {{"params", SaveArgs{.dtype = DType::kBfloat16}}, {"step", SaveArgs{}}});
template <typename Options>
class PerLeaf {
 public:
  struct Entry {
    LeafSelector where;
    Options options;
  };

  PerLeaf() = default;
  // For every leaf, or in a tree for every leaf below.
  PerLeaf(Options options) {  // NOLINT(google-explicit-constructor)
    entries_.push_back({{}, std::move(options)});
  }

  // Trees of options, which need not go down to the leaves. Every node must be in the tree that
  // they are for.
  static PerLeaf dict(std::vector<std::pair<std::string, PerLeaf>> children) {
    PerLeaf all;
    for (auto& [name, child] : children) {
      all.append(PathComponent::key(std::move(name)), std::move(child));
    }
    return all;
  }
  static PerLeaf list(std::vector<PerLeaf> children) {
    PerLeaf all;
    std::uint32_t position = 0;
    for (PerLeaf& child : children) {
      all.append(PathComponent::index(position++), std::move(child));
    }
    return all;
  }
  // Of one child with any label.
  static PerLeaf child(PathComponent label, PerLeaf below) {
    PerLeaf all;
    all.append(std::move(label), std::move(below));
    return all;
  }

  PerLeaf& add(std::string pattern, Options options) {
    entries_.push_back({{{}, std::move(pattern)}, std::move(options)});
    return *this;
  }
  PerLeaf& add(LeafPath path, Options options) {
    entries_.push_back({{std::move(path), {}}, std::move(options)});
    return *this;
  }

  // Those of the leaf at `leaf`, whose text is `leaf_text`; null: none.
  const Options* find(const LeafPath& leaf, const std::string& leaf_text) const {
    for (const Entry& entry : entries_) {
      if (entry.where.selects(leaf, leaf_text)) return &entry.options;
    }
    return nullptr;
  }

  bool empty() const { return entries_.empty(); }
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  // Patterns in a subtree are for paths of the whole item, and stay as they are.
  void append(PathComponent label, PerLeaf below) {
    for (Entry& entry : below.entries_) {
      if (entry.where.pattern.empty()) entry.where.path.insert(entry.where.path.begin(), label);
      entries_.push_back(std::move(entry));
    }
  }

  std::vector<Entry> entries_;
};

}  // namespace stepstone
