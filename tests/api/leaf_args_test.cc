// Options leaf by leaf, on the way in and out; and restores of other trees than the one saved.
#include <fnmatch.h>

#include <algorithm>
#include <functional>

#include "api/array_region.h"
#include "api/cast.h"
#include "api/checkpoint_manager.h"
#include "api/checkpointer.h"
#include "api/portable.h"
#include "tests/api/support.h"
#include "tests/api/trees.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using testing::array_of;
using testing::fails;
using testing::is_ok;
using testing::Random;
using testing::TreeMaker;

class LeafArgsTest : public ::testing::Test {
 protected:
  std::filesystem::path path() const { return directory_.path() / "c"; }

  Result<void> save(const Tree& tree, PerLeaf<SaveArgs> save_args = {}) const {
    return Checkpointer().save(path(), args::PyTreeSave(tree, std::move(save_args)),
                               {.force = true});
  }
  Result<Tree> restore(const args::PyTreeRestore& args) const {
    return Checkpointer().restore(path(), args);
  }
  // Of a checkpoint that is one array.
  Result<Tree> restore_with(RestoreArgs restore_args) const {
    args::PyTreeRestore args;
    args.restore_args = std::move(restore_args);
    return restore(args);
  }

  TemporaryDirectory directory_;
};

const Tree& params() {
  static const Tree kTree =
      Tree::dict({{"enc", Tree::dict({{"w", array_of<float>({1.5, 2.5})}, {"b", 1}})},
                  {"dec", Tree::dict({{"w", array_of<float>({3.25})}})},
                  {"name", "net"}});
  return kTree;
}

TEST_F(LeafArgsTest, SavesInAnotherDtypeByPatternAndByTree) {
  PerLeaf<SaveArgs> by_pattern;
  by_pattern.add("enc/*", SaveArgs{.dtype = DType::kBfloat16});
  ASSERT_TRUE(is_ok(save(params(), by_pattern)));
  const Tree halved = *Checkpointer().restore(path());
  EXPECT_EQ(halved.find("enc/w")->get_if<Array>()->dtype(), DType::kBfloat16);
  EXPECT_EQ(*halved.find("enc/b"), Tree(1)) << "only arrays are cast";
  EXPECT_EQ(*halved.find("dec/w"), *params().find("dec/w"));

  const auto as_tree = PerLeaf<SaveArgs>::dict(
      {{"enc", PerLeaf<SaveArgs>::dict({{"w", SaveArgs{.dtype = DType::kFloat64}}})},
       {"dec", SaveArgs{.dtype = DType::kInt32, .allow_lossy_cast = true}}});
  ASSERT_TRUE(is_ok(save(params(), as_tree)));
  const Tree cast_tree = *Checkpointer().restore(path());
  EXPECT_EQ(*cast_tree.find("enc/w"), Tree(array_of<double>({1.5, 2.5})));
  EXPECT_EQ(*cast_tree.find("dec/w"), Tree(array_of<std::int32_t>({3})));
}

TEST_F(LeafArgsTest, ASaveThatWouldLoseMoreThanWasAskedForIsRefused) {
  ASSERT_TRUE(is_ok(save(params())));
  EXPECT_TRUE(fails(save(params(), SaveArgs{.dtype = DType::kInt8}), ErrorCode::kMismatch,
                    {"step 0 item 'default'", "'enc/w'", "allow_lossy_cast"}));
  PerLeaf<SaveArgs> mistyped;
  mistyped.add(LeafPath{PathComponent::key("encoder")}, SaveArgs{});
  EXPECT_TRUE(fails(save(params(), mistyped), ErrorCode::kInvalidArgument, {"'encoder'"}));
  EXPECT_TRUE(
      fails(save(params(), SaveArgs{.chunk_size_bytes = 100}), ErrorCode::kLimit, {"100 bytes"}));
  EXPECT_EQ(*Checkpointer().restore(path()), params()) << "the checkpoint is as it was";
}

TEST_F(LeafArgsTest, AnIntegerThatDoesNotFitIsFoundBeforeAnythingIsQueuedAndNamedByItsPlace) {
  using enum DType;
  // Far into the array, past several chunks.
  constexpr std::size_t kCount = 700'000;
  constexpr std::size_t kPlace = 654'321;
  const auto manager = *CheckpointManager::open(path());
  std::uint64_t step = 0;
  const auto save_as = [&](const Array& array, DType to, bool is_lossy = false) {
    const SaveArgs how = {.dtype = to, .allow_lossy_cast = is_lossy, .chunk_size_bytes = 4096};
    return manager->save(step++, args::StandardSave(Tree::dict({{"n", array}}), how));
  };
  const auto misfit = [&](const Array& array, DType to, std::uint64_t place) {
    const std::string name = "step " + std::to_string(step) + " item 'default'";
    const std::string element = "element " + std::to_string(place) + " does not fit";
    return fails(save_as(array, to), ErrorCode::kMismatch,
                 {name, "leaf 'n'", element, "allow_lossy_cast"});
  };
  std::vector<std::int64_t> wide(kCount, 7);
  wide[kPlace] = -129;
  EXPECT_TRUE(misfit(array_of(wide), kInt8, kPlace));
  EXPECT_TRUE(misfit(array_of(wide, {1000, 700}), kUint64, kPlace)) << "counted in C order";
  EXPECT_TRUE(misfit(*Array::borrow<std::int64_t>(wide, {kCount}), kInt4, kPlace));
  // Every second one, from the end: the misfit is at (kCount - 1 - kPlace) / 2.
  const Array strided = *Array::borrow_strided(
      kInt64, {kCount / 2}, {-16}, reinterpret_cast<const std::byte*>(&wide[kCount - 1]));
  EXPECT_TRUE(misfit(strided, kUint8, (kCount - 1 - kPlace) / 2));
  std::vector<std::uint16_t> tall(kCount, 0);
  tall[kPlace] = 0x8000;
  EXPECT_TRUE(misfit(array_of(tall), kInt16, kPlace));
  const Array packed =
      *Array::copy_bytes(kInt4, {3}, std::vector<std::byte>{std::byte{0x21}, std::byte{0x01}});
  EXPECT_TRUE(misfit(packed, kInt2, 1)) << "1, 2, 1";
  EXPECT_FALSE(manager->is_saving_in_progress());
  EXPECT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_TRUE(manager->all_steps().empty());

  EXPECT_TRUE(is_ok(save_as(array_of(tall), kUint32)));
  EXPECT_TRUE(is_ok(save_as(array_of(wide), kInt16)));
  EXPECT_TRUE(is_ok(save_as(array_of(wide), kFloat16)));
  EXPECT_TRUE(is_ok(save_as(array_of(wide), kInt8, true)));
  EXPECT_TRUE(is_ok(save_as(array_of(std::vector<std::int64_t>()), kInt2)));
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  const Tree clamped = *manager->restore(step - 2);
  EXPECT_EQ((*clamped.find("n")->get_if<Array>()->values<std::int8_t>())[kPlace], -128);
}

// Whatever the dtypes and however the chunks fall, what is stored is what cast() makes of the
// whole.
TEST_F(LeafArgsTest, CastsChunkByChunkAsOfTheWholeArray) {
  const std::uint64_t seed = testing::seed_or(77);
  SCOPED_TRACE(testing::trace(seed));
  TreeMaker maker(seed);
  std::vector<Tree> arrays;
  std::vector<Tree> expected;
  PerLeaf<SaveArgs> save_args;
  for (int i = 0; i < 60; ++i) {
    const Array array = maker.array(maker.random().one_of(testing::all_dtypes()),
                                    {maker.random().below(50), 500 + maker.random().below(9)});
    const DType to = maker.random().one_of(testing::all_dtypes());
    const bool is_lossy = maker.random().one_in(2);
    const auto cast_whole = cast(array, to, is_lossy);
    if (!cast_whole) continue;
    save_args.add(LeafPath{PathComponent::index(static_cast<std::uint32_t>(arrays.size()))},
                  SaveArgs{.dtype = to,
                           .allow_lossy_cast = is_lossy,
                           .chunk_size_bytes =
                               4096 + static_cast<std::uint32_t>(maker.random().below(3)) * 1111});
    arrays.emplace_back(array);
    expected.emplace_back(*cast_whole);
  }
  ASSERT_GT(arrays.size(), 20U);
  ASSERT_TRUE(is_ok(save(Tree::list(arrays), save_args)));
  const auto restored = Checkpointer().restore(path());
  ASSERT_TRUE(is_ok(restored));
  EXPECT_EQ(*restored, Tree::list(expected));
}

TEST_F(LeafArgsTest, ChunkSizeCompressionAndSharingAreALeafsOwn) {
  const Array zeros = *Array::zeros(DType::kUint8, {600000});
  const Array noise = testing::new_bytes(600000);
  PerLeaf<SaveArgs> how;
  how.add("a*", SaveArgs{.chunk_size_bytes = 8192})
      .add("zeros", SaveArgs{.compression = Compression::kAlways})
      .add("own", SaveArgs{.share = false});
  ASSERT_TRUE(
      is_ok(save(Tree::dict({{"a", noise}, {"b", noise}, {"own", noise}, {"zeros", zeros}}), how)));
  const auto metadata = Checkpointer().metadata(path());
  ASSERT_TRUE(is_ok(metadata));
  const auto& leaves = metadata->items[0].second.leaves;
  EXPECT_EQ(leaves[0].chunk_size_bytes, 8192U);
  EXPECT_EQ(leaves[1].chunk_size_bytes, 256U << 10);
  EXPECT_LT(leaves[3].stored_bytes, 1000U);
  // On the disk: `a` has other chunks, `own` shares nothing; b could have shared with own.
  std::uint64_t size = 0;
  for (const auto& file : std::filesystem::recursive_directory_iterator(path())) {
    if (file.path().extension() == ".sst") size += file.file_size();
  }
  EXPECT_GT(size, 3 * noise.size_bytes());
  ASSERT_TRUE(is_ok(save(Tree::dict({{"b", noise}, {"own", noise}}))));
  EXPECT_EQ(*Checkpointer().restore(path())->find("own"), Tree(noise));
}

TEST_F(LeafArgsTest, CastsOnTheWayOutAndOnlyLosesWhenAsked) {
  ASSERT_TRUE(is_ok(save(array_of<float>({1.75, -2.5, 300}))));
  EXPECT_EQ(*restore_with({.dtype = DType::kFloat64}), Tree(array_of<double>({1.75, -2.5, 300})));
  EXPECT_TRUE(fails(restore_with({.dtype = DType::kInt8}), ErrorCode::kMismatch,
                    {"float32", "int8", "fraction"}));
  EXPECT_EQ(*restore_with({.dtype = DType::kInt8, .allow_lossy_cast = true}),
            Tree(array_of<std::int8_t>({1, -2, 127})));
  EXPECT_EQ(
      *restore_with({.dtype = DType::kBool, .allow_lossy_cast = true}),
      Tree(*Array::copy_bytes(DType::kBool, {3}, {{std::byte{1}, std::byte{1}, std::byte{1}}})));
}

TEST_F(LeafArgsTest, PadsAndTruncatesOnlyWhenAsked) {
  ASSERT_TRUE(is_ok(save(array_of<std::int16_t>({1, 2, 3, 4, 5, 6}, {2, 3}))));
  const auto shaped = [](std::vector<std::uint64_t> shape, bool pad, bool truncate) {
    return RestoreArgs{.shape = std::move(shape), .pad = pad, .truncate = truncate};
  };
  EXPECT_TRUE(fails(restore_with(shaped({3, 3}, false, true)), ErrorCode::kMismatch,
                    {"int16 (2, 3)", "int16 (3, 3)", "pad"}));
  EXPECT_TRUE(fails(restore_with(shaped({2, 2}, true, false)), ErrorCode::kMismatch, {"truncate"}));
  EXPECT_TRUE(fails(restore_with(shaped({6}, true, true)), ErrorCode::kMismatch, {"(6,)"}));
  EXPECT_EQ(*restore_with(shaped({3, 2}, true, true)),
            Tree(array_of<std::int16_t>({1, 2, 4, 5, 0, 0}, {3, 2})));
  // As Orbax's strict=False: to the target's shape.
  const auto lenient = Checkpointer().restore(
      path(), args::StandardRestore(AbstractArray{DType::kInt16, {1, 4}}, /*is_strict=*/false));
  ASSERT_TRUE(is_ok(lenient));
  EXPECT_EQ(*lenient, Tree(array_of<std::int16_t>({1, 2, 3, 0}, {1, 4})));
}

TEST_F(LeafArgsTest, ReadsIntoTheCallersMemory) {
  ASSERT_TRUE(is_ok(save(Tree::dict({{"w", array_of<float>({1, 2, 3})}, {"s", "text"}}))));
  std::vector<float> memory(3);
  const auto into = [&](RestoreArgs with, const char* where) {
    with.destination = std::as_writable_bytes(std::span(memory));
    args::PyTreeRestore args;
    args.restore_args.add(where, with);
    return restore(args);
  };
  const auto restored = into({}, "w");
  ASSERT_TRUE(is_ok(restored));
  EXPECT_EQ(memory, (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(restored->find("w")->get_if<Array>()->data(), std::as_bytes(std::span(memory)).data());
  EXPECT_TRUE(restored->find("w")->get_if<Array>()->is_borrowed());
  // Through a cast or a pad as well.
  ASSERT_TRUE(is_ok(into({.dtype = DType::kFloat16, .shape = {{6}}, .pad = true}, "w")));
  EXPECT_EQ(std::as_bytes(std::span(memory))[1], std::byte{0x3C});
  EXPECT_EQ(memory[2], 0.0F);
  EXPECT_TRUE(fails(into({.dtype = DType::kFloat64}, "w"), ErrorCode::kInvalidArgument,
                    {"'w'", "24 bytes", "12"}));
  EXPECT_TRUE(fails(into({}, "s"), ErrorCode::kMismatch, {"'s'", "a string"}));
}

// Small ones stay where they came with their records, larger ones are read into new memory.
TEST_F(LeafArgsTest, RestoredArraysHaveMemoryOfTheirOwn) {
  std::vector<std::pair<std::string, Tree>> arrays;
  for (const std::size_t size : {1U, 31U, 4095U, 4096U, 32U << 10, (32U << 10) + 1}) {
    arrays.emplace_back(std::to_string(size), testing::new_bytes(size));
  }
  const Tree tree = Tree::dict(std::move(arrays));
  ASSERT_TRUE(is_ok(save(tree)));
  const auto path_of_file = directory_.path() / "c.stone";
  ASSERT_TRUE(is_ok(export_checkpoint(path(), path_of_file)));
  for (const std::filesystem::path& from : {path(), path_of_file}) {
    Tree first = *Checkpointer().restore(from);
    const Tree second = *Checkpointer().restore(from);
    EXPECT_EQ(first, tree);
    for (Tree::Child& child : first.children()) {
      Array& array = *child.tree.get_if<Array>();
      const std::byte* const begin = array.data();
      array.mutable_bytes().front() ^= std::byte{1};
      EXPECT_EQ(array.data(), begin) << "nobody else had it, so that there was nothing to copy";
      array.mutable_bytes().back() ^= std::byte{2};
    }
    EXPECT_NE(first, tree);
    EXPECT_EQ(second, tree);
  }
}

TEST_F(LeafArgsTest, ALeafThatIsWantedTwiceIsThereTwice) {
  const Tree saved = Tree::dict({{"w", array_of<float>({1.5, 2.5, 3.5})}});
  ASSERT_TRUE(is_ok(save(saved)));
  args::PyTreeRestore args(Tree::dict(
      {{"a", AbstractArray{DType::kFloat32, {3}}}, {"b", AbstractArray{DType::kFloat32, {3}}}}));
  args.transforms = {{.pattern = "a|b", .original_path = "w"}};
  Tree restored = *restore(args);
  restored.find("a")->get_if<Array>()->mutable_bytes().front() ^= std::byte{1};
  EXPECT_EQ(*restored.find("b"), *saved.find("w"));
  EXPECT_NE(*restored.find("a"), *saved.find("w"));
  const Tree twice = Tree::dict(
      {{"w", AbstractArray{DType::kFloat32, {3}}}, {"w", AbstractArray{DType::kFloat32, {3}}}});
  EXPECT_TRUE(fails(Checkpointer().restore(path(), args::StandardRestore(twice)),
                    ErrorCode::kMismatch, {"'w'"}));
}

TEST_F(LeafArgsTest, PlaceholdersAndSkippedLeavesAreNotRead) {
  ASSERT_TRUE(is_ok(save(params())));
  args::PyTreeRestore skip_encoder;
  skip_encoder.restore_args.add("enc/*", RestoreArgs{.skip = true});
  const auto skipped = restore(skip_encoder);
  ASSERT_TRUE(is_ok(skipped));
  EXPECT_EQ(*skipped->find("enc/w"), Tree(Placeholder{}));
  EXPECT_EQ(*skipped->find("dec/w"), *params().find("dec/w"));
  Tree target = params();
  *target.find("dec/w") = Placeholder{};
  EXPECT_EQ(*Checkpointer().restore(path(), args::StandardRestore(target)), target);
  EXPECT_TRUE(fails(save(target), ErrorCode::kInvalidArgument, {"'dec/w'", "placeholder"}));
  *target.find("enc") = Placeholder{};
  EXPECT_EQ(*Checkpointer().restore(path(), args::StandardRestore(target)), target);
  args::PyTreeRestore mistyped;
  mistyped.restore_args.add(LeafPath{PathComponent::key("typo")}, RestoreArgs{});
  EXPECT_TRUE(fails(restore(mistyped), ErrorCode::kInvalidArgument, {"'typo'"}));
}

// Every element of a slice, by its index.
Array sliced_by_hand(const Array& array, const std::vector<Slice>& slice) {
  const Array source = array.owned();
  std::vector<std::uint64_t> shape;
  for (const Slice& axis : slice) shape.push_back(axis.end - axis.begin);
  Array result = *Array::zeros(array.dtype(), shape);
  std::byte* const target = result.mutable_bytes().data();
  for (std::uint64_t i = 0; i < result.element_count(); ++i) {
    std::uint64_t rest = i;
    std::uint64_t from = 0;
    std::uint64_t stride = 1;
    for (std::size_t axis = shape.size(); axis-- > 0;) {
      from += (slice[axis].begin + rest % shape[axis]) * stride;
      rest /= shape[axis];
      stride *= array.shape()[axis];
    }
    copy_elements(source.data(), from, target, i, 1, info(array.dtype()).bits);
  }
  return result;
}

TEST_F(LeafArgsTest, RandomSlicesAreThoseOfTheWholeArray) {
  const std::uint64_t seed = testing::seed_or(31);
  SCOPED_TRACE(testing::trace(seed));
  TreeMaker maker(seed);
  Random& random = maker.random();
  for (int round = 0; round < 12; ++round) {
    std::vector<std::uint64_t> shape;
    const std::uint64_t rank = random.below(4);
    for (std::uint64_t axis = 0; axis < rank; ++axis) shape.push_back(random.below(14));
    if (random.one_in(2)) shape = {3, 40 + random.below(30), 100 + random.below(30)};
    const DType dtype = random.one_of(testing::all_dtypes());
    const Array array = maker.array(dtype, shape);
    ASSERT_TRUE(is_ok(save(array, SaveArgs{.chunk_size_bytes = 4096})));
    for (int i = 0; i < 6; ++i) {
      std::vector<Slice> slice;
      for (const std::uint64_t extent : shape) {
        const std::uint64_t a = random.below(extent + 1);
        const std::uint64_t b = random.below(extent + 1);
        slice.push_back({std::min(a, b), std::max(a, b)});
        if (random.one_in(3)) slice.back() = {0, extent};
      }
      if (slice.empty()) continue;
      const auto restored = restore_with({.slice = slice});
      ASSERT_TRUE(is_ok(restored));
      EXPECT_EQ(*restored, Tree(sliced_by_hand(array, slice)))
          << to_string(dtype) << ' ' << to_string(Shape(shape));
    }
  }
}

TEST_F(LeafArgsTest, SlicesThatAreNotInsideAreRefused) {
  ASSERT_TRUE(is_ok(save(array_of<float>({1, 2, 3, 4}, {2, 2}))));
  EXPECT_EQ(*restore_with({.slice = {{1, 2}}}), Tree(array_of<float>({3, 4}, {1, 2})));
  EXPECT_EQ(*restore_with({.slice = {{0, 2}, {1, 2}}, .dtype = DType::kFloat64}),
            Tree(array_of<double>({2, 4}, {2, 1})));
  EXPECT_TRUE(fails(restore_with({.slice = {{0, 3}}}), ErrorCode::kMismatch, {"[0, 3)", "(2, 2)"}));
  EXPECT_TRUE(fails(restore_with({.slice = {{2, 1}}}), ErrorCode::kMismatch, {"[2, 1)"}));
  EXPECT_TRUE(
      fails(restore_with({.slice = {{0, 1}, {0, 1}, {0, 1}}}), ErrorCode::kMismatch, {"3 axes"}));
}

TEST_F(LeafArgsTest, RestoresASubtreeAsItWasSaved) {
  ASSERT_TRUE(is_ok(save(params())));
  args::PyTreeRestore args;
  args.subtree = "enc";
  EXPECT_EQ(*restore(args), *params().find("enc"));
  args.subtree = "dec/w";
  EXPECT_EQ(*restore(args), *params().find("dec/w"));
  args.subtree = "nowhere";
  EXPECT_TRUE(fails(restore(args), ErrorCode::kNotFound, {"'nowhere'", "item 'default'"}));
  args.subtree = "enc";
  args.item = Tree::dict({{"w", AbstractArray{DType::kFloat64, {2}}}, {"b", 0}});
  EXPECT_EQ(*restore(args)->find("w"), Tree(array_of<double>({1.5, 2.5})));
}

// Goal: whatever stands at a node comes back from its path alone. Method: every node of random
// trees, in steps of segments and in such as are too small for one.
TEST_F(LeafArgsTest, EveryNodeOfARandomTreeComesBackByItself) {
  const std::uint64_t seed = testing::seed_or(4711);
  SCOPED_TRACE(testing::trace(seed));
  TreeMaker maker(seed);
  std::size_t node_count = 0;
  for (int i = 0; i < 12; ++i) {
    SCOPED_TRACE("tree " + std::to_string(i));
    Tree tree = maker.tree();
    if (i % 2 == 0) tree = Tree::tuple({tree, testing::new_bytes(std::size_t{1} << 19)});
    ASSERT_TRUE(is_ok(save(tree)));
    const auto manager = *CheckpointManager::open(path(), {.read_only = true});
    LeafPath at;
    const std::function<void(const Tree&)> check = [&](const Tree& node) {
      ++node_count;
      args::PyTreeRestore args;
      args.subtree = to_text(at);
      const auto restored = manager->restore(0, args);
      ASSERT_TRUE(is_ok(restored)) << args.subtree;
      EXPECT_EQ(*restored, node) << args.subtree;
      // Into itself as a target, for the handling of what is relative to the node.
      args.item = node;
      const auto fitted = manager->restore(0, args);
      ASSERT_TRUE(is_ok(fitted)) << args.subtree;
      EXPECT_EQ(*fitted, node) << args.subtree;
      args.item.reset();
      args.subtree += args.subtree.empty() ? "no such node" : "/no such node";
      EXPECT_TRUE(fails(manager->restore(0, args), ErrorCode::kNotFound, {"no such node"}));
      for (const Tree::Child& child : node.children()) {
        at.push_back(child.label);
        check(child.tree);
        at.pop_back();
      }
    };
    check(tree);
  }
  EXPECT_GT(node_count, 100U);
}

// Thousands of options are found by their paths, and an earlier one that selects the leaf as well
// goes first.
TEST_F(LeafArgsTest, TheFirstOptionsThatSelectALeafAreItsOwn) {
  const LeafPath a = *parse_path("a");
  const LeafPath ab = *parse_path("a/b");
  const LeafPath ac = *parse_path("a/c");
  PerLeaf<int> options;
  options.add(ab, 0).add("*/c", 1).add(a, 2).add(ac, 3).add("*", 4).add(ab, 5);
  const auto found = [&](const char* text) { return *options.find(*parse_path(text), text); };
  EXPECT_EQ(found("a/b"), 0);
  EXPECT_EQ(found("a/b/x"), 0) << "below";
  EXPECT_EQ(found("a/c"), 1);
  EXPECT_EQ(found("a/d"), 2);
  EXPECT_EQ(found("d"), 4);
  EXPECT_EQ(found(""), 4);
  EXPECT_EQ(PerLeaf<int>().find(a, "a"), nullptr);
  EXPECT_EQ(*PerLeaf<int>(7).find({}, ""), 7);
  const Tree tree = Tree::dict({{"a", Tree::dict({{"b", 1}})}});
  ASSERT_NE(options.missing_from(tree), nullptr);
  EXPECT_EQ(*options.missing_from(tree), ac);
  EXPECT_EQ(options.missing_from(Tree::dict({{"a", Tree::dict({{"c", 1}, {"b", 1}})}})), nullptr);
  EXPECT_EQ(*options.missing_from(Tree(1)), a);
}

// Goal: an index of paths finds what trying all entries in turn finds. Method: random entries
// and leaves.
TEST_F(LeafArgsTest, OptionsAreFoundAsIfAllEntriesWereTriedInTurn) {
  const std::uint64_t seed = testing::seed_or(321);
  SCOPED_TRACE(testing::trace(seed));
  Random random(seed);
  const auto random_path = [&] {
    LeafPath path;
    while (path.size() < 4 && !random.one_in(4)) {
      path.push_back(random.one_in(2)
                         ? PathComponent::key(std::string(1, "abc"[random.below(3)]))
                         : PathComponent::index(static_cast<std::uint32_t>(random.below(3))));
    }
    return path;
  };
  for (int round = 0; round < 50; ++round) {
    PerLeaf<std::size_t> options;
    for (std::size_t i = 0; i < 20; ++i) {
      if (random.one_in(4)) {
        options.add(random.one_of(std::vector<std::string>{"a*", "*b", "*[[]1]*", "c/?"}), i);
      } else {
        options.add(random_path(), i);
      }
    }
    for (int leaf = 0; leaf < 50; ++leaf) {
      const LeafPath path = random_path();
      const std::string text = to_text(path);
      const std::size_t* expected = nullptr;
      for (const auto& entry : options.entries()) {
        const LeafPath& above = entry.where.path;
        const bool is_selected = entry.where.pattern.empty()
                                     ? above.size() <= path.size() &&
                                           std::equal(above.begin(), above.end(), path.begin())
                                     : fnmatch(entry.where.pattern.c_str(), text.c_str(), 0) == 0;
        if (is_selected) {
          expected = &entry.options;
          break;
        }
      }
      EXPECT_EQ(options.find(path, text), expected) << text;
    }
  }
}

TEST_F(LeafArgsTest, APartialTargetReadsOnlyWhatItHasAndKeepsWhatItIsToldTo) {
  ASSERT_TRUE(is_ok(save(params())));
  RestoreReport report;
  args::PyTreeRestore args(Tree::dict({{"enc", Tree::dict({{"b", 0}})}, {"new", 5.5}}));
  args.report = &report;
  EXPECT_TRUE(fails(restore(args), ErrorCode::kMismatch, {"'enc/w'", "'new'", "'dec'"}));
  args.partial_restore = true;
  EXPECT_TRUE(fails(restore(args), ErrorCode::kMismatch, {"'new'", "not in the checkpoint"}));
  EXPECT_TRUE(report.kept.empty());
  args.keep_missing = true;
  const auto restored = restore(args);
  ASSERT_TRUE(is_ok(restored));
  EXPECT_EQ(*restored, Tree::dict({{"enc", Tree::dict({{"b", 1}})}, {"new", 5.5}}));
  EXPECT_EQ(report.kept, std::vector<std::string>{"new"});
  EXPECT_EQ(report.dropped, (std::vector<std::string>{"enc/w", "dec/w", "name"}));
  args.item = Tree::dict({{"new", AbstractArray{DType::kFloat32, {1}}}});
  EXPECT_TRUE(fails(restore(args), ErrorCode::kMismatch, {"'new'", "no value"}));
}

TEST_F(LeafArgsTest, ContainersOfAnotherKindFitWhereThatIsAskedFor) {
  const Tree stored = Tree::dict({{"pair", Tree::tuple({1, 2})},
                                  {"state", Tree::named_tuple("State", {{"mu", 3}, {"nu", 4}})},
                                  {"big", BigInteger{"123456789012345678901"}}});
  ASSERT_TRUE(is_ok(save(stored)));
  args::PyTreeRestore restore(
      Tree::dict({{"pair", Tree::integer_dict({{1, 0}, {0, 0}})},
                  {"state", Tree::custom("Other", {{"nu", 0.0}, {"mu", 0}})},
                  {"big", 0}}));
  EXPECT_TRUE(fails(PyTreeCheckpointer().restore(path(), restore), ErrorCode::kMismatch,
                    {"'pair'", "'state'"}));
  restore.any_container = true;
  EXPECT_EQ(*PyTreeCheckpointer().restore(path(), restore),
            Tree::dict({{"pair", Tree::integer_dict({{1, 2}, {0, 1}})},
                        {"state", Tree::custom("Other", {{"nu", 4.0}, {"mu", 3}})},
                        {"big", BigInteger{"123456789012345678901"}}}));
  restore.item->find("state")->children().pop_back();
  EXPECT_TRUE(fails(PyTreeCheckpointer().restore(path(), restore), ErrorCode::kMismatch,
                    {"'state/.mu'", "not in the target"}))
      << "every leaf still has to have its place";

  const Tree alike = Tree::container(NodeKind::kDict, {},
                                     {{PathComponent::key("0"), 1}, {PathComponent::key(0), 2}});
  ASSERT_TRUE(is_ok(save(alike)));
  args::PyTreeRestore exact(alike);
  exact.any_container = true;
  EXPECT_EQ(*PyTreeCheckpointer().restore(path(), exact), alike) << "the label itself comes first";
}

TEST_F(LeafArgsTest, TransformsRenameFillComputeAndDrop) {
  ASSERT_TRUE(is_ok(save(params())));
  RestoreReport report;
  args::PyTreeRestore args(Tree::dict(
      {{"encoder", Tree::dict({{"kernel", AbstractArray{DType::kFloat64, {2}}}, {"scale", 7}})},
       {"sum", 0.0},
       {"name", ""}}));
  args.report = &report;
  args.transforms = {
      {.pattern = "(enc)oder/kernel", .original_path = "$1/w"},
      {.pattern = ".*/scale", .use_fallback = true},
      {.pattern = "sum",
       .inputs = {"enc/w", "dec/w"},
       .compute = [](const std::vector<Leaf>& leaves) -> Result<Leaf> {
         double sum = 0;
         for (const Leaf& leaf : leaves) {
           for (const float value : STEPSTONE_TRY(std::get<Array>(leaf).values<float>())) {
             sum += value;
           }
         }
         return Leaf(sum);
       }},
      {.pattern = "name",
       .value_fn = [](const Leaf& leaf) -> Result<Leaf> {
         return Leaf(std::get<std::string>(leaf) + "work");
       }},
  };
  const auto restored = restore(args);
  ASSERT_TRUE(is_ok(restored));
  EXPECT_EQ(
      *restored,
      Tree::dict({{"encoder", Tree::dict({{"kernel", array_of<double>({1.5, 2.5})}, {"scale", 7}})},
                  {"sum", 7.25},
                  {"name", "network"}}));
  EXPECT_EQ(report.kept, std::vector<std::string>{"encoder/scale"});
  EXPECT_EQ(report.dropped, std::vector<std::string>{"enc/b"});

  args.transforms = {{.pattern = "sum", .use_fallback = true}};
  EXPECT_TRUE(fails(restore(args), ErrorCode::kMismatch, {"'encoder/kernel'", "no leaf"}));
  args.transforms = {{.pattern = "name"}};
  args.transforms_default_to_original = false;
  args.item = Tree::dict({{"name", ""}, {"sum", 1.25}});
  EXPECT_EQ(*restore(args), Tree::dict({{"name", "net"}, {"sum", 1.25}}));
}

// A path stands for itself and all that is below it, whatever is special in it to an expression; of
// the transforms that match, the first decides.
TEST_F(LeafArgsTest, TransformsOfPathsRenameWhatStandsBelow) {
  ASSERT_TRUE(is_ok(save(Tree::dict(
      {{"a.c", Tree::dict({{"x", 1}, {"y", Tree::dict({{"z", 2}})}})}, {"abc", 3}, {"abcd", 4}}))));
  args::PyTreeRestore args(
      Tree::dict({{"new", Tree::dict({{"x", 0}, {"y", Tree::dict({{"z", 0}})}})}, {"newer", 0}}));
  args.transforms = {{.pattern = "new", .is_path = true, .original_path = "a.c"},
                     {.pattern = "new/x", .is_path = true, .original_path = "abcd"},
                     {.pattern = "new.*", .original_path = "abc"}};
  EXPECT_EQ(
      *restore(args),
      Tree::dict({{"new", Tree::dict({{"x", 1}, {"y", Tree::dict({{"z", 2}})}})}, {"newer", 3}}));
  std::swap(args.transforms[0], args.transforms[1]);
  EXPECT_EQ(
      *restore(args),
      Tree::dict({{"new", Tree::dict({{"x", 4}, {"y", Tree::dict({{"z", 2}})}})}, {"newer", 3}}));
  std::swap(args.transforms[0], args.transforms[2]);
  EXPECT_EQ(
      *restore(args),
      Tree::dict({{"new", Tree::dict({{"x", 3}, {"y", Tree::dict({{"z", 3}})}})}, {"newer", 3}}));
}

TEST_F(LeafArgsTest, TransformsThatMakeNoSenseAreRefused) {
  ASSERT_TRUE(is_ok(save(params())));
  const auto with = [&](Transform transform, Tree target = Tree::dict({{"name", ""}})) {
    args::PyTreeRestore args(std::move(target));
    args.transforms = {std::move(transform)};
    return restore(args);
  };
  args::PyTreeRestore no_target;
  no_target.transforms = {{.pattern = "x"}};
  EXPECT_TRUE(fails(restore(no_target), ErrorCode::kInvalidArgument, {"target"}));
  EXPECT_TRUE(fails(with({.pattern = "("}), ErrorCode::kInvalidArgument, {"transform '('"}));
  EXPECT_TRUE(fails(with({.pattern = "a", .original_path = "b", .use_fallback = true}),
                    ErrorCode::kInvalidArgument, {"only one"}));
  EXPECT_TRUE(
      fails(with({.pattern = "a", .inputs = {"b"}}), ErrorCode::kInvalidArgument, {"inputs"}));
  EXPECT_TRUE(fails(with({.pattern = "name", .original_path = "enc"}), ErrorCode::kMismatch,
                    {"'name'", "no leaf 'enc'"}));
  EXPECT_TRUE(fails(with({.pattern = "name",
                          .value_fn = [](const Leaf& /*leaf*/) -> Result<Leaf> {
                            throw std::runtime_error("not today");
                          }}),
                    ErrorCode::kInvalidArgument, {"'name'", "not today"}));
  EXPECT_TRUE(
      fails(with({.pattern = "name",
                  .value_fn = [](const Leaf& /*leaf*/) { return Result<Leaf>(Leaf(1.0)); }}),
            ErrorCode::kMismatch, {"a float", "a string"}));
}

// Goal: whatever part of whatever tree is asked for, it is that part of what was saved. Method:
// from a random tree, a random part as the target, with leaves added that are to be kept.
TEST_F(LeafArgsTest, RandomPartsOfRandomTreesComeBack) {
  const std::uint64_t seed = testing::seed_or(9001);
  SCOPED_TRACE(testing::trace(seed));
  TreeMaker maker(seed);
  std::size_t part_count = 0;
  std::size_t kept_count = 0;
  for (int i = 0; i < 40; ++i) {
    SCOPED_TRACE("tree " + std::to_string(i));
    const Tree tree = maker.tree();
    ASSERT_TRUE(is_ok(save(tree)));
    std::size_t added = 0;
    const std::function<Tree(const Tree&)> part_of = [&](const Tree& whole) -> Tree {
      if (whole.is_leaf()) return whole;
      std::vector<Tree::Child> children;
      const bool is_sequence = whole.kind() == NodeKind::kList || whole.kind() == NodeKind::kTuple;
      for (const Tree::Child& child : whole.children()) {
        // The beginning of a sequence, any part of a dict.
        if (maker.random().one_in(4)) {
          if (is_sequence) break;
          continue;
        }
        children.push_back({child.label, part_of(child.tree)});
      }
      if (whole.kind() == NodeKind::kDict && maker.random().one_in(3)) {
        children.push_back({PathComponent::key("a name that no tree has"), 99});
        ++added;
      }
      return Tree::container(whole.kind(), whole.type_name(), std::move(children));
    };
    const Tree expected = part_of(tree);
    RestoreReport report;
    args::PyTreeRestore args(testing::with_leaves(expected, [&](const Leaf& leaf) -> Leaf {
      const auto* const array = std::get_if<Array>(&leaf);
      if (array == nullptr) return leaf;
      return AbstractArray{array->dtype(), array->shape()};
    }));
    args.partial_restore = true;
    args.keep_missing = true;
    args.report = &report;
    const auto restored = restore(args);
    ASSERT_TRUE(is_ok(restored));
    EXPECT_EQ(*restored, expected);
    EXPECT_EQ(report.kept.size(), added);
    if (!(expected == tree)) ++part_count;
    kept_count += added;

    // And a subtree by its path.
    std::vector<LeafPath> paths;
    tree.for_each_leaf([&](const LeafPath& path, const Leaf& /*leaf*/) { paths.push_back(path); });
    if (paths.empty()) continue;
    LeafPath path = maker.random().one_of(paths);
    path.resize(maker.random().below(path.size() + 1));
    args::PyTreeRestore below;
    below.subtree = to_text(path);
    const auto subtree = restore(below);
    ASSERT_TRUE(is_ok(subtree));
    EXPECT_EQ(*subtree, *tree.find(path));
  }
  EXPECT_GT(part_count, 10U);
  EXPECT_GT(kept_count, 5U);
}

TEST(Cast, LossyCastsTruncateAndClamp) {
  const double huge = 1e300;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Array doubles = array_of<double>({1.9, -1.9, huge, -huge, nan, 255.5, -0.5});
  EXPECT_EQ(*cast(doubles, DType::kInt8, true),
            array_of<std::int8_t>({1, -1, 127, -128, 0, 127, 0}));
  EXPECT_EQ(*cast(doubles, DType::kUint8, true), array_of<std::uint8_t>({1, 0, 255, 0, 0, 255, 0}));
  EXPECT_EQ(*cast(doubles, DType::kInt64, true),
            array_of<std::int64_t>({1, -1, std::numeric_limits<std::int64_t>::max(),
                                    std::numeric_limits<std::int64_t>::min(), 0, 255, 0}));
  EXPECT_EQ(*cast(array_of<std::int32_t>({300, -300, 5}), DType::kUint8, true),
            array_of<std::uint8_t>({255, 0, 5}));
  EXPECT_EQ(*cast(array_of<std::uint64_t>({~std::uint64_t{0}, 5}), DType::kInt64, true),
            array_of<std::int64_t>({std::numeric_limits<std::int64_t>::max(), 5}));
  const Array complex = *Array::copy_bytes(
      DType::kComplex128, {1}, std::as_bytes(std::span<const double>(std::vector<double>{2.5, 3})));
  EXPECT_EQ(*cast(complex, DType::kFloat32, true), array_of<float>({2.5}));
  EXPECT_EQ(*cast(complex, DType::kInt16, true), array_of<std::int16_t>({2}));
}

}  // namespace
}  // namespace stepstone
