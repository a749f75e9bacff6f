// Goal: .npy heads, elements as JSON, tables, sizes and times say what they should. Method: .npy
// heads are taken apart again as its specification says; the small floating-point formats are
// checked against the properties that define them.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>

#include "format/limits.h"
#include "tools/element_text.h"
#include "tools/json_text.h"
#include "tools/npy.h"
#include "tools/output.h"

namespace stepstone::tool {
namespace {

TEST(Npy, HeadIsALiteralPaddedTo64BytesBehindItsLength) {
  for (const std::vector<std::uint64_t>& shape :
       {std::vector<std::uint64_t>{},
        {0},
        {7},
        {3, 4},
        {1000000, 1, 12345678901},
        std::vector<std::uint64_t>(limits::kRankMax, 1)}) {
    SCOPED_TRACE(to_string(shape));
    const auto header = npy_header(DType::kFloat32, shape);
    ASSERT_TRUE(header.has_value()) << header.error().message;
    EXPECT_EQ(header->substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
    const auto length = static_cast<unsigned char>((*header)[8]) |
                        static_cast<unsigned>(static_cast<unsigned char>((*header)[9])) << 8;
    EXPECT_EQ(header->size(), 10U + length);
    EXPECT_EQ(header->size() % 64, 0U);
    EXPECT_EQ(header->back(), '\n');
    const std::string literal = header->substr(10);
    EXPECT_EQ(literal.substr(0, literal.find('}') + 1),
              "{'descr': '<f4', 'fortran_order': False, 'shape': " + to_string(shape) + ", }");
    EXPECT_EQ(literal.find_first_not_of(' ', literal.find('}') + 1), literal.size() - 1);
  }
}

TEST(Npy, TypesHaveTheSizeOfTheDtype) {
  for (const DType dtype :
       {DType::kBool, DType::kInt8, DType::kInt16, DType::kInt32, DType::kInt64, DType::kUint8,
        DType::kUint16, DType::kUint32, DType::kUint64, DType::kFloat16, DType::kFloat32,
        DType::kFloat64, DType::kComplex64, DType::kComplex128}) {
    SCOPED_TRACE(to_string(dtype));
    const auto header = npy_header(dtype, {});
    ASSERT_TRUE(header.has_value()) << header.error().message;
    constexpr std::string_view kBefore = "{'descr': '";
    const std::string type = header->substr(10 + kBefore.size(), 4);
    EXPECT_EQ(type[0], info(dtype).bits == 8 ? '|' : '<');
    EXPECT_EQ(std::stoi(type.substr(2)) * 8, info(dtype).bits);
  }
}

TEST(Npy, RefusesDtypesThatNumpyLacks) {
  for (const DType dtype : {DType::kBfloat16, DType::kFloat8E4m3fn, DType::kFloat8E8m0fnu,
                            DType::kInt4, DType::kUint2, DType::kFloat4E2m1fn}) {
    const auto header = npy_header(dtype, {});
    ASSERT_FALSE(header.has_value());
    EXPECT_EQ(header.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(header.error().message.find(to_string(dtype)), std::string::npos);
  }
}

std::string element_json(DType dtype, std::span<const std::byte> bytes, std::size_t index) {
  std::string encoded;
  append_element_json(encoded, dtype, bytes, index);
  return encoded;
}

template <typename T>
std::string element_json(DType dtype, const std::vector<T>& values, std::size_t index) {
  return element_json(dtype, std::as_bytes(std::span(values)), index);
}

// The value of an 8-bit (or smaller, one to a byte) code; NaN and infinities from their strings.
double small_value(DType dtype, unsigned code) {
  const std::vector<std::uint8_t> bytes = {static_cast<std::uint8_t>(code)};
  const nlohmann::json encoded = nlohmann::json::parse(element_json(dtype, bytes, 0));
  // The digits are those that give the float back.
  if (encoded.is_number()) return encoded.get<float>();
  if (encoded == "nan") return std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(encoded == "inf" || encoded == "-inf");
  return encoded == "inf" ? HUGE_VAL : -HUGE_VAL;
}

struct SmallFormat {
  DType dtype;
  unsigned exponent_bits;
  unsigned mantissa_bits;
  double largest;
  double smallest;  // Above zero.
  int nan_count;
  int infinity_count;
};

// Largest and smallest magnitudes as the formats' definitions give them.
TEST(ElementText, SmallFloatsHaveTheValuesThatDefineThem) {
  const SmallFormat formats[] = {
      {DType::kFloat8E4m3fn, 4, 3, 448, 0x1p-9, 2, 0},
      {DType::kFloat8E5m2, 5, 2, 57344, 0x1p-16, 6, 2},
      {DType::kFloat8E4m3b11fnuz, 4, 3, 30, 0x1p-13, 1, 0},
      {DType::kFloat8E4m3fnuz, 4, 3, 240, 0x1p-10, 1, 0},
      {DType::kFloat8E5m2fnuz, 5, 2, 57344, 0x1p-17, 1, 0},
      {DType::kFloat8E3m4, 3, 4, 15.5, 0x1p-6, 30, 2},
      {DType::kFloat8E4m3, 4, 3, 240, 0x1p-9, 14, 2},
      {DType::kFloat4E2m1fn, 2, 1, 6, 0.5, 0, 0},
  };
  for (const SmallFormat& format : formats) {
    SCOPED_TRACE(to_string(format.dtype));
    const unsigned sign = 1U << (format.exponent_bits + format.mantissa_bits);
    double largest = 0;
    double smallest = HUGE_VAL;
    int nan_count = 0;
    int infinity_count = 0;
    double before = -1;
    for (unsigned code = 0; code < sign; ++code) {
      const double value = small_value(format.dtype, code);
      const double negated = small_value(format.dtype, code | sign);
      nan_count += std::isnan(value) + std::isnan(negated);
      infinity_count += std::isinf(value) + std::isinf(negated);
      if (!std::isnan(value) && !std::isnan(negated)) {
        EXPECT_EQ(negated, -value);
      }
      if (!std::isfinite(value)) continue;
      // Codes are in the order of their values, as in every IEEE format.
      EXPECT_GT(value, before);
      before = value;
      largest = std::max(largest, value);
      if (value > 0) smallest = std::min(smallest, value);
    }
    EXPECT_EQ(largest, format.largest);
    EXPECT_EQ(smallest, format.smallest);
    EXPECT_EQ(nan_count, format.nan_count);
    EXPECT_EQ(infinity_count, format.infinity_count);
  }
}

TEST(ElementText, BareExponentsArePowersOfTwo) {
  for (unsigned code = 0; code < 255; ++code) {
    EXPECT_EQ(small_value(DType::kFloat8E8m0fnu, code),
              std::ldexp(1.0, static_cast<int>(code) - 127));
  }
  EXPECT_TRUE(std::isnan(small_value(DType::kFloat8E8m0fnu, 255)));
}

// A bfloat16 is the upper half of a float32.
TEST(ElementText, Bfloat16IsHalfAFloat) {
  for (unsigned code = 0; code < 65536; ++code) {
    const std::vector<std::uint16_t> half = {static_cast<std::uint16_t>(code)};
    const std::vector<float> whole = {std::bit_cast<float>(std::uint32_t{code} << 16)};
    ASSERT_EQ(element_json(DType::kBfloat16, half, 0), element_json(DType::kFloat32, whole, 0))
        << code;
  }
}

TEST(ElementText, Float16FollowsItsFields) {
  for (unsigned code = 0; code < 65536; ++code) {
    const std::vector<std::uint16_t> half = {static_cast<std::uint16_t>(code)};
    const nlohmann::json encoded = nlohmann::json::parse(element_json(DType::kFloat16, half, 0));
    const int exponent = static_cast<int>(code >> 10 & 31);
    const int mantissa = static_cast<int>(code & 1023);
    if (exponent == 31) {
      ASSERT_EQ(encoded, mantissa != 0 ? "nan" : code >> 15 != 0 ? "-inf" : "inf") << code;
      continue;
    }
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    // The shortest digits that give the float back are not those of the exact double.
    ASSERT_EQ(encoded.get<float>(), static_cast<float>(code >> 15 != 0 ? -magnitude : magnitude))
        << code;
  }
}

TEST(ElementText, FloatsReadBackTheSame) {
  const std::vector<double> doubles = {0.0,  -0.0,      1.0,   0.1, 1e300, -4.9406564584124654e-324,
                                       1e16, 1.0 / 3.0, 2e-300};
  for (std::size_t i = 0; i < doubles.size(); ++i) {
    const std::string encoded = element_json(DType::kFloat64, doubles, i);
    EXPECT_EQ(std::bit_cast<std::uint64_t>(std::strtod(encoded.c_str(), nullptr)),
              std::bit_cast<std::uint64_t>(doubles[i]))
        << encoded;
    // Never the text of an integer, which would lose the sign of -0.0 in a reader.
    EXPECT_TRUE(nlohmann::json::parse(encoded).is_number_float()) << encoded;
  }
}

TEST(ElementText, IntegersKeepEveryBit) {
  const std::vector<std::uint64_t> unsigned_values = {0, std::numeric_limits<std::uint64_t>::max()};
  EXPECT_EQ(element_json(DType::kUint64, unsigned_values, 1), "18446744073709551615");
  const std::vector<std::int64_t> signed_values = {std::numeric_limits<std::int64_t>::min()};
  EXPECT_EQ(element_json(DType::kInt64, signed_values, 0), "-9223372036854775808");
  const std::vector<std::int8_t> bytes = {-128, 127};
  EXPECT_EQ(element_json(DType::kInt8, bytes, 0), "-128");
  EXPECT_EQ(element_json(DType::kUint8, bytes, 0), "128");
  EXPECT_EQ(element_json(DType::kBool, std::vector<std::uint8_t>{0, 1}, 1), "true");
  const std::vector<float> complex = {1.5F, -2.0F};
  EXPECT_EQ(element_json(DType::kComplex64, complex, 0), "[1.5,-2.0]");
}

TEST(ElementText, PackedElementsStandInTheLowestBitsFirst) {
  const std::vector<std::uint8_t> bytes = {0xE4, 0x1F};  // 2 bits: 0, 1, 2, 3 | 3, 3, 1, 0.
  const std::vector<std::string> expected = {"0", "1", "2", "3", "3", "3", "1", "0"};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(element_json(DType::kUint2, bytes, i), expected[i]);
  }
  EXPECT_EQ(element_json(DType::kInt2, bytes, 2), "-2");
  EXPECT_EQ(element_json(DType::kInt4, bytes, 0), "4");
  EXPECT_EQ(element_json(DType::kInt4, bytes, 1), "-2");
  EXPECT_EQ(element_json(DType::kUint4, bytes, 2), "15");
}

TEST(JsonText, EscapesWhatItMustAndRefusesWhatIsNotUtf8) {
  for (unsigned byte = 0; byte < 128; ++byte) {
    std::string encoded;
    const std::string text(1, static_cast<char>(byte));
    ASSERT_TRUE(append_json_string(encoded, text));
    EXPECT_EQ(nlohmann::json::parse(encoded).get<std::string>(), text);
    EXPECT_EQ(encoded, nlohmann::json(text).dump());
  }
  for (const std::string_view text :
       {"\x80", "\xC3", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xE2\x82"}) {
    std::string encoded = "before";
    EXPECT_FALSE(append_json_string(encoded, text));
    EXPECT_EQ(encoded, "before");
  }
  std::string encoded;
  EXPECT_TRUE(append_json_string(encoded, "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"));
  EXPECT_EQ(encoded, "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"");
}

TEST(Output, SizesHaveOneDigitBehindThePoint) {
  EXPECT_EQ(format_size(0), "0 B");
  EXPECT_EQ(format_size(1023), "1023 B");
  EXPECT_EQ(format_size(1024), "1.0 KiB");
  EXPECT_EQ(format_size((std::uint64_t{1} << 20) - 1), "1.0 MiB");
  EXPECT_EQ(format_size(std::uint64_t{3} << 29), "1.5 GiB");
  EXPECT_EQ(format_size(std::numeric_limits<std::uint64_t>::max()), "16.0 EiB");
}

TEST(Output, TimesAreUtcAndRoundedDown) {
  EXPECT_EQ(format_time(0), "1970-01-01 00:00:00");
  EXPECT_EQ(format_time(-1), "1969-12-31 23:59:59");
  EXPECT_EQ(format_time(951'782'399'999'999'999), "2000-02-28 23:59:59");
  EXPECT_EQ(format_time(951'782'400'000'000'000), "2000-02-29 00:00:00");
  EXPECT_EQ(format_time(std::numeric_limits<std::int64_t>::min()).substr(0, 4), "1677");
}

TEST(Output, TableColumnsAreAlignedByCharactersAndNotByBytes) {
  Table table(
      {{.heading = "NAME"}, {.heading = "N", .align = Table::Align::kRight}, {.heading = "X"}});
  table.add_row({"\xC3\xA9t\xC3\xA9s!", "1", "a"});
  table.add_row({"b", "10", ""});
  EXPECT_EQ(table.to_string(),
            "NAME    N  X\n"
            "\xC3\xA9t\xC3\xA9s!   1  a\n"
            "b      10\n");
}

}  // namespace
}  // namespace stepstone::tool
