#include "format/hash.h"

#include <gtest/gtest.h>

#include "support.h"

namespace stepstone {
namespace {

// Byte i is (131 i + 7) mod 256.
std::string pattern(std::size_t size) {
  std::string bytes;
  for (std::size_t i = 0; i < size; ++i) bytes += static_cast<char>((i * 131 + 7) % 256);
  return bytes;
}

// The digests come from another program: xxh3_128_hexdigest of Python's xxhash 4.1.0. The sizes are
// those at which the algorithm changes its method.
TEST(Hash, IsXxh3Of128BitsWithSeedZero) {
  struct Vector {
    std::size_t size;
    const char* digest;
  };
  const Vector vectors[] = {
      {0, "99aa06d3014798d86001c324468d497f"},     {1, "495b62073ef70ca44c5cca45d0f4811f"},
      {3, "390cdc5b4a895dd76e3e2670e61106ac"},     {4, "aa6e2f274640a3f43d668af6f2a44d77"},
      {8, "6a86a3bda6af4e3d61ddbe7f31a6100d"},     {9, "664c7ca18afd62558c7b67fd458a936b"},
      {16, "7f9a218b0425449ae2ce54a7c19c730d"},    {17, "66fc23f6439dbd778d96ef110fcdebb4"},
      {128, "aec730751478556cff361dec1385710a"},   {129, "98cd36ccbb5579264545b3a09738e31a"},
      {240, "5293e17bf553903d3f2c53e72293711f"},   {241, "b53840fe3fedf161956cae592c67279e"},
      {512, "7509d702d4519576a0e9790eb93990d7"},   {1024, "f69630613f24324d70bd377d9574f4bb"},
      {1025, "621af7b8277effa466c4487c41e127a7"},  {4096, "3e0ff38fa88a55ea9ddd66c14af0daff"},
      {65537, "f3e72e61a830e4dd44695d3cd219e355"}, {262144, "3a1cc2c92c4294f3c5df722ef1606a18"},
  };
  for (const Vector& vector : vectors) {
    EXPECT_EQ(to_string(hash128(test::as_bytes(pattern(vector.size)))), vector.digest)
        << vector.size << " bytes";
  }
  EXPECT_EQ(to_string(hash128(test::as_bytes("stepstone"))), "5f629cc44f2826035d7666ed693b5bd4");
}

TEST(Hash, DoesNotDependOnTheAddress) {
  const std::string bytes = pattern(3000);
  const Hash128 expected = hash128(test::as_bytes(bytes));
  for (std::size_t shift = 1; shift < 64; ++shift) {
    const std::string shifted = std::string(shift, 'x') + bytes;
    EXPECT_EQ(hash128(test::as_bytes(shifted).subspan(shift)), expected) << shift;
  }
}

TEST(Hash, TextShowsTheHighHalfFirst) {
  EXPECT_EQ(to_string(Hash128{.low = 0x0123456789abcdef, .high = 0xf}),
            "000000000000000f0123456789abcdef");
}

TEST(Hash, SumsDoNotDependOnTheOrderAndCanBeUndone) {
  for (const std::uint64_t seed : test::seeds(50)) {
    SCOPED_TRACE(test::trace(seed));
    test::Random random(seed);
    const Hash128 a{random.bits(), random.bits()};
    const Hash128 b{random.bits(), ~random.below(3)};
    const Hash128 c{~std::uint64_t{0}, random.bits()};
    EXPECT_EQ(a + b + c, c + a + b);
    EXPECT_EQ(a + b + c - b, a + c);
    EXPECT_EQ(a + b - a - b, Hash128{});
  }
  // The halves do not carry into one another.
  EXPECT_EQ((Hash128{~std::uint64_t{0}, 5} + Hash128{1, 0}), (Hash128{0, 5}));
}

}  // namespace
}  // namespace stepstone
