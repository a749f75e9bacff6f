#pragma once
// The value of a leaf that is not an array, as text.

#include <cstddef>
#include <span>
#include <string>

#include "format/error.h"
#include "format/records.h"

namespace stepstone::tool {

// One JSON value: a big integer is its digits, and bytes are hexadecimal digits, both as strings.
// `bytes` are the leaf's. kUnsupported: a string that is not UTF-8.
Result<std::string> value_json(const LeafRecord& record, std::span<const std::byte> bytes);

}  // namespace stepstone::tool
