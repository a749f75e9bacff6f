#include "engine/collector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <numeric>

#include "engine/step_reader.h"
#include "engine/store.h"
#include "engine/store_impl.h"
#include "tests/support/engine_steps.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using stepstone::testing::content;
using stepstone::testing::flat_structure;
using stepstone::testing::holds_arrays;
using stepstone::testing::leaf_path;
using stepstone::testing::OwnedSource;
using stepstone::testing::read_array;
using stepstone::testing::save_arrays;

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::uint64_t kCollectorMiB = std::uint64_t{1} << 20;

// About 192 KiB, as a step of a small model has.
const std::vector<std::size_t> kTiny(6, std::size_t{32} << 10);

class CollectorTest : public ::testing::Test {
 protected:
  CollectorTest() { reopen(); }

  void reopen() {
    if (store_ != nullptr) {
      ASSERT_TRUE(store_->close());  // No error if it is closed already.
    }
    auto store = Store::open(path(), {.create_if_missing = true});
    ASSERT_TRUE(store) << store.error().message;
    store_ = *std::move(store);
  }
  // Closed, so that RocksDB has deleted what it deletes in the background.
  void close() {
    store_->wait_for_collector();
    ASSERT_TRUE(store_->close());
  }
  std::filesystem::path path() const { return directory_.path() / "run"; }

  struct Usage {
    std::uint64_t file_count = 0;
    std::uint64_t size_bytes = 0;
  };
  Usage usage(const std::string& extension = "") const {
    Usage usage;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path())) {
      if (!entry.is_regular_file()) continue;
      if (!extension.empty() && entry.path().extension() != extension) continue;
      ++usage.file_count;
      usage.size_bytes += entry.file_size();
    }
    return usage;
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
};

// Each step is dead before its memtable is full, so that flushes hardly write anything.
TEST_F(CollectorTest, TinyStepsTakeNoMoreRoomHoweverManyThereWere) {
  constexpr std::uint64_t kSteps = 300;  // 56 MiB.
  for (std::uint64_t step = 0; step < kSteps; ++step) {
    const std::vector<std::uint64_t> retire(step < 3 ? 0 : 1, step - 3);
    ASSERT_TRUE(save_arrays(*store_, step, 1, kTiny, {}, retire));
  }
  close();
  // The log may have 8 MiB and what one memtable takes, and as much may be dead in files.
  EXPECT_LT(usage().size_bytes, 24 * kCollectorMiB);
  EXPECT_LT(usage().file_count, 40);
  reopen();
  EXPECT_THAT(store_->steps(), ElementsAre(kSteps - 3, kSteps - 2, kSteps - 1));
  EXPECT_THAT(store_->verify()->damages, IsEmpty());
}

// These were alive when they reached a file; the collector has to come for them.
TEST_F(CollectorTest, TinyStepsThatDieInTheirFilesAreCompactedAway) {
  constexpr std::uint64_t kSteps = 150;  // 28 MiB.
  std::vector<std::uint64_t> old(kSteps);
  std::iota(old.begin(), old.end(), 0);
  for (const std::uint64_t step : old) ASSERT_TRUE(save_arrays(*store_, step, 1, kTiny));
  old.erase(old.begin() + 70);  // One in the midst stays.
  old.pop_back();
  reopen();  // Flushes.
  ASSERT_GT(usage(".sst").size_bytes, 27 * kCollectorMiB);
  ASSERT_TRUE(store_->retire(old));
  close();
  EXPECT_LT(usage(".sst").size_bytes, 9 * kCollectorMiB);
  reopen();
  EXPECT_THAT(store_->steps(), ElementsAre(70, kSteps - 1));
  EXPECT_TRUE(*holds_arrays(*store_, 70, 1, kTiny));
  EXPECT_TRUE(*holds_arrays(*store_, kSteps - 1, 1, kTiny));
}

TEST_F(CollectorTest, WhatDiedBeforeTheStoreWasClosedIsFoundByTheNextOpen) {
  constexpr std::uint64_t kSteps = 100;
  std::vector<std::uint64_t> old(kSteps);
  std::iota(old.begin(), old.end(), 0);
  for (const std::uint64_t step : old) ASSERT_TRUE(save_arrays(*store_, step, 1, kTiny));
  reopen();
  // A reader holds them until the collector has looked, in vain.
  std::vector<std::shared_ptr<const StepReader>> readers;
  for (const std::uint64_t step : old) readers.push_back(*store_->read_step(step));
  ASSERT_TRUE(store_->retire(old));
  store_->wait_for_collector();
  EXPECT_THAT(readers.front()->read_leaves("state")->size(), kTiny.size());
  readers.clear();
  reopen();
  close();
  EXPECT_LT(usage(".sst").size_bytes, 9 * kCollectorMiB);
}

// Steps of leaves that are changed now and then, and share what was not.
class SharedChunksTest : public CollectorTest {
 protected:
  static constexpr std::size_t kCollectedLeafSize = 1 << 20;
  static constexpr std::uint32_t kChunkSize = 64 << 10;

  // Leaf l of the step has the content of attempts[l].
  using Attempts = std::vector<std::uint64_t>;

  static std::vector<std::byte> bytes_of(std::size_t leaf, std::uint64_t attempt) {
    return content(1, attempt, leaf, kCollectedLeafSize);
  }
  Result<StepRecord> save(std::uint64_t step, const Attempts& attempts,
                          const std::vector<std::uint64_t>& retire = {}, bool overwrite = false) {
    const auto writer = STEPSTONE_TRY(
        store_->begin_save(step, {.overwrite = overwrite, .chunk_size_bytes = kChunkSize}));
    return put_and_commit(*writer, attempts, retire);
  }
  static Result<StepRecord> put_and_commit(StepWriter& writer, const Attempts& attempts,
                                           const std::vector<std::uint64_t>& retire = {}) {
    STEPSTONE_TRY(writer.put_item("state", "standard", flat_structure(attempts.size())));
    for (std::size_t leaf = 0; leaf < attempts.size(); ++leaf) {
      STEPSTONE_TRY(writer.put_leaf("state", leaf_path(leaf),
                                    {.kind = LeafKind::kArray,
                                     .dtype = DType::kUint8,
                                     .shape = {kCollectedLeafSize},
                                     .size_bytes = kCollectedLeafSize},
                                    std::make_shared<OwnedSource>(bytes_of(leaf, attempts[leaf]))));
    }
    return writer.commit(retire);
  }
  void expect_whole(std::uint64_t step, const Attempts& attempts) const {
    const auto reader = store_->read_step(step);
    ASSERT_TRUE(reader) << reader.error().message;
    for (std::size_t leaf = 0; leaf < attempts.size(); ++leaf) {
      const auto bytes = read_array(**reader, "state", leaf);
      ASSERT_TRUE(bytes) << bytes.error().message;
      EXPECT_TRUE(*bytes == bytes_of(leaf, attempts[leaf])) << step << ", leaf " << leaf;
    }
  }
  // The steps that there are, each with what it should have.
  void expect_steps(const std::map<std::uint64_t, Attempts>& steps) const {
    std::vector<std::uint64_t> numbers;
    for (const auto& [step, attempts] : steps) {
      numbers.push_back(step);
      expect_whole(step, attempts);
    }
    EXPECT_EQ(store_->steps(), numbers);
    const VerifyReport report = *store_->verify();
    EXPECT_THAT(report.damages, IsEmpty()) << report.damages.front().message;
  }
  // What the collector leaves. The store is closed and opened for that: RocksDB may put off
  // deleting a file while it is busy.
  std::uint64_t table_bytes() {
    close();
    const std::uint64_t size_bytes = usage(".sst").size_bytes;
    reopen();
    return size_bytes;
  }
};

TEST_F(SharedChunksTest, ARetiredStepKeepsExactlyWhatOthersStillReferTo) {
  const Attempts first(8, 0);
  Attempts second(8, 1);
  second[2] = 0;
  second[5] = 0;
  ASSERT_TRUE(save(1, first));
  ASSERT_TRUE(save(2, second));
  ASSERT_GT(table_bytes(), 14 * kCollectorMiB);
  const std::uint64_t step = 1;
  ASSERT_TRUE(store_->retire({&step, 1}));
  EXPECT_LT(table_bytes(), 8 * kCollectorMiB + kCollectorMiB / 2);
  EXPECT_GT(table_bytes(), 8 * kCollectorMiB);
  expect_steps({{2, second}});
  reopen();
  expect_steps({{2, second}});
  // The next one shares with what the hidden step holds; nothing of that is lost when step 2 goes.
  Attempts third(8, 2);
  third[5] = 0;
  ASSERT_TRUE(save(3, third, {2}));
  expect_steps({{3, third}});
  EXPECT_LT(table_bytes(), 8 * kCollectorMiB + kCollectorMiB / 2);
  reopen();
  expect_steps({{3, third}});
  const std::uint64_t last = 3;
  ASSERT_TRUE(store_->retire({&last, 1}));
  EXPECT_LT(table_bytes(), kCollectorMiB / 2);
}

// Does something once the save has begun to look at whole chunks.
class DisturbingSource final : public LeafSource {
 public:
  DisturbingSource(std::vector<std::byte> bytes, std::size_t chunk_size,
                   std::function<void()> disturb)
      : bytes_(std::move(bytes)), chunk_size_(chunk_size), disturb_(std::move(disturb)) {}

  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> /*scratch*/) const override {
    if (size == chunk_size_) std::call_once(is_disturbed_, disturb_);
    return std::span(bytes_).subspan(static_cast<std::size_t>(offset), size);
  }

 private:
  const std::vector<std::byte> bytes_;
  const std::size_t chunk_size_;
  const std::function<void()> disturb_;
  mutable std::once_flag is_disturbed_;
};

// The save refers to nothing yet when the step that it shares with goes.
TEST_F(SharedChunksTest, TheStepThatASaveSharesWithIsHeldUntilItRefersToIt) {
  const Attempts first(4, 0);
  ASSERT_TRUE(save(1, first));
  const auto retire_first = [this] {
    const std::uint64_t step = 1;
    EXPECT_TRUE(store_->retire({&step, 1}));
    store_->wait_for_collector();
  };
  const auto writer = *store_->begin_save(2, {.chunk_size_bytes = kChunkSize});
  ASSERT_TRUE(writer->put_item("state", "standard", flat_structure(first.size())));
  for (std::size_t leaf = 0; leaf < first.size(); ++leaf) {
    std::shared_ptr<const LeafSource> source;
    if (leaf == 0) {
      source = std::make_shared<DisturbingSource>(bytes_of(0, 0), kChunkSize, retire_first);
    } else {
      source = std::make_shared<OwnedSource>(bytes_of(leaf, 0));
    }
    ASSERT_TRUE(writer->put_leaf("state", leaf_path(leaf),
                                 {.kind = LeafKind::kArray,
                                  .dtype = DType::kUint8,
                                  .shape = {kCollectedLeafSize},
                                  .size_bytes = kCollectedLeafSize},
                                 source));
  }
  const auto record = writer->commit();
  ASSERT_TRUE(record) << record.error().message;
  EXPECT_EQ(record->origin_saves.size(), 1U);
  EXPECT_EQ(writer->counters().shared_bytes, 4 * kCollectedLeafSize);
  store_->wait_for_collector();
  expect_steps({{2, first}});
}

TEST_F(SharedChunksTest, CompressedChunksSurviveARewrite) {
  testing::Leaves leaves;
  for (std::size_t leaf = 0; leaf < 8; ++leaf) {
    leaves.push_back(bytes_of(leaf, 0));
    for (std::byte& byte : leaves.back()) byte &= std::byte{0x0F};
  }
  const SaveOptions options = {.chunk_size_bytes = kChunkSize, .compression = Compression::kAlways};
  const auto save_leaves = [&](std::uint64_t step) {
    const auto writer = *store_->begin_save(step, options);
    ASSERT_TRUE(testing::put_leaves(*writer, leaves));
    ASSERT_TRUE(writer->commit());
    EXPECT_NE(writer->counters().encoded_bytes, 0U);
  };
  save_leaves(1);
  const std::uint64_t before = table_bytes();
  EXPECT_LT(before, 5 * kCollectorMiB);
  // All but two of the leaves.
  for (std::size_t leaf = 2; leaf < 8; ++leaf) {
    for (std::byte& byte : leaves[leaf]) byte ^= std::byte{0x03};
  }
  save_leaves(2);
  const std::uint64_t step = 1;
  ASSERT_TRUE(store_->retire({&step, 1}));
  EXPECT_LT(table_bytes(), before + kCollectorMiB / 4);
  const auto read = testing::read_leaves(*store_, 2);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_TRUE(*read == leaves);
  EXPECT_THAT(store_->verify()->damages, IsEmpty());
}

TEST_F(SharedChunksTest, FilesThatAreMostlyAliveAreLeftAlone) {
  const Attempts first(8, 0);
  Attempts second(8, 0);
  second[1] = 1;
  ASSERT_TRUE(save(1, first));
  ASSERT_TRUE(save(2, second, {1}));
  EXPECT_GT(table_bytes(), 9 * kCollectorMiB);
  expect_steps({{2, second}});
  reopen();
  EXPECT_GT(table_bytes(), 9 * kCollectorMiB);
  expect_steps({{2, second}});
}

TEST_F(SharedChunksTest, OverwritingTheStepThatIsSharedWithKeepsWhatIsShared) {
  const Attempts first(4, 0);
  const Attempts second = {0, 1, 1, 1};
  const Attempts third = {0, 2, 2, 1};
  ASSERT_TRUE(save(1, first));
  ASSERT_TRUE(save(1, second, {}, /*overwrite=*/true));
  expect_steps({{1, second}});
  table_bytes();
  expect_steps({{1, second}});
  ASSERT_TRUE(save(1, third, {}, /*overwrite=*/true));
  table_bytes();
  reopen();
  expect_steps({{1, third}});
}

// The step that a save compares with may be retired while the save is written.
TEST_F(SharedChunksTest, AReaderHoldsWhatItsStepRefersTo) {
  const Attempts first(4, 0);
  const Attempts second = {0, 1, 1, 1};
  ASSERT_TRUE(save(1, first));
  ASSERT_TRUE(save(2, second));
  {
    const auto reader = *store_->read_step(2);
    const std::vector<std::uint64_t> both = {1, 2};
    ASSERT_TRUE(store_->retire(both));
    store_->wait_for_collector();
    EXPECT_TRUE(*read_array(*reader, "state", 0) == bytes_of(0, 0));
    EXPECT_TRUE(*read_array(*reader, "state", 1) == bytes_of(1, 1));
  }
  EXPECT_LT(table_bytes(), kCollectorMiB / 2);
}

TEST_F(SharedChunksTest, ALongHistoryTakesNoMoreThanWhatItsStepsHave) {
  std::map<std::uint64_t, Attempts> steps;
  Attempts attempts(6, 0);
  for (std::uint64_t step = 1; step <= 40; ++step) {
    attempts[step % 6] = step;
    attempts[(step * step) % 6] = step;
    std::vector<std::uint64_t> retire;
    if (steps.size() == 3) retire.push_back(steps.begin()->first);
    ASSERT_TRUE(save(step, attempts, retire));
    if (!retire.empty()) steps.erase(retire.front());
    steps[step] = attempts;
    if (step % 9 == 0) reopen();
    if (step % 5 == 0) expect_steps(steps);
  }
  // 10 leaves of 1 MiB are referred to at most, and half of a file may be dead.
  EXPECT_LT(table_bytes(), 20 * kCollectorMiB);
  reopen();
  expect_steps(steps);
}

// The files of a step that is gone are still read without a look-up, as long as they are not
// rewritten.
TEST_F(SharedChunksTest, ExtentsLeadIntoHollowSaves) {
  const Attempts attempts(4, 0);
  ASSERT_TRUE(save(1, attempts));
  ASSERT_TRUE(save(2, attempts, {1}));
  close();
  const auto store = std::make_shared<StoreImpl>(path(), OpenOptions());
  ASSERT_TRUE(store->open());
  const StepReaderImpl reader(store, *store->registry().lease(2));
  const StoredLeaf leaf = *reader.read_leaf("state", leaf_path(2));
  const ChunkPlace place =
      places_of(leaf.record, reader.record().save, "state", leaf.encoded_path, 3, 1)[0];
  EXPECT_EQ(place.save.step, 1);
  std::vector<std::byte> bytes(kChunkSize);
  EXPECT_TRUE(reader.read_chunk_at("state", leaf, 3, place, bytes));
}

TEST_F(SharedChunksTest, UsageTellsWhatIsOwnedSharedAndDead) {
  ASSERT_TRUE(save(1, {0, 0, 0, 0}));
  ASSERT_TRUE(save(2, {0, 0, 0, 1}));
  ASSERT_TRUE(save_arrays(*store_, 3, 1, {100}));
  StoreUsage usage = *store_->usage();
  ASSERT_EQ(usage.steps.size(), 3);
  const auto is_about = [](std::uint64_t size_bytes, std::uint64_t leaves) {
    return size_bytes >= leaves * kCollectedLeafSize &&
           size_bytes < leaves * kCollectedLeafSize + kCollectedLeafSize / 8;
  };
  EXPECT_EQ(usage.steps[0].size_bytes, 4 * kCollectedLeafSize);
  EXPECT_TRUE(is_about(usage.steps[0].stored_bytes, 4)) << usage.steps[0].stored_bytes;
  EXPECT_EQ(usage.steps[0].shared_bytes, 0);
  EXPECT_TRUE(is_about(usage.steps[1].stored_bytes, 1)) << usage.steps[1].stored_bytes;
  EXPECT_TRUE(is_about(usage.steps[1].shared_bytes, 3)) << usage.steps[1].shared_bytes;
  EXPECT_EQ(usage.steps[2].size_bytes, 100);
  EXPECT_LT(usage.steps[2].stored_bytes, kCollectedLeafSize);
  EXPECT_TRUE(is_about(usage.stored_bytes, 5)) << usage.stored_bytes;
  EXPECT_EQ(usage.hidden_bytes, 0);
  EXPECT_EQ(usage.reclaimable_bytes, 0);

  const std::uint64_t first = 1;
  ASSERT_TRUE(store_->retire({&first, 1}));
  close();
  reopen();
  usage = *store_->usage();
  ASSERT_EQ(usage.steps.size(), 2);
  EXPECT_TRUE(is_about(usage.steps[0].shared_bytes, 3)) << usage.steps[0].shared_bytes;
  EXPECT_TRUE(is_about(usage.hidden_bytes, 4)) << usage.hidden_bytes;
  EXPECT_TRUE(is_about(usage.reclaimable_bytes, 1)) << usage.reclaimable_bytes;
}

// Damage to a chunk is damage to every step that has it, and to no other; what nobody refers to is
// nobody's damage.
TEST_F(SharedChunksTest, VerifyChecksTheChunksOfHollowSaves) {
  ASSERT_TRUE(save(1, {0, 0, 0, 0}));
  ASSERT_TRUE(save(2, {0, 0, 0, 1}));
  ASSERT_TRUE(save(3, {0, 1, 1, 1}, {1}));
  close();
  std::filesystem::path hollow;
  for (const auto& entry : std::filesystem::directory_iterator(path())) {
    if (entry.path().extension() == ".sst" && entry.file_size() > 3 * kCollectedLeafSize) {
      hollow = entry.path();
    }
  }
  ASSERT_FALSE(hollow.empty());
  const auto flip = [&](std::uint64_t offset) {
    std::fstream file(hollow, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
  };
  flip(3 * kCollectedLeafSize + kCollectedLeafSize / 2);  // Leaf 3, which nobody has.
  reopen();
  EXPECT_THAT(store_->verify()->damages, IsEmpty());
  close();
  flip(kCollectedLeafSize + kCollectedLeafSize / 2);  // Leaf 1, which step 2 has.
  reopen();
  const VerifyReport report = *store_->verify();
  ASSERT_EQ(report.damages.size(), 1);
  EXPECT_EQ(report.damages[0].step, 2);
  EXPECT_EQ(report.damages[0].leaf, "1");
  EXPECT_EQ(report.step_count, 2);
}

TEST_F(SharedChunksTest, AReadOnlyStoreSeesWhatIsShared) {
  ASSERT_TRUE(save(1, {0, 0, 0, 0}));
  ASSERT_TRUE(save(2, {0, 1, 1, 1}));
  auto reader = Store::open(path(), {.read_only = true});
  ASSERT_TRUE(reader) << reader.error().message;
  const std::uint64_t first = 1;
  ASSERT_TRUE(store_->retire({&first, 1}));
  store_->wait_for_collector();
  // The file that holds leaf 0 may have been rewritten under it: that is no damage.
  for (const std::uint64_t step : {1U, 2U}) {
    const auto bytes = read_array(**(*reader)->read_step(step), "state", 0);
    EXPECT_TRUE(bytes.has_value() ? *bytes == bytes_of(0, 0)
                                  : bytes.error().code == ErrorCode::kNotFound)
        << bytes.error().message;
  }
  EXPECT_THAT((*reader)->verify()->damages, IsEmpty());
  reader = Store::open(path(), {.read_only = true});
  ASSERT_TRUE(reader) << reader.error().message;
  EXPECT_TRUE(*read_array(**(*reader)->read_step(2), "state", 0) == bytes_of(0, 0));
}

}  // namespace
}  // namespace stepstone
