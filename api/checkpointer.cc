#include "api/checkpointer.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "api/checkpoint_path.h"
#include "api/checkpoint_plan.h"
#include "api/checkpoint_save.h"
#include "engine/store.h"

namespace stepstone {
namespace {

// What a path is for must be in the message, once.
Error at_path(Error error, const std::filesystem::path& path) {
  if (error.message.find(path.string()) != std::string::npos) return error;
  return with_context(std::move(error), path.string());
}

Result<AnyValue> restore_checkpoint(const std::filesystem::path& path, const AnyValue& args,
                                    const HandlerRegistry& registry) {
  const OpenCheckpoint open = STEPSTONE_TRY(open_checkpoint(path));
  const auto* const composite = args.get_if<args::Composite>();
  if (open.item) {
    if (composite != nullptr) {
      return fail(ErrorCode::kInvalidArgument, "the path is that of one item, not of several");
    }
    return restore_item(*open.reader, *open.item, args, registry);
  }
  if (composite != nullptr) {
    return AnyValue(STEPSTONE_TRY(restore_items(*open.reader, *composite, registry)));
  }
  if (!is_single_item(open.reader->record())) {
    std::string names;
    for (const ItemSummary& item : open.reader->record().items) {
      names += (names.empty() ? "'" : ", '") + printable(item.name) + "'";
    }
    return fail(ErrorCode::kMismatch,
                fmt::format("it has the items {}: restore an args::Composite, or one of them as {}",
                            names, (path / open.reader->record().items.front().name).string()));
  }
  return restore_item(*open.reader, kDefaultItem, args, registry);
}

Result<StepMetadata> metadata_of(const std::filesystem::path& path,
                                 const HandlerRegistry& registry) {
  const OpenCheckpoint open = STEPSTONE_TRY(open_checkpoint(path));
  return step_metadata(*open.reader, registry, open.item);
}

// Runs `call`, puts the path into its error.
template <typename Call>
auto at(const std::filesystem::path& path, Call call) -> decltype(call()) {
  try {
    auto result = call();
    if (result) return result;
    return tl::unexpected<Error>(at_path(std::move(result).error(), path));
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kLimit, path.string() + ": out of memory");
  }
}

HandlerRegistry with_handler(std::shared_ptr<const AnyCheckpointHandler> handler) {
  HandlerRegistry registry = HandlerRegistry::defaults();
  // The name is free, and a null handler is left out: then the arguments decide.
  static_cast<void>(registry.add(std::string(kDefaultItem), std::move(handler)));
  return registry;
}

}  // namespace

Checkpointer::Checkpointer(HandlerRegistry registry) : registry_(std::move(registry)) {}

Checkpointer::Checkpointer(std::shared_ptr<const AnyCheckpointHandler> handler)
    : registry_(with_handler(std::move(handler))) {}

Checkpointer::Checkpointer(const CompositeCheckpointHandler& handler)
    : registry_(handler.registry()), is_composite_(true), item_names_(handler.item_names()) {}

Result<void> Checkpointer::check_open(const std::filesystem::path& path) const {
  if (!is_closed_) return {};
  return fail(ErrorCode::kClosed, path.string() + ": the checkpointer is closed");
}

Result<void> Checkpointer::check_save(const std::filesystem::path& path,
                                      const AnyValue& args) const {
  STEPSTONE_TRY(check_open(path));
  const auto* const composite = args.get_if<args::Composite>();
  if (is_composite_ && composite == nullptr) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{}: {} where an args::Composite of several items is wanted",
                            path.string(), args.type_name()));
  }
  if (item_names_.empty() || composite == nullptr) return {};
  for (const std::string& name : composite->names()) {
    if (std::find(item_names_.begin(), item_names_.end(), name) != item_names_.end()) continue;
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{}: item '{}' is none of those that the CompositeCheckpointHandler "
                            "was made for",
                            path.string(), printable(name)));
  }
  return {};
}

Result<void> Checkpointer::save(const std::filesystem::path& path, const args::CheckpointArgs& args,
                                const SaveOptions& options) const {
  return at(path, [&]() -> Result<void> {
    STEPSTONE_TRY(check_save(path, args));
    return STEPSTONE_TRY(CheckpointSave::begin(path, args, registry_, options))->finish();
  });
}

Result<AnyValue> Checkpointer::restore_any(const std::filesystem::path& path,
                                           const AnyValue& args) const {
  return at(path, [&]() -> Result<AnyValue> {
    STEPSTONE_TRY(check_open(path));
    return restore_checkpoint(path, args, registry_);
  });
}

Result<StepMetadata> Checkpointer::metadata(const std::filesystem::path& path) const {
  return at(path, [&]() -> Result<StepMetadata> {
    STEPSTONE_TRY(check_open(path));
    return metadata_of(path, registry_);
  });
}

}  // namespace stepstone
