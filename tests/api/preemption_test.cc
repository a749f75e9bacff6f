#include "api/preemption.h"

#include "api/checkpoint_manager.h"
#include "tests/api/support.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using testing::fails;
using testing::is_ok;

args::StandardSave preempted_save(int step) { return args::StandardSave(Tree(step)); }

volatile std::sig_atomic_t plain_count = 0;
volatile std::sig_atomic_t informed_count = 0;
void count_plain(int /*signal*/) { plain_count = plain_count + 1; }
void count_informed(int /*signal*/, siginfo_t* /*info*/, void* /*context*/) {
  informed_count = informed_count + 1;
}

// Whatever a test does to SIGUSR1 and SIGTERM is undone.
class PreemptionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    sigaction(SIGUSR1, nullptr, &user_action_);
    sigaction(SIGTERM, nullptr, &term_action_);
    plain_count = 0;
    informed_count = 0;
  }
  void TearDown() override {
    sigaction(SIGUSR1, &user_action_, nullptr);
    sigaction(SIGTERM, &term_action_, nullptr);
  }
  static struct sigaction current(int signal) {
    struct sigaction action = {};
    sigaction(signal, nullptr, &action);
    return action;
  }

  struct sigaction user_action_ = {};
  struct sigaction term_action_ = {};
  TemporaryDirectory directory_;
};

TEST_F(PreemptionTest, ASignalIsNoticedAndDoesNotEndTheProcess) {
  const auto preemption = Preemption::on_signals();
  ASSERT_TRUE(is_ok(preemption));
  EXPECT_FALSE((*preemption)->is_requested());
  std::raise(SIGTERM);
  EXPECT_TRUE((*preemption)->is_requested());
  const auto later = Preemption::on_signals();
  EXPECT_FALSE((*later)->is_requested()) << "that was before";
  std::raise(SIGTERM);
  EXPECT_TRUE((*later)->is_requested());
}

TEST_F(PreemptionTest, TheHandlerThatWasThereIsCalledToo) {
  std::signal(SIGUSR1, count_plain);
  struct sigaction informed = {};
  informed.sa_sigaction = count_informed;
  informed.sa_flags = SA_SIGINFO;
  sigaction(SIGTERM, &informed, nullptr);
  const auto preemption = Preemption::on_signals({SIGUSR1, SIGTERM});
  ASSERT_TRUE(is_ok(preemption));
  std::raise(SIGUSR1);
  EXPECT_EQ(plain_count, 1);
  EXPECT_EQ(informed_count, 0);
  std::raise(SIGTERM);
  EXPECT_EQ(informed_count, 1);
  EXPECT_TRUE((*preemption)->is_requested());
}

TEST_F(PreemptionTest, TheLastOnePutsTheHandlerBack) {
  std::signal(SIGUSR1, count_plain);
  {
    auto first = *Preemption::on_signals({SIGUSR1});
    const auto second = *Preemption::on_signals({SIGUSR1});
    first.reset();
    std::raise(SIGUSR1);
    EXPECT_TRUE(second->is_requested());
  }
  EXPECT_EQ(current(SIGUSR1).sa_handler, count_plain);
  std::raise(SIGUSR1);
  EXPECT_EQ(plain_count, 2);
}

TEST_F(PreemptionTest, AHandlerThatSomebodySetSinceIsLeftAlone) {
  std::signal(SIGUSR1, SIG_IGN);
  auto preemption = *Preemption::on_signals({SIGUSR1});
  std::signal(SIGUSR1, count_plain);
  preemption.reset();
  EXPECT_EQ(current(SIGUSR1).sa_handler, count_plain);
}

TEST_F(PreemptionTest, ASignalThatCannotBeHandledIsRefusedAndNothingIsChanged) {
  std::signal(SIGUSR1, count_plain);
  EXPECT_TRUE(
      fails(Preemption::on_signals({SIGUSR1, SIGKILL}), ErrorCode::kInvalidArgument, {"signal 9"}));
  EXPECT_EQ(current(SIGUSR1).sa_handler, count_plain);
  for (const int signal : {0, -1, 1000}) {
    EXPECT_TRUE(fails(Preemption::on_signals({signal}), ErrorCode::kInvalidArgument));
  }
}

TEST_F(PreemptionTest, AManagerSavesNowAndThenTells) {
  const auto preemption = *Preemption::on_signals({SIGTERM});
  const auto path = directory_.path() / "run";
  const auto manager =
      *CheckpointManager::open(path, {.save_interval_steps = 100, .preemption = preemption});
  ASSERT_TRUE(*manager->save(0, preempted_save(0)));
  ASSERT_FALSE(*manager->save(1, preempted_save(1)));
  EXPECT_FALSE(manager->reached_preemption(1));
  std::raise(SIGTERM);
  EXPECT_FALSE(manager->reached_preemption(1)) << "step 1 was not saved: one more";
  EXPECT_TRUE(manager->should_save(2));
  ASSERT_TRUE(*manager->save(2, preempted_save(2)));
  EXPECT_FALSE(manager->is_saving_in_progress()) << "it was waited for";
  EXPECT_TRUE(manager->reached_preemption(2));
  EXPECT_EQ(manager->all_steps(), (std::vector<std::uint64_t>{0, 2}));
  // Who cannot save need not wait for it.
  EXPECT_TRUE((*CheckpointManager::open(path, {.read_only = true, .preemption = preemption}))
                  ->reached_preemption(2));
}

TEST_F(PreemptionTest, ACallIsANoticeToo) {
  const auto manager =
      *CheckpointManager::open(directory_.path() / "run", {.save_interval_steps = 100});
  ASSERT_TRUE(*manager->save(0, preempted_save(0)));
  manager->request_preemption();
  {
    const testing::FileSizeLimit limit(1 << 20);
    EXPECT_TRUE(fails(manager->save(1, args::StandardSave(testing::new_bytes(4 << 20))),
                      ErrorCode::kNoSpace, {"step 1"}))
        << "said at once";
  }
  EXPECT_TRUE(manager->reached_preemption(1)) << "it had the occasion";
  EXPECT_TRUE(is_ok(manager->close())) << "the error was seen";
}

// A policy that does not care for it is not asked to save, but the trainer is told.
TEST_F(PreemptionTest, APolicyOfOnesOwnDecidesAlone) {
  const auto manager = *CheckpointManager::open(
      directory_.path() / "run",
      {.save_decision_policy = std::make_shared<FixedIntervalPolicy>(100)});
  manager->request_preemption();
  EXPECT_FALSE(*manager->save(1, preempted_save(1)));
  EXPECT_TRUE(manager->reached_preemption(1));
}

}  // namespace
}  // namespace stepstone
