#pragma once
// Checkpoints without objects: one call saves to a path, one loads from it. Each has a twin that
// returns at once and gives its result later.

#include <filesystem>
#include <optional>

#include "args.h"
#include "checkpointer.h"
#include "future.h"

namespace stepstone {

// Saves a tree, or what args of one object say. Errors of these and all that follow are those of
// Checkpointer.
Result<void> save(const std::filesystem::path& path, const args::CheckpointArgs& state,
                  const CheckpointOptions& options = {});
// Returns when what the caller may change has been copied; an error found until then is in the
// Future as well.
Future<void> save_async(const std::filesystem::path& path, const args::CheckpointArgs& state,
                        const CheckpointOptions& options = {});

// Loads a tree that save(), a checkpointer or a manager (at STORE/STEP) has saved. Of a checkpoint
// of several items: the item that the path names, or else `state`.
Result<Tree> load(const std::filesystem::path& path, const args::PyTreeRestore& args = {});
Future<Tree> load_async(const std::filesystem::path& path, args::PyTreeRestore args = {});

// Several objects of any kind: trees, arrays, messages, or args for a handler in the registry.
Result<void> save_checkpointables(const std::filesystem::path& path,
                                  const args::Composite& checkpointables,
                                  const CheckpointOptions& options = {},
                                  const HandlerRegistry& registry = HandlerRegistry::defaults());
Future<void> save_checkpointables_async(
    const std::filesystem::path& path, const args::Composite& checkpointables,
    const CheckpointOptions& options = {},
    const HandlerRegistry& registry = HandlerRegistry::defaults());

// Those that `args` names, all where it is empty.
Result<args::Composite> load_checkpointables(
    const std::filesystem::path& path, const args::Composite& args = {},
    const HandlerRegistry& registry = HandlerRegistry::defaults());
Future<args::Composite> load_checkpointables_async(
    const std::filesystem::path& path, args::Composite args = {},
    HandlerRegistry registry = HandlerRegistry::defaults());

// Reads no arrays.
Result<StepMetadata> metadata(const std::filesystem::path& path);
Future<StepMetadata> metadata_async(const std::filesystem::path& path);

}  // namespace stepstone
