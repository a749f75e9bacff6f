// The native module of the Python package. What it has is described in _native.pyi.
#include "native.h"
#include "python_items.h"
#include "trees.h"

NB_MODULE(_native, module) {
  namespace python = stepstone::python;
  // What Python still holds when it ends is not a leak.
  nanobind::set_leak_warnings(false);
  python::import_numpy();
  python::bind_errors(module);
  python::bind_trees(module);
  python::bind_leaf_args(module);
  python::bind_storage_options(module);
  python::bind_policies(module);
  python::bind_steps(module);
  python::bind_checkpoints(module);
  python::bind_export(module);
  python::bind_manager(module);
  module.def("dtype_names", [] {
    std::vector<std::string> names;
    for (auto number = static_cast<unsigned>(stepstone::kDTypeFirst);
         number <= static_cast<unsigned>(stepstone::kDTypeLast); ++number) {
      names.emplace_back(stepstone::info(static_cast<stepstone::DType>(number)).name);
    }
    return names;
  });
}
