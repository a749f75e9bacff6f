#pragma once
// Portable files: what of a checkpoint goes into one, and in which dtype.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "../format/dtype.h"
#include "../format/error.h"
#include "../format/leaf_path.h"

namespace stepstone {

struct TransferHooks;

// What is taken along of each step. All of it holds together: a leaf comes along if its item is one
// of `items`, it stands at or below `subtree`, and `leaf` says yes. A container comes along with
// its first leaf. Of a list or tuple, children can only be left out at its end (kInvalidArgument):
// the others would get other paths.
struct PortableSelection {
  std::optional<std::vector<std::string>> items;  // nullopt: all.
  LeafPath subtree;                               // Items without such a node are left out.
  std::function<bool(std::string_view item, const LeafPath& path)> leaf;  // Empty: all.
  // Floating-point arrays of other dtypes are cast to it, as SaveArgs::dtype says; the rest stays.
  std::optional<DType> cast_floats;
};

struct PortableOptions {
  PortableSelection selection;
  std::optional<std::vector<std::uint64_t>> steps;  // Of a store; nullopt: all.
  bool force = false;                               // Replace a file that is there, in one instant.
  bool compress = false;                            // What is compressed cannot be mapped.
  bool share = true;  // Between steps. A leaf that shares some of its chunks cannot be mapped.
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> progress;
};

struct PortableCounters {
  std::uint64_t step_count = 0;
  std::uint64_t leaf_count = 0;
  std::uint64_t size_bytes = 0;  // Of the leaves, as they are in the file.
  std::uint64_t file_size_bytes = 0;
};

// Writes steps of the checkpoint, run or portable file at `path` into a portable file, streaming;
// `path` may also be STORE/STEP or STORE/STEP/ITEM. A store that is being saved to, also by another
// process, goes on meanwhile. The file is durable on return, and on an error there is none.
// kNotFound: no store, step or item of that name. kAlreadyExists: the file is there, and
// `force` is not set. kInvalidArgument: nothing is selected, or a part of a list. kMismatch: an
// element does not fit `cast_floats`. kCorrupt, kIo, kNoSpace, kPermissionDenied, kReadOnly.
Result<PortableCounters> export_checkpoint(const std::filesystem::path& path,
                                           const std::filesystem::path& file,
                                           const PortableOptions& options = {});

// The same selection for the engine's export_steps() and import_steps(); `selection` is copied.
TransferHooks transfer_hooks(PortableSelection selection);

}  // namespace stepstone
