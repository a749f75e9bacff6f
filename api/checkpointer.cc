#include "api/checkpointer.h"

#include <new>

#include "api/tree_plan.h"
#include "api/tree_reader.h"
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

Result<void> save_checkpoint(const std::filesystem::path& path, const Tree& tree,
                             const Checkpointer::SaveOptions& options) {
  // Before anything is created at the path.
  STEPSTONE_TRY_CONTEXT(check_tree(tree), path.string());
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
  STEPSTONE_TRY(put_tree(*writer, kDefaultItem, tree, options.storage.compression_rules));
  STEPSTONE_TRY(writer->commit());
  writer.reset();
  return store->close();
}

Result<Tree> restore_checkpoint(const std::filesystem::path& path, const Tree* target) {
  const auto store = STEPSTONE_TRY(Store::open(path, {.read_only = true}));
  const std::vector<std::uint64_t> steps = store->steps();
  if (steps.empty()) {
    return fail(ErrorCode::kNotFound, path.string() + ": no checkpoint was completed there");
  }
  STEPSTONE_TRY(check_is_single(path, steps));
  const auto reader = STEPSTONE_TRY(store->read_step(kOnlyStep));
  return read_tree(*reader, kDefaultItem, target);
}

}  // namespace

Result<void> Checkpointer::save(const std::filesystem::path& path, const args::StandardSave& args,
                                const SaveOptions& options) const {
  try {
    return save_checkpoint(path, args.item, options);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kLimit, path.string() + ": out of memory");
  }
}

Result<Tree> Checkpointer::restore(const std::filesystem::path& path,
                                   const args::StandardRestore& args) const {
  try {
    return restore_checkpoint(path, args.item ? &*args.item : nullptr);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kLimit, path.string() + ": out of memory");
  }
}

}  // namespace stepstone
