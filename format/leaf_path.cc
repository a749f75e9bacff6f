// Encoded component: a tag byte (the kind), then for numbers eight big-endian bytes (integer keys
// with the sign bit flipped, so that -1 sorts before 0), for names the bytes with 00 escaped as 00
// FF and closed by 00 01. Within names every continuation sorts after the end of the name, so byte
// order is the order of the components; this is the tuple encoding of FoundationDB, with our own
// tags.
#include "format/leaf_path.h"

#include <charconv>

#include "format/limits.h"

namespace stepstone {
namespace {

constexpr std::uint64_t kSignBit = std::uint64_t{1} << 63;

void append_big_endian(std::string& bytes, std::uint64_t value) {
  for (int shift = 56; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift);
}

std::uint64_t read_big_endian(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < 8; ++i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

Result<std::string> take_name(std::string_view* encoded) {
  std::string name;
  for (std::size_t i = 0; i + 1 < encoded->size(); ++i) {
    const char byte = (*encoded)[i];
    if (byte != '\0') {
      name += byte;
      continue;
    }
    const char next = (*encoded)[++i];
    if (next == '\x01') {
      encoded->remove_prefix(i + 1);
      return name;
    }
    if (next != '\xff') break;
    name += '\0';
  }
  return fail(ErrorCode::kCorrupt, "a name in a key does not end");
}

// Length of the printable UTF-8 sequence that `bytes` begins with; 0 if there is none. Overlong
// forms, surrogates and control characters are not printable.
std::size_t printable_length(std::string_view bytes) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const auto continues = [&](std::size_t i) {
    return i < bytes.size() && (byte(i) & 0xC0) == 0x80;
  };
  if (bytes.empty()) return 0;
  const unsigned first = byte(0);
  if (first < 0x80) return first >= 0x20 && first != 0x7F ? 1 : 0;
  if (first >= 0xC2 && first <= 0xDF) {
    // U+0080 to U+009F are control characters.
    return continues(1) && !(first == 0xC2 && byte(1) < 0xA0) ? 2 : 0;
  }
  if ((first & 0xF0) == 0xE0) {
    if (!continues(1) || !continues(2)) return 0;
    if ((first == 0xE0 && byte(1) < 0xA0) || (first == 0xED && byte(1) >= 0xA0)) return 0;
    return 3;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (!continues(1) || !continues(2) || !continues(3)) return 0;
    if ((first == 0xF0 && byte(1) < 0x90) || (first == 0xF4 && byte(1) >= 0x90)) return 0;
    return 4;
  }
  return 0;
}

void append_hex_escape(std::string& text, char byte) {
  constexpr char kDigits[] = "0123456789abcdef";
  const auto value = static_cast<unsigned char>(byte);
  text += "\\x";
  text += kDigits[value >> 4];
  text += kDigits[value & 0xF];
}

// The special characters: those that end a name anywhere, and those that open another kind of
// component at its start.
bool is_special(char c, bool at_start) {
  return c == '/' || c == '[' || c == '\\' || (at_start && (c == '.' || c == '{'));
}

void append_name_text(std::string& text, std::string_view name, bool at_start) {
  if (name.empty()) {
    text += "\\e";
    return;
  }
  for (std::size_t i = 0; i < name.size();) {
    const std::size_t length = printable_length(name.substr(i));
    if (length == 0) {
      append_hex_escape(text, name[i++]);
      continue;
    }
    if (is_special(name[i], at_start && i == 0)) text += '\\';
    text += name.substr(i, length);
    i += length;
  }
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Reads one path of text from front to back.
class PathParser {
 public:
  explicit PathParser(std::string_view text) : text_(text) {}

  Result<LeafPath> parse() {
    LeafPath path;
    if (text_.empty()) return path;
    bool after_separator = true;  // At the start, or just behind a '/'.
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '[' && (at_ == 0 || !after_separator)) {
        path.push_back(STEPSTONE_TRY(number('[', ']', PathComponent::Kind::kIndex)));
      } else if (c == '/' && !after_separator) {
        ++at_;
        after_separator = true;
        if (at_ == text_.size()) return error("the path ends in '/'");
        continue;
      } else if (!after_separator) {
        return error("expected '/' or '['");
      } else if (c == '{') {
        path.push_back(STEPSTONE_TRY(number('{', '}', PathComponent::Kind::kIntegerKey)));
      } else if (c == '.') {
        ++at_;
        path.push_back(PathComponent::attribute(STEPSTONE_TRY(name())));
      } else {
        path.push_back(PathComponent::key(STEPSTONE_TRY(name())));
      }
      after_separator = false;
    }
    return path;
  }

 private:
  tl::unexpected<Error> error(std::string_view what) const {
    return fail(ErrorCode::kInvalidArgument, "leaf path '" + printable(text_) + "', character " +
                                                 std::to_string(at_ + 1) + ": " +
                                                 std::string(what));
  }

  Result<PathComponent> number(char open, char close, PathComponent::Kind kind) {
    const std::size_t end = text_.find(close, at_);
    if (end == std::string_view::npos) return error(std::string(1, open) + " is not closed");
    PathComponent component{kind, 0, {}};
    const char* const first = text_.data() + at_ + 1;
    const char* const last = text_.data() + end;
    const auto [stop, code] = std::from_chars(first, last, component.number);
    if (code != std::errc() || stop != last ||
        (kind == PathComponent::Kind::kIndex && component.number < 0)) {
      return error("not a number that fits");
    }
    at_ = end + 1;
    return component;
  }

  Result<std::string> name() {
    std::string bytes;
    bool is_explicitly_empty = false;
    for (; at_ < text_.size() && text_[at_] != '/' && text_[at_] != '['; ++at_) {
      if (text_[at_] != '\\') {
        bytes += text_[at_];
        continue;
      }
      if (++at_ == text_.size()) return error("a backslash at the end");
      if (text_[at_] == 'e') {
        is_explicitly_empty = true;
      } else if (text_[at_] == 'x') {
        if (at_ + 2 >= text_.size()) return error("\\x needs two hexadecimal digits");
        const int high = hex_value(text_[at_ + 1]);
        const int low = hex_value(text_[at_ + 2]);
        if (high < 0 || low < 0) return error("\\x needs two hexadecimal digits");
        bytes += static_cast<char>(high << 4 | low);
        at_ += 2;
      } else {
        bytes += text_[at_];
      }
    }
    if (bytes.empty() && !is_explicitly_empty) return error("an empty name is written \\e");
    return bytes;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

void append_component(std::string& encoded, const PathComponent& component) {
  encoded += static_cast<char>(component.kind);
  switch (component.kind) {
    case PathComponent::Kind::kIndex:
      append_big_endian(encoded, static_cast<std::uint64_t>(component.number));
      break;
    case PathComponent::Kind::kIntegerKey:
      append_big_endian(encoded, static_cast<std::uint64_t>(component.number) ^ kSignBit);
      break;
    case PathComponent::Kind::kStringKey:
    case PathComponent::Kind::kAttribute:
      for (const char byte : component.name) {
        encoded += byte;
        if (byte == '\0') encoded += '\xff';
      }
      encoded.append("\0\x01", 2);
      break;
  }
}

Result<PathComponent> take_component(std::string_view* encoded) {
  if (encoded->empty()) return fail(ErrorCode::kCorrupt, "a key ends within its path");
  const auto kind = static_cast<PathComponent::Kind>(encoded->front());
  encoded->remove_prefix(1);
  switch (kind) {
    case PathComponent::Kind::kIndex:
    case PathComponent::Kind::kIntegerKey: {
      if (encoded->size() < 8) return fail(ErrorCode::kCorrupt, "a number in a key is cut off");
      std::uint64_t value = read_big_endian(*encoded);
      encoded->remove_prefix(8);
      if (kind == PathComponent::Kind::kIntegerKey) value ^= kSignBit;
      PathComponent component{kind, static_cast<std::int64_t>(value), {}};
      if (kind == PathComponent::Kind::kIndex && component.number < 0) {
        return fail(ErrorCode::kCorrupt, "a position in a key is negative");
      }
      return component;
    }
    case PathComponent::Kind::kStringKey:
    case PathComponent::Kind::kAttribute: {
      PathComponent component{kind, 0, STEPSTONE_TRY(take_name(encoded))};
      if (component.name.size() > limits::kNameSizeBytesMax) {
        return fail(ErrorCode::kCorrupt, "a name in a key is over the limit");
      }
      return component;
    }
  }
  return fail(ErrorCode::kCorrupt, "a key has an unknown kind of path component");
}

Result<void> check_component(const PathComponent& component) {
  if (component.kind == PathComponent::Kind::kIndex && component.number < 0) {
    return fail(ErrorCode::kInvalidArgument, "a position in a leaf path is negative");
  }
  if (component.name.size() > limits::kNameSizeBytesMax) {
    return fail(ErrorCode::kLimit,
                "a name of " + std::to_string(component.name.size()) + " bytes in a leaf path ('" +
                    printable(component.name.substr(0, 32)) + "…') is over the limit of " +
                    std::to_string(limits::kNameSizeBytesMax));
  }
  return {};
}

Result<std::string> encode_path(const LeafPath& path) {
  if (path.size() > limits::kDepthMax) {
    return fail(ErrorCode::kLimit, "a leaf path of " + std::to_string(path.size()) +
                                       " components is over the limit of " +
                                       std::to_string(limits::kDepthMax));
  }
  std::string encoded;
  for (const PathComponent& component : path) {
    STEPSTONE_TRY(check_component(component));
    append_component(encoded, component);
  }
  encoded += kPathEnd;
  if (encoded.size() > limits::kEncodedPathSizeBytesMax) {
    return fail(ErrorCode::kLimit, "a leaf path of " + std::to_string(encoded.size()) +
                                       " encoded bytes is over the limit of " +
                                       std::to_string(limits::kEncodedPathSizeBytesMax));
  }
  return encoded;
}

Result<LeafPath> decode_path(std::string_view encoded) {
  if (encoded.size() > limits::kEncodedPathSizeBytesMax) {
    return fail(ErrorCode::kCorrupt, "a path in a key is over the limit of encoded bytes");
  }
  LeafPath path;
  while (!encoded.empty() && encoded.front() != kPathEnd) {
    if (path.size() == limits::kDepthMax) {
      return fail(ErrorCode::kCorrupt, "a path in a key is too deep");
    }
    path.push_back(STEPSTONE_TRY(take_component(&encoded)));
  }
  if (encoded.size() != 1) return fail(ErrorCode::kCorrupt, "a path in a key does not end");
  return path;
}

std::string to_text(const LeafPath& path) {
  std::string text;
  for (const PathComponent& component : path) {
    switch (component.kind) {
      case PathComponent::Kind::kIndex:
        text += "[" + std::to_string(component.number) + "]";
        continue;
      case PathComponent::Kind::kIntegerKey:
        if (!text.empty()) text += '/';
        text += "{" + std::to_string(component.number) + "}";
        continue;
      case PathComponent::Kind::kStringKey:
        if (!text.empty()) text += '/';
        append_name_text(text, component.name, /*at_start=*/true);
        continue;
      case PathComponent::Kind::kAttribute:
        if (!text.empty()) text += '/';
        text += '.';
        append_name_text(text, component.name, /*at_start=*/false);
        continue;
    }
  }
  return text;
}

std::string to_text(std::string_view encoded_path) {
  const Result<LeafPath> path = decode_path(encoded_path);
  return path ? to_text(*path) : printable(encoded_path);
}

Result<LeafPath> parse_path(std::string_view text) { return PathParser(text).parse(); }

std::string printable(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    const std::size_t length = printable_length(bytes);
    if (length == 0) {
      append_hex_escape(text, bytes.front());
      bytes.remove_prefix(1);
      continue;
    }
    text += bytes.substr(0, length);
    bytes.remove_prefix(length);
  }
  return text;
}

}  // namespace stepstone
