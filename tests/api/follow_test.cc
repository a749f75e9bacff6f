#include "api/follow.h"

#include <fstream>
#include <numeric>

#include "api/checkpoint_manager.h"
#include "api/checkpoint_plan.h"
#include "engine/store.h"
#include "tests/api/support.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using std::chrono::seconds;
using testing::fails;
using testing::is_ok;

// With bytes of its own, so that no step needs those of another; a large one has files of its own.
Tree followed_tree(std::uint64_t step, std::size_t size_bytes) {
  return Tree::dict({{"step", static_cast<std::int64_t>(step)},
                     {"w", *Array::copy_bytes(DType::kUint8, {size_bytes},
                                              testing::Random(step).bytes(size_bytes))}});
}
args::StandardSave followed_save(std::uint64_t step, std::size_t size_bytes = 100) {
  return args::StandardSave(followed_tree(step, size_bytes));
}

class FollowTest : public ::testing::Test {
 protected:
  std::unique_ptr<CheckpointManager> open(CheckpointManagerOptions options = {}) const {
    options.enable_async_checkpointing = false;
    auto manager = CheckpointManager::open(path(), options);
    EXPECT_TRUE(is_ok(manager));
    return manager ? *std::move(manager) : nullptr;
  }
  // Each wait lets `meanwhile` happen, and takes as long as it was asked for.
  FollowOptions following(std::function<void()> meanwhile = nullptr) {
    FollowOptions options;
    options.clock = [this] { return now_; };
    options.sleep = [this, meanwhile](std::chrono::nanoseconds duration) {
      now_ += duration;
      ++sleep_count_;
      if (meanwhile) meanwhile();
    };
    return options;
  }
  std::filesystem::path path() const { return directory_.path() / "run"; }

  std::chrono::steady_clock::time_point now_;
  int sleep_count_ = 0;
  TemporaryDirectory directory_;
};

TEST_F(FollowTest, WaitsForTheDirectoryThenForTheStep) {
  std::unique_ptr<CheckpointManager> trainer;
  const auto meanwhile = [&] {
    if (sleep_count_ == 2) trainer = open();
    if (sleep_count_ >= 3) {
      const auto step = static_cast<std::uint64_t>(sleep_count_);
      EXPECT_TRUE(is_ok(trainer->save(step, followed_save(step))));
    }
  };
  const auto first = wait_for_new_checkpoint(path(), std::nullopt, following(meanwhile));
  ASSERT_TRUE(is_ok(first));
  ASSERT_TRUE(first->has_value());
  EXPECT_EQ((*first)->step(), 3U);
  const auto later = wait_for_new_checkpoint(path(), 6, following(meanwhile));
  ASSERT_TRUE(is_ok(later));
  EXPECT_EQ((*later)->step(), 6U);
  EXPECT_EQ(*(*later)->restore(), followed_tree(6, 100));
}

TEST_F(FollowTest, GivesUpWhenTheTimeIsOver) {
  FollowOptions options = following();
  options.timeout = seconds(10);
  const auto none = wait_for_new_checkpoint(path(), std::nullopt, options);
  ASSERT_TRUE(is_ok(none));
  EXPECT_FALSE(none->has_value());
  EXPECT_EQ(sleep_count_, 10);
  int asked_count = 0;
  options.timeout_fn = [&] { return ++asked_count == 3; };
  EXPECT_FALSE(wait_for_new_checkpoint(path(), std::nullopt, options)->has_value());
  EXPECT_EQ(asked_count, 3);
  EXPECT_EQ(sleep_count_, 40);
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(FollowTest, AnErrorIsNotWaitedFor) {
  std::filesystem::create_directory(path());
  std::ofstream(path() / "CURRENT") << "something else";
  EXPECT_TRUE(fails(wait_for_new_checkpoint(path(), std::nullopt, following()),
                    ErrorCode::kInvalidArgument, {path().string()}));
}

TEST_F(FollowTest, TheIteratorGivesTheNewestAndSkipsWhatIsBetween) {
  const auto trainer = open();
  for (const std::uint64_t step : {1U, 2U}) ASSERT_TRUE(*trainer->save(step, followed_save(step)));
  FollowOptions options = following();
  options.timeout = seconds(5);
  options.min_interval = seconds(100);
  CheckpointsIterator iterator(path(), options);
  EXPECT_EQ((*iterator.next())->step(), 2U);
  const auto returned_at = now_;
  for (const std::uint64_t step : {3U, 4U}) ASSERT_TRUE(*trainer->save(step, followed_save(step)));
  EXPECT_EQ((*iterator.next())->step(), 4U);
  EXPECT_EQ(now_ - returned_at, seconds(100));
  EXPECT_FALSE((*iterator.next()).has_value());
  ASSERT_TRUE(*trainer->save(5, followed_save(5)));
  EXPECT_EQ((*iterator.next())->step(), 5U) << "it can be asked again";
}

// Nothing that an evaluator reads is collected under it, and nothing is copied.
TEST_F(FollowTest, AStepUnderEvaluationIsNotCollectedInTheProcessThatWrites) {
  for (const std::size_t size_bytes : {std::size_t{100}, std::size_t{1} << 20}) {
    const auto trainer = open({.max_to_keep = 1});
    ASSERT_TRUE(*trainer->save(1, followed_save(1, size_bytes), {.overwrite = true}));
    const auto held = wait_for_new_checkpoint(path(), 1, following());
    ASSERT_TRUE(is_ok(held));
    for (std::uint64_t step = 2; step < 12; ++step) {
      ASSERT_TRUE(*trainer->save(step, followed_save(step, size_bytes)));
    }
    EXPECT_EQ(trainer->all_steps(), std::vector<std::uint64_t>{11});
    ASSERT_TRUE(is_ok(trainer->close())) << "the evaluator has a share of its own";
    EXPECT_EQ((*held)->step(), 1U);
    EXPECT_EQ(*(*held)->restore(), followed_tree(1, size_bytes));
    ASSERT_TRUE(is_ok(open()->delete_step(11)));
  }
}

// A Store that was not opened by a manager stands for one of another process: it knows nothing of
// the reader, and deletes the files.
TEST_F(FollowTest, AStepUnderEvaluationStaysReadableWhenAnotherProcessDeletesItsFiles) {
  for (const std::size_t size_bytes : {std::size_t{100}, std::size_t{1} << 20}) {
    const auto run = directory_.path() / std::to_string(size_bytes);
    OpenOptions open_options;
    open_options.create_if_missing = true;
    const auto writer = *Store::open(run, open_options);
    const auto save = [&](std::uint64_t step) {
      const auto begun = *writer->begin_save(step);
      auto plan =
          *CheckpointPlan::make(step, followed_save(step, size_bytes), HandlerRegistry::defaults());
      ASSERT_TRUE(is_ok(plan.put(*begun)));
      ASSERT_TRUE(is_ok(begun->commit()));
    };
    // More steps than RocksDB opens files for by itself.
    for (std::uint64_t step = 0; step < 30; ++step) save(step);
    const auto held = wait_for_new_checkpoint(run, std::nullopt, following());
    ASSERT_TRUE(is_ok(held));
    const auto manager = *CheckpointManager::open(run, {.read_only = true});
    const auto other = manager->hold(3);
    ASSERT_TRUE(is_ok(other));
    for (std::uint64_t step = 30; step < 33; ++step) save(step);
    std::vector<std::uint64_t> all(32);
    std::iota(all.begin(), all.end(), std::uint64_t{0});
    ASSERT_TRUE(is_ok(writer->retire(all)));
    writer->wait_for_collector();
    EXPECT_EQ((*held)->step(), 29U);
    EXPECT_EQ(*(*held)->restore(), followed_tree(29, size_bytes));
    EXPECT_EQ(*other->restore(), followed_tree(3, size_bytes));
    EXPECT_EQ((*held)->item_metadata("default")->leaves.size(), 2U);
    ASSERT_TRUE(is_ok(manager->reload()));
    EXPECT_EQ(manager->all_steps(), std::vector<std::uint64_t>{32});
    EXPECT_EQ(*other->restore(), followed_tree(3, size_bytes)) << "a reload takes nothing away";
  }
}

}  // namespace
}  // namespace stepstone
