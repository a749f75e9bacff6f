// What a manager saves and says about its steps: one object or named items, metadata, metrics.
#include "api/checkpoint_manager.h"
#include "api/handlers.h"
#include "tests/api/support.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using args::Composite;
using testing::array_of;
using testing::fails;
using testing::is_ok;

using Steps = std::vector<std::uint64_t>;

class ManagerItemsTest : public ::testing::Test {
 protected:
  std::unique_ptr<CheckpointManager> open(const CheckpointManagerOptions& options = {},
                                          const ManagerItems& items = {}) const {
    auto manager = CheckpointManager::open(path(), options, items);
    EXPECT_TRUE(is_ok(manager));
    return manager ? *std::move(manager) : nullptr;
  }
  std::filesystem::path path() const { return directory_.path() / "run"; }

  const Tree state_ = Tree::dict({{"w", array_of<float>({1, 2, 3})}, {"b", 7}});
  const Tree json_ = Tree::dict({{"version", 1.5}});
  const Composite items_ =
      Composite({{"state", args::StandardSave(state_)}, {"json", args::JsonSave(json_)}});
  TemporaryDirectory directory_;
};

TEST_F(ManagerItemsTest, AFailedFirstCallDecidesNothing) {
  const auto manager = open();
  EXPECT_TRUE(fails(manager->restore(7, Composite()), ErrorCode::kNotFound, {"step 7"}));
  EXPECT_TRUE(fails(manager->save(1, Composite()), ErrorCode::kInvalidArgument, {"step 1"}));
  ASSERT_TRUE(*manager->save(1, args::StandardSave(state_))) << "one object, nevertheless";
  EXPECT_TRUE(fails(manager->save(2, items_), ErrorCode::kInvalidArgument,
                    {"step 2", "one object", "args::Composite"}));
  EXPECT_EQ(*manager->restore(1), state_);

  const auto other = CheckpointManager::open(directory_.path() / "other");
  EXPECT_TRUE(fails((*other)->restore(7), ErrorCode::kNotFound, {"step 7"}));
  ASSERT_TRUE(*(*other)->save(1, items_)) << "named items, nevertheless";
  EXPECT_TRUE(fails((*other)->save(2, args::StandardSave(state_)), ErrorCode::kInvalidArgument,
                    {"step 2", "named items", "args::Composite"}));
  EXPECT_EQ((*other)->restore(1, Composite())->size(), 2U);
  EXPECT_EQ((*other)->all_steps(), Steps{1});
}

TEST_F(ManagerItemsTest, NamesAndHandlersDecideBeforeAnyCall) {
  const auto named = open({}, {.item_names = {"state", "json"}});
  EXPECT_TRUE(fails(named->save(1, args::StandardSave(state_)), ErrorCode::kInvalidArgument,
                    {"named items"}));
  EXPECT_TRUE(fails(named->save(1, Composite({{"stat", args::StandardSave(state_)}})),
                    ErrorCode::kInvalidArgument, {"step 1", "'stat'", "'state', 'json'"}));
  ASSERT_TRUE(*named->save(1, Composite({{"state", args::StandardSave(state_)}})))
      << "some of them";
  EXPECT_EQ(*named->restore(1, Composite())->get<Tree>("state"), state_);

  const auto handled =
      open({}, {.item_handlers = {{"json", std::make_shared<const JsonCheckpointHandler>()}}});
  EXPECT_TRUE(fails(handled->save(2, Composite({{"json", args::StandardSave(state_)}})),
                    ErrorCode::kInvalidArgument, {"step 2", "json"}));
  ASSERT_TRUE(*handled->save(2, items_));
  EXPECT_EQ(*handled->restore(2, Composite({{"json", {}}}))->get<Tree>("json"), json_);

  const auto single = open({}, {.item_handler = std::make_shared<const JsonCheckpointHandler>()});
  EXPECT_TRUE(fails(single->save(3, items_), ErrorCode::kInvalidArgument, {"one object"}));
  ASSERT_TRUE(*single->save(3, args::JsonSave(json_)));
  EXPECT_EQ(*single->restore(3), json_);

  // A registry that knows nothing saves nothing.
  const auto empty = open({}, {.handler_registry = HandlerRegistry()});
  EXPECT_TRUE(fails(empty->save(4, args::StandardSave(state_)), ErrorCode::kInvalidArgument,
                    {"step 4", "StandardSave"}));
}

TEST_F(ManagerItemsTest, RestoresAllItemsOrSomeWithArgumentsOrAsRemembered) {
  ASSERT_TRUE(is_ok(open()->save(1, items_)));
  const auto manager = open();
  EXPECT_EQ(manager->restore(1, Composite())->names(), (std::vector<std::string>{"json", "state"}));
  const Tree target = Tree::dict({{"w", AbstractArray{DType::kFloat64, {3}}}, {"b", 0}});
  const auto some =
      manager->restore(std::nullopt, Composite({{"state", args::StandardRestore(target)}}));
  ASSERT_TRUE(is_ok(some));
  EXPECT_EQ(some->get<Tree>("state")->find("w")->get_if<Array>()->dtype(), DType::kFloat64);
  EXPECT_TRUE(fails(manager->restore(1, Composite({{"nope", {}}})), ErrorCode::kNotFound,
                    {"step 1", "'nope'", "'json', 'state'"}));
  EXPECT_TRUE(fails(manager->restore(1, args::StandardRestore()), ErrorCode::kInvalidArgument,
                    {"step 1", "args::Composite"}));
  EXPECT_TRUE(is_ok(manager->restore_any(1, {})->get<Composite>()));
}

TEST_F(ManagerItemsTest, TellsOfStepsWithoutReadingArrays) {
  const auto before = std::chrono::system_clock::now();
  const auto manager = open();
  ASSERT_TRUE(*manager->save(
      3, items_,
      {.metrics = Tree::dict({{"loss", 0.25}}), .custom_metadata = Tree::dict({{"host", "a"}})}));
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  const auto metadata = manager->metadata(3);
  ASSERT_TRUE(is_ok(metadata));
  EXPECT_EQ(metadata->step, 3U);
  EXPECT_EQ(metadata->metrics, Tree::dict({{"loss", 0.25}}));
  EXPECT_EQ(metadata->custom_metadata, Tree::dict({{"host", "a"}}));
  ASSERT_NE(metadata->find("state"), nullptr);
  EXPECT_EQ(metadata->find("state")->handler, "standard");
  EXPECT_EQ(*metadata->find("state")->tree.find("w"), Tree(AbstractArray{DType::kFloat32, {3}}));
  EXPECT_EQ(metadata->find("json")->handler, "json");
  EXPECT_GE(metadata->init_timestamp_ns, before.time_since_epoch().count());
  EXPECT_GE(metadata->commit_timestamp_ns, metadata->init_timestamp_ns);
  EXPECT_EQ(*manager->item_metadata(3), metadata->items);
  EXPECT_TRUE(fails(manager->metadata(4), ErrorCode::kNotFound, {"step 4", "step 3"}));
  EXPECT_TRUE(fails(manager->item_metadata(4), ErrorCode::kNotFound, {"step 4"}));
  EXPECT_EQ(*manager->metrics(3), Tree::dict({{"loss", 0.25}}));
  EXPECT_TRUE(fails(manager->metrics(4), ErrorCode::kNotFound, {"step 4"}));
}

TEST_F(ManagerItemsTest, TheRunsMetadataIsWrittenOnce) {
  const Tree first = Tree::dict({{"model", "small"}});
  const Tree second = Tree::dict({{"model", "large"}});
  EXPECT_EQ(open({.save_root_metadata = false}, {.metadata = second})->metadata()->custom_metadata,
            second)
      << "known, but not stored";
  EXPECT_EQ(open()->metadata()->custom_metadata, std::nullopt);
  EXPECT_EQ(open({.read_only = true}, {.metadata = second})->metadata()->custom_metadata, second);
  EXPECT_EQ(open({}, {.metadata = first})->metadata()->custom_metadata, first);
  const auto later = open({}, {.metadata = second});
  EXPECT_EQ(later->metadata()->custom_metadata, first);
  ASSERT_TRUE(*later->save(1, items_));
  ASSERT_TRUE(is_ok(later->close()));
  EXPECT_EQ(open({.read_only = true}, {.metadata = second})->metadata()->custom_metadata, first);
  EXPECT_TRUE(fails(later->metadata(), ErrorCode::kClosed, {path().string()}));
}

TEST_F(ManagerItemsTest, TheBestStepIsRankedByMetricsThatPersist) {
  const std::vector<std::pair<std::uint64_t, double>> losses = {
      {1, 0.5}, {2, 0.1}, {3, 0.9}, {4, 0.1}, {5, 0.9}};
  {
    const auto manager = open();
    for (const auto& [step, loss] : losses) {
      ASSERT_TRUE(*manager->save(step, items_, {.metrics = Tree::dict({{"loss", loss}})}));
    }
    ASSERT_TRUE(*manager->save(6, items_)) << "without";
    ASSERT_TRUE(is_ok(manager->wait_until_finished()));
    EXPECT_EQ(manager->best_step(), 6U) << "the newest, without best_fn";
  }
  EXPECT_EQ(open({.best_fn = metric("loss")})->best_step(), 5U) << "the later of two equals";
  EXPECT_EQ(open({.best_fn = metric("loss"), .best_mode = BestMode::kMin})->best_step(), 4U);
  EXPECT_EQ(open({.best_fn = metric("accuracy")})->best_step(), 6U) << "nobody knows";
  const auto throwing = [](const Tree& /*metrics*/) -> std::optional<double> { throw 1; };
  EXPECT_EQ(open({.best_fn = throwing})->best_step(), 6U);
}

TEST_F(ManagerItemsTest, PreventedMetricsAreKnownToTheirManagerAlone) {
  const Tree metrics = Tree::dict({{"loss", 1}});
  const auto manager = open({.best_fn = metric("loss"), .prevent_write_metrics = true});
  ASSERT_TRUE(*manager->save(1, items_, {.metrics = metrics}));
  ASSERT_TRUE(*manager->save(2, items_, {.metrics = Tree::dict({{"loss", 0}})}));
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(*manager->metrics(1), metrics);
  EXPECT_EQ(manager->metadata(1)->metrics, metrics);
  EXPECT_EQ(manager->best_step(), 1U);
  EXPECT_EQ(*open()->metrics(1), std::nullopt);
}

TEST_F(ManagerItemsTest, AnEarlierStepCanBeFilledInAndTheNewestStaysRight) {
  const auto manager = open({.save_interval_steps = 10});
  for (const std::uint64_t step : {20U, 40U, 30U}) ASSERT_TRUE(*manager->save(step, items_));
  ASSERT_FALSE(*manager->save(5, items_));
  ASSERT_TRUE(*manager->save(5, items_, {.force = true}));
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(manager->all_steps(), (Steps{5, 20, 30, 40}));
  EXPECT_EQ(manager->latest_step(), 40U);
}

TEST_F(ManagerItemsTest, OverwritingReplacesInOneInstant) {
  const auto manager = open();
  const auto save_b = [](int b) { return args::StandardSave(Tree::dict({{"b", b}})); };
  ASSERT_TRUE(*manager->save(1, save_b(1), {.metrics = "1"}));
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  const auto held = manager->hold(1);
  ASSERT_TRUE(is_ok(held));
  ASSERT_TRUE(*manager->save(1, save_b(2), {.metrics = "2", .overwrite = true}));
  // Also while one is on its way.
  ASSERT_TRUE(*manager->save(1, save_b(3), {.metrics = "3", .overwrite = true}));
  ASSERT_TRUE(is_ok(manager->wait_until_finished()));
  EXPECT_EQ(manager->all_steps(), Steps{1});
  EXPECT_EQ(*manager->restore(1), Tree::dict({{"b", 3}}));
  EXPECT_EQ(*manager->metrics(1), Tree(3));
  EXPECT_EQ(*held->restore(), Tree::dict({{"b", 1}})) << "who reads it keeps it";
  {
    const testing::FileSizeLimit limit(1 << 20);
    ASSERT_TRUE(
        *manager->save(1, args::StandardSave(testing::new_bytes(4 << 20)), {.overwrite = true}));
    EXPECT_TRUE(fails(manager->wait_until_finished(), ErrorCode::kNoSpace, {"step 1"}));
  }
  EXPECT_EQ(*manager->restore(1), Tree::dict({{"b", 3}})) << "the old one survives";
}

TEST_F(ManagerItemsTest, AReadOnlyManagerShowsWhatWasThereAtItsReload) {
  const auto writer = open({.max_to_keep = 2});
  for (const std::uint64_t step : {1U, 2U}) ASSERT_TRUE(*writer->save(step, items_));
  ASSERT_TRUE(is_ok(writer->wait_until_finished()));
  const auto reader = open({.read_only = true});
  ASSERT_TRUE(*writer->save(3, items_));
  ASSERT_TRUE(is_ok(writer->wait_until_finished()));
  EXPECT_EQ(reader->all_steps(), Steps{2}) << "what was retired is gone, what is new not there yet";
  EXPECT_EQ(reader->latest_step(), 2U);
  ASSERT_TRUE(is_ok(reader->reload()));
  EXPECT_EQ(reader->all_steps(), (Steps{2, 3}));
  EXPECT_FALSE(reader->should_save(4));
  EXPECT_TRUE(is_ok(writer->reload())) << "needs none";
  ASSERT_TRUE(is_ok(reader->close()));
  EXPECT_TRUE(fails(reader->reload(), ErrorCode::kClosed));
}

TEST_F(ManagerItemsTest, StepsHaveTheNamesThatWereAskedFor) {
  EXPECT_EQ(open()->step_name(23), "23");
  EXPECT_EQ(open({.step_prefix = "step", .step_format_fixed_length = 4})->step_name(23),
            "step_0023");
  const auto own = *standard_name_format({.step_prefix = "run", .step_format_fixed_length = 0});
  EXPECT_EQ(open({.step_prefix = "step", .step_name_format = own})->step_name(23), "run_23");
}

}  // namespace
}  // namespace stepstone
