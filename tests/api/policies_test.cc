// Each rule against a model that is written otherwise: over random histories of steps, times and
// metrics.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "api/best_n.h"
#include "api/preservation_policies.h"
#include "api/save_policies.h"
#include "tests/api/support.h"

namespace stepstone {
namespace {

using std::chrono::seconds;
using testing::fails;
using testing::is_ok;
using testing::Random;

using History = std::vector<CheckpointInfo>;
using Kept = std::vector<bool>;

constexpr int kHistoryCount = 2000;

std::chrono::system_clock::time_point at(std::uint64_t seconds_since_start) {
  return std::chrono::system_clock::time_point(seconds(1'700'000'000 + seconds_since_start));
}

// Ascending steps; their times are too, but for those that were filled in later.
History random_history(Random& random) {
  History history;
  std::uint64_t step = random.below(5);
  std::uint64_t time = 0;
  const std::uint64_t count = random.below(12);
  for (std::uint64_t i = 0; i < count; ++i) {
    CheckpointInfo info{.step = step, .time = at(time)};
    if (random.one_in(8)) info.time = at(1000 + random.below(100));
    if (!random.one_in(4)) {
      // Few values, so that some are equal.
      Tree loss(static_cast<double>(random.below(6)) / 2);
      if (random.one_in(10)) loss = Tree(std::numeric_limits<double>::quiet_NaN());
      if (random.one_in(10)) loss = Tree("unknown");
      info.metrics = Tree::dict({{"loss", loss}});
    }
    history.push_back(info);
    step += 1 + random.below(7);
    time += random.below(20);
  }
  return history;
}

std::optional<std::uint64_t> random_saved_step(const History& history, Random& random) {
  if (history.empty() || random.one_in(4)) return std::nullopt;
  return random.one_in(2) ? history.back().step : history[random.below(history.size())].step;
}

// Compares a policy with a model that says of the checkpoint at an index whether it is kept.
using Model = std::function<bool(const History&, const PreservationContext&, std::size_t)>;
void compare(
    const std::function<std::pair<std::shared_ptr<PreservationPolicy>, Model>(Random&)>& draw) {
  const std::uint64_t seed = testing::seed_or(20240501);
  SCOPED_TRACE(testing::trace(seed));
  Random random(seed);
  for (int i = 0; i < kHistoryCount; ++i) {
    const History history = random_history(random);
    const PreservationContext context{.now = at(random.below(150)),
                                      .saved_step = random_saved_step(history, random)};
    const auto [policy, model] = draw(random);
    ASSERT_TRUE(is_ok(policy->check()));
    Kept expected;
    for (std::size_t j = 0; j < history.size(); ++j) {
      expected.push_back(model(history, context, j));
    }
    ASSERT_EQ(policy->should_preserve(history, context), expected) << "history " << i;
  }
}

std::size_t count_if(const History& history, const std::function<bool(std::size_t)>& holds) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < history.size(); ++i) count += holds(i) ? 1U : 0U;
  return count;
}

// `kept`, and so few of those after it are, that it is among the last `max` of them.
bool is_among_last(const History& history, std::size_t i, std::optional<std::uint64_t> max,
                   const std::function<bool(std::size_t)>& kept) {
  return kept(i) &&
         (!max || count_if(history, [&](std::size_t j) { return j > i && kept(j); }) < *max);
}

std::optional<std::uint64_t> maybe(Random& random, std::uint64_t end) {
  if (random.one_in(4)) return std::nullopt;
  return random.below(end);
}

TEST(PreservationPolicies, PreserveAllKeepsAll) {
  compare([](Random& /*random*/) {
    return std::pair(std::make_shared<PreserveAll>(),
                     [](const History&, const PreservationContext&, std::size_t) { return true; });
  });
}

TEST(PreservationPolicies, LatestNKeepsTheStepBeingSavedAndTheHighestOthers) {
  compare([](Random& random) {
    const auto n = maybe(random, 6);
    return std::pair(
        std::make_shared<LatestN>(n),
        [n](const History& history, const PreservationContext& context, std::size_t i) {
          const auto rank = [&](std::size_t j) {
            return history[j].step == context.saved_step ? ~std::uint64_t{0} : history[j].step;
          };
          return !n || count_if(history, [&](std::size_t j) { return rank(j) > rank(i); }) < *n;
        });
  });
}

TEST(PreservationPolicies, EveryNSecondsKeepsTheFirstAndWhatIsLateEnoughAfterTheLastKept) {
  compare([](Random& random) {
    const auto interval = seconds(random.below(40));
    const Model model = [interval](const History& history, const PreservationContext&,
                                   std::size_t i) {
      // By recursion: kept, if the last one kept before it is long enough ago.
      const auto is_before = [&](std::size_t a, std::size_t b) {
        return std::pair(history[a].time, a) < std::pair(history[b].time, b);
      };
      const std::function<bool(std::size_t)> is_kept = [&](std::size_t j) {
        std::optional<std::size_t> last;
        for (std::size_t k = 0; k < history.size(); ++k) {
          if (is_before(k, j) && (!last || is_before(*last, k)) && is_kept(k)) last = k;
        }
        return !last || history[j].time - history[*last].time >= interval;
      };
      return is_kept(i);
    };
    return std::pair(std::make_shared<EveryNSeconds>(interval), model);
  });
}

TEST(PreservationPolicies, EveryNStepsKeepsMultiples) {
  compare([](Random& random) {
    const std::uint64_t interval = 1 + random.below(6);
    const auto max = maybe(random, 4);
    const Model model = [=](const History& history, const PreservationContext&, std::size_t i) {
      return is_among_last(history, i, max, [&](std::size_t j) {
        return history[j].step / interval * interval == history[j].step;
      });
    };
    return std::pair(std::make_shared<EveryNSteps>(
                         interval, EveryNStepsOptions{.exact_interval = true, .max_to_keep = max}),
                     model);
  });
}

TEST(PreservationPolicies, EveryNStepsInexactKeepsWhatIsFarEnoughFromTheLastKept) {
  compare([](Random& random) {
    const std::uint64_t interval = 1 + random.below(12);
    const auto max = maybe(random, 4);
    const Model model = [=](const History& history, const PreservationContext&, std::size_t i) {
      const std::function<bool(std::size_t)> is_kept = [&](std::size_t j) {
        for (std::size_t k = j; k-- > 0;) {
          if (is_kept(k)) return history[j].step >= history[k].step + interval;
        }
        return true;
      };
      return is_among_last(history, i, max, is_kept);
    };
    return std::pair(std::make_shared<EveryNSteps>(
                         interval, EveryNStepsOptions{.exact_interval = false, .max_to_keep = max}),
                     model);
  });
}

TEST(PreservationPolicies, EveryNStepsClosestKeepsTheNearestToEachMultiple) {
  compare([](Random& random) {
    const std::uint64_t interval = 1 + random.below(12);
    const auto max = maybe(random, 4);
    const Model model = [=](const History& history, const PreservationContext&, std::size_t i) {
      const auto multiple = [&](std::size_t j) {
        // Rounds a half to even.
        return std::nearbyint(static_cast<double>(history[j].step) / static_cast<double>(interval));
      };
      const auto distance = [&](std::size_t j) {
        return std::abs(static_cast<double>(history[j].step) -
                        multiple(j) * static_cast<double>(interval));
      };
      return is_among_last(history, i, max, [&](std::size_t j) {
        return j + 1 == history.size() ||
               count_if(history, [&](std::size_t k) {
                 return multiple(k) == multiple(j) &&
                        (distance(k) < distance(j) || (distance(k) == distance(j) && k > j));
               }) == 0;
      });
    };
    return std::pair(std::make_shared<EveryNStepsClosest>(interval, max), model);
  });
}

TEST(PreservationPolicies, CustomStepsKeepsThose) {
  compare([](Random& random) {
    const std::set<std::uint64_t> steps = {random.below(30), random.below(30), random.below(30)};
    const Model model = [steps](const History& history, const PreservationContext&, std::size_t i) {
      return steps.count(history[i].step) == 1;
    };
    return std::pair(std::make_shared<CustomSteps>(steps), model);
  });
}

TEST(PreservationPolicies, LatestDurationKeepsWhatIsNotOlder) {
  compare([](Random& random) {
    const auto duration = seconds(random.below(100));
    const Model model = [duration](const History& history, const PreservationContext& context,
                                   std::size_t i) {
      return history[i].time >= context.now - duration;
    };
    return std::pair(std::make_shared<LatestDuration>(duration), model);
  });
}

TEST(PreservationPolicies, BestNKeepsTheBestAndUnlessToldOtherwiseTheNewest) {
  compare([](Random& random) {
    const BestNOptions options{.reverse = random.one_in(2),
                               .n = maybe(random, 6),
                               .keep_checkpoints_without_metrics = random.one_in(2),
                               .keep_newest = random.one_in(2)};
    const Model model = [options](const History& history, const PreservationContext&,
                                  std::size_t i) {
      if (!options.n || history.size() <= *options.n) return true;
      if (options.keep_newest && i + 1 == history.size()) return true;
      const auto value = [&](std::size_t j) -> const double* {
        return history[j].metrics ? history[j].metrics->find("loss")->get_if<double>() : nullptr;
      };
      if (value(i) == nullptr) return options.keep_checkpoints_without_metrics && *options.n != 0;
      const auto is_better = [&](std::size_t a, std::size_t b) {
        const double x = *value(a);
        const double y = *value(b);
        if (std::isnan(x) != std::isnan(y)) return std::isnan(y);
        if (std::isnan(x) || x == y) return a > b;
        return options.reverse ? x < y : x > y;
      };
      return count_if(history, [&](std::size_t j) {
               return value(j) != nullptr && is_better(j, i);
             }) < *options.n;
    };
    return std::pair(std::make_shared<BestN>(metric("loss"), options), model);
  });
}

// A user's own.
class KeepOdd : public PreservationPolicy {
 public:
  Kept should_preserve(std::span<const CheckpointInfo> checkpoints,
                       const PreservationContext& /*context*/) const override {
    Kept kept;
    for (const CheckpointInfo& checkpoint : checkpoints) kept.push_back(checkpoint.step % 2 == 1);
    return kept;
  }
};

TEST(PreservationPolicies, AnyKeepsWhatOneOfThemKeeps) {
  compare([](Random& random) {
    const std::uint64_t interval = 1 + random.below(6);
    const Model model = [=](const History& history, const PreservationContext&, std::size_t i) {
      return history[i].step % interval == 0 || history[i].step % 2 == 1;
    };
    return std::pair(std::make_shared<AnyPreservationPolicy>(PreservationPolicies{
                         std::make_shared<EveryNSteps>(interval), std::make_shared<KeepOdd>()}),
                     model);
  });
}

TEST(PreservationPolicies, TheLargestStepsDoNotOverflow) {
  const std::uint64_t top = (std::uint64_t{1} << 63) - 1;
  const History history = {{.step = top - 3}, {.step = top - 1}, {.step = top}};
  EXPECT_EQ(EveryNStepsClosest(top).should_preserve(history, {}), (Kept{false, false, true}));
  EXPECT_EQ(EveryNSteps(top, {.exact_interval = false}).should_preserve(history, {}),
            (Kept{true, false, false}));
}

TEST(PreservationPolicies, OnesThatCannotBeMeantAreRefused) {
  using enum ErrorCode;
  EXPECT_TRUE(fails(EveryNSteps(0).check(), kInvalidArgument, {"EveryNSteps", "at least 1"}));
  EXPECT_TRUE(fails(EveryNStepsClosest(0).check(), kInvalidArgument, {"EveryNStepsClosest"}));
  EXPECT_TRUE(fails(BestN(nullptr).check(), kInvalidArgument, {"BestN", "metric"}));
  EXPECT_TRUE(fails(AnyPreservationPolicy({}).check(), kInvalidArgument, {"every checkpoint"}));
  EXPECT_TRUE(fails(AnyPreservationPolicy({nullptr}).check(), kInvalidArgument, {"null"}));
  EXPECT_TRUE(fails(AnyPreservationPolicy({std::make_shared<EveryNSteps>(0)}).check(),
                    kInvalidArgument, {"EveryNSteps"}));
  EXPECT_TRUE(fails(FixedIntervalPolicy(0).check(), kInvalidArgument, {"at least 1"}));
  EXPECT_TRUE(fails(AnySavePolicy({nullptr}).check(), kInvalidArgument, {"null"}));
  EXPECT_TRUE(fails(AnySavePolicy({std::make_shared<FixedIntervalPolicy>(0)}).check(),
                    kInvalidArgument, {"FixedIntervalPolicy"}));
}

// What a save policy must answer for a step, from the definition of each.
struct Question {
  CheckpointInfo step;
  History previous_steps;
  DecisionContext context;
};

void compare_decisions(
    const std::function<std::pair<std::shared_ptr<SaveDecisionPolicy>,
                                  std::function<bool(const Question&)>>(Random&)>& draw) {
  const std::uint64_t seed = testing::seed_or(20240502);
  SCOPED_TRACE(testing::trace(seed));
  Random random(seed);
  int saved_count = 0;
  for (int i = 0; i < kHistoryCount; ++i) {
    const Question question = {.step = {.step = random.below(60), .time = at(random.below(1200))},
                               .previous_steps = random_history(random),
                               .context = {.is_saving_in_progress = random.one_in(2),
                                           .reached_preemption = random.one_in(2)}};
    const auto [policy, model] = draw(random);
    ASSERT_TRUE(is_ok(policy->check()));
    const bool is_saved =
        policy->should_save(question.step, question.previous_steps, question.context);
    ASSERT_EQ(is_saved, model(question)) << "question " << i;
    saved_count += is_saved ? 1 : 0;
  }
  EXPECT_GT(saved_count, 0);
  EXPECT_LT(saved_count, kHistoryCount);
}

TEST(SavePolicies, FixedIntervalSavesMultiples) {
  compare_decisions([](Random& random) {
    const std::uint64_t interval = 1 + random.below(6);
    return std::pair(std::make_shared<FixedIntervalPolicy>(interval), [=](const Question& q) {
      return q.step.step == q.step.step / interval * interval;
    });
  });
}

TEST(SavePolicies, SpecificStepsSavesThose) {
  compare_decisions([](Random& random) {
    const std::set<std::uint64_t> steps = {random.below(60), random.below(60)};
    return std::pair(std::make_shared<SpecificStepsPolicy>(steps),
                     [=](const Question& q) { return steps.count(q.step.step) == 1; });
  });
}

TEST(SavePolicies, ContinuousSavesWheneverItIsTime) {
  compare_decisions([](Random& random) {
    std::optional<std::chrono::nanoseconds> interval;
    if (random.one_in(2)) interval = seconds(random.below(1000));
    return std::pair(
        std::make_shared<ContinuousCheckpointingPolicy>(interval), [=](const Question& q) {
          if (q.context.is_saving_in_progress) return false;
          return std::all_of(q.previous_steps.begin(), q.previous_steps.end(),
                             [&](const CheckpointInfo& previous) {
                               return !interval || previous.time + *interval <= q.step.time;
                             });
        });
  });
}

TEST(SavePolicies, PreemptionAndInitialSaveAskForTheirOneThing) {
  compare_decisions([](Random& /*random*/) {
    return std::pair(std::make_shared<PreemptionCheckpointingPolicy>(),
                     [](const Question& q) { return q.context.reached_preemption; });
  });
  compare_decisions([](Random& /*random*/) {
    return std::pair(std::make_shared<InitialSavePolicy>(),
                     [](const Question& q) { return q.previous_steps.size() == 0; });
  });
}

TEST(SavePolicies, AnySavesWhenOneOfThemDoes) {
  compare_decisions([](Random& random) {
    const std::uint64_t interval = 2 + random.below(6);
    return std::pair(
        std::make_shared<AnySavePolicy>(
            SaveDecisionPolicies{std::make_shared<FixedIntervalPolicy>(interval),
                                 std::make_shared<InitialSavePolicy>()}),
        [=](const Question& q) { return q.step.step % interval == 0 || q.previous_steps.empty(); });
  });
  EXPECT_FALSE(AnySavePolicy({}).should_save({}, {}, {}));
}

}  // namespace
}  // namespace stepstone
