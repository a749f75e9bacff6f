#pragma once
// What is left out or cast while steps are copied as they are, into another store, or into or out
// of portable files.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/transfer.h"
#include "format/dtype.h"
#include "tools/leaf_selection.h"

namespace stepstone::tool {

struct TransferChoice {
  std::vector<std::string> items;  // Empty: all. By their bytes or as printable() shows them.
  LeafPatterns patterns;
  std::optional<DType> cast_to;  // Of leaves of float32 and float64.
};

// kInvalidArgument: a pattern is no regular expression. While they are used: kUnsupported: a list
// or tuple would lose some of its elements, and the positions of the others would not stay.
Result<TransferHooks> hooks_for(const TransferChoice& choice);

// What would come to nothing, before anything is made for it: in each of the steps there is a leaf
// that was chosen. `steps` empty: all of `from`. kNotFound: a step is not there, or nothing in it
// was chosen. The errors of the hooks; kCorrupt, kIo: a structure cannot be read.
Result<void> check_choice(const Store& from, const std::vector<std::uint64_t>& steps,
                          const TransferChoice& choice);

// Leaves of float32 and float64 alone: what is smaller already, or no floating-point number, stays
// as it is. Replaces info and source together.
Result<void> cast_floats(DType to, LeafInfo& info, std::shared_ptr<const LeafSource>& source);

}  // namespace stepstone::tool
