// Several at once: processes that open one store, and threads that save to it.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/store.h"
#include "tests/crash/commit.h"
#include "tests/crash/settings.h"
#include "tests/crash/workloads.h"
#include "tests/support/child_process.h"
#include "tests/support/model.h"
#include "tests/support/simulated_disk.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

ChildProcess::End killed(ChildProcess& child) {
  child.kill();
  return child.wait();
}

TEST(Processes, ASecondWriterIsTurnedAwayUntilTheFirstIsKilled) {
  const TemporaryDirectory temporary;
  const std::string directory = (temporary.path() / "store").string();
  ChildProcess holder({"--child", "save", directory, "1", "0"});
  ASSERT_EQ(holder.read_line(), "open");
  OpenOptions options;
  options.create_if_missing = true;
  const auto second = Store::open(directory, options);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, ErrorCode::kBusy) << second.error().message;
  ASSERT_TRUE(killed(holder).by_signal);
  const auto third = Store::open(directory, options);
  ASSERT_TRUE(third.has_value()) << third.error().message;
  const auto within_one_process = Store::open(directory, options);
  ASSERT_FALSE(within_one_process.has_value());
  EXPECT_EQ(within_one_process.error().code, ErrorCode::kBusy)
      << within_one_process.error().message;
}

// The commits of a child, as its report tells of them: what a reader may see at any time is the
// store after one of them.
class History {
 public:
  explicit History(std::uint64_t seed) : seed_(seed) { models_.emplace_back(); }

  // Takes what the child has reported by now.
  std::string read(ChildProcess& child) {
    while (const std::optional<std::string> line = child.read_line_within(0)) {
      if (*line == "done") {
        acknowledged_ = models_.size() - 1;
      } else if (line->starts_with("try ")) {
        models_.push_back(models_.back());
        update(models_.back(), from_line(*line, seed_));
      } else if (*line != "open") {
        return *line;
      }
    }
    return "";
  }

  std::size_t acknowledged() const { return acknowledged_; }
  // Whether `model` was there after one of the commits from `first` on.
  bool has(const Model& model, std::size_t first) const {
    for (std::size_t i = first; i < models_.size(); ++i) {
      if (models_[i] == model) return true;
    }
    return false;
  }
  const Model& newest() const { return models_.back(); }

 private:
  const std::uint64_t seed_;
  std::deque<Model> models_;
  std::size_t acknowledged_ = 0;  // The index of the model after the last one.
};

// Goal: a reader in another process sees the store as one commit left it, not older than the last
// one acknowledged before it opened, and every step whole; a step that is retired under it is
// either still readable or honestly gone. Method: open, look and verify again and again beside a
// child that saves, overwrites and retires as fast as it can.
TEST(Processes, ReadersSeeWholeStepsWhileAnotherSavesAndRetires) {
  const std::uint64_t seed = crash_seed();
  const TemporaryDirectory temporary;
  const std::string directory = (temporary.path() / "store").string();
  ChildProcess writer({"--child", "save", directory, std::to_string(seed), "0"});
  ASSERT_EQ(writer.read_line(), "open");
  History history(seed);
  OpenOptions options;
  options.read_only = true;
  std::uint64_t whole = 0;
  std::uint64_t gone = 0;
  for (std::uint64_t round = 0; round < scaled(40); ++round) {
    SCOPED_TRACE(fmt::format("STEPSTONE_CRASH_SEED={} round {}", seed, round));
    ASSERT_EQ(history.read(writer), "");
    const std::size_t acknowledged = history.acknowledged();
    const auto store = Store::open(directory, options);
    ASSERT_TRUE(store.has_value()) << store.error().message;
    Model seen;
    for (const std::uint64_t step : (*store)->steps()) {
      const Result<StepRecord> record = (*store)->step_record(step);
      ASSERT_TRUE(record.has_value()) << record.error().message;
      const std::optional<ModelStep> identity = identify(*record);
      ASSERT_TRUE(identity.has_value());
      seen[step] = *identity;
    }
    for (const auto& [step, identity] : seen) {
      const Result<ModelStep> found = read_model_step(**store, step);
      if (found) {
        EXPECT_EQ(*found, identity);
        ++whole;
        continue;
      }
      ++gone;
      EXPECT_EQ(found.error().code, ErrorCode::kNotFound) << found.error().message;
      ASSERT_EQ(history.read(writer), "");
      const auto now = history.newest().find(step);
      EXPECT_TRUE(now == history.newest().end() || now->second != identity)
          << "still there: " << found.error().message;
    }
    if (round % 2 == 0) {
      const Result<VerifyReport> report = (*store)->verify();
      ASSERT_TRUE(report.has_value()) << report.error().message;
      EXPECT_TRUE(report->damages.empty()) << report->damages.front().message;
    }
    ASSERT_EQ(history.read(writer), "");
    EXPECT_TRUE(history.has(seen, acknowledged)) << to_string(seen);
    if (::testing::Test::HasFailure()) break;
  }
  std::printf("%llu steps read whole beside a writer, %llu gone meanwhile\n",
              static_cast<unsigned long long>(whole), static_cast<unsigned long long>(gone));
  EXPECT_GT(whole, 0U);
  EXPECT_TRUE(killed(writer).by_signal);
}

// A reader must not disturb a writer, and must be able to work on a disk that takes no writes.
TEST(Processes, AReaderChangesNothingInTheDirectory) {
  const TemporaryDirectory temporary;
  const std::filesystem::path directory = temporary.path() / "store";
  OpenOptions options;
  options.create_if_missing = true;
  {
    const auto store = Store::open(directory, options);
    ASSERT_TRUE(store.has_value()) << store.error().message;
    ASSERT_TRUE(save_model_step(**store, {.step = 1, .size = StepSize::kSegment}).has_value());
    ASSERT_TRUE(save_model_step(**store, {.step = 2, .size = StepSize::kTiny}).has_value());
  }
  const auto look = [&] {
    std::map<std::string, std::filesystem::file_time_type> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
      files[entry.path().string()] = entry.last_write_time();
    }
    return files;
  };
  const auto before = look();
  {
    OpenOptions read_only;
    read_only.read_only = true;
    const auto store = Store::open(directory, read_only);
    ASSERT_TRUE(store.has_value()) << store.error().message;
    EXPECT_EQ(read_model(**store).value().size(), 2U);
    EXPECT_TRUE((*store)->verify().value().damages.empty());
  }
  EXPECT_EQ(look(), before);
}

// Goal: of many that create one store at once, one gives it its identity, and all that get in work
// on that one. Method: threads on one simulated disk, which takes no notice of whose they are.
TEST(Processes, ManyThatCreateAtOnceMakeOneStore) {
  constexpr int kCreators = 4;
  std::uint64_t turned_away = 0;
  for (std::uint64_t round = 0; round < scaled(40); ++round) {
    const auto disk = std::make_shared<SimulatedDisk>();
    std::atomic<int> waiting = kCreators;
    std::vector<Result<void>> results(kCreators);
    std::vector<std::optional<ModelStep>> saved(kCreators);
    {
      std::vector<std::jthread> threads;
      for (int i = 0; i < kCreators; ++i) {
        threads.emplace_back([&, i] {
          const auto index = static_cast<std::size_t>(i);
          --waiting;
          while (waiting != 0) std::this_thread::yield();
          const auto store = open_on(disk);
          if (!store) {
            results[index] = tl::unexpected<Error>(store.error());
            return;
          }
          const ModelStep step{.step = index, .attempt = round};
          const auto record = save_model_step(**store, step);
          if (record) {
            saved[index] = step;
          } else {
            results[index] = tl::unexpected<Error>(record.error());
          }
        });
      }
    }
    Model model;
    for (std::size_t i = 0; i < kCreators; ++i) {
      if (saved[i]) model[i] = *saved[i];
      if (results[i]) continue;
      ++turned_away;
      EXPECT_EQ(results[i].error().code, ErrorCode::kBusy) << results[i].error().message;
    }
    const auto store = open_on(disk);
    ASSERT_TRUE(store.has_value()) << store.error().message;
    ASSERT_EQ(difference(**store, model), "") << "round " << round;
  }
  std::printf("%llu creators were turned away\n", static_cast<unsigned long long>(turned_away));
}

// Goal: saves that are prepared side by side do not disturb one another.
TEST(Processes, ThreadsThatSaveSideBySideAllSucceed) {
  constexpr std::uint64_t kThreads = 3;
  constexpr std::uint64_t kSaves = 20;
  const auto disk = std::make_shared<SimulatedDisk>();
  const auto store = open_on(disk);
  ASSERT_TRUE(store.has_value()) << store.error().message;
  std::vector<std::string> problems(kThreads);
  Model model;
  for (std::uint64_t i = 0; i < kThreads * kSaves; ++i) {
    model[i] = {.step = i, .size = static_cast<StepSize>(i % 3)};
  }
  {
    std::vector<std::jthread> threads;
    for (std::uint64_t thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([&, thread] {
        for (std::uint64_t i = thread; i < model.size(); i += kThreads) {
          const auto saved = save_model_step(**store, model.at(i));
          if (!saved) problems[thread] = saved.error().message;
        }
      });
    }
  }
  for (const std::string& problem : problems) EXPECT_EQ(problem, "");
  EXPECT_EQ(difference(**store, model), "");
}

}  // namespace
}  // namespace stepstone
