#pragma once
// Options that differ from leaf to leaf.

#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../format/error.h"
#include "../format/leaf_path.h"

namespace stepstone {

class Tree;

// Which leaves one entry of a PerLeaf is for.
struct LeafSelector {
  // Path: the leaf there, or every leaf below it. Pattern: the leaves whose path, as it is shown
  // ("params/dense/w"), matches; `*` stands for any characters, `/` included, `?` for one, `[ab]`
  // for one of these (fnmatch(3)).
  LeafPath path;
  std::string pattern;  // Empty: `path` decides.
};

// Which of a PerLeaf's entries a leaf's options are in. Thousands of paths cost each leaf a few
// look-ups; patterns are tried one by one.
class LeafIndex {
 public:
  // Of the entry that comes next.
  void add(const LeafSelector& where);

  // The number, from 0, of the first entry that selects the leaf at `leaf`, whose text is
  // `leaf_text`.
  std::optional<std::size_t> find(const LeafPath& leaf, const std::string& leaf_text) const;

  // A path of an entry at which the tree has no node, valid as long as this; null: there is none.
  const LeafPath* missing_from(const Tree& tree) const;

 private:
  struct Before {
    // The name is the standard library's. NOLINTNEXTLINE(readability-identifier-naming)
    using is_transparent = void;
    bool operator()(std::span<const PathComponent> a, std::span<const PathComponent> b) const;
  };
  struct Pattern {
    std::string text;
    std::size_t entry;
  };

  std::map<LeafPath, std::size_t, Before> by_path_;  // The first entry of each path.
  std::vector<Pattern> patterns_;                    // By entry.
  std::size_t entry_count_ = 0;
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
    append({{}, std::move(options)});
  }

  // Trees of options, which need not go down to the leaves. Every node must be in the tree that
  // they are for.
  static PerLeaf dict(std::vector<std::pair<std::string, PerLeaf>> children) {
    PerLeaf all;
    for (auto& [name, child] : children) {
      all.append_below(PathComponent::key(std::move(name)), std::move(child));
    }
    return all;
  }
  static PerLeaf list(std::vector<PerLeaf> children) {
    PerLeaf all;
    std::uint32_t position = 0;
    for (PerLeaf& child : children) {
      all.append_below(PathComponent::index(position++), std::move(child));
    }
    return all;
  }
  // Of one child with any label.
  static PerLeaf child(PathComponent label, PerLeaf below) {
    PerLeaf all;
    all.append_below(std::move(label), std::move(below));
    return all;
  }

  PerLeaf& add(std::string pattern, Options options) {
    append({{{}, std::move(pattern)}, std::move(options)});
    return *this;
  }
  PerLeaf& add(LeafPath path, Options options) {
    append({{std::move(path), {}}, std::move(options)});
    return *this;
  }

  // Those of the leaf at `leaf`, whose text is `leaf_text`; null: none.
  const Options* find(const LeafPath& leaf, const std::string& leaf_text) const {
    const std::optional<std::size_t> entry = index_.find(leaf, leaf_text);
    return entry ? &entries_[*entry].options : nullptr;
  }
  const LeafPath* missing_from(const Tree& tree) const { return index_.missing_from(tree); }

  bool empty() const { return entries_.empty(); }
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  void append(Entry entry) {
    index_.add(entry.where);
    entries_.push_back(std::move(entry));
  }
  // Patterns in a subtree are for paths of the whole item, and stay as they are.
  void append_below(PathComponent label, PerLeaf below) {
    for (Entry& entry : below.entries_) {
      if (entry.where.pattern.empty()) entry.where.path.insert(entry.where.path.begin(), label);
      append(std::move(entry));
    }
  }

  std::vector<Entry> entries_;
  LeafIndex index_;
};

}  // namespace stepstone
