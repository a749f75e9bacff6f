// Every error that Orbax's handlers and checkpointers have, one after the other: here each has a
// code, a message that names what is wrong, and leaves the checkpoint as it was. What Orbax refuses
// and this library does not is listed too.
#include <functional>

#include "api/async_checkpointer.h"
#include "tests/api/support.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using testing::array_of;
using testing::fails;
using testing::is_ok;

class CheckpointErrorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(is_ok(Checkpointer().save(tree_, args::StandardSave(before_))));
    ASSERT_TRUE(is_ok(Checkpointer().save(
        items_, args::Composite({{"state", before_},
                                 {"json", args::JsonSave(Tree::dict({{"v", 1}}))},
                                 {"proto", ProtoMessage{"pkg.A", "x"}},
                                 {"key", RandomKey{"philox", 1}}}))));
  }

  // Saves over what is there.
  static Result<void> overwrite(const std::filesystem::path& path, const AnyValue& args) {
    return Checkpointer().save(path, args, {.force = true});
  }
  template <typename Args>
  static Result<void> restore(const std::filesystem::path& path, const Args& args) {
    return Checkpointer().restore(path, args).map([](const auto& /*restored*/) {});
  }
  template <typename T>
  static Result<void> restore_as(const std::filesystem::path& path) {
    return Checkpointer().restore<T>(path).map([](const auto& /*restored*/) {});
  }
  Result<void> restore_into(const Tree& target) const {
    return restore(tree_, args::StandardRestore(target));
  }
  Result<void> restore_with(const RestoreArgs& restore_args) const {
    args::PyTreeRestore args;
    args.restore_args.add("w", restore_args);
    return restore(tree_, args);
  }

  TemporaryDirectory directory_;
  std::filesystem::path tree_ = directory_.path() / "tree";
  std::filesystem::path items_ = directory_.path() / "items";
  Tree before_ = Tree::dict({{"w", array_of<float>({1.5, 2})}, {"s", "text"}});
};

TEST_F(CheckpointErrorTest, EachNamesWhatIsWrongAndChangesNothing) {
  const auto item_args = [](std::string name, AnyValue args) {
    return args::Composite({{std::move(name), std::move(args)}});
  };
  const auto target = [](Tree w) { return Tree::dict({{"w", std::move(w)}, {"s", ""}}); };
  struct Case {
    const char* name;
    std::function<Result<void>()> call;
    ErrorCode code;
    std::vector<std::string> parts;
  };
  const std::string default_item = "step 0 item 'default'";
  const std::vector<Case> cases = {
      // Checkpointers.
      {"destination exists",
       [&] { return Checkpointer().save(tree_, before_); },
       ErrorCode::kAlreadyExists,
       {tree_.string(), "force"}},
      {"checkpoint absent",
       [&] { return restore(tree_ / ".." / "none", args::StandardRestore()); },
       ErrorCode::kNotFound,
       {"none"}},
      {"item absent",
       [&] { return restore_as<Tree>(items_ / "none"); },
       ErrorCode::kNotFound,
       {items_.string(), "item 'none'", "'state'"}},
      {"after close",
       [&] {
         Checkpointer closed;
         closed.close();
         return closed.save(tree_, before_, {.force = true});
       },
       ErrorCode::kClosed,
       {tree_.string()}},
      {"inside another checkpoint",
       [&] { return Checkpointer().save(tree_ / "inner", before_); },
       ErrorCode::kInvalidArgument,
       {tree_.string()}},
      // Finding the handler.
      {"no handler for the arguments",
       [&] { return overwrite(tree_, 7); },
       ErrorCode::kInvalidArgument,
       {default_item, "int", "HandlerRegistry"}},
      {"nothing to save",
       [&] { return overwrite(tree_, AnyValue()); },
       ErrorCode::kInvalidArgument,
       {default_item, "nothing"}},
      {"restore arguments for a save",
       [&] { return overwrite(tree_, args::StandardRestore()); },
       ErrorCode::kInvalidArgument,
       {"StandardRestore"}},
      {"arguments of another handler",
       [&] { return restore(items_, item_args("json", args::StandardRestore())); },
       ErrorCode::kMismatch,
       {"item 'json'", "'standard'", "'json'"}},
      {"another type than was saved",
       [&] { return restore_as<Array>(tree_); },
       ErrorCode::kMismatch,
       {tree_.string(), "Array"}},
      {"one object of several items",
       [&] { return restore_as<Tree>(items_); },
       ErrorCode::kMismatch,
       {"'json'", "Composite"}},
      // Items.
      {"no items",
       [&] { return overwrite(items_, args::Composite()); },
       ErrorCode::kInvalidArgument,
       {items_.string(), "items"}},
      {"item without a name",
       [&] { return overwrite(items_, item_args("", before_)); },
       ErrorCode::kInvalidArgument,
       {"name"}},
      {"name too long",
       [&] { return overwrite(items_, item_args(std::string(5000, 'n'), before_)); },
       ErrorCode::kLimit,
       {"4096"}},
      {"unknown item",
       [&] { return restore(items_, item_args("none", {})); },
       ErrorCode::kNotFound,
       {"item 'none'", "'json', 'key', 'proto', 'state'"}},
      {"one bad item of two",
       [&] {
         return overwrite(items_,
                          args::Composite({{"good", before_}, {"bad", Tree(AbstractArray())}}));
       },
       ErrorCode::kInvalidArgument,
       {"step 0 item 'bad'"}},
      // Leaves that cannot be saved.
      {"abstract array",
       [&] { return overwrite(tree_, target(AbstractArray())); },
       ErrorCode::kInvalidArgument,
       {default_item, "leaf 'w'"}},
      {"placeholder",
       [&] { return overwrite(tree_, target(Placeholder())); },
       ErrorCode::kInvalidArgument,
       {default_item, "leaf 'w'"}},
      {"text that is not UTF-8",
       [&] { return overwrite(tree_, target("\xff")); },
       ErrorCode::kInvalidArgument,
       {default_item, "leaf 'w'", "Bytes"}},
      {"array in JSON",
       [&] { return overwrite(items_, item_args("json", args::JsonSave(before_))); },
       ErrorCode::kInvalidArgument,
       {"step 0 item 'json'", "leaf 'w'"}},
      {"message without a type",
       [&] {
         return overwrite(items_, item_args("proto", ProtoMessage{"", "x"}));
       },
       ErrorCode::kInvalidArgument,
       {"step 0 item 'proto'", "type"}},
      {"key without an algorithm",
       [&] {
         return overwrite(items_, item_args("key", RandomKey{"", 1}));
       },
       ErrorCode::kInvalidArgument,
       {"step 0 item 'key'", "algorithm"}},
      // Save arguments.
      {"lossy cast on save",
       [&] {
         return overwrite(tree_, args::StandardSave(before_, SaveArgs{.dtype = DType::kInt8}));
       },
       ErrorCode::kMismatch,
       {default_item, "leaf 'w'", "allow_lossy_cast"}},
      {"chunk too small",
       [&] {
         return overwrite(tree_, args::StandardSave(before_, SaveArgs{.chunk_size_bytes = 1}));
       },
       ErrorCode::kLimit,
       {default_item, "leaf", "1 bytes"}},
      {"save_args of another tree",
       [&] {
         return overwrite(
             tree_, args::StandardSave(before_, PerLeaf<SaveArgs>::dict({{"other", SaveArgs()}})));
       },
       ErrorCode::kInvalidArgument,
       {default_item, "'other'"}},
      // Targets.
      {"other structure",
       [&] {
         return restore_into(Tree::dict({{"v", 1}}));
       },
       ErrorCode::kMismatch,
       {default_item, "leaf 'v'", "leaf 'w'", "leaf 's'"}},
      {"other shape",
       [&] {
         return restore_into(target(AbstractArray{DType::kFloat32, {3}}));
       },
       ErrorCode::kMismatch,
       {default_item, "leaf 'w'", "(2,)", "(3,)"}},
      {"lossy cast",
       [&] {
         return restore_into(target(AbstractArray{DType::kInt8, {2}}));
       },
       ErrorCode::kMismatch,
       {default_item, "leaf 'w'", "fraction"}},
      {"key absent from the checkpoint",
       [&] {
         args::PyTreeRestore partial(Tree::dict({{"new", 1}}));
         partial.partial_restore = true;
         return restore(tree_, partial);
       },
       ErrorCode::kMismatch,
       {default_item, "leaf 'new'", "not in the checkpoint"}},
      {"no such subtree",
       [&] {
         args::PyTreeRestore below;
         below.subtree = "params/w";
         return restore(tree_, below);
       },
       ErrorCode::kNotFound,
       {default_item, "'params/w'"}},
      {"subtree that is no path",
       [&] {
         args::PyTreeRestore below;
         below.subtree = "a[";
         return restore(tree_, below);
       },
       ErrorCode::kInvalidArgument,
       {default_item}},
      // Restore arguments.
      {"padding not asked for",
       [&] { return restore_with({.shape = {{3}}}); },
       ErrorCode::kMismatch,
       {default_item, "leaf 'w'", "pad"}},
      {"slice outside",
       [&] {
         return restore_with({.slice = {{1, 9}}});
       },
       ErrorCode::kMismatch,
       {default_item, "leaf 'w'", "[1, 9)"}},
      {"destination of another size",
       [&] {
         std::vector<std::byte> memory(7);
         return restore_with({.destination = memory});
       },
       ErrorCode::kInvalidArgument,
       {default_item, "leaf 'w'", "8 bytes, not 7"}},
      {"transform of what is not there",
       [&] {
         args::PyTreeRestore args(Tree::dict({{"x", 1}}));
         args.transforms = {{.pattern = "x", .original_path = "none"}};
         return restore(tree_, args);
       },
       ErrorCode::kMismatch,
       {default_item, "leaf 'x'", "'none'"}},
      {"transforms without a target",
       [&] {
         args::PyTreeRestore args;
         args.transforms = {{.pattern = "x"}};
         return restore(tree_, args);
       },
       ErrorCode::kInvalidArgument,
       {default_item, "target"}},
      // Other kinds of objects.
      {"message of another type",
       [&] { return restore(items_, item_args("proto", args::ProtoRestore{.type_name = "B"})); },
       ErrorCode::kMismatch,
       {"step 0 item 'proto'", "'pkg.A'", "'B'"}},
      {"key of another algorithm",
       [&] { return restore(items_, item_args("key", args::RandomKeyRestore{.algorithm = "B"})); },
       ErrorCode::kMismatch,
       {"step 0 item 'key'", "'philox'", "'B'"}},
      {"tree that is no array",
       [&] { return restore(tree_, args::ArrayRestore()); },
       ErrorCode::kMismatch,
       {default_item}},
  };
  const auto tree_metadata = Checkpointer().metadata(tree_);
  const auto items_metadata = Checkpointer().metadata(items_);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const Result<void> result = c.call();
    EXPECT_TRUE(fails(result, c.code));
    for (const std::string& part : c.parts) EXPECT_TRUE(fails(result, c.code, {part}));
  }
  // Not even saved again: the commits are those from before.
  const auto tree_after = Checkpointer().metadata(tree_);
  const auto items_after = Checkpointer().metadata(items_);
  ASSERT_TRUE(is_ok(tree_after));
  ASSERT_TRUE(is_ok(items_after));
  EXPECT_EQ(tree_after->commit_timestamp_ns, tree_metadata->commit_timestamp_ns);
  EXPECT_EQ(items_after->commit_timestamp_ns, items_metadata->commit_timestamp_ns);
  EXPECT_EQ(*Checkpointer().restore(tree_), before_);
  EXPECT_EQ(Checkpointer().restore<args::Composite>(items_)->size(), 4U);
}

TEST_F(CheckpointErrorTest, WhatOrbaxRefusesOrLosesIsSavedAndComesBack) {
  const std::vector<std::pair<const char*, Tree>> cases = {
      {"a bare scalar", 7},
      {"a bare array", array_of<float>({1})},
      {"None", None{}},
      {"an empty item", Tree::dict()},
      {"a string", "text"},
      {"complex, bytes, big integers",
       Tree::list({std::complex<double>(1, 2), Bytes{"b"}, BigInteger{"99999999999999999999"}})},
      {"an array without elements", *Array::zeros(DType::kInt8, {3, 0})},
      {"uint4", *Array::zeros(DType::kUint4, {3})},
      {"names that look like one path", Tree::dict({{"a.b", 1}, {"a", Tree::dict({{"b", 2}})}})},
      {"keys of both kinds",
       Tree::container(NodeKind::kDict, "",
                       {{PathComponent::key(1), 1}, {PathComponent::key("1"), 2}})},
      {"an empty named tuple", Tree::named_tuple("EmptyState", {})},
  };
  for (const auto& [name, tree] : cases) {
    SCOPED_TRACE(name);
    ASSERT_TRUE(is_ok(overwrite(tree_, args::StandardSave(tree))));
    EXPECT_EQ(*Checkpointer().restore(tree_), tree);
  }
  ASSERT_TRUE(is_ok(overwrite(items_, args::Composite({{"__reserved__", Tree(1)}}))));
  EXPECT_EQ(*Checkpointer().restore(items_ / "__reserved__"), Tree(1));
}

}  // namespace
}  // namespace stepstone
