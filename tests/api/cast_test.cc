// Casts are held against four references that share no code with them: numpy and ml_dtypes (a file
// of their results), the compiler's own conversions, comparisons of integers, and, for the fast
// loops, the general path.
#include "api/cast.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <complex>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <optional>

#include "tests/api/support.h"

namespace stepstone {
namespace {

using testing::array_of;
using testing::fails;
using testing::is_ok;
using testing::packed_bytes;
using testing::Random;

using Patterns = std::vector<std::uint64_t>;  // The bits of elements.

Array array_of_patterns(DType dtype, const Patterns& patterns) {
  Array array = *Array::zeros(dtype, {patterns.size()});
  const std::span<std::byte> bytes = array.mutable_bytes();
  const std::size_t bits = info(dtype).bits;
  for (std::size_t i = 0; i < patterns.size(); ++i) {
    for (std::size_t bit = 0; bit < bits; ++bit) {
      if ((patterns[i] >> bit & 1) == 0) continue;
      const std::size_t at = i * bits + bit;
      bytes[at / 8] |= std::byte{1} << (at % 8);
    }
  }
  return array;
}

Patterns patterns_of(const Array& array) {
  const std::vector<std::byte> bytes = packed_bytes(array);
  const std::size_t bits = info(array.dtype()).bits;
  Patterns patterns(static_cast<std::size_t>(array.element_count()), 0);
  for (std::size_t at = 0; at < patterns.size() * bits; ++at) {
    const bool is_set = (bytes[at / 8] >> (at % 8) & std::byte{1}) != std::byte{0};
    if (is_set) patterns[at / bits] |= std::uint64_t{1} << (at % bits);
  }
  return patterns;
}

// What numpy and ml_dtypes make of the sources: by target.
struct Reference {
  Patterns sources;
  std::map<DType, Patterns> results;
};

std::map<DType, Reference> read_reference() {
  std::ifstream file(STEPSTONE_API_DATA_DIR "/cast_reference.txt");
  std::map<DType, Reference> references;
  Reference* reference = nullptr;
  Patterns* patterns = nullptr;
  std::size_t digits = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    const bool is_from = line.starts_with("from ");
    if (is_from || line.starts_with("to ")) {
      const DType dtype = dtype_from_name(line.substr(line.find(' ') + 1)).value();
      if (is_from) reference = &references[dtype];
      patterns = is_from ? &reference->sources : &reference->results[dtype];
      digits = std::max<std::size_t>(1, info(dtype).bits / 4U);
      continue;
    }
    for (std::size_t at = 0; at < line.size(); at += digits) {
      patterns->push_back(std::stoull(line.substr(at, digits), nullptr, 16));
    }
  }
  return references;
}

const std::map<DType, Reference>& references() {
  static const std::map<DType, Reference> kAll = read_reference();
  return kAll;
}

// Only the types that the reference file has results for.
struct FloatFormat {
  int mantissa_bits;
  bool has_sign = true;
  bool has_infinity = true;
  std::optional<std::uint64_t> only_nan = std::nullopt;  // Of either sign.
};
FloatFormat format_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
      return {10};
    case DType::kBfloat16:
      return {7};
    case DType::kFloat32:
      return {23};
    case DType::kFloat8E5m2:
      return {2};
    case DType::kFloat8E3m4:
      return {4};
    case DType::kFloat8E4m3:
      return {3};
    case DType::kFloat8E4m3fn:
      return {3, true, false, 0x7F};
    case DType::kFloat8E8m0fnu:
      return {0, false, false, 0xFF};
    default:
      return {0, false, false, 0x80};  // The "fnuz" types.
  }
}

bool is_nan(DType dtype, std::uint64_t pattern) {
  if (dtype == DType::kFloat4E2m1fn) return false;
  const FloatFormat format = format_of(dtype);
  const std::uint64_t sign = std::uint64_t{1} << (info(dtype).bits - 1);
  const std::uint64_t magnitude = format.has_sign ? pattern & ~sign : pattern;
  if (!format.has_infinity) return magnitude == format.only_nan;
  const std::uint64_t infinity = (sign - 1) >> format.mantissa_bits << format.mantissa_bits;
  return magnitude > infinity;
}

// The same bits, or two NaN of the same sign. A payload is kept as far as it has room, which is
// what processors do; ml_dtypes drops it in some pairs and leaves it as it is in others.
bool agree(DType dtype, std::uint64_t a, std::uint64_t b) {
  if (a == b) return true;
  const std::uint64_t sign = std::uint64_t{1} << (info(dtype).bits - 1);
  return is_nan(dtype, a) && is_nan(dtype, b) && (a & sign) == (b & sign);
}

TEST(Cast, AgreesWithNumpyAndMlDtypes) {
  ASSERT_EQ(references().size(), 26U) << "every dtype but the complex ones";
  std::size_t count = 0;
  for (const auto& [from, reference] : references()) {
    const Array source = array_of_patterns(from, reference.sources);
    for (const auto& [to, expected] : reference.results) {
      const auto result = cast(source, to);
      ASSERT_TRUE(is_ok(result));
      const Patterns found = patterns_of(*result);
      ASSERT_EQ(found.size(), expected.size());
      for (std::size_t i = 0; i < found.size(); ++i) {
        EXPECT_TRUE(agree(to, found[i], expected[i]))
            << to_string(from) << " to " << to_string(to) << std::hex << ": "
            << reference.sources[i] << " became " << found[i] << ", not " << expected[i];
        ++count;
      }
    }
  }
  EXPECT_GT(count, 30000U);
}

TEST(Cast, WidensEveryFloatExactly) {
  std::map<DType, Reference> all = references();
  for (auto& [from, reference] : all) {
    if (info(from).kind != DTypeKind::kFloat || from == DType::kFloat64) continue;
    const Patterns as_float =
        from == DType::kFloat32 ? reference.sources : reference.results.at(DType::kFloat32);
    const Array source = array_of_patterns(from, reference.sources);
    const Patterns as_double = patterns_of(*cast(source, DType::kFloat64));
    const std::vector<std::byte> complex64 = packed_bytes(*cast(source, DType::kComplex64));
    const std::vector<std::byte> complex128 = packed_bytes(*cast(source, DType::kComplex128));
    for (std::size_t i = 0; i < as_float.size(); ++i) {
      const float value = std::bit_cast<float>(static_cast<std::uint32_t>(as_float[i]));
      const double found = std::bit_cast<double>(as_double[i]);
      std::complex<float> narrow;
      std::complex<double> wide;
      std::memcpy(&narrow, complex64.data() + i * sizeof(narrow), sizeof(narrow));
      std::memcpy(&wide, complex128.data() + i * sizeof(wide), sizeof(wide));
      if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(found) && std::isnan(narrow.real()) && std::isnan(wide.real()));
      } else {
        EXPECT_EQ(found, value) << to_string(from) << " " << reference.sources[i];
        EXPECT_EQ(narrow.real(), value);
        EXPECT_EQ(wide.real(), value);
        EXPECT_EQ(std::signbit(found), std::signbit(value));
      }
      EXPECT_EQ(narrow.imag(), 0);
      EXPECT_EQ(wide.imag(), 0);
    }
  }
}

// The value of an integer's bits.
struct Integer {
  bool is_negative = false;
  std::uint64_t magnitude = 0;
};
Integer integer_of(DType dtype, std::uint64_t pattern) {
  const unsigned bits = info(dtype).bits;
  if (info(dtype).kind != DTypeKind::kSigned || (pattern >> (bits - 1) & 1) == 0) {
    return {false, pattern};
  }
  const std::uint64_t extended = bits == 64 ? pattern : pattern | ~std::uint64_t{0} << bits;
  return {true, ~extended + 1};
}

bool fits(DType dtype, Integer value) {
  const unsigned bits = info(dtype).bits;
  if (info(dtype).kind == DTypeKind::kSigned) {
    const std::uint64_t half = std::uint64_t{1} << (bits - 1);
    return value.is_negative ? value.magnitude <= half : value.magnitude < half;
  }
  return !value.is_negative && (bits == 64 || value.magnitude >> bits == 0);
}

TEST(Cast, IntegersKeepTheirValueOrAreRefused) {
  std::size_t refused = 0;
  for (const auto& [from, reference] : references()) {
    const DTypeKind kind = info(from).kind;
    if (kind == DTypeKind::kFloat) continue;
    for (const auto& [to, other] : references()) {
      if (info(to).kind != DTypeKind::kSigned && info(to).kind != DTypeKind::kUnsigned) continue;
      Patterns fitting;
      for (const std::uint64_t pattern : reference.sources) {
        const Integer value = integer_of(from, pattern);
        if (fits(to, value)) {
          fitting.push_back(pattern);
          continue;
        }
        ++refused;
        EXPECT_TRUE(fails(cast(array_of_patterns(from, {0, pattern, 0}), to), ErrorCode::kMismatch,
                          {to_string(from), to_string(to), "element 1 does not fit"}))
            << pattern;
      }
      const auto result = cast(array_of_patterns(from, fitting), to);
      ASSERT_TRUE(is_ok(result)) << to_string(from) << " to " << to_string(to);
      const Patterns found = patterns_of(*result);
      for (std::size_t i = 0; i < fitting.size(); ++i) {
        const Integer wanted = integer_of(from, fitting[i]);
        const Integer value = integer_of(to, found[i]);
        EXPECT_TRUE(value.is_negative == wanted.is_negative && value.magnitude == wanted.magnitude)
            << to_string(from) << " to " << to_string(to) << ": " << std::hex << fitting[i];
      }
    }
  }
  EXPECT_GT(refused, 1000U);
}

TEST(Cast, IntegersBecomeFloat64AndComplexAsTheCompilerConverts) {
  for (const auto& [from, reference] : references()) {
    if (info(from).kind == DTypeKind::kFloat) continue;
    const Array source = array_of_patterns(from, reference.sources);
    const Array as_double = *cast(source, DType::kFloat64);
    const Array as_complex64 = *cast(source, DType::kComplex64);
    const Array as_complex128 = *cast(source, DType::kComplex128);
    const std::span<const double> found = *as_double.values<double>();
    for (std::size_t i = 0; i < found.size(); ++i) {
      const Integer value = integer_of(from, reference.sources[i]);
      const auto magnitude = static_cast<double>(value.magnitude);
      const auto magnitude32 = static_cast<float>(value.magnitude);
      EXPECT_EQ(found[i], value.is_negative ? -magnitude : magnitude);
      float narrow = 0;
      double wide = 0;
      std::memcpy(&narrow, as_complex64.data() + 8 * i, sizeof(narrow));
      std::memcpy(&wide, as_complex128.data() + 16 * i, sizeof(wide));
      EXPECT_EQ(wide, found[i]);
      EXPECT_EQ(narrow, value.is_negative ? -magnitude32 : magnitude32);
    }
  }
}

// A tie for bfloat16 but for a last bit that float32 has no room for: going through float32 would
// round to even where up is right.
TEST(Cast, RoundsOnceHoweverWideTheSource) {
  constexpr std::int64_t kTie = (std::int64_t{1} << 40) + (std::int64_t{1} << 32);
  const Array integers = array_of<std::int64_t>({kTie - 1, kTie, kTie + 1, -kTie - 1});
  EXPECT_EQ(patterns_of(*cast(integers, DType::kBfloat16)),
            (Patterns{0x5380, 0x5380, 0x5381, 0xD381}));
  const Array doubles = array_of<double>({1 + 0x1p-8 - 0x1p-40, 1 + 0x1p-8, 1 + 0x1p-8 + 0x1p-40});
  EXPECT_EQ(patterns_of(*cast(doubles, DType::kBfloat16)), (Patterns{0x3F80, 0x3F80, 0x3F81}));
  for (const std::int64_t value :
       {(std::int64_t{1} << 62) + (std::int64_t{1} << 38) + 1, std::int64_t{16777217},
        std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min(),
        -(std::int64_t{1} << 60) - (std::int64_t{1} << 36) - 1}) {
    const Array source = array_of<std::int64_t>({value});
    const Array result = *cast(source, DType::kFloat32);
    EXPECT_EQ((*result.values<float>())[0], static_cast<float>(value));
  }
}

TEST(Cast, RefusesWhatWouldLoseTheMeaning) {
  using K = DTypeKind;
  const std::vector<K> kinds = {K::kBool, K::kSigned, K::kUnsigned, K::kFloat, K::kComplex};
  // A row per source kind, a column per target kind, in the order above.
  const std::vector<std::string> allowed = {
      "yyyyy",  // bool
      "nyyyy",  // signed
      "nyyyy",  // unsigned
      "nnnyy",  // float
      "nnnny",  // complex
  };
  const auto position = [&](DType dtype) {
    return static_cast<std::size_t>(std::find(kinds.begin(), kinds.end(), info(dtype).kind) -
                                    kinds.begin());
  };
  for (const DType from : testing::all_dtypes()) {
    for (const DType to : testing::all_dtypes()) {
      const bool is_allowed = allowed[position(from)][position(to)] == 'y';
      EXPECT_EQ(refusal(from, to).empty(), is_allowed) << to_string(from) << to_string(to);
      // Zero is a value of every type but float8_e8m0fnu; whatever the values, the answer is the
      // same.
      const auto result = cast(*Array::zeros(from, {3}), to);
      if (is_allowed) {
        ASSERT_TRUE(is_ok(result));
        EXPECT_EQ(result->dtype(), to);
        EXPECT_EQ(result->shape(), std::vector<std::uint64_t>{3});
      } else {
        EXPECT_TRUE(fails(result, ErrorCode::kMismatch, {to_string(from), to_string(to)}));
      }
    }
  }
}

TEST(Cast, AnyByteButZeroIsATrueBool) {
  const Array source = array_of_patterns(DType::kBool, {0, 1, 2, 255});
  EXPECT_EQ(patterns_of(*cast(source, DType::kInt64)), (Patterns{0, 1, 1, 1}));
  EXPECT_EQ(patterns_of(*cast(source, DType::kUint2)), (Patterns{0, 1, 1, 1}));
}

TEST(Cast, ComplexKeepsBothParts) {
  const std::vector<std::complex<float>> values = {{1.5F, -2.5F}, {-0.0F, 3}, {INFINITY, -0.0F}};
  const Array narrow = *Array::copy_bytes(DType::kComplex64, {3}, std::as_bytes(std::span(values)));
  const Array wide = *cast(narrow, DType::kComplex128);
  for (std::size_t i = 0; i < values.size(); ++i) {
    double parts[2];
    std::memcpy(parts, wide.data() + 16 * i, sizeof(parts));
    EXPECT_EQ(std::bit_cast<std::uint64_t>(parts[0]),
              std::bit_cast<std::uint64_t>(static_cast<double>(values[i].real())));
    EXPECT_EQ(std::bit_cast<std::uint64_t>(parts[1]),
              std::bit_cast<std::uint64_t>(static_cast<double>(values[i].imag())));
  }
  EXPECT_EQ(*cast(wide, DType::kComplex64), narrow);
}

TEST(Cast, PacksAndUnpacksWhateverTheCount) {
  for (const std::size_t count : {0U, 1U, 2U, 3U, 4U, 5U, 7U, 9U}) {
    std::vector<std::int8_t> values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<std::int8_t>(i % 4) - 2;
    const Array wide = array_of(values);
    for (const DType packed : {DType::kInt2, DType::kInt4}) {
      const auto narrow = cast(wide, packed);
      ASSERT_TRUE(is_ok(narrow));
      EXPECT_EQ(narrow->size_bytes(), (count * info(packed).bits + 7) / 8);
      EXPECT_EQ(*cast(*narrow, DType::kInt8), wide);
      // What is left of the last byte is zero.
      EXPECT_EQ(packed_bytes(*narrow),
                packed_bytes(array_of_patterns(packed, patterns_of(*narrow))));
    }
  }
  const Array too_large = array_of<std::int8_t>({1, -2, 2, 3});
  EXPECT_TRUE(fails(cast(too_large, DType::kInt2), ErrorCode::kMismatch, {"element 2"}));
  EXPECT_TRUE(fails(cast(too_large, DType::kUint4), ErrorCode::kMismatch, {"element 1"}));
}

TEST(Cast, TakesStridedArraysAndGivesContiguousOnes) {
  const std::vector<float> columns = {1, 3, 5, 2, 4, 6};
  const Array transposed = *Array::borrow_strided(DType::kFloat32, {3, 2}, {4, 12},
                                                  std::as_bytes(std::span(columns)).data());
  const auto wide = cast(transposed, DType::kFloat64);
  ASSERT_TRUE(is_ok(wide));
  EXPECT_EQ(*wide, array_of<double>({1, 2, 3, 4, 5, 6}, {3, 2}));
  const auto same = cast(transposed, DType::kFloat32);
  ASSERT_TRUE(is_ok(same));
  EXPECT_TRUE(same->is_contiguous());
  EXPECT_EQ(*same, array_of<float>({1, 2, 3, 4, 5, 6}, {3, 2}));
  const Array contiguous = array_of<float>({1, 2});
  EXPECT_EQ(cast(contiguous, DType::kFloat32)->data(), contiguous.data()) << "nothing to copy";
}

void expect_fast_equals_general(DType from, DType to, const Patterns& patterns) {
  SCOPED_TRACE(std::string(to_string(from)) + " to " + std::string(to_string(to)));
  // One byte off, so that nothing may rely on alignment.
  const std::vector<std::byte> bytes = packed_bytes(array_of_patterns(from, patterns));
  std::vector<std::byte> memory(bytes.size() + 1);
  std::copy(bytes.begin(), bytes.end(), memory.begin() + 1);
  const Array source = *Array::borrow(from, {patterns.size()}, std::span(memory).subspan(1));
  const auto fast = cast(source, to);
  const auto general = cast_one_by_one(source, to);
  ASSERT_TRUE(is_ok(fast));
  ASSERT_TRUE(is_ok(general));
  if (*fast == *general) return;
  const Patterns a = patterns_of(*fast);
  const Patterns b = patterns_of(*general);
  const auto at =
      static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin()).first - a.begin());
  FAIL() << std::hex << patterns[at] << ": " << a[at] << ", and one by one " << b[at];
}

TEST(Cast, FastPathsEqualTheGeneralOneForAllValuesOf16Bits) {
  Patterns all(1 << 16);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
  expect_fast_equals_general(DType::kFloat16, DType::kFloat32, all);
  expect_fast_equals_general(DType::kBfloat16, DType::kFloat32, all);
  // And back, the float32 values that these are: each comes back as it was, but for signalling NaN.
  for (const DType narrow : {DType::kFloat16, DType::kBfloat16}) {
    const Array source = array_of_patterns(narrow, all);
    const Patterns back = patterns_of(*cast(*cast(source, DType::kFloat32), narrow));
    const std::uint64_t quiet = narrow == DType::kFloat16 ? 0x0200 : 0x0040;
    for (std::size_t i = 0; i < all.size(); ++i) {
      EXPECT_EQ(back[i], is_nan(narrow, i) ? i | quiet : i);
    }
  }
}

TEST(Cast, FastPathsEqualTheGeneralOneForASampleOfFloat32AndFloat64) {
  const std::uint64_t seed = testing::seed_or(7);
  SCOPED_TRACE(testing::trace(seed));
  Random random(seed);
  Patterns floats;
  Patterns doubles;
  for (std::uint64_t sign_and_exponent = 0; sign_and_exponent < 512; ++sign_and_exponent) {
    const std::uint64_t base = sign_and_exponent << 23;
    for (const unsigned dropped : {13U, 16U, 14U, 20U, 22U}) {
      // Around the ties of float16 and bfloat16, normal and subnormal.
      const std::uint64_t tie = std::uint64_t{1} << (dropped - 1);
      const std::uint64_t kept = (random.bits() & 0x7FFFFF) >> dropped << dropped;
      for (const std::uint64_t low : {tie - 1, tie, tie + 1, std::uint64_t{0}}) {
        floats.push_back(base | kept | low);
      }
    }
    for (int i = 0; i < 40; ++i) floats.push_back(base | (random.bits() & 0x7FFFFF));
    floats.push_back(base);
    floats.push_back(base | 0x7FFFFF);
  }
  for (const std::uint64_t pattern : floats) {
    const float value = std::bit_cast<float>(static_cast<std::uint32_t>(pattern));
    doubles.push_back(std::bit_cast<std::uint64_t>(static_cast<double>(value)) ^
                      (random.bits() & 0x3FFFFFFF));
  }
  for (int i = 0; i < 10000; ++i) doubles.push_back(random.bits());
  expect_fast_equals_general(DType::kFloat32, DType::kFloat16, floats);
  expect_fast_equals_general(DType::kFloat32, DType::kBfloat16, floats);
  expect_fast_equals_general(DType::kFloat32, DType::kFloat64, floats);
  expect_fast_equals_general(DType::kFloat64, DType::kFloat32, doubles);
}

TEST(Cast, FastPathsEqualTheGeneralOneForIntegersOfOneWidth) {
  const std::uint64_t seed = testing::seed_or(8);
  SCOPED_TRACE(testing::trace(seed));
  Random random(seed);
  for (const auto& [signed_dtype, unsigned_dtype] :
       std::vector<std::pair<DType, DType>>{{DType::kInt8, DType::kUint8},
                                            {DType::kInt16, DType::kUint16},
                                            {DType::kInt32, DType::kUint32},
                                            {DType::kInt64, DType::kUint64}}) {
    const unsigned bits = info(signed_dtype).bits;
    Patterns patterns;
    for (int i = 0; i < 1001; ++i) patterns.push_back(random.bits() >> (65 - bits));
    expect_fast_equals_general(signed_dtype, unsigned_dtype, patterns);
    expect_fast_equals_general(unsigned_dtype, signed_dtype, patterns);
    patterns[500] |= std::uint64_t{1} << (bits - 1);
    for (const auto& [from, to] :
         {std::pair(signed_dtype, unsigned_dtype), std::pair(unsigned_dtype, signed_dtype)}) {
      const Array source = array_of_patterns(from, patterns);
      EXPECT_TRUE(fails(cast(source, to), ErrorCode::kMismatch, {"element 500"}));
      EXPECT_EQ(cast(source, to).error(), cast_one_by_one(source, to).error());
    }
  }
}

}  // namespace
}  // namespace stepstone
