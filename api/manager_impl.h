#pragma once
// The inside of a CheckpointManager. The calling thread plans a save, waits for room, copies what
// is borrowed, and appends the save to the queue, whose thread writes and commits it.
//
// `call_mutex_` lets one call at a time start, await or close; `state_mutex_` guards the share in
// the store, which close() and reload() change under those who ask for steps, and what callers
// share with the queue's thread. It is never held for long, and never while taking `call_mutex_`.

#include <atomic>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "api/checkpoint_history.h"
#include "api/checkpoint_manager.h"
#include "api/checkpoint_plan.h"
#include "api/manager_options.h"
#include "api/save_queue.h"
#include "api/shared_store.h"
#include "engine/staging_pool.h"

namespace stepstone {

class CheckpointManager::Impl {
 public:
  Impl(std::filesystem::path directory, SharedStore store, ManagerSetup setup);

  // What open() does besides: memory, and the run's metadata.
  Result<void> prepare();

  // manager_save.cc
  Result<bool> save(std::uint64_t step, const args::CheckpointArgs& args,
                    const SaveOptions& options);
  bool should_save(std::uint64_t step);

  Result<void> wait_until_finished() { return wait_until_finished(options_.async_options.timeout); }
  Result<void> wait_until_finished(SaveQueue::Timeout timeout);
  Result<void> check_for_errors() { return queue_.take_error(); }
  bool is_saving_in_progress() const { return !queue_.is_empty(); }
  std::vector<CheckpointInfo> saves_in_progress() const { return queue_.saves(); }

  Result<AnyValue> restore(std::optional<std::uint64_t> step, const args::CheckpointArgs& args);
  Result<HeldStep> hold(std::optional<std::uint64_t> step) {
    return hold(STEPSTONE_TRY(read_step(step)));
  }
  Result<HeldStep> hold_committed(std::optional<std::uint64_t> step) {
    return hold(STEPSTONE_TRY(read_committed(step)));
  }

  std::vector<std::uint64_t> all_steps() const;
  std::optional<std::uint64_t> best_step();
  std::string step_name(std::uint64_t step) const { return setup_.step_names->build_name(step); }

  Result<StepMetadata> metadata(std::uint64_t step);
  Result<RootMetadata> metadata();
  Result<std::optional<Tree>> metrics(std::uint64_t step);

  Result<void> reload();
  Result<void> delete_step(std::uint64_t step);
  void request_preemption() { options_.preemption->request(); }
  bool reached_preemption() const;

  std::optional<SaveStatistics> last_save_statistics() const;
  std::optional<RestoreStatistics> last_restore_statistics() const;
  const std::filesystem::path& directory() const { return directory_; }
  Result<void> close();

 private:
  enum class ItemMode : std::uint8_t { kUndecided, kSingle, kMultiple };
  // A save on its way from save() to its commit.
  struct Save;

  // With call_mutex_ held.
  Result<bool> save_now(std::uint64_t step, const args::CheckpointArgs& args,
                        const SaveOptions& options, bool is_preempted);
  Result<std::shared_ptr<Save>> begin_save(std::uint64_t step, const args::CheckpointArgs& args,
                                           const SaveOptions& options);
  Result<void> enqueue(const std::shared_ptr<Save>& save);
  Result<bool> decide(std::uint64_t step);
  Result<void> check_open() const;
  Result<void> check_items(const std::string& what, const args::CheckpointArgs& args) const;
  Result<std::shared_ptr<const StepReader>> read_step(std::optional<std::uint64_t> step);
  Result<std::shared_ptr<const StepReader>> read_committed(std::optional<std::uint64_t> step);
  Result<HeldStep> hold(std::shared_ptr<const StepReader> reader);
  // Before anything can fail that would leave it decided.
  void settle_mode(bool is_composite);

  // On the thread that commits.
  Result<void> finish(Save& save);
  Result<void> commit(Save& save);
  Result<std::vector<std::uint64_t>> choose_retired(const CheckpointInfo& saved);
  template <typename Statistics>
  void report(const Statistics& statistics,
              const std::function<void(const Statistics& statistics)>& callback,
              std::optional<Statistics>& last);

  const std::filesystem::path directory_;
  const ManagerSetup setup_;
  const CheckpointManagerOptions& options_ = setup_.options;
  CheckpointHistory history_;
  StagingPool staging_;
  std::mutex call_mutex_;
  std::atomic<ItemMode> item_mode_ = ItemMode::kUndecided;
  std::atomic<bool> has_told_policy_of_preemption_ = false;

  mutable std::mutex state_mutex_;  // Guards what follows.
  SharedStore store_;
  std::vector<std::uint64_t> shown_steps_;  // Of a read-only manager.
  std::optional<SaveStatistics> last_save_;
  std::optional<RestoreStatistics> last_restore_;

  SaveQueue queue_;  // Its thread uses all of the above.
};

}  // namespace stepstone
