// Chunks that are stored in fewer bytes than they have.
#include <gtest/gtest.h>

#include <random>

#include "tests/support/engine_steps.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using stepstone::testing::content;
using stepstone::testing::flat_structure;
using stepstone::testing::leaf_path;
using stepstone::testing::Leaves;
using stepstone::testing::OwnedSource;
using stepstone::testing::read_leaves;

// Float32 numbers as a trained layer has them.
std::vector<std::byte> weights(unsigned seed, std::size_t count) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution(0.0F, 0.02F);
  std::vector<float> values(count);
  for (float& value : values) value = distribution(random);
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

class CompressionTest : public ::testing::Test {
 protected:
  void SetUp() override { open(); }

  void open() {
    store_.reset();
    auto store = Store::open(directory_.path() / "run", {.create_if_missing = true});
    ASSERT_TRUE(store) << store.error().message;
    store_ = *std::move(store);
  }

  SaveCounters save(std::uint64_t step, const Leaves& leaves, const SaveOptions& options,
                    std::optional<Compression> of_leaf_0 = {}) {
    const auto writer = *store_->begin_save(step, options);
    EXPECT_TRUE(writer->put_item("state", "standard", flat_structure(leaves.size())));
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      LeafInfo info{.kind = LeafKind::kArray,
                    .dtype = DType::kFloat32,
                    .shape = {leaves[i].size() / 4},
                    .size_bytes = leaves[i].size()};
      if (i == 0) info.compression = of_leaf_0;
      const auto put = writer->put_leaf("state", leaf_path(i), std::move(info),
                                        std::make_shared<OwnedSource>(leaves[i]));
      EXPECT_TRUE(put) << put.error().message;
    }
    const auto record = writer->commit();
    EXPECT_TRUE(record) << record.error().message;
    return writer->counters();
  }

  void expect_holds(std::uint64_t step, const Leaves& leaves) const {
    const Result<Leaves> all = read_leaves(*store_, step);
    ASSERT_TRUE(all) << all.error().message;
    EXPECT_TRUE(*all == leaves);
    // A slice across the border of two chunks.
    const auto reader = *store_->read_step(step);
    const StoredLeaf first = *reader->read_leaf("state", leaf_path(0));
    std::vector<std::byte> slice(1000);
    const std::uint64_t offset = (256U << 10) - 500;
    const Result<void> sliced = reader->read_bytes("state", first, offset, slice);
    EXPECT_TRUE(sliced) << sliced.error().message;
    EXPECT_TRUE(std::equal(slice.begin(), slice.end(),
                           leaves[0].begin() + static_cast<std::ptrdiff_t>(offset)));
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
};

TEST_F(CompressionTest, WeightsBecomeSmallerAndComeBackExactly) {
  const Leaves leaves = {weights(1, 1'000'000), weights(2, 300'001), content(1, 0, 0, 1 << 20)};
  const SaveCounters none = save(1, leaves, {.share = false, .compression = Compression::kNone});
  EXPECT_EQ(none.encoded_bytes, 0U);
  EXPECT_GE(none.stored_bytes, none.size_bytes);
  const SaveCounters always =
      save(2, leaves, {.share = false, .compression = Compression::kAlways});
  EXPECT_EQ(always.encoded_bytes, leaves[0].size() + leaves[1].size());
  EXPECT_LT(always.stored_bytes, leaves[2].size() + (leaves[0].size() + leaves[1].size()) * 9 / 10);
  open();
  expect_holds(1, leaves);
  expect_holds(2, leaves);
  EXPECT_TRUE(store_->verify()->damages.empty());
}

TEST_F(CompressionTest, ZerosTakeNoSpace) {
  const Leaves leaves = {std::vector<std::byte>(4 << 20),
                         std::vector<std::byte>(3 << 20, std::byte{0x3F})};
  const SaveCounters counters =
      save(1, leaves, {.share = false, .compression = Compression::kAlways});
  EXPECT_LT(counters.stored_bytes, 32U << 10);
  expect_holds(1, leaves);
}

TEST_F(CompressionTest, ALeafMayBeAnException) {
  const Leaves leaves = {weights(1, 500'000), weights(2, 500'000)};
  const SaveCounters some =
      save(1, leaves, {.compression = Compression::kAlways}, Compression::kNone);
  EXPECT_EQ(some.encoded_bytes, leaves[1].size());
  expect_holds(1, leaves);
}

// A chunk is referred to as it was stored, whatever the later save would have done with it.
TEST_F(CompressionTest, EncodedChunksAreShared) {
  Leaves leaves = {weights(1, 500'000), weights(2, 500'000)};
  leaves.push_back(leaves[1]);
  save(1, leaves, {.compression = Compression::kAlways});
  leaves[0][0] ^= std::byte{1};
  const SaveCounters second = save(2, leaves, {.compression = Compression::kNone});
  EXPECT_EQ(second.encoded_bytes, 0U);
  EXPECT_EQ(second.shared_bytes, 3U * leaves[1].size() - (256U << 10));
  leaves[1][0] ^= std::byte{1};
  save(3, leaves, {.compression = Compression::kAlways});
  open();
  Leaves before = leaves;
  before[1][0] ^= std::byte{1};
  expect_holds(2, before);
  expect_holds(3, leaves);
  EXPECT_TRUE(store_->verify()->damages.empty());
}

}  // namespace
}  // namespace stepstone
