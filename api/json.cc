#include "api/json.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "api/leaf_bytes.h"
#include "format/limits.h"

namespace stepstone {
namespace {

using Json = nlohmann::ordered_json;

// What stands in for numbers that JSON, or its readers, do not have.
constexpr const char* kFloatKey = "__float__";
constexpr const char* kIntegerKey = "__int__";

class Writer {
 public:
  Result<Json> write(const Tree& tree) {
    switch (tree.kind()) {
      case NodeKind::kLeaf:
        return write_leaf(tree.leaf());
      case NodeKind::kDict:
        return write_dict(tree);
      case NodeKind::kList:
      case NodeKind::kTuple: {
        Json array = Json::array();
        for (const Tree::Child& child : tree.children()) {
          array.push_back(STEPSTONE_TRY(write_child(child)));
        }
        return array;
      }
      case NodeKind::kNamedTuple:
      case NodeKind::kCustom:
        return refuse(fmt::format("a {}", to_string(tree.kind())));
    }
    return refuse("an unknown node");
  }

 private:
  tl::unexpected<Error> refuse(const std::string& what) const {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("leaf '{}': JSON cannot hold {}", to_text(path_), what));
  }

  Result<Json> write_child(const Tree::Child& child) {
    if (path_.size() == limits::kDepthMax) return refuse("what is nested so deep");
    path_.push_back(child.label);
    Json json = STEPSTONE_TRY(write(child.tree));
    path_.pop_back();
    return json;
  }

  Result<Json> write_dict(const Tree& tree) {
    Json object = Json::object();
    for (const Tree::Child& child : tree.children()) {
      const std::string& name = child.label.name;
      if (child.label.kind != PathComponent::Kind::kStringKey || !is_utf8(name)) {
        path_.push_back(child.label);
        return refuse("a key that is not a string of UTF-8");
      }
      if (object.contains(name)) {
        path_.push_back(child.label);
        return refuse("a key twice");
      }
      object[name] = STEPSTONE_TRY(write_child(child));
    }
    if (object.size() == 1 && (object.contains(kFloatKey) || object.contains(kIntegerKey))) {
      return refuse(fmt::format("a dict with nothing but '{}'", object.begin().key()));
    }
    return object;
  }

  Result<Json> write_leaf(const Leaf& leaf) const {
    if (std::holds_alternative<None>(leaf)) return Json();
    if (const auto* value = std::get_if<bool>(&leaf)) return Json(*value);
    if (const auto* value = std::get_if<std::int64_t>(&leaf)) return Json(*value);
    if (const auto* value = std::get_if<BigInteger>(&leaf)) {
      if (!is_decimal(value->decimal)) return refuse("a big integer that is not digits");
      return Json::object({{kIntegerKey, value->decimal}});
    }
    if (const auto* value = std::get_if<double>(&leaf)) {
      if (std::isfinite(*value)) return Json(*value);
      const char* const name = std::isnan(*value) ? "nan" : *value > 0 ? "inf" : "-inf";
      return Json::object({{kFloatKey, name}});
    }
    if (const auto* value = std::get_if<std::string>(&leaf)) {
      if (!is_utf8(*value)) return refuse("a string that is not UTF-8");
      return Json(*value);
    }
    return refuse("arrays, bytes, complex numbers or placeholders");
  }

  LeafPath path_;
};

// The number that an object with one such key stands for; none if it is something else.
std::optional<Tree> special_number(const Json& json) {
  if (json.size() != 1 || !json.begin()->is_string()) return std::nullopt;
  const auto& text = json.begin()->get_ref<const std::string&>();
  if (json.begin().key() == kIntegerKey && is_decimal(text)) return BigInteger{text};
  if (json.begin().key() != kFloatKey) return std::nullopt;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (text == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (text == "inf") return kInfinity;
  if (text == "-inf") return -kInfinity;
  return std::nullopt;
}

Tree to_tree(const Json& json) {
  switch (json.type()) {
    case Json::value_t::object: {
      if (std::optional<Tree> number = special_number(json)) return *std::move(number);
      std::vector<std::pair<std::string, Tree>> children;
      for (const auto& [name, value] : json.items()) children.emplace_back(name, to_tree(value));
      return Tree::dict(std::move(children));
    }
    case Json::value_t::array: {
      std::vector<Tree> children;
      for (const Json& value : json) children.push_back(to_tree(value));
      return Tree::list(std::move(children));
    }
    case Json::value_t::string:
      return json.get<std::string>();
    case Json::value_t::boolean:
      return json.get<bool>();
    case Json::value_t::number_integer:
      return json.get<std::int64_t>();
    case Json::value_t::number_unsigned: {
      const auto value = json.get<std::uint64_t>();
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        return BigInteger{std::to_string(value)};
      }
      return static_cast<std::int64_t>(value);
    }
    case Json::value_t::number_float:
      return json.get<double>();
    default:
      return None{};
  }
}

}  // namespace

Result<std::string> to_json(const Tree& tree) { return STEPSTONE_TRY(Writer().write(tree)).dump(); }

Result<Tree> from_json(std::string_view text) {
  // Trees are as deep at most as those that are written; without a bound, a text of brackets would
  // exhaust the stack.
  std::size_t depth = 0;
  bool is_too_deep = false;
  const auto watch = [&](int /*depth*/, Json::parse_event_t event, Json& /*parsed*/) {
    if (event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start) {
      is_too_deep = is_too_deep || ++depth > limits::kDepthMax + 1;
    } else if (event == Json::parse_event_t::object_end ||
               event == Json::parse_event_t::array_end) {
      --depth;
    }
    return true;
  };
  const Json json = Json::parse(text, watch, /*allow_exceptions=*/false);
  if (json.is_discarded() || is_too_deep) {
    return fail(ErrorCode::kCorrupt,
                is_too_deep ? "the JSON text is nested too deep" : "the JSON text does not parse");
  }
  return to_tree(json);
}

}  // namespace stepstone
