#pragma once
// The save of one checkpoint to one path: begun while the caller waits, finished on any thread.

#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>

#include "api/checkpoint_plan.h"
#include "api/checkpointer.h"
#include "api/shared_store.h"
#include "engine/store.h"

namespace stepstone {

class CheckpointSave {
 public:
  // Checks all there is to check, also what is at the path. `file_system`: see OpenOptions. Errors
  // as of Checkpointer::save.
  static Result<std::unique_ptr<CheckpointSave>> begin(
      const std::filesystem::path& path, const args::CheckpointArgs& args,
      const HandlerRegistry& registry, const CheckpointOptions& options,
      std::shared_ptr<rocksdb::FileSystem> file_system = nullptr);

  // Copies what is borrowed.
  Result<void> stage();
  // Writes, commits and, whatever became of that, lets go of the store. To be called once.
  Result<void> finish();
  // From any thread, also while another is in finish(): the path is to hold what it held before.
  // False: it is too late, or finish() has failed already.
  bool cancel();

 private:
  CheckpointSave(std::filesystem::path path, CheckpointPlan plan)
      : path_(std::move(path)), plan_(std::move(plan)) {}

  // What the path leads to, opened; and checked.
  Result<void> open_store(bool force, std::shared_ptr<rocksdb::FileSystem> file_system);
  Result<void> check_file(bool force,
                          const std::shared_ptr<rocksdb::FileSystem>& file_system) const;
  Result<void> commit();

  std::filesystem::path path_;
  CheckpointPlan plan_;
  StagingPool staging_;
  std::optional<SharedStore> store_;  // nullopt: the save is into a portable file.
  std::mutex writer_mutex_;  // Held where writer_ is let go, and by who is not in finish().
  std::unique_ptr<StepWriter> writer_;
};

}  // namespace stepstone
