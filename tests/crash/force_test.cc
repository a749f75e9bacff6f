// A checkpoint that is replaced with `force`: whatever ends the replacing, a power loss or SIGKILL,
// the path holds the old checkpoint or the new one, whole, and from the moment the save has
// returned the new one.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "api/checkpoint_path.h"
#include "api/checkpoint_save.h"
#include "api/functions.h"
#include "api/tree_reader.h"
#include "tests/crash/settings.h"
#include "tests/support/child_process.h"
#include "tests/support/random.h"
#include "tests/support/simulated_disk.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using Unsynced = SimulatedDisk::Unsynced;

constexpr const char* kPath = "/runs/checkpoint";

// What the save of this number stores: from some bytes, which travel in the commit, to more than a
// segment's worth; half of it is what the save before had.
Tree content(std::uint64_t seed, std::uint64_t attempt) {
  constexpr std::size_t kSizes[] = {100, std::size_t{400} << 10, std::size_t{1} << 20};
  const std::size_t size = kSizes[Random(seed * 31 + attempt).below(3)];
  const auto bytes = [&](std::uint64_t source) {
    Random random(seed * 1'000'003 + source);
    std::vector<std::byte> made(size);
    for (std::byte& byte : made) byte = static_cast<std::byte>(random.below(256));
    return *Array::copy_bytes(DType::kUint8, {size}, made);
  };
  return Tree::dict({{"attempt", static_cast<std::int64_t>(attempt)},
                     {"new", bytes(2 * attempt)},
                     {"old", bytes(attempt / 2 * 2 + 1)}});
}

// As Checkpointer::save() does it, on this disk.
Result<void> save_on(const std::shared_ptr<SimulatedDisk>& disk, const Tree& tree, bool force) {
  const auto save = STEPSTONE_TRY(CheckpointSave::begin(
      kPath, args::StandardSave(tree), HandlerRegistry::defaults(), {.force = force}, disk));
  return save->finish();
}

// nullopt: there is no checkpoint.
Result<std::optional<Tree>> load_from(const std::shared_ptr<SimulatedDisk>& disk) {
  OpenOptions options;
  options.read_only = true;
  options.file_system = disk;
  const auto store = Store::open(kPath, options);
  if (!store && store.error().code == ErrorCode::kNotFound) return std::optional<Tree>();
  if (!store) return tl::unexpected<Error>(store.error());
  if ((*store)->steps().empty()) return std::optional<Tree>();
  const auto reader = STEPSTONE_TRY((*store)->read_step(kOnlyStep));
  return std::optional<Tree>(STEPSTONE_TRY(read_tree(*reader, kDefaultItem)));
}

struct RecordedSave {
  std::size_t begun_at = 0;  // The disk's operation count.
  std::size_t ended_at = 0;
  Tree tree;
};

// What a disk that was struck after so many operations may hold.
std::vector<std::optional<Tree>> allowed_at(const std::vector<RecordedSave>& saves,
                                            std::size_t operation_count) {
  std::vector<std::optional<Tree>> allowed = {std::nullopt};
  for (const RecordedSave& save : saves) {
    if (save.ended_at <= operation_count) {
      allowed = {save.tree};
    } else if (save.begun_at <= operation_count) {
      allowed.emplace_back(save.tree);
    }
  }
  return allowed;
}

std::string to_string(const std::optional<Tree>& tree) {
  if (!tree) return "none";
  return std::to_string(*tree->find("attempt")->get_if<std::int64_t>());
}

// Empty, or what is wrong with a disk that was struck.
std::string check(const std::shared_ptr<SimulatedDisk>& disk,
                  const std::vector<std::optional<Tree>>& allowed, std::uint64_t seed) {
  const auto found = load_from(disk);
  if (!found) return "loading failed: " + found.error().message;
  if (std::find(allowed.begin(), allowed.end(), *found) == allowed.end()) {
    std::string text = "it holds the checkpoint " + to_string(*found) + " instead of";
    for (const auto& tree : allowed) text += " " + to_string(tree);
    return text;
  }
  const Tree next = content(seed, 1000);
  if (const Result<void> saved = save_on(disk, next, true); !saved) {
    return "the next save failed: " + saved.error().message;
  }
  const auto after =
      load_from(disk->after_power_loss(disk->operation_count(), Unsynced::kLost, seed));
  if (!after) return "loading after the next save failed: " + after.error().message;
  return *after == next ? "" : "after the next save it holds " + to_string(*after);
}

// Goal: until a save with force is durable, the checkpoint that was there is. Method: several such
// saves on a simulated disk, and the power lost after each operation, or a seeded sample of them,
// with nothing, everything and some of what was not synced kept.
TEST(Force, APowerLossLeavesTheOldCheckpointOrTheNewOne) {
  const std::uint64_t seed = crash_seed();
  const auto disk = std::make_shared<SimulatedDisk>();
  std::vector<RecordedSave> saves;
  for (std::uint64_t attempt = 0; attempt < 6; ++attempt) {
    RecordedSave save{.begun_at = disk->operation_count(), .tree = content(seed, attempt)};
    const Result<void> saved = save_on(disk, save.tree, attempt > 0);
    ASSERT_TRUE(saved.has_value()) << saved.error().message;
    save.ended_at = disk->operation_count();
    saves.push_back(std::move(save));
  }
  Random random(seed);
  const std::size_t operation_count = disk->operation_count();
  const std::uint64_t state_count = scaled(150);
  std::uint64_t replaced_count = 0;
  for (std::uint64_t state = 0; state < state_count; ++state) {
    const std::size_t at = random.below(operation_count + 1);
    const auto unsynced = static_cast<Unsynced>(random.below(4));
    const std::uint64_t state_seed = random.next();
    const std::string name = fmt::format(
        "STEPSTONE_CRASH_SEED={}, power lost after operation {} of {} ({}), unsynced {}, "
        "state seed {}",
        seed, at, operation_count, at == 0 ? "nothing" : disk->describe(at - 1),
        static_cast<int>(unsynced), state_seed);
    note_state(name);
    const auto allowed = allowed_at(saves, at);
    if (allowed.front() && allowed.size() > 1) ++replaced_count;
    ASSERT_EQ(check(disk->after_power_loss(at, unsynced, state_seed), allowed, state_seed), "")
        << name;
  }
  std::printf("%llu states of a disk of %zu operations, %llu while a checkpoint was replaced\n",
              static_cast<unsigned long long>(state_count), operation_count,
              static_cast<unsigned long long>(replaced_count));
  EXPECT_GT(replaced_count, state_count / 4);
}

}  // namespace

// Arguments: path, seed, number of the first save.
int run_forcing_child(const std::vector<std::string>& arguments) {
  const std::uint64_t seed = std::stoull(arguments.at(1));
  for (std::uint64_t attempt = std::stoull(arguments.at(2));; ++attempt) {
    const Tree tree = content(seed, attempt);
    report_line(fmt::format("try {}", attempt));
    if (const Result<void> saved = save(arguments.at(0), tree, {.force = true}); !saved) {
      report_line("failed: " + saved.error().message);
      return 1;
    }
    report_line(fmt::format("done {}", attempt));
  }
}

namespace {

// Goal: the same for a process that is killed at any moment. Method: children that replace one
// checkpoint over and over, each killed at a random moment; after each the path is loaded.
TEST(Force, SigkillLeavesTheOldCheckpointOrTheNewOne) {
  const std::uint64_t seed = crash_seed();
  const std::uint64_t kill_count = scaled(40);
  const TemporaryDirectory temporary;
  const std::filesystem::path path = temporary.path() / "checkpoint";
  Random random(seed);
  std::optional<std::uint64_t> done;
  std::optional<std::uint64_t> tried;
  std::uint64_t killed_in_save = 0;
  for (std::uint64_t kill = 0; kill < kill_count; ++kill) {
    SCOPED_TRACE(fmt::format("STEPSTONE_CRASH_SEED={} kill {}", seed, kill));
    ChildProcess child({"--child", "force", path.string(), std::to_string(seed),
                        std::to_string(tried ? *tried + 1 : 0)});
    const auto take = [&](const std::string& line) {
      if (line.starts_with("try ")) {
        tried = std::stoull(line.substr(4));
      } else if (line.starts_with("done ")) {
        done = std::stoull(line.substr(5));
      } else {
        ADD_FAILURE() << line;
      }
    };
    for (std::uint64_t lines = 1 + random.below(6); lines > 0; --lines) {
      const std::optional<std::string> line = child.read_line();
      ASSERT_TRUE(line.has_value()) << "the child ended by itself";
      take(*line);
    }
    // The moment is the test's subject, nothing waits for anything here.
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(20'000)));
    child.kill();
    const ChildProcess::End end = child.wait();
    ASSERT_TRUE(end.by_signal && end.number == 9) << "the child ended by itself: " << end.number;
    while (const std::optional<std::string> line = child.read_line()) take(*line);
    ASSERT_FALSE(HasFailure());
    const bool was_saving = done != tried;
    if (was_saving) ++killed_in_save;

    const Result<Tree> found = load(path);
    if (!found) {
      ASSERT_FALSE(done.has_value()) << found.error().message;
      ASSERT_EQ(found.error().code, ErrorCode::kNotFound) << found.error().message;
      continue;
    }
    const bool is_old = done && *found == content(seed, *done);
    const bool is_new = was_saving && *found == content(seed, *tried);
    ASSERT_TRUE(is_old || is_new) << "it holds " << to_string(*found) << " after " << *tried;
    if (is_new) done = tried;
  }
  std::printf("%llu kills, %llu in a save\n", static_cast<unsigned long long>(kill_count),
              static_cast<unsigned long long>(killed_in_save));
  EXPECT_GT(killed_in_save, kill_count / 4);
}

}  // namespace
}  // namespace stepstone
