#pragma once
// Several items in one checkpoint.

#include <concepts>
#include <string>
#include <utility>
#include <vector>

#include "handler_registry.h"

namespace stepstone {

// Says which items a checkpoint has: `Checkpointer(CompositeCheckpointHandler("state", "dataset"))`
// saves and restores args::Composite with these names. Which handler an item gets follows from its
// arguments, or from a registry.
class CompositeCheckpointHandler {
 public:
  // Without names: items of any name.
  template <std::convertible_to<std::string>... Names>
  explicit CompositeCheckpointHandler(Names... names)
      : item_names_{std::string(std::move(names))...} {}
  explicit CompositeCheckpointHandler(std::vector<std::string> names, HandlerRegistry registry)
      : item_names_(std::move(names)), registry_(std::move(registry)) {}

  const std::vector<std::string>& item_names() const { return item_names_; }
  const HandlerRegistry& registry() const { return registry_; }

 private:
  std::vector<std::string> item_names_;
  HandlerRegistry registry_ = HandlerRegistry::defaults();
};

}  // namespace stepstone
