#pragma once
// Which handler saves and restores what.

#include <concepts>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint_handler.h"

namespace stepstone {

// A value: whoever needs handlers of its own makes a registry, adds them and hands it over. Copies
// share the handlers.
class HandlerRegistry {
 public:
  // None at all.
  HandlerRegistry() = default;
  // Of every handler that the library has: standard, PyTree, array, JSON, proto, random key,
  // stateful.
  static HandlerRegistry defaults();

  // For every item whose arguments are of the handler's types, and for what it saved.
  // kAlreadyExists: its name or one of its types is taken. kInvalidArgument: null, or no name.
  Result<void> add(std::shared_ptr<const AnyCheckpointHandler> handler);
  // For the item of this name only, before any other. kAlreadyExists: the item has one.
  Result<void> add(std::string item, std::shared_ptr<const AnyCheckpointHandler> handler);
  template <std::derived_from<AnyCheckpointHandler> Handler>
  Result<void> add(Handler handler) {
    return add(std::make_shared<const Handler>(std::move(handler)));
  }
  template <std::derived_from<AnyCheckpointHandler> Handler>
  Result<void> add(std::string item, Handler handler) {
    return add(std::move(item), std::make_shared<const Handler>(std::move(handler)));
  }

  // For a save. kInvalidArgument: no handler takes these arguments.
  Result<std::shared_ptr<const AnyCheckpointHandler>> for_save(std::string_view item,
                                                               const AnyValue& save_args) const;
  // For a restore of an item that a handler named `recorded` saved; `restore_args` may hold
  // nothing. kUnsupported: none of that name is registered. kInvalidArgument: no handler takes
  // these arguments. kMismatch: the one that does cannot restore what `recorded` saved.
  Result<std::shared_ptr<const AnyCheckpointHandler>> for_restore(std::string_view item,
                                                                  const AnyValue& restore_args,
                                                                  std::string_view recorded) const;

 private:
  std::vector<std::shared_ptr<const AnyCheckpointHandler>> handlers_;
  std::map<std::string, std::shared_ptr<const AnyCheckpointHandler>, std::less<>> by_item_;
};

}  // namespace stepstone
