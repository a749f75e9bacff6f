#pragma once
// How single leaves are saved and restored.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "../engine/compression.h"
#include "per_leaf.h"
#include "tree.h"

namespace stepstone {

struct SaveArgs {
  // Arrays are cast to it on the way to the store. A cast that loses what the type stands for
  // (float to integer, complex to real, an integer that does not fit) needs allow_lossy_cast; then
  // values are truncated towards zero and clamped to what the type can hold. Without it, kMismatch,
  // before anything is written or queued (of what a handler's background part writes: before the
  // commit); integers are looked through for that where the dtype is narrower or of another sign.
  std::optional<DType> dtype;
  bool allow_lossy_cast = false;
  // What is read, checked and shared as one. Unset: 256 KiB. kLimit if under 4 KiB or over 16 MiB.
  std::optional<std::uint32_t> chunk_size_bytes;
  // Other than the storage options say.
  std::optional<Compression> compression;
  std::optional<bool> share;
};

// The elements [begin, end) along one axis.
struct Slice {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  bool operator==(const Slice&) const = default;
};

// Applied in this order: slice, cast, pad or truncate, destination.
struct RestoreArgs {
  // Do not read the leaf: Placeholder stands in its place.
  bool skip = false;
  // One per axis, from the first on; axes without one are read whole. Only the chunks that the
  // slice touches are read.
  std::vector<Slice> slice;
  // Unset: the target's, or as saved. Casts as args::StandardRestore says, unless allow_lossy_cast:
  // then values are truncated towards zero and clamped to what the type can hold.
  std::optional<DType> dtype;
  bool allow_lossy_cast = false;
  // Unset: the target's, or as saved. Where it differs from what is stored, kMismatch, unless pad
  // (zeros behind the end of each axis that is too short) or truncate (the end of each axis that is
  // too long is dropped) allows it.
  std::optional<std::vector<std::uint64_t>> shape;
  bool pad = false;
  bool truncate = false;
  // Where the elements go, C-contiguous: exactly as many bytes as the array that is restored has,
  // else kInvalidArgument. The array in the result borrows them. Must outlive the restore; after an
  // error its contents are undefined.
  std::span<std::byte> destination;
};

// Where a leaf of a restore's target comes from, when it is not the leaf of the same path. Of the
// transforms whose pattern matches a path of the target the first decides. Exactly one of
// original_path, use_fallback and compute may be set, and value_fn only without the latter two.
struct Transform {
  // A regular expression (ECMAScript) that the whole path of a target's leaf matches, as it is
  // shown: "params/(.*)/kernel".
  std::string pattern;
  // The pattern is no expression but a path: of a leaf, or of a node, for all leaves below it. What
  // stands below is appended to original_path and inputs, which have no groups then. Thousands of
  // these are found as quickly as one.
  bool is_path = false;
  // Rename: where the value stands in the checkpoint. $1 to $9 are the pattern's groups, $& all.
  std::optional<std::string> original_path;
  // Fill: the target's own value, whatever the checkpoint has.
  bool use_fallback = false;
  // The value made from the one in the checkpoint (before it is fitted to the target).
  std::function<Result<Leaf>(const Leaf& stored)> value_fn;
  // Compute from several: the leaves at `inputs` (paths with groups as above), in their order.
  std::vector<std::string> inputs;
  std::function<Result<Leaf>(const std::vector<Leaf>& stored)> compute;
};

// What a restore did that its caller might not expect. Paths as they are shown.
struct RestoreReport {
  std::vector<std::string> kept;     // Not in the checkpoint: the target's own values.
  std::vector<std::string> dropped;  // In the checkpoint, but not in what was restored.
};

}  // namespace stepstone
