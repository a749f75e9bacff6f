#pragma once
// Where a leaf stands in its item's tree: typed components, because the string key "0", the integer
// key 0, the position 0 and the attribute `0` are four different places.
//
// Three forms of one path: LeafPath (values), the encoded form (bytes; comparing them compares the
// paths component by component, and no path is a prefix of another), and text, for people.

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "error.h"

namespace stepstone {

// One step down a tree. Names are bytes: NUL, '/', '.', '..', empty and invalid UTF-8 are all
// legal.
struct PathComponent {
  // Stored, and the order of siblings.
  enum class Kind : std::uint8_t {
    kIndex = 1,       // Position in a list or tuple.
    kIntegerKey = 2,  // Integer key of a dict.
    kStringKey = 3,   // String key of a dict.
    kAttribute = 4,   // Field of a named tuple or of a custom node.
  };

  Kind kind = Kind::kIndex;
  std::int64_t number = 0;  // kIndex (not negative) and kIntegerKey.
  std::string name;         // kStringKey and kAttribute.

  static PathComponent index(std::uint32_t position) { return {Kind::kIndex, position, {}}; }
  static PathComponent key(std::int64_t number) { return {Kind::kIntegerKey, number, {}}; }
  static PathComponent key(std::string name) { return {Kind::kStringKey, 0, std::move(name)}; }
  static PathComponent attribute(std::string name) {
    return {Kind::kAttribute, 0, std::move(name)};
  }

  auto operator<=>(const PathComponent&) const = default;
};

using LeafPath = std::vector<PathComponent>;  // Empty: the item is itself one leaf.

// Appends the encoding of one component. The caller has checked its limits (see check_component).
void append_component(std::string& encoded, const PathComponent& component);

// Decodes the component that `*encoded` begins with and removes it from there. kCorrupt: no
// component that append_component could have written.
Result<PathComponent> take_component(std::string_view* encoded);

// kInvalidArgument: a negative index. kLimit: a name over limits::kNameSizeBytesMax.
Result<void> check_component(const PathComponent& component);

// Ends a path: every encoded path closes with this byte, which sorts before any component.
inline constexpr char kPathEnd = '\0';

// The encoded form, closed. kInvalidArgument, kLimit: as check_component, and for
// limits::kDepthMax and limits::kEncodedPathSizeBytesMax.
Result<std::string> encode_path(const LeafPath& path);

// The inverse; `encoded` must be one closed path and nothing more. kCorrupt otherwise.
Result<LeafPath> decode_path(std::string_view encoded);

// Text: components joined by '/', as in `params/layer 0/kernel`; a position is attached,
// `layers[3]/w`;
// `{7}` is an integer key and `.mu` an attribute. A backslash makes a special character plain, \xHH
// stands for a byte that is not printable UTF-8, and \e for an empty name. The empty path is "".
std::string to_text(const LeafPath& path);
// The same for an encoded path; one that does not decode is shown as bytes, never an error.
std::string to_text(std::string_view encoded_path);

// The inverse of to_text. kInvalidArgument: says which character is wrong.
Result<LeafPath> parse_path(std::string_view text);

// A name as messages show it: printable UTF-8 as it is, every other byte as \xHH.
std::string printable(std::string_view bytes);

}  // namespace stepstone
