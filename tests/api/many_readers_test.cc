// One writer and eight readers on one run, while steps are retired and collected: whatever a reader
// sees is one whole committed step. Meant for the race detector, and quick without it.
#include <algorithm>
#include <atomic>
#include <thread>

#include "api/checkpoint_manager.h"
#include "api/follow.h"
#include "tests/api/support.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using testing::is_ok;

constexpr int kReaderCount = 8;
constexpr int kReadCount = 1125;  // Of each reader.
constexpr std::uint64_t kSaveCountMin = 1000;
// Every so many saves are large enough to have files of their own.
constexpr std::uint64_t kLargeInterval = 8;

// All of its leaves say which step it is.
Tree read_tree(std::uint64_t step) {
  const auto number = static_cast<std::int64_t>(step);
  const std::size_t size = step % kLargeInterval == 0 ? 64 << 10 : 16;
  return Tree::dict({{"step", number},
                     {"w", testing::array_of(std::vector<std::int64_t>(size, number))},
                     {"again", number}});
}

bool is_whole(const Tree& tree) {
  const Tree* const step = tree.find("step");
  const auto* const number = step == nullptr ? nullptr : step->get_if<std::int64_t>();
  return number != nullptr && tree == read_tree(static_cast<std::uint64_t>(*number));
}

class Readers {
 public:
  explicit Readers(std::filesystem::path path, CheckpointManager& writer)
      : path_(std::move(path)), writer_(writer) {}

  // Each reader in its own way.
  void read(int reader) {
    testing::Random random(static_cast<std::uint64_t>(reader));
    auto own = reader % 2 == 0 ? CheckpointManager::open(path_, {.read_only = true})
                               : Result<std::unique_ptr<CheckpointManager>>(nullptr);
    if (!own) {
      ++failure_count;
      return;
    }
    CheckpointManager& manager = *own == nullptr ? writer_ : **own;
    for (int i = 0; i < kReadCount; ++i) {
      if (*own != nullptr && random.one_in(4)) expect(is_ok(manager.reload()));
      const std::vector<std::uint64_t> steps = manager.all_steps();
      expect(std::is_sorted(steps.begin(), steps.end()));
      if (steps.empty()) {
        // As a read-only manager sees it: what it knew has gone.
        expect(*own != nullptr && is_ok(manager.reload()));
        continue;
      }
      const std::uint64_t step = random.one_of(steps);
      if (random.one_in(8)) {
        expect_metadata(manager.metadata(step), step);
      } else if (random.one_in(4)) {
        hold(manager, step);
      } else if (*own != nullptr) {
        // The writer's own restore waits for its saves.
        expect_tree(manager.restore(step), step);
      } else {
        expect(manager.latest_step() >= step || manager.latest_step().has_value());
        expect_metrics(manager.metrics(step), step);
      }
    }
  }

  std::atomic<int> failure_count = 0;
  std::atomic<int> read_count = 0;

 private:
  void expect(bool is_right) {
    if (!is_right) ++failure_count;
  }
  // The step may have been retired meanwhile; half of it may never be seen.
  template <typename T>
  bool is_gone(const Result<T>& result) {
    if (result) return false;
    expect(result.error().code == ErrorCode::kNotFound);
    return true;
  }
  void expect_tree(const Result<Tree>& tree, std::uint64_t step) {
    if (is_gone(tree)) return;
    ++read_count;
    expect(is_whole(*tree) && *tree == read_tree(step));
  }
  void expect_metadata(const Result<StepMetadata>& metadata, std::uint64_t step) {
    if (is_gone(metadata)) return;
    expect(metadata->step == step && metadata->items.size() == 1 &&
           metadata->metrics == Tree(static_cast<std::int64_t>(step)));
  }
  void expect_metrics(const Result<std::optional<Tree>>& metrics, std::uint64_t step) {
    if (is_gone(metrics)) return;
    expect(!*metrics || *metrics == Tree(static_cast<std::int64_t>(step)));
  }
  void hold(CheckpointManager& manager, std::uint64_t step) {
    const auto held = manager.hold(step);
    if (is_gone(held)) return;
    const auto first = held->restore();
    std::this_thread::yield();
    // Retired or not, it is still there.
    const auto second = held->restore();
    expect(first && second && *first == read_tree(step) && *second == *first);
    ++read_count;
  }

  const std::filesystem::path path_;
  CheckpointManager& writer_;
};

TEST(ManyReaders, EveryReadIsOneWholeCommittedStep) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "run";
  const auto writer = CheckpointManager::open(
      path, {.max_to_keep = 3, .async_queue_size_bytes = 4 << 20, .keep_period = 64});
  ASSERT_TRUE(is_ok(writer));
  ASSERT_TRUE(*(*writer)->save(0, args::StandardSave(read_tree(0)), {.metrics = Tree(0)}));
  ASSERT_TRUE(is_ok((*writer)->wait_until_finished()));
  Readers readers(path, **writer);
  std::atomic<int> reading_count = kReaderCount;
  std::vector<std::thread> threads;
  threads.reserve(kReaderCount);
  for (int reader = 0; reader < kReaderCount; ++reader) {
    threads.emplace_back([&, reader] {
      readers.read(reader);
      --reading_count;
    });
  }
  std::uint64_t step = 1;
  for (; reading_count != 0 || step <= kSaveCountMin; ++step) {
    const auto saved = (*writer)->save(step, args::StandardSave(read_tree(step)),
                                       {.metrics = Tree(static_cast<std::int64_t>(step))});
    if (!saved || !*saved) ++readers.failure_count;
    // Now and then one goes that no policy would let go.
    if (step % 128 == 65 && !(*writer)->delete_step(step - 1)) ++readers.failure_count;
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(readers.failure_count, 0);
  EXPECT_GT(readers.read_count, kReadCount);
  ASSERT_TRUE(is_ok((*writer)->wait_until_finished()));
  EXPECT_LE((*writer)->all_steps().size(), 3 + step / 64);
  EXPECT_TRUE(is_whole(*(*writer)->restore(std::nullopt)));
}

}  // namespace
}  // namespace stepstone
