#pragma once
// Which stored leaf goes where in what a restore returns.

#include <optional>
#include <string>
#include <vector>

#include "api/args.h"
#include "api/stored_item.h"
#include "api/tree.h"

namespace stepstone {

// One leaf of the result.
struct LeafMatch {
  LeafPath path;
  std::vector<std::size_t> sources;  // In StoredItem::leaves. Empty: the target's own value.
  const Leaf* target = nullptr;      // Null: as saved.
  const Transform* transform = nullptr;

  std::string text() const { return to_text(path); }  // As it is shown.
};

struct TreeMatch {
  Tree result;  // With the target's values, or anything, where leaves are still to be filled in.
  std::vector<LeafMatch> leaves;  // One for each leaf of `result`, in its order.
  RestoreReport report;
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

// `item` is what there is at args.subtree; `args` must outlive the match. kMismatch: the trees
// differ. kInvalidArgument: a transform, or a path, that makes no sense.
Result<TreeMatch> match_tree(const StoredItem& item, const args::PyTreeRestore& args);

}  // namespace stepstone
