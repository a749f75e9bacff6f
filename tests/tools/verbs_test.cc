// Goal: what compares, counts, keeps and follows does what the manual says, for people and for
// programs. Method: the real binary on stores made here.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/tools/store_support.h"
#include "tests/tools/support.h"

namespace stepstone::tool {
namespace {

using nlohmann::json;

constexpr float kNanWeight = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfiniteWeight = std::numeric_limits<float>::infinity();

class VerbsTest : public TemporaryDirectoryTest {
 protected:
  std::string store(std::string_view name = "run") const { return path(name).string(); }
  // "run:100".
  std::string at(std::uint64_t step, std::string_view name = "run") const {
    return fmt::format("{}:{}", store(name), step);
  }

  json answer_of(std::vector<std::string> arguments, int exit_code = 0) const {
    arguments.emplace_back("--json");
    const CommandResult result = run_stepstone(arguments);
    EXPECT_EQ(result.exit_code, exit_code) << result.error;
    json answer = json::parse(result.output, nullptr, /*allow_exceptions=*/false);
    EXPECT_FALSE(answer.is_discarded()) << result.output;
    return answer;
  }

  std::string text_of(const std::vector<std::string>& arguments, int exit_code = 0) const {
    const CommandResult result = run_stepstone(arguments);
    EXPECT_EQ(result.exit_code, exit_code) << result.error;
    return result.output;
  }

  void expect_failure(std::vector<std::string> arguments, int exit_code, const std::string& code,
                      std::string_view words) const {
    const CommandResult text = run_stepstone(arguments);
    EXPECT_EQ(text.exit_code, exit_code);
    EXPECT_EQ(text.error.substr(0, 11), "stepstone: ");
    EXPECT_NE(text.error.find(words), std::string::npos) << text.error;
    EXPECT_EQ(text.output, "");
    const json answer = answer_of(std::move(arguments), exit_code);
    EXPECT_EQ(answer["error"]["code"], code);
  }

  // The verb says nothing and succeeds when nobody reads.
  static void expect_quiet_when_nobody_reads(const std::vector<std::string>& arguments,
                                             int exit_code = 0) {
    int ends[2] = {-1, -1};
    ASSERT_EQ(::pipe(ends), 0);
    ::close(ends[0]);
    const CommandResult result = run_stepstone(arguments, ends[1]);
    ::close(ends[1]);
    EXPECT_EQ(result.exit_code, exit_code);
    EXPECT_EQ(result.error, "");
  }

  std::vector<std::uint64_t> steps() const {
    const auto opened = Store::open(path("run"), {.read_only = true});
    EXPECT_TRUE(opened.has_value());
    return (*opened)->steps();
  }
};

Tree params(const std::vector<float>& w, const std::vector<float>& b) {
  return Tree::dict({{"params", Tree::dict({{"w", floats(w)}, {"b", floats(b)}})}});
}

TEST_F(VerbsTest, DiffOfEqualStepsIsEmptyAndReadsNothing) {
  const Tree tree = params({1, 2, 3}, {4});
  save_tree(path("run"), 1, tree);
  save_tree(path("run"), 2, tree);
  save_tree(path("other"), 7, tree);
  for (const std::string& other : {std::string("2"), at(2), at(7, "other"), store("other")}) {
    const json answer = answer_of({"diff", at(1), other});
    EXPECT_EQ(answer["equal"], true);
    EXPECT_EQ(answer["common_leaf_count"], 2);
    EXPECT_EQ(answer["read_bytes"], 0);
    EXPECT_EQ(answer["leaves"], json::array());
    EXPECT_EQ(answer["containers"], json::array());
  }
  EXPECT_NE(text_of({"diff", at(1), "2"}).find("equal: 2 common leaves; 0 B of"),
            std::string::npos);
}

TEST_F(VerbsTest, DiffCountsAndMeasuresWhatChanged) {
  save_tree(path("run"), 1, params({1, 2, 3, 4}, {5}));
  save_tree(path("run"), 2, params({1, 2.5, 2, 4}, {5}));
  const json answer = answer_of({"diff", at(1), "2"}, 1);
  ASSERT_EQ(answer["leaves"].size(), 1U);
  const json& leaf = answer["leaves"][0];
  EXPECT_EQ(leaf["path"], "params/w");
  EXPECT_EQ(leaf["change"], "values");
  EXPECT_EQ(leaf["element_count"], 4);
  EXPECT_EQ(leaf["changed_count"], 2);
  EXPECT_EQ(leaf["incomparable_count"], 0);
  EXPECT_EQ(leaf["max_difference"], 1.0);
  EXPECT_EQ(leaf["mean_difference"], 0.375);
  const std::string text = text_of({"diff", at(1), "2"}, 1);
  EXPECT_NE(text.find("50.0%"), std::string::npos) << text;
  EXPECT_NE(text.find("1 of 2 common leaves changed"), std::string::npos) << text;
}

TEST_F(VerbsTest, DiffTellsOfStructureTypesAndShapes) {
  save_tree(path("run"), 1,
            Tree::dict({{"same", 1},
                        {"gone", 2},
                        {"list", Tree::list({Tree(1)})},
                        {"dtype", floats({1, 2})},
                        {"shape", floats({1, 2})},
                        {"name", "adam"}}));
  const Array bfloats =
      Array::copy_bytes(DType::kBfloat16, {2},
                        std::as_bytes(std::span(std::string_view("\x80\x3F\x00\x40", 4))))
          .value();
  save_tree(path("run"), 2,
            Tree::dict({{"same", 1},
                        {"list", Tree::tuple({Tree(1)})},
                        {"dtype", bfloats},
                        {"shape", floats({1, 2, 3})},
                        {"name", "sgd"},
                        {"new", 3}}));
  const json answer = answer_of({"diff", at(1), "2"}, 1);
  ASSERT_EQ(answer["containers"].size(), 1U);
  EXPECT_EQ(answer["containers"][0]["path"], "list");
  EXPECT_EQ(answer["containers"][0]["a"]["kind"], "list");
  EXPECT_EQ(answer["containers"][0]["b"]["kind"], "tuple");
  std::map<std::string, json> leaves;
  for (const json& leaf : answer["leaves"]) leaves[leaf["path"]] = leaf;
  EXPECT_EQ(leaves.size(), 5U);
  EXPECT_EQ(leaves["gone"]["change"], "only_a");
  EXPECT_TRUE(leaves["gone"]["b"].is_null());
  EXPECT_EQ(leaves["new"]["change"], "only_b");
  EXPECT_EQ(leaves["shape"]["change"], "type");
  EXPECT_FALSE(leaves["shape"].contains("max_difference"));
  // The same numbers in another dtype.
  EXPECT_EQ(leaves["dtype"]["change"], "type");
  EXPECT_EQ(leaves["dtype"]["b"]["dtype"], "bfloat16");
  EXPECT_EQ(leaves["dtype"]["changed_count"], 0);
  EXPECT_EQ(leaves["name"]["a"]["value"], "adam");
  EXPECT_EQ(leaves["name"]["b"]["value"], "sgd");
  const std::string text = text_of({"diff", at(1), "2"}, 1);
  EXPECT_NE(text.find("\"adam\" -> \"sgd\""), std::string::npos) << text;
  EXPECT_NE(text.find("float32 (2,) -> float32 (3,)"), std::string::npos) << text;
  EXPECT_NE(text.find("1 only in the first, 1 only in the second"), std::string::npos) << text;
}

TEST_F(VerbsTest, DiffSetsNanAndInfinityApart) {
  save_tree(path("run"), 1, floats({1, kNanWeight, kInfiniteWeight, 4, kNanWeight}));
  save_tree(path("run"), 2, floats({2, kNanWeight, -kInfiniteWeight, kNanWeight, 5}));
  const json leaf = answer_of({"diff", at(1), "2"}, 1)["leaves"][0];
  EXPECT_EQ(leaf["changed_count"], 4);
  EXPECT_EQ(leaf["incomparable_count"], 3);
  EXPECT_EQ(leaf["max_difference"], 1.0);
  EXPECT_EQ(leaf["mean_difference"], 0.5);
}

TEST_F(VerbsTest, DiffOfLargeIntegersIsExact) {
  const std::vector<std::int64_t> a = {std::int64_t{1} << 62, 0};
  const std::vector<std::int64_t> b = {(std::int64_t{1} << 62) + 1, 0};
  save_tree(path("run"), 1, Array::copy_of<std::int64_t>(a, {2}).value());
  save_tree(path("run"), 2, Array::copy_of<std::int64_t>(b, {2}).value());
  const json leaf = answer_of({"diff", at(1), "2"}, 1)["leaves"][0];
  EXPECT_EQ(leaf["changed_count"], 1);
  EXPECT_EQ(leaf["max_difference"], 1.0);
}

TEST_F(VerbsTest, DiffReadsOnlyChunksThatDiffer) {
  std::vector<float> values(200'000, 1.0F);
  save_tree(path("run"), 1, params(values, {0}), {.chunk_size_bytes = 4096});
  values[150'000] = 3;
  save_tree(path("run"), 2, params(values, {0}), {.chunk_size_bytes = 4096});
  const json answer = answer_of({"diff", at(1), "2"}, 1);
  EXPECT_EQ(answer["read_bytes"], 2 * 4096);
  EXPECT_EQ(answer["leaves"][0]["changed_count"], 1);
  EXPECT_EQ(answer["leaves"][0]["max_difference"], 2.0);
  // Other chunk sizes: all of it is read, and the same is found.
  save_tree(path("other"), 2, params(values, {0}), {.chunk_size_bytes = 8192});
  const json other = answer_of({"diff", at(1), at(2, "other")}, 1);
  EXPECT_GE(other["read_bytes"], 2 * 800'000);
  EXPECT_EQ(other["leaves"][0]["changed_count"], 1);
}

TEST_F(VerbsTest, DiffLooksAtSelectedLeavesAlone) {
  save_tree(path("run"), 1, params({1}, {2}));
  save_tree(path("run"), 2, params({3}, {2}));
  EXPECT_EQ(answer_of({"diff", at(1), "2", "--leaves", "*/b"})["equal"], true);
  EXPECT_EQ(answer_of({"diff", at(1), "2", "--exclude", "*/w"})["equal"], true);
  EXPECT_EQ(answer_of({"diff", at(1), "2", "--regex", "-l", "w$"}, 1)["equal"], false);
}

TEST_F(VerbsTest, DiffOfItemsNamesThem) {
  save_step(path("run"), 1, {{"a", Tree(1)}, {"b", Tree(2)}});
  EXPECT_EQ(answer_of({"diff", at(1) + ":a", at(1) + ":b"}, 1)["b"]["item"], "b");
  EXPECT_EQ(answer_of({"diff", at(1), ":1", "--item", "a"})["equal"], true);
  expect_failure({"diff", at(1), ":1"}, 2, "invalid_argument", "--item");
}

TEST_F(VerbsTest, DiffFailsWithTwo) {
  save_tree(path("run"), 1, params({1}, {2}));
  expect_failure({"diff", at(9), "1"}, 2, "not_found", "step 9");
  expect_failure({"diff", at(1), store("missing")}, 2, "not_found", "missing");
  expect_failure({"diff", at(1), "1", "-l", "re:("}, 2, "invalid_argument", "regular expression");
  expect_failure({"diff", at(1), "1", "-l", "nothing"}, 2, "not_found", "selected");
  expect_quiet_when_nobody_reads({"diff", at(1), "1"});
}

TEST_F(VerbsTest, StatsTellsWhatIsInEveryLeaf) {
  save_tree(path("run"), 3,
            Tree::dict({{"w", floats({0, 3, -4, kNanWeight})}, {"name", "x"}, {"step", 3}}));
  const json answer = answer_of({"stats", store(), "3"});
  EXPECT_EQ(answer["damaged_count"], 0);
  EXPECT_EQ(answer["leaves"][0], json({{"path", "w"},
                                       {"kind", "array"},
                                       {"dtype", "float32"},
                                       {"shape", {4}},
                                       {"count", 4},
                                       {"nan_count", 1},
                                       {"positive_infinity_count", 0},
                                       {"negative_infinity_count", 0},
                                       {"zero_count", 1},
                                       {"min", -4.0},
                                       {"max", 3.0},
                                       {"mean", answer["leaves"][0]["mean"]},
                                       {"std", answer["leaves"][0]["std"]},
                                       {"l2_norm", 5.0}}));
  EXPECT_NEAR(answer["leaves"][0]["mean"].get<double>(), -1.0 / 3, 1e-15);
  EXPECT_FALSE(answer["leaves"][1].contains("count"));
  EXPECT_EQ(answer["leaves"][2]["mean"], 3.0);
  const std::string text = text_of({"stats", store()});
  EXPECT_NE(text.find("float32 (4,)"), std::string::npos) << text;
}

TEST_F(VerbsTest, StatsOverStepsTellsWhereANanFirstAppeared) {
  save_tree(path("run"), 10, params({1, 2}, {1}));
  save_tree(path("run"), 20, params({1, 2}, {1}));
  save_tree(path("run"), 30, params({1, kNanWeight}, {1}));
  save_tree(path("run"), 40, params({kNanWeight, kNanWeight}, {kInfiniteWeight}));
  const json answer = answer_of({"stats", store(), "--over-steps", "params/*"});
  ASSERT_EQ(answer["leaves"].size(), 2U);
  EXPECT_EQ(answer["leaves"][0]["path"], "params/w");
  EXPECT_EQ(answer["leaves"][0]["first_nan_step"], 30);
  EXPECT_TRUE(answer["leaves"][0]["first_infinity_step"].is_null());
  EXPECT_EQ(answer["leaves"][1]["first_infinity_step"], 40);
  ASSERT_EQ(answer["leaves"][0]["steps"].size(), 4U);
  EXPECT_EQ(answer["leaves"][0]["steps"][1]["l2_norm"], std::sqrt(5.0));
  EXPECT_TRUE(answer["leaves"][0]["steps"][3]["mean"].is_null());
  const std::string text = text_of({"stats", store(), "--over-steps", "*/w"});
  EXPECT_NE(text.find("params/w: first NaN at step 30\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("params/b"), std::string::npos) << text;
}

TEST_F(VerbsTest, StatsHistogramCountsEveryFiniteNumber) {
  save_tree(path("run"), 1, floats({0, 1, 2, 3, 4, kNanWeight}));
  const json answer = answer_of({"stats", store(), "--histogram", "4"});
  EXPECT_EQ(answer["leaves"][0]["histogram"],
            json({{"low", 0.0}, {"high", 4.0}, {"counts", {1, 1, 1, 2}}}));
  EXPECT_NE(text_of({"stats", store(), "--histogram", "4"}).find("####"), std::string::npos);
}

TEST_F(VerbsTest, StatsFails) {
  save_tree(path("run"), 1, floats({1}));
  expect_failure({"stats", store("missing")}, 1, "not_found", "missing");
  expect_failure({"stats", store(), "2"}, 1, "not_found", "step 2");
  expect_failure({"stats", store(), "-l", "nothing"}, 1, "not_found", "selected");
  expect_failure({"stats", store(), "--over-steps", "nothing"}, 1, "not_found", "selected");
  expect_failure({"stats", store(), "1", "--over-steps", "*"}, 1, "invalid_argument", "all steps");
  expect_failure({"stats", store(), "--histogram", "0"}, 2, "usage", "'0' is not a whole number");
  expect_quiet_when_nobody_reads({"stats", store()});
}

class KeepTest : public VerbsTest {
 protected:
  KeepTest() {
    for (std::uint64_t step = 10; step <= 60; step += 10) {
      SaveOptions options;
      // 10 to 50: 5, 4, 3, 4, 5; 60 has none.
      const std::int64_t distance = std::abs(static_cast<std::int64_t>(step) - 30) / 10;
      if (step != 60) options.metrics = fmt::format(R"({{"loss": {}}})", 3 + distance);
      save_tree(path("run"), step, Tree(static_cast<std::int64_t>(step)), options);
    }
  }
};

TEST_F(KeepTest, EachRuleKeepsItsSteps) {
  using Steps = std::vector<std::uint64_t>;
  const std::vector<std::pair<std::vector<std::string>, Steps>> cases = {
      {{"--last", "2"}, {50, 60}},
      {{"--every", "20"}, {20, 40, 60}},
      {{"--steps", "10,30"}, {10, 30, 60}},
      {{"--steps", "10", "--steps", "40"}, {10, 40, 60}},
      {{"--best", "loss", "--lowest"}, {30, 60}},
      {{"--best", "loss", "--highest", "--best-count", "2"}, {10, 50, 60}},
      {{"--last", "1", "--every", "30", "--best", "loss", "--lowest", "--best-count", "2"},
       {30, 40, 60}},
      {{"--last", "100"}, {10, 20, 30, 40, 50, 60}},
  };
  for (const auto& [rules, kept] : cases) {
    std::vector<std::string> arguments = {"keep", store(), "--dry-run"};
    arguments.insert(arguments.end(), rules.begin(), rules.end());
    const json answer = answer_of(arguments);
    Steps found;
    for (const json& step : answer["kept"]) {
      found.push_back(step["step"].get<std::uint64_t>());
      EXPECT_FALSE(step["reasons"].empty());
    }
    EXPECT_EQ(found, kept) << fmt::format("{} and so on", rules.front());
    EXPECT_EQ(answer["removed"].size(), 6 - kept.size());
    EXPECT_EQ(answer["remaining_step_count"], 6);
  }
  EXPECT_EQ(steps().size(), 6U);
  EXPECT_NE(
      text_of({"keep", store(), "--last", "2", "-n"}).find("would remove 4 steps; 2 steps left"),
      std::string::npos);
}

TEST_F(KeepTest, WhatNoRuleKeepsGoes) {
  const json answer = answer_of({"keep", store(), "--every", "20"});
  EXPECT_EQ(answer["removed"], json({10, 30, 50}));
  EXPECT_EQ(answer["remaining_step_count"], 3);
  EXPECT_EQ(steps(), (std::vector<std::uint64_t>{20, 40, 60}));
  EXPECT_EQ(text_of({"keep", store(), "--last", "1"}), "removed 2 steps; 1 step left\n");
}

TEST_F(KeepTest, WhatIsNotMeantRemovesNothing) {
  expect_failure({"keep", store()}, 1, "invalid_argument", "--last");
  expect_failure({"keep", store(), "--best", "loss"}, 1, "invalid_argument", "--lowest");
  expect_failure({"keep", store(), "--best", "los", "--lowest"}, 1, "not_found", "'los'");
  expect_failure({"keep", store(), "--steps", "10,35"}, 1, "not_found", "35");
  expect_failure({"keep", store(), "--steps", "10,x"}, 2, "usage", "list of steps");
  expect_failure({"keep", store(), "--last", "0"}, 2, "usage", "'0'");
  expect_failure({"keep", store("missing"), "--last", "1"}, 1, "not_found", "missing");
  EXPECT_EQ(steps().size(), 6U);
  const auto writer = Store::open(path("run"), {});
  ASSERT_TRUE(writer.has_value());
  expect_failure({"keep", store(), "--last", "1"}, 1, "busy", "");
  // A dry run needs no lock.
  EXPECT_EQ(answer_of({"keep", store(), "--last", "1", "-n"})["removed"].size(), 5U);
}

TEST_F(KeepTest, NobodyNeedsToRead) {
  expect_quiet_when_nobody_reads({"keep", store(), "--last", "1"});
  EXPECT_EQ(steps(), std::vector<std::uint64_t>{60});
}

TEST_F(VerbsTest, GcTellsWhatIsStored) {
  save_tree(path("run"), 1, params(std::vector<float>(100'000, 1.5F), {1}));
  const json answer = answer_of({"gc", store()});
  // Nothing is dead; opening it for writing may write the log out as a table.
  EXPECT_EQ(answer["freed_bytes"], 0);
  EXPECT_GE(answer["stored_bytes"], answer["stored_bytes_before"]);
  EXPECT_EQ(answer["hidden_bytes"], 0);
  EXPECT_NE(text_of({"gc", store()}).find(" stored, "), std::string::npos);
  expect_failure({"gc", store("missing")}, 1, "not_found", "missing");
  expect_quiet_when_nobody_reads({"gc", store()});
  const auto writer = Store::open(path("run"), {});
  ASSERT_TRUE(writer.has_value());
  expect_failure({"gc", store()}, 1, "busy", "");
}

// A portable file is read by the verbs that read stores, and says the same.
TEST_F(VerbsTest, APortableFileIsReadLikeTheStoreItCameFrom) {
  save_tree(path("run"), 1, params({1, 2, kNanWeight, 4}, {5}), {.metrics = R"({"loss": 0.5})"});
  save_tree(path("run"), 2, params({1, 2.5, 2, 4}, {5}), {.custom_metadata = R"({"a": 1})"});
  const std::string file = store("run.stone");
  ASSERT_EQ(answer_of({"export", store(), "-o", file})["step_count"], 2);
  const auto expect_same = [&](const std::vector<std::string>& arguments, int exit_code = 0) {
    std::vector<std::string> of_file = arguments;
    for (std::string& word : of_file) {
      if (word.starts_with(store())) word.replace(0, store().size(), file);
    }
    json expected = answer_of(arguments, exit_code);
    json answer = answer_of(of_file, exit_code);
    for (json* said : {&expected, &answer}) {
      said->erase("store");
      for (const char* side : {"a", "b"}) {
        if (said->contains(side)) (*said)[side].erase("store");
      }
    }
    EXPECT_EQ(answer, expected) << arguments.front();
  };
  expect_same({"ls", store()});
  expect_same({"show", store(), "2"});
  expect_same({"cat", store(), "1", "params/w[1:3]", "--force"});
  expect_same({"stats", store(), "2"});
  expect_same({"stats", store(), "--over-steps", "params/*"});
  expect_same({"verify", store()});
  expect_same({"verify", store(), "--leaves", "params/w"});
  expect_same({"diff", at(1), at(2)}, 1);
  EXPECT_EQ(answer_of({"du", file})["steps"].size(), 2U);
  EXPECT_EQ(answer_of({"diff", at(2), file + ":2"})["equal"], true);
  EXPECT_NE(text_of({"watch", file, "--once"}), "");
  EXPECT_EQ(run_stepstone({"report", file, "-o", store("run.html")}).exit_code, 0);
  // A step that was copied back is the one that was exported.
  EXPECT_EQ(answer_of({"copy", file, store("back")})["step_count"], 2);
  EXPECT_EQ(answer_of({"diff", at(1), at(1, "back")})["equal"], true);

  for (const auto& verb : std::vector<std::vector<std::string>>{
           {"rm", file, "1"}, {"keep", file, "--last", "1"}, {"gc", file}}) {
    expect_failure(verb, 1, "read_only", "run.stone");
  }
  EXPECT_EQ(answer_of({"ls", file})["steps"].size(), 2U);
}

TEST_F(VerbsTest, WatchOnceTellsOfTheStepsThereAre) {
  save_tree(path("run"), 1, Tree(1), {.metrics = R"({"loss": 0.5})"});
  save_tree(path("run"), 2, Tree(2));
  const std::string newest = text_of({"watch", store(), "--once"});
  EXPECT_EQ(std::count(newest.begin(), newest.end(), '\n'), 1);
  EXPECT_NE(newest.find("         2  "), std::string::npos) << newest;
  const std::string all = text_of({"watch", store(), "--once", "--from", "0", "--json"});
  const json first = json::parse(all.substr(0, all.find('\n')));
  EXPECT_EQ(first["step"], 1);
  EXPECT_EQ(first["metrics"], R"({"loss": 0.5})");
  EXPECT_EQ(first["items"], json({"default"}));
  EXPECT_EQ(first["leaf_count"], 1);
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 2);
  expect_failure({"watch", store("missing"), "--once"}, 1, "not_found", "missing");
  // It would wait for ever otherwise.
  expect_quiet_when_nobody_reads({"watch", store()});
}

TEST_F(VerbsTest, WatchTellsOfStepsAsTheyCome) {
  save_tree(path("run"), 1, Tree(1));
  std::string output;
  std::thread watcher([&] {
    output = run_stepstone(
                 {"watch", store(), "--from", "0", "--count", "3", "--interval-ms", "5", "--json"})
                 .output;
  });
  save_tree(path("run"), 2, Tree(2));
  save_tree(path("run"), 3, Tree(3));
  watcher.join();
  std::vector<std::uint64_t> told;
  for (std::size_t begin = 0; begin < output.size();) {
    const std::size_t end = output.find('\n', begin);
    told.push_back(json::parse(output.substr(begin, end - begin))["step"].get<std::uint64_t>());
    begin = end + 1;
  }
  EXPECT_EQ(told, (std::vector<std::uint64_t>{1, 2, 3}));
}

TEST_F(VerbsTest, CatGivesSlicesAsPythonDoes) {
  std::vector<float> values(24);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  save_tree(path("run"), 1,
            Tree::dict({{"w", Array::copy_of<float>(values, {2, 3, 4}).value()},
                        {"list", Tree::list({Tree(floats({5})), Tree(floats({6, 7}))})},
                        {"n", 3}}));
  struct Case {
    std::string leaf;
    json shape;
    json values;
  };
  const std::vector<Case> cases = {
      {"w[0,0]", {4}, {0.0, 1.0, 2.0, 3.0}},
      {"w[1,-1,1:3]", {2}, {21.0, 22.0}},
      {"w[:,1,0]", {2}, {4.0, 16.0}},
      {"w[..., -1]", {2, 3}, {3.0, 7.0, 11.0, 15.0, 19.0, 23.0}},
      {"w[-1:, 2:, :2]", {1, 1, 2}, {20.0, 21.0}},
      {"w[0,0,9:]", {0}, json::array()},
      {"w[1,2,3]", json::array(), {23.0}},
      // A place in a list is a path; behind it stands a slice.
      {"list[1]", {2}, {6.0, 7.0}},
      {"list[1][0]", json::array(), {6.0}},
  };
  for (const Case& example : cases) {
    SCOPED_TRACE(example.leaf);
    const json answer = answer_of({"cat", store(), "1", example.leaf});
    EXPECT_EQ(answer["shape"], example.shape);
    EXPECT_EQ(answer["values"], example.values);
  }
  EXPECT_EQ(answer_of({"cat", store(), "1", "w[0,1:,:]"})["slice"], json({{0, 1}, {1, 3}, {0, 4}}));
  const std::string npy = text_of({"cat", store(), "1", "w[0]", "--npy"});
  EXPECT_NE(npy.find("'shape': (3, 4), "), std::string::npos);
  EXPECT_EQ(text_of({"cat", store(), "1", "w[1,1,1]", "--raw"}),
            std::string("\x00\x00\x88\x41", 4));
  for (const char* const leaf :
       {"w[0:4:2]", "w[2]", "w[-3]", "w[0,0,0,0]", "w[]", "n[0]", "w[...,...]"}) {
    const CommandResult refused = run_stepstone({"cat", store(), "1", leaf, "--raw"});
    EXPECT_EQ(refused.exit_code, 1) << leaf;
    EXPECT_EQ(refused.output, "");
  }
  const json missing = answer_of({"cat", store(), "1", "none[0]"}, 1);
  EXPECT_EQ(missing["error"]["code"], "not_found");
  EXPECT_EQ(run_stepstone({"cat", store(), "1", "w[x]", "--raw"}).exit_code, 2);
}

TEST_F(VerbsTest, CatOfALargeSliceIsItsBytes) {
  std::vector<float> values(4'000'000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  save_tree(path("run"), 1, Array::copy_of<float>(values, {2000, 2000}).value());
  const std::string bytes = text_of({"cat", store(), "1", "[:,500:1500]", "--raw"});
  ASSERT_EQ(bytes.size(), 2000U * 1000 * 4);
  for (std::size_t row = 0; row < 2000; row += 199) {
    std::vector<float> read(1000);
    std::memcpy(read.data(), bytes.data() + row * 4000, 4000);
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(row * 2000 + 500);
    EXPECT_TRUE(std::equal(read.begin(), read.end(), first)) << row;
  }
}

TEST_F(VerbsTest, ShowTellsOfSelectedLeavesAndWhatIsAboveThem) {
  save_tree(path("run"), 1,
            Tree::dict({{"a", Tree::dict({{"w", floats({1})}, {"b", floats({1})}})},
                        {"c", Tree::dict({{"d", floats({1})}})}}));
  const json answer = answer_of({"show", store(), "1", "-l", "*/w"});
  EXPECT_EQ(answer["leaf_count"], 1);
  EXPECT_EQ(answer["size_bytes"], 4);
  ASSERT_EQ(answer["leaves"].size(), 1U);
  EXPECT_EQ(answer["leaves"][0]["path"], "a/w");
  ASSERT_EQ(answer["containers"].size(), 2U);
  EXPECT_EQ(answer["containers"][1]["path"], "a");
  const std::string text = text_of({"show", store(), "1", "-x", "a"});
  EXPECT_NE(text.find("c/d"), std::string::npos);
  EXPECT_EQ(text.find("a/w"), std::string::npos);
  expect_failure({"show", store(), "1", "-l", "zzz"}, 1, "not_found", "selected");
}

TEST_F(VerbsTest, CopyMakesTheSameStepsElsewhere) {
  for (const std::uint64_t step : {1U, 2U, 3U}) {
    save_tree(path("run"), step, params({1, static_cast<float>(step)}, {2}),
              {.metrics = R"({"loss": 1})"});
  }
  const json answer = answer_of({"copy", store(), store("copy"), "--steps", "1,3"});
  EXPECT_EQ(answer["step_count"], 2);
  EXPECT_EQ(answer["skipped_count"], 0);
  EXPECT_EQ(answer["leaf_count"], 4);
  EXPECT_EQ(answer_of({"diff", at(3), at(3, "copy")})["equal"], true);
  EXPECT_EQ(answer_of({"show", store("copy"), "1"})["metrics"], R"({"loss": 1})");
  expect_failure({"copy", store(), store("copy")}, 1, "already_exists", "");
  EXPECT_EQ(answer_of({"ls", store("copy")})["steps"].size(), 2U);
  EXPECT_NE(text_of({"copy", store(), store("copy"), "--skip-existing"}).find("2 there already"),
            std::string::npos);
  EXPECT_EQ(answer_of({"ls", store("copy")})["steps"].size(), 3U);
  EXPECT_EQ(answer_of({"copy", store(), store("copy"), "--overwrite"})["step_count"], 3);
  EXPECT_EQ(answer_of({"copy", store(), store(), "--steps", "3", "--as", "9"})["step_count"], 1);
  EXPECT_EQ(answer_of({"diff", at(3), "9"})["equal"], true);
}

TEST_F(VerbsTest, CopyTakesOnlyTheItemsThatAreNamed) {
  save_step(path("run"), 1, {{"weights", params({1}, {2})}, {"optimizer", Tree(2)}});
  answer_of({"copy", store(), store("copy"), "--item", "weights"});
  const json items = answer_of({"ls", store("copy")})["steps"][0]["items"];
  ASSERT_EQ(items.size(), 1U);
  EXPECT_EQ(items[0]["name"], "weights");
}

TEST_F(VerbsTest, CopyFails) {
  save_tree(path("run"), 1, Tree(1));
  expect_failure({"copy", store("missing"), store("copy")}, 1, "not_found", "missing");
  expect_failure({"copy", store(), store("copy"), "--steps", "1,7"}, 1, "not_found", "7");
  // Nothing was made for a copy that could not be.
  EXPECT_FALSE(std::filesystem::exists(path("copy")));
  expect_failure({"copy", store(), store("copy"), "--overwrite", "--skip-existing"}, 2, "usage",
                 "--skip-existing");
  expect_quiet_when_nobody_reads({"copy", store(), store("copy")});
  const auto writer = Store::open(path("copy"), {});
  ASSERT_TRUE(writer.has_value());
  expect_failure({"copy", store(), store("copy"), "--overwrite"}, 1, "busy", "");
}

TEST_F(VerbsTest, ManualPageHasASectionForEveryVerb) {
  const std::string page = text_of({"man"});
  EXPECT_EQ(page.substr(0, 4), ".TH ");
  for (const char* const verb : {"import", "ls", "du", "show", "cat", "diff", "stats", "watch",
                                 "export", "verify", "rm", "keep", "gc", "recompress", "bench"}) {
    EXPECT_NE(page.find(fmt::format(".SS \"stepstone {} ", verb)), std::string::npos) << verb;
  }
  EXPECT_EQ(page.find("bench\\-child"), std::string::npos);
  expect_quiet_when_nobody_reads({"man"});
}

TEST_F(VerbsTest, ColoursAreForTerminalsOrForThoseWhoAsk) {
  save_tree(path("run"), 1, params({1}, {2}));
  EXPECT_EQ(text_of({"show", store(), "1"}).find('\x1b'), std::string::npos);
  EXPECT_NE(text_of({"show", store(), "1", "--color=always"}).find("\x1b[1mPATH"),
            std::string::npos);
  EXPECT_NE(text_of({"--color", "always", "show", store(), "1"}).find('\x1b'), std::string::npos);
  EXPECT_EQ(text_of({"show", store(), "1", "--color=never"}).find('\x1b'), std::string::npos);
  EXPECT_EQ(text_of({"show", store(), "1", "--color=always", "--json"}).find('\x1b'),
            std::string::npos);
  expect_failure({"show", store(), "1", "--color=blue"}, 2, "usage", "blue");
}

}  // namespace
}  // namespace stepstone::tool
