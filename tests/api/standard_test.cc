// What goes in comes out: random trees of everything, saved and restored in every way the API has,
// and the errors of what does not fit.
#include <functional>
#include <optional>

#include "api/cast.h"
#include "api/checkpoint_manager.h"
#include "api/checkpointer.h"
#include "format/limits.h"
#include "tests/api/support.h"
#include "tests/api/trees.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using namespace std::string_literals;
using testing::array_of;
using testing::fails;
using testing::is_ok;
using testing::Random;
using testing::TreeMaker;

// A target leaf for a stored one, and what restoring into it must give.
struct TargetLeaf {
  Leaf target;
  Leaf expected;
};

TargetLeaf same_dtype_target(const Leaf& stored, TreeMaker& maker) {
  const auto* const array = std::get_if<Array>(&stored);
  if (array == nullptr) return {stored, stored};
  if (maker.random().one_in(2)) return {AbstractArray{array->dtype(), array->shape()}, stored};
  return {*Array::zeros(array->dtype(), array->shape()), stored};
}

TargetLeaf other_dtype_target(const Leaf& stored, TreeMaker& maker) {
  if (const auto* const value = std::get_if<bool>(&stored)) {
    if (maker.random().one_in(2)) return {std::int64_t{5}, std::int64_t{*value}};
    return {0.5, *value ? 1.0 : 0.0};
  }
  if (const auto* const value = std::get_if<std::int64_t>(&stored)) {
    if (maker.random().one_in(2)) return {0.5, static_cast<double>(*value)};
    return {AbstractArray{DType::kInt64, {}}, array_of<std::int64_t>({*value}, {})};
  }
  if (const auto* const value = std::get_if<double>(&stored)) {
    return {std::complex<double>(), std::complex<double>(*value, 0)};
  }
  const auto* const array = std::get_if<Array>(&stored);
  if (array == nullptr) return {stored, stored};
  const DType to = maker.random().one_of(testing::all_dtypes());
  const Result<Array> expected = cast(*array, to);
  if (!expected) return same_dtype_target(stored, maker);
  return {AbstractArray{to, array->shape()}, *expected};
}

// Holds what `restore` brings back against `tree`, in all the ways to ask for it.
void expect_restores(
    const Tree& tree, TreeMaker& maker,
    const std::function<Result<Tree>(const args::StandardRestore& args)>& restore) {
  const Result<Tree> as_saved = restore({});
  ASSERT_TRUE(is_ok(as_saved));
  EXPECT_EQ(*as_saved, tree);

  for (const auto& make_target : {same_dtype_target, other_dtype_target}) {
    Tree expected = tree;
    Tree target = testing::with_leaves(tree, [&](const Leaf& leaf) { return leaf; });
    const std::function<void(Tree&, Tree&)> fill = [&](Tree& wanted, Tree& asked) {
      if (wanted.is_leaf()) {
        TargetLeaf leaf = make_target(wanted.leaf(), maker);
        asked = Tree(std::move(leaf.target));
        wanted = Tree(std::move(leaf.expected));
        return;
      }
      for (std::size_t i = 0; i < wanted.children().size(); ++i) {
        fill(wanted.children()[i].tree, asked.children()[i].tree);
      }
    };
    fill(expected, target);
    const Result<Tree> restored = restore(args::StandardRestore(target));
    ASSERT_TRUE(is_ok(restored));
    EXPECT_EQ(*restored, expected);
  }

  // The order of a dict is no part of what must match; the result has the target's.
  const Tree other_order = testing::reordered(tree, maker.random());
  const Result<Tree> restored = restore(args::StandardRestore(other_order));
  ASSERT_TRUE(is_ok(restored));
  EXPECT_EQ(*restored, other_order);
}

TEST(Standard, RandomTreesComeBackThroughCheckpointManager) {
  const std::uint64_t seed = testing::seed_or(2024);
  SCOPED_TRACE(testing::trace(seed));
  TreeMaker maker(seed);
  const TemporaryDirectory directory;
  constexpr std::uint64_t kTreeCount = 240;
  std::size_t leaf_count = 0;
  std::unique_ptr<CheckpointManager> manager;
  for (std::uint64_t step = 0; step < kTreeCount; ++step) {
    SCOPED_TRACE("tree " + std::to_string(step));
    if (step % 60 == 0) {
      manager.reset();
      auto opened = CheckpointManager::open(
          directory.path() / "run",
          {.max_to_keep = 3, .enable_async_checkpointing = maker.random().one_in(2)});
      ASSERT_TRUE(is_ok(opened));
      manager = *std::move(opened);
    }
    const Tree tree = maker.tree();
    tree.for_each_leaf([&](const LeafPath& /*path*/, const Leaf& /*leaf*/) { ++leaf_count; });
    const auto saved = manager->save(step, args::StandardSave(tree));
    ASSERT_TRUE(is_ok(saved));
    ASSERT_TRUE(*saved);
    expect_restores(tree, maker, [&](const args::StandardRestore& restore_args) {
      return manager->restore(step, restore_args);
    });
    if (HasFatalFailure() || HasNonfatalFailure()) return;
  }
  EXPECT_EQ(manager->all_steps().size(), 3U);
  EXPECT_GT(leaf_count, 1000U);
}

TEST(Standard, RandomTreesComeBackThroughCheckpointer) {
  const std::uint64_t seed = testing::seed_or(4711);
  SCOPED_TRACE(testing::trace(seed));
  TreeMaker maker(seed);
  const TemporaryDirectory directory;
  const Checkpointer checkpointer;
  for (int i = 0; i < 25; ++i) {
    SCOPED_TRACE("tree " + std::to_string(i));
    const Tree tree = maker.tree();
    ASSERT_TRUE(is_ok(checkpointer.save(directory.path() / "checkpoint", args::StandardSave(tree),
                                        {.force = true})));
    expect_restores(tree, maker, [&](const args::StandardRestore& restore_args) {
      return checkpointer.restore(directory.path() / "checkpoint", restore_args);
    });
    if (HasFatalFailure() || HasNonfatalFailure()) return;
  }
}

TEST(Standard, EveryDTypeAndNamesThatBreakOthersComeBack) {
  TreeMaker maker(1);
  std::vector<std::pair<std::string, Tree>> arrays;
  for (const DType dtype : testing::all_dtypes()) {
    arrays.emplace_back(to_string(dtype), maker.array(dtype, {5, 3}));
    arrays.emplace_back(std::string(to_string(dtype)) + "/empty", maker.array(dtype, {0, 2}));
    arrays.emplace_back(std::string(to_string(dtype)) + "/scalar", maker.array(dtype, {}));
  }
  const Tree tree = Tree::dict(
      {{"dtypes", Tree::dict(std::move(arrays))},
       {"a.b", 1},
       {"a", Tree::dict({{"b", 2}})},
       {"a/b", 3},
       {"", Tree::dict({{"", Tree::dict({{"", 4}})}})},
       {"/", 5},
       {"\0"s, 6},
       {"\0\0"s, 7},
       {"..", 8},
       {".", 9},
       {std::string(limits::kNameSizeBytesMax, '\0'), 10},
       {"\xff\xfe not UTF-8", 11},
       {"both", Tree::container(NodeKind::kDict, "",
                                {{PathComponent::key("1"), 12}, {PathComponent::key(1), 13}})},
       {"rank 32", maker.array(DType::kFloat32, std::vector<std::uint64_t>(32, 1))},
       {"nothing", Tree::list({Tree::dict(), Tree::list(), Tree::tuple(), None{},
                               Tree::named_tuple("Empty", {}), Tree::custom("", {})})}});
  const TemporaryDirectory directory;
  const Checkpointer checkpointer;
  ASSERT_TRUE(is_ok(checkpointer.save(directory.path() / "checkpoint", args::StandardSave(tree))));
  expect_restores(tree, maker, [&](const args::StandardRestore& restore_args) {
    return checkpointer.restore(directory.path() / "checkpoint", restore_args);
  });
}

TEST(Standard, TheDeepestTreeComesBackAndOneDeeperIsRefused) {
  Tree tree = 7;
  for (std::size_t depth = 0; depth < limits::kDepthMax; ++depth) {
    tree = Tree::dict({{"d", std::move(tree)}});
  }
  const TemporaryDirectory directory;
  const Checkpointer checkpointer;
  ASSERT_TRUE(is_ok(checkpointer.save(directory.path() / "checkpoint", args::StandardSave(tree))));
  const auto restored = checkpointer.restore(directory.path() / "checkpoint");
  ASSERT_TRUE(is_ok(restored));
  EXPECT_EQ(*restored, tree);
  EXPECT_TRUE(
      fails(checkpointer.save(directory.path() / "deeper", args::StandardSave(Tree::list({tree}))),
            ErrorCode::kLimit, {"[0]/d/d", "128"}));
}

TEST(Standard, RestoredArraysBelongToTheCaller) {
  const TemporaryDirectory directory;
  const Checkpointer checkpointer;
  const Tree tree = Tree::dict({{"w", array_of<float>({1, 2, 3})}, {"none", array_of<float>({})}});
  ASSERT_TRUE(is_ok(checkpointer.save(directory.path() / "checkpoint", args::StandardSave(tree))));
  auto restored = checkpointer.restore(directory.path() / "checkpoint");
  ASSERT_TRUE(is_ok(restored));
  Array* const array = restored->find("w")->get_if<Array>();
  EXPECT_FALSE(array->is_borrowed());
  EXPECT_TRUE(is_ok(array->values<float>())) << "aligned for its type";
  array->mutable_bytes()[0] = std::byte{1};
  const auto again = checkpointer.restore(directory.path() / "checkpoint");
  ASSERT_TRUE(is_ok(again));
  EXPECT_EQ(*again, tree);
}

class StandardMismatch : public ::testing::Test {
 protected:
  void SetUp() override {
    auto opened = CheckpointManager::open(directory_.path() / "run");
    ASSERT_TRUE(is_ok(opened));
    manager_ = *std::move(opened);
  }

  // The error of restoring step 12, which holds `stored`, into `target`.
  Result<Tree> restore(const Tree& stored, const Tree& target) {
    if (!manager_->all_steps().empty()) STEPSTONE_TRY(manager_->delete_step(12));
    STEPSTONE_TRY(manager_->save(12, args::StandardSave(stored)));
    return manager_->restore(12, args::StandardRestore(target));
  }

  TemporaryDirectory directory_;
  std::unique_ptr<CheckpointManager> manager_;
};

TEST_F(StandardMismatch, NamesStepItemLeafAndBothSides) {
  const Array floats = array_of<float>({1, 2, 3});
  const auto at = [](Tree tree) {
    return Tree::dict({{"p", Tree::dict({{"w", std::move(tree)}})}});
  };
  struct Case {
    const char* name;
    Tree stored;
    Tree target;
    std::vector<std::string_view> parts;
  };
  const std::vector<Case> cases = {
      {"missing leaf",
       at(1),
       Tree::dict({{"p", Tree::dict({{"w", 1}, {"b", 2}})}}),
       {"'p/b'", "not in the checkpoint"}},
      {"extra leaf",
       Tree::dict({{"p", Tree::dict({{"w", 1}, {"b", 2}})}}),
       at(1),
       {"'p/b'", "not in the target"}},
      {"other key kind",
       at(Tree::dict({{"0", 1}})),
       at(Tree::integer_dict({{0, 1}})),
       {"'p/w/{0}'", "'p/w/0'"}},
      {"container kind", at(Tree::list({1})), at(Tree::tuple({1})), {"'p/w'", "list", "tuple"}},
      {"container for a leaf", at(Tree::dict()), at(1), {"'p/w'", "dict", "leaf"}},
      {"leaf for a container", at(1), at(Tree::dict()), {"'p/w'", "dict", "leaf"}},
      {"type name",
       at(Tree::named_tuple("Adam", {})),
       at(Tree::named_tuple("Sgd", {})),
       {"'p/w'", "'Adam'", "'Sgd'"}},
      {"longer list", at(Tree::list({1})), at(Tree::list({1, 2})), {"'p/w[1]'"}},
      {"shorter list", at(Tree::list({1, 2})), at(Tree::list({1})), {"'p/w[1]'"}},
      {"shape",
       at(floats),
       at(AbstractArray{DType::kFloat32, {3, 1}}),
       {"'p/w'", "float32 (3,)", "float32 (3, 1)"}},
      {"rank", at(floats), at(AbstractArray{DType::kFloat32, {}}), {"(3,)", "()"}},
      {"float to integer",
       at(floats),
       at(AbstractArray{DType::kInt32, {3}}),
       {"'p/w'", "float32", "int32", "fraction"}},
      {"integer that does not fit",
       at(array_of<std::int32_t>({1, 300})),
       at(AbstractArray{DType::kInt8, {2}}),
       {"'p/w'", "int8", "element 1"}},
      {"complex to real", at(std::complex<double>(1, 2)), at(0.5), {"'p/w'", "imaginary"}},
      {"float to int", at(0.5), at(1), {"'p/w'", "fraction"}},
      {"int to bool", at(1), at(true), {"'p/w'", "bool"}},
      {"array to scalar", at(floats), at(0.5), {"'p/w'", "(3,)", "a float"}},
      {"string for an array",
       at("text"),
       at(AbstractArray{DType::kFloat32, {3}}),
       {"'p/w'", "a string", "an array"}},
      {"array for a string", at(floats), at("text"), {"'p/w'", "a string", "an array"}},
      {"bytes for a string", at(Bytes{"b"}), at("b"), {"'p/w'", "a string", "bytes"}},
      {"None for an int", at(None{}), at(1), {"'p/w'", "None", "an int"}},
      {"int for None", at(1), at(None{}), {"'p/w'", "None", "an int"}},
      {"big int for an int", at(BigInteger{"1"}), at(1), {"'p/w'", "a big int", "an int"}},
      {"a leaf for the whole tree", 1, Tree::dict(), {"dict", "leaf"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const auto result = restore(c.stored, c.target);
    EXPECT_TRUE(fails(result, ErrorCode::kMismatch, {"step 12 item 'default'", "leaf '"}));
    for (const std::string_view part : c.parts) {
      EXPECT_TRUE(fails(result, ErrorCode::kMismatch, {part}));
    }
    EXPECT_TRUE(is_ok(manager_->restore(12))) << "the checkpoint itself is whole";
  }
}

TEST_F(StandardMismatch, ListsSeveralDifferencesAndCountsTheRest) {
  std::vector<std::pair<std::string, Tree>> old_names;
  std::vector<std::pair<std::string, Tree>> new_names;
  for (int i = 0; i < 6; ++i) {
    old_names.emplace_back("old" + std::to_string(i), i);
    new_names.emplace_back("new" + std::to_string(i), i);
  }
  EXPECT_TRUE(fails(restore(Tree::dict(old_names), Tree::dict(new_names)), ErrorCode::kMismatch,
                    {"'new0'", "'new4'", "and 7 more"}));
}

TEST_F(StandardMismatch, ScalarsAndArraysOfRankZeroStandForEachOther) {
  const auto restored = restore(
      Tree::list({7, array_of<float>({2.5F}, {}), true}),
      Tree::list({AbstractArray{DType::kFloat32, {}}, 0.0, AbstractArray{DType::kBool, {}}}));
  ASSERT_TRUE(is_ok(restored));
  EXPECT_EQ(*restored, Tree::list({array_of<float>({7}, {}), 2.5,
                                   *Array::copy_bytes(DType::kBool, {}, {{std::byte{1}}})}));
}

TEST_F(StandardMismatch, ATargetsArrayIsLeftAsItIs) {
  const Array target = array_of<double>({9, 9, 9});
  const auto restored = restore(array_of<float>({1, 2, 3}), target);
  ASSERT_TRUE(is_ok(restored));
  EXPECT_EQ(*restored, Tree(array_of<double>({1, 2, 3})));
  EXPECT_EQ(target, array_of<double>({9, 9, 9}));
}

TEST(Standard, TreesThatCannotBeSavedLeaveTheStoreAsItWas) {
  const auto in_dict = [](Tree tree) {
    return Tree::dict({{"ok", 1}, {"p", Tree::dict({{"w", std::move(tree)}})}});
  };
  Tree too_deep = 1;
  for (std::size_t depth = 0; depth <= limits::kDepthMax; ++depth)
    too_deep = Tree::list({too_deep});
  Tree long_names = 1;
  for (int i = 0; i < 9; ++i) {
    long_names = Tree::dict({{std::string(limits::kNameSizeBytesMax, 'n'), std::move(long_names)}});
  }
  Tree leaf_with_children = 1;
  leaf_with_children.children().push_back({PathComponent::key("lost"), 2});
  const auto node = [](NodeKind kind, std::string type_name, std::vector<PathComponent> labels) {
    std::vector<Tree::Child> children;
    children.reserve(labels.size());
    for (PathComponent& label : labels) children.push_back({std::move(label), 1});
    return Tree::container(kind, std::move(type_name), std::move(children));
  };
  const PathComponent key = PathComponent::key("k");
  struct Case {
    const char* name;
    Tree tree;
    ErrorCode code;
    std::string_view part;
  };
  const std::vector<Case> cases = {
      {"abstract array", in_dict(AbstractArray{DType::kFloat32, {2}}), ErrorCode::kInvalidArgument,
       "'p/w'"},
      {"string that is not UTF-8", in_dict("\xff"), ErrorCode::kInvalidArgument, "'p/w'"},
      {"overlong UTF-8", in_dict("\xc0\x80"), ErrorCode::kInvalidArgument, "UTF-8"},
      {"surrogate", in_dict("\xed\xa0\x80"), ErrorCode::kInvalidArgument, "UTF-8"},
      {"cut off UTF-8", in_dict("\xe2\x82"), ErrorCode::kInvalidArgument, "UTF-8"},
      {"beyond Unicode", in_dict("\xf4\x90\x80\x80"), ErrorCode::kInvalidArgument, "UTF-8"},
      {"big integer: empty", in_dict(BigInteger{""}), ErrorCode::kInvalidArgument, "'p/w'"},
      {"big integer: sign only", in_dict(BigInteger{"-"}), ErrorCode::kInvalidArgument, "decimal"},
      {"big integer: zeros", in_dict(BigInteger{"007"}), ErrorCode::kInvalidArgument, "decimal"},
      {"big integer: -0", in_dict(BigInteger{"-0"}), ErrorCode::kInvalidArgument, "decimal"},
      {"big integer: plus", in_dict(BigInteger{"+7"}), ErrorCode::kInvalidArgument, "decimal"},
      {"big integer: text", in_dict(BigInteger{"0x7"}), ErrorCode::kInvalidArgument, "decimal"},
      {"too deep", too_deep, ErrorCode::kLimit, "128"},
      {"name too long", Tree::dict({{std::string(limits::kNameSizeBytesMax + 1, 'n'), 1}}),
       ErrorCode::kLimit, "4097"},
      {"path too long", long_names, ErrorCode::kLimit, "over the limit"},
      {"type name too long", Tree::custom(std::string(limits::kNameSizeBytesMax + 1, 'n'), {}),
       ErrorCode::kLimit, "type name"},
      {"duplicate labels", node(NodeKind::kDict, "", {key, key}), ErrorCode::kInvalidArgument,
       "same label"},
      {"attribute in a dict", node(NodeKind::kDict, "", {PathComponent::attribute("a")}),
       ErrorCode::kInvalidArgument, "label"},
      {"key in a named tuple", node(NodeKind::kNamedTuple, "T", {key}), ErrorCode::kInvalidArgument,
       "label"},
      {"key in a list", node(NodeKind::kList, "", {key}), ErrorCode::kInvalidArgument, "label"},
      {"list from one", node(NodeKind::kList, "", {PathComponent::index(1)}),
       ErrorCode::kInvalidArgument, "label"},
      {"negative position",
       node(NodeKind::kCustom, "T", {PathComponent{PathComponent::Kind::kIndex, -1, {}}}),
       ErrorCode::kInvalidArgument, "negative"},
      {"leaf with children", in_dict(leaf_with_children), ErrorCode::kInvalidArgument, "'p/w'"},
      {"dict with a type name", in_dict(node(NodeKind::kDict, "T", {})),
       ErrorCode::kInvalidArgument, "'p/w'"},
      {"unknown kind of node", in_dict(node(NodeKind{99}, "", {})), ErrorCode::kInvalidArgument,
       "kind of node"},
  };
  const TemporaryDirectory directory;
  const Tree before = Tree::dict({{"w", array_of<float>({1, 2})}});
  for (const bool is_async : {true, false}) {
    const auto path = directory.path() / (is_async ? "async" : "sync");
    auto manager =
        CheckpointManager::open(path, {.max_to_keep = 1, .enable_async_checkpointing = is_async});
    ASSERT_TRUE(is_ok(manager));
    ASSERT_TRUE(is_ok((*manager)->save(1, args::StandardSave(before))));
    for (const Case& c : cases) {
      SCOPED_TRACE(c.name);
      EXPECT_TRUE(
          fails((*manager)->save(2, args::StandardSave(c.tree)), c.code, {"step 2", c.part}));
      EXPECT_TRUE(is_ok((*manager)->wait_until_finished()));
    }
    EXPECT_EQ((*manager)->all_steps(), std::vector<std::uint64_t>{1});
    EXPECT_EQ(*(*manager)->restore(1), before);
    // The next save works, and takes the place of the one before.
    ASSERT_TRUE(is_ok((*manager)->save(2, args::StandardSave(before))));
    ASSERT_TRUE(is_ok((*manager)->wait_until_finished()));
    EXPECT_EQ((*manager)->all_steps(), std::vector<std::uint64_t>{2});
  }
  const Checkpointer checkpointer;
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    EXPECT_TRUE(fails(checkpointer.save(directory.path() / "new", args::StandardSave(c.tree)),
                      c.code, {(directory.path() / "new").string(), c.part}));
    EXPECT_FALSE(std::filesystem::exists(directory.path() / "new")) << "nothing was created";
  }
}

}  // namespace
}  // namespace stepstone
