// Managers under policies: what a run saves and what is left of it. The policies themselves are
// tested in policies_test.cc.
#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <mutex>

#include "api/checkpoint_manager.h"
#include "tests/api/support.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using std::chrono::seconds;
using testing::fails;
using testing::is_ok;
using testing::Random;

using Steps = std::vector<std::uint64_t>;
using Time = std::chrono::system_clock::time_point;

args::StandardSave policy_save(std::uint64_t step) {
  return args::StandardSave(Tree(static_cast<std::int64_t>(step)));
}

class ManagerPolicyTest : public ::testing::Test {
 protected:
  std::unique_ptr<CheckpointManager> open(CheckpointManagerOptions options) {
    options.clock = [this] { return now_; };
    auto manager = CheckpointManager::open(directory_.path() / std::to_string(++run_), options);
    EXPECT_TRUE(is_ok(manager));
    return manager ? *std::move(manager) : nullptr;
  }
  // The steps below `end` that are saved.
  static Steps run(CheckpointManager& manager, std::uint64_t end) {
    Steps saved;
    for (std::uint64_t step = 0; step < end; ++step) {
      const auto result = manager.save(step, policy_save(step));
      EXPECT_TRUE(is_ok(result));
      if (result && *result) saved.push_back(step);
    }
    EXPECT_TRUE(is_ok(manager.wait_until_finished()));
    return saved;
  }

  Time now_ = Time(seconds(1'700'000'000));
  TemporaryDirectory directory_;
  int run_ = 0;
};

TEST_F(ManagerPolicyTest, OptionsDecideWhatIsSaved) {
  EXPECT_EQ(run(*open({.save_interval_steps = 4, .save_on_steps = {1, 6}}), 10),
            (Steps{0, 1, 4, 6, 8}));
  // In the place of interval, steps and the first one.
  const auto odd = [](std::uint64_t step, std::optional<std::uint64_t> latest) {
    EXPECT_TRUE(!latest || *latest < step);
    return step % 2 == 1;
  };
  EXPECT_EQ(run(*open({.save_interval_steps = 1, .save_on_steps = {2}, .should_save_fn = odd}), 6),
            (Steps{1, 3, 5}));
  const auto policy = std::make_shared<SpecificStepsPolicy>(std::set<std::uint64_t>{3});
  EXPECT_EQ(run(*open({.should_save_fn = odd, .save_decision_policy = policy}), 6), Steps{3});
}

TEST_F(ManagerPolicyTest, ContinuousCheckpointingGoesByTheClock) {
  const auto manager =
      open({.enable_async_checkpointing = false,
            .save_decision_policy = std::make_shared<ContinuousCheckpointingPolicy>(seconds(10))});
  Steps saved;
  for (std::uint64_t step = 0; step < 8; ++step) {
    if (*manager->save(step, policy_save(step))) saved.push_back(step);
    now_ += seconds(4);
  }
  EXPECT_EQ(saved, (Steps{0, 3, 6}));
}

// Random runs under random options, against a model that goes over the steps that are left after
// each save.
TEST_F(ManagerPolicyTest, OptionsDecideWhatIsKept) {
  const std::uint64_t seed = testing::seed_or(20240503);
  SCOPED_TRACE(testing::trace(seed));
  Random random(seed);
  for (int i = 0; i < 30; ++i) {
    CheckpointManagerOptions options = {.max_to_keep = 1 + random.below(4),
                                        .enable_async_checkpointing = random.one_in(2)};
    if (random.one_in(2)) options.keep_period = 1 + random.below(6);
    if (random.one_in(2)) options.keep_time_interval = seconds(random.below(60));
    if (random.one_in(2)) options.best_fn = metric("loss");
    if (random.one_in(2)) options.best_mode = BestMode::kMin;
    const auto manager = open(options);
    struct Kept {
      std::uint64_t step;
      Time time;
      double loss;
    };
    std::vector<Kept> model;
    std::uint64_t step = 0;
    for (int j = 0; j < 12; ++j) {
      const double loss = static_cast<double>(random.below(5));
      ASSERT_TRUE(
          *manager->save(step, policy_save(step), {.metrics = Tree::dict({{"loss", loss}})}));
      ASSERT_TRUE(is_ok(manager->wait_until_finished()));
      model.push_back({step, now_, loss});
      std::vector<Kept> left;
      std::optional<Time> last_by_time;
      for (std::size_t k = 0; k < model.size(); ++k) {
        const auto is_better = [&](const Kept& other) {
          if (!options.best_fn || other.loss == model[k].loss) return other.step > model[k].step;
          return (other.loss > model[k].loss) != (options.best_mode == BestMode::kMin);
        };
        const auto better_count = std::count_if(model.begin(), model.end(), is_better);
        bool is_kept = k + 1 == model.size() ||
                       static_cast<std::uint64_t>(better_count) < *options.max_to_keep;
        if (options.keep_period && model[k].step % *options.keep_period == 0) is_kept = true;
        if (options.keep_time_interval &&
            (!last_by_time || model[k].time - *last_by_time >= *options.keep_time_interval)) {
          last_by_time = model[k].time;
          is_kept = true;
        }
        if (is_kept) left.push_back(model[k]);
      }
      model = left;
      Steps expected;
      for (const Kept& kept : model) expected.push_back(kept.step);
      ASSERT_EQ(manager->all_steps(), expected) << "run " << i << " save " << j;
      step += 1 + random.below(4);
      now_ += seconds(random.below(30));
    }
  }
}

TEST_F(ManagerPolicyTest, APreservationPolicyIsTheSoleKeeperButForTheStepBeingSaved) {
  const auto manager =
      open({.preservation_policy = std::make_shared<CustomSteps>(std::set<std::uint64_t>{1, 2})});
  run(*manager, 5);
  EXPECT_EQ(manager->all_steps(), (Steps{1, 2, 4}));
}

TEST_F(ManagerPolicyTest, AStepThatIsFilledInSurvivesItsOwnCommit) {
  const auto manager = open({.max_to_keep = 2});
  run(*manager, 6);
  ASSERT_EQ(manager->all_steps(), (Steps{4, 5}));
  ASSERT_TRUE(is_ok(manager->save(1, policy_save(1))));
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(manager->all_steps(), (Steps{1, 5}));
  EXPECT_EQ(manager->latest_step(), 5U);
}

class Odd : public PreservationPolicy {
 public:
  explicit Odd(bool is_throwing) : is_throwing_(is_throwing) {}
  std::vector<bool> should_preserve(std::span<const CheckpointInfo> checkpoints,
                                    const PreservationContext& /*context*/) const override {
    if (is_throwing_) throw std::runtime_error("no idea");
    return std::vector<bool>(checkpoints.size() - 1);
  }

 private:
  bool is_throwing_;
};

class Throwing : public SaveDecisionPolicy {
 public:
  bool should_save(const CheckpointInfo& /*step*/, std::span<const CheckpointInfo> /*previous*/,
                   const DecisionContext& /*context*/) const override {
    throw std::runtime_error("no idea");
  }
};

TEST_F(ManagerPolicyTest, APolicyThatFailsFailsTheSaveAndNothingIsRetired) {
  const auto manager = open({.preservation_policy = std::make_shared<Odd>(false)});
  ASSERT_TRUE(*manager->save(1, policy_save(1)));
  EXPECT_TRUE(fails(manager->wait_until_finished(), ErrorCode::kInvalidArgument,
                    {"step 1", "preservation policy", "0 of 1"}));
  EXPECT_EQ(manager->all_steps(), Steps{});
  const auto thrower = open({.preservation_policy = std::make_shared<Odd>(true)});
  ASSERT_TRUE(*thrower->save(1, policy_save(1)));
  EXPECT_TRUE(fails(thrower->wait_until_finished(), ErrorCode::kInvalidArgument,
                    {"step 1", "preservation policy", "no idea"}));
  const auto undecided = open({.save_decision_policy = std::make_shared<Throwing>()});
  EXPECT_TRUE(fails(undecided->save(1, policy_save(1)), ErrorCode::kInvalidArgument,
                    {"step 1", "save decision policy", "no idea"}));
  EXPECT_FALSE(undecided->should_save(1));
  EXPECT_TRUE(*undecided->save(1, policy_save(1), {.force = true}));
}

// Two managers of one store: what each retires is chosen within its commit.
TEST_F(ManagerPolicyTest, ManagersOfOneStoreKeepToTheirLimitTogether) {
  const auto path = directory_.path() / "shared";
  const auto first = *CheckpointManager::open(path, {.max_to_keep = 3});
  const auto second = *CheckpointManager::open(path, {.max_to_keep = 3});
  for (std::uint64_t step = 0; step < 40; step += 2) {
    ASSERT_TRUE(*first->save(step, policy_save(step)));
    ASSERT_TRUE(*second->save(step + 1, policy_save(step + 1)));
  }
  ASSERT_TRUE(is_ok(first->wait_until_finished()));
  ASSERT_TRUE(is_ok(second->wait_until_finished()));
  EXPECT_EQ(first->all_steps().size(), 3U);
  EXPECT_EQ(first->all_steps(), second->all_steps());
}

// A save that a callback holds up.
TEST_F(ManagerPolicyTest, AWaitThatLastsTooLongIsGivenUpAndTheSaveGoesOn) {
  std::mutex mutex;
  std::condition_variable released;
  bool is_released = false;
  int call_count = 0;
  CheckpointManagerOptions options;
  options.async_options.timeout = std::chrono::milliseconds(1);
  options.async_options.post_finalization_callback = [&] {
    std::unique_lock lock(mutex);
    ++call_count;
    released.wait(lock, [&] { return is_released; });
  };
  const auto manager = open(options);
  ASSERT_TRUE(*manager->save(1, policy_save(1)));
  using enum ErrorCode;
  EXPECT_TRUE(fails(manager->wait_until_finished(), kBusy, {"step 1", "async_options.timeout"}));
  EXPECT_TRUE(fails(manager->save(2, policy_save(2)), kBusy, {"step 1", "no room"}));
  EXPECT_TRUE(fails(manager->restore(1), kBusy, {"step 1"}));
  EXPECT_TRUE(fails(manager->delete_step(1), kBusy, {"step 1"}));
  EXPECT_TRUE(fails(manager->close(), kBusy, {"step 1"}));
  EXPECT_TRUE(manager->is_saving_in_progress());
  {
    const std::scoped_lock lock(mutex);
    is_released = true;
  }
  released.notify_all();
  while (manager->is_saving_in_progress()) std::this_thread::yield();
  EXPECT_EQ(manager->all_steps(), Steps{1});
  EXPECT_EQ(call_count, 1);
  EXPECT_TRUE(is_ok(manager->close()));
}

}  // namespace
}  // namespace stepstone
