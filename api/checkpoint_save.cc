#include "api/checkpoint_save.h"

#include "api/checkpoint_path.h"
#include "api/json.h"

namespace stepstone {
namespace {

tl::unexpected<Error> already_exists(const std::filesystem::path& path) {
  return fail(ErrorCode::kAlreadyExists,
              path.string() + " holds a checkpoint already: choose another path, or set force");
}

}  // namespace

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
  const SaveOptions save_options{.overwrite = options.force,
                                 .share = options.storage.share,
                                 .compression = options.storage.compression,
                                 .custom_metadata = custom_metadata};
  std::unique_ptr<CheckpointSave> save(new CheckpointSave(path, std::move(plan)));
  if (is_portable_path(path)) {
    STEPSTONE_TRY(save->check_file(options.force, file_system));
    save->writer_ =
        STEPSTONE_TRY(StepWriter::into_file(path, kOnlyStep, save_options, std::move(file_system)));
  } else {
    STEPSTONE_TRY(save->open_store(options.force, std::move(file_system)));
    save->writer_ = STEPSTONE_TRY((*save->store_)->begin_save(kOnlyStep, save_options));
  }
  if (options.progress) save->writer_->on_progress(options.progress);
  STEPSTONE_TRY(save->plan_.put(*save->writer_));
  return save;
}

Result<void> CheckpointSave::open_store(bool force,
                                        std::shared_ptr<rocksdb::FileSystem> file_system) {
  OpenOptions options;
  options.create_if_missing = true;
  options.file_system = std::move(file_system);
  store_ = STEPSTONE_TRY(SharedStore::open(path_, options));
  const std::vector<std::uint64_t> steps = (*store_)->steps();
  STEPSTONE_TRY(check_is_single(path_, steps));
  if (steps.empty() || force) return {};
  return already_exists(path_);
}

// Nothing but a checkpoint is ever replaced by one, or a damaged one.
Result<void> CheckpointSave::check_file(
    bool force, const std::shared_ptr<rocksdb::FileSystem>& file_system) const {
  OpenOptions options;
  options.file_system = file_system;
  const Result<std::unique_ptr<Store>> store = Store::open(path_, options);
  if (!store) {
    const ErrorCode code = store.error().code;
    if (code == ErrorCode::kNotFound) return {};
    if (code != ErrorCode::kCorrupt) return tl::unexpected<Error>(store.error());
  } else if ((*store)->steps().size() > 1) {
    STEPSTONE_TRY(check_is_single(path_, (*store)->steps()));
  }
  if (force) return {};
  return already_exists(path_);
}

Result<void> CheckpointSave::stage() {
  STEPSTONE_TRY_CONTEXT(plan_.stage(staging_), path_.string());
  return {};
}

Result<void> CheckpointSave::commit() {
  STEPSTONE_TRY_CONTEXT(plan_.run_background(*writer_), path_.string());
  // A manager of this process may have made a run of it meanwhile.
  STEPSTONE_TRY(writer_->commit_choosing([this]() -> Result<std::vector<std::uint64_t>> {
    if (store_) STEPSTONE_TRY(check_is_single(path_, (*store_)->steps()));
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
  const Result<void> closed = store_ ? store_->close() : Result<void>();
  return committed ? closed : committed;
}

bool CheckpointSave::cancel() {
  const std::scoped_lock lock(writer_mutex_);
  return writer_ != nullptr && writer_->give_up();
}

}  // namespace stepstone
