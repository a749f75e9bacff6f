#include "api/checkpoint_manager.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "api/checkpointer.h"
#include "engine/store.h"
#include "format/limits.h"
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

// Says which step it is.
Tree tree_of(std::uint64_t step) {
  return Tree::dict({{"step", static_cast<std::int64_t>(step)},
                     {"w", array_of(std::vector<double>(100, static_cast<double>(step)))}});
}
args::StandardSave save_of(std::uint64_t step) { return args::StandardSave(tree_of(step)); }

// Too large to be saved under a FileSizeLimit of one MiB, and like no other such save, so that no
// step has what it could share.
args::StandardSave overlarge_save() { return args::StandardSave(testing::new_bytes(4 * kMiB)); }

class CheckpointManagerTest : public ::testing::Test {
 protected:
  std::unique_ptr<CheckpointManager> open(const CheckpointManagerOptions& options = {}) const {
    auto manager = CheckpointManager::open(path(), options);
    EXPECT_TRUE(is_ok(manager));
    return manager ? *std::move(manager) : nullptr;
  }
  std::filesystem::path path() const { return directory_.path() / "run"; }

  TemporaryDirectory directory_;
};

TEST_F(CheckpointManagerTest, ANewRunHasNoSteps) {
  const auto manager = open();
  EXPECT_EQ(manager->directory(), path());
  EXPECT_EQ(manager->all_steps(), Steps{});
  EXPECT_EQ(manager->latest_step(), std::nullopt);
  EXPECT_FALSE(manager->is_saving_in_progress());
  EXPECT_TRUE(fails(manager->restore(std::nullopt), ErrorCode::kNotFound, {path().string()}));
  EXPECT_TRUE(fails(manager->restore(3), ErrorCode::kNotFound, {"step 3"}));
  EXPECT_TRUE(is_ok(manager->wait_until_finished()));
}

TEST_F(CheckpointManagerTest, TellsHowFarASaveIs) {
  std::vector<std::uint64_t> done;
  std::uint64_t total = 0;
  const auto manager = open({.progress = [&](std::uint64_t done_bytes, std::uint64_t total_bytes) {
    done.push_back(done_bytes);
    total = total_bytes;
  }});
  ASSERT_TRUE(is_ok(manager->save(1, overlarge_save())));
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  ASSERT_FALSE(done.empty());
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  EXPECT_GE(total, 4 * kMiB);
  EXPECT_EQ(done.back(), total);
}

TEST_F(CheckpointManagerTest, KeepsTheNewestStepsOfTheInterval) {
  const auto manager = open({.save_interval_steps = 2, .max_to_keep = 2});
  for (std::uint64_t step = 0; step < 5; ++step) {
    EXPECT_EQ(manager->should_save(step), step % 2 == 0);
    const auto saved = manager->save(step, save_of(step));
    ASSERT_TRUE(is_ok(saved));
    EXPECT_EQ(*saved, step % 2 == 0);
  }
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(manager->all_steps(), (Steps{2, 4}));
  EXPECT_EQ(manager->latest_step(), 4U);
  EXPECT_EQ(*manager->restore(2), tree_of(2));
  EXPECT_EQ(*manager->restore(std::nullopt), tree_of(4));
  EXPECT_TRUE(fails(manager->restore(0), ErrorCode::kNotFound, {"step 0", "it has steps 2, 4"}));
}

TEST_F(CheckpointManagerTest, TheFirstStepIsSavedWhateverTheInterval) {
  const auto manager = open({.save_interval_steps = 10});
  EXPECT_TRUE(manager->should_save(3));
  EXPECT_TRUE(*manager->save(3, save_of(3)));
  EXPECT_FALSE(manager->should_save(4)) << "even while the first is on its way";
  EXPECT_FALSE(*manager->save(4, save_of(4)));
  EXPECT_TRUE(*manager->save(5, save_of(5), {.force = true}));
  EXPECT_TRUE(*manager->save(10, save_of(10)));
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(manager->all_steps(), (Steps{3, 5, 10}));
}

TEST_F(CheckpointManagerTest, MaxToKeepOneKeepsTheStepJustSavedAndTheNewest) {
  const auto manager = open({.max_to_keep = 1});
  const std::vector<std::pair<std::uint64_t, Steps>> saves = {
      {7, {7}}, {8, {8}}, {3, {3, 8}}, {5, {5, 8}}, {9, {9}}};
  for (const auto& [step, kept] : saves) {
    ASSERT_TRUE(is_ok(manager->save(step, save_of(step))));
    ASSERT_TRUE(is_ok(manager->wait_until_finished()));
    EXPECT_EQ(manager->all_steps(), kept);
  }
}

TEST_F(CheckpointManagerTest, MaxToKeepAppliesToWhatWasThereBefore) {
  {
    const auto manager = open();
    for (std::uint64_t step = 0; step < 6; ++step) {
      ASSERT_TRUE(is_ok(manager->save(step, save_of(step))));
    }
  }
  const auto manager = open({.max_to_keep = 2});
  EXPECT_EQ(manager->all_steps(), (Steps{0, 1, 2, 3, 4, 5}));
  ASSERT_TRUE(is_ok(manager->save(6, save_of(6))));
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(manager->all_steps(), (Steps{5, 6}));
}

TEST_F(CheckpointManagerTest, StepsSurviveClosingAndReopening) {
  {
    const auto manager = open();
    ASSERT_TRUE(is_ok(manager->save(1, save_of(1))));
    ASSERT_TRUE(is_ok(manager->save(limits::kStepMax, save_of(2))));
    // The destructor waits for the save in the background.
  }
  const auto manager = open({.create = false});
  EXPECT_EQ(manager->all_steps(), (Steps{1, limits::kStepMax}));
  EXPECT_EQ(*manager->restore(std::nullopt), tree_of(2));
}

TEST_F(CheckpointManagerTest, BorrowedMemoryMayChangeOnceSaveReturns) {
  const auto manager = open();
  std::vector<std::byte> memory(8 * kMiB, std::byte{1});
  const Tree tree =
      Tree::dict({{"whole", *Array::borrow(DType::kUint8, {memory.size()}, memory)},
                  {"strided", *Array::borrow_strided(DType::kUint8, {memory.size() / 4}, {4},
                                                     memory.data())}});
  ASSERT_TRUE(*manager->save(1, args::StandardSave(tree)));
  std::fill(memory.begin(), memory.end(), std::byte{2});
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  const auto restored = manager->restore(1);
  ASSERT_TRUE(is_ok(restored));
  for (const char* name : {"whole", "strided"}) {
    const std::span<const std::byte> bytes = restored->find(name)->get_if<Array>()->bytes();
    EXPECT_EQ(std::count(bytes.begin(), bytes.end(), std::byte{1}), std::ssize(bytes)) << name;
  }
}

TEST_F(CheckpointManagerTest, OwnedMemoryIsReferredToAndReleased) {
  const auto manager = open();
  const auto memory = std::make_shared<std::vector<std::byte>>(8 * kMiB, std::byte{1});
  std::atomic<bool> is_released = false;
  {
    // Its end is the end of the last reference to the array.
    const std::shared_ptr<const void> owner(memory->data(),
                                            [&](const void* /*data*/) { is_released = true; });
    const Array array = *Array::own(DType::kUint8, {memory->size()}, *memory, owner);
    ASSERT_TRUE(*manager->save(1, args::StandardSave(array)));
  }
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_TRUE(is_released);
  const Tree restored = *manager->restore(1);
  EXPECT_EQ(restored, Tree(*Array::borrow(DType::kUint8, {memory->size()}, *memory)));
}

TEST_F(CheckpointManagerTest, ASynchronousSaveIsThereWhenItReturns) {
  const auto manager = open({.enable_async_checkpointing = false});
  ASSERT_TRUE(*manager->save(1, save_of(1)));
  EXPECT_FALSE(manager->is_saving_in_progress());
  EXPECT_EQ(manager->all_steps(), Steps{1});
  const FileSizeLimit limit(kMiB);
  EXPECT_TRUE(fails(manager->save(2, overlarge_save()), ErrorCode::kNoSpace, {"step 2"}));
  EXPECT_TRUE(is_ok(manager->check_for_errors())) << "it was reported already";
}

TEST_F(CheckpointManagerTest, RestoreAndDeleteWaitForTheSaveBeforeThem) {
  const auto manager = open();
  ASSERT_TRUE(*manager->save(1, save_of(1)));
  EXPECT_EQ(*manager->restore(1), tree_of(1));
  ASSERT_TRUE(*manager->save(2, save_of(2)));
  EXPECT_TRUE(is_ok(manager->delete_step(2)));
  EXPECT_EQ(manager->all_steps(), Steps{1});
}

TEST_F(CheckpointManagerTest, ABackgroundErrorIsReportedExactlyOnce) {
  const auto manager = open();
  ASSERT_TRUE(*manager->save(1, save_of(1)));
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  {
    const FileSizeLimit limit(kMiB);
    // By wait_until_finished().
    ASSERT_TRUE(*manager->save(2, overlarge_save()));
    EXPECT_TRUE(fails(manager->wait_until_finished(), ErrorCode::kNoSpace, {"step 2"}));
    EXPECT_TRUE(is_ok(manager->wait_until_finished()));
    EXPECT_TRUE(is_ok(manager->check_for_errors()));

    // By check_for_errors(); restore() waits, and leaves the error for it.
    ASSERT_TRUE(*manager->save(3, overlarge_save()));
    EXPECT_TRUE(is_ok(manager->restore(1)));
    EXPECT_FALSE(manager->is_saving_in_progress());
    EXPECT_TRUE(fails(manager->check_for_errors(), ErrorCode::kNoSpace, {"step 3"}));
    EXPECT_TRUE(is_ok(manager->check_for_errors()));

    // By the next save, which does not begin.
    ASSERT_TRUE(*manager->save(4, overlarge_save()));
    EXPECT_TRUE(fails(manager->save(5, save_of(5)), ErrorCode::kNoSpace, {"step 4"}));
    EXPECT_TRUE(is_ok(manager->wait_until_finished()));
  }
  EXPECT_EQ(manager->all_steps(), Steps{1});
  EXPECT_EQ(*manager->restore(1), tree_of(1));
  ASSERT_TRUE(*manager->save(6, overlarge_save())) << "the store still works";
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(manager->all_steps(), (Steps{1, 6}));

  // By close().
  const FileSizeLimit limit(kMiB);
  ASSERT_TRUE(*manager->save(7, overlarge_save()));
  EXPECT_TRUE(fails(manager->close(), ErrorCode::kNoSpace, {"step 7"}));
  EXPECT_TRUE(is_ok(manager->close()));
}

TEST_F(CheckpointManagerTest, AFailedSaveRetiresNothing) {
  const auto manager = open({.max_to_keep = 1});
  ASSERT_TRUE(*manager->save(1, save_of(1)));
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  {
    const FileSizeLimit limit(kMiB);
    ASSERT_TRUE(*manager->save(2, overlarge_save()));
    EXPECT_TRUE(fails(manager->wait_until_finished(), ErrorCode::kNoSpace));
  }
  EXPECT_EQ(manager->all_steps(), Steps{1});
}

TEST_F(CheckpointManagerTest, TheDestructorShowsAnErrorThatNobodySaw) {
  ::testing::internal::CaptureStderr();
  {
    const auto manager = open();
    const FileSizeLimit limit(kMiB);
    ASSERT_TRUE(*manager->save(1, overlarge_save()));
    EXPECT_TRUE(fails(manager->restore(1), ErrorCode::kNotFound)) << "waits for the failure";
  }
  const std::string shown = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(shown.find("step 1"), std::string::npos) << shown;
  EXPECT_NE(shown.find(path().string()), std::string::npos) << shown;
}

TEST_F(CheckpointManagerTest, AnExistingStepIsNotSavedAgain) {
  const auto manager = open();
  ASSERT_TRUE(*manager->save(1, save_of(1)));
  for (const bool force : {false, true}) {
    EXPECT_TRUE(fails(manager->save(1, save_of(9), {.force = force}), ErrorCode::kAlreadyExists,
                      {"step 1", path().string()}));
  }
  EXPECT_EQ(*manager->restore(1), tree_of(1));
}

TEST_F(CheckpointManagerTest, AStepOverTheLimitIsRefused) {
  const auto manager = open();
  EXPECT_TRUE(fails(manager->save(limits::kStepMax + 1, save_of(1)), ErrorCode::kLimit,
                    {"9223372036854775808"}));
  EXPECT_EQ(manager->all_steps(), Steps{});
}

TEST_F(CheckpointManagerTest, DeletesOneStep) {
  const auto manager = open();
  for (std::uint64_t step = 0; step < 3; ++step) ASSERT_TRUE(*manager->save(step, save_of(step)));
  ASSERT_TRUE(is_ok(manager->delete_step(1)));
  EXPECT_EQ(manager->all_steps(), (Steps{0, 2}));
  EXPECT_TRUE(
      fails(manager->delete_step(1), ErrorCode::kNotFound, {"step 1", "it has steps 0, 2"}));
  ASSERT_TRUE(*manager->save(1, save_of(11))) << "its number is free again";
  EXPECT_EQ(*manager->restore(1), tree_of(11));
}

TEST_F(CheckpointManagerTest, CloseIsIdempotentAndEverythingAfterIsClosed) {
  const auto manager = open();
  ASSERT_TRUE(*manager->save(1, save_of(1)));
  EXPECT_TRUE(is_ok(manager->close()));
  EXPECT_TRUE(is_ok(manager->close()));
  const std::string where = path().string();
  EXPECT_TRUE(fails(manager->save(2, save_of(2)), ErrorCode::kClosed, {where}));
  EXPECT_TRUE(fails(manager->restore(1), ErrorCode::kClosed, {where}));
  EXPECT_TRUE(fails(manager->restore(std::nullopt), ErrorCode::kClosed, {where}));
  EXPECT_TRUE(fails(manager->delete_step(1), ErrorCode::kClosed, {where}));
  EXPECT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_TRUE(is_ok(manager->check_for_errors()));
  EXPECT_EQ(manager->all_steps(), Steps{});
  EXPECT_EQ(manager->latest_step(), std::nullopt);
  EXPECT_EQ(manager->directory(), path());
  // The lock is free: it can be opened again beside the closed one.
  EXPECT_EQ(open()->all_steps(), Steps{1});
}

TEST_F(CheckpointManagerTest, ReadOnlyRefusesWrites) {
  {
    const auto writer = open();
    ASSERT_TRUE(*writer->save(1, save_of(1)));
  }
  const auto manager = open({.read_only = true});
  EXPECT_TRUE(
      fails(manager->save(2, save_of(2)), ErrorCode::kReadOnly, {"step 2", path().string()}));
  EXPECT_TRUE(fails(manager->delete_step(1), ErrorCode::kReadOnly, {path().string()}));
  EXPECT_EQ(*manager->restore(std::nullopt), tree_of(1));
  EXPECT_TRUE(is_ok(manager->close()));
}

TEST_F(CheckpointManagerTest, AReaderBesideAWriterSeesTheStepsCommittedBeforeItOpened) {
  const auto writer = open();
  ASSERT_TRUE(*writer->save(1, save_of(1)));
  ASSERT_TRUE(is_ok(writer->wait_until_finished()));
  const auto reader = open({.read_only = true});
  ASSERT_TRUE(*writer->save(2, save_of(2)));
  ASSERT_TRUE(is_ok(writer->wait_until_finished()));
  EXPECT_EQ(reader->all_steps(), Steps{1});
  EXPECT_EQ(*reader->restore(1), tree_of(1));
  EXPECT_EQ(open({.read_only = true})->all_steps(), (Steps{1, 2}));
}

TEST_F(CheckpointManagerTest, SeveralManagersOfOneProcessWriteToOneStore) {
  const auto manager = open();
  const auto second = open({.save_interval_steps = 5});
  ASSERT_TRUE(*manager->save(1, save_of(1)));
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(second->all_steps(), Steps{1});
  ASSERT_TRUE(*second->save(5, save_of(5)));
  EXPECT_EQ(*second->restore(1), tree_of(1));
  EXPECT_EQ(manager->all_steps(), (Steps{1, 5}));
  ASSERT_TRUE(is_ok(manager->close()));
  ASSERT_TRUE(*second->save(10, save_of(10))) << "its store is still open";
  ASSERT_TRUE(is_ok(second->close()));
  EXPECT_EQ(open()->all_steps(), (Steps{1, 5, 10}));
}

// A Store that was not opened by a manager stands for one of another process.
TEST_F(CheckpointManagerTest, AWriterBesideOneOfAnotherProcessIsTurnedAway) {
  OpenOptions options;
  options.create_if_missing = true;
  const auto other = Store::open(path(), options);
  ASSERT_TRUE(is_ok(other));
  EXPECT_TRUE(
      fails(CheckpointManager::open(path()), ErrorCode::kBusy, {path().string(), "read-only"}));
  ASSERT_TRUE(is_ok((*other)->close()));
  EXPECT_EQ(open()->all_steps(), Steps{});
}

TEST_F(CheckpointManagerTest, WithoutCreateADirectoryMustBeThere) {
  EXPECT_TRUE(fails(CheckpointManager::open(path(), {.create = false}), ErrorCode::kNotFound,
                    {path().string()}));
  EXPECT_TRUE(fails(CheckpointManager::open(path(), {.read_only = true}), ErrorCode::kNotFound,
                    {path().string()}));
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(CheckpointManagerTest, OptionsThatCannotBeMeantAreRefused) {
  EXPECT_TRUE(fails(CheckpointManager::open(path(), {.save_interval_steps = 0}),
                    ErrorCode::kInvalidArgument, {"save_interval_steps", "at least 1"}));
  EXPECT_TRUE(fails(CheckpointManager::open(path(), {.max_to_keep = 0}),
                    ErrorCode::kInvalidArgument, {"max_to_keep", "unset"}));
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(CheckpointManagerTest, MetricsAndMetadataAreKeptWithTheStep) {
  {
    const auto manager = open();
    ASSERT_TRUE(*manager->save(1, save_of(1),
                               {.metrics = R"({"loss": 0.5})", .custom_metadata = R"({"a": 1})"}));
  }
  const auto store = Store::open(path(), {.read_only = true});
  ASSERT_TRUE(is_ok(store));
  const auto record = (*store)->step_record(1);
  ASSERT_TRUE(is_ok(record));
  EXPECT_EQ(record->metrics, R"({"loss": 0.5})");
  EXPECT_EQ(record->custom_metadata, R"({"a": 1})");
}

TEST_F(CheckpointManagerTest, ServesManyThreadsAtOnce) {
  const auto manager = open({.max_to_keep = 4});
  ASSERT_TRUE(*manager->save(0, save_of(0)));
  constexpr std::uint64_t kStepsPerThread = 12;
  std::atomic<int> failure_count = 0;
  const auto expect = [&](bool is_right) {
    if (!is_right) ++failure_count;
  };
  std::vector<std::thread> threads;
  for (std::uint64_t writer = 0; writer < 2; ++writer) {
    threads.emplace_back([&, writer] {
      for (std::uint64_t i = 1; i <= kStepsPerThread; ++i) {
        const std::uint64_t step = 2 * i + writer;
        const auto saved = manager->save(step, save_of(step));
        expect(saved && *saved);
      }
    });
  }
  for (int reader = 0; reader < 3; ++reader) {
    threads.emplace_back([&] {
      for (std::uint64_t i = 0; i < 2 * kStepsPerThread; ++i) {
        const auto newest = manager->restore(std::nullopt);
        expect(newest && *newest == tree_of(static_cast<std::uint64_t>(
                                        *newest->find("step")->get_if<std::int64_t>())));
        for (const std::uint64_t step : manager->all_steps()) {
          const auto restored = manager->restore(step);
          // It may have been retired meanwhile; half of it may never be seen.
          expect(restored ? *restored == tree_of(step)
                          : restored.error().code == ErrorCode::kNotFound);
        }
        expect(manager->latest_step().has_value());
        expect(manager->should_save(i));
        static_cast<void>(manager->is_saving_in_progress());
        expect(manager->check_for_errors().has_value());
        if (i % 8 == 0) expect(manager->wait_until_finished().has_value());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failure_count, 0);
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(manager->all_steps().size(), 4U);
}

TEST_F(CheckpointManagerTest, MayBeClosedWhileOthersAsk) {
  const auto manager = open();
  ASSERT_TRUE(*manager->save(1, save_of(1)));
  std::atomic<bool> is_closed = false;
  std::atomic<int> failure_count = 0;
  std::vector<std::thread> threads;
  threads.reserve(2);
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!is_closed) {
        static_cast<void>(manager->should_save(2));
        const Steps steps = manager->all_steps();
        if (!steps.empty() && steps != Steps{1}) ++failure_count;
        const auto restored = manager->restore(1);
        if (!restored && restored.error().code != ErrorCode::kClosed) ++failure_count;
      }
    });
  }
  // A restore that is under way keeps the store open; in the end the close gets through.
  Result<void> closed = manager->close();
  while (!closed && closed.error().code == ErrorCode::kBusy) closed = manager->close();
  is_closed = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(is_ok(closed));
  EXPECT_EQ(failure_count, 0);
}

TEST_F(CheckpointManagerTest, AHeldStepStaysReadableBeyondTheCloseAndKeepsTheStoreOpen) {
  auto manager = open();
  ASSERT_TRUE(*manager->save(1, save_of(1)));
  std::optional<HeldStep> held = std::move(*manager->hold(1));
  EXPECT_TRUE(is_ok(manager->close()));
  manager.reset();
  EXPECT_EQ(*held->restore(), tree_of(1));
  EXPECT_TRUE(fails(Store::open(path(), {}), ErrorCode::kBusy)) << "it is open through the step";
  held.reset();
  EXPECT_TRUE(is_ok(Store::open(path(), {})));
}

TEST_F(CheckpointManagerTest, OldStepsAreCompressedInTheBackground) {
  const CheckpointManagerOptions options = {
      .storage = {.compression = Compression::kNone, .recompress_older_than = 1}};
  const auto zeros = [](double last) {
    std::vector<double> numbers(std::size_t{1} << 17);
    numbers.back() = last;
    return Tree::dict({{"w", array_of(numbers)}});
  };
  // From outside the manager, so that a step may be replaced between opening and reading: not yet.
  const auto is_compressed = [&](std::uint64_t step) {
    const auto store = Store::open(path(), {.read_only = true});
    if (!store) return false;
    const auto reader = (*store)->read_step(step);
    if (!reader) return false;
    const auto leaves = (*reader)->read_leaves("default");
    return leaves && !leaves->front().record.codecs.empty();
  };
  for (std::uint64_t step = 1; step <= 2; ++step) {
    const auto manager = open(options);
    ASSERT_TRUE(is_ok(manager->save(step, args::StandardSave(zeros(static_cast<double>(step))))));
    ASSERT_TRUE(is_ok(manager->close()));
  }
  // Step 2 shares nearly all of step 1, which is left alone because of that; a third that shares
  // nothing sets both free.
  const auto manager = open(options);
  ASSERT_TRUE(is_ok(manager->save(3, overlarge_save())));
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  // A bound only for the case that it never happens.
  const auto bound = std::chrono::steady_clock::now() + std::chrono::minutes(2);
  while (!is_compressed(1) || !is_compressed(2)) {
    ASSERT_LT(std::chrono::steady_clock::now(), bound);
    std::this_thread::yield();
  }
  EXPECT_FALSE(is_compressed(3));
  EXPECT_EQ(*manager->restore(1), zeros(1));
  EXPECT_EQ(*manager->restore(2), zeros(2));
}

// Two leaves of zeros, which compress to nothing, and are equal.
TEST_F(CheckpointManagerTest, StorageOptionsReachTheEngine) {
  const auto stored_bytes = [&](const StorageOptions& storage) {
    const auto manager =
        open({.max_to_keep = 1, .enable_async_checkpointing = false, .storage = storage});
    const std::uint64_t step = manager->latest_step().value_or(0) + 1;
    const Tree zeros =
        Tree::dict({{"params", Tree::dict({{"w", *Array::zeros(DType::kFloat32, {kMiB})}})},
                    {"opt", Tree::dict({{"mu", *Array::zeros(DType::kFloat32, {kMiB})}})}});
    EXPECT_TRUE(is_ok(manager->save(step, args::StandardSave(zeros))));
    EXPECT_TRUE(is_ok(manager->restore(step)));
    EXPECT_EQ(*manager->restore(step), zeros);
    return manager->last_save_statistics()->stored_bytes;
  };
  const std::uint64_t leaf_bytes = 4 * kMiB;
  EXPECT_GE(stored_bytes({.compression = Compression::kNone, .share = false}), 2 * leaf_bytes);
  EXPECT_LT(stored_bytes({.compression = Compression::kAlways, .share = false}), leaf_bytes / 8);
  const std::uint64_t one_of_them = stored_bytes(
      {.compression = Compression::kAlways,
       .compression_rules = {{"opt/*", Compression::kNone}, {"*", Compression::kAlways}},
       .share = false});
  EXPECT_GE(one_of_them, leaf_bytes);
  EXPECT_LT(one_of_them, leaf_bytes * 3 / 2);
  // The last step has them.
  EXPECT_LT(stored_bytes({.compression = Compression::kNone}), leaf_bytes / 8);
}

}  // namespace
}  // namespace stepstone
