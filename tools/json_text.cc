// The escapes are those of Rust's serde_json, short forms first, because the safetensors library
// writes its headers with it and our header has to equal its own.
#include "tools/json_text.h"

#include <cstddef>

namespace stepstone::tool {
namespace {

// Length of the UTF-8 sequence that `text`, not empty, begins with; 0: it is none. Overlong forms,
// surrogates and what lies beyond U+10FFFF are none.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto continues = [&](std::size_t i) { return i < text.size() && (byte(i) & 0xC0) == 0x80; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first < 0xC2) return 0;
  if (first < 0xE0) return continues(1) ? 2 : 0;
  if (first < 0xF0) {
    if (!continues(1) || !continues(2)) return 0;
    const unsigned second = byte(1);
    return (first == 0xE0 && second < 0xA0) || (first == 0xED && second >= 0xA0) ? 0 : 3;
  }
  if (first > 0xF4 || !continues(1) || !continues(2) || !continues(3)) return 0;
  const unsigned second = byte(1);
  return (first == 0xF0 && second < 0x90) || (first == 0xF4 && second >= 0x90) ? 0 : 4;
}

void append_escaped(std::string& json, char c) {
  constexpr char kDigits[] = "0123456789abcdef";
  switch (c) {
    case '"':
    case '\\':
      json += '\\';
      json += c;
      return;
    case '\b':
      json += "\\b";
      return;
    case '\f':
      json += "\\f";
      return;
    case '\n':
      json += "\\n";
      return;
    case '\r':
      json += "\\r";
      return;
    case '\t':
      json += "\\t";
      return;
    default:
      break;
  }
  const auto value = static_cast<unsigned char>(c);
  if (value >= 0x20) {
    json += c;
    return;
  }
  json += "\\u00";
  json += kDigits[value >> 4];
  json += kDigits[value & 0xF];
}

}  // namespace

bool append_json_string(std::string& json, std::string_view text) {
  const std::size_t size_before = json.size();
  json += '"';
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (length == 0) {
      json.resize(size_before);
      return false;
    }
    if (length == 1) {
      append_escaped(json, text.front());
    } else {
      json += text.substr(0, length);
    }
    text.remove_prefix(length);
  }
  json += '"';
  return true;
}

}  // namespace stepstone::tool
