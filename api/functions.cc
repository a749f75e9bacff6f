#include "api/functions.h"

#include <new>

#include "api/checkpoint_path.h"
#include "api/checkpoint_plan.h"
#include "api/checkpoint_save.h"

namespace stepstone {
namespace {

Future<void> begin_save(const std::filesystem::path& path, const args::CheckpointArgs& args,
                        const CheckpointOptions& options, const HandlerRegistry& registry) {
  const auto begin = [&]() -> Result<std::shared_ptr<CheckpointSave>> {
    try {
      std::shared_ptr<CheckpointSave> save =
          STEPSTONE_TRY(CheckpointSave::begin(path, args, registry, options));
      STEPSTONE_TRY(save->stage());
      return save;
    } catch (const std::bad_alloc&) {
      return fail(ErrorCode::kLimit, path.string() + ": out of memory");
    }
  };
  Result<std::shared_ptr<CheckpointSave>> save = begin();
  if (!save) return Future<void>::done(tl::unexpected<Error>(std::move(save).error()));
  return Future<void>::run([save = *std::move(save)] { return save->finish(); });
}

// The item that a caller means who wants the tree of a checkpoint.
Result<std::string> item_to_load(const std::filesystem::path& path) {
  const OpenCheckpoint open = STEPSTONE_TRY(open_checkpoint(path));
  constexpr const char* kStateItem = "state";
  if (open.item) return std::string();
  for (const ItemSummary& item : open.reader->record().items) {
    if (item.name == kDefaultItem) return std::string();
  }
  return std::string(kStateItem);
}

}  // namespace

Result<void> save(const std::filesystem::path& path, const args::CheckpointArgs& state,
                  const CheckpointOptions& options) {
  return Checkpointer().save(path, state, options);
}

Future<void> save_async(const std::filesystem::path& path, const args::CheckpointArgs& state,
                        const CheckpointOptions& options) {
  return begin_save(path, state, options, HandlerRegistry::defaults());
}

Result<Tree> load(const std::filesystem::path& path, const args::PyTreeRestore& args) {
  const std::string item = STEPSTONE_TRY_CONTEXT(item_to_load(path), path.string());
  if (item.empty()) return Checkpointer().restore(path, args);
  const args::Composite restored =
      STEPSTONE_TRY(Checkpointer().restore(path, args::Composite({{item, args}})));
  return restored.get<Tree>(item);
}

Future<Tree> load_async(const std::filesystem::path& path, args::PyTreeRestore args) {
  return Future<Tree>::run([path, args = std::move(args)] { return load(path, args); });
}

Result<void> save_checkpointables(const std::filesystem::path& path,
                                  const args::Composite& checkpointables,
                                  const CheckpointOptions& options,
                                  const HandlerRegistry& registry) {
  return Checkpointer(registry).save(path, checkpointables, options);
}

Future<void> save_checkpointables_async(const std::filesystem::path& path,
                                        const args::Composite& checkpointables,
                                        const CheckpointOptions& options,
                                        const HandlerRegistry& registry) {
  return begin_save(path, checkpointables, options, registry);
}

Result<args::Composite> load_checkpointables(const std::filesystem::path& path,
                                             const args::Composite& args,
                                             const HandlerRegistry& registry) {
  return Checkpointer(registry).restore(path, args);
}

Future<args::Composite> load_checkpointables_async(const std::filesystem::path& path,
                                                   args::Composite args, HandlerRegistry registry) {
  return Future<args::Composite>::run(
      [path, args = std::move(args), registry = std::move(registry)] {
        return load_checkpointables(path, args, registry);
      });
}

Result<StepMetadata> metadata(const std::filesystem::path& path) {
  return Checkpointer().metadata(path);
}

Future<StepMetadata> metadata_async(const std::filesystem::path& path) {
  return Future<StepMetadata>::run([path] { return metadata(path); });
}

}  // namespace stepstone
