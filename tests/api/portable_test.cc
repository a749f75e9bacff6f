// Portable files as checkpoints: saved to, read from, made of runs.
#include "api/portable.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "api/async_checkpointer.h"
#include "api/c/stepstone.h"
#include "api/cast.h"
#include "api/checkpoint_manager.h"
#include "api/checkpointer.h"
#include "api/functions.h"
#include "engine/store.h"
#include "engine/transfer.h"
#include "support.h"
#include "tests/support/temporary_directory.h"
#include "trees.h"

namespace stepstone::testing {
namespace {

using ::testing::ElementsAre;

class PortableCheckpointTest : public ::testing::Test {
 protected:
  std::filesystem::path path(const std::string& name) const { return directory_.path() / name; }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.path())) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  // A run of steps 10, 20, 30 with the items `state` and `rng`.
  void make_run() const {
    const auto manager = CheckpointManager::open(path("run"));
    ASSERT_TRUE(is_ok(manager));
    for (const std::uint64_t step : {10U, 20U, 30U}) {
      ASSERT_TRUE(is_ok((*manager)->save(
          step, args::Composite({{"rng", args::RandomKeySave({"threefry2x32", Tree(7)})},
                                 {"state", args::StandardSave(state(step))}}))));
    }
    ASSERT_TRUE(is_ok((*manager)->close()));
  }
  static Tree state(std::uint64_t step) {
    const auto value = static_cast<float>(step);
    return Tree::dict(
        {{"params", Tree::dict({{"w", array_of<float>(std::vector<float>(50000, value / 3))},
                                {"b", array_of<float>({value, 2, 3})},
                                {"n", array_of<std::int32_t>({1, 2})}})},
         {"opt", Tree::tuple({array_of<float>({4, 5}), Tree::dict({{"mu", 6.5}})})},
         {"step", static_cast<std::int64_t>(step)}});
  }

  TemporaryDirectory directory_;
};

TEST_F(PortableCheckpointTest, AnyTreeComesBackFromAFileAsItWasSaved) {
  const std::uint64_t seed = seed_or(31);
  SCOPED_TRACE(trace(seed));
  TreeMaker maker(seed);
  for (int round = 0; round < 40; ++round) {
    const Tree tree = maker.tree();
    ASSERT_TRUE(is_ok(save(path("x.stone"), args::StandardSave(tree), {.force = true})));
    ASSERT_TRUE(std::filesystem::is_regular_file(path("x.stone")));
    const auto restored = load(path("x.stone"));
    ASSERT_TRUE(is_ok(restored));
    EXPECT_EQ(*restored, tree);
    args::PyTreeRestore mapped;
    mapped.map = MapArrays::kChecked;
    const auto views = load(path("x.stone"), mapped);
    ASSERT_TRUE(is_ok(views));
    EXPECT_EQ(*views, tree);
    // And by way of a store, compressed, and out of it again.
    std::filesystem::remove_all(path("store"));
    const auto store = *Store::open(path("store"), {.create_if_missing = true});
    ASSERT_TRUE(is_ok(store->import_steps(*(*Store::open(path("x.stone"), {})), {})));
    ASSERT_TRUE(is_ok(store->export_steps(path("y.stone"), {.overwrite = true, .compress = true})));
    const auto again = load(path("y.stone"));
    ASSERT_TRUE(is_ok(again));
    EXPECT_EQ(*again, tree);
  }
  EXPECT_THAT(names(), ElementsAre("store", "x.stone", "y.stone"));
}

TEST_F(PortableCheckpointTest, IsSavedRestoredAndDescribedLikeAnyOther) {
  const Checkpointer checkpointer;
  const args::Composite items({{"json", args::JsonSave(Tree::dict({{"lr", 0.1}}))},
                               {"state", args::StandardSave(state(1))}});
  CheckpointOptions options;
  options.custom_metadata = Tree::dict({{"by", "me"}});
  ASSERT_TRUE(is_ok(checkpointer.save(path("x.stone"), items, options)));
  const auto all = checkpointer.restore<args::Composite>(path("x.stone"));
  ASSERT_TRUE(is_ok(all));
  EXPECT_EQ(*all->get<Tree>("state"), state(1));
  EXPECT_EQ(*checkpointer.restore(path("x.stone") / "state"), state(1));
  EXPECT_EQ(*checkpointer.restore(path("x.stone") / "0" / "state"), state(1));
  EXPECT_EQ(*load(path("x.stone")), state(1));
  const auto metadata = checkpointer.metadata(path("x.stone"));
  ASSERT_TRUE(is_ok(metadata));
  EXPECT_EQ(metadata->items.size(), 2U);
  EXPECT_EQ(metadata->custom_metadata, Tree::dict({{"by", "me"}}));
  EXPECT_TRUE(fails(checkpointer.restore(path("x.stone") / "other"), ErrorCode::kNotFound));
}

TEST_F(PortableCheckpointTest, IsReplacedOnlyByForceAndNothingElseIs) {
  const Checkpointer checkpointer;
  ASSERT_TRUE(is_ok(checkpointer.save(path("x.stone"), args::StandardSave(Tree(1)))));
  EXPECT_TRUE(fails(checkpointer.save(path("x.stone"), args::StandardSave(Tree(2))),
                    ErrorCode::kAlreadyExists, {"force"}));
  EXPECT_EQ(*checkpointer.restore(path("x.stone")), Tree(1));
  ASSERT_TRUE(
      is_ok(checkpointer.save(path("x.stone"), args::StandardSave(Tree(2)), {.force = true})));
  EXPECT_EQ(*checkpointer.restore(path("x.stone")), Tree(2));
  std::ofstream(path("text.stone")) << "a shopping list";
  EXPECT_TRUE(
      fails(checkpointer.save(path("text.stone"), args::StandardSave(Tree(2)), {.force = true}),
            ErrorCode::kInvalidArgument));
  make_run();
  ASSERT_TRUE(is_ok(export_checkpoint(path("run"), path("run.stone"))));
  EXPECT_TRUE(
      fails(checkpointer.save(path("run.stone"), args::StandardSave(Tree(2)), {.force = true}),
            ErrorCode::kInvalidArgument, {"run of steps"}));
  EXPECT_THAT(names(), ElementsAre("run", "run.stone", "text.stone", "x.stone"));
}

TEST_F(PortableCheckpointTest, IsSavedInTheBackgroundAndCancelled) {
  AsyncCheckpointer checkpointer;
  ASSERT_TRUE(is_ok(checkpointer.save(path("x.stone"), args::StandardSave(state(1)), {})));
  ASSERT_TRUE(is_ok(checkpointer.wait_until_finished()));
  EXPECT_EQ(*checkpointer.restore(path("x.stone")), state(1));
  ASSERT_TRUE(
      is_ok(checkpointer.save(path("x.stone"), args::StandardSave(state(2)), {.force = true})));
  const bool is_cancelled = checkpointer.cancel();
  ASSERT_TRUE(is_ok(checkpointer.wait_until_finished()));
  EXPECT_EQ(*checkpointer.restore(path("x.stone")), state(is_cancelled ? 1 : 2));
  ASSERT_TRUE(is_ok(save_async(path("y.stone"), args::StandardSave(state(3))).result()));
  EXPECT_EQ(*load_async(path("y.stone")).result(), state(3));
  EXPECT_THAT(names(), ElementsAre("x.stone", "y.stone"));
}

TEST_F(PortableCheckpointTest, AFullDiskLeavesWhatWasThere) {
  const Checkpointer checkpointer;
  ASSERT_TRUE(is_ok(checkpointer.save(path("x.stone"), args::StandardSave(Tree(1)))));
  {
    const FileSizeLimit limit(std::uint64_t{1} << 20);
    EXPECT_FALSE(checkpointer.save(path("x.stone"), args::StandardSave(Tree(new_bytes(4 << 20))),
                                   {.force = true}));
    EXPECT_FALSE(checkpointer.save(path("y.stone"), args::StandardSave(Tree(new_bytes(20 << 20)))));
  }
  EXPECT_THAT(names(), ElementsAre("x.stone"));
  EXPECT_EQ(*checkpointer.restore(path("x.stone")), Tree(1));
}

TEST_F(PortableCheckpointTest, MappedArraysOutliveAllElseAndTheOthersAreReadAsEver) {
  Tree saved = state(1);
  ASSERT_TRUE(is_ok(save(path("x.stone"), args::StandardSave(saved))));
  for (const MapArrays map : {MapArrays::kChecked, MapArrays::kUnchecked}) {
    args::StandardRestore as_saved;
    as_saved.map = map;
    const auto mapped = Checkpointer().restore(path("x.stone"), as_saved);
    ASSERT_TRUE(is_ok(mapped));
    EXPECT_EQ(*mapped, saved);
    EXPECT_FALSE(mapped->find("params")->find("w")->get_if<Array>()->is_borrowed());
    // A cast makes an array of its own.
    const Tree target =
        Tree::dict({{"params", Tree::dict({{"w", AbstractArray{DType::kFloat64, {50000}}},
                                           {"b", AbstractArray{DType::kFloat32, {3}}},
                                           {"n", Placeholder{}}})},
                    {"opt", Placeholder{}},
                    {"step", 0}});
    args::StandardRestore into(target);
    into.map = map;
    const auto cast_into = Checkpointer().restore(path("x.stone"), into);
    ASSERT_TRUE(is_ok(cast_into));
    EXPECT_EQ(cast_into->find("params")->find("w")->get_if<Array>()->dtype(), DType::kFloat64);
    EXPECT_EQ(*cast_into->find("params")->find("b"), *saved.find("params")->find("b"));
    std::filesystem::remove(path("gone.stone"));
    std::filesystem::copy_file(path("x.stone"), path("gone.stone"));
    const auto of_gone = Checkpointer().restore(path("gone.stone"), as_saved);
    std::filesystem::remove(path("gone.stone"));
    EXPECT_EQ(*of_gone, saved);
  }
  args::StandardRestore from_store;
  from_store.map = MapArrays::kChecked;
  ASSERT_TRUE(is_ok(save(path("store"), args::StandardSave(saved))));
  EXPECT_EQ(*Checkpointer().restore(path("store"), from_store), saved);
}

TEST_F(PortableCheckpointTest, OneStepOfARunIsASingleCheckpointInAFile) {
  make_run();
  const auto exported = export_checkpoint(path("run") / "20", path("x.stone"));
  ASSERT_TRUE(is_ok(exported));
  EXPECT_EQ(exported->step_count, 1U);
  EXPECT_EQ(exported->file_size_bytes, std::filesystem::file_size(path("x.stone")));
  EXPECT_EQ(*load(path("x.stone")), state(20));
  EXPECT_EQ(*load(path("x.stone") / "20" / "state"), state(20));
  ASSERT_TRUE(is_ok(export_checkpoint(path("run") / "30" / "state", path("y.stone"))));
  EXPECT_EQ(Checkpointer().metadata(path("y.stone"))->items.size(), 1U);
  ASSERT_TRUE(is_ok(export_checkpoint(path("x.stone"), path("z.stone"))));
  EXPECT_EQ(*load(path("z.stone")), state(20));
}

TEST_F(PortableCheckpointTest, AFileOfARunIsReadStepByStepAlsoByAManager) {
  make_run();
  ASSERT_TRUE(is_ok(export_checkpoint(path("run"), path("run.stone"), {.steps = {{10, 30}}})));
  EXPECT_EQ(*load(path("run.stone") / "10"), state(10));
  EXPECT_TRUE(fails(load(path("run.stone")), ErrorCode::kInvalidArgument, {"run of steps"}));
  CheckpointManagerOptions options;
  options.read_only = true;
  const auto manager = CheckpointManager::open(path("run.stone"), options);
  ASSERT_TRUE(is_ok(manager));
  EXPECT_THAT((*manager)->all_steps(), ElementsAre(10, 30));
  const auto restored =
      (*manager)->restore(30, args::Composite({{"state", args::StandardRestore()}}));
  ASSERT_TRUE(is_ok(restored));
  EXPECT_EQ(*restored->get<Tree>("state"), state(30));
}

TEST_F(PortableCheckpointTest, WeightsAreTakenAloneAndCastOnTheWay) {
  make_run();
  const PortableOptions options{
      .selection = {.items = {{"state"}},
                    .subtree = {PathComponent::key("params")},
                    .leaf = [](std::string_view,
                               const LeafPath& leaf) { return to_text(leaf) != "params/n"; },
                    .cast_floats = DType::kBfloat16},
      .steps = {{30}}};
  ASSERT_TRUE(is_ok(export_checkpoint(path("run"), path("x.stone"), options)));
  const auto weights = load(path("x.stone"));
  ASSERT_TRUE(is_ok(weights));
  const Tree saved = state(30);
  const auto bfloat16 = [&](const char* name) {
    return *cast(*saved.find("params")->find(name)->get_if<Array>(), DType::kBfloat16);
  };
  EXPECT_EQ(*weights,
            Tree::dict({{"params", Tree::dict({{"w", bfloat16("w")}, {"b", bfloat16("b")}})}}));
  // The same into a store.
  const auto store = *Store::open(path("store"), {.create_if_missing = true});
  const auto from = *Store::open(path("run"), {.read_only = true});
  ASSERT_TRUE(is_ok(
      store->import_steps(*from, {.steps = {{30}}, .hooks = transfer_hooks(options.selection)})));
  EXPECT_EQ(*load(path("store") / "30" / "state"), *weights);
}

TEST_F(PortableCheckpointTest, WhatCannotBeSelectedLeavesNoFile) {
  make_run();
  const auto select = [&](PortableSelection selection) {
    return export_checkpoint(path("run"), path("x.stone"), {.selection = std::move(selection)});
  };
  EXPECT_TRUE(fails(select({.items = {{"model"}}}), ErrorCode::kNotFound, {"model"}));
  EXPECT_TRUE(fails(select({.subtree = {PathComponent::key("none")}}), ErrorCode::kInvalidArgument,
                    {"step 10"}));
  EXPECT_TRUE(
      fails(select({.leaf = [](std::string_view,
                               const LeafPath& leaf) { return to_text(leaf) != "opt[0]"; }}),
            ErrorCode::kInvalidArgument, {"list or tuple"}));
  EXPECT_TRUE(fails(select({.cast_floats = DType::kInt8}), ErrorCode::kMismatch, {"opt[0]"}));
  EXPECT_TRUE(fails(export_checkpoint(path("nothing"), path("x.stone")), ErrorCode::kNotFound));
  EXPECT_TRUE(fails(export_checkpoint(path("run"), path("x.stone"), {.steps = {{11}}}),
                    ErrorCode::kNotFound, {"11"}));
  EXPECT_THAT(names(), ElementsAre("run"));
}

TEST_F(PortableCheckpointTest, TheCInterfaceExportsIntoAFileAndReadsIt) {
  make_run();
  stepstone_store* store = nullptr;
  ASSERT_EQ(stepstone_open(path("run").c_str(), nullptr, &store), STEPSTONE_OK);
  ASSERT_EQ(stepstone_export(store, 20, path("x.stone").c_str(), 0), STEPSTONE_OK)
      << stepstone_error_text();
  EXPECT_EQ(stepstone_export(store, 20, path("x.stone").c_str(), 0), STEPSTONE_ALREADY_EXISTS);
  EXPECT_EQ(stepstone_export(store, 30, path("x.stone").c_str(), 1), STEPSTONE_OK);
  stepstone_store_free(store);
  EXPECT_TRUE(std::filesystem::is_regular_file(path("x.stone")));
  stepstone_options options = STEPSTONE_OPTIONS_INIT;
  options.create = 0;
  options.read_only = 1;
  ASSERT_EQ(stepstone_open(path("x.stone").c_str(), &options, &store), STEPSTONE_OK)
      << stepstone_error_text();
  stepstone_step* step = nullptr;
  ASSERT_EQ(stepstone_step_open(store, STEPSTONE_LATEST, &step), STEPSTONE_OK);
  std::int32_t n[2] = {};
  ASSERT_EQ(stepstone_restore_leaf(step, "state", "params/n", n, sizeof(n)), STEPSTONE_OK)
      << stepstone_error_text();
  EXPECT_EQ(n[1], 2);
  stepstone_step_free(step);
  stepstone_store_free(store);
}

}  // namespace
}  // namespace stepstone::testing
