#pragma once
// Columns of numbers as text inside JSON.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace stepstone::tool {

// Base64 as of RFC 4648, with padding.
std::string to_base64(std::span<const std::byte> bytes);

// The numbers one behind the other, little-endian as this machine is.
template <class Number>
std::string to_base64(const std::vector<Number>& numbers) {
  return to_base64(std::as_bytes(std::span(numbers)));
}

}  // namespace stepstone::tool
