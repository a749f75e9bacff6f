#include "api/checkpointer.h"

#include <new>

#include "api/checkpoint_plan.h"
#include "engine/store.h"

namespace stepstone {
namespace {

// The one step of a store that is a single checkpoint.
constexpr std::uint64_t kOnlyStep = 0;

// Which of many would be meant?
Result<void> check_is_single(const std::filesystem::path& path,
                             const std::vector<std::uint64_t>& steps) {
  if (steps.empty() || steps == std::vector<std::uint64_t>{kOnlyStep}) return {};
  return fail(ErrorCode::kInvalidArgument,
              path.string() + " holds a run of steps: use a CheckpointManager there");
}

Result<void> save_checkpoint(const std::filesystem::path& path, const args::CheckpointArgs& args,
                             const Checkpointer::SaveOptions& options) {
  // Before anything is created at the path.
  CheckpointPlan plan = STEPSTONE_TRY_CONTEXT(
      CheckpointPlan::make(kOnlyStep, args, HandlerRegistry::defaults(), options.storage),
      path.string());
  const auto store = STEPSTONE_TRY(Store::open(path, {.create_if_missing = true}));
  const std::vector<std::uint64_t> steps = store->steps();
  STEPSTONE_TRY(check_is_single(path, steps));
  if (!steps.empty() && !options.force) {
    return fail(ErrorCode::kAlreadyExists,
                path.string() + " holds a checkpoint already: choose another path, or set force");
  }
  auto writer =
      STEPSTONE_TRY(store->begin_save(kOnlyStep, {.overwrite = options.force,
                                                  .share = options.storage.share,
                                                  .compression = options.storage.compression}));
  STEPSTONE_TRY(plan.put(*writer));
  STEPSTONE_TRY(plan.run_background(*writer));
  STEPSTONE_TRY(writer->commit());
  writer.reset();
  return store->close();
}

Result<Tree> restore_checkpoint(const std::filesystem::path& path,
                                const args::CheckpointArgs& args) {
  const auto store = STEPSTONE_TRY(Store::open(path, {.read_only = true}));
  const std::vector<std::uint64_t> steps = store->steps();
  if (steps.empty()) {
    return fail(ErrorCode::kNotFound, path.string() + ": no checkpoint was completed there");
  }
  STEPSTONE_TRY(check_is_single(path, steps));
  const auto reader = STEPSTONE_TRY(store->read_step(kOnlyStep));
  return STEPSTONE_TRY(restore_item(*reader, kDefaultItem, args, HandlerRegistry::defaults()))
      .get<Tree>();
}

}  // namespace

Result<void> Checkpointer::save(const std::filesystem::path& path, const args::StandardSave& args,
                                const SaveOptions& options) const {
  try {
    return save_checkpoint(path, args, options);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kLimit, path.string() + ": out of memory");
  }
}

Result<Tree> Checkpointer::restore(const std::filesystem::path& path,
                                   const args::StandardRestore& args) const {
  try {
    return restore_checkpoint(path, args);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kLimit, path.string() + ": out of memory");
  }
}

}  // namespace stepstone
