#pragma once
// A run's checkpoints: saves in the background, keeps the newest, brings them back.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "args.h"

namespace stepstone {

struct CheckpointManagerOptions {
  std::uint64_t save_interval_steps = 1;  // save() acts on multiples of this. Not 0.
  std::optional<std::uint64_t>
      max_to_keep;         // The newest so many survive each save; nullopt: all. Not 0.
  bool create = true;      // Create the directory if it is missing.
  bool read_only = false;  // save() and delete_step() fail with kReadOnly.
  bool enable_async_checkpointing = true;  // false: save() returns when the step is durable.
};

// Works on a store directory. May be used from several threads.
class CheckpointManager {
 public:
  struct SaveOptions {
    bool force = false;           // Save whatever the interval says.
    std::string metrics;          // JSON text, or empty.
    std::string custom_metadata;  // JSON text, or empty.
  };

  // kInvalidArgument: an option is impossible, or the directory is something else. kNotFound: it is
  // not there, and options.create is false or options.read_only is set. kBusy: another process
  // writes to it. kCorrupt: see Store::open in engine/store.h. kIo, kNoSpace, kPermissionDenied,
  // kReadOnly.
  static Result<std::unique_ptr<CheckpointManager>> open(
      const std::filesystem::path& directory, const CheckpointManagerOptions& options = {});
  // Closes; a background error that nobody has seen is written to standard error.
  ~CheckpointManager();
  CheckpointManager(const CheckpointManager&) = delete;
  CheckpointManager& operator=(const CheckpointManager&) = delete;

  // Begins to save `args` as `step` and returns true, or false if the interval says no. Waits for
  // an earlier save first, and returns its error if it failed and nobody has seen it. Borrowed
  // arrays are copied before this returns (all that the trainer waits for); owned arrays are only
  // referred to. The step exists, durably, once wait_until_finished() (or the next save) says so.
  // kAlreadyExists: the step is there. kInvalidArgument, kLimit: the tree cannot be saved; the
  // message names the leaf. kClosed, kReadOnly.
  Result<bool> save(std::uint64_t step, const args::StandardSave& args, const SaveOptions& options);
  Result<bool> save(std::uint64_t step, const args::StandardSave& args) {
    return save(step, args, SaveOptions{});
  }

  // Whether save() would act on `step`: it is a multiple of the interval, or there is no step yet.
  bool should_save(std::uint64_t step) const;

  // Waits for the save in the background. Its error, once, if it failed: the step does not exist
  // then.
  Result<void> wait_until_finished();
  // The same without waiting: the error of a save that has ended, once.
  Result<void> check_for_errors();
  bool is_saving_in_progress() const;

  // `step` nullopt: the newest. kNotFound, kMismatch, kCorrupt, kIo, kClosed. Waits for a save
  // first.
  Result<Tree> restore(std::optional<std::uint64_t> step, const args::StandardRestore& args = {});

  // Of the steps that are durable; a save in the background is not among them.
  std::optional<std::uint64_t> latest_step() const;
  std::vector<std::uint64_t> all_steps() const;  // Ascending.

  // kNotFound, kReadOnly, kClosed. Waits for a save first.
  Result<void> delete_step(std::uint64_t step);

  const std::filesystem::path& directory() const;

  // Waits for the save in the background and returns its error; then closes the store. Idempotent.
  // kBusy: a restore is running in another thread; the manager stays open.
  Result<void> close();

 private:
  class Impl;
  explicit CheckpointManager(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace stepstone
