#pragma once
// Paths of single checkpoints. A store keeps its steps and items in a database, or in a portable
// file; they have paths all the same, which can be used wherever a checkpoint is read: STORE,
// STORE/STEP, STORE/STEP/ITEM and, where the store holds a single checkpoint, STORE/ITEM. A
// portable file with one step, whatever its number, is a single checkpoint.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/shared_store.h"
#include "engine/store.h"

namespace stepstone {

// The one step of a store that is a single checkpoint.
inline constexpr std::uint64_t kOnlyStep = 0;

struct CheckpointPath {
  std::filesystem::path store;
  std::optional<std::uint64_t> step;
  std::optional<std::string> item;

  bool operator==(const CheckpointPath&) const = default;
};

// The step that a directory of this name would hold: "23", "0023", "step_23", "run_0023".
std::optional<std::uint64_t> step_of_name(std::string_view name);

// What exists is a store of its own, whatever stands above it; the rest is looked for in the store
// above, and a path with none above is returned as it is.
CheckpointPath resolve_checkpoint_path(const std::filesystem::path& path);

// A checkpoint that is open for reading, in the store that this process has open already if there
// is one. `reader` goes first: it holds `store` open.
struct OpenCheckpoint {
  SharedStore store;
  std::shared_ptr<const StepReader> reader;
  std::optional<std::string> item;  // Of the path.
};

// kNotFound: there is no such store, step, or checkpoint in it. kInvalidArgument: it is something
// else, or a run of steps of which `path` names none. kCorrupt, kIo.
Result<OpenCheckpoint> open_checkpoint(const std::filesystem::path& path);

// Whether a save to this path writes a portable file: it is called `*.stone`, and no directory is
// there.
bool is_portable_path(const std::filesystem::path& path);

// For a save: kInvalidArgument if the path is inside a store, where no directory may be made.
Result<void> check_not_in_store(const std::filesystem::path& path);

// kInvalidArgument: a store with these steps is no single checkpoint, but a run.
Result<void> check_is_single(const std::filesystem::path& path,
                             const std::vector<std::uint64_t>& steps);

}  // namespace stepstone
