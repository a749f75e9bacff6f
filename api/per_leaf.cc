#include "api/per_leaf.h"

#include <fnmatch.h>

#include <algorithm>

namespace stepstone {

bool LeafSelector::selects(const LeafPath& leaf, const std::string& leaf_text) const {
  if (!pattern.empty()) return fnmatch(pattern.c_str(), leaf_text.c_str(), 0) == 0;
  return path.size() <= leaf.size() && std::equal(path.begin(), path.end(), leaf.begin());
}

}  // namespace stepstone
