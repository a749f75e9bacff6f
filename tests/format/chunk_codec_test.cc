#include "format/chunk_codec.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "format/limits.h"
#include "samples.h"
#include "support.h"

namespace stepstone {
namespace {

const std::vector<ElementLayout> kLayouts = {{1, false}, {2, false}, {4, false}, {8, false},
                                             {2, true},  {4, true},  {8, true}};

std::string text_of(ElementLayout layout) {
  return std::to_string(layout.size_bytes) + (layout.is_floating_point ? " floating" : " integer");
}

struct Stored {
  Codec codec = Codec::kRaw;
  std::string bytes;
};

Stored encode(ChunkEncoder& encoder, const std::string& chunk, ElementLayout layout) {
  const EncodedChunk encoded = encoder.encode(test::as_bytes(chunk), layout);
  return {encoded.codec, test::as_string(encoded.bytes)};
}

// The destination stands in memory of its own size, so that a sanitizer sees a byte too many.
Result<std::string> decode(ChunkDecoder& decoder, const Stored& stored, std::size_t size_bytes) {
  std::vector<std::byte> destination(size_bytes);
  const std::vector<std::byte> bytes(test::as_bytes(stored.bytes).begin(),
                                     test::as_bytes(stored.bytes).end());
  STEPSTONE_TRY(decoder.decode(stored.codec, bytes, destination));
  return test::as_string(destination);
}

template <typename Number>
std::string bytes_of(const std::vector<Number>& numbers) {
  return test::as_string(std::as_bytes(std::span(numbers)));
}

// As weights are: normally distributed, with a few numbers that have no ordinary bits.
std::vector<float> weights(test::Random& random, std::size_t count) {
  std::vector<float> numbers;
  for (std::size_t i = 0; i < count; ++i) {
    double sum = -6;
    for (int k = 0; k < 12; ++k) sum += static_cast<double>(random.below(1 << 20)) / (1 << 20);
    numbers.push_back(static_cast<float>(0.02 * sum));
  }
  return numbers;
}

class ChunkCodec : public testing::Test {
 protected:
  Stored expect_round_trip(const std::string& chunk, ElementLayout layout) {
    Stored stored = encode(encoder_, chunk, layout);
    EXPECT_TRUE(stored.bytes.size() < chunk.size() || stored.codec == Codec::kRaw);
    const auto decoded = decode(decoder_, stored, chunk.size());
    EXPECT_TRUE(decoded.has_value()) << decoded.error().message;
    EXPECT_TRUE(decoded && *decoded == chunk)
        << text_of(layout) << ", " << chunk.size() << " bytes";
    return stored;
  }

  ChunkEncoder encoder_;
  ChunkDecoder decoder_;
};

TEST_F(ChunkCodec, BringsBackEverySizeUnderEveryLayout) {
  for (const std::uint64_t seed : test::seeds(3)) {
    SCOPED_TRACE(test::trace(seed));
    test::Random random(seed);
    for (const ElementLayout layout : kLayouts) {
      for (std::size_t size = 0; size <= 200; ++size) {
        std::string few_values;
        for (std::size_t i = 0; i < size; ++i) few_values += random.one_in(8) ? 'b' : 'a';
        expect_round_trip(random.bytes(size), layout);
        expect_round_trip(few_values, layout);
        expect_round_trip(std::string(size, '\x7f'), layout);
      }
      for (const std::size_t size :
           {4095U, 4096U, 4097U, 65535U, 131071U, 131073U, 262143U, 262144U, 262145U}) {
        std::string chunk = bytes_of(weights(random, size / 4 + 1));
        chunk.resize(size);
        expect_round_trip(chunk, layout);
      }
    }
  }
}

TEST_F(ChunkCodec, BringsBackTheLargestChunk) {
  std::string chunk(limits::kChunkSizeBytesMax, '\0');
  for (std::size_t i = 0; i < chunk.size(); i += 5) chunk[i] = static_cast<char>(i % 7);
  for (const ElementLayout layout : {ElementLayout{1, false}, ElementLayout{4, true}}) {
    EXPECT_EQ(expect_round_trip(chunk, layout).codec, Codec::kPlanes);
  }
}

TEST_F(ChunkCodec, KeepsEveryBitOfEveryFloat16AndBfloat16) {
  std::vector<std::uint16_t> all;
  for (int copies = 0; copies < 3; ++copies) {
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
      // The middle exponents often, so that it pays to split.
      all.push_back(static_cast<std::uint16_t>(bits));
      for (int i = 0; i < 4; ++i) all.push_back(static_cast<std::uint16_t>(0x3F80 | (bits & 0x7F)));
    }
  }
  EXPECT_EQ(expect_round_trip(bytes_of(all), element_layout(DType::kBfloat16)).codec,
            Codec::kPlanes);
  EXPECT_EQ(expect_round_trip(bytes_of(all), element_layout(DType::kFloat16)).codec,
            Codec::kPlanes);
}

TEST_F(ChunkCodec, KeepsPayloadsOfNansAndSignsOfZeros) {
  test::Random random(1);
  std::vector<float> numbers = weights(random, 65536);
  std::vector<double> doubles(numbers.begin(), numbers.end());
  for (std::size_t i = 0; i < numbers.size(); i += 97) {
    const auto payload = static_cast<std::uint32_t>(random.bits());
    const std::uint32_t specials[] = {0x80000000U, 0x7F800000U,
                                      0xFF800000U, 1U,
                                      0x80000001U, 0x7F800001U | (payload & 0x807FFFFFU)};
    numbers[i] = std::bit_cast<float>(specials[random.below(6)]);
    doubles[i] = std::bit_cast<double>(0x7FF0000000000001U | (random.bits() & 0x800FFFFFFFFFFFFFU));
  }
  EXPECT_EQ(expect_round_trip(bytes_of(numbers), element_layout(DType::kFloat32)).codec,
            Codec::kPlanes);
  EXPECT_EQ(expect_round_trip(bytes_of(doubles), element_layout(DType::kFloat64)).codec,
            Codec::kPlanes);
}

TEST_F(ChunkCodec, MakesWeightsSmaller) {
  test::Random random(2);
  const std::vector<float> numbers = weights(random, 65536);
  std::vector<std::uint16_t> halves;
  for (const float number : numbers) {
    halves.push_back(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(number) >> 16));
  }
  const auto ratio = [&](const std::string& chunk, DType dtype) {
    return static_cast<double>(expect_round_trip(chunk, element_layout(dtype)).bytes.size()) /
           static_cast<double>(chunk.size());
  };
  EXPECT_LT(ratio(bytes_of(numbers), DType::kFloat32), 0.84);
  EXPECT_LT(ratio(bytes_of(halves), DType::kBfloat16), 0.68);
}

TEST_F(ChunkCodec, LeavesRandomBytesAsTheyAre) {
  test::Random random(3);
  const std::string chunk = random.bytes(262144);
  for (const ElementLayout layout : kLayouts) {
    const EncodedChunk encoded = encoder_.encode(test::as_bytes(chunk), layout);
    EXPECT_EQ(encoded.codec, Codec::kRaw);
    EXPECT_EQ(static_cast<const void*>(encoded.bytes.data()), chunk.data()) << "not a copy";
    EXPECT_EQ(encoded.bytes.size(), chunk.size());
  }
}

TEST_F(ChunkCodec, StoresARepeatedPatternOnce) {
  for (const std::size_t pattern_size : {1U, 2U, 4U, 8U, 16U}) {
    const std::string pattern = std::string("0123456789abcdef").substr(0, pattern_size);
    for (const std::size_t size : {17U, 31U, 262144U, 262151U}) {
      std::string chunk;
      while (chunk.size() < size) chunk += pattern;
      chunk.resize(size);
      const Stored stored = expect_round_trip(chunk, {4, true});
      EXPECT_EQ(stored.codec, Codec::kConstant);
      EXPECT_EQ(stored.bytes, pattern);
      chunk.back() ^= 1;
      EXPECT_NE(expect_round_trip(chunk, {4, true}).codec, Codec::kConstant);
    }
  }
  EXPECT_EQ(encode(encoder_, std::string(262144, '\0'), {8, false}).bytes, std::string(1, '\0'));
}

TEST_F(ChunkCodec, FindsWhatRepeatsInTextAndTables) {
  std::string text;
  std::vector<std::int64_t> positions;
  for (std::int64_t i = 0; text.size() < 65536; ++i) {
    text += "{\"step\": " + std::to_string(i) + ", \"loss\": 0." + std::to_string(i * i) + "}\n";
    positions.push_back(i);
  }
  EXPECT_LT(expect_round_trip(text, {1, false}).bytes.size(), text.size() / 3);
  EXPECT_LT(expect_round_trip(bytes_of(positions), {8, false}).bytes.size(),
            positions.size() * sizeof(std::int64_t) / 20);
}

TEST_F(ChunkCodec, NeedsNoMoreMemoryOnceItHasSeenAChunk) {
  test::Random random(4);
  const std::string chunk = bytes_of(weights(random, 65536));
  const Stored stored = expect_round_trip(chunk, {4, true});
  std::vector<std::byte> destination(chunk.size());
  const std::uint64_t before = test::allocated_bytes();
  encoder_.encode(test::as_bytes(chunk), {4, true});
  EXPECT_TRUE(decoder_.decode(stored.codec, test::as_bytes(stored.bytes), destination).has_value());
  EXPECT_EQ(test::allocated_bytes(), before);
}

// Goal: a delta of anything from anything comes back, and is never larger than the chunk. Method:
// every small size and those around 4 KiB, with few, many and no bits changed.
TEST_F(ChunkCodec, BringsBackDeltasOfEverySize) {
  for (const std::uint64_t seed : test::seeds(3)) {
    SCOPED_TRACE(test::trace(seed));
    test::Random random(seed);
    std::vector<std::size_t> sizes = {4095, 4096, 4097, 65537};
    for (std::size_t size = 1; size <= 100; ++size) sizes.push_back(size);
    for (const std::size_t size : sizes) {
      const std::string base = random.bytes(size);
      for (const std::size_t changes : {std::size_t{0}, std::size_t{1}, size / 10, 10 * size}) {
        std::string chunk = base;
        for (std::size_t i = 0; i < changes; ++i) {
          chunk[random.below(size)] ^= static_cast<char>(random.bits());
        }
        const ElementLayout layout = random.one_of(kLayouts);
        const EncodedChunk encoded =
            encoder_.encode_delta(test::as_bytes(chunk), test::as_bytes(base), layout);
        if (encoded.codec == Codec::kRaw) {
          EXPECT_EQ(test::as_string(encoded.bytes), chunk);
          continue;
        }
        ASSERT_EQ(encoded.codec, Codec::kDelta);
        EXPECT_LT(encoded.bytes.size(), size);
        std::vector<std::byte> decoded(size);
        const auto result = decoder_.decode_delta(encoded.bytes, test::as_bytes(base), decoded);
        ASSERT_TRUE(result.has_value()) << result.error().message;
        EXPECT_TRUE(test::as_string(decoded) == chunk) << size << " bytes, " << changes;
      }
    }
  }
}

TEST_F(ChunkCodec, MakesWeightsThatHardlyMovedMuchSmaller) {
  test::Random random(1);
  std::vector<std::uint16_t> numbers;
  for (const float number : weights(random, 100'000)) {
    numbers.push_back(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(number) >> 16));
  }
  const std::string base = bytes_of(numbers);
  for (std::uint16_t& number : numbers)
    number = static_cast<std::uint16_t>(number + random.one_in(10));
  const std::string moved = bytes_of(numbers);
  const auto encoded =
      encoder_.encode_delta(test::as_bytes(moved), test::as_bytes(base), {2, true});
  EXPECT_EQ(encoded.codec, Codec::kDelta);
  EXPECT_LT(encoded.bytes.size(), moved.size() / 4);
}

TEST(ElementLayoutOf, SplitsEveryDTypeIntoWhatItIsMadeOf) {
  const auto expect = [](std::initializer_list<DType> dtypes, ElementLayout layout) {
    for (const DType dtype : dtypes) {
      EXPECT_EQ(element_layout(dtype), layout) << to_string(dtype);
    }
  };
  expect({DType::kFloat32, DType::kComplex64}, {4, true});
  expect({DType::kFloat64, DType::kComplex128}, {8, true});
  expect({DType::kFloat16, DType::kBfloat16}, {2, true});
  expect({DType::kInt16, DType::kUint16}, {2, false});
  expect({DType::kInt32, DType::kUint32}, {4, false});
  expect({DType::kInt64, DType::kUint64}, {8, false});
  expect({DType::kBool, DType::kInt2, DType::kUint4, DType::kInt8, DType::kFloat8E5m2,
          DType::kFloat4E2m1fn},
         {1, false});
  // Whatever a dtype is, the encoder takes its layout.
  ChunkEncoder encoder;
  for (int number = 0; number < 256; ++number) {
    const auto dtype = dtype_from_number(static_cast<std::uint8_t>(number));
    if (dtype) encode(encoder, std::string(1000, 'x') + "y", element_layout(*dtype));
  }
}

// One of each codec, and of planes one of each kind of plane.
std::vector<std::pair<Stored, std::string>> samples() {
  ChunkEncoder encoder;
  std::vector<std::pair<Stored, std::string>> all;
  const auto add = [&](const std::string& chunk, ElementLayout layout, Codec codec) {
    Stored stored = encode(encoder, chunk, layout);
    EXPECT_EQ(stored.codec, codec);
    all.emplace_back(std::move(stored), chunk);
  };
  std::string few_values;
  for (int i = 0; i < 500; ++i) few_values += "aabac"[i * i % 5];
  add("not to be shortened", {4, true}, Codec::kRaw);
  add(std::string(100, '\0'), {4, true}, Codec::kConstant);
  add(test::sample_constant_chunk(), {4, true}, Codec::kConstant);
  add(test::sample_float_chunk(), {4, true}, Codec::kPlanes);
  add(test::sample_float_chunk(), {2, false}, Codec::kPlanes);
  add(test::sample_float_chunk(), {8, true}, Codec::kPlanes);
  add(few_values + 'd', {1, false}, Codec::kPlanes);
  return all;
}

TEST(HostileChunk, CutOffOrContinuedIsCorrupt) {
  ChunkDecoder decoder;
  for (const auto& [stored, chunk] : samples()) {
    ASSERT_EQ(decode(decoder, stored, chunk.size()), chunk);
    for (std::size_t size = 0; size < stored.bytes.size(); ++size) {
      const Stored cut = {stored.codec, stored.bytes.substr(0, size)};
      const auto decoded = decode(decoder, cut, chunk.size());
      // A shorter pattern is a pattern too: that is for the chunk's hash to find.
      if (stored.codec == Codec::kConstant && std::has_single_bit(size)) continue;
      ASSERT_FALSE(decoded.has_value()) << size << " of " << stored.bytes.size();
      EXPECT_EQ(decoded.error().code, ErrorCode::kCorrupt);
    }
    if (stored.codec == Codec::kConstant) continue;
    const auto continued = decode(decoder, {stored.codec, stored.bytes + 'x'}, chunk.size());
    ASSERT_FALSE(continued.has_value());
    EXPECT_EQ(continued.error().code, ErrorCode::kCorrupt);
  }
}

TEST(HostileChunk, OfAnotherSizeIsCorrupt) {
  ChunkDecoder decoder;
  for (const auto& [stored, chunk] : samples()) {
    if (stored.codec == Codec::kConstant) continue;
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, chunk.size() / 2,
                                   chunk.size() - 1, chunk.size() + 1, 2 * chunk.size()}) {
      const auto decoded = decode(decoder, stored, size);
      ASSERT_FALSE(decoded.has_value()) << size;
      EXPECT_EQ(decoded.error().code, ErrorCode::kCorrupt);
    }
  }
}

TEST(HostileChunk, WithFlippedBitsIsReadWithinItsBounds) {
  ChunkDecoder decoder;
  std::size_t refused = 0;
  for (const auto& [stored, chunk] : samples()) {
    for (std::size_t bit = 0; bit < 8 * stored.bytes.size(); ++bit) {
      Stored flipped = stored;
      flipped.bytes[bit / 8] ^= static_cast<char>(1 << bit % 8);
      refused += !decode(decoder, flipped, chunk.size()).has_value();
    }
  }
  EXPECT_GT(refused, 500U);
}

TEST(HostileChunk, OfRandomBytesIsReadWithinItsBounds) {
  ChunkDecoder decoder;
  const auto all = samples();
  for (const std::uint64_t seed : test::seeds(5000)) {
    SCOPED_TRACE(test::trace(seed));
    test::Random random(seed);
    const auto& [stored, chunk] = random.one_of(all);
    Stored hostile = stored;
    if (random.one_in(3)) {
      hostile.codec = static_cast<Codec>(random.below(4));
      hostile.bytes = random.bytes(random.below(80));
      // Most would end at the element's size.
      if (!hostile.bytes.empty()) hostile.bytes[0] = static_cast<char>(1 << random.below(4));
    } else {
      hostile.bytes = random.mutated(hostile.bytes);
    }
    const std::size_t size_bytes = random.one_in(2) ? chunk.size() : random.below(3000);
    const std::uint64_t before = test::allocated_bytes();
    const auto decoded = decode(decoder, hostile, size_bytes);
    EXPECT_LT(test::allocated_bytes() - before, 4 * size_bytes + 2 * hostile.bytes.size() + 4096);
    if (decoded) {
      EXPECT_EQ(decoded->size(), size_bytes);
    } else {
      EXPECT_FALSE(decoded.error().message.empty());
    }
  }
}

std::string frame_of(const std::string& bytes) {
  std::string frame(ZSTD_compressBound(bytes.size()), '\0');
  frame.resize(ZSTD_compress(frame.data(), frame.size(), bytes.data(), bytes.size(), 1));
  return frame;
}

std::string one_plane(const std::string& frame) {
  const auto entry = static_cast<std::uint32_t>(frame.size()) | 0x80000000U;
  std::string bytes("\x01\0", 2);
  for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(entry >> shift);
  return bytes + frame;
}

TEST(HostileChunk, DeltasAreReadWithinTheirBounds) {
  const std::string base = test::sample_float_chunk();
  ChunkEncoder encoder;
  ChunkDecoder decoder;
  const std::string stored = test::as_string(
      encoder
          .encode_delta(test::as_bytes(test::sample_moved_chunk()), test::as_bytes(base), {4, true})
          .bytes);
  const auto decode_delta = [&](const std::string& bytes) {
    std::vector<std::byte> destination(base.size());
    const std::vector<std::byte> copy(test::as_bytes(bytes).begin(), test::as_bytes(bytes).end());
    return decoder.decode_delta(copy, test::as_bytes(base), destination);
  };
  ASSERT_TRUE(decode_delta(stored));
  for (std::size_t size = 0; size < stored.size(); ++size) {
    const auto cut = decode_delta(stored.substr(0, size));
    ASSERT_FALSE(cut.has_value()) << size;
    EXPECT_EQ(cut.error().code, ErrorCode::kCorrupt);
  }
  EXPECT_FALSE(decode_delta(stored + 'x'));
  for (int codec = 0; codec < 256; ++codec) {
    std::string other = stored;
    other[0] = static_cast<char>(codec);
    const bool is_its_own = codec == static_cast<int>(Codec::kPlanes);
    if (is_its_own) continue;
    const auto result = decode_delta(other);
    ASSERT_FALSE(result.has_value()) << codec;
    EXPECT_EQ(result.error().code, ErrorCode::kCorrupt) << codec;
  }
  for (std::size_t bit = 0; bit < 8 * stored.size(); ++bit) {
    std::string flipped = stored;
    flipped[bit / 8] ^= static_cast<char>(1 << bit % 8);
    (void)decode_delta(flipped);
  }
  // Without a base it is not to be had.
  std::vector<std::byte> destination(base.size());
  const auto alone = decoder.decode(Codec::kDelta, test::as_bytes(stored), destination);
  ASSERT_FALSE(alone.has_value());
  EXPECT_EQ(alone.error().code, ErrorCode::kInvalidArgument);
}

TEST(HostileChunk, MustHoldOneFrameOfZstd) {
  const std::string chunk(1000, 'x');
  const std::string skippable = test::from_hex("502a4d18 04000000 00000000");
  ChunkDecoder decoder;
  EXPECT_EQ(decode(decoder, {Codec::kPlanes, one_plane(frame_of(chunk))}, 1000), chunk);
  const std::string hostile[] = {
      "",
      "x",
      skippable,
      skippable + frame_of(chunk),
      frame_of(chunk) + skippable,
      frame_of(chunk.substr(1)),
      frame_of(chunk + 'x'),
      frame_of(chunk.substr(500)) + frame_of(chunk.substr(500)),
      frame_of(std::string(std::size_t{64} << 20, 'x')),       // A few kilobytes.
      test::from_hex("27b52ffd") + frame_of(chunk).substr(4),  // zstd 0.7.
      test::from_hex("1eb52ffd") + frame_of(chunk).substr(4),  // zstd 0.1.
  };
  for (const std::string& frames : hostile) {
    const auto decoded = decode(decoder, {Codec::kPlanes, one_plane(frames)}, 1000);
    ASSERT_FALSE(decoded.has_value()) << test::to_hex(frames.substr(0, 40));
    EXPECT_EQ(decoded.error().code, ErrorCode::kCorrupt);
  }
}

TEST(HostileChunk, OfImpossibleHeadersIsCorrupt) {
  ChunkDecoder decoder;
  // Four bytes as two elements of two, split and stored as they are, though no writer would.
  const std::string honest = test::from_hex("02 01 02000000 02000000 0102 0304");
  ASSERT_TRUE(decode(decoder, {Codec::kPlanes, honest}, 4).has_value());
  struct Attack {
    const char* what;
    const char* bytes;
  };
  const Attack attacks[] = {
      {"element size 0", "00 01 02000000 02000000 0102 0304"},
      {"element size 3", "03 00 01000000 01000000 01000000 0102 0304"},
      {"element size 16", "10 01 02000000 02000000 0102 0304"},
      {"element size 255", "ff 01 02000000 02000000 0102 0304"},
      {"an unknown flag", "02 02 02000000 02000000 0102 0304"},
      {"all flags", "02 ff 02000000 02000000 0102 0304"},
      {"rotated bytes", "01 01 04000000 01020304"},
      {"a plane too small", "02 01 02000000 00000000 0102"},
      {"a plane too large", "02 01 02000000 03000000 0102 030405"},
      {"a plane beyond the end", "02 01 02000000 ffffff7f 0102 0304"},
      {"a frame beyond the end", "02 01 02000000 ffffffff 0102 0304"},
      {"an empty frame", "02 01 02000000 00000080 0102"},
      {"a byte behind the planes", "02 01 02000000 02000000 0102 0304 05"},
  };
  for (const Attack& attack : attacks) {
    const auto decoded = decode(decoder, {Codec::kPlanes, test::from_hex(attack.bytes)}, 4);
    ASSERT_FALSE(decoded.has_value()) << attack.what;
    EXPECT_EQ(decoded.error().code, ErrorCode::kCorrupt) << attack.what;
  }
  for (const char* const pattern : {"", "000102", "0001020304", "00010203"}) {
    const auto decoded = decode(decoder, {Codec::kConstant, test::from_hex(pattern)}, 4);
    ASSERT_FALSE(decoded.has_value()) << pattern;
    EXPECT_EQ(decoded.error().code, ErrorCode::kCorrupt);
  }
  const auto unknown = decode(decoder, {static_cast<Codec>(4), honest}, 4);
  ASSERT_FALSE(unknown.has_value());
  EXPECT_EQ(unknown.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace stepstone
