// Power loss after every operation. A workload runs on a simulated disk that remembers each change;
// for each moment in it the disk is rebuilt as a power loss might have left it, and the store
// opened there. It must show exactly the steps after the last acknowledged commit, or after the one
// that was under way; take another save; and keep that through one more power loss. Some states are
// struck again while they recover.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/store.h"
#include "tests/crash/settings.h"
#include "tests/crash/workloads.h"
#include "tests/support/database_files.h"
#include "tests/support/model.h"
#include "tests/support/random.h"
#include "tests/support/simulated_disk.h"

namespace stepstone {
namespace {

using Unsynced = SimulatedDisk::Unsynced;

struct Counts {
  std::uint64_t states = 0;
  std::uint64_t compound_states = 0;
};

std::string_view name_of(Unsynced unsynced) {
  switch (unsynced) {
    case Unsynced::kLost:
      return "nothing unsynced kept";
    case Unsynced::kKept:
      return "everything kept";
    case Unsynced::kOrdered:
      return "names in order, writes at random";
    case Unsynced::kArbitrary:
      return "names and writes at random";
  }
  return "?";
}

// What the store may show on a disk: one of these, and what the next save on it makes of that.
struct Allowed {
  std::vector<Model> models;
  bool is_created = false;  // Its creation was acknowledged.
};

bool contains(const std::vector<Model>& models, const Model& model) {
  for (const Model& each : models) {
    if (each == model) return true;
  }
  return false;
}

std::string to_string(const std::vector<Model>& models) {
  std::string text;
  for (const Model& model : models) text += (text.empty() ? "" : " or ") + to_string(model);
  return text;
}

class StateChecker {
 public:
  explicit StateChecker(Counts& counts) : counts_(counts) {}

  // Empty, or what is wrong.
  std::string check(const std::shared_ptr<SimulatedDisk>& disk, const Allowed& allowed,
                    Random& random, int depth) {
    ++(depth == 0 ? counts_.states : counts_.compound_states);
    if (random.one_in(4)) {
      if (std::string text = check_read_only(disk->copy(), allowed); !text.empty()) return text;
    }
    ModelStep next{.seed = 7, .attempt = 1'000'000 + random.below(1'000'000)};
    next.size = random.one_in(2) ? StepSize::kTiny : StepSize::kSegment;
    Model model;
    std::size_t operations_before_save = 0;
    {
      auto store = open_on(disk);
      if (!store) return "open failed: " + store.error().message;
      const Result<Model> found = read_model(**store);
      if (!found) return "reading failed: " + found.error().message;
      if (!contains(allowed.models, *found)) {
        return "the store shows " + to_string(*found) + " instead of " + to_string(allowed.models);
      }
      model = *found;
      if (std::string text = difference(**store, model); !text.empty()) return text;
      operations_before_save = disk->operation_count();
      next.step = model.empty() ? 0 : model.rbegin()->first + 1;
      const Result<StepRecord> saved = save_model_step(**store, next);
      if (!saved) return "the next save failed: " + saved.error().message;
      if (random.one_in(4)) {
        (*store)->wait_for_collector();
        if (const Result<void> closed = (*store)->close(); !closed) return closed.error().message;
        if (std::string text = stray_files(disk, kStorePath); !text.empty()) return text;
      }
    }
    Model after = model;
    after[next.step] = next;
    const auto survivor =
        disk->after_power_loss(disk->operation_count(), Unsynced::kLost, random.next());
    {
      auto store = open_on(survivor);
      if (!store) return "open after the next save failed: " + store.error().message;
      if (std::string text = difference(**store, after); !text.empty()) {
        return "after the next save: " + text;
      }
    }
    if (depth > 0 || !random.one_in(3)) return "";
    // Strike again, while it opens or saves.
    const std::size_t at = static_cast<std::size_t>(random.below(disk->operation_count() + 1));
    const auto unsynced = static_cast<Unsynced>(random.below(4));
    Allowed later = allowed;
    if (at > operations_before_save) later.models.push_back(after);
    if (std::string text =
            check(disk->after_power_loss(at, unsynced, random.next()), later, random, depth + 1);
        !text.empty()) {
      return fmt::format("struck again after operation {} of the recovery ({}; {}): {}", at,
                         at == 0 ? "nothing" : disk->describe(at - 1), name_of(unsynced), text);
    }
    return "";
  }

 private:
  static std::string check_read_only(const std::shared_ptr<SimulatedDisk>& disk,
                                     const Allowed& allowed) {
    OpenOptions options;
    options.read_only = true;
    options.file_system = disk;
    const auto store = Store::open(kStorePath, options);
    if (!store) {
      if (store.error().code == ErrorCode::kNotFound && !allowed.is_created) return "";
      return "opening read-only failed: " + store.error().message;
    }
    const Result<Model> found = read_model(**store);
    if (!found) return "reading read-only failed: " + found.error().message;
    if (!contains(allowed.models, *found)) {
      return "read-only, the store shows " + to_string(*found) + " instead of " +
             to_string(allowed.models);
    }
    return "";
  }

  Counts& counts_;
};

Allowed allowed_at(const Recording& recording, std::size_t operation_count) {
  Allowed allowed;
  for (std::size_t i = 0; i < recording.commits.size(); ++i) {
    const RecordedCommit& commit = recording.commits[i];
    const bool is_acknowledged = commit.acknowledged_at <= operation_count;
    if (is_acknowledged) {
      allowed.models = {commit.model};
      allowed.is_created = true;
    } else if (commit.begun_at <= operation_count) {
      allowed.models.push_back(commit.model);
    }
  }
  if (allowed.models.empty()) allowed.models.push_back({});
  return allowed;
}

class PowerLoss : public ::testing::TestWithParam<Workload> {};

// Goal: whatever the power loss leaves of unsynced changes, acknowledged commits hold and others
// happen wholly or not at all. Method: every operation of the workload, each with nothing kept,
// everything kept, and seeded choices in between, up to the budget of states.
TEST_P(PowerLoss, LeavesEveryAcknowledgedCommitAndNoHalfOne) {
  const std::uint64_t seed = crash_seed();
  const Workload& workload = GetParam();
  const auto disk = std::make_shared<SimulatedDisk>();
  Recording recording;
  {
    Recorder recorder(disk, recording, seed);
    ASSERT_EQ(workload.run(recorder), "") << "seed " << seed;
  }
  const std::size_t operation_count = disk->operation_count();
  Random random(seed);
  Counts counts;
  StateChecker checker(counts);

  struct State {
    std::size_t operation_count;
    Unsynced unsynced;
    std::uint64_t seed;
  };
  std::vector<State> states;
  for (std::size_t at = 0; at <= operation_count; ++at) {
    for (const Unsynced unsynced :
         {Unsynced::kLost, Unsynced::kKept, Unsynced::kOrdered, Unsynced::kOrdered,
          Unsynced::kArbitrary, Unsynced::kArbitrary, Unsynced::kArbitrary}) {
      states.push_back({at, unsynced, random.next()});
    }
  }
  // A seeded sample where the budget is smaller than the number of states.
  const std::uint64_t budget = crash_states_per_workload();
  for (std::size_t i = 0; i < states.size(); ++i) {
    std::swap(states[i], states[i + random.below(states.size() - i)]);
  }
  if (states.size() > budget) states.resize(budget);

  for (const State& state : states) {
    const std::string name = fmt::format(
        "STEPSTONE_CRASH_SEED={} workload {}, power lost after operation {} of {} ({}), {}, "
        "state seed {}",
        seed, workload.name, state.operation_count, operation_count,
        state.operation_count == 0 ? "nothing" : disk->describe(state.operation_count - 1),
        name_of(state.unsynced), state.seed);
    note_state(name);
    Random choices(state.seed);
    const auto struck = disk->after_power_loss(state.operation_count, state.unsynced, state.seed);
    EXPECT_EQ(checker.check(struck, allowed_at(recording, state.operation_count), choices, 0), "")
        << name;
    if (::testing::Test::HasFailure()) break;  // One is enough to begin with.
  }
  std::printf("workload %s: %zu operations, %llu states of %zu, %llu struck twice\n",
              workload.name.c_str(), operation_count,
              static_cast<unsigned long long>(counts.states), (operation_count + 1) * 7,
              static_cast<unsigned long long>(counts.compound_states));
}

INSTANTIATE_TEST_SUITE_P(, PowerLoss, ::testing::ValuesIn(workloads()),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace stepstone
