#pragma once
// Items that Python makes: what is saved is a tree with options, and how it came about is the
// package's business.

#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "api/args.h"
#include "api/handler_registry.h"
#include "api/storage_options.h"
#include "native.h"

namespace stepstone::python {

using SaveItem = std::tuple<std::string, std::string, nb::object>;

// The items of one call of save(). They are built when the library asks for them, which it does
// only if the save takes place. Made and destroyed with the GIL.
class PythonItems {
 public:
  // `is_waited_for`: nothing of it is left for the background, so that what fails has left nothing
  // at the path of a checkpoint.
  explicit PythonItems(const std::vector<SaveItem>& items, bool is_waited_for = false);

  // A Composite; `is_single`: the arguments of the one item.
  args::CheckpointArgs to_args(bool is_single) const;

  // The outcome of the save: what Python raised while an item was built comes first.
  template <typename T>
  T value_of(Result<T> result) const {
    if (!result) rethrow();
    return python::value_of(std::move(result));
  }

  struct Build;

 private:
  void rethrow() const;

  std::vector<std::pair<std::string, std::shared_ptr<Build>>> builds_;
};

// Of the one handler that such items have.
HandlerRegistry python_registry();

StorageOptions storage_options_of(nb::handle options);
void bind_storage_options(nb::module_& module);

}  // namespace stepstone::python
