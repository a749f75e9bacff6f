#pragma once
// Options leaf by leaf, on their way from Python.

#include <utility>
#include <vector>

#include "api/args.h"
#include "trees.h"

namespace stepstone::python {

// A pattern of paths, or labels from the root on (see path_of).
using Selector = std::variant<std::string, nb::tuple>;
template <typename Options>
using Selected = std::vector<std::pair<Selector, Options>>;

struct LeafRestoreArgs {
  RestoreArgs args;
  nb::object destination;  // Whose memory args.destination is.
};

// As _native.pyi says. Holds Python objects: for threads with the GIL.
struct RestoreOptions {
  const PythonTree* target = nullptr;
  nb::object target_object;
  std::vector<std::pair<Selector, LeafRestoreArgs>> restore_args;
  std::string subtree;
  bool partial_restore = false;
  bool keep_missing = false;
  std::vector<Transform> transforms;
  bool transforms_default_to_original = true;
  bool any_container = false;
  bool pad_or_truncate = false;
  bool lossy = false;
  MapArrays map = MapArrays::kNo;

  // Whether some options are for paths of leaves.
  bool has_paths() const;
  // `tree`: what paths are looked up in. The target has to outlive the result.
  args::PyTreeRestore to_args(const Tree& tree) const;
};

PerLeaf<SaveArgs> to_save_args(const Tree& tree, const Selected<SaveArgs>& options);

Compression compression_of(const std::string& name);
MapArrays map_of(const std::string& name);

}  // namespace stepstone::python
