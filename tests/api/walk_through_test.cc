// The layers of handlers and checkpointers as Orbax's overview walks through them, cell by cell:
// the same calls, with the same results.
#include "api/async_checkpointer.h"
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

}  // namespace
}  // namespace stepstone
