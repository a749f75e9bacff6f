#pragma once
// A run's checkpoints: saves in the background, keeps the newest, brings them back.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "args.h"
#include "statistics.h"
#include "storage_options.h"

namespace stepstone {

struct CheckpointManagerOptions {
  std::uint64_t save_interval_steps = 1;  // save() acts on multiples of this. Not 0.
  std::optional<std::uint64_t>
      max_to_keep;         // The newest so many survive each save; nullopt: all. Not 0.
  bool create = true;      // Create the directory if it is missing.
  bool read_only = false;  // save() and delete_step() fail with kReadOnly.
  bool enable_async_checkpointing = true;  // false: save() returns when the step is durable.

  StorageOptions storage;

  // How many bytes the saves in the background may hold together: the leaves of each, copied or
  // referred to, from save() until its step is durable. A save that does not fit waits until it
  // does, or until it is alone. 0: one save at a time, and so at most one copy of the state.
  std::uint64_t async_queue_size_bytes = 0;
  // So much memory for copies is obtained, and its pages too, by open() instead of the first save.
  // As large as the borrowed arrays of a save (of all saves in the queue), it makes the first save
  // stall no longer than the others.
  std::uint64_t staging_reserve_bytes = 0;

  // Called once for each save that succeeded, when its step is durable, and for each restore that
  // did: by the thread that finished it, which for an asynchronous save is the manager's own. One
  // call of on_save at a time; those of on_restore may overlap. Waiting for a save waits for its
  // callback too, so that a callback must not wait for one: of this manager, it may call only the
  // methods that are const, and check_for_errors(). An exception that it throws is dropped.
  std::function<void(const SaveStatistics& statistics)> on_save = nullptr;
  std::function<void(const RestoreStatistics& statistics)> on_restore = nullptr;
};

// Works on a store directory. May be used from several threads.
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
    bool force = false;           // Save whatever the interval says.
    std::string metrics;          // JSON text, or empty.
    std::string custom_metadata;  // JSON text, or empty.
  };

  // kInvalidArgument: an option is impossible, or the directory is something else. kNotFound: it is
  // not there, and options.create is false or options.read_only is set. kBusy: another process
  // writes to it. kCorrupt: see Store::open in engine/store.h. kLimit: no memory, not for
  // options.staging_reserve_bytes either. kIo, kNoSpace, kPermissionDenied, kReadOnly.
  static Result<std::unique_ptr<CheckpointManager>> open(
      const std::filesystem::path& directory, const CheckpointManagerOptions& options = {});
  // Closes; a background error that nobody has seen is written to standard error.
  ~CheckpointManager();
  CheckpointManager(const CheckpointManager&) = delete;
  CheckpointManager& operator=(const CheckpointManager&) = delete;

  // Begins to save `args` as `step` and returns true, or false if the interval says no. Borrowed
  // arrays are copied before this returns (after a wait for room in the queue, all that the trainer
  // waits for); owned arrays are only referred to, and let go, perhaps by the manager's thread,
  // when the save has ended. The step exists, durably, once wait_until_finished() says so. Any
  // error below is found before anything is queued. kAlreadyExists: the step is there, or on its
  // way. kInvalidArgument, kLimit: the tree cannot be saved, and the message names the leaf; or
  // there is no memory. kClosed, kReadOnly. Or the error of an earlier save, which the message
  // names; then this one has not begun.
  Result<bool> save(std::uint64_t step, const args::StandardSave& args, const SaveOptions& options);
  Result<bool> save(std::uint64_t step, const args::StandardSave& args) {
    return save(step, args, SaveOptions{});
  }

  // Whether save() would act on `step`: it is a multiple of the interval, or there is no step yet
  // and none on its way.
  bool should_save(std::uint64_t step) const;

  // Waits for all saves in the background. The error of the first that failed, once: its step does
  // not exist then.
  Result<void> wait_until_finished();
  // The same without waiting: the error of a save that has failed, once.
  Result<void> check_for_errors();
  bool is_saving_in_progress() const;

  // `step` nullopt: the newest. kNotFound, kMismatch, kCorrupt, kIo, kClosed. Waits for the saves
  // in the background first.
  Result<Tree> restore(std::optional<std::uint64_t> step, const args::StandardRestore& args = {});

  // Of the steps that are durable; saves in the background are not among them.
  std::optional<std::uint64_t> latest_step() const;
  std::vector<std::uint64_t> all_steps() const;  // Ascending.

  // Of the newest save, or restore, that succeeded; nullopt: there was none.
  std::optional<SaveStatistics> last_save_statistics() const;
  std::optional<RestoreStatistics> last_restore_statistics() const;

  // kNotFound, kReadOnly, kClosed. Waits for the saves in the background first.
  Result<void> delete_step(std::uint64_t step);

  const std::filesystem::path& directory() const;

  // Waits for the saves in the background; then closes the store, and gives back the memory.
  // Returns the error of a save that nobody has seen. Idempotent. kBusy: a restore is running in
  // another thread; the manager stays open.
  Result<void> close();

 private:
  class Impl;
  explicit CheckpointManager(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace stepstone
