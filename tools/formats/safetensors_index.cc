#include "tools/formats/safetensors_index.h"

#include <fmt/format.h>

#include "format/leaf_path.h"
#include "format/limits.h"
#include "tools/formats/contents.h"
#include "tools/formats/json_events.h"
#include "tools/json_text.h"

namespace stepstone::tool {
namespace {

constexpr std::string_view kWeightMapKey = "weight_map";
// Of what is passed over; the parser does not recurse, this is for good measure.
constexpr std::size_t kDepthMax = 64;

Result<void> check_file_name(const std::string& name) {
  const bool is_plain = !name.empty() && name != "." && name != ".." &&
                        name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
  if (is_plain && name.size() <= 255) return {};
  return fail(ErrorCode::kCorrupt,
              "'" + shown(name) + "' is not the name of a file in the index's directory");
}

// {"metadata": anything, "weight_map": {name: file, ...}}
class IndexHandler final : public RefusingHandler {
 public:
  std::optional<SafetensorsIndex> take_index() {
    if (!has_map_) return std::nullopt;
    return std::move(index_);
  }

  bool null() { return other_value("null"); }
  bool boolean(bool /*value*/) { return other_value("a boolean"); }
  bool number_integer(std::int64_t /*value*/) { return other_value("a number"); }
  bool number_unsigned(std::uint64_t /*value*/) { return other_value("a number"); }
  bool number_float(double /*value*/, const std::string& /*text*/) {
    return other_value("a number");
  }
  bool string(std::string& value) {
    if (!is_in_map_ || depth_ != 2) return other_value("a string");
    if (const Result<void> checked = check_file_name(value); !checked) {
      return refuse(checked.error().code, checked.error().message);
    }
    entry_->second = std::move(value);
    return true;
  }

  bool start_object(std::size_t /*size*/) {
    if (is_in_map_ && depth_ != 1) return unexpected("an object");
    return enter();
  }
  bool start_array(std::size_t /*size*/) {
    if (is_in_map_ || depth_ == 0) return unexpected("an array");
    return enter();
  }
  bool key(std::string& name) {
    if (depth_ == 1) return begin_field(name);
    if (!is_in_map_) return true;
    if (name.size() > limits::kNameSizeBytesMax) {
      return refuse(ErrorCode::kLimit,
                    fmt::format("tensor '{}' has a name of {} bytes, over the "
                                "limit of {}",
                                shown(name), name.size(), limits::kNameSizeBytesMax));
    }
    const auto [entry, is_new] = index_.tensors.try_emplace(std::move(name));
    if (!is_new) {
      return refuse(ErrorCode::kCorrupt, "tensor '" + shown(entry->first) + "' is there twice");
    }
    entry_ = entry;
    return true;
  }
  bool end_object() { return leave(); }
  bool end_array() { return leave(); }

 private:
  std::string place() const override {
    return is_in_map_ ? "in weight_map, which must be an object of strings"
                      : "where the index's object should be";
  }
  bool other_value(std::string_view what) {
    return is_in_map_ || depth_ == 0 ? unexpected(what) : true;
  }
  bool begin_field(const std::string& name) {
    is_in_map_ = name == kWeightMapKey;
    if (!is_in_map_) return true;
    if (has_map_) return refuse(ErrorCode::kCorrupt, "weight_map is there twice");
    has_map_ = true;
    return true;
  }
  bool enter() {
    if (++depth_ <= kDepthMax) return true;
    return refuse(ErrorCode::kLimit, fmt::format("nested deeper than {}", kDepthMax));
  }
  bool leave() {
    if (--depth_ == 1) is_in_map_ = false;
    return true;
  }

  SafetensorsIndex index_;
  decltype(index_.tensors)::iterator entry_;
  std::size_t depth_ = 0;
  bool is_in_map_ = false;
  bool has_map_ = false;
};

}  // namespace

Result<SafetensorsIndex> parse_safetensors_index(std::string_view json) {
  IndexHandler handler;
  STEPSTONE_TRY(parse_events(json, handler));
  std::optional<SafetensorsIndex> index = handler.take_index();
  if (!index) return fail(ErrorCode::kCorrupt, "not an index: it has no weight_map");
  return *std::move(index);
}

Result<SafetensorsIndex> read_index(const InputFile& file) {
  if (file.size_bytes() > kSafetensorsIndexSizeBytesMax) {
    return fail(ErrorCode::kLimit, fmt::format("an index of {} bytes is over the limit of {}",
                                               file.size_bytes(), kSafetensorsIndexSizeBytesMax));
  }
  std::string json(static_cast<std::size_t>(file.size_bytes()), '\0');
  STEPSTONE_TRY(file.read(0, std::as_writable_bytes(std::span(json))));
  return parse_safetensors_index(json);
}

Result<std::string> encode_safetensors_index(const SafetensorsIndex& index) {
  std::string json =
      fmt::format("{{\n  \"metadata\": {{\n    \"total_size\": {}\n  }},\n  \"weight_map\": {{",
                  index.total_size_bytes);
  bool is_first = true;
  for (const auto& [tensor, file] : index.tensors) {
    json += is_first ? "\n    " : ",\n    ";
    is_first = false;
    if (!append_json_string(json, tensor)) {
      return fail(ErrorCode::kInvalidArgument, "tensor '" + shown(tensor) + "' is not UTF-8");
    }
    json += ": ";
    if (!append_json_string(json, file)) {
      return fail(ErrorCode::kInvalidArgument, "the file '" + shown(file) + "' is not UTF-8");
    }
  }
  json += "\n  }\n}\n";
  return json;
}

}  // namespace stepstone::tool
