#include "api/checkpoint_save.h"

#include "api/checkpoint_path.h"
#include "api/json.h"

namespace stepstone {

Result<std::unique_ptr<CheckpointSave>> CheckpointSave::begin(
    const std::filesystem::path& path, const args::CheckpointArgs& args,
    const HandlerRegistry& registry, const CheckpointOptions& options,
    std::shared_ptr<rocksdb::FileSystem> file_system) {
  // Before anything is created at the path.
  STEPSTONE_TRY(check_not_in_store(path));
  CheckpointPlan plan = STEPSTONE_TRY_CONTEXT(
      CheckpointPlan::make(kOnlyStep, args, registry, options.storage), path.string());
  std::string custom_metadata;
  if (options.custom_metadata) {
    custom_metadata = STEPSTONE_TRY_CONTEXT(to_json(*options.custom_metadata),
                                            path.string() + ": custom metadata");
  }
  OpenOptions open_options;
  open_options.create_if_missing = true;
  open_options.file_system = std::move(file_system);
  SharedStore store = STEPSTONE_TRY(SharedStore::open(path, open_options));
  std::unique_ptr<CheckpointSave> save(new CheckpointSave(path, std::move(plan), std::move(store)));
  STEPSTONE_TRY(save->check_path(options.force));
  STEPSTONE_TRY(save->put(options, custom_metadata));
  return save;
}

Result<void> CheckpointSave::check_path(bool force) const {
  const std::vector<std::uint64_t> steps = store_->steps();
  STEPSTONE_TRY(check_is_single(path_, steps));
  if (steps.empty() || force) return {};
  return fail(ErrorCode::kAlreadyExists,
              path_.string() + " holds a checkpoint already: choose another path, or set force");
}

Result<void> CheckpointSave::put(const CheckpointOptions& options,
                                 const std::string& custom_metadata) {
  writer_ = STEPSTONE_TRY(store_->begin_save(kOnlyStep, {.overwrite = options.force,
                                                         .share = options.storage.share,
                                                         .compression = options.storage.compression,
                                                         .custom_metadata = custom_metadata}));
  return plan_.put(*writer_);
}

Result<void> CheckpointSave::stage() {
  STEPSTONE_TRY_CONTEXT(plan_.stage(staging_), path_.string());
  return {};
}

Result<void> CheckpointSave::commit() {
  STEPSTONE_TRY_CONTEXT(plan_.run_background(*writer_), path_.string());
  // A manager of this process may have made a run of it meanwhile.
  STEPSTONE_TRY(writer_->commit_choosing([this]() -> Result<std::vector<std::uint64_t>> {
    STEPSTONE_TRY(check_is_single(path_, store_->steps()));
    return std::vector<std::uint64_t>();
  }));
  return {};
}

Result<void> CheckpointSave::finish() {
  const Result<void> committed = commit();
  {
    const std::scoped_lock lock(writer_mutex_);
    writer_.reset();
  }
  const Result<void> closed = store_.close();
  return committed ? closed : committed;
}

bool CheckpointSave::cancel() {
  const std::scoped_lock lock(writer_mutex_);
  return writer_ != nullptr && writer_->give_up();
}

}  // namespace stepstone
