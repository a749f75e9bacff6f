#include "engine/compression_policy.h"

#include <gtest/gtest.h>

namespace stepstone {
namespace {

constexpr std::uint64_t kGigabyte = 1'000'000'000;
// Halves the bytes at 1.5 GB/s.
constexpr EncodingSample kGood = {.stored_fraction = 0.5, .encode_bytes_per_second = 1.5e9};

TEST(CompressionPolicy, BelievesTheSampleWhileNothingWasMeasured) {
  EXPECT_TRUE(CompressionPolicy().should_encode(kGood, 2));
  // One such thread is slower than the disk is taken to be.
  EXPECT_FALSE(CompressionPolicy().should_encode(kGood, 1));
  EXPECT_FALSE(CompressionPolicy().should_encode(
      {.stored_fraction = 0.99, .encode_bytes_per_second = 9e9}, 2));
}

TEST(CompressionPolicy, ComparesTheSampleWithTheDisk) {
  CompressionPolicy fast;
  fast.note(/*was_encoded=*/false, 7 * kGigabyte, 1);
  EXPECT_FALSE(fast.should_encode(kGood, 2));
  CompressionPolicy slow;
  slow.note(/*was_encoded=*/false, kGigabyte / 5, 1);
  EXPECT_TRUE(slow.should_encode(kGood, 1));
}

TEST(CompressionPolicy, BelievesMeasurementsMoreThanTheSample) {
  CompressionPolicy policy;
  policy.note(/*was_encoded=*/true, kGigabyte, 1);
  EXPECT_FALSE(policy.should_encode(kGood, 2));  // It was slower than the disk is taken to be.
  policy.note(/*was_encoded=*/false, kGigabyte / 2, 1);
  EXPECT_TRUE(policy.should_encode(kGood, 2));
  for (int i = 0; i < 20; ++i) policy.note(/*was_encoded=*/false, 3 * kGigabyte, 1);
  EXPECT_FALSE(policy.should_encode(kGood, 2));
}

TEST(CompressionPolicy, LearnsNothingFromTinySaves) {
  CompressionPolicy policy;
  policy.note(/*was_encoded=*/true, 1000, 1);
  EXPECT_TRUE(policy.should_encode(kGood, 2));
}

TEST(CompressionPolicy, TriesTheOtherWayNowAndThen) {
  CompressionPolicy policy;
  policy.note(/*was_encoded=*/true, kGigabyte, 1);
  policy.note(/*was_encoded=*/false, 2 * kGigabyte, 1);
  int encoded = 0;
  for (int i = 0; i < 640; ++i) encoded += policy.should_encode(kGood, 2) ? 1 : 0;
  EXPECT_EQ(encoded, 10);
}

}  // namespace
}  // namespace stepstone
