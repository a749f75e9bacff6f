// Floating-point formats of 16 bits and fewer are decoded by one routine from a description of
// their fields, exactly: every value of theirs is a float.
#include "tools/element_text.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace stepstone::tool {
namespace {

// What a floating-point format does with the codes that IEEE 754 gives to infinities and NaNs.
enum class Special {
  kIeee,            // The highest exponent: infinities and NaNs.
  kAllOnesIsNan,    // Only the highest magnitude is NaN; no infinities.
  kMinusZeroIsNan,  // Only the code of -0 is NaN; no infinities.
  kNone,
};

struct SmallFloat {
  unsigned exponent_bits;
  unsigned mantissa_bits;
  int bias;
  Special special;
};

template <typename T>
T load(std::span<const std::byte> elements, std::size_t index) {
  T value;
  std::memcpy(&value, elements.data() + index * sizeof(T), sizeof(T));
  return value;
}

float decode(const SmallFloat& format, unsigned code) {
  const unsigned mantissa = code & ((1U << format.mantissa_bits) - 1);
  const unsigned exponent_max = (1U << format.exponent_bits) - 1;
  const unsigned exponent = (code >> format.mantissa_bits) & exponent_max;
  const bool is_negative = ((code >> (format.mantissa_bits + format.exponent_bits)) & 1U) != 0;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const bool is_largest = exponent == exponent_max && mantissa == (1U << format.mantissa_bits) - 1;
  if (format.special == Special::kIeee && exponent == exponent_max) {
    const float infinity = std::numeric_limits<float>::infinity();
    return mantissa != 0 ? kNan : is_negative ? -infinity : infinity;
  }
  if (format.special == Special::kAllOnesIsNan && is_largest) return kNan;
  if (format.special == Special::kMinusZeroIsNan && is_negative && exponent == 0 && mantissa == 0) {
    return kNan;
  }
  // Below the smallest normal number there is no leading one.
  const unsigned significand = exponent == 0 ? mantissa : mantissa | 1U << format.mantissa_bits;
  const int scale = static_cast<int>(exponent == 0 ? 1 : exponent) - format.bias -
                    static_cast<int>(format.mantissa_bits);
  const float magnitude = std::ldexp(static_cast<float>(significand), scale);
  return is_negative ? -magnitude : magnitude;
}

template <typename Float>
void append_float(std::string& json, Float value) {
  if (std::isnan(value)) {
    json += "\"nan\"";
  } else if (std::isinf(value)) {
    json += value < 0 ? "\"-inf\"" : "\"inf\"";
  } else {
    const std::string digits = fmt::format("{}", value);
    json += digits;
    if (digits.find_first_of(".e") == std::string::npos) json += ".0";
  }
}

template <typename Float>
void append_complex(std::string& json, std::span<const std::byte> elements, std::size_t index) {
  json += '[';
  append_float(json, load<Float>(elements, 2 * index));
  json += ',';
  append_float(json, load<Float>(elements, 2 * index + 1));
  json += ']';
}

// Element `index` of elements of 2 or 4 bits, the first in the lowest bits of a byte.
unsigned packed_code(std::span<const std::byte> elements, std::size_t index, unsigned bits) {
  const std::size_t per_byte = 8 / bits;
  const auto byte = std::to_integer<unsigned>(elements[index / per_byte]);
  return byte >> (index % per_byte * bits) & ((1U << bits) - 1);
}

int sign_extended(unsigned code, unsigned bits) {
  const int value = static_cast<int>(code);
  return value >= 1 << (bits - 1) ? value - (1 << bits) : value;
}

template <typename Integer>
void append_integer(std::string& json, Integer value) {
  fmt::format_to(std::back_inserter(json), "{}", value);
}

}  // namespace

void append_element_json(std::string& json, DType dtype, std::span<const std::byte> elements,
                         std::size_t index) {
  const auto byte = [&] { return load<std::uint8_t>(elements, index); };
  switch (dtype) {
    case DType::kBool:
      json += byte() != 0 ? "true" : "false";
      return;
    case DType::kInt2:
    case DType::kInt4: {
      const unsigned bits = info(dtype).bits;
      return append_integer(json, sign_extended(packed_code(elements, index, bits), bits));
    }
    case DType::kUint2:
    case DType::kUint4:
      return append_integer(json, packed_code(elements, index, info(dtype).bits));
    case DType::kInt8:
      return append_integer(json, int{load<std::int8_t>(elements, index)});
    case DType::kInt16:
      return append_integer(json, load<std::int16_t>(elements, index));
    case DType::kInt32:
      return append_integer(json, load<std::int32_t>(elements, index));
    case DType::kInt64:
      return append_integer(json, load<std::int64_t>(elements, index));
    case DType::kUint8:
      return append_integer(json, unsigned{byte()});
    case DType::kUint16:
      return append_integer(json, load<std::uint16_t>(elements, index));
    case DType::kUint32:
      return append_integer(json, load<std::uint32_t>(elements, index));
    case DType::kUint64:
      return append_integer(json, load<std::uint64_t>(elements, index));
    case DType::kFloat16:
      return append_float(
          json, decode({5, 10, 15, Special::kIeee}, load<std::uint16_t>(elements, index)));
    case DType::kBfloat16:
      return append_float(
          json, decode({8, 7, 127, Special::kIeee}, load<std::uint16_t>(elements, index)));
    case DType::kFloat32:
      return append_float(json, load<float>(elements, index));
    case DType::kFloat64:
      return append_float(json, load<double>(elements, index));
    case DType::kFloat8E4m3fn:
      return append_float(json, decode({4, 3, 7, Special::kAllOnesIsNan}, byte()));
    case DType::kFloat8E5m2:
      return append_float(json, decode({5, 2, 15, Special::kIeee}, byte()));
    case DType::kFloat8E4m3b11fnuz:
      return append_float(json, decode({4, 3, 11, Special::kMinusZeroIsNan}, byte()));
    case DType::kFloat8E4m3fnuz:
      return append_float(json, decode({4, 3, 8, Special::kMinusZeroIsNan}, byte()));
    case DType::kFloat8E5m2fnuz:
      return append_float(json, decode({5, 2, 16, Special::kMinusZeroIsNan}, byte()));
    case DType::kFloat8E3m4:
      return append_float(json, decode({3, 4, 3, Special::kIeee}, byte()));
    case DType::kFloat8E4m3:
      return append_float(json, decode({4, 3, 7, Special::kIeee}, byte()));
    case DType::kFloat8E8m0fnu:
      // A bare exponent: no sign, no zero.
      return append_float(json, byte() == 0xFF ? std::numeric_limits<float>::quiet_NaN()
                                               : std::ldexp(1.0F, int{byte()} - 127));
    case DType::kFloat4E2m1fn:
      return append_float(json, decode({2, 1, 1, Special::kNone}, packed_code(elements, index, 4)));
    case DType::kComplex64:
      return append_complex<float>(json, elements, index);
    case DType::kComplex128:
      return append_complex<double>(json, elements, index);
  }
}

}  // namespace stepstone::tool
