// Saves in the background. A Gate in on_save holds the manager's thread where one save is durable
// and those behind it have not begun, so that what happens meanwhile does not depend on luck.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "api/checkpoint_manager.h"
#include "tests/api/support.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using testing::array_of;
using testing::fails;
using testing::FileSizeLimit;
using testing::is_ok;
using testing::kMiB;

using Steps = std::vector<std::uint64_t>;

class Gate {
 public:
  void open() {
    {
      const std::scoped_lock lock(mutex_);
      is_open_ = true;
    }
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock lock(mutex_);
    is_reached_ = true;
    changed_.notify_all();
    // A test that has failed may never open it.
    changed_.wait_for(lock, std::chrono::minutes(1), [&] { return is_open_; });
  }
  void wait_until_reached() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::minutes(1), [&] { return is_reached_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_reached_ = false;
  bool is_open_ = false;
};

Tree borrowed(const std::vector<std::byte>& memory) {
  return Tree::dict({{"w", *Array::borrow(DType::kUint8, {memory.size()}, memory)}});
}

// Owned, and small; or too large to be saved under a FileSizeLimit of one MiB, and like no other
// such save, so that no step has what it could share.
args::StandardSave small_save(std::uint64_t step) {
  return args::StandardSave(Tree::dict({{"step", static_cast<std::int64_t>(step)}}));
}
args::StandardSave large_save() { return args::StandardSave(testing::new_bytes(4 * kMiB)); }

class AsyncSaveTest : public ::testing::Test {
 protected:
  std::unique_ptr<CheckpointManager> open(const CheckpointManagerOptions& options = {}) const {
    auto manager = CheckpointManager::open(path(), options);
    EXPECT_TRUE(is_ok(manager));
    return manager ? *std::move(manager) : nullptr;
  }
  // A manager whose thread waits at the gate once step 0 is durable, with step 0 saved.
  std::unique_ptr<CheckpointManager> open_gated(CheckpointManagerOptions options) {
    options.on_save = [this, then = options.on_save](const SaveStatistics& statistics) {
      if (statistics.step == 0) gate_.pass();
      if (then) then(statistics);
    };
    auto manager = open(options);
    EXPECT_TRUE(is_ok(manager->save(0, small_save(0))));
    gate_.wait_until_reached();
    return manager;
  }
  std::filesystem::path path() const { return directory_.path() / "run"; }

  TemporaryDirectory directory_;
  Gate gate_;
};

TEST_F(AsyncSaveTest, WhatIsChangedWhileASaveIsQueuedIsNotSaved) {
  const auto manager = open_gated({.async_queue_size_bytes = 64 * kMiB});
  std::vector<std::byte> memory(3 * kMiB + 1);
  std::vector<std::byte> second(5000);
  for (std::uint64_t step = 1; step <= 3; ++step) {
    memory.assign(memory.size(), static_cast<std::byte>(step));
    second.assign(second.size(), static_cast<std::byte>(10 * step));
    const Tree tree = Tree::dict(
        {{"whole", *Array::borrow(DType::kUint8, {memory.size()}, memory)},
         {"small", *Array::borrow(DType::kUint8, {second.size()}, second)},
         {"empty", *Array::borrow(DType::kUint8, {0}, {})},
         {"reversed", *Array::borrow_strided(DType::kUint8, {5000}, {-1}, &second.back())},
         {"strided",
          *Array::borrow_strided(DType::kUint8, {memory.size() / 3}, {3}, memory.data())}});
    ASSERT_TRUE(is_ok(manager->save(step, args::StandardSave(tree))));
  }
  EXPECT_EQ(manager->all_steps(), Steps{0}) << "none has been written yet";
  EXPECT_TRUE(manager->is_saving_in_progress());
  memory.assign(memory.size(), std::byte{9});
  second.assign(second.size(), std::byte{9});
  gate_.open();
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  for (std::uint64_t step = 1; step <= 3; ++step) {
    const auto restored = manager->restore(step);
    ASSERT_TRUE(is_ok(restored));
    for (const char* name : {"whole", "small", "reversed", "strided"}) {
      const std::span<const std::byte> bytes = restored->find(name)->get_if<Array>()->bytes();
      const bool is_second = std::string_view(name) == "small" || *name == 'r';
      const auto expected = static_cast<std::byte>(is_second ? 10 * step : step);
      EXPECT_EQ(std::count(bytes.begin(), bytes.end(), expected), std::ssize(bytes)) << name;
    }
    EXPECT_EQ(restored->find("empty")->get_if<Array>()->size_bytes(), 0U);
  }
}

TEST_F(AsyncSaveTest, GathersArraysInTheirOrderOfElements) {
  const auto manager = open_gated({.async_queue_size_bytes = 64 * kMiB});
  std::vector<std::uint32_t> values(1'500'000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::uint32_t>(i);
  const auto* const data = reinterpret_cast<const std::byte*>(values.data());
  // Transposed: 1000 rows of 1500. More than one piece of the pool.
  const Array transposed = *Array::borrow_strided(DType::kUint32, {1000, 1500}, {4, 4000}, data);
  ASSERT_TRUE(is_ok(manager->save(1, args::StandardSave(transposed))));
  const Array expected = transposed.owned();
  values.assign(values.size(), 0);
  gate_.open();
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(manager->last_save_statistics()->staged_bytes, expected.size_bytes());
  EXPECT_EQ(*manager->restore(1), Tree(expected));
}

TEST_F(AsyncSaveTest, OwnedArraysAreReferredToUntilTheirSaveIsDurable) {
  const auto memory = std::make_shared<std::vector<std::byte>>(2 * kMiB, std::byte{1});
  std::atomic<bool> was_released = false;
  std::atomic<bool> was_released_at_callback = false;
  const auto manager =
      open_gated({.async_queue_size_bytes = 64 * kMiB, .on_save = [&](const SaveStatistics& save) {
                    if (save.step == 1) was_released_at_callback = was_released.load();
                  }});
  {
    const std::shared_ptr<const void> owner(memory->data(),
                                            [&](const void* /*data*/) { was_released = true; });
    const Array array = *Array::own(DType::kUint8, {memory->size()}, *memory, owner);
    ASSERT_TRUE(is_ok(manager->save(1, args::StandardSave(array))));
  }
  EXPECT_FALSE(was_released);
  gate_.open();
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_TRUE(was_released_at_callback);
  const SaveStatistics statistics = *manager->last_save_statistics();
  EXPECT_EQ(statistics.size_bytes, memory->size());
  EXPECT_EQ(statistics.staged_bytes, 0U);
  EXPECT_EQ(statistics.staging_capacity_bytes, 0U);
}

TEST_F(AsyncSaveTest, CommitsInTheOrderOfTheCallsAndRetiresAsItGoes) {
  std::vector<Steps> seen;
  CheckpointManager* asked = nullptr;
  const auto manager = open_gated(
      {.max_to_keep = 2,
       .async_queue_size_bytes = kMiB,
       .on_save = [&](const SaveStatistics& /*save*/) { seen.push_back(asked->all_steps()); }});
  asked = manager.get();
  for (const std::uint64_t step : {5U, 6U, 3U, 7U}) {
    ASSERT_TRUE(*manager->save(step, small_save(step)));
  }
  EXPECT_EQ(manager->all_steps(), Steps{0}) << "retention is not ahead of the saves";
  EXPECT_EQ(manager->latest_step(), 0U);
  gate_.open();
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(seen, (std::vector<Steps>{{0}, {0, 5}, {5, 6}, {3, 6}, {6, 7}}));
  EXPECT_EQ(manager->latest_step(), 7U);
  EXPECT_EQ(*manager->restore(6), small_save(6).item);
}

TEST_F(AsyncSaveTest, AFailedSaveInTheQueueIsNotCountedByRetention) {
  const auto manager = open_gated({.max_to_keep = 2, .async_queue_size_bytes = 64 * kMiB});
  ASSERT_TRUE(*manager->save(1, small_save(1)));
  ASSERT_TRUE(*manager->save(2, large_save()));
  ASSERT_TRUE(*manager->save(3, small_save(3)));
  {
    const FileSizeLimit limit(kMiB);
    gate_.open();
    EXPECT_TRUE(fails(manager->wait_until_finished(), ErrorCode::kNoSpace, {"step 2"}));
  }
  EXPECT_EQ(manager->all_steps(), (Steps{1, 3}));
}

TEST_F(AsyncSaveTest, SavesBehindAFailedOneGoOnAndTheFirstErrorIsReturnedOnce) {
  const auto manager = open_gated({.async_queue_size_bytes = 64 * kMiB});
  ASSERT_TRUE(*manager->save(1, large_save()));
  ASSERT_TRUE(*manager->save(2, small_save(2)));
  ASSERT_TRUE(*manager->save(3, large_save()));
  ASSERT_TRUE(*manager->save(4, large_save()));
  ASSERT_TRUE(*manager->save(5, small_save(5)));
  {
    const FileSizeLimit limit(kMiB);
    gate_.open();
    EXPECT_TRUE(fails(manager->wait_until_finished(), ErrorCode::kNoSpace,
                      {"step 1", "2 more saves failed"}));
  }
  EXPECT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_TRUE(is_ok(manager->check_for_errors()));
  EXPECT_EQ(manager->all_steps(), (Steps{0, 2, 5}));
  EXPECT_EQ(manager->last_save_statistics()->step, 5U);
  // What failed may be saved again.
  ASSERT_TRUE(*manager->save(1, large_save()));
  EXPECT_TRUE(is_ok(manager->close()));
  EXPECT_EQ(open()->all_steps(), (Steps{0, 1, 2, 5}));
}

TEST_F(AsyncSaveTest, AnErrorIsSeenWhileOthersAreStillOnTheirWay) {
  Gate second;
  const auto manager =
      open_gated({.async_queue_size_bytes = 64 * kMiB, .on_save = [&](const SaveStatistics& save) {
                    if (save.step == 2) second.pass();
                  }});
  ASSERT_TRUE(*manager->save(1, large_save()));
  ASSERT_TRUE(*manager->save(2, small_save(2)));
  {
    const FileSizeLimit limit(kMiB);
    gate_.open();
    // When step 2 is there, step 1 has failed.
    while (manager->latest_step() != 2U) std::this_thread::yield();
  }
  EXPECT_TRUE(fails(manager->save(3, small_save(3)), ErrorCode::kNoSpace, {"step 1"}));
  EXPECT_TRUE(manager->is_saving_in_progress()) << "step 2 is not through";
  EXPECT_TRUE(is_ok(manager->check_for_errors()));
  ASSERT_TRUE(*manager->save(3, small_save(3)));
  second.open();
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(manager->all_steps(), (Steps{0, 2, 3}));
}

TEST_F(AsyncSaveTest, AStepOnItsWayIsNotSavedAgain) {
  const auto manager = open_gated({.async_queue_size_bytes = kMiB});
  ASSERT_TRUE(*manager->save(1, small_save(1)));
  EXPECT_TRUE(fails(manager->save(1, small_save(1)), ErrorCode::kAlreadyExists,
                    {"step 1", path().string()}));
  EXPECT_TRUE(fails(manager->save(0, small_save(0), {.force = true}), ErrorCode::kAlreadyExists,
                    {"step 0"}));
  gate_.open();
  EXPECT_TRUE(is_ok(manager->close()));
}

TEST_F(AsyncSaveTest, ATreeThatCannotBeSavedIsRefusedAtOnceAndTheQueueGoesOn) {
  const auto manager = open_gated({.async_queue_size_bytes = kMiB});
  const Tree bad = Tree::dict({{"a", AbstractArray{}}});
  EXPECT_TRUE(fails(manager->save(1, args::StandardSave(bad)), ErrorCode::kInvalidArgument,
                    {"step 1", "leaf 'a'"}));
  ASSERT_TRUE(*manager->save(1, small_save(1)));
  gate_.open();
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(manager->all_steps(), (Steps{0, 1}));
}

TEST_F(AsyncSaveTest, OnlyTheFirstSaveIsOutsideTheInterval) {
  const auto manager = open_gated({.save_interval_steps = 10, .async_queue_size_bytes = kMiB});
  EXPECT_FALSE(manager->should_save(3));
  EXPECT_FALSE(*manager->save(3, small_save(3))) << "answered without waiting";
  EXPECT_TRUE(*manager->save(10, small_save(10)));
  gate_.open();
}

// Whether save() waits can only be seen in time, so that the attempt is repeated until the save has
// met one that was still on its way.
TEST_F(AsyncSaveTest, ASaveThatDoesNotFitWaitsAndSaysSo) {
  const std::vector<std::byte> memory(kMiB);
  std::atomic<std::uint64_t> begun_step = 0;
  std::vector<SaveStatistics> all;
  const auto manager = open({.max_to_keep = 2,
                             .async_queue_size_bytes = 2 * kMiB,
                             .on_save = [&](const SaveStatistics& save) {
                               all.push_back(save);
                               if (save.step % 3 != 0) return;
                               // Until the third save has been called, and a little longer.
                               for (int i = 0; i < 10'000 && begun_step < save.step + 3; ++i) {
                                 std::this_thread::sleep_for(std::chrono::milliseconds(1));
                               }
                               std::this_thread::sleep_for(std::chrono::milliseconds(2));
                             }});
  for (std::uint64_t step = 0;; step += 3) {
    ASSERT_LT(step, 3000U);
    // Two fit into the queue, the third does not.
    begun_step = step;
    ASSERT_TRUE(is_ok(manager->save(step, args::StandardSave(borrowed(memory)))));
    ASSERT_TRUE(is_ok(manager->save(step + 1, args::StandardSave(borrowed(memory)))));
    begun_step = step + 3;
    ASSERT_TRUE(is_ok(manager->save(step + 2, args::StandardSave(borrowed(memory)))));
    ASSERT_TRUE(is_ok(manager->wait_until_finished()));
    ASSERT_EQ(all.size(), step + 3);
    EXPECT_EQ(all[step].wait_s, 0);
    EXPECT_EQ(all[step + 1].wait_s, 0);
    if (all[step + 2].wait_s > 0) break;
  }
  EXPECT_GE(all.back().stall_s, all.back().wait_s);
  EXPECT_GE(all.back().total_s, all.back().stall_s);
}

TEST_F(AsyncSaveTest, WithoutABudgetSavesTakeTurns) {
  const std::vector<std::byte> memory(2 * kMiB);
  const auto manager = open();
  for (std::uint64_t step = 0; step < 5; ++step) {
    ASSERT_TRUE(is_ok(manager->save(step, args::StandardSave(borrowed(memory)))));
    EXPECT_GE(manager->all_steps().size(), step) << "those before it are through";
  }
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(manager->all_steps().size(), 5U);
}

TEST_F(AsyncSaveTest, TheStagingPoolDoesNotGrowFromSaveToSave) {
  const auto manager = open({.max_to_keep = 1});
  std::vector<std::byte> memory(3 * kMiB);
  std::uint64_t capacity = 0;
  for (std::uint64_t step = 0; step < 50; ++step) {
    ASSERT_TRUE(is_ok(manager->save(step, args::StandardSave(borrowed(memory)))));
    ASSERT_TRUE(is_ok(manager->wait_until_finished()));
    const SaveStatistics statistics = *manager->last_save_statistics();
    EXPECT_EQ(statistics.step, step);
    EXPECT_EQ(statistics.staged_bytes, memory.size());
    if (step == 0) capacity = statistics.staging_capacity_bytes;
    ASSERT_EQ(statistics.staging_capacity_bytes, capacity) << step;
  }
  EXPECT_GE(capacity, memory.size());
  EXPECT_LT(capacity, memory.size() + 64 * kMiB);
}

TEST_F(AsyncSaveTest, AReserveIsThereBeforeTheFirstSave) {
  std::vector<std::byte> memory(20 * kMiB);
  const auto manager = open({.staging_reserve_bytes = 64 * kMiB});
  ASSERT_TRUE(is_ok(manager->save(1, args::StandardSave(borrowed(memory)))));
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(manager->last_save_statistics()->staging_capacity_bytes, 64 * kMiB);
  EXPECT_TRUE(fails(CheckpointManager::open(directory_.path() / "other",
                                            {.staging_reserve_bytes = std::uint64_t{1} << 60}),
                    ErrorCode::kLimit, {"other"}));
}

TEST_F(AsyncSaveTest, CloseAndTheDestructorWaitForTheQueue) {
  for (const bool is_closed : {true, false}) {
    const std::uint64_t first = is_closed ? 1 : 100;
    std::atomic<std::uint64_t> callback_count = 0;
    {
      const auto manager =
          open({.async_queue_size_bytes = 64 * kMiB,
                .on_save = [&](const SaveStatistics& /*save*/) { ++callback_count; }});
      for (std::uint64_t i = 0; i < 6; ++i) {
        ASSERT_TRUE(is_ok(manager->save(first + i, large_save())));
      }
      if (is_closed) {
        EXPECT_TRUE(is_ok(manager->close()));
        EXPECT_EQ(callback_count, 6U);
      }
    }
    EXPECT_EQ(callback_count, 6U);
  }
  EXPECT_EQ(open()->all_steps().size(), 12U);
}

TEST_F(AsyncSaveTest, StatisticsSayWhatASaveAndARestoreDid) {
  std::vector<SaveStatistics> saves;
  std::vector<RestoreStatistics> restores;
  std::vector<std::thread::id> threads;
  const CheckpointManagerOptions options{
      .on_save =
          [&](const SaveStatistics& save) {
            saves.push_back(save);
            threads.push_back(std::this_thread::get_id());
          },
      .on_restore = [&](const RestoreStatistics& restore) { restores.push_back(restore); }};
  const std::vector<std::byte> memory(kMiB);
  const Tree tree = Tree::dict({{"borrowed", *Array::borrow(DType::kUint8, {kMiB}, memory)},
                                {"owned", *Array::zeros(DType::kFloat32, {100})},
                                {"step", 7}});
  const Tree target = Tree::dict({{"borrowed", AbstractArray{DType::kUint16, {kMiB}}},
                                  {"owned", AbstractArray{DType::kFloat32, {100}}},
                                  {"step", 0}});
  {
    const auto manager = open(options);
    EXPECT_EQ(manager->last_save_statistics(), std::nullopt);
    EXPECT_EQ(manager->last_restore_statistics(), std::nullopt);
    ASSERT_TRUE(is_ok(manager->save(3, args::StandardSave(tree))));
    ASSERT_TRUE(is_ok(manager->wait_until_finished()));
    ASSERT_TRUE(is_ok(manager->restore(3, args::StandardRestore(target))));
    EXPECT_EQ(manager->last_save_statistics(), saves.at(0));
    EXPECT_EQ(manager->last_restore_statistics(), restores.at(0));
    // What fails has no statistics.
    EXPECT_FALSE(manager->restore(4));
    EXPECT_EQ(restores.size(), 1U);
  }
  {
    auto synchronous = options;
    synchronous.enable_async_checkpointing = false;
    ASSERT_TRUE(is_ok(open(synchronous)->save(4, args::StandardSave(tree))));
  }
  ASSERT_EQ(saves.size(), 2U);
  for (const SaveStatistics& save : saves) {
    EXPECT_EQ(save.leaf_count, 3U);
    EXPECT_EQ(save.size_bytes, kMiB + 400 + 8);
    EXPECT_GE(save.thread_count, 1U);
    EXPECT_EQ(save.wait_s, 0);
    EXPECT_GT(save.stall_s, 0);
    EXPECT_GT(save.write_s, 0);
    EXPECT_GT(save.commit_s, 0);
    EXPECT_GE(save.total_s, save.write_s + save.commit_s);
  }
  EXPECT_EQ(saves[0].step, 3U);
  EXPECT_GT(saves[0].stored_bytes, 0U);
  EXPECT_TRUE(saves[0].is_async);
  EXPECT_EQ(saves[0].staged_bytes, kMiB);
  EXPECT_GT(saves[0].stage_s, 0);
  EXPECT_NE(threads[0], std::this_thread::get_id());
  EXPECT_EQ(saves[1].step, 4U);
  EXPECT_GE(saves[1].shared_bytes, kMiB) << "the bytes of step 3";
  EXPECT_FALSE(saves[1].is_async);
  EXPECT_EQ(saves[1].staged_bytes, 0U);
  EXPECT_EQ(saves[1].stage_s, 0);
  EXPECT_EQ(saves[1].queue_s, 0);
  EXPECT_EQ(saves[1].stall_s, saves[1].total_s);
  EXPECT_EQ(threads[1], std::this_thread::get_id());

  ASSERT_EQ(restores.size(), 1U);
  EXPECT_EQ(restores[0].step, 3U);
  EXPECT_EQ(restores[0].leaf_count, 3U);
  EXPECT_EQ(restores[0].size_bytes, kMiB + 400 + 8);
  EXPECT_GT(restores[0].read_s, 0);
  EXPECT_GT(restores[0].cast_s, 0);
  EXPECT_GE(restores[0].total_s, restores[0].read_s + restores[0].cast_s);
}

TEST_F(AsyncSaveTest, AnExceptionOfACallbackIsDropped) {
  const auto manager = open({.on_save = [](const SaveStatistics&) { throw std::runtime_error(""); },
                             .on_restore = [](const RestoreStatistics&) { throw 1; }});
  ASSERT_TRUE(is_ok(manager->save(1, small_save(1))));
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(*manager->restore(1), small_save(1).item);
  EXPECT_TRUE(is_ok(manager->close()));
}

TEST_F(AsyncSaveTest, ServesSeveralTrainersThroughAShortQueue) {
  const auto manager = open({.max_to_keep = 3, .async_queue_size_bytes = 100'000});
  std::atomic<int> failure_count = 0;
  std::vector<std::thread> threads;
  for (std::uint64_t trainer = 0; trainer < 3; ++trainer) {
    threads.emplace_back([&, trainer] {
      std::vector<std::byte> memory(40'000);
      for (std::uint64_t i = 0; i < 20; ++i) {
        memory.assign(memory.size(), static_cast<std::byte>(i));
        const auto saved = manager->save(3 * i + trainer, args::StandardSave(borrowed(memory)));
        if (!saved || !*saved) ++failure_count;
        if (i % 7 == 0 && !manager->wait_until_finished()) ++failure_count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(failure_count, 0);
  ASSERT_EQ(manager->all_steps().size(), 3U);
  for (const std::uint64_t step : manager->all_steps()) {
    const std::vector<std::byte> expected(40'000, static_cast<std::byte>(step / 3));
    EXPECT_EQ(*manager->restore(step), borrowed(expected)) << step;
  }
}

}  // namespace
}  // namespace stepstone
