#include "api/handlers.h"

#include <fmt/format.h>

#include "api/json.h"
#include "api/stateful.h"

namespace stepstone {
namespace {

// These three store trees in the same way.
bool is_tree_handler(std::string_view recorded) {
  return recorded == "standard" || recorded == "pytree" || recorded == "array";
}

// The value at `name` in what one of these handlers wrote; the bytes have been checked, so that
// another type there was written by something else.
template <typename T>
Result<T> field(const Tree& tree, std::string_view name, const ItemReader& item) {
  const Tree* const found = tree.find(name);
  const T* value = found == nullptr ? nullptr : found->get_if<T>();
  if (value != nullptr) return *value;
  return fail(ErrorCode::kCorrupt,
              fmt::format("{}: what its handler stored has no '{}'", item.where(), name));
}

}  // namespace

bool StandardCheckpointHandler::can_restore(std::string_view recorded) const {
  return is_tree_handler(recorded);
}

Result<void> StandardCheckpointHandler::save(const args::StandardSave& args,
                                             ItemWriter& item) const {
  if (args.custom_metadata) STEPSTONE_TRY(item.set_custom_metadata(*args.custom_metadata));
  return item.write(args.item, args.save_args);
}

Result<Tree> StandardCheckpointHandler::restore(const args::StandardRestore& args,
                                                const ItemReader& item) const {
  args::PyTreeRestore restore;
  if (args.item) restore.borrowed_item = &*args.item;
  restore.map = args.map;
  if (!args.strict) restore.restore_args = RestoreArgs{.pad = true, .truncate = true};
  return item.read(restore);
}

bool PyTreeCheckpointHandler::can_restore(std::string_view recorded) const {
  return is_tree_handler(recorded);
}

Result<void> PyTreeCheckpointHandler::save(const args::PyTreeSave& args, ItemWriter& item) const {
  return StandardCheckpointHandler().save(args, item);
}

Result<Tree> PyTreeCheckpointHandler::restore(const args::PyTreeRestore& args,
                                              const ItemReader& item) const {
  return item.read(args);
}

bool ArrayCheckpointHandler::can_restore(std::string_view recorded) const {
  return is_tree_handler(recorded);
}

Result<void> ArrayCheckpointHandler::save(const args::ArraySave& args, ItemWriter& item) const {
  return item.write(args.item, args.save_args);
}

Result<Array> ArrayCheckpointHandler::restore(const args::ArrayRestore& args,
                                              const ItemReader& item) const {
  if (args.restore_args.skip) {
    return fail(ErrorCode::kInvalidArgument,
                item.where() + ": an array that is to be skipped cannot be returned");
  }
  args::PyTreeRestore restore;
  restore.restore_args = args.restore_args;
  const Tree tree = STEPSTONE_TRY(item.read(restore));
  if (const auto* const array = tree.get_if<Array>()) return *array;
  return fail(ErrorCode::kMismatch, item.where() + " is not one array: use StandardRestore");
}

Result<void> JsonCheckpointHandler::save(const args::JsonSave& args, ItemWriter& item) const {
  return item.write(STEPSTONE_TRY(to_json(args.item)));
}

Result<Tree> JsonCheckpointHandler::restore(const args::JsonRestore& /*args*/,
                                            const ItemReader& item) const {
  const Tree tree = STEPSTONE_TRY(item.read());
  return STEPSTONE_TRY_CONTEXT(from_json(STEPSTONE_TRY(field<std::string>(tree, "", item))),
                               item.where());
}

Result<void> ProtoCheckpointHandler::save(const args::ProtoSave& args, ItemWriter& item) const {
  if (args.item.type_name.empty()) {
    return fail(ErrorCode::kInvalidArgument, "a message needs the name of its type");
  }
  return item.write(
      Tree::dict({{"type_name", args.item.type_name}, {"message", Bytes{args.item.bytes}}}));
}

Result<ProtoMessage> ProtoCheckpointHandler::restore(const args::ProtoRestore& args,
                                                     const ItemReader& item) const {
  const Tree tree = STEPSTONE_TRY(item.read());
  ProtoMessage message{.type_name = STEPSTONE_TRY(field<std::string>(tree, "type_name", item)),
                       .bytes = STEPSTONE_TRY(field<Bytes>(tree, "message", item)).bytes};
  if (!args.type_name.empty() && args.type_name != message.type_name) {
    return fail(ErrorCode::kMismatch,
                fmt::format("{} is a message of type '{}', not '{}'", item.where(),
                            printable(message.type_name), printable(args.type_name)));
  }
  return message;
}

Result<void> RandomKeyCheckpointHandler::save(const args::RandomKeySave& args,
                                              ItemWriter& item) const {
  if (args.item.algorithm.empty()) {
    return fail(ErrorCode::kInvalidArgument, "a random key needs the name of its algorithm");
  }
  return item.write(Tree::dict({{"algorithm", args.item.algorithm}, {"state", args.item.state}}));
}

Result<RandomKey> RandomKeyCheckpointHandler::restore(const args::RandomKeyRestore& args,
                                                      const ItemReader& item) const {
  Tree tree = STEPSTONE_TRY(item.read());
  RandomKey key{.algorithm = STEPSTONE_TRY(field<std::string>(tree, "algorithm", item)),
                .state = {}};
  Tree* const state = tree.find("state");
  if (state == nullptr) {
    return fail(ErrorCode::kCorrupt, item.where() + ": what its handler stored has no 'state'");
  }
  key.state = std::move(*state);
  if (!args.algorithm.empty() && args.algorithm != key.algorithm) {
    return fail(ErrorCode::kMismatch,
                fmt::format("{} is a key of the algorithm '{}', not '{}'", item.where(),
                            printable(key.algorithm), printable(args.algorithm)));
  }
  return key;
}

Result<void> StatefulCheckpointHandler::save(const args::StatefulSave& args,
                                             ItemWriter& item) const {
  return item.write(STEPSTONE_TRY_CONTEXT(args.item->save_state(), "save_state()"));
}

Result<Tree> StatefulCheckpointHandler::restore(const args::StatefulRestore& args,
                                                const ItemReader& item) const {
  Tree state = STEPSTONE_TRY(item.read());
  if (args.item != nullptr) {
    STEPSTONE_TRY_CONTEXT(args.item->load_state(state), item.where() + ": load_state()");
  }
  return state;
}

}  // namespace stepstone
