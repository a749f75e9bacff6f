#pragma once
// What to save and how to restore it. Each kind of object has a pair of these, as in Orbax; the
// type decides which handler does the work. `Restored` is what a restore with them returns.

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "composite.h"
#include "leaf_args.h"
#include "tree.h"

namespace stepstone {

class StatefulCheckpointable;

// A protocol buffer's message as bytes; nothing looks into it.
struct ProtoMessage {
  std::string type_name;  // "package.Message"
  std::string bytes;
  bool operator==(const ProtoMessage&) const = default;
};

// The state of a random number generator: `state` is the key data, or whatever else the algorithm
// needs to go on.
struct RandomKey {
  std::string algorithm;  // "threefry2x32", "MT19937"
  Tree state;
  bool operator==(const RandomKey&) const = default;
};

// Whether arrays of a portable file stay where they are in it, and are not read: they own a mapping
// of the file, are immutable, and cost no memory of their own. Those that cannot (from a store,
// compressed, in pieces, cast, sliced) are read as ever. StepReader::view() tells more.
enum class MapArrays : std::uint8_t {
  kNo,
  kChecked,    // Compared with their hashes, and so read once.
  kUnchecked,  // Read when they are looked at; damage is not noticed.
};

namespace args {

// A tree of arrays, scalars, strings and bytes.
struct StandardSave {
  Tree item;
  PerLeaf<SaveArgs> save_args = {};
  std::optional<Tree> custom_metadata = {};  // Of the item; as JsonSave.

  explicit StandardSave(Tree tree, PerLeaf<SaveArgs> per_leaf = {}, std::optional<Tree> json = {})
      : item(std::move(tree)), save_args(std::move(per_leaf)), custom_metadata(std::move(json)) {}
};

// Without a target: the tree exactly as it was saved. With one: the stored tree must have the
// target's containers and labels, and each stored leaf goes where the target has
// - an Array or AbstractArray: the same shape, cast to its dtype;
// - a bool, int, float or complex: a scalar or an array of rank 0, cast to that type;
// - a string, bytes, big integer or None: the same kind;
// - a Placeholder, for a leaf or a container: it is not read, and the Placeholder comes back.
// A cast that loses what the type stands for is an error (kMismatch): float to integer, complex to
// real, an integer that does not fit. Between floating-point types it rounds to nearest, ties to
// even.
struct StandardRestore {
  using Restored = Tree;

  std::optional<Tree> item;
  // false: where shapes differ, zeros are added or elements dropped at the end of each axis.
  bool strict = true;
  MapArrays map = MapArrays::kNo;

  StandardRestore() = default;
  explicit StandardRestore(Tree target, bool is_strict = true)
      : item(std::move(target)), strict(is_strict) {}
};

// As StandardSave. What it saved can be restored with either's arguments.
struct PyTreeSave : StandardSave {
  using StandardSave::StandardSave;
};

// As StandardRestore, and more.
struct PyTreeRestore {
  using Restored = Tree;

  std::optional<Tree> item;
  PerLeaf<RestoreArgs> restore_args = {};
  // Restore only what stands below this path of the checkpoint ("params/encoder"); everything else
  // here is relative to it. kNotFound: there is no such node.
  std::string subtree = {};
  // Read only what the target has. Without it, a key of the checkpoint that the target has not is
  // kMismatch.
  bool partial_restore = false;
  // A key of the target that the checkpoint has not keeps the target's own value, and is listed in
  // the report. Without it: kMismatch.
  bool keep_missing = false;
  // A target's container fits one of another kind or type name whose labels read the same: the
  // position 0, the keys 0 and "0" and an attribute `0` all fit one another.
  // And an int fits one of any size: what int64 cannot hold comes back as a BigInteger.
  bool any_container = false;
  // Need a target. With them, keys of the checkpoint that nothing refers to are dropped.
  std::vector<Transform> transforms = {};
  // Leaves that no transform matches: true: from the same path; false: the target's own values.
  bool transforms_default_to_original = true;
  RestoreReport* report = nullptr;  // Filled in by a restore that succeeds; must outlive it.
  MapArrays map = MapArrays::kNo;
  // In the place of `item`, without a copy of it; must outlive the restore.
  const Tree* borrowed_item = nullptr;

  PyTreeRestore() = default;
  explicit PyTreeRestore(Tree target) : item(std::move(target)) {}

  const Tree* target() const {  // Null: none.
    if (borrowed_item != nullptr) return borrowed_item;
    return item ? &*item : nullptr;
  }
};

// One array.
struct ArraySave {
  Array item;
  SaveArgs save_args = {};

  explicit ArraySave(Array array, SaveArgs how = {}) : item(std::move(array)), save_args(how) {}
};
struct ArrayRestore {
  using Restored = Array;
  RestoreArgs restore_args = {};
};

// Dicts with string keys, lists, strings, numbers, bools and None, stored as JSON text (a tuple
// comes back as a list). kInvalidArgument for anything else.
struct JsonSave {
  Tree item;
  explicit JsonSave(Tree tree) : item(std::move(tree)) {}
};
struct JsonRestore {
  using Restored = Tree;
};

struct ProtoSave {
  ProtoMessage item;
  explicit ProtoSave(ProtoMessage message) : item(std::move(message)) {}
};
struct ProtoRestore {
  using Restored = ProtoMessage;
  std::string type_name = {};  // Not empty: another type in the checkpoint is kMismatch.
};

struct RandomKeySave {
  RandomKey item;
  explicit RandomKeySave(RandomKey key) : item(std::move(key)) {}
};
struct RandomKeyRestore {
  using Restored = RandomKey;
  std::string algorithm = {};  // Not empty: another one in the checkpoint is kMismatch.
};

// An object that knows its own state, such as a data iterator; see stateful.h. It is asked for the
// state before the save returns, and given it back by the restore; the restore returns the state
// too. The object must outlive the call.
struct StatefulSave {
  const StatefulCheckpointable* item;
  explicit StatefulSave(const StatefulCheckpointable& object) : item(&object) {}
};
struct StatefulRestore {
  using Restored = Tree;
  StatefulCheckpointable* item = nullptr;  // Null: only returns the state.

  StatefulRestore() = default;
  explicit StatefulRestore(StatefulCheckpointable& object) : item(&object) {}
};

}  // namespace args
}  // namespace stepstone
