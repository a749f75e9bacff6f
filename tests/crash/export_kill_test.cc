// SIGKILL during an export. A child exports in a loop to one name, announces each export on a pipe
// before it begins and acknowledges it after; the parent kills it at random moments. The name then
// leads to the file that was acknowledged last, or to the one that was announced, whole.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/transfer.h"
#include "tests/crash/settings.h"
#include "tests/support/child_process.h"
#include "tests/support/engine_steps.h"
#include "tests/support/random.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using stepstone::testing::holds_arrays;
using stepstone::testing::save_arrays;

// Large enough to be written past the page cache.
const std::vector<std::size_t> kExportedSizes = {100, std::size_t{7} << 20, 300'000,
                                                 std::size_t{5} << 20};
constexpr std::uint64_t kStepCount = 3;

Result<ExportCounters> export_step(const Store& store, const std::filesystem::path& file,
                                   std::uint64_t step, bool overwrite) {
  ExportOptions options;
  options.steps = {{step}};
  options.overwrite = overwrite;
  return store.export_steps(file, options);
}

// Which step the file holds; 0: there is no file. nullopt: something else.
std::optional<std::uint64_t> step_in(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) return 0;
  const auto store = Store::open(file, {});
  if (!store) return std::nullopt;
  const auto report = (*store)->verify();
  if (!report || !report->damages.empty()) return std::nullopt;
  const std::vector<std::uint64_t> steps = (*store)->steps();
  if (steps.size() != 1) return std::nullopt;
  const auto holds = holds_arrays(**store, steps.front(), 1, kExportedSizes);
  return holds && *holds ? std::optional(steps.front()) : std::nullopt;
}

// Deletes what a killed export left beside the name. Returns how many files that were.
std::size_t delete_partials(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> partials;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().filename().string().starts_with("x.stone.partial-")) {
      partials.push_back(entry.path());
    }
  }
  for (const std::filesystem::path& partial : partials) std::filesystem::remove(partial);
  return partials.size();
}

}  // namespace

// Arguments: the store, the file, the number of this child.
int run_exporting_child(const std::vector<std::string>& arguments) {
  OpenOptions options;
  options.read_only = true;
  const auto store = Store::open(arguments.at(0), options);
  if (!store) {
    report_line("failed to open: " + store.error().message);
    return 1;
  }
  report_line("open");
  for (std::uint64_t i = std::stoull(arguments.at(2));; ++i) {
    const std::uint64_t step = 1 + i % kStepCount;
    report_line(fmt::format("try {}", step));
    const auto exported = export_step(**store, arguments.at(1), step, /*overwrite=*/true);
    if (!exported) {
      report_line("failed to export: " + exported.error().message);
      return 1;
    }
    report_line(fmt::format("done {}", step));
  }
}

namespace {

// Goal: whenever an export is killed, its name leads to nothing or to a whole file, and to the old
// one until the new one is whole. Method: kills at random moments; half of the children begin
// without a file.
TEST(ExportKill, TheNameLeadsToAWholeFile) {
  const std::uint64_t seed = crash_seed();
  const std::uint64_t kills = scaled(40);
  const TemporaryDirectory temporary;
  const std::filesystem::path directory = temporary.path() / "run";
  const std::filesystem::path exports = temporary.path() / "exports";
  const std::filesystem::path file = exports / "x.stone";
  std::filesystem::create_directory(exports);
  OpenOptions options;
  options.create_if_missing = true;
  const auto store = Store::open(directory, options);
  ASSERT_TRUE(store.has_value()) << store.error().message;
  for (std::uint64_t step = 1; step <= kStepCount; ++step) {
    ASSERT_TRUE(save_arrays(**store, step, 1, kExportedSizes));
  }
  Random random(seed);
  std::uint64_t killed_in_export = 0;
  std::uint64_t left_count = 0;
  std::uint64_t acknowledged = 0;
  std::uint64_t held = 0;
  for (std::uint64_t kill = 0; kill < kills; ++kill) {
    SCOPED_TRACE(fmt::format("STEPSTONE_CRASH_SEED={} kill {}", seed, kill));
    if (random.one_in(2)) {
      std::filesystem::remove(file);
      held = 0;
    }
    std::uint64_t pending = 0;
    const auto take = [&](const std::string& line) {
      if (line.starts_with("try ")) {
        pending = std::stoull(line.substr(4));
      } else if (line.starts_with("done ")) {
        held = std::exchange(pending, 0);
        ++acknowledged;
      }
      return line == "open" || line.starts_with("try ") || line.starts_with("done ");
    };
    ChildProcess child(
        {"--child", "export", directory.string(), file.string(), std::to_string(kill)});
    const std::uint64_t lines = 1 + random.below(4);
    for (std::uint64_t i = 0; i < lines; ++i) {
      const std::optional<std::string> line = child.read_line();
      ASSERT_TRUE(line.has_value()) << "the child ended by itself";
      ASSERT_TRUE(take(*line)) << *line;
    }
    // The moment is the test's subject, nothing waits for anything here.
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(30'000)));
    child.kill();
    const ChildProcess::End end = child.wait();
    ASSERT_TRUE(end.by_signal && end.number == 9) << "the child ended by itself: " << end.number;
    while (const std::optional<std::string> line = child.read_line()) {
      ASSERT_TRUE(take(*line)) << *line;
    }
    if (pending != 0) ++killed_in_export;
    const std::size_t partials = delete_partials(exports);
    left_count += partials;
    EXPECT_LE(partials, 1U);
    const std::optional<std::uint64_t> found = step_in(file);
    ASSERT_TRUE(found.has_value()) << "it holds something else than one whole step";
    EXPECT_TRUE(*found == held || (pending != 0 && *found == pending)) << *found;
    held = *found;
  }
  std::printf(
      "%llu kills, %llu in an export, %llu left a partial file; %llu acknowledged\n",
      static_cast<unsigned long long>(kills), static_cast<unsigned long long>(killed_in_export),
      static_cast<unsigned long long>(left_count), static_cast<unsigned long long>(acknowledged));
  EXPECT_GT(killed_in_export, kills / 4);
  EXPECT_GT(left_count, 0U);

  ASSERT_TRUE(export_step(**store, file, 1, /*overwrite=*/true));
  EXPECT_EQ(delete_partials(exports), 0U);
  EXPECT_EQ(step_in(file), 1U);
}

}  // namespace
}  // namespace stepstone
