// The layers of handlers and checkpointers as Orbax's overview walks through them, cell by cell:
// the same calls, with the same results.
#include <cstdlib>

#include "api/async_checkpointer.h"
#include "api/checkpoint_manager.h"
#include "tests/api/support.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using testing::is_ok;

class WalkThrough : public ::testing::Test {
 protected:
  // path = epath.Path('/tmp/my-checkpoints/')
  TemporaryDirectory directory_;
  std::filesystem::path path_ = directory_.path();

  // state = {'layer0': {'bias': 0, 'weight': 1}}, and so on.
  Tree state_ = Tree::dict({{"layer0", Tree::dict({{"bias", 0}, {"weight", 1}})}});
  Tree metadata_ = Tree::dict({{"version", 1.0}});
  Tree dataset_ = Tree::dict({{"my_data", 2}});

  // checkpointer.save(path / 'composite_checkpoint', ocp.args.Composite(...))
  void save_composite(const Checkpointer& checkpointer) const {
    ASSERT_TRUE(is_ok(checkpointer.save(path_ / "composite_checkpoint",
                                        args::Composite({{"state", args::StandardSave(state_)},
                                                         {"metadata", args::JsonSave(metadata_)},
                                                         {"dataset", args::JsonSave(dataset_)}}))));
  }

  void expect_restores(const Checkpointer& checkpointer) const {
    // Restore all items.
    const auto all = checkpointer.restore<args::Composite>(path_ / "composite_checkpoint");
    ASSERT_TRUE(is_ok(all));
    EXPECT_EQ(all->size(), 3U);
    EXPECT_EQ(*all->get<Tree>("state"), state_);
    EXPECT_EQ(*all->get<Tree>("metadata"), metadata_);
    EXPECT_EQ(*all->get<Tree>("dataset"), dataset_);

    // Restore some items, but not all.
    const auto some = checkpointer.restore(path_ / "composite_checkpoint",
                                           args::Composite({{"state", args::StandardRestore()}}));
    ASSERT_TRUE(is_ok(some));
    EXPECT_EQ(some->size(), 1U);
    EXPECT_EQ(*some->get<Tree>("state"), state_);

    // Restore some items, and specify optional arguments for restoration.
    const auto with_target =
        checkpointer.restore(path_ / "composite_checkpoint",
                             args::Composite({{"state", args::StandardRestore(state_)}}));
    ASSERT_TRUE(is_ok(with_target));
    EXPECT_EQ(*with_target->get<Tree>("state"), state_);
  }
};

TEST_F(WalkThrough, CompositeCheckpointHandler) {
  const CompositeCheckpointHandler handler("state", "metadata", "dataset");
  const Checkpointer checkpointer(handler);
  save_composite(checkpointer);
  expect_restores(checkpointer);
}

TEST_F(WalkThrough, AnotherCheckpointerRestoresTheSameWithoutBeingTold) {
  save_composite(Checkpointer(CompositeCheckpointHandler("state", "metadata", "dataset")));
  expect_restores(Checkpointer());
}

TEST_F(WalkThrough, CheckpointerLayer) {
  // ckptr = ocp.Checkpointer(ocp.JsonCheckpointHandler())
  const Checkpointer json{JsonCheckpointHandler()};
  ASSERT_TRUE(is_ok(json.save(path_ / "json", args::JsonSave(metadata_))));
  EXPECT_EQ(*json.restore(path_ / "json"), metadata_);

  // ckptr = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
  AsyncCheckpointer async{StandardCheckpointHandler()};
  ASSERT_TRUE(is_ok(async.save(path_ / "async", args::StandardSave(state_))));
  ASSERT_TRUE(is_ok(async.wait_until_finished()));
  EXPECT_EQ(*async.restore(path_ / "async"), state_);

  // StandardCheckpointer is short for Checkpointer(StandardCheckpointHandler()).
  const StandardCheckpointer standard;
  ASSERT_TRUE(is_ok(standard.save(path_ / "standard", args::StandardSave(state_))));
  EXPECT_EQ(*standard.restore(path_ / "standard", args::StandardRestore(state_)), state_);
}

// The layer of the manager.
using Steps = std::vector<std::uint64_t>;

// train_step: adds one to every leaf.
Tree train_step(const Tree& state) {
  Tree next = state;
  for (const char* name : {"layer0/bias", "layer0/weight"}) {
    *next.find(name)->get_if<std::int64_t>() += 1;
  }
  return next;
}
Tree layer0(Tree bias, Tree weight) {
  return Tree::dict(
      {{"layer0", Tree::dict({{"bias", std::move(bias)}, {"weight", std::move(weight)}})}});
}
const Tree kTargetState = layer0(0.0, 0.0);  // {'layer0': {'bias': 0.0, 'weight': 0.0}}

void expect_restores_single(CheckpointManager& mngr) {
  // mngr.latest_step(), mngr.all_steps()
  EXPECT_EQ(mngr.latest_step(), 4U);
  EXPECT_EQ(mngr.all_steps(), (Steps{2, 4}));
  // mngr.restore(mngr.latest_step())
  EXPECT_EQ(*mngr.restore(mngr.latest_step()), layer0(5, 6));
  // mngr.restore(mngr.latest_step(), args=ocp.args.StandardRestore(target_state))
  EXPECT_EQ(*mngr.restore(mngr.latest_step(), args::StandardRestore(kTargetState)),
            layer0(5.0, 6.0));
}

void expect_restores_multiple(CheckpointManager& mngr) {
  const Tree state = layer0(5, 6);
  const Tree extra_metadata = Tree::dict({{"version", 1.0}, {"step", 4}});
  EXPECT_EQ(mngr.all_steps(), (Steps{2, 4}));
  // result = mngr.restore(mngr.latest_step()); result.state; result.extra_metadata
  const auto result = mngr.restore(mngr.latest_step(), args::Composite());
  ASSERT_TRUE(is_ok(result));
  EXPECT_EQ(result->size(), 2U);
  EXPECT_EQ(*result->get<Tree>("state"), state);
  EXPECT_EQ(*result->get<Tree>("extra_metadata"), extra_metadata);

  // Skip `state` when restoring: args=ocp.args.Composite(extra_metadata=None)
  const auto skipped = mngr.restore(mngr.latest_step(), args::Composite({{"extra_metadata", {}}}));
  ASSERT_TRUE(is_ok(skipped));
  EXPECT_EQ(skipped->size(), 1U);
  EXPECT_EQ(*skipped->get<Tree>("extra_metadata"), extra_metadata);

  // Restore with additional arguments.
  const auto cast = mngr.restore(
      mngr.latest_step(),
      args::Composite({{"state", args::StandardRestore(kTargetState)}, {"extra_metadata", {}}}));
  ASSERT_TRUE(is_ok(cast));
  EXPECT_EQ(*cast->get<Tree>("state"), layer0(5.0, 6.0));
  EXPECT_EQ(*cast->get<Tree>("extra_metadata"), extra_metadata);
}

constexpr const char* kFreshProcess = "STEPSTONE_WALK_THROUGH_DIRECTORY";

// Does nothing, but in the process that the next test starts.
TEST(WalkThroughAgain, RestoresInAFreshProcess) {
  const char* const directory = std::getenv(kFreshProcess);
  if (directory == nullptr) GTEST_SKIP() << "run by WalkThrough.CheckpointManagerLayer";
  const auto single = CheckpointManager::open(std::filesystem::path(directory) / "single");
  ASSERT_TRUE(is_ok(single));
  expect_restores_single(**single);
  const auto multiple = CheckpointManager::open(std::filesystem::path(directory) / "multiple");
  ASSERT_TRUE(is_ok(multiple));
  expect_restores_multiple(**multiple);
}

TEST_F(WalkThrough, CheckpointManagerLayer) {
  // options = ocp.CheckpointManagerOptions(save_interval_steps=2, max_to_keep=2)
  const CheckpointManagerOptions options{.save_interval_steps = 2, .max_to_keep = 2};
  constexpr std::uint64_t kNumSteps = 5;
  {
    // mngr = ocp.CheckpointManager(directory, options=options)
    const auto mngr = *CheckpointManager::open(path_ / "single", options);
    Tree state = state_;
    Steps saved_steps;
    for (std::uint64_t step = 0; step < kNumSteps; ++step) {
      state = train_step(state);
      const auto saved = mngr->save(step, args::StandardSave(state));
      ASSERT_TRUE(is_ok(saved));
      if (*saved) saved_steps.push_back(step);
    }
    EXPECT_EQ(saved_steps, (Steps{0, 2, 4}));
    ASSERT_TRUE(is_ok(mngr->wait_until_finished()));
    expect_restores_single(*mngr);
  }
  {
    // mngr = ocp.CheckpointManager(directory, options=options, item_names=(...))
    const auto mngr = *CheckpointManager::open(path_ / "multiple", options,
                                               {.item_names = {"state", "extra_metadata"}});
    Tree state = state_;
    Tree extra_metadata = Tree::dict({{"version", 1.0}, {"step", 0}});
    for (std::uint64_t step = 0; step < kNumSteps; ++step) {
      state = train_step(state);
      *extra_metadata.find("step") = Tree(static_cast<std::int64_t>(step));
      ASSERT_TRUE(is_ok(
          mngr->save(step, args::Composite({{"state", args::StandardSave(state)},
                                            {"extra_metadata", args::JsonSave(extra_metadata)}}))));
    }
    ASSERT_TRUE(is_ok(mngr->wait_until_finished()));
    expect_restores_multiple(*mngr);
  }
  const std::string command = std::string(kFreshProcess) + "='" + path_.string() + "' '" +
                              std::filesystem::read_symlink("/proc/self/exe").string() +
                              "' --gtest_filter=WalkThroughAgain.RestoresInAFreshProcess";
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
}  // namespace stepstone
