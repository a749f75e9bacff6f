#pragma once
// The element types of an array and the kinds of a leaf. Both enumerations are stored: a number,
// once given, never changes its meaning.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "error.h"

namespace stepstone {

enum class DType : std::uint8_t {
  kBool = 1,
  kInt2 = 2,
  kInt4 = 3,
  kInt8 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kUint2 = 8,
  kUint4 = 9,
  kUint8 = 10,
  kUint16 = 11,
  kUint32 = 12,
  kUint64 = 13,
  kFloat16 = 14,
  kBfloat16 = 15,
  kFloat32 = 16,
  kFloat64 = 17,
  kFloat8E4m3fn = 18,
  kFloat8E5m2 = 19,
  kFloat8E4m3b11fnuz = 20,
  kFloat8E4m3fnuz = 21,
  kFloat8E5m2fnuz = 22,
  kFloat8E3m4 = 23,
  kFloat8E4m3 = 24,
  kFloat8E8m0fnu = 25,
  kFloat4E2m1fn = 26,
  kComplex64 = 27,
  kComplex128 = 28,
};
inline constexpr DType kDTypeFirst = DType::kBool;
inline constexpr DType kDTypeLast = DType::kComplex128;

enum class DTypeKind : std::uint8_t { kBool, kSigned, kUnsigned, kFloat, kComplex };

struct DTypeInfo {
  std::string_view name;  // numpy's or ml_dtypes' name: "float32", "float8_e4m3fn".
  DTypeKind kind;
  std::uint8_t bits;  // Per element. 2 and 4 are packed, the first element in the lowest bits.
};

// nullopt: not a dtype of this version (the number came from a file).
std::optional<DType> dtype_from_number(std::uint8_t number);
std::optional<DType> dtype_from_name(std::string_view name);
const DTypeInfo& info(DType dtype);
inline std::string_view to_string(DType dtype) { return info(dtype).name; }

using Shape = std::span<const std::uint64_t>;

// Elements of `shape`; 1 for rank 0. kLimit: rank over limits::kRankMax, or the product of the
// extents (zeros aside) overflows.
Result<std::uint64_t> element_count(Shape shape);

// Bytes of a C-contiguous array; packed dtypes round up once, at the end of the array. kLimit: as
// element_count, or over limits::kLeafSizeBytesMax.
Result<std::uint64_t> array_size_bytes(DType dtype, Shape shape);

// "(3, 4)", "(3,)", "()".
std::string to_string(Shape shape);

// What a leaf is. Everything but kArray is a value of its own, with rank 0 and no dtype.
enum class LeafKind : std::uint8_t {
  kArray = 1,
  kNone = 2,        // No bytes.
  kBool = 3,        // One byte, 0 or 1.
  kInt64 = 4,       // Eight bytes, two's complement.
  kBigInteger = 5,  // Decimal text, for integers that int64 cannot hold.
  kFloat64 = 6,     // Eight bytes.
  kComplex128 = 7,  // Sixteen bytes, real part first.
  kString = 8,      // UTF-8.
  kBytes = 9,
};

std::optional<LeafKind> leaf_kind_from_number(std::uint8_t number);
std::string_view to_string(LeafKind kind);

}  // namespace stepstone
