#include "format/dtype.h"

#include <array>

#include "format/assert.h"
#include "format/limits.h"

namespace stepstone {
namespace {

using K = DTypeKind;

// Indexed by the stored number.
constexpr std::array<DTypeInfo, 29> kInfo = {{
    {"", K::kBool, 0},
    {"bool", K::kBool, 8},
    {"int2", K::kSigned, 2},
    {"int4", K::kSigned, 4},
    {"int8", K::kSigned, 8},
    {"int16", K::kSigned, 16},
    {"int32", K::kSigned, 32},
    {"int64", K::kSigned, 64},
    {"uint2", K::kUnsigned, 2},
    {"uint4", K::kUnsigned, 4},
    {"uint8", K::kUnsigned, 8},
    {"uint16", K::kUnsigned, 16},
    {"uint32", K::kUnsigned, 32},
    {"uint64", K::kUnsigned, 64},
    {"float16", K::kFloat, 16},
    {"bfloat16", K::kFloat, 16},
    {"float32", K::kFloat, 32},
    {"float64", K::kFloat, 64},
    {"float8_e4m3fn", K::kFloat, 8},
    {"float8_e5m2", K::kFloat, 8},
    {"float8_e4m3b11fnuz", K::kFloat, 8},
    {"float8_e4m3fnuz", K::kFloat, 8},
    {"float8_e5m2fnuz", K::kFloat, 8},
    {"float8_e3m4", K::kFloat, 8},
    {"float8_e4m3", K::kFloat, 8},
    {"float8_e8m0fnu", K::kFloat, 8},
    {"float4_e2m1fn", K::kFloat, 4},
    {"complex64", K::kComplex, 64},
    {"complex128", K::kComplex, 128},
}};
static_assert(kInfo.size() == static_cast<std::size_t>(kDTypeLast) + 1);

constexpr std::array<std::string_view, 10> kLeafKindNames = {
    "", "array", "none", "bool", "int", "bigint", "float", "complex", "str", "bytes"};

}  // namespace

std::optional<DType> dtype_from_number(std::uint8_t number) {
  if (number < static_cast<std::uint8_t>(kDTypeFirst) ||
      number > static_cast<std::uint8_t>(kDTypeLast)) {
    return std::nullopt;
  }
  return static_cast<DType>(number);
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (std::size_t number = 1; number < kInfo.size(); ++number) {
    if (kInfo[number].name == name) return static_cast<DType>(number);
  }
  return std::nullopt;
}

const DTypeInfo& info(DType dtype) {
  const auto number = static_cast<std::uint8_t>(dtype);
  STEPSTONE_ASSERT(dtype_from_number(number).has_value());
  return kInfo[number];
}

Result<std::uint64_t> element_count(Shape shape) {
  if (shape.size() > limits::kRankMax) {
    return fail(ErrorCode::kLimit, "rank " + std::to_string(shape.size()) +
                                       " is over the limit of " + std::to_string(limits::kRankMax));
  }
  // The product of the non-zero extents must fit too: a zero extent does not excuse (2^63, 2^63,
  // 0), whose strides no program could compute.
  std::uint64_t product = 1;
  bool is_empty = false;
  for (const std::uint64_t extent : shape) {
    if (extent == 0) {
      is_empty = true;
    } else if (__builtin_mul_overflow(product, extent, &product) || product > limits::kStepMax) {
      return fail(ErrorCode::kLimit, "shape " + to_string(shape) + " has too many elements");
    }
  }
  return is_empty ? 0 : product;
}

Result<std::uint64_t> array_size_bytes(DType dtype, Shape shape) {
  const std::uint64_t count = STEPSTONE_TRY(element_count(shape));
  const std::uint64_t bits = info(dtype).bits;
  std::uint64_t size_bytes = 0;
  const bool overflows = bits < 8 ? false : __builtin_mul_overflow(count, bits / 8, &size_bytes);
  if (bits < 8) size_bytes = count / (8 / bits) + (count % (8 / bits) != 0 ? 1 : 0);
  if (overflows || size_bytes > limits::kLeafSizeBytesMax) {
    return fail(ErrorCode::kLimit, "an array of shape " + to_string(shape) + " and dtype " +
                                       std::string(to_string(dtype)) +
                                       " is over the limit of 1 TiB for one leaf");
  }
  return size_bytes;
}

std::string to_string(Shape shape) {
  std::string text = "(";
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    if (axis != 0) text += ", ";
    text += std::to_string(shape[axis]);
  }
  if (shape.size() == 1) text += ',';
  return text + ")";
}

std::optional<LeafKind> leaf_kind_from_number(std::uint8_t number) {
  if (number == 0 || number >= kLeafKindNames.size()) return std::nullopt;
  return static_cast<LeafKind>(number);
}

std::string_view to_string(LeafKind kind) { return kLeafKindNames[static_cast<std::size_t>(kind)]; }

}  // namespace stepstone
