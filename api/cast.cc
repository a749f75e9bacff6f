// A cast reads each element into the widest type of its kind (int64, uint64, double,
// complex<double>) and writes it from there. Every small float is a value of double, and double
// rounded once to the target is the correctly rounded result; integers go through integers and lose
// nothing. A NaN stays one, and keeps its sign and the upper bits of its payload where the target
// has room for them. The casts that whole models go through have loops of their own, which
// compilers turn into vector instructions, with the same result bit for bit.
#include "api/cast.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <complex>
#include <cstring>
#include <limits>
#include <optional>
#include <variant>

#include "format/assert.h"

namespace stepstone {
namespace {

// How a small floating-point type lays out its bits: sign, exponent, mantissa, from the top.
struct FloatLayout {
  int exponent_bits;
  int mantissa_bits;
  int bias;
  enum class Specials : std::uint8_t {
    kIeee,             // The highest exponent holds infinity and NaN.
    kOneNan,           // "fn": no infinity; all ones is NaN.
    kNegativeZeroNan,  // "fnuz": no infinity and no negative zero, whose bits are NaN.
    kNone,             // Neither.
  } specials;
};

std::optional<FloatLayout> layout_of(DType dtype) {
  using S = FloatLayout::Specials;
  switch (dtype) {
    case DType::kFloat16:
      return FloatLayout{5, 10, 15, S::kIeee};
    case DType::kBfloat16:
      return FloatLayout{8, 7, 127, S::kIeee};
    case DType::kFloat8E4m3fn:
      return FloatLayout{4, 3, 7, S::kOneNan};
    case DType::kFloat8E5m2:
      return FloatLayout{5, 2, 15, S::kIeee};
    case DType::kFloat8E4m3b11fnuz:
      return FloatLayout{4, 3, 11, S::kNegativeZeroNan};
    case DType::kFloat8E4m3fnuz:
      return FloatLayout{4, 3, 8, S::kNegativeZeroNan};
    case DType::kFloat8E5m2fnuz:
      return FloatLayout{5, 2, 16, S::kNegativeZeroNan};
    case DType::kFloat8E3m4:
      return FloatLayout{3, 4, 3, S::kIeee};
    case DType::kFloat8E4m3:
      return FloatLayout{4, 3, 7, S::kIeee};
    case DType::kFloat4E2m1fn:
      return FloatLayout{2, 1, 1, S::kNone};
    default:
      return std::nullopt;
  }
}

constexpr int kDoubleMantissaBits = 52;

double decode_float(std::uint32_t bits, const FloatLayout& layout) {
  using S = FloatLayout::Specials;
  const std::uint32_t sign = bits >> (layout.exponent_bits + layout.mantissa_bits) & 1;
  const std::uint32_t exponent_max = (1U << layout.exponent_bits) - 1;
  const std::uint32_t mantissa_max = (1U << layout.mantissa_bits) - 1;
  const std::uint32_t exponent = bits >> layout.mantissa_bits & exponent_max;
  const std::uint32_t mantissa = bits & mantissa_max;
  const double nan =
      std::copysign(std::numeric_limits<double>::quiet_NaN(), sign != 0 ? -1.0 : 1.0);
  if (layout.specials == S::kIeee && exponent == exponent_max) {
    if (mantissa == 0) return sign != 0 ? -HUGE_VAL : HUGE_VAL;
    const int shift = kDoubleMantissaBits - layout.mantissa_bits;
    return std::bit_cast<double>(std::bit_cast<std::uint64_t>(nan) | std::uint64_t{mantissa}
                                                                         << shift);
  }
  if (layout.specials == S::kOneNan && exponent == exponent_max && mantissa == mantissa_max) {
    return nan;
  }
  if (layout.specials == S::kNegativeZeroNan && sign != 0 && exponent == 0 && mantissa == 0) {
    return nan;
  }
  const int power = (exponent == 0 ? 1 : static_cast<int>(exponent)) - layout.bias;
  const std::uint32_t whole = exponent == 0 ? mantissa : mantissa | (mantissa_max + 1);
  const double magnitude = std::ldexp(static_cast<double>(whole), power - layout.mantissa_bits);
  return sign != 0 ? -magnitude : magnitude;
}

std::uint32_t encode_float(double value, const FloatLayout& layout) {
  using S = FloatLayout::Specials;
  const std::uint32_t exponent_max = (1U << layout.exponent_bits) - 1;
  const std::uint32_t mantissa_max = (1U << layout.mantissa_bits) - 1;
  const int sign_shift = layout.exponent_bits + layout.mantissa_bits;
  const std::uint32_t sign = (std::signbit(value) ? 1U : 0U) << sign_shift;

  // The bits of NaN, of infinity (or what stands for it), and of the largest finite magnitude.
  std::uint32_t nan = 0;
  std::uint32_t infinity = 0;
  std::uint32_t largest = 0;
  switch (layout.specials) {
    case S::kIeee:
      nan = sign | exponent_max << layout.mantissa_bits | 1U << (layout.mantissa_bits - 1);
      nan |= static_cast<std::uint32_t>(std::bit_cast<std::uint64_t>(value) >>
                                        (kDoubleMantissaBits - layout.mantissa_bits)) &
             mantissa_max;
      infinity = sign | exponent_max << layout.mantissa_bits;
      largest = (exponent_max << layout.mantissa_bits) - 1;
      break;
    case S::kOneNan:
      nan = sign | exponent_max << layout.mantissa_bits | mantissa_max;
      infinity = nan;
      largest = (exponent_max << layout.mantissa_bits | mantissa_max) - 1;
      break;
    case S::kNegativeZeroNan:
      nan = 1U << sign_shift;
      infinity = nan;
      largest = exponent_max << layout.mantissa_bits | mantissa_max;
      break;
    case S::kNone:
      // Without NaN, ml_dtypes gives zero of the other sign.
      nan = sign ^ 1U << sign_shift;
      largest = exponent_max << layout.mantissa_bits | mantissa_max;
      infinity = sign | largest;
      break;
  }
  if (std::isnan(value)) return nan;
  if (std::isinf(value)) return infinity;

  const double magnitude = std::fabs(value);
  if (magnitude == 0) return layout.specials == S::kNegativeZeroNan ? 0 : sign;
  int power = 0;
  std::frexp(magnitude, &power);  // magnitude = f * 2^power with f in [0.5, 1).
  // The exponent of the unit in the last place; subnormals share that of the smallest normal
  // number.
  const int unit = std::max(power - 1, 1 - layout.bias) - layout.mantissa_bits;
  // Exact: both are powers of two times at most 53 bits. nearbyint rounds ties to even.
  const double units = std::nearbyint(std::ldexp(magnitude, -unit));
  // Counting units from the smallest subnormal gives the bits, carries into the exponent included.
  const int steps = unit - (1 - layout.bias - layout.mantissa_bits);
  const auto whole = static_cast<std::uint64_t>(units);
  std::uint64_t bits = whole;
  if (steps > 0) bits = whole + (static_cast<std::uint64_t>(steps) << layout.mantissa_bits);
  if (bits > largest) return infinity;
  if (bits == 0 && layout.specials == S::kNegativeZeroNan) return 0;
  return sign | static_cast<std::uint32_t>(bits);
}

// Element `index` of packed or whole-byte little-endian elements, as raw bits.
std::uint64_t load_bits(const std::byte* data, std::uint64_t index, unsigned bits) {
  if (bits < 8) {
    const std::uint64_t per_byte = 8 / bits;
    const auto byte = std::to_integer<std::uint64_t>(data[index / per_byte]);
    return byte >> (index % per_byte * bits) & ((1U << bits) - 1);
  }
  std::uint64_t value = 0;
  std::memcpy(&value, data + index * (bits / 8), bits / 8);
  return value;
}

void store_bits(std::byte* data, std::uint64_t index, unsigned bits, std::uint64_t value) {
  if (bits < 8) {
    const std::uint64_t per_byte = 8 / bits;
    data[index / per_byte] |= static_cast<std::byte>(value << (index % per_byte * bits));
    return;
  }
  std::memcpy(data + index * (bits / 8), &value, bits / 8);
}

using Number = std::variant<std::int64_t, std::uint64_t, double, std::complex<double>>;

double load_float(std::uint64_t bits, DType dtype) {
  if (dtype == DType::kFloat64) return std::bit_cast<double>(bits);
  if (dtype == DType::kFloat32) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits));
  }
  if (dtype == DType::kFloat8E8m0fnu) {
    if (bits == 0xFF) return std::numeric_limits<double>::quiet_NaN();
    return std::ldexp(1.0, static_cast<int>(bits) - 127);
  }
  return decode_float(static_cast<std::uint32_t>(bits), *layout_of(dtype));
}

// Powers of two only, no sign: zero and below become NaN, as does what is too large. What is
// positive and too small becomes the smallest power, which is the nearest.
std::uint64_t encode_e8m0(double value) {
  constexpr std::uint64_t kNan = 0xFF;
  if (!(value > 0) || std::isinf(value)) return kNan;
  int power = 0;
  const double fraction = std::frexp(value, &power);  // [0.5, 1) * 2^power.
  // To the nearer of 2^(power - 1) and 2^power. The middle, 0.75, goes up: of the two significands
  // without a fraction, 1 and 2, the even one is 2.
  const int exponent = fraction >= 0.75 ? power : power - 1;
  if (exponent > 127) return kNan;
  return exponent < -127 ? 0 : static_cast<std::uint64_t>(exponent + 127);
}

std::uint64_t float_bits(double value, DType dtype) {
  if (dtype == DType::kFloat64) return std::bit_cast<std::uint64_t>(value);
  if (dtype == DType::kFloat32) return std::bit_cast<std::uint32_t>(static_cast<float>(value));
  if (dtype == DType::kFloat8E8m0fnu) return encode_e8m0(value);
  return encode_float(value, *layout_of(dtype));
}

Number load(const std::byte* data, std::uint64_t index, DType dtype) {
  const DTypeInfo& type = info(dtype);
  switch (type.kind) {
    case DTypeKind::kBool:
      return std::uint64_t{load_bits(data, index, type.bits) != 0};
    case DTypeKind::kUnsigned:
      return load_bits(data, index, type.bits);
    case DTypeKind::kSigned: {
      const int shift = 64 - type.bits;
      const std::uint64_t bits = load_bits(data, index, type.bits);
      return static_cast<std::int64_t>(bits << shift) >> shift;
    }
    case DTypeKind::kFloat:
      return load_float(load_bits(data, index, type.bits), dtype);
    case DTypeKind::kComplex: {
      const unsigned half = type.bits / 2U;
      const DType part = half == 32 ? DType::kFloat32 : DType::kFloat64;
      return std::complex<double>(load_float(load_bits(data, 2 * index, half), part),
                                  load_float(load_bits(data, 2 * index + 1, half), part));
    }
  }
  STEPSTONE_ASSERT(false);
}

// Whether an integer of the one or the other sign fits `bits` bits.
bool fits_signed(const Number& number, unsigned bits) {
  const std::int64_t max = std::numeric_limits<std::int64_t>::max() >> (64 - bits);
  if (const auto* value = std::get_if<std::uint64_t>(&number)) {
    return *value <= static_cast<std::uint64_t>(max);
  }
  const std::int64_t value = std::get<std::int64_t>(number);
  return value >= -max - 1 && value <= max;
}

bool fits_unsigned(const Number& number, unsigned bits) {
  const std::uint64_t max = std::numeric_limits<std::uint64_t>::max() >> (64 - bits);
  if (const auto* value = std::get_if<std::int64_t>(&number)) {
    return *value >= 0 && static_cast<std::uint64_t>(*value) <= max;
  }
  return std::get<std::uint64_t>(number) <= max;
}

// For a target of `bits` bits. An integer over 2^53 on its way to a type narrower than double is
// rounded to odd here, so that the rounding to the target, which follows, is the only one that
// counts.
double to_double(const Number& number, unsigned bits) {
  if (const auto* value = std::get_if<double>(&number)) return *value;
  const auto* const signed_value = std::get_if<std::int64_t>(&number);
  const bool is_negative = signed_value != nullptr && *signed_value < 0;
  std::uint64_t magnitude = signed_value != nullptr ? static_cast<std::uint64_t>(*signed_value)
                                                    : std::get<std::uint64_t>(number);
  if (is_negative) magnitude = 0 - magnitude;
  const int excess =
      static_cast<int>(std::bit_width(magnitude)) - std::numeric_limits<double>::digits;
  if (excess > 0 && bits < 64) {
    const std::uint64_t dropped = magnitude & ((std::uint64_t{1} << excess) - 1);
    magnitude = (magnitude >> excess | (dropped != 0 ? 1 : 0)) << excess;
  }
  const auto value = static_cast<double>(magnitude);
  return is_negative ? -value : value;
}

std::uint64_t integer_bits(const Number& number) {
  if (const auto* value = std::get_if<std::int64_t>(&number)) {
    return static_cast<std::uint64_t>(*value);
  }
  return std::get<std::uint64_t>(number);
}

// False: an integer that does not fit.
bool store(std::byte* data, std::uint64_t index, DType dtype, const Number& number) {
  const DTypeInfo& type = info(dtype);
  const std::uint64_t mask = ~std::uint64_t{0} >> (64 - std::min<unsigned>(type.bits, 64));
  switch (type.kind) {
    case DTypeKind::kSigned:
      if (!fits_signed(number, type.bits)) return false;
      store_bits(data, index, type.bits, integer_bits(number) & mask);
      return true;
    case DTypeKind::kBool:
    case DTypeKind::kUnsigned:
      if (!fits_unsigned(number, type.bits)) return false;
      store_bits(data, index, type.bits, integer_bits(number) & mask);
      return true;
    case DTypeKind::kFloat:
      store_bits(data, index, type.bits, float_bits(to_double(number, type.bits), dtype));
      return true;
    case DTypeKind::kComplex: {
      const unsigned half = type.bits / 2U;
      const DType part = half == 32 ? DType::kFloat32 : DType::kFloat64;
      const auto* const complex = std::get_if<std::complex<double>>(&number);
      const double real = complex != nullptr ? complex->real() : to_double(number, half);
      const double imaginary = complex != nullptr ? complex->imag() : 0.0;
      store_bits(data, 2 * index, half, float_bits(real, part));
      store_bits(data, 2 * index + 1, half, float_bits(imaginary, part));
      return true;
    }
  }
  STEPSTONE_ASSERT(false);
}

// Of the range of an integer type, the value nearest to `value` without its fraction.
Number nearest_integer(double value, const DTypeInfo& type) {
  if (std::isnan(value)) return std::uint64_t{0};
  const bool is_signed = type.kind == DTypeKind::kSigned;
  const int value_bits = is_signed ? type.bits - 1 : type.bits;
  const double end = std::ldexp(1.0, value_bits);  // One more than the largest value.
  if (value >= end) return ~std::uint64_t{0} >> (64 - value_bits);
  if (!is_signed) return value <= 0 ? std::uint64_t{0} : static_cast<std::uint64_t>(value);
  return static_cast<std::int64_t>(std::max(value, -end));
}

// What of the number a type can hold that would otherwise refuse it.
Number lossy(const Number& number, DType to) {
  const DTypeInfo& type = info(to);
  if (type.kind == DTypeKind::kComplex) return number;
  if (const auto* const complex = std::get_if<std::complex<double>>(&number)) {
    return lossy(complex->real(), to);
  }
  const auto* const real = std::get_if<double>(&number);
  if (type.kind == DTypeKind::kFloat) return number;
  if (type.kind == DTypeKind::kBool) {
    return std::uint64_t{real != nullptr ? *real != 0 : integer_bits(number) != 0};
  }
  if (real != nullptr) return nearest_integer(*real, type);
  if (type.kind == DTypeKind::kSigned) {
    if (fits_signed(number, type.bits)) return number;
  } else if (fits_unsigned(number, type.bits)) {
    return number;
  }
  const auto* const integer = std::get_if<std::int64_t>(&number);
  const bool is_low = integer != nullptr && *integer < 0;
  return nearest_integer(is_low ? -HUGE_VAL : HUGE_VAL, type);
}

// One loop over typed memory; neither side needs to be aligned. The conversion is a parameter of
// the template so that each has a loop that it is inlined into.
template <typename From, typename To, auto Convert>
void convert_each(const std::byte* source, std::byte* target, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    From from{};
    std::memcpy(&from, source + i * sizeof(From), sizeof(From));
    const To to = Convert(from);
    std::memcpy(target + i * sizeof(To), &to, sizeof(To));
  }
}

double double_from_float(float value) { return value; }
float float_from_double(double value) { return static_cast<float>(value); }

std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }
float float_of(std::uint32_t bits) { return std::bit_cast<float>(bits); }

constexpr std::uint32_t kFloatInfinity = 0x7F800000;
constexpr std::uint32_t kFloatQuiet = 0x00400000;

std::uint16_t bfloat16_from_float(std::uint32_t bits) {
  const bool is_nan = (bits & 0x7FFFFFFF) > kFloatInfinity;
  const std::uint32_t rounded = bits + 0x7FFF + (bits >> 16 & 1);
  return static_cast<std::uint16_t>((is_nan ? bits | kFloatQuiet : rounded) >> 16);
}

std::uint32_t float_from_bfloat16(std::uint16_t value) {
  const std::uint32_t bits = std::uint32_t{value} << 16;
  const bool is_nan = (bits & 0x7FFFFFFF) > kFloatInfinity;
  return is_nan ? bits | kFloatQuiet : bits;
}

// The cases are computed side by side and selected from by masks: compilers do not make vectors of
// a loop with branches, and would branch around arithmetic on floats for a `?:`.
std::uint32_t select(bool condition, std::uint32_t a, std::uint32_t b) {
  const std::uint32_t mask = 0 - static_cast<std::uint32_t>(condition);
  return (a & mask) | (b & ~mask);
}

std::uint16_t float16_from_float(std::uint32_t bits) {
  const std::uint32_t sign = bits >> 16 & 0x8000;
  const std::uint32_t magnitude = bits & 0x7FFFFFFF;
  // Adding 2^-1 moves the unit in the last place to 2^-24, that of the subnormals, and the addition
  // rounds; a result of 2^-14 carries into the exponent as it should.
  const std::uint32_t subnormal = bits_of(float_of(magnitude) + 0.5F) - bits_of(0.5F);
  constexpr std::uint32_t kRebias = std::uint32_t{127 - 15} << 23;
  const std::uint32_t normal = (magnitude - kRebias + 0xFFF + (magnitude >> 13 & 1)) >> 13;
  const std::uint32_t nan = 0x7E00 | (magnitude >> 13 & 0x3FF);
  constexpr std::uint32_t kSmallestNormal = std::uint32_t{127 - 14} << 23;
  constexpr std::uint32_t kOverflow = std::uint32_t{127 + 16} << 23;
  std::uint32_t result = select(magnitude < kSmallestNormal, subnormal, normal);
  result = select(magnitude >= kOverflow, 0x7C00, result);
  result = select(magnitude > kFloatInfinity, nan, result);
  return static_cast<std::uint16_t>(sign | result);
}

std::uint32_t float_from_float16(std::uint16_t value) {
  const std::uint32_t sign = (value & 0x8000U) << 16;
  const std::uint32_t magnitude = value & 0x7FFFU;
  const std::uint32_t shifted = magnitude << 13;
  const std::uint32_t normal = shifted + (std::uint32_t{127 - 15} << 23);
  // A subnormal is its mantissa in units of 2^-24.
  const std::uint32_t subnormal =
      bits_of(static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24F);
  const std::uint32_t quiet = select(magnitude > 0x7C00, kFloatQuiet, 0);
  std::uint32_t result = select(magnitude < 0x0400, subnormal, normal);
  result = select(magnitude >= 0x7C00, kFloatInfinity | shifted | quiet, result);
  return sign | result;
}

// Integers of one width, signed and unsigned: the same bytes unless one has the top bit set.
template <typename T>
bool copy_without_top_bit(const std::byte* source, std::byte* target, std::uint64_t count) {
  T all = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    T value{};
    std::memcpy(&value, source + i * sizeof(T), sizeof(T));
    all = static_cast<T>(all | value);
  }
  if (all >> (8 * sizeof(T) - 1) != 0) return false;
  if (count != 0) std::memcpy(target, source, static_cast<std::size_t>(count) * sizeof(T));
  return true;
}

bool is_integer(DType dtype) {
  const DTypeKind kind = info(dtype).kind;
  return kind == DTypeKind::kSigned || kind == DTypeKind::kUnsigned;
}

// False: there is no loop of its own for this pair, or for these values.
bool cast_fast(const std::byte* source, DType from, std::byte* target, DType to,
               std::uint64_t count) {
  if (from == DType::kFloat32) {
    switch (to) {
      case DType::kFloat64:
        convert_each<float, double, double_from_float>(source, target, count);
        return true;
      case DType::kBfloat16:
        convert_each<std::uint32_t, std::uint16_t, bfloat16_from_float>(source, target, count);
        return true;
      case DType::kFloat16:
        convert_each<std::uint32_t, std::uint16_t, float16_from_float>(source, target, count);
        return true;
      default:
        return false;
    }
  }
  if (to == DType::kFloat32) {
    switch (from) {
      case DType::kFloat64:
        convert_each<double, float, float_from_double>(source, target, count);
        return true;
      case DType::kBfloat16:
        convert_each<std::uint16_t, std::uint32_t, float_from_bfloat16>(source, target, count);
        return true;
      case DType::kFloat16:
        convert_each<std::uint16_t, std::uint32_t, float_from_float16>(source, target, count);
        return true;
      default:
        return false;
    }
  }
  if (!is_integer(from) || !is_integer(to) || info(from).bits != info(to).bits) return false;
  switch (info(from).bits) {
    case 8:
      return copy_without_top_bit<std::uint8_t>(source, target, count);
    case 16:
      return copy_without_top_bit<std::uint16_t>(source, target, count);
    case 32:
      return copy_without_top_bit<std::uint32_t>(source, target, count);
    case 64:
      return copy_without_top_bit<std::uint64_t>(source, target, count);
    default:
      return false;
  }
}

Result<Array> cast_with(const Array& array, DType to, bool may_be_fast, bool allow_lossy,
                        std::uint64_t first_element) {
  if (array.dtype() == to) return array.is_contiguous() ? array : array.owned();
  if (const std::string_view why = refusal(array.dtype(), to); !why.empty() && !allow_lossy) {
    return cannot_cast(array.dtype(), to, why);
  }
  const Array source = array.is_contiguous() ? array : array.owned();
  Array result = STEPSTONE_TRY(Array::zeros(to, array.shape()));
  std::byte* const target = result.mutable_bytes().data();
  const std::uint64_t count = source.element_count();
  if (may_be_fast && cast_fast(source.data(), source.dtype(), target, to, count)) return result;
  for (std::uint64_t i = 0; i < count; ++i) {
    const Number number = load(source.data(), i, source.dtype());
    if (!store(target, i, to, allow_lossy ? lossy(number, to) : number)) {
      return does_not_fit(array.dtype(), to, first_element + i);
    }
  }
  return result;
}

}  // namespace

std::string_view refusal(DType from, DType to) {
  const DTypeKind source = info(from).kind;
  const DTypeKind target = info(to).kind;
  if (from == to) return {};
  if (target == DTypeKind::kBool) return "only a bool restores as bool";
  if (source == DTypeKind::kComplex && target != DTypeKind::kComplex) {
    return "it would lose the imaginary part";
  }
  if (source == DTypeKind::kFloat &&
      (target == DTypeKind::kSigned || target == DTypeKind::kUnsigned)) {
    return "it would lose the fraction";
  }
  return {};
}

Result<Array> cast(const Array& array, DType to, bool allow_lossy, std::uint64_t first_element) {
  return cast_with(array, to, /*may_be_fast=*/true, allow_lossy, first_element);
}

tl::unexpected<Error> cannot_cast(DType from, DType to, std::string_view why) {
  return fail(ErrorCode::kMismatch,
              fmt::format("cannot cast {} to {}: {}", to_string(from), to_string(to), why));
}

tl::unexpected<Error> does_not_fit(DType from, DType to, std::uint64_t element) {
  return cannot_cast(from, to, fmt::format("element {} does not fit", element));
}

Result<Array> cast_one_by_one(const Array& array, DType to) {
  return cast_with(array, to, /*may_be_fast=*/false, /*allow_lossy=*/false, 0);
}

}  // namespace stepstone
