#include "tools/formats/npy_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "format/limits.h"
#include "tools/formats/contents.h"
#include "tools/formats/strided_source.h"

namespace stepstone::tool {
namespace {

// A part of another source.
class PartSource final : public LeafSource {
 public:
  PartSource(std::shared_ptr<const LeafSource> base, std::uint64_t position)
      : base_(std::move(base)), position_(position) {}
  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> scratch) const override {
    return base_->read(position_ + offset, size, scratch);
  }

 private:
  const std::shared_ptr<const LeafSource> base_;
  const std::uint64_t position_;
};

// Without the byte order.
constexpr std::array<std::pair<std::string_view, DType>, 14> kTypes = {{
    {"b1", DType::kBool},
    {"i1", DType::kInt8},
    {"i2", DType::kInt16},
    {"i4", DType::kInt32},
    {"i8", DType::kInt64},
    {"u1", DType::kUint8},
    {"u2", DType::kUint16},
    {"u4", DType::kUint32},
    {"u8", DType::kUint64},
    {"f2", DType::kFloat16},
    {"f4", DType::kFloat32},
    {"f8", DType::kFloat64},
    {"c8", DType::kComplex64},
    {"c16", DType::kComplex128},
}};

tl::unexpected<Error> corrupt_npy(std::string_view what) {
  return fail(ErrorCode::kCorrupt, "not a .npy file: " + std::string(what));
}

// The literal {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }, read from the left.
class LiteralReader {
 public:
  explicit LiteralReader(std::string_view text) : rest_(text) {}

  Result<NpyHeader> read() {
    if (!take("{")) return corrupt_npy("its header is not a dict");
    while (!take("}")) {
      const std::string_view key = STEPSTONE_TRY(take_string("a key of the header"));
      if (!take(":")) return corrupt_npy("its header is not a dict");
      STEPSTONE_TRY(read_value(key));
      if (!take(",") && !next_is('}')) return corrupt_npy("its header is not a dict");
    }
    skip_spaces();
    if (!rest_.empty()) return corrupt_npy("something follows the dict in its header");
    if (!has_descr_ || !has_order_ || !has_shape_) {
      return corrupt_npy("its header lacks 'descr', 'fortran_order' or 'shape'");
    }
    return std::move(header_);
  }

 private:
  void skip_spaces() {
    const std::size_t end = rest_.find_first_not_of(" \n");
    rest_.remove_prefix(std::min(end, rest_.size()));
  }
  bool next_is(char wanted) {
    skip_spaces();
    return !rest_.empty() && rest_.front() == wanted;
  }
  bool take(std::string_view token) {
    skip_spaces();
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }
  Result<std::string_view> take_string(std::string_view what) {
    if (!next_is('\'') && !next_is('"')) return corrupt_npy(std::string(what) + " is not a string");
    const std::size_t end = rest_.find(rest_.front(), 1);
    if (end == std::string_view::npos) return corrupt_npy(std::string(what) + " does not end");
    const std::string_view text = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    return text;
  }

  Result<void> read_value(std::string_view key) {
    bool* const seen = key == "descr"           ? &has_descr_
                       : key == "fortran_order" ? &has_order_
                       : key == "shape"         ? &has_shape_
                                                : nullptr;
    if (seen == nullptr) return corrupt_npy("its header has the key '" + shown(key) + "'");
    if (*seen) return corrupt_npy("its header has the key '" + shown(key) + "' twice");
    *seen = true;
    if (key == "descr") return read_descr();
    if (key == "shape") return read_shape();
    header_.is_fortran_order = take("True");
    if (!header_.is_fortran_order && !take("False")) {
      return corrupt_npy("'fortran_order' is neither True nor False");
    }
    return {};
  }

  Result<void> read_descr() {
    if (next_is('[')) {
      return fail(ErrorCode::kUnsupported,
                  "an array of a structured dtype; save its fields as arrays of their own");
    }
    const std::string_view descr = STEPSTONE_TRY(take_string("'descr'"));
    const std::string_view type = descr.substr(descr.empty() ? 0 : 1);
    const char order = descr.empty() ? '\0' : descr.front();
    for (const auto& [name, dtype] : kTypes) {
      if (name != type || (order != '<' && order != '>' && order != '|')) continue;
      if (order == '|' && info(dtype).bits > 8) continue;
      header_.dtype = dtype;
      header_.is_big_endian = order == '>';
      return {};
    }
    std::string_view why = "which a store has no array of";
    if (type.starts_with('O')) why = "objects that only running a pickle could make";
    if (type.starts_with('V')) {
      why = "bytes whose meaning is lost: numpy so saves bfloat16 and the like";
    }
    return fail(ErrorCode::kUnsupported,
                fmt::format("an array of dtype '{}', {}", shown(descr), why));
  }

  Result<void> read_shape() {
    if (!take("(")) return corrupt_npy("'shape' is not a tuple");
    while (!take(")")) {
      skip_spaces();
      std::uint64_t extent = 0;
      const auto [stop, code] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), extent);
      if (code != std::errc())
        return corrupt_npy("an extent in 'shape' is not a number of 64 bits");
      rest_.remove_prefix(static_cast<std::size_t>(stop - rest_.data()));
      if (header_.shape.size() == limits::kRankMax) {
        return fail(ErrorCode::kLimit,
                    fmt::format("an array of more than {} dimensions", limits::kRankMax));
      }
      header_.shape.push_back(extent);
      if (!take(",") && !next_is(')')) return corrupt_npy("'shape' is not a tuple");
    }
    return {};
  }

  std::string_view rest_;
  NpyHeader header_;
  bool has_descr_ = false;
  bool has_order_ = false;
  bool has_shape_ = false;
};

std::uint64_t little_endian(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) {
    value = value << 8 | static_cast<unsigned char>(bytes[i]);
  }
  return value;
}

}  // namespace

Result<NpyHeader> parse_npy_header(std::string_view head) {
  if (!head.starts_with("\x93NUMPY") || head.size() < 8)
    return corrupt_npy("it does not begin as one");
  const int version = static_cast<unsigned char>(head[6]);
  if (version < 1 || version > 3 || head[7] != 0) {
    return fail(ErrorCode::kUnsupported, "a .npy file of a version other than 1.0, 2.0 and 3.0");
  }
  const std::size_t length_size = version == 1 ? 2 : 4;
  const std::size_t prefix_size = 8 + length_size;
  if (head.size() < prefix_size) return corrupt_npy("cut short in its header");
  const std::uint64_t size = little_endian(head.substr(8, length_size));
  if (size > kNpyHeaderSizeBytesMax) {
    return fail(ErrorCode::kLimit,
                fmt::format("a .npy header of {} bytes, over numpy's limit of {}", size,
                            kNpyHeaderSizeBytesMax));
  }
  if (size > head.size() - prefix_size) return corrupt_npy("cut short in its header");
  LiteralReader reader(head.substr(prefix_size, static_cast<std::size_t>(size)));
  NpyHeader header = STEPSTONE_TRY(reader.read());
  STEPSTONE_TRY(array_size_bytes(header.dtype, header.shape));
  header.data_position = prefix_size + size;
  return header;
}

Result<NpyArray> open_npy(std::shared_ptr<const LeafSource> file, std::uint64_t size_bytes) {
  std::vector<std::byte> scratch(
      static_cast<std::size_t>(std::min<std::uint64_t>(kNpyHeadSizeBytesMax, size_bytes)));
  const std::span<const std::byte> head =
      STEPSTONE_TRY(file->read(0, scratch.size(), std::span(scratch)));
  NpyHeader header =
      STEPSTONE_TRY(parse_npy_header({reinterpret_cast<const char*>(head.data()), head.size()}));
  const std::uint64_t data_size = STEPSTONE_TRY(array_size_bytes(header.dtype, header.shape));
  if (data_size != size_bytes - header.data_position) {
    return fail(ErrorCode::kCorrupt,
                fmt::format("dtype {} and shape {} make {} bytes, but {} follow the header",
                            to_string(header.dtype), to_string(header.shape), data_size,
                            size_bytes - header.data_position));
  }
  NpyArray array{.dtype = header.dtype, .shape = header.shape, .source = nullptr};
  array.source = std::make_shared<PartSource>(std::move(file), header.data_position);
  const std::uint32_t width = info(header.dtype).bits / 8;
  StridedLayout layout{
      .element_size_bytes = width,
      .swapped_size_bytes = 1,
      .first = 0,
      .shape = header.shape,
      .strides = header.is_fortran_order ? fortran_strides(header.shape) : c_strides(header.shape)};
  if (header.is_big_endian) {
    const bool is_complex = info(header.dtype).kind == DTypeKind::kComplex;
    layout.swapped_size_bytes = is_complex ? width / 2 : width;
  }
  if (layout.swapped_size_bytes > 1 || !layout.is_contiguous()) {
    array.source = std::make_shared<StridedSource>(std::move(array.source), std::move(layout));
  }
  return array;
}

}  // namespace stepstone::tool
