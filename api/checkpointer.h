#pragma once
// One checkpoint at one path.

#include <filesystem>

#include "args.h"
#include "storage_options.h"

namespace stepstone {

// Saves and restores a single checkpoint at a path; for a series of them, see CheckpointManager.
// The path is a store directory with one step; every call opens it and closes it again, so that the
// object holds nothing and may be used from any thread.
class Checkpointer {
 public:
  struct SaveOptions {
    bool force = false;  // Replace what is there, atomically: the old checkpoint survives any crash
                         // before the new one is durable.
    StorageOptions storage;
  };

  // When it returns OK, the checkpoint survives power loss; until then the path holds what it held.
  // kAlreadyExists: a checkpoint is there and options.force is not set. kInvalidArgument: the path
  // holds something else, or `args` has leaves that cannot be saved (an AbstractArray). kLimit,
  // kBusy, kIo, kNoSpace, kPermissionDenied, kReadOnly.
  Result<void> save(const std::filesystem::path& path, const args::StandardSave& args,
                    const SaveOptions& options) const;
  Result<void> save(const std::filesystem::path& path, const args::StandardSave& args) const {
    return save(path, args, SaveOptions{});
  }

  // kNotFound: no checkpoint there. kInvalidArgument: the path holds a run of steps, or something
  // else. kMismatch: it does not fit the target. kCorrupt, kIo.
  Result<Tree> restore(const std::filesystem::path& path,
                       const args::StandardRestore& args = {}) const;
};

}  // namespace stepstone
