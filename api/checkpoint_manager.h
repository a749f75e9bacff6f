#pragma once
// A run's checkpoints: saves in the background, keeps what policies say, brings them back.

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "args.h"
#include "checkpoint_manager_options.h"
#include "held_step.h"
#include "item_metadata.h"
#include "statistics.h"

namespace stepstone {

struct RootMetadata {
  std::optional<Tree> custom_metadata;
};

// Works on a store directory, which may hold other files of the run as well. May be used from
// several threads, and by several managers on one directory in one process, which share its open
// store: each sees the steps of the others. Other processes may open it read-only meanwhile. A
// manager that is read-only shows the steps that were there when it was opened or last reloaded,
// and are still there as far as it knows.
//
// Asynchronous saves are written by one thread of the manager, in the order in which they were
// begun. Memory for copies is kept for the next save, until the manager is closed. A save that
// fails in the background does not stop those behind it: each of them succeeds or fails by itself,
// and the steps to keep are chosen when one succeeds. The first error is kept, and how many more
// saves failed after it, until a call returns it: save() (which then does nothing else),
// wait_until_finished(), check_for_errors() or close(). It is returned once.
class CheckpointManager {
 public:
  struct SaveOptions {
    bool force = false;             // Save whatever the policy says; also a step before the newest.
    JsonText metrics = {};          // What best_fn and policies rank by.
    JsonText custom_metadata = {};  // A JSON dict.
    bool overwrite = false;         // Replace the step if it is there, atomically.
  };

  // kInvalidArgument: an option is impossible, or two that do not go together were given, or the
  // directory is something else. kNotFound: it is not there, and options.create is false or
  // options.read_only is set. kBusy: another process writes to it. kCorrupt: see Store::open in
  // engine/store.h. kLimit: no memory, not for options.staging_reserve_bytes either; or the run's
  // metadata is too large. kIo, kNoSpace, kPermissionDenied, kReadOnly.
  static Result<std::unique_ptr<CheckpointManager>> open(
      const std::filesystem::path& directory, const CheckpointManagerOptions& options = {},
      const ManagerItems& items = {});
  // Closes; a background error that nobody has seen is written to standard error.
  ~CheckpointManager();
  CheckpointManager(const CheckpointManager&) = delete;
  CheckpointManager& operator=(const CheckpointManager&) = delete;

  // Begins to save `args` (an args::Composite of named items, or the arguments of the one object)
  // as `step` and returns true, or false if the policy says no. Borrowed arrays are copied before
  // this returns (after a wait for room in the queue, all that the trainer waits for); owned arrays
  // are only referred to, and let go, perhaps by the manager's thread, when the save has ended. The
  // step exists, durably, once wait_until_finished() says so; when the process is about to be
  // ended, it is waited for right away. Any error below is found before anything is queued, and
  // changes nothing. kAlreadyExists: the step is there or on its way, and options.overwrite is not
  // set. kInvalidArgument, kLimit: the step is over limits::kStepMax, or there are no args, or what
  // they hold cannot be saved (the message names the leaf), or they are of the other kind than the
  // manager's; or there is no memory. kBusy: a wait for earlier saves timed out. kClosed,
  // kReadOnly. Or the error of an earlier save, which the message names; then this one has not
  // begun.
  Result<bool> save(std::uint64_t step, const args::CheckpointArgs& args,
                    const SaveOptions& options);
  Result<bool> save(std::uint64_t step, const args::CheckpointArgs& args) {
    return save(step, args, SaveOptions{});
  }

  // Whether the policy would let save() act on `step`. Does not ask whether the step is there.
  bool should_save(std::uint64_t step) const;

  // Waits for all saves in the background. The error of the first that failed, once: its step does
  // not exist then. kBusy: the wait timed out.
  Result<void> wait_until_finished();
  // With another timeout than the options say.
  Result<void> wait_until_finished(std::chrono::nanoseconds timeout);
  // The same without waiting: the error of a save that has failed, once.
  Result<void> check_for_errors();
  bool is_saving_in_progress() const;
  // Of the saves in the background, in the order in which they become durable; the first may be
  // durable already.
  std::vector<CheckpointInfo> saves_in_progress() const;

  // `step` nullopt: the newest. With args::Composite, the items that it names (with the arguments
  // that it has for each, or as they were saved), or all, where it is empty; with the arguments of
  // one object, that. kNotFound: no such step or item. kInvalidArgument: the step is of the other
  // kind. kMismatch, kUnsupported, kCorrupt, kIo, kClosed; kBusy: the wait timed out. Waits for the
  // saves in the background first.
  template <typename Restore>
  Result<typename Restore::Restored> restore(std::optional<std::uint64_t> step,
                                             const Restore& args) {
    return STEPSTONE_TRY(restore_any(step, args)).template get<typename Restore::Restored>();
  }
  // The one object, as it was saved.
  Result<Tree> restore(std::optional<std::uint64_t> step) {
    return STEPSTONE_TRY(restore_any(step, {})).get<Tree>();
  }
  // Where the type is not known before: an args::Composite for named items.
  Result<AnyValue> restore_any(std::optional<std::uint64_t> step, const args::CheckpointArgs& args);

  // The step stays readable through what is returned, even when it is retired or overwritten
  // meanwhile. kNotFound, kClosed; kBusy: the wait for saves timed out.
  Result<HeldStep> hold(std::optional<std::uint64_t> step);
  // The same without waiting: of the steps that are durable now.
  Result<HeldStep> hold_committed(std::optional<std::uint64_t> step);

  // Of the steps that are durable; saves in the background are not among them.
  std::optional<std::uint64_t> latest_step() const;
  // The one that best_fn ranks first; without best_fn, or where no step has such metrics, the
  // newest.
  std::optional<std::uint64_t> best_step() const;
  std::vector<std::uint64_t> all_steps() const;  // Ascending.
  std::string step_name(std::uint64_t step) const;

  // Reads no arrays. kNotFound, kCorrupt, kIo, kClosed.
  Result<StepMetadata> metadata(std::uint64_t step) const;
  Result<RootMetadata> metadata() const;  // kClosed.
  // By name; the one object is "default".
  Result<std::vector<std::pair<std::string, ItemMetadata>>> item_metadata(std::uint64_t step) const;
  // nullopt: it was saved without. kNotFound, kClosed.
  Result<std::optional<Tree>> metrics(std::uint64_t step) const;

  // Shows what other processes have committed: only a read-only manager needs it. kClosed, and as
  // open(); what was shown before stays then.
  Result<void> reload();

  // Whatever a policy says. kNotFound, kReadOnly, kClosed; kBusy: the wait for saves timed out.
  // Waits for the saves in the background first.
  Result<void> delete_step(std::uint64_t step);

  // The process is about to be ended: the same as options.preemption->request().
  void request_preemption();
  // Whether the trainer should end: there was a notice, and since then a save() has had the
  // occasion to save (by default every one does). To be asked after save(step).
  bool reached_preemption(std::uint64_t step) const;

  // Of the newest save, or restore, that succeeded; nullopt: there was none.
  std::optional<SaveStatistics> last_save_statistics() const;
  std::optional<RestoreStatistics> last_restore_statistics() const;

  const std::filesystem::path& directory() const;

  // Waits for the saves in the background; then gives back the memory and its share in the store,
  // which is closed with the last share of the process: a HeldStep has one of its own, stays
  // readable, and keeps the store open until it goes. Returns the error of a save that nobody has
  // seen. Idempotent. kBusy: this is the last share, and a restore is running in another thread, or
  // the wait timed out; the manager stays open.
  Result<void> close();

 private:
  class Impl;
  explicit CheckpointManager(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace stepstone
