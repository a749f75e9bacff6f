#include "tools/leaf_value.h"

#include <fmt/format.h>

#include <cstring>

#include "tools/element_text.h"
#include "tools/json_text.h"

namespace stepstone::tool {
namespace {

std::string hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return text;
}

}  // namespace

Result<std::string> value_json(const LeafRecord& record, std::span<const std::byte> bytes) {
  std::string json;
  const auto append_text = [&]() -> Result<std::string> {
    std::string text(bytes.size(), '\0');
    std::memcpy(text.data(), bytes.data(), bytes.size());
    if (!append_json_string(json, text)) {
      return fail(ErrorCode::kUnsupported, "it is not UTF-8, as JSON must be; use --raw");
    }
    return json;
  };
  switch (record.kind) {
    case LeafKind::kNone:
      return "null";
    case LeafKind::kBool:
      append_element_json(json, DType::kBool, bytes, 0);
      return json;
    case LeafKind::kInt64:
      append_element_json(json, DType::kInt64, bytes, 0);
      return json;
    case LeafKind::kFloat64:
      append_element_json(json, DType::kFloat64, bytes, 0);
      return json;
    case LeafKind::kComplex128:
      append_element_json(json, DType::kComplex128, bytes, 0);
      return json;
    case LeafKind::kBigInteger:
    case LeafKind::kString:
      return append_text();
    case LeafKind::kBytes:
    case LeafKind::kArray:
      return "\"" + hex(bytes) + "\"";
  }
  return json;
}

}  // namespace stepstone::tool
