#pragma once
// Following a run from an evaluator: in the trainer's process or in another one, while the trainer
// goes on saving and retiring.

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "held_step.h"

namespace stepstone {

class SharedStore;

struct FollowOptions {
  std::chrono::nanoseconds poll_interval = std::chrono::seconds(1);
  // How long to wait for each checkpoint; nullopt: for ever.
  std::optional<std::chrono::nanoseconds> timeout = std::nullopt;
  // Asked when that time is over: whether to give up. Null: yes.
  std::function<bool()> timeout_fn = nullptr;
  // Of CheckpointsIterator: not more often than this.
  std::chrono::nanoseconds min_interval = std::chrono::nanoseconds::zero();
  HandlerRegistry registry = HandlerRegistry::defaults();
  // How to wait and what time it is; null: the thread sleeps, by the clock on the wall.
  std::function<void(std::chrono::nanoseconds duration)> sleep = nullptr;
  std::function<std::chrono::steady_clock::time_point()> clock = nullptr;
};

// One checkpoint after the other, the newest each time: those between are skipped. For one thread
// at a time.
class CheckpointsIterator {
 public:
  // The directory need not be there yet.
  explicit CheckpointsIterator(std::filesystem::path directory, FollowOptions options = {});
  ~CheckpointsIterator();
  CheckpointsIterator(const CheckpointsIterator&) = delete;
  CheckpointsIterator& operator=(const CheckpointsIterator&) = delete;

  // Waits for a step that is higher than the last one returned. It can be read for as long as what
  // is returned lives; let go of it when the evaluation is done. nullopt: the wait was given up;
  // the next call waits again. Errors as of CheckpointManager::open, but for kNotFound.
  Result<std::optional<HeldStep>> next();

 private:
  friend Result<std::optional<HeldStep>> wait_for_new_checkpoint(
      const std::filesystem::path& directory, std::optional<std::uint64_t> until_step,
      const FollowOptions& options);

  Result<std::optional<HeldStep>> wait(std::uint64_t lowest_step);
  Result<std::optional<HeldStep>> hold_newest(std::uint64_t lowest_step);

  const std::filesystem::path directory_;
  const FollowOptions options_;
  std::unique_ptr<SharedStore> store_;  // Kept from poll to poll where it is open read-only.
  std::uint64_t lowest_step_ = 0;
  std::optional<std::chrono::steady_clock::time_point> returned_at_;
};

// Waits for a step that is at least `until_step` (nullopt: for any), and returns the newest.
// Otherwise as CheckpointsIterator::next.
Result<std::optional<HeldStep>> wait_for_new_checkpoint(
    const std::filesystem::path& directory, std::optional<std::uint64_t> until_step = std::nullopt,
    const FollowOptions& options = {});

}  // namespace stepstone
