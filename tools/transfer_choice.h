#pragma once
// What is left out or cast while steps are copied as they are, into or out of portable files.

#include <optional>
#include <string>

#include "engine/transfer.h"
#include "format/dtype.h"
#include "tools/leaf_selection.h"

namespace stepstone::tool {

struct TransferChoice {
  std::optional<std::string> item;  // nullopt: all. By its bytes or as printable() shows it.
  LeafPatterns patterns;
  std::optional<DType> cast_to;  // Of leaves of float32 and float64.
};

// kInvalidArgument: a pattern is no regular expression. While they are used: kUnsupported: a list
// or tuple would lose some of its elements, and the positions of the others would not stay.
Result<TransferHooks> hooks_for(const TransferChoice& choice);

// Leaves of float32 and float64 alone: what is smaller already, or no floating-point number, stays
// as it is. Replaces info and source together.
Result<void> cast_floats(DType to, LeafInfo& info, std::shared_ptr<const LeafSource>& source);

}  // namespace stepstone::tool
