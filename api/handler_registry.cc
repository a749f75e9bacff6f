#include "api/handler_registry.h"

#include <fmt/format.h>

#include <algorithm>

#include "api/handlers.h"
#include "format/leaf_path.h"

namespace stepstone {
namespace {

using Handler = std::shared_ptr<const AnyCheckpointHandler>;

Result<void> check(const Handler& handler) {
  if (handler == nullptr) return fail(ErrorCode::kInvalidArgument, "the handler is null");
  if (!handler->type_name().empty()) return {};
  return fail(ErrorCode::kInvalidArgument, "a handler's type_name() must not be empty");
}

std::string quoted_name_of(const Handler& handler) {
  return "'" + printable(handler->type_name()) + "'";
}

tl::unexpected<Error> no_handler_for(const AnyValue& args, std::string_view verb) {
  if (!args.has_value()) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("there is nothing to {}", verb));
  }
  return fail(ErrorCode::kInvalidArgument,
              fmt::format("no handler takes {} to {}: wrap it in arguments such as "
                          "args::StandardSave, or add a handler for it to the HandlerRegistry",
                          args.type_name(), verb));
}

}  // namespace

HandlerRegistry HandlerRegistry::defaults() {
  HandlerRegistry registry;
  registry.handlers_ = {
      std::make_shared<const StandardCheckpointHandler>(),
      std::make_shared<const PyTreeCheckpointHandler>(),
      std::make_shared<const ArrayCheckpointHandler>(),
      std::make_shared<const JsonCheckpointHandler>(),
      std::make_shared<const ProtoCheckpointHandler>(),
      std::make_shared<const RandomKeyCheckpointHandler>(),
      std::make_shared<const StatefulCheckpointHandler>(),
  };
  return registry;
}

Result<void> HandlerRegistry::add(Handler handler) {
  STEPSTONE_TRY(check(handler));
  for (const Handler& other : handlers_) {
    if (other->type_name() == handler->type_name()) {
      return fail(ErrorCode::kAlreadyExists,
                  fmt::format("there is a handler named {} already", quoted_name_of(handler)));
    }
    if (other->save_args_type() == handler->save_args_type() ||
        other->restore_args_type() == handler->restore_args_type()) {
      return fail(ErrorCode::kAlreadyExists,
                  fmt::format("handler {}: its arguments are those of handler {} already; add it "
                              "for an item instead",
                              quoted_name_of(handler), quoted_name_of(other)));
    }
  }
  handlers_.push_back(std::move(handler));
  return {};
}

Result<void> HandlerRegistry::add(std::string item, Handler handler) {
  STEPSTONE_TRY(check(handler));
  const auto [entry, is_new] = by_item_.try_emplace(std::move(item), std::move(handler));
  if (is_new) return {};
  return fail(ErrorCode::kAlreadyExists,
              fmt::format("item '{}' has handler {} already", printable(entry->first),
                          quoted_name_of(entry->second)));
}

Result<Handler> HandlerRegistry::for_save(std::string_view item, const AnyValue& save_args) const {
  if (const auto own = by_item_.find(item); own != by_item_.end()) {
    if (own->second->save_args_type() == save_args.type()) return own->second;
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("its handler {} saves {}, not {}", quoted_name_of(own->second),
                            type_name_of(own->second->save_args_type()), save_args.type_name()));
  }
  for (const Handler& handler : handlers_) {
    if (handler->save_args_type() == save_args.type()) return handler;
  }
  return no_handler_for(save_args, "save");
}

Result<Handler> HandlerRegistry::for_restore(std::string_view item, const AnyValue& restore_args,
                                             std::string_view recorded) const {
  Handler chosen;
  if (const auto own = by_item_.find(item); own != by_item_.end()) {
    chosen = own->second;
    if (restore_args.has_value() && chosen->restore_args_type() != restore_args.type()) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("its handler {} takes {}, not {}", quoted_name_of(chosen),
                              type_name_of(chosen->restore_args_type()), restore_args.type_name()));
    }
  } else {
    const auto found =
        std::find_if(handlers_.begin(), handlers_.end(), [&](const Handler& handler) {
          return restore_args.has_value() ? handler->restore_args_type() == restore_args.type()
                                          : handler->type_name() == recorded;
        });
    if (found != handlers_.end()) {
      chosen = *found;
    } else if (restore_args.has_value()) {
      return no_handler_for(restore_args, "restore");
    } else {
      return fail(
          ErrorCode::kUnsupported,
          fmt::format("it was saved by a handler named '{}', which is not registered: add that "
                      "handler to the HandlerRegistry",
                      printable(recorded)));
    }
  }
  if (chosen->can_restore(recorded)) return chosen;
  return fail(ErrorCode::kMismatch,
              fmt::format("handler {} cannot restore what handler '{}' has saved",
                          quoted_name_of(chosen), printable(recorded)));
}

}  // namespace stepstone
