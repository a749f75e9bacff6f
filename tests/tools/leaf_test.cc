// Goal: leaves are chosen as the manual says, and what is in them is counted right for every dtype,
// value and size. Method: stores made here; what is counted is held against plain loops in a wider
// type.
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <random>

#include "api/cast.h"
#include "tests/tools/store_support.h"
#include "tests/tools/support.h"
#include "tools/element_values.h"
#include "tools/leaf_selection.h"
#include "tools/leaf_statistics.h"

namespace stepstone::tool {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

LeafSelection compiled(const LeafPatterns& patterns) {
  const Result<LeafSelection> selection = LeafSelection::compile(patterns);
  EXPECT_TRUE(selection.has_value()) << selection.error().message;
  return selection.value_or(LeafSelection());
}

bool selects(const LeafPatterns& patterns, const std::string& text) {
  const Result<LeafPath> path = parse_path(text);
  EXPECT_TRUE(path.has_value()) << text;
  return compiled(patterns).selects(path.value_or(LeafPath()), text);
}

TEST(LeafSelection, PathsPatternsAndExpressionsSelectWhatTheySay) {
  struct Case {
    std::string pattern;
    std::vector<std::string> selected;
    std::vector<std::string> others;
  };
  const std::vector<Case> cases = {
      {"params/dense", {"params/dense", "params/dense/w", "params/dense[3]"}, {"params/dense2"}},
      {"params/*", {"params/w", "params/dense/w"}, {"params", "opt/params/w"}},
      {"**/w", {"params/w", "a/b/c/w"}, {"w", "params/w2"}},
      {"*/b?as", {"params/bias"}, {"params/bas"}},
      {"layers[3]", {"layers[3]/w", "layers[3]", "layers3"}, {"layers[4]/w"}},
      {"layers\\[*\\]/w", {"layers[3]/w", "layers[12]/w"}, {"layers/w"}},
      {"re:^params/.*(bias|scale)$", {"params/a/bias", "params/scale"}, {"params/bias2", "bias"}},
      {"re:w", {"params/w", "w"}, {"bias"}},
      {"", {"", "params/w"}, {}},
  };
  for (const Case& example : cases) {
    SCOPED_TRACE(example.pattern);
    for (const std::string& text : example.selected) {
      EXPECT_TRUE(selects({.include = {example.pattern}}, text)) << text;
      EXPECT_FALSE(selects({.exclude = {example.pattern}}, text)) << text;
    }
    for (const std::string& text : example.others) {
      EXPECT_FALSE(selects({.include = {example.pattern}}, text)) << text;
      EXPECT_TRUE(selects({.exclude = {example.pattern}}, text)) << text;
    }
  }
}

TEST(LeafSelection, AnyPatternSelectsAndExclusionsWin) {
  const LeafPatterns patterns{.include = {"params", "opt/*"}, .exclude = {"*/bias"}};
  EXPECT_TRUE(selects(patterns, "params/w"));
  EXPECT_TRUE(selects(patterns, "opt/mu/w"));
  EXPECT_FALSE(selects(patterns, "opt/mu/bias"));
  EXPECT_FALSE(selects(patterns, "step"));
  EXPECT_TRUE(compiled({}).selects_all());
  EXPECT_FALSE(compiled(patterns).selects_all());
}

TEST(LeafSelection, RegexMakesEveryPatternAnExpression) {
  EXPECT_TRUE(selects({.include = {"^p.*w$"}, .is_regex = true}, "params/w"));
  EXPECT_FALSE(selects({.include = {"^p.*w$"}}, "params/w"));
}

TEST(LeafSelection, BrokenExpressionIsAnError) {
  const Result<LeafSelection> selection = LeafSelection::compile({.include = {"re:a(b"}});
  ASSERT_FALSE(selection.has_value());
  EXPECT_EQ(selection.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(selection.error().message.find("re:a(b"), std::string::npos);
}

class LeafTest : public TemporaryDirectoryTest {
 protected:
  std::shared_ptr<const StepReader> reader_of(const Tree& tree, const SaveOptions& options = {}) {
    save_tree(path("run"), ++step_, tree, options);
    store_.reset();
    auto store = Store::open(path("run"), {.read_only = true});
    EXPECT_TRUE(store.has_value());
    store_ = *std::move(store);
    auto reader = store_->read_step(step_);
    EXPECT_TRUE(reader.has_value());
    return *std::move(reader);
  }

  LeafStatistics statistics_of(const Tree& leaf, unsigned thread_count = 0) {
    const auto reader = reader_of(leaf, {.chunk_size_bytes = 4096});
    const auto leaves = list_leaves(*reader, "default");
    EXPECT_TRUE(leaves.has_value() && leaves->size() == 1);
    const StoredLeaf* const stored[] = {&leaves->front().stored};
    const auto results = count_leaves(*reader, "default", stored, {.thread_count = thread_count});
    EXPECT_TRUE(results.front().has_value() && results.front()->has_value());
    return **results.front();
  }

  LeafStatistics statistics_of(const std::vector<double>& values) {
    return statistics_of(Array::copy_of<double>(values, {values.size()}).value());
  }

 private:
  std::uint64_t step_ = 0;
  std::unique_ptr<Store> store_;
};

TEST_F(LeafTest, LeavesAreListedInTheOrderOfTheTree) {
  const auto reader = reader_of(
      Tree::dict({{"z", 1}, {"a", Tree::list({Tree(2), Tree(3)})}, {"m", Tree::dict({{"x", 4}})}}));
  const auto all = list_leaves(*reader, "default");
  ASSERT_TRUE(all.has_value()) << all.error().message;
  std::vector<std::string> texts;
  for (const ItemLeaf& leaf : *all) {
    texts.push_back(leaf.text);
    EXPECT_EQ(leaf.stored.record.size_bytes, 8U);
    EXPECT_EQ(to_text(leaf.path), leaf.text);
  }
  EXPECT_EQ(texts, (std::vector<std::string>{"z", "a[0]", "a[1]", "m/x"}));
  const auto some = list_leaves(*reader, "default", compiled({.include = {"a", "z"}}));
  ASSERT_TRUE(some.has_value());
  EXPECT_EQ(some->size(), 3U);
  const auto none = list_leaves(*reader, "other");
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().code, ErrorCode::kNotFound);
}

TEST_F(LeafTest, EveryKindOfElementIsCountedApart) {
  const LeafStatistics statistics =
      statistics_of(std::vector<double>{1, -2, 0, -0.0, kNan, kInfinity, -kInfinity, -kInfinity});
  EXPECT_EQ(statistics.count, 8U);
  EXPECT_EQ(statistics.nan_count, 1U);
  EXPECT_EQ(statistics.positive_infinity_count, 1U);
  EXPECT_EQ(statistics.negative_infinity_count, 2U);
  EXPECT_EQ(statistics.zero_count, 2U);
  EXPECT_EQ(statistics.finite_count(), 4U);
  EXPECT_EQ(statistics.zero_fraction(), 0.25);
  EXPECT_EQ(statistics.minimum, -2);
  EXPECT_EQ(statistics.maximum, 1);
  EXPECT_EQ(statistics.mean, -0.25);
  EXPECT_DOUBLE_EQ(statistics.standard_deviation, std::sqrt(1.1875));
  EXPECT_DOUBLE_EQ(statistics.l2_norm, std::sqrt(5.0));
}

TEST_F(LeafTest, NothingFiniteHasNoMean) {
  for (const std::vector<double>& values :
       {std::vector<double>{}, std::vector<double>{kNan}, std::vector<double>{kNan, kInfinity}}) {
    const LeafStatistics statistics = statistics_of(values);
    EXPECT_EQ(statistics.count, values.size());
    EXPECT_EQ(statistics.finite_count(), 0U);
    EXPECT_TRUE(std::isnan(statistics.minimum) && std::isnan(statistics.maximum));
    EXPECT_TRUE(std::isnan(statistics.mean) && std::isnan(statistics.standard_deviation));
    EXPECT_EQ(statistics.l2_norm, 0);
    EXPECT_EQ(statistics.zero_fraction(), 0);
  }
}

TEST_F(LeafTest, ExtremeMagnitudesDoNotOverflowOrVanish) {
  constexpr double kMax = std::numeric_limits<double>::max();
  const LeafStatistics large = statistics_of(std::vector<double>(1000, kMax / 64));
  EXPECT_DOUBLE_EQ(large.mean, kMax / 64);
  EXPECT_EQ(large.standard_deviation, 0);
  EXPECT_DOUBLE_EQ(large.l2_norm, kMax / 64 * std::sqrt(1000.0));
  const LeafStatistics small = statistics_of(std::vector<double>{3e-200, 4e-200});
  EXPECT_DOUBLE_EQ(small.l2_norm, 5e-200);
  EXPECT_DOUBLE_EQ(small.standard_deviation, 0.5e-200);
}

TEST_F(LeafTest, SmallDifferencesOfLargeNumbersAreNotLost) {
  // 1e9 and 1e9 + 1 in turn: the naive formula loses all of the deviation.
  std::vector<double> values(100'000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 1e9 + static_cast<double>(i % 2);
  const LeafStatistics statistics = statistics_of(values);
  EXPECT_NEAR(statistics.standard_deviation, 0.5, 1e-12);
  EXPECT_DOUBLE_EQ(statistics.mean, 1e9 + 0.5);
}

TEST_F(LeafTest, ManyPiecesGiveTheSameWithAnyNumberOfThreads) {
  constexpr std::uint64_t kSeed = 5;
  SCOPED_TRACE(fmt::format("seed {}", kSeed));
  std::mt19937_64 generator(kSeed);
  std::normal_distribution<float> normal(3.0F, 0.5F);
  // Three pieces and a bit.
  std::vector<float> values(3'500'001);
  for (float& value : values) value = normal(generator);
  values[2'000'000] = std::numeric_limits<float>::quiet_NaN();
  values[3'000'000] = 0;
  long double sum = 0;
  long double squares = 0;
  for (const float value : values) {
    if (std::isnan(value)) continue;
    sum += static_cast<long double>(value);
    squares += static_cast<long double>(value) * static_cast<long double>(value);
  }
  const auto count = static_cast<long double>(values.size() - 1);
  const Tree leaf = floats(values);
  const LeafStatistics one = statistics_of(leaf, 1);
  const LeafStatistics four = statistics_of(leaf, 4);
  EXPECT_EQ(one.count, values.size());
  EXPECT_EQ(one.nan_count, 1U);
  EXPECT_EQ(one.zero_count, 1U);
  EXPECT_NEAR(one.mean, static_cast<double>(sum / count), 1e-12);
  EXPECT_NEAR(one.standard_deviation,
              static_cast<double>(std::sqrt(squares / count - sum / count * (sum / count))), 1e-10);
  EXPECT_NEAR(one.l2_norm / static_cast<double>(std::sqrt(squares)), 1, 1e-14);
  EXPECT_EQ(one.mean, four.mean);
  EXPECT_EQ(one.standard_deviation, four.standard_deviation);
  EXPECT_EQ(one.l2_norm, four.l2_norm);
}

TEST_F(LeafTest, EveryDtypeHasTheValuesThatCastGives) {
  constexpr std::uint64_t kSeed = 6;
  for (auto number = static_cast<unsigned>(kDTypeFirst);
       number <= static_cast<unsigned>(kDTypeLast); ++number) {
    const auto dtype = static_cast<DType>(number);
    SCOPED_TRACE(fmt::format("{} seed {}", to_string(dtype), kSeed));
    // An odd number, so that packed elements end inside a byte.
    const NamedTensor tensor = random_tensor("w", dtype, {1001}, kSeed + number);
    const Array array =
        Array::copy_bytes(dtype, {1001}, std::as_bytes(std::span(tensor.bytes))).value();
    std::vector<double> values(1001);
    const ElementValues elements(dtype);
    elements.read(array.bytes(), 0, std::span(values).first(500));
    elements.read(array.bytes(), 500, std::span(values).subspan(500));
    const bool is_complex = info(dtype).kind == DTypeKind::kComplex;
    const Array wide =
        cast(array, is_complex ? DType::kComplex128 : DType::kFloat64, /*allow_lossy=*/true)
            .value();
    LeafStatistics expected;
    for (std::size_t i = 0; i < values.size(); ++i) {
      double value[2] = {};
      std::memcpy(value, wide.data() + i * (is_complex ? 16 : 8), is_complex ? 16 : 8);
      const double real = is_complex ? std::hypot(value[0], value[1]) : value[0];
      const bool is_nan = std::isnan(value[0]) || std::isnan(value[1]);
      if (is_nan) {
        EXPECT_TRUE(std::isnan(values[i])) << i;
      } else {
        EXPECT_EQ(values[i], real) << i;
      }
      expected.nan_count += is_nan ? 1 : 0;
      expected.zero_count += !is_nan && real == 0 ? 1 : 0;
      if (!is_nan && std::isfinite(real)) {
        expected.minimum = std::fmin(expected.minimum, real);
        expected.maximum = std::fmax(expected.maximum, real);
      }
    }
    const LeafStatistics statistics = statistics_of(array);
    EXPECT_EQ(statistics.count, 1001U);
    EXPECT_EQ(statistics.nan_count, expected.nan_count);
    EXPECT_EQ(statistics.zero_count, expected.zero_count);
    EXPECT_EQ(statistics.minimum, expected.minimum);
    EXPECT_EQ(statistics.maximum, expected.maximum);
  }
}

TEST_F(LeafTest, SinglePythonNumbersCountAndTextDoesNot) {
  EXPECT_EQ(statistics_of(Tree(true)).mean, 1);
  EXPECT_EQ(statistics_of(Tree(-7)).minimum, -7);
  EXPECT_EQ(statistics_of(Tree(2.5)).maximum, 2.5);
  EXPECT_EQ(statistics_of(Tree(std::complex<double>(3, 4))).mean, 5);
  const auto reader = reader_of(Tree::list({Tree("text"), Tree(None()), Tree(Bytes{"b"}),
                                            Tree(BigInteger{"123456789012345678901234567890"})}));
  const auto leaves = list_leaves(*reader, "default");
  ASSERT_TRUE(leaves.has_value());
  std::vector<const StoredLeaf*> stored;
  for (const ItemLeaf& leaf : *leaves) stored.push_back(&leaf.stored);
  for (const LeafStatisticsResult& result : count_leaves(*reader, "default", stored)) {
    ASSERT_TRUE(result.has_value());
    EXPECT_FALSE(result->has_value());
  }
}

TEST_F(LeafTest, HistogramHoldsEveryElementBetweenItsEnds) {
  const auto reader = reader_of(
      Array::copy_of<double>(
          std::vector<double>{0, 0.5, 1, 1.5, 2, 3.999, 4, 4.001, -0.1, kNan, kInfinity}, {11})
          .value());
  const auto leaves = list_leaves(*reader, "default");
  ASSERT_TRUE(leaves.has_value());
  const StoredLeaf& leaf = leaves->front().stored;
  const auto histogram = count_histogram(*reader, "default", leaf, 0, 4, 4);
  ASSERT_TRUE(histogram.has_value()) << histogram.error().message;
  EXPECT_EQ(histogram->counts, (std::vector<std::uint64_t>{2, 2, 1, 2}));
  const auto single = count_histogram(*reader, "default", leaf, 1, 1, 3);
  ASSERT_TRUE(single.has_value());
  EXPECT_EQ(single->counts, (std::vector<std::uint64_t>{1, 0, 0}));
  for (const auto& [low, high, bins] :
       {std::tuple(0.0, kInfinity, 4), std::tuple(1.0, 0.0, 4), std::tuple(0.0, 1.0, 0)}) {
    const auto refused =
        count_histogram(*reader, "default", leaf, low, high, static_cast<std::size_t>(bins));
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  }
}

TEST_F(LeafTest, HistogramOfTheWidestRangeHasFiniteBins) {
  constexpr double kMax = std::numeric_limits<double>::max();
  const auto reader =
      reader_of(Array::copy_of<double>(std::vector<double>{-kMax, 0, kMax}, {3}).value());
  const auto leaves = list_leaves(*reader, "default");
  ASSERT_TRUE(leaves.has_value());
  const auto histogram =
      count_histogram(*reader, "default", leaves->front().stored, -kMax, kMax, 3);
  ASSERT_TRUE(histogram.has_value());
  EXPECT_EQ(histogram->counts, (std::vector<std::uint64_t>{1, 1, 1}));
}

TEST_F(LeafTest, DamagedLeafDoesNotHideTheOthers) {
  const std::vector<float> values(100'000, 1.5F);
  save_tree(path("run"), 1, Tree::dict({{"a", floats(values)}, {"b", 1.0}}),
            {.compression = Compression::kNone});
  // Everything that 1.5F fills is the leaf's; the middle of a segment is inside.
  for (const auto& entry : std::filesystem::directory_iterator(path("run"))) {
    if (entry.path().extension() != ".sst") continue;
    std::string bytes = read_file(entry.path());
    if (bytes.size() < 100'000) continue;
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    write_file(entry.path(), bytes);
  }
  const auto store = Store::open(path("run"), {.read_only = true});
  ASSERT_TRUE(store.has_value()) << store.error().message;
  const auto reader = (*store)->read_step(1);
  ASSERT_TRUE(reader.has_value());
  const auto leaves = list_leaves(**reader, "default");
  ASSERT_TRUE(leaves.has_value()) << leaves.error().message;
  const StoredLeaf* const stored[] = {&(*leaves)[0].stored, &(*leaves)[1].stored};
  const auto results = count_leaves(**reader, "default", stored);
  ASSERT_FALSE(results[0].has_value());
  EXPECT_EQ(results[0].error().code, ErrorCode::kCorrupt);
  ASSERT_TRUE(results[1].has_value() && results[1]->has_value());
  EXPECT_EQ((*results[1])->mean, 1.0);
}

}  // namespace
}  // namespace stepstone::tool
