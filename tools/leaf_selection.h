#pragma once
// Which leaves a verb is to deal with: --leaves, --exclude and --regex.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/store.h"
#include "format/error.h"
#include "format/leaf_path.h"

namespace stepstone::tool {

// As the command line gives them. A pattern is one of
// - a path as it is shown, "params/dense": the leaf there, or all that stand below it;
// - a pattern that the whole of a shown path matches, with `*` for any characters, '/' included,
//   `?` for one and `[ab]` for one of these: "params/*", "*/bias". `**` is the same as `*`. These
//   are the api's patterns for the options of leaves (PerLeaf), matched by the same code;
// - with "re:" before it, or `is_regex`, an extended regular expression (POSIX, as of `grep -E`)
//   that is found anywhere in a shown path: "re:^params/.*(bias|scale)$".
struct LeafPatterns {
  std::vector<std::string> include;  // Empty: every leaf.
  std::vector<std::string> exclude;  // Of those.
  bool is_regex = false;
};

// Immutable, and safe from several threads.
class LeafSelection {
 public:
  // kInvalidArgument: not a regular expression; the message says what is wrong.
  static Result<LeafSelection> compile(const LeafPatterns& patterns);

  bool selects_all() const { return include_.empty() && exclude_.empty(); }
  // `text` is to_text(path).
  bool selects(const LeafPath& path, const std::string& text) const;

 private:
  class Pattern;

  std::vector<std::shared_ptr<const Pattern>> include_;
  std::vector<std::shared_ptr<const Pattern>> exclude_;
};

// A leaf and its names.
struct ItemLeaf {
  LeafPath path;
  std::string text;  // to_text(path).
  StoredLeaf stored;
};

// The selected leaves of an item, in the order of its tree. Memory: all leaf records of the item.
// kNotFound: no such item. kCorrupt, kIo: the structure or a record cannot be read.
Result<std::vector<ItemLeaf>> list_leaves(const StepReader& step, std::string_view item,
                                          const LeafSelection& selection = {});

}  // namespace stepstone::tool
