// "\x93NUMPY", version 1.0, length of the rest in two bytes (ample for any rank within the limits),
// and a Python dict literal padded with spaces so that the data begins at a multiple of 64 bytes.
#include "tools/npy.h"

#include <fmt/format.h>

#include <optional>

namespace stepstone::tool {
namespace {

constexpr std::size_t kPrefixSize = 10;
constexpr std::size_t kAlignment = 64;
// numpy leaves room for the first extent to grow in place to as many digits as any 64-bit number
// has.
constexpr std::size_t kGrowthDigits = 21;

std::optional<std::string_view> numpy_type(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return "|b1";
    case DType::kInt8:
      return "|i1";
    case DType::kInt16:
      return "<i2";
    case DType::kInt32:
      return "<i4";
    case DType::kInt64:
      return "<i8";
    case DType::kUint8:
      return "|u1";
    case DType::kUint16:
      return "<u2";
    case DType::kUint32:
      return "<u4";
    case DType::kUint64:
      return "<u8";
    case DType::kFloat16:
      return "<f2";
    case DType::kFloat32:
      return "<f4";
    case DType::kFloat64:
      return "<f8";
    case DType::kComplex64:
      return "<c8";
    case DType::kComplex128:
      return "<c16";
    default:
      return std::nullopt;
  }
}

}  // namespace

Result<std::string> npy_header(DType dtype, Shape shape) {
  STEPSTONE_TRY(element_count(shape));
  const std::optional<std::string_view> type = numpy_type(dtype);
  if (!type) {
    return fail(
        ErrorCode::kUnsupported,
        fmt::format("numpy has no dtype {}, so there is no .npy file of it; --raw gives its "
                    "bytes",
                    to_string(dtype)));
  }
  std::string literal = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}",
                                    *type, to_string(shape));
  if (!shape.empty()) literal.append(kGrowthDigits - std::to_string(shape[0]).size(), ' ');

  // numpy adds a whole 64 where nothing would be missing, and so does this.
  const std::size_t unpadded_size = kPrefixSize + literal.size() + 1;
  const std::size_t size = (unpadded_size / kAlignment + 1) * kAlignment;
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>((size - kPrefixSize) & 0xFF);
  header += static_cast<char>((size - kPrefixSize) >> 8);
  header += literal;
  header.append(size - 1 - header.size(), ' ');
  header += '\n';
  return header;
}

}  // namespace stepstone::tool
