#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "api/c/call.h"
#include "api/c/handles.h"
#include "api/json.h"

namespace stepstone::c {
namespace {

// Longer waits than this (three centuries) overflow the clock: they are for ever.
constexpr std::uint64_t kTimeoutMaxMs =
    std::numeric_limits<std::int64_t>::max() / std::int64_t{1'000'000};

Result<CheckpointManagerOptions> manager_options(const stepstone_options& given) {
  if (given.struct_size_bytes > sizeof(stepstone_options)) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("options.struct_size_bytes is {}, and this library knows {}: it is "
                            "older than the header",
                            given.struct_size_bytes, sizeof(stepstone_options)));
  }
  if (given.struct_size_bytes < sizeof(stepstone_options)) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("options.struct_size_bytes is {}, not {}: begin with "
                            "STEPSTONE_OPTIONS_INIT",
                            given.struct_size_bytes, sizeof(stepstone_options)));
  }
  CheckpointManagerOptions options;
  options.save_interval_steps = given.save_interval_steps;
  if (given.max_to_keep != 0) options.max_to_keep = given.max_to_keep;
  options.create = given.create != 0;
  options.read_only = given.read_only != 0;
  options.enable_async_checkpointing = given.async != 0;
  options.async_queue_size_bytes = given.async_queue_size_bytes;
  options.async_options.timeout = std::nullopt;
  if (given.wait_timeout_ms != 0 && given.wait_timeout_ms <= kTimeoutMaxMs) {
    options.async_options.timeout = std::chrono::milliseconds(given.wait_timeout_ms);
  }
  return options;
}

// Runs `call` with the manager of a store.
template <typename Call>
stepstone_code with_manager(stepstone_store* store, const Call& call) {
  return guarded([&]() -> Result<void> {
    STEPSTONE_TRY(check_given({{"store", store}}));
    return call(*store->manager);
  });
}

Tree leaf_tree(const LeafMetadata& leaf) {
  std::vector<Tree> shape;
  for (const std::uint64_t extent : leaf.shape)
    shape.emplace_back(static_cast<std::int64_t>(extent));
  return Tree::dict({{"path", leaf.path},
                     {"kind", std::string(to_string(leaf.kind))},
                     {"dtype", leaf.dtype ? Tree(std::string(to_string(*leaf.dtype))) : Tree()},
                     {"shape", Tree::list(std::move(shape))},
                     {"size_bytes", static_cast<std::int64_t>(leaf.size_bytes)},
                     {"stored_bytes", static_cast<std::int64_t>(leaf.stored_bytes)}});
}

Tree metadata_tree(const StepMetadata& metadata) {
  std::vector<Tree> items;
  for (const auto& [name, item] : metadata.items) {
    std::vector<Tree> leaves;
    for (const LeafMetadata& leaf : item.leaves) leaves.push_back(leaf_tree(leaf));
    items.push_back(Tree::dict({{"name", printable(name)},
                                {"handler", printable(item.handler)},
                                {"size_bytes", static_cast<std::int64_t>(item.size_bytes)},
                                {"stored_bytes", static_cast<std::int64_t>(item.stored_bytes)},
                                {"custom_metadata", item.custom_metadata},
                                {"leaves", Tree::list(std::move(leaves))}}));
  }
  return Tree::dict({{"step", static_cast<std::int64_t>(metadata.step)},
                     {"init_timestamp_ns", metadata.init_timestamp_ns},
                     {"commit_timestamp_ns", metadata.commit_timestamp_ns},
                     {"size_bytes", static_cast<std::int64_t>(metadata.size_bytes)},
                     {"metrics", metadata.metrics},
                     {"custom_metadata", metadata.custom_metadata},
                     {"items", Tree::list(std::move(items))}});
}

Result<std::uint64_t> existing_step(const CheckpointManager& manager, std::uint64_t step) {
  if (step != STEPSTONE_LATEST) return step;
  const std::optional<std::uint64_t> latest = manager.latest_step();
  if (!latest) {
    return fail(ErrorCode::kNotFound, manager.directory().string() + ": there is no step yet");
  }
  return *latest;
}

// `part` picks what is wanted of the metadata.
template <typename Part>
stepstone_code give_json(stepstone_store* store, std::uint64_t step, char** json,
                         const Part& part) {
  return with_manager(store, [&](CheckpointManager& manager) -> Result<void> {
    STEPSTONE_TRY(check_given({{"json", json}}));
    const StepMetadata metadata =
        STEPSTONE_TRY(manager.metadata(STEPSTONE_TRY(existing_step(manager, step))));
    *json = STEPSTONE_TRY(new_text(STEPSTONE_TRY(to_json(part(metadata)))));
    return {};
  });
}

}  // namespace
}  // namespace stepstone::c

using namespace stepstone;  // NOLINT(google-build-using-namespace)

stepstone_code stepstone_open(const char* directory, const stepstone_options* options,
                              stepstone_store** store) {
  return c::guarded([&]() -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"directory", directory}, {"store", store}}));
    const stepstone_options defaults = STEPSTONE_OPTIONS_INIT;
    const CheckpointManagerOptions given =
        STEPSTONE_TRY(c::manager_options(options == nullptr ? defaults : *options));
    auto opened = std::make_unique<stepstone_store>();
    opened->manager = STEPSTONE_TRY(CheckpointManager::open(directory, given));
    *store = opened.release();
    return {};
  });
}

stepstone_code stepstone_close(stepstone_store* store) {
  return c::with_manager(store, [](CheckpointManager& manager) { return manager.close(); });
}

void stepstone_store_free(stepstone_store* store) {
  std::unique_ptr<stepstone_store>(store).reset();
}

stepstone_code stepstone_save(stepstone_store* store, uint64_t step,
                              const stepstone_checkpoint* checkpoint, uint32_t flags,
                              int32_t* saved) {
  return c::with_manager(store, [&](CheckpointManager& manager) -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"checkpoint", checkpoint}}));
    if ((flags & ~(STEPSTONE_SAVE_FORCE | STEPSTONE_SAVE_OVERWRITE)) != 0) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("step {}: flags {:#x} has a bit that is no flag", step, flags));
    }
    CheckpointManager::SaveOptions options;
    options.force = (flags & STEPSTONE_SAVE_FORCE) != 0;
    options.overwrite = (flags & STEPSTONE_SAVE_OVERWRITE) != 0;
    options.metrics = checkpoint->metrics;
    options.custom_metadata = checkpoint->custom_metadata;
    const bool is_saved = STEPSTONE_TRY(manager.save(step, c::save_args(*checkpoint), options));
    if (saved != nullptr) *saved = is_saved ? 1 : 0;
    return {};
  });
}

stepstone_code stepstone_wait(stepstone_store* store) {
  return c::with_manager(store,
                         [](CheckpointManager& manager) { return manager.wait_until_finished(); });
}

stepstone_code stepstone_check(stepstone_store* store) {
  return c::with_manager(store,
                         [](CheckpointManager& manager) { return manager.check_for_errors(); });
}

stepstone_code stepstone_is_saving(stepstone_store* store, int32_t* is_saving) {
  return c::with_manager(store, [&](CheckpointManager& manager) -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"is_saving", is_saving}}));
    *is_saving = manager.is_saving_in_progress() ? 1 : 0;
    return {};
  });
}

stepstone_code stepstone_steps(stepstone_store* store, uint64_t* steps, size_t capacity,
                               size_t* count) {
  return c::with_manager(store, [&](CheckpointManager& manager) -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"count", count}}));
    STEPSTONE_TRY(c::check_memory("steps", steps, capacity));
    const std::vector<std::uint64_t> all = manager.all_steps();
    std::copy_n(all.begin(), std::min(capacity, all.size()), steps);
    *count = all.size();
    return {};
  });
}

stepstone_code stepstone_latest_step(stepstone_store* store, uint64_t* step) {
  return c::with_manager(store, [&](CheckpointManager& manager) -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"step", step}}));
    *step = STEPSTONE_TRY(c::existing_step(manager, STEPSTONE_LATEST));
    return {};
  });
}

stepstone_code stepstone_reload(stepstone_store* store) {
  return c::with_manager(store, [](CheckpointManager& manager) { return manager.reload(); });
}

stepstone_code stepstone_retire(stepstone_store* store, uint64_t step) {
  return c::with_manager(store,
                         [&](CheckpointManager& manager) { return manager.delete_step(step); });
}

stepstone_code stepstone_metadata(stepstone_store* store, uint64_t step, char** json) {
  return c::give_json(store, step, json, c::metadata_tree);
}

stepstone_code stepstone_metrics(stepstone_store* store, uint64_t step, char** json) {
  return c::give_json(store, step, json, [](const StepMetadata& all) { return all.metrics; });
}

stepstone_code stepstone_custom_metadata(stepstone_store* store, uint64_t step, char** json) {
  return c::give_json(store, step, json,
                      [](const StepMetadata& all) { return all.custom_metadata; });
}
