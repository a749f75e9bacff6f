#pragma once
// For objects whose own library insists on writing files.

#include <filesystem>
#include <memory>
#include <utility>

#include "checkpoint_handler.h"

namespace stepstone {

// A directory of its own, which is removed at the end with all that is in it.
class ScratchDirectory {
 public:
  // In `parent`, or where the system has temporary files. kIo, kNoSpace, kPermissionDenied.
  static Result<std::unique_ptr<ScratchDirectory>> create(const std::filesystem::path& parent);
  ~ScratchDirectory();
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }

  // The files as a tree: a dict for each directory, an array of uint8 for each file. The arrays map
  // the files, and stay valid when the directory is gone; nobody may write to the files any more.
  // kInvalidArgument: something in it is neither a file nor a directory (a link). kIo.
  Result<Tree> read() const;
  // The inverse, into an empty directory. kCorrupt: `tree` is not such a tree, or has names that
  // would lead out of the directory. kIo, kNoSpace.
  Result<void> write(const Tree& tree) const;

 private:
  explicit ScratchDirectory(std::filesystem::path path) : path_(std::move(path)) {}

  std::filesystem::path path_;
};

// Gives the files that save_files() writes into a scratch directory to the checkpoint, as its
// leaves, and restore_files() the same files again, in another directory. Both directories are
// removed when the call has returned. For the rest, a handler like any other.
template <typename Save, typename Restore>
class FileCheckpointHandler : public CheckpointHandler<Save, Restore> {
 public:
  // Scratch directories are made in `scratch_parent`, or where the system has temporary files.
  explicit FileCheckpointHandler(std::filesystem::path scratch_parent = {})
      : scratch_parent_(std::move(scratch_parent)) {}

  virtual Result<void> save_files(const Save& args,
                                  const std::filesystem::path& directory) const = 0;
  virtual Result<typename Restore::Restored> restore_files(
      const Restore& args, const std::filesystem::path& directory) const = 0;

  Result<void> save(const Save& args, ItemWriter& item) const final {
    const auto scratch = STEPSTONE_TRY(ScratchDirectory::create(scratch_parent_));
    STEPSTONE_TRY(save_files(args, scratch->path()));
    return item.write(STEPSTONE_TRY(scratch->read()));
  }
  Result<typename Restore::Restored> restore(const Restore& args,
                                             const ItemReader& item) const final {
    const auto scratch = STEPSTONE_TRY(ScratchDirectory::create(scratch_parent_));
    STEPSTONE_TRY(scratch->write(STEPSTONE_TRY(item.read())));
    return restore_files(args, scratch->path());
  }

 private:
  std::filesystem::path scratch_parent_;
};

}  // namespace stepstone
