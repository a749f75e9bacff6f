#pragma once
// The save of one checkpoint to one path: begun while the caller waits, finished on any thread.

#include <filesystem>
#include <memory>
#include <optional>

#include "api/checkpoint_plan.h"
#include "api/checkpointer.h"
#include "engine/store.h"

namespace stepstone {

class CheckpointSave {
 public:
  // Checks all there is to check, also what is at the path. Errors as of Checkpointer::save.
  static Result<std::unique_ptr<CheckpointSave>> begin(const std::filesystem::path& path,
                                                       const args::CheckpointArgs& args,
                                                       const HandlerRegistry& registry,
                                                       const CheckpointOptions& options);

  // Copies what is borrowed.
  Result<void> stage();
  // Writes, commits and closes. To be called once.
  Result<void> finish();

 private:
  CheckpointSave(std::filesystem::path path, CheckpointPlan plan)
      : path_(std::move(path)), plan_(std::move(plan)) {}

  Result<void> open(const CheckpointOptions& options, const std::string& custom_metadata);

  std::filesystem::path path_;
  CheckpointPlan plan_;
  StagingPool staging_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<StepWriter> writer_;
};

}  // namespace stepstone
