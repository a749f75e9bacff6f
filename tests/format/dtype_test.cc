#include "format/dtype.h"

#include <gtest/gtest.h>

#include "format/limits.h"
#include "support.h"

namespace stepstone {
namespace {

struct Row {
  int number;
  DType dtype;
  const char* name;
  DTypeKind kind;
  int bits;
};

// What is on disks: a change here is a change of the format.
const Row kRows[] = {
    {1, DType::kBool, "bool", DTypeKind::kBool, 8},
    {2, DType::kInt2, "int2", DTypeKind::kSigned, 2},
    {3, DType::kInt4, "int4", DTypeKind::kSigned, 4},
    {4, DType::kInt8, "int8", DTypeKind::kSigned, 8},
    {5, DType::kInt16, "int16", DTypeKind::kSigned, 16},
    {6, DType::kInt32, "int32", DTypeKind::kSigned, 32},
    {7, DType::kInt64, "int64", DTypeKind::kSigned, 64},
    {8, DType::kUint2, "uint2", DTypeKind::kUnsigned, 2},
    {9, DType::kUint4, "uint4", DTypeKind::kUnsigned, 4},
    {10, DType::kUint8, "uint8", DTypeKind::kUnsigned, 8},
    {11, DType::kUint16, "uint16", DTypeKind::kUnsigned, 16},
    {12, DType::kUint32, "uint32", DTypeKind::kUnsigned, 32},
    {13, DType::kUint64, "uint64", DTypeKind::kUnsigned, 64},
    {14, DType::kFloat16, "float16", DTypeKind::kFloat, 16},
    {15, DType::kBfloat16, "bfloat16", DTypeKind::kFloat, 16},
    {16, DType::kFloat32, "float32", DTypeKind::kFloat, 32},
    {17, DType::kFloat64, "float64", DTypeKind::kFloat, 64},
    {18, DType::kFloat8E4m3fn, "float8_e4m3fn", DTypeKind::kFloat, 8},
    {19, DType::kFloat8E5m2, "float8_e5m2", DTypeKind::kFloat, 8},
    {20, DType::kFloat8E4m3b11fnuz, "float8_e4m3b11fnuz", DTypeKind::kFloat, 8},
    {21, DType::kFloat8E4m3fnuz, "float8_e4m3fnuz", DTypeKind::kFloat, 8},
    {22, DType::kFloat8E5m2fnuz, "float8_e5m2fnuz", DTypeKind::kFloat, 8},
    {23, DType::kFloat8E3m4, "float8_e3m4", DTypeKind::kFloat, 8},
    {24, DType::kFloat8E4m3, "float8_e4m3", DTypeKind::kFloat, 8},
    {25, DType::kFloat8E8m0fnu, "float8_e8m0fnu", DTypeKind::kFloat, 8},
    {26, DType::kFloat4E2m1fn, "float4_e2m1fn", DTypeKind::kFloat, 4},
    {27, DType::kComplex64, "complex64", DTypeKind::kComplex, 64},
    {28, DType::kComplex128, "complex128", DTypeKind::kComplex, 128},
};

TEST(DTypes, NumbersNamesAndWidthsAreThoseOnDisk) {
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.name);
    EXPECT_EQ(static_cast<int>(row.dtype), row.number);
    EXPECT_EQ(dtype_from_number(static_cast<std::uint8_t>(row.number)), row.dtype);
    EXPECT_EQ(dtype_from_name(row.name), row.dtype);
    EXPECT_EQ(to_string(row.dtype), row.name);
    EXPECT_EQ(info(row.dtype).kind, row.kind);
    EXPECT_EQ(info(row.dtype).bits, row.bits);
  }
}

TEST(DTypes, EveryOtherNumberAndNameIsUnknown) {
  EXPECT_EQ(std::size(kRows), static_cast<std::size_t>(kDTypeLast));
  EXPECT_EQ(dtype_from_number(0), std::nullopt);
  for (int number = static_cast<int>(std::size(kRows)) + 1; number < 256; ++number) {
    EXPECT_EQ(dtype_from_number(static_cast<std::uint8_t>(number)), std::nullopt) << number;
  }
  for (const char* const name : {"", "float", "Float32", "float32 ", "int1", "float8_e4m3f"}) {
    EXPECT_EQ(dtype_from_name(name), std::nullopt) << name;
  }
}

TEST(LeafKinds, NumbersAndNamesAreThoseOnDisk) {
  const char* const names[] = {"array", "none",    "bool", "int",  "bigint",
                               "float", "complex", "str",  "bytes"};
  for (std::size_t i = 0; i < std::size(names); ++i) {
    const auto kind = leaf_kind_from_number(static_cast<std::uint8_t>(i + 1));
    ASSERT_TRUE(kind.has_value()) << names[i];
    EXPECT_EQ(to_string(*kind), names[i]);
    EXPECT_EQ(static_cast<std::size_t>(*kind), i + 1);
  }
  EXPECT_EQ(LeafKind::kArray, static_cast<LeafKind>(1));
  EXPECT_EQ(LeafKind::kBytes, static_cast<LeafKind>(9));
  EXPECT_EQ(leaf_kind_from_number(0), std::nullopt);
  for (int number = 10; number < 256; ++number) {
    EXPECT_EQ(leaf_kind_from_number(static_cast<std::uint8_t>(number)), std::nullopt) << number;
  }
}

TEST(Sizes, OfWholeByteTypesAreTheProduct) {
  const std::vector<std::uint64_t> shape = {3, 5, 7};
  EXPECT_EQ(element_count(shape), 105U);
  for (const Row& row : kRows) {
    if (row.bits < 8) continue;
    EXPECT_EQ(array_size_bytes(row.dtype, shape), 105U * static_cast<unsigned>(row.bits) / 8)
        << row.name;
    EXPECT_EQ(array_size_bytes(row.dtype, {}), static_cast<unsigned>(row.bits) / 8) << row.name;
  }
}

TEST(Sizes, OfPackedTypesRoundUpOnceAtTheEnd) {
  for (const DType dtype : {DType::kInt4, DType::kUint4, DType::kFloat4E2m1fn}) {
    SCOPED_TRACE(to_string(dtype));
    EXPECT_EQ(array_size_bytes(dtype, {}), 1U);
    EXPECT_EQ(array_size_bytes(dtype, std::vector<std::uint64_t>{2}), 1U);
    EXPECT_EQ(array_size_bytes(dtype, std::vector<std::uint64_t>{3}), 2U);
    // Nine elements in five bytes: rows are not padded.
    EXPECT_EQ(array_size_bytes(dtype, std::vector<std::uint64_t>{3, 3}), 5U);
  }
  for (const DType dtype : {DType::kInt2, DType::kUint2}) {
    SCOPED_TRACE(to_string(dtype));
    EXPECT_EQ(array_size_bytes(dtype, {}), 1U);
    EXPECT_EQ(array_size_bytes(dtype, std::vector<std::uint64_t>{4}), 1U);
    EXPECT_EQ(array_size_bytes(dtype, std::vector<std::uint64_t>{5}), 2U);
    EXPECT_EQ(array_size_bytes(dtype, std::vector<std::uint64_t>{5, 5}), 7U);
  }
}

TEST(Sizes, OfArraysWithAZeroExtentAreZero) {
  for (const Row& row : kRows) {
    EXPECT_EQ(array_size_bytes(row.dtype, std::vector<std::uint64_t>{0}), 0U) << row.name;
    EXPECT_EQ(array_size_bytes(row.dtype, std::vector<std::uint64_t>{7, 0, 3}), 0U) << row.name;
  }
}

TEST(Sizes, TheLargestRankIsAcceptedAndOneMoreRefused) {
  std::vector<std::uint64_t> shape(limits::kRankMax, 2);
  EXPECT_EQ(limits::kRankMax, 32U);
  EXPECT_EQ(element_count(shape), std::uint64_t{1} << 32);
  EXPECT_EQ(array_size_bytes(DType::kUint8, shape), std::uint64_t{1} << 32);
  shape.push_back(1);
  EXPECT_EQ(element_count(shape).error().code, ErrorCode::kLimit);
  EXPECT_EQ(array_size_bytes(DType::kUint8, shape).error().code, ErrorCode::kLimit);
}

TEST(Sizes, ShapesThatOverflowAreRefused) {
  constexpr std::uint64_t kHuge = std::uint64_t{1} << 63;
  const std::vector<std::vector<std::uint64_t>> shapes = {
      {kHuge},
      {~std::uint64_t{0}},
      {kHuge, 2},
      {std::uint64_t{1} << 32, std::uint64_t{1} << 32},
      {3, ~std::uint64_t{0} / 3 + 1},
      {kHuge, kHuge, 0},
      {0, std::uint64_t{1} << 32, std::uint64_t{1} << 32},
      std::vector<std::uint64_t>(32, 4),
  };
  for (const auto& shape : shapes) {
    for (const Row& row : kRows) {
      EXPECT_EQ(array_size_bytes(row.dtype, shape).error().code, ErrorCode::kLimit)
          << row.name << " " << to_string(Shape(shape));
    }
  }
  // The count fits and the bytes do not.
  EXPECT_EQ(element_count(std::vector<std::uint64_t>{std::uint64_t{1} << 62}),
            std::uint64_t{1} << 62);
  EXPECT_EQ(array_size_bytes(DType::kComplex128, std::vector<std::uint64_t>{std::uint64_t{1} << 62})
                .error()
                .code,
            ErrorCode::kLimit);
}

TEST(Sizes, OneTebibyteIsTheLargestLeaf) {
  EXPECT_EQ(array_size_bytes(DType::kUint8, std::vector<std::uint64_t>{std::uint64_t{1} << 40}),
            limits::kLeafSizeBytesMax);
  EXPECT_EQ(array_size_bytes(DType::kUint2, std::vector<std::uint64_t>{std::uint64_t{1} << 42}),
            limits::kLeafSizeBytesMax);
  const auto refused =
      array_size_bytes(DType::kUint8, std::vector<std::uint64_t>{(std::uint64_t{1} << 40) + 1});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kLimit);
  EXPECT_NE(refused.error().message.find("(1099511627777,)"), std::string::npos)
      << refused.error().message;
}

TEST(Sizes, AgreeWithWideArithmetic) {
  for (const std::uint64_t seed : test::seeds(20)) {
    SCOPED_TRACE(test::trace(seed));
    test::Random random(seed);
    for (int i = 0; i < 200; ++i) {
      std::vector<std::uint64_t> shape(random.below(5));
      for (std::uint64_t& extent : shape) extent = random.bits() >> random.below(64);
      const Row& row = kRows[random.below(std::size(kRows))];
      // Saturates far above every limit.
      constexpr long double kEnough = 1e30L;
      long double product = 1;
      bool is_empty = false;
      for (const std::uint64_t extent : shape) {
        is_empty = is_empty || extent == 0;
        if (extent != 0) product = std::min(product * static_cast<long double>(extent), kEnough);
      }
      const auto size = array_size_bytes(row.dtype, shape);
      const bool fits =
          product < 9.2e18L && (is_empty || product * row.bits / 8 <= 1099511627776.0L);
      ASSERT_EQ(size.has_value(), fits) << row.name << " " << to_string(Shape(shape));
      if (!fits) continue;
      const auto count = static_cast<std::uint64_t>(is_empty ? 0 : product);
      EXPECT_EQ(element_count(shape), count);
      EXPECT_EQ(*size, (count * static_cast<unsigned>(row.bits) + 7) / 8);
    }
  }
}

TEST(Shapes, AreShownAsNumpyShowsThem) {
  EXPECT_EQ(to_string(Shape()), "()");
  EXPECT_EQ(to_string(Shape(std::vector<std::uint64_t>{3})), "(3,)");
  EXPECT_EQ(to_string(Shape(std::vector<std::uint64_t>{3, 0, 12})), "(3, 0, 12)");
}

}  // namespace
}  // namespace stepstone
