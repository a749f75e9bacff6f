#pragma once
// What a CheckpointManager can be told when it is opened. api/README.md has a table of Orbax's 33
// options, and where each is found here.

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "best_n.h"
#include "handler_registry.h"
#include "json_text.h"
#include "preemption.h"
#include "preservation_policies.h"
#include "save_policies.h"
#include "statistics.h"
#include "step_names.h"
#include "storage_options.h"

namespace stepstone {

struct AsyncOptions {
  // How long a call waits at most for saves in the background: then it returns kBusy, and the saves
  // go on. nullopt: as long as it takes.
  std::optional<std::chrono::nanoseconds> timeout = std::chrono::seconds(1200);
  // Called when a save in the background is durable, as CheckpointManagerOptions::on_save is, and
  // before it.
  std::function<void()> post_finalization_callback = nullptr;
};

enum class BestMode : std::uint8_t { kMax, kMin };

// In the order of meaning, in which initializers name them, not of size.
// NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding)
struct CheckpointManagerOptions {
  // When to save. By default: multiples of the interval, the steps in save_on_steps, the first step
  // of all, and any step once the process is about to be ended. should_save_fn takes the place of
  // interval, list and first step; save_decision_policy takes that of all.
  std::uint64_t save_interval_steps = 1;  // Not 0.
  // What to keep, chosen anew in the commit of each save, which always survives it: the newest
  // max_to_keep (nullopt: all), with best_fn the best so many and the newest; besides, multiples of
  // keep_period, and one in each keep_time_interval. A step that is filled in before the newest
  // counts as one of the max_to_keep until the next save; where that is 1, the newest stays as
  // well. preservation_policy takes the place of all these, and does not go with them.
  std::optional<std::uint64_t> max_to_keep = std::nullopt;  // Not 0.
  bool create = true;      // Create the directory if it is missing.
  bool read_only = false;  // save(), delete_step() and whatever else writes fail with kReadOnly.
  bool enable_async_checkpointing = true;  // false: save() returns when the step is durable.

  StorageOptions storage = {};

  // How many bytes the saves in the background may hold together: the leaves of each, copied or
  // referred to, from save() until its step is durable. A save that does not fit waits until it
  // does, or until it is alone. 0: one save at a time, and so at most one copy of the state.
  std::uint64_t async_queue_size_bytes = 0;
  // So much memory for copies is obtained, and its pages too, by open() instead of the first save.
  // As large as the borrowed arrays of a save (of all saves in the queue), it makes the first save
  // stall no longer than the others.
  std::uint64_t staging_reserve_bytes = 0;

  // Called once for each save that succeeded, when its step is durable, and for each restore that
  // did: by the thread that finished it, which for an asynchronous save is the manager's own. One
  // call of on_save at a time; those of on_restore may overlap. Waiting for a save waits for its
  // callback too, so that a callback must not wait for one: of this manager, it may call only the
  // methods that are const, and check_for_errors(). An exception that it throws is dropped.
  std::function<void(const SaveStatistics& statistics)> on_save = nullptr;
  std::function<void(const RestoreStatistics& statistics)> on_restore = nullptr;
  // Called while a step is written, from any thread but never twice at once. Must not throw, nor
  // call this manager.
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> progress = nullptr;

  std::set<std::uint64_t> save_on_steps = {};
  // (step, newest step or nullopt) -> whether to save.
  std::function<bool(std::uint64_t step, std::optional<std::uint64_t> latest_step)> should_save_fn =
      nullptr;
  std::shared_ptr<const SaveDecisionPolicy> save_decision_policy = nullptr;
  // false: policies are always told that no save is in progress.
  bool enable_should_save_is_saving_in_progress_check = true;

  std::optional<std::uint64_t> keep_period = std::nullopt;  // Not 0.
  std::optional<std::chrono::nanoseconds> keep_time_interval = std::nullopt;
  MetricFunction best_fn = nullptr;
  BestMode best_mode = BestMode::kMax;
  bool keep_checkpoints_without_metrics = true;
  std::shared_ptr<const PreservationPolicy> preservation_policy = nullptr;
  bool prevent_write_metrics =
      false;  // Only this manager knows the metrics, as long as it is open.

  // What step_name() calls a step; step_name_format takes the place of the other two.
  std::string step_prefix = {};
  unsigned step_format_fixed_length = 0;
  std::shared_ptr<const StepNameFormat> step_name_format = nullptr;

  AsyncOptions async_options = {};
  // Null: request_preemption() is the only notice.
  std::shared_ptr<Preemption> preemption = nullptr;
  // What time it is; null: the system's clock.
  std::function<std::chrono::system_clock::time_point()> clock = nullptr;
  bool save_root_metadata = true;  // false: ManagerItems::metadata is not stored.

  // These change nothing, because nothing here is as they suppose; api/README.md says why.
  bool cleanup_tmp_directories = false;
  std::optional<std::string> todelete_subdir = std::nullopt;
  std::optional<std::string> todelete_full_path = std::nullopt;
  bool enable_background_delete = false;
  std::optional<unsigned> num_deletion_threads = std::nullopt;
  bool lightweight_initialize = false;
};

// What a manager saves. Without names and handlers, the first call that succeeds decides whether it
// is one object or several named ones.
struct ManagerItems {
  // The items of each step, which are then given as an args::Composite of some of these names.
  std::vector<std::string> item_names = {};
  // The handler of each of these items. Also makes the manager one of named items.
  std::map<std::string, std::shared_ptr<const AnyCheckpointHandler>> item_handlers = {};
  // The handler of the one object. Does not go with the two above.
  std::shared_ptr<const AnyCheckpointHandler> item_handler = nullptr;
  // In the place of the library's handlers. Does not go with any of the above.
  std::optional<HandlerRegistry> handler_registry = std::nullopt;
  // A JSON dict about the run. Stored once: a store that has one keeps it, and this is ignored.
  JsonText metadata = {};
};

}  // namespace stepstone
