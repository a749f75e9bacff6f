// Goal: the page holds what is in the store and nothing that the store could make it do, and the
// file is there whole or not at all. Method: the real binary writes pages about stores made here;
// the data are taken out of the page and read again.
#include <fmt/format.h>
#include <sched.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "api/tree.h"
#include "format/leaf_path.h"
#include "tests/tools/report_support.h"
#include "tools/report/base64.h"
#include "tools/report/page.h"

namespace stepstone::tool {
namespace {

using nlohmann::json;

constexpr float kFloatNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kFloatInfinity = std::numeric_limits<float>::infinity();

template <class Number>
std::vector<Number> column(const json& text) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  unsigned bits = 0;
  unsigned held = 0;
  for (const char c : text.get<std::string>()) {
    if (c == '=') break;
    held = held << 6 | static_cast<unsigned>(kDigits.find(c));
    bits += 6;
    if (bits >= 8) bytes += static_cast<char>(held >> (bits -= 8) & 0xFF);
  }
  std::vector<Number> numbers(bytes.size() / sizeof(Number));
  std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(Number));
  return numbers;
}

std::vector<std::string> paths(const json& data) {
  std::vector<std::string> found;
  std::string before;
  const auto shared = column<std::uint32_t>(data["leaves"]["shared"]);
  for (std::size_t i = 0; i < shared.size(); ++i) {
    before = before.substr(0, shared[i]) + data["leaves"]["suffix"][i].get<std::string>();
    found.push_back(before);
  }
  return found;
}

class ReportTest : public TemporaryDirectoryTest {
 protected:
  std::string store() const { return path("run").string(); }
  std::string page_path() const { return path("run.html").string(); }

  CommandResult report(std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"report", store(), "-o", page_path()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_stepstone(arguments);
  }

  // The text between the tags that hold the data.
  std::string data_text() const {
    const std::string page = read_file(page_path());
    constexpr std::string_view kBegin = R"(<script type="application/json" id="data">)";
    const std::size_t begin = page.find(kBegin);
    EXPECT_NE(begin, std::string::npos);
    const std::size_t end = page.find("</script>", begin);
    return page.substr(begin + kBegin.size(), end - begin - kBegin.size());
  }
  json data() const { return json::parse(data_text(), nullptr, /*allow_exceptions=*/false); }

  void expect_failure(const std::vector<std::string>& arguments, int exit_code,
                      std::string_view words) const {
    const CommandResult result = run_stepstone(arguments);
    EXPECT_EQ(result.exit_code, exit_code);
    EXPECT_NE(result.error.find(words), std::string::npos) << result.error;
    EXPECT_EQ(result.output, "");
    for (const auto& entry : std::filesystem::directory_iterator(path(""))) {
      EXPECT_EQ(entry.path().native().find(".partial"), std::string::npos) << entry.path();
    }
  }

  // Three steps; "still" never changes, "moving" does, and has a NaN and an infinity in the last.
  void save_three_steps() const {
    save_floats(store(), 10, {{"moving", {3, 4}}, {"still", {1, 1, 1, 1}}}, R"({"loss": 2.5})");
    save_floats(store(), 20, {{"moving", {6, 8}}, {"still", {1, 1, 1, 1}}},
                R"({"loss": "nan", "of": {"parts": 7}, "note": "no number"})");
    save_floats(store(), 30,
                {{"moving", {kFloatNan, 0, 5, kFloatInfinity}}, {"still", {1, 1, 1, 1}}});
  }
};

TEST_F(ReportTest, PageHoldsStepsMetricsAndLeaves) {
  save_three_steps();
  const CommandResult result = report();
  ASSERT_EQ(result.exit_code, 0) << result.error;
  EXPECT_NE(result.output.find("3 steps, 2 leaves, 3 steps measured"), std::string::npos)
      << result.output;
  const json data = this->data();
  EXPECT_EQ(data["format"], 1);
  EXPECT_EQ(data["live"], false);
  EXPECT_EQ(data["store"]["name"], "run");
  EXPECT_EQ(data["store"]["commit_count"], 3);
  EXPECT_EQ(data["steps"]["step"], json({"10", "20", "30"}));
  EXPECT_EQ(data["steps"]["metrics"],
            json({{{"loss", 2.5}}, {{"loss", "nan"}, {"of/parts", 7.0}}, nullptr}));
  EXPECT_EQ(data["steps"]["size_bytes"], json({24, 24, 32}));
  EXPECT_EQ(paths(data), (std::vector<std::string>{"moving", "still"}));
  EXPECT_EQ(column<double>(data["leaves"]["size_bytes"]), (std::vector<double>{16, 16}));
  EXPECT_EQ(data["problem_count"], 0);
  EXPECT_EQ(data["kept"], nullptr) << "nobody said";
}

TEST_F(ReportTest, PageTellsWhyStepsAreKept) {
  const auto save = [&](std::uint64_t step, const std::string& rule, const std::string& metrics) {
    save_tree(store(), step, Tree(1), {.metrics = metrics, .preservation_policy = rule});
  };
  const std::string rule =
      R"({"policy":"AnyPreservationPolicy","policies":[{"policy":"LatestN","n":1},)"
      R"({"policy":"BestN","n":1,"reverse":true,"metric":"loss","keep_newest":false},)"
      R"({"policy":"<script>"}]})";
  save(1, rule, R"({"loss":3})");
  save(2, rule, R"({"loss":1})");
  save(3, rule, R"({"loss":2})");
  CommandResult result = report();
  ASSERT_EQ(result.exit_code, 0) << result.output << result.error;
  const json kept = data()["kept"];
  EXPECT_EQ(kept["rules"],
            json({{{"words", "the newest one"}, {"is_known", true}},
                  {{"words", "the one with the lowest loss"}, {"is_known", true}},
                  {{"words", "those without the metric"}, {"is_known", true}},
                  {{"words", "a rule of the program's own, <script>"}, {"is_known", false}}}));
  EXPECT_EQ(kept["by"], json({json::array(), {1}, {0}}));
  // The last save says what is so.
  save(4, "{no JSON", "");
  result = report({"--force"});
  ASSERT_EQ(result.exit_code, 0) << result.output << result.error;
  EXPECT_EQ(data()["kept"], nullptr);
}

TEST_F(ReportTest, StatisticsAreThoseOfTheLeaves) {
  save_three_steps();
  ASSERT_EQ(report().exit_code, 0);
  const json statistics = data()["statistics"];
  EXPECT_EQ(statistics["steps"], json({0, 1, 2}));
  // Two leaves in three steps.
  EXPECT_EQ(column<float>(statistics["norm"]), (std::vector<float>{5, 2, 10, 2, 5, 2}));
  // Present and measured; with NaN and infinity; the bytes of the measured step before.
  EXPECT_EQ(column<std::uint8_t>(statistics["flags"]),
            (std::vector<std::uint8_t>{3, 3, 3, 3 + 16, 3 + 4 + 8, 3 + 16}));
  const auto cells = column<std::uint32_t>(statistics["figures"]["cell"]);
  const auto rows = column<std::uint32_t>(statistics["figures"]["row"]);
  ASSERT_EQ(cells, (std::vector<std::uint32_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(rows[1], rows[3]);
  EXPECT_EQ(rows[3], rows[5]);
  const std::uint32_t newest = rows[4];
  const auto figure = [&](const char* name) {
    return column<double>(statistics["figures"][name]).at(newest);
  };
  EXPECT_EQ(figure("nan"), 1);
  EXPECT_EQ(figure("infinite"), 1);
  EXPECT_EQ(figure("zero"), 1);
  EXPECT_EQ(figure("min"), 0);
  EXPECT_EQ(figure("max"), 5);
  EXPECT_EQ(figure("mean"), 2.5);
  const auto histogram = column<std::uint32_t>(statistics["figures"]["histogram"]).at(newest);
  const auto counts = column<double>(statistics["histograms"]["counts"]);
  const std::size_t bins = statistics["histograms"]["bins"];
  EXPECT_EQ(counts.at(histogram * bins), 1);
  EXPECT_EQ(counts.at(histogram * bins + bins - 1), 1);
}

TEST_F(ReportTest, LeavesOfOlderStepsAreListedWithTheirLastStep) {
  save_floats(store(), 1, {{"gone", {1}}, {"stays", {1}}});
  save_floats(store(), 2, {{"stays", {2}}});
  ASSERT_EQ(report().exit_code, 0);
  const json data = this->data();
  EXPECT_EQ(paths(data), (std::vector<std::string>{"gone", "stays"}));
  EXPECT_EQ(column<std::uint32_t>(data["leaves"]["newest_step"]),
            (std::vector<std::uint32_t>{0, 1}));
}

TEST_F(ReportTest, StepsAndItemsCanBeChosenAndStatisticsLeftOut) {
  save_three_steps();
  ASSERT_EQ(report({"--steps", "10,20-25"}).exit_code, 0);
  EXPECT_EQ(data()["statistics"]["steps"], json({0, 1}));
  ASSERT_EQ(report({"--force", "--no-statistics"}).exit_code, 0);
  EXPECT_EQ(data()["statistics"], nullptr);
  EXPECT_EQ(paths(data()).size(), 2);
  ASSERT_EQ(report({"--force", "--item", "default"}).exit_code, 0);
  EXPECT_EQ(data()["items"], json({{{"name", "default"}, {"handler", "standard"}}}));
}

TEST_F(ReportTest, StoreWithoutStepsGetsAPageToo) {
  save_floats(store(), 1, {{"w", {1}}});
  ASSERT_EQ(run_stepstone({"rm", store(), "1"}).exit_code, 0);
  ASSERT_EQ(report().exit_code, 0);
  EXPECT_EQ(data()["steps"]["step"], json::array());
}

TEST_F(ReportTest, HostileNamesCannotLeaveTheData) {
  const std::vector<std::string> names = {"</script><script>alert(1)</script>",
                                          "<!--",
                                          "{{script}}{{nonce}}",
                                          "\xE2\x80\xA8\xE2\x80\xA9",
                                          "\xFF\xFE",
                                          std::string("\0\n\x1b[31m", 7),
                                          "\"],\"x\":[\"",
                                          "__proto__",
                                          "&lt;"};
  std::vector<FloatLeaf> leaves;
  for (const std::string& name : names) leaves.push_back({name, {1}});
  save_floats(store(), 1, leaves, R"({"</script><b>": 1, "__proto__": 2})");
  const CommandResult result = report();
  ASSERT_EQ(result.exit_code, 0) << result.error;
  const std::string text = data_text();
  EXPECT_EQ(text.find('<'), std::string::npos);
  for (const char c : text) ASSERT_TRUE(c >= ' ' && c <= '~') << static_cast<int>(c);
  const json data = this->data();
  ASSERT_FALSE(data.is_discarded());
  const std::vector<std::string> found = paths(data);
  ASSERT_EQ(found.size(), names.size());
  for (const std::string& name : names) {
    const std::string shown = to_text({PathComponent::key(name)});
    EXPECT_EQ(std::count(found.begin(), found.end(), shown), 1) << shown;
  }
  EXPECT_EQ(data["steps"]["metrics"][0]["</script><b>"], 1.0);
  // One element for the data and one for the page's own script.
  const std::string page = read_file(page_path());
  std::size_t count = 0;
  for (std::size_t at = page.find("<script"); at != std::string::npos;
       at = page.find("<script", at + 1)) {
    ++count;
  }
  EXPECT_EQ(count, 2);
}

TEST_F(ReportTest, PageNeedsNothingFromAnywhereAndSaysSo) {
  save_floats(store(), 1, {{"w", {1}}});
  ASSERT_EQ(report().exit_code, 0);
  const std::string page = read_file(page_path());
  EXPECT_NE(page.find("default-src 'none'"), std::string::npos);
  EXPECT_NE(page.find("connect-src 'none'"), std::string::npos);
  EXPECT_EQ(page.find("unsafe"), std::string::npos);
  EXPECT_EQ(page.find(" src="), std::string::npos);
  EXPECT_EQ(page.find("@import"), std::string::npos);
  EXPECT_EQ(page.find("innerHTML"), std::string::npos);
  EXPECT_EQ(page.find("{{"), std::string::npos);
  // The word that lets the page's own script run is another each time.
  const auto nonce = [](const std::string& text) { return text.substr(text.find("'nonce-"), 39); };
  ASSERT_EQ(report({"--force"}).exit_code, 0);
  EXPECT_NE(nonce(page), nonce(read_file(page_path())));
}

TEST_F(ReportTest, JsonAnswerSaysWhatWasWritten) {
  save_three_steps();
  const CommandResult result = report({"--json"});
  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_EQ(json::parse(result.output, nullptr, false),
            json({{"store", store()},
                  {"file", page_path()},
                  {"file_size_bytes", read_file(page_path()).size()},
                  {"step_count", 3},
                  {"measured_step_count", 3},
                  {"leaf_count", 2},
                  {"problem_count", 0},
                  {"problems", json::array()}}));
}

TEST_F(ReportTest, ReaderThatGoesAwayIsNoError) {
  save_three_steps();
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  ::close(ends[0]);
  const CommandResult result =
      run_stepstone({"report", store(), "-o", page_path(), "--json"}, ends[1]);
  ::close(ends[1]);
  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_EQ(data()["steps"]["step"].size(), 3);
}

TEST_F(ReportTest, FailuresSayWhyAndLeaveNothing) {
  save_three_steps();
  write_file(page_path(), "mine");
  expect_failure({"report", store(), "-o", page_path()}, 1, "exists already; --force replaces it");
  EXPECT_EQ(read_file(page_path()), "mine");
  expect_failure({"report", store(), "-o", page_path(), "--force", "--steps", "11"}, 1,
                 "there is no step 11");
  expect_failure({"report", store(), "-o", page_path(), "--force", "--item", "no"}, 1,
                 "no step has an item 'no'");
  EXPECT_EQ(read_file(page_path()), "mine");
  expect_failure({"report", path("nowhere"), "-o", path("x.html")}, 1, "nowhere");
  expect_failure({"report", store(), "-o", path("no/such/x.html")}, 1, "no/such/x.html");
  expect_failure({"report", store()}, 2, "--output");
  for (const char* steps : {"", "1,", "5-3", "-1", "x", "1-2-3"}) {
    expect_failure({"report", store(), "-o", path("x.html"), "--steps", steps}, 2, "--steps");
  }
  EXPECT_FALSE(std::filesystem::exists(path("x.html")));
}

TEST_F(ReportTest, InterruptionLeavesTheWholeFileOrNothing) {
  for (std::uint64_t step = 1; step <= 4; ++step) {
    save_floats(store(), step, {{"w", std::vector<float>(2'000'000, static_cast<float>(step))}});
  }
  std::vector<std::string> words = {STEPSTONE_BINARY, "report", store(), "-o", page_path()};
  std::vector<char*> pointers;
  pointers.reserve(words.size() + 1);
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  pid_t child = 0;
  ASSERT_EQ(::posix_spawn(&child, STEPSTONE_BINARY, nullptr, nullptr, pointers.data(), environ), 0);
  // Once it has begun its file, it is interrupted.
  const std::filesystem::path partial = page_path() + fmt::format(".partial-{}", child);
  int status = 0;
  pid_t ended = 0;
  while (!std::filesystem::exists(partial) && ended == 0) {
    ended = ::waitpid(child, &status, WNOHANG);
    ::sched_yield();
  }
  if (ended == 0) {
    ::kill(child, SIGINT);
    ASSERT_EQ(::waitpid(child, &status, 0), child);
  }
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_FALSE(std::filesystem::exists(partial));
  if (WEXITSTATUS(status) == 0) {
    EXPECT_EQ(data()["statistics"]["steps"].size(), 4);
  } else {
    EXPECT_EQ(WEXITSTATUS(status), 130);
    EXPECT_FALSE(std::filesystem::exists(page_path()));
  }
}

// Of the second of two leaves, each of two chunks; the first chunk stands in one block with the
// leaf's record.
class DamagedReportTest : public ReportTest {
 protected:
  DamagedReportTest() : values_(100'000) {
    const std::string bytes = random_bytes(values_.size() + 1, 5);
    for (std::size_t i = 0; i < values_.size(); ++i) {
      values_[i] = static_cast<float>(bytes[i]) + static_cast<float>(bytes[i + 1]) / 300;
    }
    good_.assign(values_.rbegin(), values_.rend());
    save_floats(store(), 1, {{"good", good_}, {"hurt", values_}});
  }

  // Flips a bit of the value, which stands in a table as it is.
  void damage(std::size_t index) const {
    std::string needle(64, '\0');
    std::memcpy(needle.data(), values_.data() + index, needle.size());
    for (const auto& entry : std::filesystem::directory_iterator(store())) {
      if (entry.path().extension() != ".sst") continue;
      std::string table = read_file(entry.path());
      const std::size_t at = table.find(needle);
      if (at == std::string::npos) continue;
      table[at] = static_cast<char>(table[at] ^ 1);
      write_file(entry.path(), table);
      return;
    }
    FAIL() << "no table has the value";
  }

  // The page is there, says what is wrong, and has the other leaf.
  void expect_report_of_damage() const {
    const CommandResult result = report();
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_NE(result.output.find("DAMAGED"), std::string::npos) << result.output;
    const json data = this->data();
    EXPECT_GE(data["problem_count"], 1);
    EXPECT_NE(data["problems"].dump().find("hurt"), std::string::npos) << data["problems"];
    ASSERT_FALSE(paths(data).empty());
    EXPECT_EQ(paths(data).front(), "good");
    double squares = 0;
    for (const float value : good_) squares += static_cast<double>(value) * value;
    EXPECT_FLOAT_EQ(column<float>(data["statistics"]["norm"]).front(),
                    static_cast<float>(std::sqrt(squares)));
  }

  std::vector<float> values_;
  std::vector<float> good_;
};

TEST_F(DamagedReportTest, LeafThatCannotBeReadIsMarked) {
  damage(90'000);
  expect_report_of_damage();
  const json data = this->data();
  EXPECT_EQ(column<std::uint8_t>(data["statistics"]["flags"]),
            (std::vector<std::uint8_t>{3, 1 + 32}));
}

TEST_F(DamagedReportTest, LeafThatCannotBeListedHidesNoOther) {
  damage(1000);
  expect_report_of_damage();
}

TEST(Base64, IsWhatTheStandardSays) {
  const auto encoded = [](std::string_view text) {
    return to_base64(std::as_bytes(std::span(text)));
  };
  EXPECT_EQ(encoded(""), "");
  EXPECT_EQ(encoded("f"), "Zg==");
  EXPECT_EQ(encoded("fo"), "Zm8=");
  EXPECT_EQ(encoded("foo"), "Zm9v");
  EXPECT_EQ(encoded("foobar"), "Zm9vYmFy");
  EXPECT_EQ(encoded("\xFB\xFF"), "+/8=");
}

TEST(ConstantTimeComparison, IsAComparison) {
  EXPECT_TRUE(equal_in_constant_time("abc", "abc"));
  EXPECT_TRUE(equal_in_constant_time("", ""));
  EXPECT_FALSE(equal_in_constant_time("abc", "abd"));
  EXPECT_FALSE(equal_in_constant_time("abc", "ab"));
  EXPECT_FALSE(equal_in_constant_time("", "a"));
}

}  // namespace
}  // namespace stepstone::tool
