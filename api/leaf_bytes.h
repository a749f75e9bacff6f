#pragma once
// The bytes of leaves that are no arrays.

#include <string>
#include <string_view>

namespace stepstone {

// Of a number, as they stand in memory.
template <typename T>
std::string bytes_of(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

// Well-formed, and no surrogates.
bool is_utf8(std::string_view text);

// Digits, behind a '-' if negative, without leading zeros.
bool is_decimal(std::string_view text);

}  // namespace stepstone
