#include "api/checkpointer.h"

#include <fstream>

#include "api/checkpoint_manager.h"
#include "tests/api/support.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using testing::array_of;
using testing::fails;
using testing::is_ok;

Tree weights_of(float value) {
  return Tree::dict({{"w", array_of<float>({value, 2, 3})}, {"step", 7}});
}

class CheckpointerTest : public ::testing::Test {
 protected:
  std::filesystem::path at(const char* name) const { return directory_.path() / name; }

  TemporaryDirectory directory_;
  Checkpointer checkpointer_;
};

TEST_F(CheckpointerTest, SavesAndRestores) {
  ASSERT_TRUE(is_ok(checkpointer_.save(at("c"), args::StandardSave(weights_of(1)))));
  const auto restored = checkpointer_.restore(at("c"));
  ASSERT_TRUE(is_ok(restored));
  EXPECT_EQ(*restored, weights_of(1));
}

TEST_F(CheckpointerTest, CreatesTheDirectoriesAbove) {
  const auto path = at("runs") / "7" / "final";
  ASSERT_TRUE(is_ok(checkpointer_.save(path, args::StandardSave(weights_of(1)))));
  EXPECT_TRUE(is_ok(checkpointer_.restore(path)));
}

TEST_F(CheckpointerTest, ASlashAtTheEndOfThePathMeansTheSamePlace) {
  const std::filesystem::path with_slash = at("c").string() + "/";
  ASSERT_TRUE(is_ok(checkpointer_.save(with_slash, args::StandardSave(weights_of(1)))));
  EXPECT_TRUE(is_ok(checkpointer_.restore(at("c"))));
  EXPECT_TRUE(is_ok(checkpointer_.restore(with_slash)));
  EXPECT_TRUE(fails(checkpointer_.save(with_slash, args::StandardSave(weights_of(2))),
                    ErrorCode::kAlreadyExists));
}

TEST_F(CheckpointerTest, SavesIntoAnEmptyDirectoryThatIsThere) {
  std::filesystem::create_directory(at("c"));
  ASSERT_TRUE(is_ok(checkpointer_.save(at("c"), args::StandardSave(weights_of(1)))));
  EXPECT_EQ(*checkpointer_.restore(at("c")), weights_of(1));
}

TEST_F(CheckpointerTest, TellsHowFarASaveIs) {
  std::uint64_t done = 0;
  std::uint64_t total = 0;
  ASSERT_TRUE(is_ok(
      checkpointer_.save(at("c"), args::StandardSave(testing::new_bytes(4 << 20)),
                         {.progress = [&](std::uint64_t done_bytes, std::uint64_t total_bytes) {
                           EXPECT_GE(done_bytes, done);
                           done = done_bytes;
                           total = total_bytes;
                         }})));
  EXPECT_GE(total, std::uint64_t{4} << 20);
  EXPECT_EQ(done, total);
}

TEST_F(CheckpointerTest, WithoutForceKeepsWhatIsThere) {
  ASSERT_TRUE(is_ok(checkpointer_.save(at("c"), args::StandardSave(weights_of(1)))));
  EXPECT_TRUE(fails(checkpointer_.save(at("c"), args::StandardSave(weights_of(2))),
                    ErrorCode::kAlreadyExists, {at("c").string(), "force"}));
  EXPECT_EQ(*checkpointer_.restore(at("c")), weights_of(1));
}

TEST_F(CheckpointerTest, ForceReplacesWhatIsThereAndWorksWhereNothingIs) {
  for (const float value : {1.0F, 2.0F, 3.0F}) {
    ASSERT_TRUE(
        is_ok(checkpointer_.save(at("c"), args::StandardSave(weights_of(value)), {.force = true})));
    EXPECT_EQ(*checkpointer_.restore(at("c")), weights_of(value));
  }
  const Tree other = Tree::list({1, 2});
  ASSERT_TRUE(is_ok(checkpointer_.save(at("c"), args::StandardSave(other), {.force = true})));
  EXPECT_EQ(*checkpointer_.restore(at("c")), other);
}

TEST_F(CheckpointerTest, AFailedSaveKeepsWhatIsThere) {
  ASSERT_TRUE(is_ok(checkpointer_.save(at("c"), args::StandardSave(weights_of(1)))));
  EXPECT_TRUE(
      fails(checkpointer_.save(at("c"), args::StandardSave(AbstractArray{DType::kInt8, {2}}),
                               {.force = true}),
            ErrorCode::kInvalidArgument, {at("c").string()}));
  {
    const testing::FileSizeLimit limit(std::uint64_t{1} << 20);
    const Tree large = testing::new_bytes(std::size_t{4} << 20);
    EXPECT_TRUE(fails(checkpointer_.save(at("c"), args::StandardSave(large), {.force = true}),
                      ErrorCode::kNoSpace, {"step 0"}));
  }
  EXPECT_EQ(*checkpointer_.restore(at("c")), weights_of(1));
  ASSERT_TRUE(
      is_ok(checkpointer_.save(at("c"), args::StandardSave(weights_of(2)), {.force = true})));
  EXPECT_EQ(*checkpointer_.restore(at("c")), weights_of(2));
}

TEST_F(CheckpointerTest, ATreeThatCannotBeSavedCreatesNothing) {
  EXPECT_TRUE(fails(
      checkpointer_.save(at("above") / "c", args::StandardSave(AbstractArray{DType::kInt8, {2}})),
      ErrorCode::kInvalidArgument));
  EXPECT_FALSE(std::filesystem::exists(at("above")));
}

TEST_F(CheckpointerTest, RestoreCreatesNothing) {
  EXPECT_TRUE(
      fails(checkpointer_.restore(at("missing")), ErrorCode::kNotFound, {at("missing").string()}));
  EXPECT_FALSE(std::filesystem::exists(at("missing")));
}

TEST_F(CheckpointerTest, WhatIsNoCheckpointIsLeftAlone) {
  std::ofstream(at("file")) << "text";
  std::filesystem::create_directory(at("folder"));
  std::ofstream(at("folder") / "notes.txt") << "text";
  for (const bool force : {false, true}) {
    EXPECT_TRUE(
        fails(checkpointer_.save(at("file"), args::StandardSave(weights_of(1)), {.force = force}),
              ErrorCode::kInvalidArgument, {at("file").string(), "file"}));
    EXPECT_TRUE(
        fails(checkpointer_.save(at("folder"), args::StandardSave(weights_of(1)), {.force = force}),
              ErrorCode::kInvalidArgument, {at("folder").string(), "notes.txt"}));
  }
  EXPECT_TRUE(fails(checkpointer_.restore(at("file")), ErrorCode::kInvalidArgument, {"file"}));
  EXPECT_TRUE(fails(checkpointer_.restore(at("folder")), ErrorCode::kNotFound, {"notes.txt"}));
  EXPECT_EQ(std::filesystem::file_size(at("file")), 4U);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(at("folder")), {}), 1);
}

TEST_F(CheckpointerTest, LeavesARunOfStepsToTheManager) {
  {
    const auto manager = CheckpointManager::open(at("run"));
    ASSERT_TRUE(is_ok(manager));
    ASSERT_TRUE(is_ok((*manager)->save(3, args::StandardSave(weights_of(3)))));
    ASSERT_TRUE(is_ok((*manager)->save(4, args::StandardSave(weights_of(4)))));
    ASSERT_TRUE(is_ok((*manager)->wait_until_finished()));
    EXPECT_TRUE(fails(checkpointer_.save(at("run"), args::StandardSave(weights_of(1))),
                      ErrorCode::kInvalidArgument, {at("run").string(), "CheckpointManager"}))
        << "also while it is open in this process";
  }
  for (const bool force : {false, true}) {
    EXPECT_TRUE(
        fails(checkpointer_.save(at("run"), args::StandardSave(weights_of(1)), {.force = force}),
              ErrorCode::kInvalidArgument, {at("run").string(), "CheckpointManager"}));
  }
  EXPECT_TRUE(fails(checkpointer_.restore(at("run")), ErrorCode::kInvalidArgument,
                    {at("run").string(), "CheckpointManager"}));
  const auto manager = CheckpointManager::open(at("run"));
  ASSERT_TRUE(is_ok(manager));
  EXPECT_EQ((*manager)->all_steps(), (std::vector<std::uint64_t>{3, 4}));
  EXPECT_EQ(*(*manager)->restore(3), weights_of(3));
}

TEST_F(CheckpointerTest, AStoreWithoutACheckpointIsNotFound) {
  ASSERT_TRUE(is_ok(CheckpointManager::open(at("run"))));
  EXPECT_TRUE(fails(checkpointer_.restore(at("run")), ErrorCode::kNotFound, {at("run").string()}));
}

TEST_F(CheckpointerTest, RestoresIntoATarget) {
  ASSERT_TRUE(is_ok(checkpointer_.save(at("c"), args::StandardSave(weights_of(1)))));
  const Tree target = Tree::dict({{"step", 0.0}, {"w", AbstractArray{DType::kBfloat16, {3}}}});
  const auto restored = checkpointer_.restore(at("c"), args::StandardRestore(target));
  ASSERT_TRUE(is_ok(restored));
  const std::vector<std::uint16_t> bits = {0x3F80, 0x4000, 0x4040};
  EXPECT_EQ(*restored, Tree::dict({{"step", 7.0},
                                   {"w", *Array::copy_bytes(DType::kBfloat16, {3},
                                                            std::as_bytes(std::span(bits)))}}));
  EXPECT_TRUE(fails(checkpointer_.restore(at("c"), args::StandardRestore(Tree::dict())),
                    ErrorCode::kMismatch, {"'w'", "'step'"}));
}

}  // namespace
}  // namespace stepstone
