// Every error that Orbax's manager has, one after the other: here each has a code, a message that
// names what is wrong, and leaves the store as it was. What cannot go wrong here is listed too.
#include <fstream>
#include <functional>

#include "api/checkpoint_manager.h"
#include "api/handlers.h"
#include "api/shared_store.h"
#include "format/limits.h"
#include "tests/api/support.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using args::Composite;
using testing::fails;
using testing::is_ok;

template <typename T>
Result<void> without_value(const Result<T>& result) {
  if (result) return {};
  return tl::unexpected<Error>(result.error());
}

class ManagerErrorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    single_ = *CheckpointManager::open(single_path_);
    ASSERT_TRUE(*single_->save(3, args::StandardSave(tree_), {.metrics = "1"}));
    ASSERT_TRUE(is_ok(single_->wait_until_finished()));
    multiple_ = *CheckpointManager::open(multiple_path_, {}, {.metadata = R"({"a": 1})"});
    ASSERT_TRUE(*multiple_->save(4, items_));
    ASSERT_TRUE(is_ok(multiple_->wait_until_finished()));
    read_only_ = *CheckpointManager::open(single_path_, {.read_only = true});
    closed_ = *CheckpointManager::open(single_path_);
    ASSERT_TRUE(is_ok(closed_->close()));
  }

  Result<void> open(const CheckpointManagerOptions& options, const ManagerItems& items = {}) const {
    return without_value(CheckpointManager::open(single_path_, options, items));
  }

  // All that a store says of itself.
  struct State {
    std::vector<StepRecord> records;
    std::string metadata;
    bool operator==(const State&) const = default;
  };
  static State state_of(const std::filesystem::path& path) {
    OpenOptions options;
    options.read_only = true;
    const auto store = *SharedStore::open(path, options);
    State state{{}, *store->custom_metadata()};
    for (const std::uint64_t step : store->steps()) {
      state.records.push_back(*store->step_record(step));
    }
    return state;
  }

  const Tree tree_ = Tree::dict({{"a", 1}});
  const Composite items_ =
      Composite({{"state", args::StandardSave(tree_)}, {"json", args::JsonSave(tree_)}});
  TemporaryDirectory directory_;
  const std::filesystem::path single_path_ = directory_.path() / "single";
  const std::filesystem::path multiple_path_ = directory_.path() / "multiple";
  std::unique_ptr<CheckpointManager> single_;
  std::unique_ptr<CheckpointManager> multiple_;
  std::unique_ptr<CheckpointManager> read_only_;
  std::unique_ptr<CheckpointManager> closed_;
};

TEST_F(ManagerErrorTest, EachNamesWhatIsWrongAndChangesNothing) {
  using enum ErrorCode;
  const auto json = std::make_shared<const JsonCheckpointHandler>();
  const auto keep_all = std::make_shared<PreserveAll>();
  const auto save = [](CheckpointManager& manager, std::uint64_t step, const AnyValue& args,
                       const CheckpointManager::SaveOptions& options = {}) {
    return [&manager, step, args, options] {
      return without_value(manager.save(step, args, options));
    };
  };
  const args::StandardSave one(tree_);
  AsyncOptions with_callback;
  with_callback.post_finalization_callback = [] {};
  AsyncOptions negative_timeout;
  negative_timeout.timeout = std::chrono::seconds(-1);
  const std::string where = single_path_.string();
  struct Case {
    const char* name;
    std::function<Result<void>()> call;
    ErrorCode code;
    std::vector<std::string> parts;
  };
  const std::vector<Case> cases = {
      // What is opened.
      {"registry and names",
       [&] { return open({}, {.item_names = {"a"}, .handler_registry = HandlerRegistry()}); },
       kInvalidArgument,
       {"handler_registry", "item_names"}},
      {"registry and handlers",
       [&] {
         return open({}, {.item_handlers = {{"a", json}}, .handler_registry = HandlerRegistry()});
       },
       kInvalidArgument,
       {"handler_registry", "item_handlers"}},
      {"names and one handler",
       [&] { return open({}, {.item_names = {"a"}, .item_handler = json}); },
       kInvalidArgument,
       {"item_handler"}},
      {"a null handler",
       [&] {
         return open({}, {.item_handlers = {{"a", nullptr}}});
       },
       kInvalidArgument,
       {"null"}},
      {"an item name twice",
       [&] {
         return open({}, {.item_names = {"a", "b", "a"}});
       },
       kInvalidArgument,
       {"item_names", "'a'", "twice"}},
      {"an empty item name",
       [&] { return open({}, {.item_names = {""}}); },
       kInvalidArgument,
       {"item_names", "empty"}},
      {"policy and max_to_keep",
       [&] { return open({.max_to_keep = 1, .preservation_policy = keep_all}); },
       kInvalidArgument,
       {"preservation_policy", "max_to_keep"}},
      {"policy and keep_period",
       [&] { return open({.keep_period = 1, .preservation_policy = keep_all}); },
       kInvalidArgument,
       {"keep_period"}},
      {"policy and keep_time_interval",
       [&] {
         return open(
             {.keep_time_interval = std::chrono::seconds(1), .preservation_policy = keep_all});
       },
       kInvalidArgument,
       {"keep_time_interval"}},
      {"callback without asynchronous saves",
       [&] { return open({.enable_async_checkpointing = false, .async_options = with_callback}); },
       kInvalidArgument,
       {"post_finalization_callback", "on_save"}},
      {"both places for the deleted",
       [&] { return open({.todelete_subdir = "a", .todelete_full_path = "b"}); },
       kInvalidArgument,
       {"todelete_subdir", "todelete_full_path"}},
      {"interval 0",
       [&] { return open({.save_interval_steps = 0}); },
       kInvalidArgument,
       {"save_interval_steps", "at least 1"}},
      {"max_to_keep 0",
       [&] { return open({.max_to_keep = 0}); },
       kInvalidArgument,
       {"max_to_keep", "unset"}},
      {"keep_period 0",
       [&] { return open({.keep_period = 0}); },
       kInvalidArgument,
       {"keep_period", "at least 1"}},
      {"negative interval of time",
       [&] { return open({.keep_time_interval = std::chrono::seconds(-1)}); },
       kInvalidArgument,
       {"keep_time_interval", "negative"}},
      {"negative timeout",
       [&] { return open({.async_options = negative_timeout}); },
       kInvalidArgument,
       {"async_options.timeout", "negative"}},
      {"a save policy that cannot be meant",
       [&] { return open({.save_decision_policy = std::make_shared<FixedIntervalPolicy>(0)}); },
       kInvalidArgument,
       {"save_decision_policy", "FixedIntervalPolicy"}},
      {"a preservation policy that cannot be meant",
       [&] { return open({.preservation_policy = std::make_shared<EveryNSteps>(0)}); },
       kInvalidArgument,
       {"preservation_policy", "EveryNSteps"}},
      {"step prefix",
       [&] { return open({.step_prefix = "a/b"}); },
       kInvalidArgument,
       {"step_prefix", "a/b"}},
      {"metadata of the run is no dict",
       [&] { return open({}, {.metadata = "[1]"}); },
       kInvalidArgument,
       {"metadata of the run", "dict"}},
      {"metadata of the run is too large",
       [&] {
         return open({}, {.metadata = Tree::dict({{"a", std::string(100'000, 'x')}})});
       },
       kLimit,
       {where, "metadata", "65536"}},
      // What is saved.
      {"no args", save(*single_, 5, AnyValue()), kInvalidArgument, {"step 5", "args"}},
      {"one object among named items",
       save(*multiple_, 5, one),
       kInvalidArgument,
       {"step 5", "named items"}},
      {"named items among single objects",
       save(*single_, 5, items_),
       kInvalidArgument,
       {"step 5", "one object"}},
      {"no items", save(*multiple_, 5, Composite()), kInvalidArgument, {"step 5", "no items"}},
      {"the step exists", save(*single_, 3, one), kAlreadyExists, {"step 3", where}},
      {"the step exists, forced",
       save(*single_, 3, one, {.force = true}),
       kAlreadyExists,
       {"step 3", "overwrite"}},
      {"step over the limit",
       save(*single_, limits::kStepMax + 1, one),
       kLimit,
       {"step 9223372036854775808"}},
      {"step over the limit, forced, overwriting",
       save(*single_, ~std::uint64_t{0}, one, {.force = true, .overwrite = true}),
       kLimit,
       {"step 18446744073709551615"}},
      {"a leaf that cannot be saved",
       save(*single_, 5, args::StandardSave(Tree::dict({{"w", AbstractArray{}}}))),
       kInvalidArgument,
       {"step 5", "'w'"}},
      {"a leaf that cannot be saved over an existing step",
       save(*single_, 3, args::StandardSave(Tree::dict({{"w", AbstractArray{}}})),
            {.overwrite = true}),
       kInvalidArgument,
       {"step 3", "'w'"}},
      {"metrics that are no JSON",
       save(*single_, 5, one, {.metrics = "{"}),
       kInvalidArgument,
       {"step 5: metrics"}},
      {"metrics that JSON cannot hold",
       save(*single_, 5, one, {.metrics = Tree::dict({{"b", Bytes{"x"}}})}),
       kInvalidArgument,
       {"step 5: metrics", "'b'"}},
      {"custom metadata that is no dict",
       save(*single_, 5, one, {.custom_metadata = "7"}),
       kInvalidArgument,
       {"step 5: custom_metadata", "dict"}},
      {"custom metadata that is no JSON",
       save(*single_, 5, one, {.custom_metadata = "{a}"}),
       kInvalidArgument,
       {"step 5: custom_metadata"}},
      {"read-only", save(*read_only_, 5, one), kReadOnly, {"step 5", where}},
      {"read-only, forced",
       save(*read_only_, 5, one, {.force = true}),
       kReadOnly,
       {"step 5", where}},
      {"after close", save(*closed_, 5, one, {.force = true}), kClosed, {where}},
      // What is restored.
      {"no such step",
       [&] { return without_value(single_->restore(9)); },
       kNotFound,
       {"step 9", "it has step 3"}},
      {"no step at all",
       [&] {
         const auto empty = *CheckpointManager::open(directory_.path() / "empty");
         return without_value(empty->restore(std::nullopt));
       },
       kNotFound,
       {"empty", "no checkpoint"}},
      {"no such item",
       [&] {
         return without_value(multiple_->restore(4, Composite({{"nope", {}}})));
       },
       kNotFound,
       {"step 4", "'nope'", "'json', 'state'"}},
      {"named items from one object",
       [&] {
         const auto fresh = *CheckpointManager::open(single_path_);
         return without_value(fresh->restore(3, Composite()));
       },
       kInvalidArgument,
       {"step 3", "one object"}},
      {"one object from named items",
       [&] {
         const auto fresh = *CheckpointManager::open(multiple_path_);
         return without_value(fresh->restore(4, args::StandardRestore()));
       },
       kInvalidArgument,
       {"step 4", "'json', 'state'", "Composite"}},
      {"the target has another structure",
       [&] {
         return without_value(single_->restore(3, args::StandardRestore(Tree::dict({{"b", 1}}))));
       },
       kMismatch,
       {"step 3", "'a'"}},
      {"restore after close", [&] { return without_value(closed_->restore(3)); }, kClosed, {where}},
      {"hold a step that is not there",
       [&] { return without_value(single_->hold(9)); },
       kNotFound,
       {"step 9"}},
      // The rest.
      {"delete a step that is not there",
       [&] { return single_->delete_step(9); },
       kNotFound,
       {"step 9", "it has step 3"}},
      {"delete, read-only",
       [&] { return read_only_->delete_step(3); },
       kReadOnly,
       {"step 3", where}},
      {"delete after close", [&] { return closed_->delete_step(3); }, kClosed, {where}},
      {"metadata of a step that is not there",
       [&] { return without_value(single_->metadata(9)); },
       kNotFound,
       {"step 9"}},
      {"metadata of items of a step that is not there",
       [&] { return without_value(single_->item_metadata(9)); },
       kNotFound,
       {"step 9"}},
      {"metrics of a step that is not there",
       [&] { return without_value(single_->metrics(9)); },
       kNotFound,
       {"step 9"}},
      {"metadata after close",
       [&] { return without_value(closed_->metadata()); },
       kClosed,
       {where}},
      {"reload after close", [&] { return closed_->reload(); }, kClosed, {where}},
      {"the directory is not there, read-only",
       [&] {
         return without_value(
             CheckpointManager::open(directory_.path() / "none", {.read_only = true}));
       },
       kNotFound,
       {"none"}},
      {"the directory is not there, and not to be created",
       [&] {
         return without_value(
             CheckpointManager::open(directory_.path() / "none", {.create = false}));
       },
       kNotFound,
       {"none"}},
  };
  const State single_before = state_of(single_path_);
  const State multiple_before = state_of(multiple_path_);
  for (const Case& tried : cases) {
    SCOPED_TRACE(tried.name);
    const Result<void> result = tried.call();
    EXPECT_TRUE(fails(result, tried.code));
    for (const std::string& part : tried.parts) {
      EXPECT_TRUE(fails(result, tried.code, {part}));
    }
    EXPECT_TRUE(is_ok(single_->wait_until_finished()));
    EXPECT_TRUE(is_ok(multiple_->wait_until_finished()));
    EXPECT_EQ(state_of(single_path_), single_before);
    EXPECT_EQ(state_of(multiple_path_), multiple_before);
  }
  EXPECT_FALSE(std::filesystem::exists(directory_.path() / "none"));
  EXPECT_EQ(*single_->restore(3), tree_);
  // None of it is in the way of what comes next.
  EXPECT_TRUE(*single_->save(5, one));
  EXPECT_TRUE(*multiple_->save(5, items_));
}

// What is an error, or goes wrong without one, in Orbax, and works here.
TEST_F(ManagerErrorTest, WhatNeedNotBeAnError) {
  EXPECT_TRUE(is_ok(open({.cleanup_tmp_directories = true,
                          .todelete_full_path = "somewhere",
                          .enable_background_delete = true,
                          .num_deletion_threads = 0,
                          .lightweight_initialize = true})))
      << "accepted, and without effect";
  const std::filesystem::path work = directory_.path() / "work";
  std::filesystem::create_directory(work);
  std::ofstream(work / "config.json") << "{}";
  EXPECT_TRUE(CheckpointManager::open(work)) << "a directory with other files in it";
  EXPECT_TRUE(*single_->save(1, args::StandardSave(Tree(7)))) << "a bare leaf, an earlier step";
  ASSERT_TRUE(is_ok(single_->wait_until_finished()));
  EXPECT_EQ(single_->latest_step(), 3U);
  EXPECT_EQ(single_->best_step(), 3U) << "without best_fn";
  EXPECT_EQ(closed_->all_steps(), std::vector<std::uint64_t>{});
  EXPECT_FALSE(closed_->should_save(1));
}

}  // namespace
}  // namespace stepstone
