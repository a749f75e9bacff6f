#include "engine/collector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "engine/store.h"
#include "tests/support/engine_steps.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using stepstone::testing::holds_arrays;
using stepstone::testing::save_arrays;

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

// About 192 KiB, as a step of a small model has.
const std::vector<std::size_t> kTiny(6, std::size_t{32} << 10);

class CollectorTest : public ::testing::Test {
 protected:
  CollectorTest() { reopen(); }

  void reopen() {
    if (store_ != nullptr) {
      ASSERT_TRUE(store_->close());
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
  EXPECT_LT(usage().size_bytes, 24 * kMiB);
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
  ASSERT_GT(usage(".sst").size_bytes, 27 * kMiB);
  ASSERT_TRUE(store_->retire(old));
  close();
  EXPECT_LT(usage(".sst").size_bytes, 9 * kMiB);
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
  EXPECT_LT(usage(".sst").size_bytes, 9 * kMiB);
}

}  // namespace
}  // namespace stepstone
