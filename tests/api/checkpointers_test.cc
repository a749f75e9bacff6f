// Checkpointers of several items and in the background, paths into stores, and the free functions.
#include <condition_variable>
#include <mutex>
#include <thread>

#include "api/async_checkpointer.h"
#include "api/checkpoint_manager.h"
#include "api/checkpoint_path.h"
#include "api/functions.h"
#include "engine/store.h"
#include "tests/api/support.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using testing::array_of;
using testing::fails;
using testing::is_ok;

Tree tree_with(float value) { return Tree::dict({{"w", array_of<float>({value, 2})}, {"n", 7}}); }

class CheckpointersTest : public ::testing::Test {
 protected:
  std::filesystem::path at(const char* name) const { return directory_.path() / name; }

  // Steps 3 and 4 at run/, with the items `default`.
  void make_run() const {
    const auto manager = CheckpointManager::open(at("run"));
    ASSERT_TRUE(is_ok(manager));
    for (const std::uint64_t step : {3U, 4U}) {
      ASSERT_TRUE(
          is_ok((*manager)->save(step, args::StandardSave(tree_with(static_cast<float>(step))))));
    }
    ASSERT_TRUE(is_ok((*manager)->close()));
  }

  TemporaryDirectory directory_;
};

// A gate that a background part waits at until it is opened.
class SaveGate {
 public:
  void open() {
    {
      const std::scoped_lock lock(mutex_);
      is_open_ = true;
    }
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return is_open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_open_ = false;
};

struct GatedSave {
  std::shared_ptr<SaveGate> gate;
  bool fails = false;
};
struct GatedRestore {
  using Restored = Tree;
};
class GatedHandler final : public AsyncCheckpointHandler<GatedSave, GatedRestore> {
 public:
  std::string type_name() const override { return "gated"; }
  Result<BackgroundSave> save(const GatedSave& args) const override {
    return BackgroundSave([args](ItemWriter& item) -> Result<void> {
      args.gate->wait();
      if (args.fails) return fail(ErrorCode::kIo, "the gate is broken");
      return item.write(Tree("through"));
    });
  }
  Result<Tree> restore(const GatedRestore& /*args*/, const ItemReader& item) const override {
    return item.read();
  }
};

TEST_F(CheckpointersTest, AnAsynchronousSaveCopiesWhatItsCallerMayChange) {
  std::vector<float> weights = {1, 2, 3};
  auto gate = std::make_shared<SaveGate>();
  HandlerRegistry registry = HandlerRegistry::defaults();
  ASSERT_TRUE(is_ok(registry.add(GatedHandler())));
  AsyncCheckpointer checkpointer(registry);
  ASSERT_TRUE(is_ok(checkpointer.save(
      at("c"), args::Composite({{"state", args::StandardSave(*Array::borrow<float>(weights, {3}))},
                                {"gated", GatedSave{gate}}}))));
  EXPECT_TRUE(checkpointer.is_saving_in_progress());
  EXPECT_TRUE(is_ok(checkpointer.check_for_errors())) << "does not wait";
  EXPECT_TRUE(
      fails(checkpointer.wait_until_finished(std::chrono::milliseconds(1)), ErrorCode::kBusy));
  weights.assign(3, 9);
  EXPECT_TRUE(fails(Checkpointer().metadata(at("c")), ErrorCode::kNotFound)) << "not there yet";
  gate->open();
  ASSERT_TRUE(is_ok(checkpointer.wait_until_finished()));
  EXPECT_FALSE(checkpointer.is_saving_in_progress());
  const auto restored = checkpointer.restore<args::Composite>(at("c"));
  ASSERT_TRUE(is_ok(restored));
  EXPECT_EQ(*restored->get<Tree>("state"), Tree(array_of<float>({1, 2, 3})));
  EXPECT_EQ(*restored->get<Tree>("gated"), Tree("through"));
}

TEST_F(CheckpointersTest, AFailedAsynchronousSaveIsToldOnceAndKeepsWhatWasThere) {
  auto gate = std::make_shared<SaveGate>();
  gate->open();
  AsyncCheckpointer checkpointer{GatedHandler()};
  ASSERT_TRUE(is_ok(checkpointer.save(at("c"), GatedSave{gate})));
  ASSERT_TRUE(is_ok(checkpointer.save(at("c"), GatedSave{gate, true}, {.force = true})));
  EXPECT_EQ(*checkpointer.restore(at("c")), Tree("through"));
  EXPECT_TRUE(fails(checkpointer.save(at("d"), GatedSave{gate}), ErrorCode::kIo,
                    {at("c").string(), "step 0 item 'default'", "broken"}));
  EXPECT_FALSE(std::filesystem::exists(at("d"))) << "nothing was begun";
  EXPECT_TRUE(is_ok(checkpointer.wait_until_finished()));
  ASSERT_TRUE(is_ok(checkpointer.save(at("d"), GatedSave{gate})));
  EXPECT_TRUE(is_ok(checkpointer.close()));
  EXPECT_TRUE(is_ok(checkpointer.close()));
  EXPECT_EQ(*Checkpointer(GatedHandler()).restore(at("d")), Tree("through"));
  EXPECT_TRUE(
      fails(checkpointer.save(at("e"), GatedSave{gate}), ErrorCode::kClosed, {at("e").string()}));
  EXPECT_TRUE(fails(checkpointer.restore(at("d")), ErrorCode::kClosed));
}

TEST_F(CheckpointersTest, ACancelledSaveLeavesThePathAsItWas) {
  AsyncCheckpointer checkpointer{GatedHandler()};
  EXPECT_FALSE(checkpointer.cancel()) << "there is none";
  auto first = std::make_shared<SaveGate>();
  first->open();
  ASSERT_TRUE(is_ok(checkpointer.save(at("c"), GatedSave{first})));
  ASSERT_TRUE(is_ok(checkpointer.wait_until_finished()));
  EXPECT_FALSE(checkpointer.cancel()) << "it is committed, and known to be";
  const auto before = Checkpointer().metadata(at("c"));
  ASSERT_TRUE(is_ok(before));

  for (const bool is_broken : {false, true}) {
    auto gate = std::make_shared<SaveGate>();
    ASSERT_TRUE(is_ok(checkpointer.save(at("c"), GatedSave{gate, is_broken}, {.force = true})));
    EXPECT_TRUE(checkpointer.is_saving_in_progress());
    EXPECT_TRUE(checkpointer.cancel());
    EXPECT_TRUE(checkpointer.cancel()) << "it stays given up";
    gate->open();
    EXPECT_TRUE(is_ok(checkpointer.wait_until_finished()));
    const auto after = Checkpointer().metadata(at("c"));
    ASSERT_TRUE(is_ok(after));
    EXPECT_EQ(after->commit_timestamp_ns, before->commit_timestamp_ns);
    EXPECT_EQ(*checkpointer.restore(at("c")), Tree("through"));
  }

  auto gate = std::make_shared<SaveGate>();
  ASSERT_TRUE(is_ok(checkpointer.save(at("new"), GatedSave{gate})));
  EXPECT_TRUE(checkpointer.cancel());
  gate->open();
  // The next save waits for the one that was given up.
  ASSERT_TRUE(is_ok(checkpointer.save(at("c"), GatedSave{gate}, {.force = true})));
  EXPECT_TRUE(fails(checkpointer.restore(at("new")), ErrorCode::kNotFound));
  ASSERT_TRUE(is_ok(checkpointer.wait_until_finished()));
  EXPECT_NE(Checkpointer().metadata(at("c"))->commit_timestamp_ns, before->commit_timestamp_ns);
  EXPECT_TRUE(is_ok(Store::open(at("new"), {}))) << "nobody has it open any more";
}

TEST_F(CheckpointersTest, ACancelThatComesTooLateChangesNothing) {
  auto gate = std::make_shared<SaveGate>();
  gate->open();
  AsyncCheckpointer checkpointer{GatedHandler()};
  ASSERT_TRUE(is_ok(checkpointer.save(at("c"), GatedSave{gate})));
  while (checkpointer.is_saving_in_progress()) std::this_thread::yield();
  EXPECT_FALSE(checkpointer.cancel());
  EXPECT_EQ(*checkpointer.restore(at("c")), Tree("through"));
  ASSERT_TRUE(is_ok(checkpointer.save(at("d"), GatedSave{gate, true})));
  while (checkpointer.is_saving_in_progress()) std::this_thread::yield();
  EXPECT_FALSE(checkpointer.cancel());
  EXPECT_TRUE(fails(checkpointer.wait_until_finished(), ErrorCode::kIo, {"broken"}));
}

TEST_F(CheckpointersTest, SavesAtAPathThatThisProcessHasOpenShareItsStore) {
  const auto manager = *CheckpointManager::open(at("c"), {.enable_async_checkpointing = false});
  ASSERT_TRUE(is_ok(save(at("c"), tree_with(1))));
  EXPECT_EQ(manager->all_steps(), std::vector<std::uint64_t>{0});
  EXPECT_EQ(*manager->restore(0), tree_with(1));
  EXPECT_TRUE(fails(save(at("c"), tree_with(2)), ErrorCode::kAlreadyExists, {at("c").string()}));
  const HeldStep held = *manager->hold(0);
  ASSERT_TRUE(is_ok(save(at("c"), tree_with(2), {.force = true})));
  EXPECT_EQ(*manager->restore(0), tree_with(2));
  EXPECT_EQ(*held.restore(), tree_with(1));
  ASSERT_TRUE(*manager->save(1, args::StandardSave(tree_with(3))));
  EXPECT_TRUE(fails(save(at("c"), tree_with(4), {.force = true}), ErrorCode::kInvalidArgument,
                    {at("c").string(), "CheckpointManager"}));
  EXPECT_EQ(*manager->restore(0), tree_with(2));
}

TEST_F(CheckpointersTest, ARunThatBeginsWhileASaveIsUnderWayIsLeftToTheManager) {
  auto gate = std::make_shared<SaveGate>();
  AsyncCheckpointer checkpointer{GatedHandler()};
  ASSERT_TRUE(is_ok(checkpointer.save(at("c"), GatedSave{gate})));
  const auto manager = *CheckpointManager::open(at("c"), {.enable_async_checkpointing = false});
  ASSERT_TRUE(*manager->save(3, args::StandardSave(tree_with(3))));
  gate->open();
  EXPECT_TRUE(fails(checkpointer.wait_until_finished(), ErrorCode::kInvalidArgument,
                    {at("c").string(), "CheckpointManager"}));
  EXPECT_EQ(manager->all_steps(), std::vector<std::uint64_t>{3});
}

TEST_F(CheckpointersTest, TwoSavesToOnePathAtOnceTakeTurns) {
  auto gate = std::make_shared<SaveGate>();
  AsyncCheckpointer slow{GatedHandler()};
  ASSERT_TRUE(is_ok(slow.save(at("c"), GatedSave{gate})));
  ASSERT_TRUE(is_ok(save(at("c"), tree_with(1))));
  gate->open();
  EXPECT_TRUE(fails(slow.wait_until_finished(), ErrorCode::kAlreadyExists));
  EXPECT_EQ(*load(at("c")), tree_with(1));
  auto second = std::make_shared<SaveGate>();
  ASSERT_TRUE(is_ok(slow.save(at("c"), GatedSave{second}, {.force = true})));
  ASSERT_TRUE(is_ok(save(at("c"), tree_with(2), {.force = true})));
  EXPECT_EQ(*load(at("c")), tree_with(2));
  second->open();
  ASSERT_TRUE(is_ok(slow.wait_until_finished()));
  EXPECT_EQ(*slow.restore(at("c")), Tree("through"));
}

TEST_F(CheckpointersTest, ACompositeRestoresAllItemsOrSomeWithOrWithoutArguments) {
  const Checkpointer checkpointer(CompositeCheckpointHandler("state", "meta"));
  const Tree meta = Tree::dict({{"version", 1.0}});
  ASSERT_TRUE(
      is_ok(checkpointer.save(at("c"), args::Composite({{"state", args::StandardSave(tree_with(1))},
                                                        {"meta", args::JsonSave(meta)}}))));
  const auto some = checkpointer.restore(at("c"), args::Composite({{"meta", {}}}));
  ASSERT_TRUE(is_ok(some));
  EXPECT_EQ(some->names(), std::vector<std::string>{"meta"});
  EXPECT_EQ(*some->get<Tree>("meta"), meta);
  EXPECT_EQ(*checkpointer.restore(at("c") / "meta"), meta);
  EXPECT_TRUE(fails(checkpointer.restore(at("c") / "meta", args::Composite()),
                    ErrorCode::kInvalidArgument, {"one item"}));
  EXPECT_TRUE(fails(checkpointer.restore(at("c")), ErrorCode::kMismatch,
                    {at("c").string(), "'meta', 'state'", "Composite"}));
  EXPECT_TRUE(fails(checkpointer.restore(at("c"), args::Composite({{"other", {}}})),
                    ErrorCode::kNotFound, {"item 'other'", "'meta', 'state'"}));
  EXPECT_TRUE(fails(checkpointer.save(at("d"), args::Composite({{"other", Tree(1)}})),
                    ErrorCode::kInvalidArgument, {"'other'"}));
  EXPECT_TRUE(fails(checkpointer.save(at("d"), args::StandardSave(Tree(1))),
                    ErrorCode::kInvalidArgument, {"Composite"}));
  EXPECT_TRUE(fails(checkpointer.save(at("d"), args::Composite()), ErrorCode::kInvalidArgument,
                    {"no items"}));
  EXPECT_FALSE(std::filesystem::exists(at("d")));
}

TEST_F(CheckpointersTest, MetadataTellsAllWithoutReadingArrays) {
  const Tree custom = Tree::dict({{"note", "best"}});
  const Tree tree = Tree::dict({{"w", *Array::zeros(DType::kBfloat16, {1000, 300})},
                                {"t", Tree::tuple({1, 2.5, "x", None{}, true})}});
  ASSERT_TRUE(is_ok(Checkpointer().save(at("c"), args::StandardSave(tree, {}, custom),
                                        {.custom_metadata = Tree::dict({{"run", 7}})})));
  const auto metadata = Checkpointer().metadata(at("c"));
  ASSERT_TRUE(is_ok(metadata));
  EXPECT_EQ(metadata->custom_metadata, Tree::dict({{"run", 7}}));
  EXPECT_LE(metadata->init_timestamp_ns, metadata->commit_timestamp_ns);
  EXPECT_GT(metadata->init_timestamp_ns, 0);
  const ItemMetadata* const item = metadata->find("default");
  ASSERT_NE(item, nullptr);
  EXPECT_EQ(metadata->find("other"), nullptr);
  EXPECT_EQ(item->handler, "standard");
  EXPECT_EQ(item->custom_metadata, custom);
  EXPECT_EQ(item->tree, Tree::dict({{"w", AbstractArray{DType::kBfloat16, {1000, 300}}},
                                    {"t", Tree::tuple({0, 0.0, "", None{}, false})}}));
  EXPECT_EQ(item->leaves[0], (LeafMetadata{.path = "w",
                                           .kind = LeafKind::kArray,
                                           .dtype = DType::kBfloat16,
                                           .shape = {1000, 300},
                                           .size_bytes = 600000,
                                           .stored_bytes = item->leaves[0].stored_bytes,
                                           .chunk_size_bytes = 256U << 10}));
  EXPECT_LT(item->leaves[0].stored_bytes, 600000U);
  EXPECT_EQ(metadata->size_bytes, item->size_bytes);
  // It is a target for what it describes.
  EXPECT_EQ(*Checkpointer().restore(at("c"), args::StandardRestore(item->tree)), tree);
}

TEST_F(CheckpointersTest, StepsAndItemsHavePathsAlthoughNoDirectoryIsThere) {
  make_run();
  EXPECT_EQ(*Checkpointer().restore(at("run") / "3"), tree_with(3));
  EXPECT_EQ(*Checkpointer().restore(at("run") / "0004/"), tree_with(4));
  EXPECT_EQ(*Checkpointer().restore(at("run") / "step_4"), tree_with(4));
  EXPECT_EQ(*Checkpointer().restore(at("run") / "3" / "default"), tree_with(3));
  EXPECT_EQ(*load(at("run") / "3"), tree_with(3));
  EXPECT_EQ(metadata(at("run") / "4")->step, 4U);
  EXPECT_EQ(metadata(at("run") / "4" / "default")->items.size(), 1U);
  EXPECT_TRUE(fails(Checkpointer().restore(at("run") / "5"), ErrorCode::kNotFound,
                    {at("run").string(), "step 5"}));
  EXPECT_TRUE(fails(Checkpointer().restore(at("run") / "3" / "state"), ErrorCode::kNotFound,
                    {"step 3 item 'state'", "'default'"}));
  EXPECT_TRUE(fails(Checkpointer().restore(at("run")), ErrorCode::kInvalidArgument,
                    {(at("run") / "4").string()}));
  EXPECT_TRUE(fails(Checkpointer().restore(at("nothing") / "3"), ErrorCode::kNotFound));
  // Nothing is ever made inside a store.
  for (const char* inside : {"5", "a", "3/state"}) {
    EXPECT_TRUE(fails(Checkpointer().save(at("run") / inside, Tree(1)), ErrorCode::kInvalidArgument,
                      {at("run").string(), "CheckpointManager"}));
    EXPECT_FALSE(std::filesystem::exists(at("run") / inside));
  }
  // While it is being written, too.
  const auto manager = CheckpointManager::open(at("run"));
  ASSERT_TRUE(is_ok(manager));
  EXPECT_EQ(*Checkpointer().restore(at("run") / "3"), tree_with(3));
}

TEST(CheckpointPath, ReadsStepsOutOfNames) {
  EXPECT_EQ(step_of_name("23"), 23U);
  EXPECT_EQ(step_of_name("0023"), 23U);
  EXPECT_EQ(step_of_name("my_run_7"), 7U);
  for (const char* name :
       {"", "_", "x", "7x", "x7", "-1", "+1", "1.5", "step_", "99999999999999999999"}) {
    EXPECT_EQ(step_of_name(name), std::nullopt) << name;
  }
}

TEST_F(CheckpointersTest, FunctionsSaveAndLoadWithoutObjects) {
  ASSERT_TRUE(is_ok(save(at("c"), tree_with(1))));
  EXPECT_TRUE(fails(save(at("c"), tree_with(2)), ErrorCode::kAlreadyExists, {at("c").string()}));
  ASSERT_TRUE(is_ok(save(at("c"), tree_with(2), {.force = true})));
  EXPECT_EQ(*load(at("c")), tree_with(2));
  args::PyTreeRestore only_w(Tree::dict({{"w", AbstractArray{DType::kFloat64, {2}}}}));
  only_w.partial_restore = true;
  EXPECT_EQ(*load(at("c"), only_w), Tree::dict({{"w", array_of<double>({2, 2})}}));

  const args::Composite all({{"state", tree_with(3)}, {"meta", args::JsonSave(Tree::list({1}))}});
  ASSERT_TRUE(is_ok(save_checkpointables(at("all"), all)));
  EXPECT_EQ(*load(at("all")), tree_with(3)) << "the item `state`";
  EXPECT_EQ(*load_checkpointables(at("all"))->get<Tree>("meta"), Tree::list({1}));
  EXPECT_EQ(load_checkpointables(at("all"), {{"meta", {}}})->size(), 1U);
  EXPECT_EQ(metadata(at("all"))->items.size(), 2U);
  EXPECT_TRUE(fails(load(at("missing")), ErrorCode::kNotFound, {at("missing").string()}));
}

TEST_F(CheckpointersTest, EveryFunctionHasATwinInTheBackground) {
  std::vector<float> weights = {1, 2};
  const Future<void> saved =
      save_async(at("c"), args::StandardSave(*Array::borrow<float>(weights, {2})));
  weights.assign(2, 9);
  ASSERT_TRUE(is_ok(saved.result()));
  EXPECT_EQ(*load_async(at("c")).result(), Tree(array_of<float>({1, 2})));
  EXPECT_TRUE(fails(save_async(at("c"), Tree(1)).result(), ErrorCode::kAlreadyExists));
  ASSERT_TRUE(
      is_ok(save_checkpointables_async(at("all"), {{"a", Tree(1)}, {"b", Tree(2)}}).result()));
  const auto loaded = load_checkpointables_async(at("all"), {{"b", {}}}).result();
  ASSERT_TRUE(is_ok(loaded));
  EXPECT_EQ(*loaded->get<Tree>("b"), Tree(2));
  EXPECT_EQ(metadata_async(at("all")).result()->items.size(), 2U);
  EXPECT_TRUE(fails(load_async(at("missing")).result(), ErrorCode::kNotFound));
}

TEST(Future, WaitsAsLongAsItIsToldAndCallsBackOnce) {
  SaveGate gate;
  int calls = 0;
  {
    const auto future = Future<int>::run([&]() -> Result<int> {
      gate.wait();
      return 7;
    });
    future.on_complete([&](const Result<int>& result) { calls += *result; });
    EXPECT_FALSE(future.is_done());
    EXPECT_TRUE(fails(future.result(std::chrono::milliseconds(1)), ErrorCode::kBusy, {"1 ms"}));
    gate.open();
    EXPECT_EQ(*future.result(), 7);
    EXPECT_EQ(*future.result(std::chrono::milliseconds(0)), 7);
  }
  EXPECT_EQ(calls, 7) << "the last copy has waited for the callback too";
  Future<int>::done(1).on_complete([&](const Result<int>& result) { calls += *result; });
  EXPECT_EQ(calls, 8);
  EXPECT_TRUE(fails(Future<int>().result(), ErrorCode::kClosed));
  EXPECT_TRUE(fails(Future<int>::run([]() -> Result<int> { throw std::bad_alloc(); }).result(),
                    ErrorCode::kLimit));
}

TEST(Future, ACallbackMayDropTheLastCopy) {
  SaveGate gate;
  SaveGate dropped;
  auto future = std::make_unique<Future<int>>(Future<int>::run([&]() -> Result<int> {
    gate.wait();
    return 1;
  }));
  future->on_complete([&](const Result<int>& /*result*/) {
    future.reset();
    dropped.open();
  });
  gate.open();
  dropped.wait();
  EXPECT_EQ(future, nullptr);
}

}  // namespace
}  // namespace stepstone
