// How a manager saves: the policy is asked, the plan is made and staged while the trainer waits,
// and the queue's thread writes and commits it. Which steps the commit retires is decided within
// it, when no other commit can come between.
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <new>

#include "api/json.h"
#include "api/manager_impl.h"
#include "format/limits.h"

namespace stepstone {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

std::int64_t unix_ns(std::chrono::system_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

// Policies may be anybody's: what they throw must not get past them.
template <typename Call>
auto ask(const char* policy, Call call) -> Result<decltype(call())> {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kLimit, fmt::format("the {} ran out of memory", policy));
  } catch (const std::exception& exception) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("the {} threw: {}", policy, exception.what()));
  } catch (...) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("the {} threw", policy));
  }
}

}  // namespace

struct CheckpointManager::Impl::Save {
  std::unique_ptr<StepWriter> writer;  // Holds the leaves: copies, and the arrays referred to.
  std::optional<CheckpointPlan> plan;  // The handlers' background parts.
  CheckpointInfo info;
  SaveStatistics statistics;
  Clock::time_point begun;
  Clock::time_point queued;
};

Result<bool> CheckpointManager::Impl::save(std::uint64_t step, const args::CheckpointArgs& args,
                                           const SaveOptions& options) {
  const std::scoped_lock call(call_mutex_);
  STEPSTONE_TRY(check_open());
  if (options_.read_only) {
    return fail(ErrorCode::kReadOnly,
                fmt::format("step {}: {} was opened read-only", step, directory_.string()));
  }
  STEPSTONE_TRY(check_for_errors());
  const bool is_preempted = options_.preemption->is_requested();
  Result<bool> saved = save_now(step, args, options, is_preempted);
  // Whatever came of it, the trainer need not go on for one more attempt.
  if (is_preempted) has_told_policy_of_preemption_ = true;
  return saved;
}

Result<bool> CheckpointManager::Impl::save_now(std::uint64_t step, const args::CheckpointArgs& args,
                                               const SaveOptions& options, bool is_preempted) {
  const Clock::time_point begun = Clock::now();
  if (step > limits::kStepMax) {
    return fail(ErrorCode::kLimit,
                fmt::format("step {} is over the limit of {}", step, limits::kStepMax));
  }
  if (!args.has_value()) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("step {}: there are no args that say what to save", step));
  }
  if (!options.force && !STEPSTONE_TRY(decide(step))) return false;
  const auto save = STEPSTONE_TRY(begin_save(step, args, options));
  save->begun = begun;
  if (!options_.enable_async_checkpointing) {
    STEPSTONE_TRY(finish(*save));
  } else {
    STEPSTONE_TRY(enqueue(save));
  }
  settle_mode(args.get_if<args::Composite>() != nullptr);
  if (is_preempted) {
    STEPSTONE_TRY(queue_.wait_until_empty());
    STEPSTONE_TRY(check_for_errors());
  }
  return true;
}

// Plans the save and checks all that can be checked.
Result<std::shared_ptr<CheckpointManager::Impl::Save>> CheckpointManager::Impl::begin_save(
    std::uint64_t step, const args::CheckpointArgs& args, const SaveOptions& options) {
  const std::string name = fmt::format("step {}", step);
  STEPSTONE_TRY(check_items(name, args));
  std::string metrics = STEPSTONE_TRY_CONTEXT(options.metrics.text(), name + ": metrics");
  std::string custom_metadata =
      STEPSTONE_TRY(json_dict(options.custom_metadata, name + ": custom_metadata"));
  auto save = std::make_shared<Save>();
  save->info = {.step = step, .time = options_.clock(), .metrics = std::nullopt};
  if (!metrics.empty()) {
    save->info.metrics = STEPSTONE_TRY_CONTEXT(from_json(metrics), name + ": metrics");
  }
  save->plan = STEPSTONE_TRY(CheckpointPlan::make(step, args, setup_.registry, options_.storage));
  if (!options.overwrite && queue_.contains(step)) {
    return fail(ErrorCode::kAlreadyExists,
                fmt::format("step {} is being saved to {}", step, directory_.string()));
  }
  if (options_.prevent_write_metrics) metrics.clear();
  save->writer =
      STEPSTONE_TRY(store_->begin_save(step, {.overwrite = options.overwrite,
                                              .share = options_.storage.share,
                                              .compression = options_.storage.compression,
                                              .metrics = std::move(metrics),
                                              .custom_metadata = std::move(custom_metadata),
                                              .preservation_policy = setup_.preservation_text,
                                              .started_unix_ns = unix_ns(save->info.time)}));
  if (options_.progress) save->writer->on_progress(options_.progress);
  STEPSTONE_TRY(save->plan->put(*save->writer));
  save->statistics.step = step;
  save->statistics.leaf_count = save->plan->leaf_count();
  save->statistics.size_bytes = save->plan->size_bytes();
  return save;
}

Result<void> CheckpointManager::Impl::enqueue(const std::shared_ptr<Save>& save) {
  SaveStatistics& statistics = save->statistics;
  statistics.is_async = true;
  statistics.wait_s = STEPSTONE_TRY(queue_.wait_for_room(statistics.size_bytes));
  // Of those that it waited for.
  STEPSTONE_TRY(check_for_errors());
  const Clock::time_point planned = Clock::now();
  statistics.staged_bytes =
      STEPSTONE_TRY_CONTEXT(save->plan->stage(staging_), fmt::format("step {}", statistics.step));
  statistics.staging_capacity_bytes = staging_.capacity_bytes();
  save->queued = Clock::now();
  statistics.stage_s = seconds_between(planned, save->queued);
  statistics.stall_s = seconds_between(save->begun, save->queued);
  queue_.push({.info = save->info, .size_bytes = statistics.size_bytes, .finish = [this, save] {
                 return finish(*save);
               }});
  return {};
}

bool CheckpointManager::Impl::should_save(std::uint64_t step) {
  {
    const std::scoped_lock lock(state_mutex_);
    if (!store_.is_open() || options_.read_only) return false;
  }
  return decide(step).value_or(false);
}

Result<bool> CheckpointManager::Impl::decide(std::uint64_t step) {
  // The queue first: a save that is finished meanwhile is among the steps then.
  const std::vector<CheckpointInfo> queued = queue_.saves();
  std::vector<CheckpointInfo> previous;
  {
    const std::scoped_lock lock(state_mutex_);
    if (store_.is_open()) previous = history_.list(*store_);
  }
  for (const CheckpointInfo& info : queued) {
    const auto place = std::lower_bound(
        previous.begin(), previous.end(), info,
        [](const CheckpointInfo& a, const CheckpointInfo& b) { return a.step < b.step; });
    if (place == previous.end() || place->step != info.step) previous.insert(place, info);
  }
  const DecisionContext context = {
      .is_saving_in_progress =
          options_.enable_should_save_is_saving_in_progress_check && !queued.empty(),
      .reached_preemption = options_.preemption->is_requested()};
  const CheckpointInfo info = {.step = step, .time = options_.clock(), .metrics = std::nullopt};
  const auto call = [&] { return setup_.save_policy->should_save(info, previous, context); };
  return STEPSTONE_TRY_CONTEXT(ask("save decision policy", call), fmt::format("step {}", step));
}

Result<void> CheckpointManager::Impl::check_items(const std::string& what,
                                                  const args::CheckpointArgs& args) const {
  const auto* const items = args.get_if<args::Composite>();
  const ItemMode mode = item_mode_;
  if (items == nullptr && mode == ItemMode::kMultiple) {
    return fail(ErrorCode::kInvalidArgument,
                what + ": this manager is for named items: give args::Composite");
  }
  if (items != nullptr && mode == ItemMode::kSingle) {
    return fail(ErrorCode::kInvalidArgument,
                what + ": this manager is for one object: give its arguments, not args::Composite");
  }
  if (items == nullptr || setup_.item_names.empty()) return {};
  for (const auto& [name, value] : *items) {
    const auto& known = setup_.item_names;
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{} item '{}' is not among the manager's item_names ('{}')", what,
                            printable(name), fmt::join(known, "', '")));
  }
  return {};
}

void CheckpointManager::Impl::settle_mode(bool is_composite) {
  ItemMode undecided = ItemMode::kUndecided;
  item_mode_.compare_exchange_strong(undecided,
                                     is_composite ? ItemMode::kMultiple : ItemMode::kSingle);
}

// Writes a save and makes it durable. Whatever becomes of it, its memory is free afterwards.
Result<void> CheckpointManager::Impl::finish(Save& save) {
  SaveStatistics& statistics = save.statistics;
  const Clock::time_point begun = Clock::now();
  if (statistics.is_async) statistics.queue_s = seconds_between(save.queued, begun);
  const Result<void> committed = commit(save);
  const Clock::time_point ended = Clock::now();
  const SaveCounters counters = save.writer->counters();
  save.plan.reset();
  save.writer.reset();
  if (!committed) return committed;
  statistics.size_bytes = counters.size_bytes;
  statistics.stored_bytes = counters.stored_bytes;
  statistics.shared_bytes = counters.shared_bytes;
  statistics.thread_count = counters.thread_count;
  statistics.write_s = std::chrono::duration<double>(counters.write_time).count();
  statistics.commit_s = std::chrono::duration<double>(counters.commit_time).count();
  statistics.total_s = seconds_between(save.begun, ended);
  if (!statistics.is_async) statistics.stall_s = statistics.total_s;
  const std::function<void()>& finalized = options_.async_options.post_finalization_callback;
  const auto callback = [&](const SaveStatistics& reported) {
    if (finalized && reported.is_async) finalized();
    if (options_.on_save) options_.on_save(reported);
  };
  report<SaveStatistics>(statistics, callback, last_save_);
  return {};
}

Result<void> CheckpointManager::Impl::commit(Save& save) {
  try {
    STEPSTONE_TRY(save.plan->run_background(*save.writer));
    save.statistics.leaf_count = save.plan->leaf_count();
    const StepRecord record =
        STEPSTONE_TRY(save.writer->commit_choosing([&] { return choose_retired(save.info); }));
    if (options_.prevent_write_metrics && save.info.metrics) {
      history_.set_unwritten_metrics(record.save, *save.info.metrics);
    }
    return {};
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kLimit, fmt::format("step {}: out of memory", save.info.step));
  }
}

Result<std::vector<std::uint64_t>> CheckpointManager::Impl::choose_retired(
    const CheckpointInfo& saved) {
  if (setup_.preservation_policy == nullptr) return std::vector<std::uint64_t>();
  // The share does not change while a save is under way.
  std::vector<CheckpointInfo> infos = history_.list(*store_);
  std::erase_if(infos, [&](const CheckpointInfo& info) { return info.step == saved.step; });
  const auto place = std::find_if(infos.begin(), infos.end(), [&](const CheckpointInfo& info) {
    return info.step > saved.step;
  });
  infos.insert(place, saved);
  const PreservationContext context = {.now = options_.clock(), .saved_step = saved.step};
  const auto call = [&] { return setup_.preservation_policy->should_preserve(infos, context); };
  const std::string name = fmt::format("step {}", saved.step);
  const std::vector<bool> kept = STEPSTONE_TRY_CONTEXT(ask("preservation policy", call), name);
  if (kept.size() != infos.size()) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{}: the preservation policy answered for {} of {} checkpoints", name,
                            kept.size(), infos.size()));
  }
  std::vector<std::uint64_t> retired;
  for (std::size_t i = 0; i < infos.size(); ++i) {
    if (!kept[i] && infos[i].step != saved.step) retired.push_back(infos[i].step);
  }
  return retired;
}

template <typename Statistics>
void CheckpointManager::Impl::report(
    const Statistics& statistics, const std::function<void(const Statistics& statistics)>& callback,
    std::optional<Statistics>& last) {
  {
    const std::scoped_lock lock(state_mutex_);
    last = statistics;
  }
  if (!callback) return;
  try {
    callback(statistics);
  } catch (...) {
    // The save or the restore has succeeded, whatever the callback thinks of it.
    return;
  }
}

template void CheckpointManager::Impl::report(
    const RestoreStatistics& statistics,
    const std::function<void(const RestoreStatistics& statistics)>& callback,
    std::optional<RestoreStatistics>& last);

}  // namespace stepstone
