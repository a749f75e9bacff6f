#include "api/tree.h"

#include <cmath>
#include <limits>

#include "tests/api/support.h"
#include "tests/api/trees.h"

namespace stepstone {
namespace {

using namespace std::string_literals;
using testing::array_of;

Tree sample() {
  return Tree::dict(
      {{"step", 7},
       {"params", Tree::dict({{"w", array_of<float>({1, 2})}, {"b", None{}}})},
       {"layers", Tree::list({Tree::dict({{"w", 0.5}}), Tree::tuple({true, "text"})})},
       {"opt", Tree::named_tuple("Adam", {{"mu", Bytes{"m"}}, {"nu", BigInteger{"12"}}})},
       {"table", Tree::integer_dict({{-3, std::complex<double>(1, 2)}})},
       {"empty", Tree::custom("Config", {})}});
}

TEST(Tree, DefaultIsOneNone) {
  const Tree tree;
  EXPECT_TRUE(tree.is_leaf());
  EXPECT_NE(tree.get_if<None>(), nullptr);
  EXPECT_EQ(tree, Tree(None{}));
}

TEST(Tree, HoldsEveryKindOfLeaf) {
  EXPECT_EQ(*Tree(true).get_if<bool>(), true);
  EXPECT_EQ(*Tree(7).get_if<std::int64_t>(), 7);
  EXPECT_EQ(*Tree(std::int64_t{-7}).get_if<std::int64_t>(), -7);
  EXPECT_EQ(*Tree(0.5).get_if<double>(), 0.5);
  EXPECT_EQ(*Tree(0.5F).get_if<double>(), 0.5);
  EXPECT_EQ(*Tree("text").get_if<std::string>(), "text") << "not a bool";
  EXPECT_EQ(*Tree("text"s).get_if<std::string>(), "text");
  EXPECT_EQ(Tree(Bytes{"b"}).get_if<Bytes>()->bytes, "b");
  EXPECT_EQ(Tree(BigInteger{"9"}).get_if<BigInteger>()->decimal, "9");
  EXPECT_EQ(*Tree(std::complex<double>(1, 2)).get_if<std::complex<double>>(),
            std::complex<double>(1, 2));
  EXPECT_EQ(Tree(AbstractArray{DType::kInt8, {2}}).get_if<AbstractArray>()->dtype, DType::kInt8);
  EXPECT_EQ(*Tree(array_of<float>({1})).get_if<Array>(), array_of<float>({1}));
  EXPECT_EQ(Tree(7).get_if<double>(), nullptr);
  EXPECT_EQ(Tree::dict().get_if<double>(), nullptr);
}

TEST(Tree, ContainersKeepKindNamesAndOrder) {
  const Tree dict = Tree::dict({{"z", 1}, {"a", 2}});
  EXPECT_EQ(dict.kind(), NodeKind::kDict);
  ASSERT_EQ(dict.children().size(), 2U);
  EXPECT_EQ(dict.children()[0].label, PathComponent::key("z"));
  EXPECT_EQ(Tree::integer_dict({{5, 1}}).children()[0].label, PathComponent::key(5));
  EXPECT_EQ(Tree::list({1, 2}).children()[1].label, PathComponent::index(1));
  EXPECT_EQ(Tree::tuple({1}).kind(), NodeKind::kTuple);
  const Tree named = Tree::named_tuple("Adam", {{"mu", 1}});
  EXPECT_EQ(named.kind(), NodeKind::kNamedTuple);
  EXPECT_EQ(named.type_name(), "Adam");
  EXPECT_EQ(named.children()[0].label, PathComponent::attribute("mu"));
  EXPECT_EQ(Tree::custom("Config", {}).kind(), NodeKind::kCustom);
  EXPECT_FALSE(Tree::dict().is_leaf());
}

TEST(Tree, FindsByTextAndByPath) {
  Tree tree = sample();
  EXPECT_EQ(tree.find(""), &tree);
  EXPECT_EQ(*tree.find("step"), Tree(7));
  EXPECT_EQ(*tree.find("params/w")->get_if<Array>(), array_of<float>({1, 2}));
  EXPECT_EQ(*tree.find("layers[1][1]"), Tree("text"));
  EXPECT_EQ(*tree.find("layers[0]/w"), Tree(0.5));
  EXPECT_EQ(*tree.find("opt/.mu"), Tree(Bytes{"m"}));
  EXPECT_EQ(*tree.find("table/{-3}"), Tree(std::complex<double>(1, 2)));
  EXPECT_TRUE(tree.find("empty")->children().empty());
  EXPECT_EQ(*tree.find(LeafPath{PathComponent::key("params"), PathComponent::key("b")}),
            Tree(None{}));
  tree.find("step")->get_if<std::int64_t>()[0] = 8;
  EXPECT_EQ(*tree.find("step"), Tree(8));
}

TEST(Tree, FindsNothingWhereNothingIs) {
  const Tree tree = sample();
  for (const char* path : {"nothing", "step/more", "params/w/x", "layers[2]", "layers/0", "opt/mu",
                           "table/{3}", "table/-3", "params/", "layers[", "/"}) {
    EXPECT_EQ(tree.find(path), nullptr) << path;
  }
}

TEST(Tree, NamesThatLookAlikeAreDifferentPlaces) {
  const Tree tree = Tree::container(NodeKind::kCustom, "T",
                                    {{PathComponent::key("a.b"), 1},
                                     {PathComponent::key("a"), Tree::dict({{"b", 2}})},
                                     {PathComponent::key("0"), 3},
                                     {PathComponent::key(0), 4},
                                     {PathComponent::index(0), 5},
                                     {PathComponent::attribute("0"), 6},
                                     {PathComponent::key(""), 7}});
  EXPECT_EQ(*tree.find("a.b"), Tree(1));
  EXPECT_EQ(*tree.find("a/b"), Tree(2));
  EXPECT_EQ(*tree.find("0"), Tree(3));
  EXPECT_EQ(*tree.find("{0}"), Tree(4));
  EXPECT_EQ(*tree.find("[0]"), Tree(5));
  EXPECT_EQ(*tree.find(".0"), Tree(6));
  EXPECT_EQ(*tree.find("\\e"), Tree(7));
}

// Every leaf of a random tree is found under its path, as components and as text.
TEST(Tree, FindsEveryLeafThatItVisits) {
  const std::uint64_t seed = testing::seed_or(3);
  SCOPED_TRACE(testing::trace(seed));
  testing::TreeMaker maker(seed);
  std::size_t count = 0;
  for (int round = 0; round < 100; ++round) {
    const Tree tree = maker.tree();
    tree.for_each_leaf([&](const LeafPath& path, const Leaf& leaf) {
      ++count;
      ASSERT_NE(tree.find(path), nullptr);
      EXPECT_EQ(&tree.find(path)->leaf(), &leaf);
      EXPECT_EQ(tree.find(to_text(path)), tree.find(path)) << to_text(path);
    });
  }
  EXPECT_GT(count, 100U);
}

TEST(Tree, VisitsLeavesInItsOwnOrder) {
  std::vector<std::string> paths;
  sample().for_each_leaf(
      [&](const LeafPath& path, const Leaf& /*leaf*/) { paths.push_back(to_text(path)); });
  EXPECT_EQ(paths,
            (std::vector<std::string>{"step", "params/w", "params/b", "layers[0]/w", "layers[1][0]",
                                      "layers[1][1]", "opt/.mu", "opt/.nu", "table/{-3}"}));
  paths.clear();
  Tree(7).for_each_leaf(
      [&](const LeafPath& path, const Leaf& /*leaf*/) { paths.push_back(to_text(path)); });
  EXPECT_EQ(paths, std::vector<std::string>{""});
}

TEST(Tree, EqualityLooksAtEverything) {
  EXPECT_EQ(sample(), sample());
  EXPECT_NE(Tree::dict({{"a", 1}, {"b", 2}}), Tree::dict({{"b", 2}, {"a", 1}})) << "order";
  EXPECT_NE(Tree::list({1}), Tree::tuple({1}));
  EXPECT_NE(Tree::list(), Tree::dict());
  EXPECT_NE(Tree::named_tuple("A", {{"x", 1}}), Tree::named_tuple("B", {{"x", 1}}));
  EXPECT_NE(Tree::named_tuple("A", {{"x", 1}}), Tree::custom("A", {{"x", 1}}));
  EXPECT_NE(Tree::dict({{"0", 1}}), Tree::integer_dict({{0, 1}}));
  EXPECT_NE(Tree(1), Tree(1.0));
  EXPECT_NE(Tree(1), Tree(true));
  EXPECT_NE(Tree("a"), Tree(Bytes{"a"}));
  EXPECT_NE(Tree(None{}), Tree::dict());
  EXPECT_NE(Tree(BigInteger{"1"}), Tree(1));
  EXPECT_NE(Tree(AbstractArray{DType::kInt8, {2}}), Tree(AbstractArray{DType::kInt8, {3}}));
  EXPECT_NE(Tree(array_of<float>({1})), Tree(array_of<float>({2})));
}

TEST(Tree, NumbersAreEqualByTheirBits) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(Tree(nan), Tree(nan));
  EXPECT_NE(Tree(nan), Tree(-nan));
  EXPECT_NE(Tree(0.0), Tree(-0.0));
  EXPECT_EQ(Tree(std::complex<double>(nan, -0.0)), Tree(std::complex<double>(nan, -0.0)));
  EXPECT_NE(Tree(std::complex<double>(nan, -0.0)), Tree(std::complex<double>(nan, 0.0)));
  EXPECT_NE(Tree(std::complex<double>(0.0, nan)), Tree(std::complex<double>(-0.0, nan)));
}

TEST(Tree, CopiesAreIndependentButShareArrays) {
  const Tree tree = sample();
  Tree copy = tree;
  const Array* const array = copy.find("params/w")->get_if<Array>();
  EXPECT_EQ(array->data(), tree.find("params/w")->get_if<Array>()->data());
  copy.find("params/w")->get_if<Array>()->mutable_bytes()[0] = std::byte{1};
  copy.children().pop_back();
  EXPECT_EQ(tree, sample());
  EXPECT_NE(copy, tree);
}

}  // namespace
}  // namespace stepstone
