#pragma once
// Elements of an array as JSON.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "format/dtype.h"

namespace stepstone::tool {

// Appends element `index` of `elements`, which holds whole elements of `dtype` packed as the store
// packs them. Integers and booleans are JSON's own; floating-point numbers have the fewest digits
// that give the same element back, and always a point or an exponent; what JSON has no number for
// is the string "nan", "inf" or "-inf"; a complex number is [real, imaginary].
void append_element_json(std::string& json, DType dtype, std::span<const std::byte> elements,
                         std::size_t index);

}  // namespace stepstone::tool
