#include "api/checkpoint_save.h"

#include "api/checkpoint_path.h"
#include "api/json.h"

namespace stepstone {

Result<std::unique_ptr<CheckpointSave>> CheckpointSave::begin(const std::filesystem::path& path,
                                                              const args::CheckpointArgs& args,
                                                              const HandlerRegistry& registry,
                                                              const CheckpointOptions& options) {
  // Before anything is created at the path.
  STEPSTONE_TRY(check_not_in_store(path));
  CheckpointPlan plan = STEPSTONE_TRY_CONTEXT(
      CheckpointPlan::make(kOnlyStep, args, registry, options.storage), path.string());
  std::string custom_metadata;
  if (options.custom_metadata) {
    custom_metadata = STEPSTONE_TRY_CONTEXT(to_json(*options.custom_metadata),
                                            path.string() + ": custom metadata");
  }
  std::unique_ptr<CheckpointSave> save(new CheckpointSave(path, std::move(plan)));
  STEPSTONE_TRY(save->open(options, custom_metadata));
  return save;
}

Result<void> CheckpointSave::open(const CheckpointOptions& options,
                                  const std::string& custom_metadata) {
  store_ = STEPSTONE_TRY(Store::open(path_, {.create_if_missing = true}));
  const std::vector<std::uint64_t> steps = store_->steps();
  STEPSTONE_TRY(check_is_single(path_, steps));
  if (!steps.empty() && !options.force) {
    return fail(ErrorCode::kAlreadyExists,
                path_.string() + " holds a checkpoint already: choose another path, or set force");
  }
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

Result<void> CheckpointSave::finish() {
  STEPSTONE_TRY_CONTEXT(plan_.run_background(*writer_), path_.string());
  STEPSTONE_TRY(writer_->commit());
  writer_.reset();
  return store_->close();
}

}  // namespace stepstone
