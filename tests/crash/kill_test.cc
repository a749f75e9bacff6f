// SIGKILL at random moments. A child saves, overwrites and retires in a loop, announces each commit
// on a pipe before it begins and acknowledges it after; the parent kills it, and holds the store
// against what was announced and acknowledged: all acknowledged commits are there, the announced
// one wholly or not at all, and nothing else.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <rocksdb/file_system.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/store.h"
#include "tests/crash/commit.h"
#include "tests/crash/settings.h"
#include "tests/support/child_process.h"
#include "tests/support/database_files.h"
#include "tests/support/model.h"
#include "tests/support/random.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

// Anything the store may show now: `model`, or, while a commit is under way, what it would make of
// it.
struct Expectation {
  Model model;
  std::optional<Commit> pending;
};

// Reads the child's report into `expectation`; false: it had something to complain of.
bool take_line(const std::string& line, std::uint64_t seed, Expectation& expectation) {
  if (line == "open") return true;
  if (line == "done") {
    update(expectation.model, expectation.pending.value());
    expectation.pending.reset();
    return true;
  }
  if (!line.starts_with("try ")) return false;
  expectation.pending = from_line(line, seed);
  return true;
}

// Opens the store as the next run of a trainer would, and checks it. Settles what became of the
// pending commit.
std::string check(const std::filesystem::path& directory, Expectation& expectation) {
  OpenOptions options;
  options.create_if_missing = true;
  Result<std::unique_ptr<Store>> store = Store::open(directory, options);
  if (!store) return "open failed: " + store.error().message;
  const Result<Model> found = read_model(**store);
  if (!found) return "reading failed: " + found.error().message;
  if (expectation.pending && *found != expectation.model) {
    update(expectation.model, *expectation.pending);
  }
  expectation.pending.reset();
  if (std::string text = difference(**store, expectation.model); !text.empty()) return text;
  (*store)->wait_for_collector();
  if (const Result<void> closed = (*store)->close(); !closed) return closed.error().message;
  if (std::string text = stray_files(rocksdb::FileSystem::Default(), directory.string());
      !text.empty()) {
    return text;
  }
  return "";
}

}  // namespace

// Arguments: directory, seed, number of this child.
int run_saving_child(const std::vector<std::string>& arguments) {
  const std::filesystem::path directory = arguments.at(0);
  const std::uint64_t seed = std::stoull(arguments.at(1));
  const std::uint64_t number = std::stoull(arguments.at(2));
  Random random(seed * 1'000'003 + number);
  OpenOptions options;
  options.create_if_missing = true;
  const Result<std::unique_ptr<Store>> store = Store::open(directory, options);
  if (!store) {
    report_line("failed to open: " + store.error().message);
    return 1;
  }
  report_line("open");
  for (std::uint64_t i = 0;; ++i) {
    const Commit commit = draw_commit((*store)->steps(), seed, number * 100'000 + i, random);
    report_line(to_line(commit));
    if (const Result<void> result = carry_out(**store, commit); !result) {
      report_line("failed to commit: " + result.error().message);
      return 1;
    }
    report_line("done");
  }
}

namespace {

// Goal: no acknowledged step is ever lost or half there, whenever the trainer dies. Method: 200
// kills, all on one directory that is never cleaned; after each, the store is compared with the
// oracle, one more save is made, and the next child takes over.
TEST(Kill, AcknowledgedStepsSurviveSigkillAtAnyMoment) {
  const std::uint64_t seed = crash_seed();
  const std::uint64_t kills = scaled(200);
  const TemporaryDirectory temporary;
  const std::filesystem::path directory = temporary.path() / "store";
  Random random(seed);
  Expectation expectation;
  std::uint64_t acknowledged = 0;
  std::uint64_t killed_in_commit = 0;
  std::uint64_t killed_while_opening = 0;
  for (std::uint64_t kill = 0; kill < kills; ++kill) {
    SCOPED_TRACE(fmt::format("STEPSTONE_CRASH_SEED={} kill {}", seed, kill));
    {
      ChildProcess child(
          {"--child", "save", directory.string(), std::to_string(seed), std::to_string(kill)});
      // One in eight dies while it opens the store; the others some commits later, at any point of
      // one.
      const std::uint64_t lines = random.one_in(8) ? 0 : 1 + random.below(20);
      for (std::uint64_t i = 0; i < lines; ++i) {
        const std::optional<std::string> line = child.read_line();
        ASSERT_TRUE(line.has_value()) << "the child ended by itself";
        ASSERT_TRUE(take_line(*line, seed, expectation)) << *line;
        if (*line == "done") ++acknowledged;
      }
      // The moment is the test's subject, nothing waits for anything here.
      std::this_thread::sleep_for(std::chrono::microseconds(random.below(12'000)));
      child.kill();
      const ChildProcess::End end = child.wait();
      ASSERT_TRUE(end.by_signal && end.number == 9) << "the child ended by itself: " << end.number;
      bool was_open = lines != 0;
      while (const std::optional<std::string> line = child.read_line()) {
        ASSERT_TRUE(take_line(*line, seed, expectation)) << *line;
        if (*line == "done") ++acknowledged;
        was_open = true;
      }
      if (expectation.pending) ++killed_in_commit;
      if (!was_open) ++killed_while_opening;
    }
    ASSERT_EQ(check(directory, expectation), "");

    const Result<std::unique_ptr<Store>> store = Store::open(directory, {});
    ASSERT_TRUE(store.has_value()) << store.error().message;
    const std::vector<std::uint64_t> steps = (*store)->steps();
    const Commit next{.save = ModelStep{.seed = seed,
                                        .step = steps.empty() ? 0 : steps.back() + 1,
                                        .attempt = kill * 100'000 + 99'999,
                                        .size = draw_size(random)}};
    const Result<void> saved = carry_out(**store, next);
    ASSERT_TRUE(saved.has_value()) << saved.error().message;
    update(expectation.model, next);
    ASSERT_EQ(difference(**store, expectation.model), "");
  }
  std::printf("%llu kills, %llu in a commit, %llu while opening; %llu commits acknowledged\n",
              static_cast<unsigned long long>(kills),
              static_cast<unsigned long long>(killed_in_commit),
              static_cast<unsigned long long>(killed_while_opening),
              static_cast<unsigned long long>(acknowledged));
  EXPECT_GT(killed_in_commit, kills / 4);
}

}  // namespace
}  // namespace stepstone
