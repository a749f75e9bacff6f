// What a store says of why its steps are kept, against the policies themselves.
#include "api/preservation_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <stdexcept>

#include "api/best_n.h"
#include "api/checkpoint_manager.h"
#include "api/json.h"
#include "engine/store.h"
#include "tests/api/support.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using std::chrono::nanoseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using testing::is_ok;
using ::testing::IsEmpty;
using testing::Random;

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kStart = 1'700'000'000 * kSecond;

std::shared_ptr<PreservationPolicy> random_policy(Random& random) {
  const auto maybe = [&]() -> std::optional<std::uint64_t> {
    if (random.one_in(4)) return std::nullopt;
    return random.below(5);
  };
  switch (random.below(9)) {
    case 0:
      return std::make_shared<PreserveAll>();
    case 1:
      return std::make_shared<LatestN>(maybe());
    case 2:
      return std::make_shared<Newest>();
    case 3:
      return std::make_shared<EveryNSeconds>(seconds(random.below(40)));
    case 4:
      return std::make_shared<EveryNSteps>(
          1 + random.below(6),
          EveryNStepsOptions{.exact_interval = random.one_in(2), .max_to_keep = maybe()});
    case 5:
      return std::make_shared<EveryNStepsClosest>(1 + random.below(6), maybe());
    case 6:
      return std::make_shared<CustomSteps>(
          std::set<std::uint64_t>{random.below(40), random.below(40)});
    case 7:
      return std::make_shared<LatestDuration>(seconds(random.below(60)));
    default:
      return std::make_shared<BestN>(
          metric("loss"), BestNOptions{.reverse = random.one_in(2),
                                       .n = maybe(),
                                       .keep_checkpoints_without_metrics = random.one_in(2),
                                       .keep_newest = random.one_in(2)});
  }
}

// Ascending, committed in any order.
std::vector<StepRecord> random_steps(Random& random) {
  std::vector<StepRecord> steps;
  std::uint64_t step = 0;
  for (std::uint64_t count = random.below(9); count > 0; --count) {
    StepRecord record;
    record.save.step = step += 1 + random.below(7);
    record.sequence = random.bits();
    record.started_unix_ns = kStart + static_cast<std::int64_t>(random.below(100)) * kSecond;
    record.committed_unix_ns = record.started_unix_ns + kSecond;
    if (!random.one_in(4)) {
      record.metrics = "{\"loss\":" + std::to_string(random.below(5)) + "}";
      if (random.one_in(5)) record.metrics = R"({"loss":{"__float__":"nan"}})";
      if (random.one_in(5)) record.metrics = R"({"accuracy":1})";
    }
    steps.push_back(std::move(record));
  }
  return steps;
}

TEST(PreservationText, ReasonsTogetherAreWhatThePolicyKeeps) {
  const std::uint64_t seed = testing::seed_or(20261129);
  SCOPED_TRACE(testing::trace(seed));
  Random random(seed);
  int kept_count = 0;
  int gone_count = 0;
  for (int i = 0; i < 3000; ++i) {
    std::shared_ptr<const PreservationPolicy> policy = random_policy(random);
    if (random.one_in(2)) {
      policy = std::make_shared<AnyPreservationPolicy>(
          PreservationPolicies{policy, random_policy(random), random_policy(random)});
    }
    const std::vector<StepRecord> steps = random_steps(random);
    std::vector<CheckpointInfo> infos;
    PreservationContext context;
    std::uint64_t last = 0;
    for (const StepRecord& record : steps) {
      using TimePoint = std::chrono::system_clock::time_point;
      CheckpointInfo info = {.step = record.save.step,
                             .time = TimePoint(nanoseconds(record.started_unix_ns))};
      if (!record.metrics.empty()) info.metrics = from_json(record.metrics).value();
      infos.push_back(std::move(info));
      if (record.sequence < last) continue;
      last = record.sequence;
      context = {.now = TimePoint(nanoseconds(record.committed_unix_ns)),
                 .saved_step = record.save.step};
    }
    const std::string text = to_text(policy.get());
    SCOPED_TRACE(text);
    const PreservationReasons reasons = explain_preservation(text, steps);
    ASSERT_FALSE(reasons.rules.empty());
    for (const PreservationRule& rule : reasons.rules) {
      EXPECT_TRUE(rule.is_known) << rule.words;
      EXPECT_NE(rule.words, "");
    }
    ASSERT_EQ(reasons.of_steps.size(), steps.size());
    const std::vector<bool> kept = policy->should_preserve(infos, context);
    for (std::size_t s = 0; s < steps.size(); ++s) {
      ASSERT_EQ(!reasons.of_steps[s].empty(), kept[s]) << "step " << steps[s].save.step;
      ++(kept[s] ? kept_count : gone_count);
    }
  }
  EXPECT_GT(kept_count, 1000);
  EXPECT_GT(gone_count, 1000);
}

std::string words_of(const PreservationPolicy& policy) {
  return in_words(explain_preservation(to_text(&policy), {}).rules);
}

TEST(PreservationText, RulesReadLikeEnglish) {
  using std::chrono::hours;
  EXPECT_EQ(in_words(explain_preservation(to_text(nullptr), {}).rules), "all");
  EXPECT_EQ(words_of(LatestN(3)), "the newest 3");
  EXPECT_EQ(words_of(EveryNSeconds(hours(2))), "one every 2 h");
  EXPECT_EQ(words_of(EveryNSeconds(nanoseconds(1'500'000'000))), "one every 1.5 s");
  EXPECT_EQ(words_of(EveryNSteps(10, {.exact_interval = false, .max_to_keep = 4})),
            "steps at least 10 apart (the newest 4 of them)");
  EXPECT_EQ(words_of(EveryNStepsClosest(100)),
            "the closest to each multiple of 100, and the newest");
  EXPECT_EQ(words_of(CustomSteps({5})), "step 5");
  EXPECT_EQ(words_of(CustomSteps({1, 2, 3, 4, 5, 6, 7, 8, 9, 10})),
            "the steps 1, 2, 3, 4, 5, 6, 7, 8 and 2 others");
  EXPECT_EQ(words_of(LatestDuration(hours(48))), "what is not older than 2 d");
  EXPECT_EQ(words_of(BestN(metric("eval/loss"), {.reverse = true, .n = 2})),
            "the 2 with the lowest eval/loss, those without the metric and the newest");
  EXPECT_EQ(words_of(BestN([](const Tree&) { return 1.0; },
                           {.n = 1, .keep_newest = false, .metric_path = "accuracy"})),
            "the one with the highest accuracy and those without the metric");
  const auto latest = std::make_shared<LatestN>(2);
  EXPECT_EQ(words_of(AnyPreservationPolicy(
                {latest, std::make_shared<Newest>(), latest, std::make_shared<EveryNSteps>(5)})),
            "the newest 2 and multiples of 5");
}

// Keeps what only itself can tell.
class OddSteps : public PreservationPolicy {
 public:
  std::vector<bool> should_preserve(std::span<const CheckpointInfo> checkpoints,
                                    const PreservationContext& /*context*/) const override {
    std::vector<bool> kept;
    for (const CheckpointInfo& info : checkpoints) kept.push_back(info.step % 2 == 1);
    return kept;
  }
};

TEST(PreservationText, WhatOnlyTheProgramCanDecideIsSaidSo) {
  const BestN by_function([](const Tree&) { return 1.0; }, {.n = 1});
  EXPECT_EQ(words_of(by_function),
            "the one that the program's own metric ranks highest, those without the metric and the "
            "newest");
  std::vector<StepRecord> steps(3);
  for (std::size_t i = 0; i < steps.size(); ++i) steps[i].save.step = i + 1;
  const AnyPreservationPolicy any({std::make_shared<OddSteps>(), std::make_shared<Newest>()});
  const PreservationReasons reasons = explain_preservation(to_text(&any), steps);
  ASSERT_EQ(reasons.rules.size(), 2U);
  EXPECT_EQ(reasons.rules[0].words, "a rule of the program's own");
  EXPECT_FALSE(reasons.rules[0].is_known);
  EXPECT_TRUE(reasons.rules[1].is_known);
  EXPECT_THAT(reasons.of_steps, ElementsAre(IsEmpty(), IsEmpty(), ElementsAre(1)));
}

class Undescribed : public OddSteps {
 public:
  Tree description() const override { throw std::runtime_error("no description"); }
};

TEST(PreservationText, ADescriptionThatThrowsStopsNothing) {
  const TemporaryDirectory directory;
  auto manager = CheckpointManager::open(directory.path() / "run",
                                         {.preservation_policy = std::make_shared<Undescribed>()});
  ASSERT_TRUE(is_ok(manager));
  EXPECT_TRUE(is_ok((*manager)->save(1, args::StandardSave(Tree(1)))));
  EXPECT_TRUE(is_ok((*manager)->close()));
  EXPECT_EQ(words_of(Undescribed()), "a rule of the program's own");
}

TEST(PreservationText, WhatDoesNotFitIntoAStoreIsAnUnknownPolicy) {
  std::set<std::uint64_t> many;
  for (std::uint64_t step = 0; step < 20'000; ++step) many.insert(step);
  const CustomSteps policy(many);
  EXPECT_EQ(words_of(policy), "a rule of the program's own");
}

TEST(PreservationText, TextsOfStrangersDoNoHarm) {
  std::vector<StepRecord> steps(2);
  steps[0].started_unix_ns = std::numeric_limits<std::int64_t>::min();
  steps[1].save.step = 1;
  steps[1].started_unix_ns = std::numeric_limits<std::int64_t>::max();
  steps[1].committed_unix_ns = std::numeric_limits<std::int64_t>::max();
  steps[1].metrics = "{no JSON";
  for (const char* text : {"", "{", "\xff", "{\"a\":1,\"a\":2"}) {
    EXPECT_THAT(explain_preservation(text, steps).rules, IsEmpty()) << text;
  }
  for (const char* text : {
           "7",
           "[]",
           "{}",
           R"({"policy":7})",
           R"({"policy":"LatestN","n":-1})",
           R"({"policy":"LatestN","n":"3"})",
           R"({"policy":"LatestN","n":1.5})",
           R"({"policy":"EveryNSteps","interval_steps":0})",
           R"({"policy":"EveryNSteps"})",
           R"({"policy":"EveryNStepsClosest","interval_steps":-9223372036854775808})",
           R"({"policy":"EveryNSeconds","interval_ns":-1})",
           R"({"policy":"EveryNSeconds"})",
           R"({"policy":"LatestDuration","duration_ns":{"__int__":"99999999999999999999"}})",
           R"({"policy":"CustomSteps","steps":[1,-1]})",
           R"({"policy":"CustomSteps","steps":7})",
           R"({"policy":"BestN","n":[]})",
           R"({"policy":"AnyPreservationPolicy","policies":{}})",
       }) {
    const PreservationReasons reasons = explain_preservation(text, steps);
    ASSERT_EQ(reasons.rules.size(), 1U) << text;
    EXPECT_FALSE(reasons.rules[0].is_known) << text;
    EXPECT_THAT(reasons.of_steps, ElementsAre(IsEmpty(), IsEmpty())) << text;
  }
  // Times at both ends of what can be counted.
  EXPECT_THAT(explain_preservation(R"({"policy":"EveryNSeconds","interval_ns":1})", steps).of_steps,
              ElementsAre(ElementsAre(0), ElementsAre(0)));
  EXPECT_THAT(
      explain_preservation(R"({"policy":"LatestDuration","duration_ns":1})", steps).of_steps,
      ElementsAre(IsEmpty(), ElementsAre(0)));
  // Any of Any of Any.
  std::string deep = R"({"policy":"PreserveAll"})";
  for (int i = 0; i < 60; ++i) {
    deep = R"({"policy":"AnyPreservationPolicy","policies":[)" + deep + "]}";
  }
  EXPECT_FALSE(explain_preservation(deep, steps).rules.at(0).is_known);
  EXPECT_EQ(in_words(explain_preservation(R"({"policy":"\u001b[31m"})", steps).rules),
            "a rule of the program's own, \\x1b[31m");
}

TEST(PreservationText, AManagersStoreSaysIt) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "run";
  const auto words_after_save = [&](const CheckpointManagerOptions& options, std::uint64_t step) {
    auto manager = CheckpointManager::open(path, options).value();
    EXPECT_TRUE(is_ok(manager->save(step, args::StandardSave(Tree(1)))));
    EXPECT_TRUE(is_ok(manager->close()));
    const auto store = Store::open(path, {.read_only = true}).value();
    return in_words(explain_preservation(store->preservation_policy(), {}).rules);
  };
  EXPECT_EQ(words_after_save({}, 1), "all");
  EXPECT_EQ(words_after_save({.max_to_keep = 3, .keep_period = 100}, 2),
            "multiples of 100 and the newest 3");
  EXPECT_EQ(words_after_save(
                {.max_to_keep = 2, .best_fn = metric("loss"), .best_mode = BestMode::kMin}, 3),
            "the 2 with the lowest loss, those without the metric and the newest");
  // Whoever only looks changes nothing.
  ASSERT_TRUE(is_ok(CheckpointManager::open(path, {.max_to_keep = 9})));
  const auto store = Store::open(path, {.read_only = true}).value();
  EXPECT_NE(store->preservation_policy().find("BestN"), std::string::npos);
}

}  // namespace
}  // namespace stepstone
