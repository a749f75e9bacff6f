// The header is read by an event parser (nlohmann's SAX interface, which keeps no document and does
// not recurse): a state machine with one state per place where a value may stand, so that anything
// nested deeper, of another type, or there twice is refused where it appears. Only then are the
// tensors sorted by where their bytes lie and walked once, each having to begin where the one
// before it ended: that one walk finds overlaps, holes and bytes that no tensor claims.
#include "tools/formats/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "format/limits.h"
#include "tools/formats/contents.h"
#include "tools/formats/json_events.h"
#include "tools/json_text.h"

namespace stepstone::tool {
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";
constexpr std::string_view kCustomMetadataKey = "safetensors";

struct DTypeName {
  std::string_view name;
  DType dtype;
};
// In the library's order, which decides the order of tensors in a file: later ones come first.
constexpr std::array<DTypeName, 20> kDTypeNames = {{
    {"BOOL", DType::kBool},
    {"F4", DType::kFloat4E2m1fn},
    {"U8", DType::kUint8},
    {"I8", DType::kInt8},
    {"F8_E5M2", DType::kFloat8E5m2},
    {"F8_E4M3", DType::kFloat8E4m3fn},
    {"F8_E8M0", DType::kFloat8E8m0fnu},
    {"F8_E4M3FNUZ", DType::kFloat8E4m3fnuz},
    {"F8_E5M2FNUZ", DType::kFloat8E5m2fnuz},
    {"I16", DType::kInt16},
    {"U16", DType::kUint16},
    {"F16", DType::kFloat16},
    {"BF16", DType::kBfloat16},
    {"I32", DType::kInt32},
    {"U32", DType::kUint32},
    {"F32", DType::kFloat32},
    {"C64", DType::kComplex64},
    {"F64", DType::kFloat64},
    {"I64", DType::kInt64},
    {"U64", DType::kUint64},
}};

std::string tensor_name(std::string_view name) { return "tensor '" + shown(name) + "'"; }

class HeaderHandler final : public RefusingHandler {
 public:
  SafetensorsHeader take_header() { return std::move(header_); }

  bool start_object(std::size_t /*size*/) {
    switch (state_) {
      case State::kStart:
        state_ = State::kTop;
        return true;
      case State::kTopValue:
        state_ = is_metadata_ ? State::kMetadata : State::kTensor;
        return true;
      default:
        return unexpected("an object");
    }
  }

  bool key(std::string& name) {
    switch (state_) {
      case State::kTop:
        return begin_entry(name);
      case State::kMetadata:
        header_.metadata->emplace_back(std::move(name), std::string());
        state_ = State::kMetadataValue;
        return true;
      case State::kTensor:
        return begin_field(name);
      default:
        return unexpected("a key");
    }
  }

  bool string(std::string& value) {
    if (state_ == State::kMetadataValue) {
      header_.metadata->back().second = std::move(value);
      state_ = State::kMetadata;
      return true;
    }
    if (state_ != State::kDType) return unexpected("a string");
    const std::optional<DType> dtype = dtype_from_safetensors(value);
    if (!dtype) {
      return refuse(ErrorCode::kUnsupported, tensor_name(tensor().name) + " has dtype '" +
                                                 shown(value) + "', which Stepstone does not know");
    }
    tensor().dtype = *dtype;
    state_ = State::kTensor;
    return true;
  }

  bool start_array(std::size_t /*size*/) {
    if (state_ == State::kShape) {
      state_ = State::kShapeValue;
    } else if (state_ == State::kOffsets) {
      state_ = State::kOffsetsValue;
    } else {
      return unexpected("an array");
    }
    return true;
  }

  bool number_unsigned(std::uint64_t value) {
    if (state_ == State::kShapeValue) {
      if (tensor().shape.size() == limits::kRankMax) {
        return refuse(ErrorCode::kLimit, fmt::format("{} has more than {} dimensions",
                                                     tensor_name(tensor().name), limits::kRankMax));
      }
      tensor().shape.push_back(value);
      return true;
    }
    if (state_ != State::kOffsetsValue) return unexpected("a number");
    if (offset_count_ == 2) return wrong_offset_count();
    offsets_[offset_count_++] = value;
    return true;
  }

  bool end_array() {
    if (state_ == State::kOffsetsValue && offset_count_ != 2) return wrong_offset_count();
    state_ = State::kTensor;
    return true;
  }

  bool end_object() {
    switch (state_) {
      case State::kTensor:
        state_ = State::kTop;
        return end_tensor();
      case State::kMetadata:
        state_ = State::kTop;
        return true;
      default:
        state_ = State::kEnd;
        return true;
    }
  }

 private:
  // Where the parser stands: what the next event belongs to.
  enum class State {
    kStart,
    kTop,
    kTopValue,
    kMetadata,
    kMetadataValue,
    kTensor,
    kDType,
    kShape,
    kShapeValue,
    kOffsets,
    kOffsetsValue,
    kEnd,
  };
  enum Field : unsigned { kFieldDType = 1, kFieldShape = 2, kFieldOffsets = 4, kFieldsAll = 7 };

  SafetensorsTensor& tensor() { return header_.tensors.back(); }

  std::string place() const override {
    switch (state_) {
      case State::kStart:
      case State::kEnd:
        return "where the header's object should be";
      case State::kTop:
        return "between the header's entries";
      case State::kTopValue:
        return is_metadata_ ? "as the value of __metadata__, which must be an object of strings"
                            : "as the value of " + tensor_name(header_.tensors.back().name);
      case State::kMetadata:
      case State::kMetadataValue:
        return "in __metadata__, which must be an object of strings";
      case State::kTensor:
        return "in " + tensor_name(header_.tensors.back().name);
      case State::kDType:
        return "as the dtype of " + tensor_name(header_.tensors.back().name);
      case State::kShape:
      case State::kShapeValue:
        return "in the shape of " + tensor_name(header_.tensors.back().name);
      case State::kOffsets:
      case State::kOffsetsValue:
        return "in the data_offsets of " + tensor_name(header_.tensors.back().name);
    }
    return {};
  }

  bool begin_entry(std::string& name) {
    state_ = State::kTopValue;
    is_metadata_ = name == kMetadataKey;
    if (is_metadata_) {
      if (header_.metadata) return refuse(ErrorCode::kCorrupt, "__metadata__ is there twice");
      header_.metadata.emplace();
      return true;
    }
    if (name.size() > limits::kNameSizeBytesMax) {
      return refuse(ErrorCode::kLimit,
                    fmt::format("{} has a name of {} bytes, over the limit of {}",
                                tensor_name(name), name.size(), limits::kNameSizeBytesMax));
    }
    header_.tensors.emplace_back().name = std::move(name);
    fields_seen_ = 0;
    offset_count_ = 0;
    return true;
  }

  bool begin_field(const std::string& name) {
    Field field = kFieldsAll;
    if (name == "dtype") {
      field = kFieldDType;
      state_ = State::kDType;
    } else if (name == "shape") {
      field = kFieldShape;
      state_ = State::kShape;
    } else if (name == "data_offsets") {
      field = kFieldOffsets;
      state_ = State::kOffsets;
    } else {
      return refuse(ErrorCode::kCorrupt,
                    tensor_name(tensor().name) + " has an unknown field '" + shown(name) + "'");
    }
    if ((fields_seen_ & field) != 0) {
      return refuse(ErrorCode::kCorrupt,
                    tensor_name(tensor().name) + " has the field '" + name + "' twice");
    }
    fields_seen_ |= field;
    return true;
  }

  bool wrong_offset_count() {
    return refuse(ErrorCode::kCorrupt,
                  tensor_name(tensor().name) + " does not have exactly two data_offsets");
  }

  bool end_tensor() {
    const std::string name = tensor_name(tensor().name);
    if (fields_seen_ != kFieldsAll) {
      return refuse(ErrorCode::kCorrupt, name + " lacks a dtype, a shape or data_offsets");
    }
    if (offsets_[1] < offsets_[0]) {
      return refuse(ErrorCode::kCorrupt, fmt::format("{} ends at {}, before its begin at {}", name,
                                                     offsets_[1], offsets_[0]));
    }
    tensor().offset = offsets_[0];
    tensor().size_bytes = offsets_[1] - offsets_[0];
    return true;
  }

  State state_ = State::kStart;
  bool is_metadata_ = false;
  unsigned fields_seen_ = 0;
  std::array<std::uint64_t, 2> offsets_ = {};
  std::size_t offset_count_ = 0;
  SafetensorsHeader header_;
};

// Finds {"safetensors": {string: string, ...}} at the top of custom metadata and lets the rest
// pass.
class CustomMetadataHandler final : public RefusingHandler {
 public:
  std::optional<SafetensorsMetadata> take_metadata() { return std::move(metadata_); }

  bool null() { return other_value(); }
  bool boolean(bool /*value*/) { return other_value(); }
  bool number_integer(std::int64_t /*value*/) { return other_value(); }
  bool number_unsigned(std::uint64_t /*value*/) { return other_value(); }
  bool number_float(double /*value*/, const std::string& /*text*/) { return other_value(); }
  bool string(std::string& value) {
    if (!is_inside_) return true;
    if (depth_ != 2) return mismatch();
    metadata_->back().second = std::move(value);
    return true;
  }
  bool start_object(std::size_t /*size*/) {
    if (is_inside_ && depth_ != 1) return mismatch();
    ++depth_;
    return true;
  }
  bool key(std::string& name) {
    if (depth_ == 1) {
      is_inside_ = name == kCustomMetadataKey;
      if (is_inside_) metadata_.emplace();
    } else if (is_inside_) {
      metadata_->emplace_back(std::move(name), std::string());
    }
    return true;
  }
  bool end_object() {
    --depth_;
    return true;
  }
  bool start_array(std::size_t /*size*/) {
    if (is_inside_) return mismatch();
    ++depth_;
    return true;
  }
  bool end_array() {
    --depth_;
    return true;
  }

 private:
  std::string place() const override { return "in the custom metadata"; }
  bool other_value() { return is_inside_ ? mismatch() : true; }
  bool mismatch() {
    return refuse(ErrorCode::kMismatch,
                  "the custom metadata's \"safetensors\" is not an object of strings");
  }

  std::size_t depth_ = 0;
  bool is_inside_ = false;
  std::optional<SafetensorsMetadata> metadata_;
};

Result<void> check_size(const SafetensorsTensor& tensor) {
  const std::uint64_t size_bytes =
      STEPSTONE_TRY_CONTEXT(array_size_bytes(tensor.dtype, tensor.shape), tensor_name(tensor.name));
  const std::uint64_t bits = info(tensor.dtype).bits;
  // The library refuses a tensor with half a byte over.
  if (bits < 8 && STEPSTONE_TRY(element_count(tensor.shape)) % (8 / bits) != 0) {
    return fail(
        ErrorCode::kUnsupported,
        fmt::format("{}, of {} bits an element, does not fill whole bytes with its shape {}, "
                    "as safetensors wants",
                    tensor_name(tensor.name), bits, to_string(tensor.shape)));
  }
  if (size_bytes != tensor.size_bytes) {
    return fail(ErrorCode::kCorrupt,
                fmt::format("{} has {} bytes of data, but its dtype {} and shape {} make {}",
                            tensor_name(tensor.name), tensor.size_bytes, to_string(tensor.dtype),
                            to_string(tensor.shape), size_bytes));
  }
  return {};
}

Result<void> check_names(const SafetensorsHeader& header) {
  std::vector<std::string_view> names;
  names.reserve(header.tensors.size());
  for (const SafetensorsTensor& tensor : header.tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) {
    return fail(ErrorCode::kCorrupt, tensor_name(*twice) + " is there twice");
  }
  if (!header.metadata) return {};
  names.clear();
  for (const auto& [key, value] : *header.metadata) names.push_back(key);
  std::sort(names.begin(), names.end());
  const auto key_twice = std::adjacent_find(names.begin(), names.end());
  if (key_twice != names.end()) {
    return fail(ErrorCode::kCorrupt, "__metadata__ has the key '" + shown(*key_twice) + "' twice");
  }
  return {};
}

// `tensors` are sorted by offset, then end.
Result<void> check_layout(std::span<const SafetensorsTensor> tensors,
                          std::uint64_t data_size_bytes) {
  std::uint64_t end = 0;
  const SafetensorsTensor* previous = nullptr;
  for (const SafetensorsTensor& tensor : tensors) {
    if (tensor.offset + tensor.size_bytes > data_size_bytes) {
      return fail(
          ErrorCode::kCorrupt,
          fmt::format("{} ends at byte {} of the data, which has only {}", tensor_name(tensor.name),
                      tensor.offset + tensor.size_bytes, data_size_bytes));
    }
    if (tensor.offset < end) {
      return fail(ErrorCode::kCorrupt, fmt::format("{} overlaps {}", tensor_name(tensor.name),
                                                   tensor_name(previous->name)));
    }
    if (tensor.offset > end) {
      return fail(ErrorCode::kCorrupt, fmt::format("a hole of {} bytes before {}",
                                                   tensor.offset - end, tensor_name(tensor.name)));
    }
    end += tensor.size_bytes;
    previous = &tensor;
  }
  if (end != data_size_bytes) {
    return fail(ErrorCode::kCorrupt, fmt::format("{} bytes behind the last tensor belong to none",
                                                 data_size_bytes - end));
  }
  return {};
}

std::size_t rank_of(DType dtype) {
  return static_cast<std::size_t>(
      std::find_if(kDTypeNames.begin(), kDTypeNames.end(),
                   [&](const DTypeName& entry) { return entry.dtype == dtype; }) -
      kDTypeNames.begin());
}

Result<void> append_metadata(std::string& json, const SafetensorsMetadata& metadata) {
  json += '{';
  for (const auto& [key, value] : metadata) {
    if (json.back() != '{') json += ',';
    if (!append_json_string(json, key)) {
      return fail(ErrorCode::kInvalidArgument,
                  "the metadata's key '" + shown(key) + "' is not UTF-8");
    }
    json += ':';
    if (!append_json_string(json, value)) {
      return fail(ErrorCode::kInvalidArgument,
                  "the metadata's value under '" + shown(key) + "' is not UTF-8");
    }
  }
  json += '}';
  return {};
}

Result<void> append_tensor(std::string& json, const SafetensorsTensor& tensor,
                           std::uint64_t offset) {
  const std::optional<std::string_view> dtype = safetensors_name(tensor.dtype);
  if (!dtype) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("{} has dtype {}, which safetensors lacks", tensor_name(tensor.name),
                            to_string(tensor.dtype)));
  }
  if (tensor.name == kMetadataKey) {
    return fail(ErrorCode::kInvalidArgument,
                "the name __metadata__ cannot be a tensor's in a safetensors file");
  }
  if (!append_json_string(json, tensor.name)) {
    return fail(ErrorCode::kInvalidArgument,
                tensor_name(tensor.name) + ": a name in a safetensors file must be UTF-8");
  }
  json += fmt::format(R"(:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", *dtype,
                      fmt::join(tensor.shape, ","), offset, offset + tensor.size_bytes);
  return {};
}

}  // namespace

std::optional<DType> dtype_from_safetensors(std::string_view name) {
  for (const DTypeName& entry : kDTypeNames) {
    if (entry.name == name) return entry.dtype;
  }
  return std::nullopt;
}

std::optional<std::string_view> safetensors_name(DType dtype) {
  const std::size_t rank = rank_of(dtype);
  if (rank == kDTypeNames.size()) return std::nullopt;
  return kDTypeNames[rank].name;
}

Result<SafetensorsHeader> parse_safetensors_header(std::string_view json,
                                                   std::uint64_t data_size_bytes) {
  // JSON would allow spaces or a byte order mark here; the format does not.
  if (json.empty() || json.front() != '{') {
    return fail(ErrorCode::kCorrupt, "the header does not begin with '{'");
  }
  HeaderHandler handler;
  STEPSTONE_TRY(parse_events(json, handler));
  SafetensorsHeader header = handler.take_header();
  STEPSTONE_TRY(check_names(header));
  for (const SafetensorsTensor& tensor : header.tensors) STEPSTONE_TRY(check_size(tensor));
  // A tensor without bytes stands before the one that begins at the same place.
  std::stable_sort(header.tensors.begin(), header.tensors.end(),
                   [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
                     return std::pair(a.offset, a.size_bytes) < std::pair(b.offset, b.size_bytes);
                   });
  STEPSTONE_TRY(check_layout(header.tensors, data_size_bytes));
  return header;
}

std::vector<std::size_t> canonical_order(std::span<const SafetensorsTensor> tensors) {
  std::vector<std::size_t> order(tensors.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const std::size_t rank_a = rank_of(tensors[a].dtype);
    const std::size_t rank_b = rank_of(tensors[b].dtype);
    return rank_a != rank_b ? rank_a > rank_b : tensors[a].name < tensors[b].name;
  });
  return order;
}

Result<std::string> encode_safetensors_header(const std::optional<SafetensorsMetadata>& metadata,
                                              std::span<const SafetensorsTensor> tensors) {
  std::string json(kSafetensorsLengthSizeBytes, '\0');
  json += '{';
  if (metadata) {
    json += "\"__metadata__\":";
    STEPSTONE_TRY(append_metadata(json, *metadata));
  }
  std::vector<std::string_view> names;
  std::uint64_t offset = 0;
  for (const SafetensorsTensor& tensor : tensors) {
    if (json.back() != '{') json += ',';
    STEPSTONE_TRY(append_tensor(json, tensor, offset));
    STEPSTONE_TRY(check_size(tensor));
    offset += tensor.size_bytes;
    names.push_back(tensor.name);
  }
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) {
    return fail(ErrorCode::kInvalidArgument, tensor_name(*twice) + " would be there twice");
  }
  json += '}';
  json.append((8 - json.size() % 8) % 8, ' ');
  const std::uint64_t size = json.size() - kSafetensorsLengthSizeBytes;
  if (size > kSafetensorsHeaderSizeBytesMax) {
    return fail(
        ErrorCode::kLimit,
        fmt::format("a header of {} bytes is over the limit of {} of the safetensors library", size,
                    kSafetensorsHeaderSizeBytesMax));
  }
  for (std::size_t i = 0; i < kSafetensorsLengthSizeBytes; ++i)
    json[i] = static_cast<char>(size >> (8 * i));
  return json;
}

Result<std::string> to_custom_metadata(const std::optional<SafetensorsMetadata>& metadata) {
  std::string json;
  if (!metadata) return json;
  json += fmt::format("{{\"{}\":", kCustomMetadataKey);
  STEPSTONE_TRY(append_metadata(json, *metadata));
  json += '}';
  if (json.size() > limits::kMetadataSizeBytesMax) {
    return fail(ErrorCode::kLimit, fmt::format("__metadata__ of {} bytes is over the limit of {}",
                                               json.size(), limits::kMetadataSizeBytesMax));
  }
  return json;
}

Result<std::optional<SafetensorsMetadata>> from_custom_metadata(std::string_view json) {
  if (json.empty()) return std::nullopt;
  CustomMetadataHandler handler;
  STEPSTONE_TRY(parse_events(json, handler));
  return handler.take_metadata();
}

}  // namespace stepstone::tool
