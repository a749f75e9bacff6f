// Chunks that are stored as what they differ in from those of the step before.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "engine/step_reader.h"
#include "engine/store.h"
#include "tests/support/engine_steps.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using stepstone::testing::content;
using stepstone::testing::leaf_path;
using stepstone::testing::Leaves;
using stepstone::testing::put_leaves;
using stepstone::testing::read_leaves;

using ::testing::IsEmpty;

constexpr std::size_t kDeltaChunk = std::size_t{64} << 10;
constexpr std::size_t kDeltaLeafSize = 5 * kDeltaChunk + 100;

// Bfloat16 numbers as a trained layer has them.
std::vector<std::byte> drifting(unsigned seed, std::size_t size = kDeltaLeafSize) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution(0.0F, 0.02F);
  std::vector<std::uint16_t> values(size / 2);
  for (std::uint16_t& value : values) {
    value = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(distribution(random)) >> 16);
  }
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

// One weight in ten moves by a unit in the last place.
void train(std::vector<std::byte>& leaf, unsigned seed) {
  std::mt19937 random(seed);
  for (std::size_t i = 0; i < leaf.size(); i += 2) {
    if (random() % 10 == 0) leaf[i] = std::byte(std::to_integer<unsigned>(leaf[i]) + 1);
  }
}

class DeltaTest : public ::testing::Test {
 protected:
  void SetUp() override { open(); }

  void open() {
    store_.reset();
    auto store = Store::open(directory_.path() / "run", {.create_if_missing = true});
    ASSERT_TRUE(store) << store.error().message;
    store_ = *std::move(store);
  }

  SaveCounters save(std::uint64_t step, const Leaves& leaves,
                    Compression compression = Compression::kDelta,
                    const std::vector<std::uint64_t>& retire = {}, bool overwrite = false) {
    const auto writer =
        *store_->begin_save(step, {.overwrite = overwrite,
                                   .chunk_size_bytes = static_cast<std::uint32_t>(kDeltaChunk),
                                   .compression = compression});
    EXPECT_TRUE(put_leaves(*writer, leaves, DType::kBfloat16));
    const auto record = writer->commit(retire);
    EXPECT_TRUE(record) << record.error().message;
    return writer->counters();
  }
  void retire(std::uint64_t step) { ASSERT_TRUE(store_->retire({&step, 1})); }
  LeafRecord record_of(std::uint64_t step, std::size_t leaf) const {
    return (*store_->read_step(step))->read_leaf("state", leaf_path(leaf))->record;
  }
  SaveId save_of(std::uint64_t step) const { return store_->step_record(step)->save; }

  void expect_steps(const std::map<std::uint64_t, Leaves>& steps) const {
    for (const auto& [step, leaves] : steps) {
      const Result<Leaves> read = read_leaves(*store_, step);
      ASSERT_TRUE(read) << read.error().message;
      EXPECT_TRUE(*read == leaves) << "step " << step;
      // A slice across the border of two chunks, which is read another way.
      const auto reader = *store_->read_step(step);
      const StoredLeaf first = *reader->read_leaf("state", leaf_path(0));
      std::vector<std::byte> slice(1000);
      const Result<void> sliced = reader->read_bytes("state", first, 2 * kDeltaChunk - 500, slice);
      ASSERT_TRUE(sliced) << sliced.error().message;
      EXPECT_TRUE(
          std::equal(slice.begin(), slice.end(), leaves[0].begin() + 2 * kDeltaChunk - 500));
    }
    const VerifyReport report = *store_->verify();
    EXPECT_EQ(report.step_count, steps.size());
    EXPECT_THAT(report.damages, IsEmpty()) << report.damages.front().message;
  }
  StoreUsage usage() {
    store_->wait_for_collector();
    return *store_->usage();
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
};

TEST_F(DeltaTest, WeightsThatHardlyMoveTakeLittle) {
  std::map<std::uint64_t, Leaves> steps;
  // The last two leaves are together large enough to be read past RocksDB.
  Leaves leaves = {drifting(1), drifting(2), drifting(3, 20 * kDeltaChunk)};
  const SaveCounters first = save(1, leaves);
  steps[1] = leaves;
  EXPECT_TRUE(record_of(1, 0).bases.empty());
  for (std::uint64_t step = 2; step <= 4; ++step) {
    for (std::vector<std::byte>& leaf : leaves) train(leaf, static_cast<unsigned>(step));
    const SaveCounters counters = save(step, leaves);
    EXPECT_LT(counters.stored_bytes, first.stored_bytes * 2 / 3);
    EXPECT_EQ(counters.encoded_bytes, counters.size_bytes);
    steps[step] = leaves;
    const LeafRecord record = record_of(step, 0);
    ASSERT_EQ(record.bases.size(), record.chunk_count());
    // Never from what is a delta itself.
    for (const ChunkBase& base : record.bases) EXPECT_EQ(base.save, save_of(1));
    EXPECT_EQ(store_->step_record(step)->origin_saves, std::vector<SaveId>{save_of(1)});
  }
  expect_steps(steps);
  open();
  expect_steps(steps);
}

TEST_F(DeltaTest, IsAnOptionThatNeedsSharing) {
  Leaves leaves = {drifting(1)};
  save(1, leaves, Compression::kAlways);
  train(leaves[0], 1);
  save(2, leaves, Compression::kAlways);
  EXPECT_TRUE(record_of(2, 0).bases.empty());
  const auto writer = *store_->begin_save(
      3, {.chunk_size_bytes = kDeltaChunk, .share = false, .compression = Compression::kDelta});
  ASSERT_TRUE(put_leaves(*writer, leaves, DType::kBfloat16));
  ASSERT_TRUE(writer->commit());
  EXPECT_TRUE(record_of(3, 0).bases.empty());
  EXPECT_FALSE(record_of(3, 0).codecs.empty());
}

TEST_F(DeltaTest, WhatHasMovedTooFarIsEncodedByItself) {
  Leaves leaves = {drifting(1), drifting(2)};
  save(1, leaves);
  train(leaves[0], 1);
  leaves[1] = drifting(3);
  save(2, leaves);
  EXPECT_FALSE(record_of(2, 0).bases.empty());
  EXPECT_TRUE(record_of(2, 1).bases.empty());
  leaves[0] = drifting(4);
  save(3, leaves);
  EXPECT_TRUE(record_of(3, 0).bases.empty());
  EXPECT_TRUE(read_leaves(*store_, 3) == leaves);
}

TEST_F(DeltaTest, UnchangedDeltasAreShared) {
  std::map<std::uint64_t, Leaves> steps;
  Leaves leaves = {drifting(1), drifting(2)};
  save(1, leaves);
  steps[1] = leaves;
  for (std::vector<std::byte>& leaf : leaves) train(leaf, 1);
  save(2, leaves);
  steps[2] = leaves;
  leaves[0][0] ^= std::byte{1};
  // Whatever the later save would have done.
  const SaveCounters third = save(3, leaves, Compression::kNone);
  EXPECT_EQ(third.shared_bytes, 2 * kDeltaLeafSize - kDeltaChunk);
  steps[3] = leaves;
  leaves[1][0] ^= std::byte{1};
  EXPECT_EQ(save(4, leaves).shared_bytes, 2 * kDeltaLeafSize - kDeltaChunk);
  steps[4] = leaves;
  EXPECT_EQ(store_->step_record(3)->origin_saves, (std::vector<SaveId>{save_of(1), save_of(2)}));
  open();
  expect_steps(steps);
}

TEST_F(DeltaTest, TiedLeavesShareDeltas) {
  std::map<std::uint64_t, Leaves> steps;
  Leaves leaves = {drifting(1), drifting(1), drifting(2)};
  save(1, leaves);
  steps[1] = leaves;
  train(leaves[0], 1);
  leaves[1] = leaves[0];
  leaves[2] = leaves[0];
  const SaveCounters second = save(2, leaves);
  EXPECT_EQ(second.shared_bytes, 2 * kDeltaLeafSize);
  steps[2] = leaves;
  train(leaves[1], 2);
  save(3, leaves);
  steps[3] = leaves;
  leaves[0] = leaves[1];
  save(4, leaves, Compression::kDelta, {1});
  steps[4] = leaves;
  steps.erase(1);
  expect_steps(steps);
  open();
  store_->wait_for_collector();
  expect_steps(steps);
}

TEST_F(DeltaTest, ABaseStaysForAsLongAsItIsNeeded) {
  std::map<std::uint64_t, Leaves> steps;
  Leaves leaves = {drifting(1), drifting(2), drifting(3), drifting(4)};
  const SaveCounters first = save(1, leaves);
  leaves[1] = drifting(5);
  leaves[2] = drifting(6);
  leaves[3] = drifting(7);
  train(leaves[0], 1);
  save(2, leaves);
  steps[2] = leaves;
  retire(1);
  const StoreUsage hidden = usage();
  EXPECT_GT(hidden.hidden_bytes, kDeltaLeafSize / 2);
  EXPECT_LT(hidden.hidden_bytes, first.stored_bytes / 2);  // No more than the base.
  expect_steps(steps);
  open();
  store_->wait_for_collector();
  expect_steps(steps);
  train(leaves[0], 2);
  save(3, leaves, Compression::kDelta, {2});
  steps = {{3, leaves}};
  EXPECT_GT(usage().hidden_bytes, kDeltaLeafSize / 2);
  expect_steps(steps);
  leaves = {drifting(10), drifting(11), drifting(12), drifting(13)};
  save(4, leaves, Compression::kDelta, {3});
  EXPECT_EQ(usage().hidden_bytes, 0U);
  expect_steps({{4, leaves}});
}

TEST_F(DeltaTest, ABaseMayBeOverwritten) {
  std::map<std::uint64_t, Leaves> steps;
  Leaves leaves = {drifting(1)};
  save(1, leaves);
  train(leaves[0], 1);
  save(2, leaves);
  steps[2] = leaves;
  steps[1] = {drifting(9)};
  save(1, steps[1], Compression::kDelta, {}, /*overwrite=*/true);
  store_->wait_for_collector();
  expect_steps(steps);
  // The other step differs from what was there before.
  train(steps[2][0], 2);
  save(2, steps[2], Compression::kDelta, {}, /*overwrite=*/true);
  EXPECT_EQ(usage().hidden_bytes, 0U);
  open();
  expect_steps(steps);
}

// Steps whose bases are encoded afterwards differ from the encoded ones then.
TEST_F(DeltaTest, RecompressingKeepsDeltasAndMovesTheirBases) {
  std::map<std::uint64_t, Leaves> steps;
  Leaves leaves = {drifting(1), drifting(2)};
  save(1, leaves, Compression::kNone);
  steps[1] = leaves;
  for (std::uint64_t step = 2; step <= 3; ++step) {
    for (std::vector<std::byte>& leaf : leaves) train(leaf, static_cast<unsigned>(step));
    save(step, leaves);
    steps[step] = leaves;
  }
  const StoreUsage before = usage();
  for (const std::uint64_t step : {1U, 2U, 3U}) {
    const auto counters = store_->recompress(step);
    ASSERT_TRUE(counters) << counters.error().message;
    EXPECT_TRUE(counters->was_replaced) << step;
  }
  EXPECT_EQ(record_of(3, 0).bases.front().save, save_of(1));
  const StoreUsage after = usage();
  EXPECT_LT(after.stored_bytes, before.stored_bytes * 9 / 10);
  expect_steps(steps);
  open();
  expect_steps(steps);
  retire(1);
  store_->wait_for_collector();
  steps.erase(1);
  expect_steps(steps);
}

TEST_F(DeltaTest, DamageToABaseIsReportedForTheLeavesThatNeedIt) {
  std::map<std::uint64_t, Leaves> steps;
  Leaves leaves = {drifting(1), drifting(2)};
  save(1, leaves);
  const auto tables = [&] {
    std::vector<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.path() / "run")) {
      if (entry.path().extension() == ".sst") paths.push_back(entry.path());
    }
    return paths;
  };
  const auto of_step_1 = tables();
  train(leaves[0], 1);
  leaves[1] = drifting(3);
  save(2, leaves);
  store_.reset();
  for (const std::filesystem::path& path : of_step_1) {
    if (std::filesystem::file_size(path) < kDeltaLeafSize) continue;
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(10'000);  // In the first leaf's first chunk.
    file.write("damaged", 7);
  }
  open();
  const VerifyReport report = *store_->verify();
  ASSERT_EQ(report.damages.size(), 2U);
  EXPECT_EQ(report.damages[1].step, 2U);
  EXPECT_EQ(report.damages[1].leaf, "0");
  EXPECT_NE(report.damages[1].message.find("differs from one saved with step 1"), std::string::npos)
      << report.damages[1].message;
  const auto reader = *store_->read_step(2);
  std::vector<std::byte> bytes(kDeltaLeafSize);
  const auto read =
      reader->read_bytes("state", *reader->read_leaf("state", leaf_path(0)), 0, bytes);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, ErrorCode::kCorrupt);
  EXPECT_FALSE(read_leaves(*store_, 2));
  ASSERT_TRUE(reader->read_bytes("state", *reader->read_leaf("state", leaf_path(1)), 0, bytes));
  EXPECT_TRUE(bytes == leaves[1]);
  // A later save does not fail over it; what differs from the damaged chunk stands by itself.
  for (std::vector<std::byte>& leaf : leaves) train(leaf, 5);
  save(3, leaves);
  EXPECT_EQ(read_leaves(*store_, 3), leaves);
  EXPECT_EQ(record_of(3, 0).base_of(0), nullptr);
}

}  // namespace
}  // namespace stepstone
