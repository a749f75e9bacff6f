// What a manager does besides saving.
#include "api/manager_impl.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "api/json.h"
#include "engine/parallel.h"

namespace stepstone {
namespace {

using Clock = std::chrono::steady_clock;

Result<std::optional<Tree>> parsed(const std::string& json, const std::string& what) {
  if (json.empty()) return std::optional<Tree>();
  return std::optional<Tree>(STEPSTONE_TRY_CONTEXT(from_json(json), what));
}

}  // namespace

CheckpointManager::Impl::Impl(std::filesystem::path directory, SharedStore store,
                              ManagerSetup setup)
    : directory_(std::move(directory)),
      setup_(std::move(setup)),
      store_(std::move(store)),
      queue_(directory_.string(), options_.async_queue_size_bytes, options_.async_options.timeout) {
  if (setup_.is_single) item_mode_ = ItemMode::kSingle;
  if (setup_.is_multiple) item_mode_ = ItemMode::kMultiple;
  shown_steps_ = store_->steps();
}

Result<void> CheckpointManager::Impl::prepare() {
  STEPSTONE_TRY_CONTEXT(staging_.reserve(options_.staging_reserve_bytes), directory_.string());
  if (setup_.root_metadata.empty() || options_.read_only || !options_.save_root_metadata ||
      !STEPSTONE_TRY(store_->custom_metadata()).empty()) {
    return {};
  }
  return store_->set_custom_metadata(setup_.root_metadata);
}

Result<void> CheckpointManager::Impl::wait_until_finished(SaveQueue::Timeout timeout) {
  const std::scoped_lock call(call_mutex_);
  STEPSTONE_TRY(queue_.wait_until_empty(timeout));
  return check_for_errors();
}

Result<AnyValue> CheckpointManager::Impl::restore(std::optional<std::uint64_t> step,
                                                  const args::CheckpointArgs& args) {
  const Clock::time_point begun = Clock::now();
  auto reader = STEPSTONE_TRY(read_step(step));
  const std::uint64_t found = reader->record().save.step;
  if (args.has_value()) STEPSTONE_TRY(check_items(fmt::format("step {}", found), args));
  RestoreStatistics statistics;
  statistics.step = found;
  statistics.thread_count = effective_thread_count(0);
  AnyValue restored = STEPSTONE_TRY(restore_step(*reader, args, setup_.registry, &statistics));
  settle_mode(restored.get_if<args::Composite>() != nullptr);
  // A callback may take its time; the store can be closed meanwhile.
  reader.reset();
  statistics.total_s = std::chrono::duration<double>(Clock::now() - begun).count();
  report(statistics, options_.on_restore, last_restore_);
  return restored;
}

// Waits for the saves in the background first.
Result<std::shared_ptr<const StepReader>> CheckpointManager::Impl::read_step(
    std::optional<std::uint64_t> step) {
  const std::scoped_lock call(call_mutex_);
  STEPSTONE_TRY(check_open());
  STEPSTONE_TRY(queue_.wait_until_empty());
  return read_committed(step);
}

Result<std::shared_ptr<const StepReader>> CheckpointManager::Impl::read_committed(
    std::optional<std::uint64_t> step) {
  if (!step) {
    const std::vector<std::uint64_t> steps = all_steps();
    if (steps.empty()) {
      return fail(ErrorCode::kNotFound,
                  fmt::format("{} has no checkpoint yet", directory_.string()));
    }
    step = steps.back();
  }
  const std::scoped_lock lock(state_mutex_);
  STEPSTONE_TRY(check_open());
  return store_->read_step(*step);
}

Result<HeldStep> CheckpointManager::Impl::hold(std::shared_ptr<const StepReader> reader) {
  std::unique_ptr<SharedStore> share;
  {
    const std::scoped_lock lock(state_mutex_);
    if (!store_.is_open()) STEPSTONE_TRY(check_open());
    share = std::make_unique<SharedStore>(store_.share());
  }
  if ((*share)->is_read_only()) STEPSTONE_TRY(reader->hold_files());
  return HeldStep(std::move(share), std::move(reader), setup_.registry);
}

std::vector<std::uint64_t> CheckpointManager::Impl::all_steps() const {
  const std::scoped_lock lock(state_mutex_);
  if (!store_.is_open()) return {};
  std::vector<std::uint64_t> steps = store_->steps();
  if (!options_.read_only) return steps;
  std::vector<std::uint64_t> shown;
  std::set_intersection(steps.begin(), steps.end(), shown_steps_.begin(), shown_steps_.end(),
                        std::back_inserter(shown));
  return shown;
}

std::optional<std::uint64_t> CheckpointManager::Impl::best_step() {
  const std::vector<std::uint64_t> shown = all_steps();
  if (shown.empty()) return std::nullopt;
  if (!setup_.best_fn) return shown.back();
  std::vector<CheckpointInfo> infos;
  {
    const std::scoped_lock lock(state_mutex_);
    if (store_.is_open()) infos = history_.list(*store_);
  }
  std::erase_if(infos, [&](const CheckpointInfo& info) {
    return !std::binary_search(shown.begin(), shown.end(), info.step);
  });
  const std::vector<std::size_t> ranked =
      ranked_by_metric(infos, setup_.best_fn, options_.best_mode == BestMode::kMin);
  return ranked.empty() ? shown.back() : infos[ranked.front()].step;
}

Result<std::optional<Tree>> CheckpointManager::Impl::metrics(std::uint64_t step) {
  const std::scoped_lock lock(state_mutex_);
  STEPSTONE_TRY(check_open());
  STEPSTONE_TRY(store_->step_record(step));
  for (CheckpointInfo& info : history_.list(*store_)) {
    if (info.step == step) return std::move(info.metrics);
  }
  return std::optional<Tree>();
}

Result<StepMetadata> CheckpointManager::Impl::metadata(std::uint64_t step) {
  std::shared_ptr<const StepReader> reader;
  {
    const std::scoped_lock lock(state_mutex_);
    STEPSTONE_TRY(check_open());
    reader = STEPSTONE_TRY(store_->read_step(step));
  }
  StepMetadata metadata = STEPSTONE_TRY(step_metadata(*reader, setup_.registry));
  settle_mode(!is_single_item(reader->record()));
  if (options_.prevent_write_metrics) {
    metadata.metrics = STEPSTONE_TRY(metrics(step)).value_or(Tree());
  }
  return metadata;
}

Result<RootMetadata> CheckpointManager::Impl::metadata() {
  std::string json;
  {
    const std::scoped_lock lock(state_mutex_);
    STEPSTONE_TRY(check_open());
    json = STEPSTONE_TRY(store_->custom_metadata());
  }
  if (json.empty()) json = setup_.root_metadata;
  return RootMetadata{STEPSTONE_TRY(parsed(json, "metadata of the run"))};
}

Result<void> CheckpointManager::Impl::reload() {
  const std::scoped_lock call(call_mutex_);
  const std::scoped_lock lock(state_mutex_);
  STEPSTONE_TRY(check_open());
  STEPSTONE_TRY(store_.reload());
  shown_steps_ = store_->steps();
  return {};
}

Result<void> CheckpointManager::Impl::delete_step(std::uint64_t step) {
  const std::scoped_lock call(call_mutex_);
  STEPSTONE_TRY(check_open());
  if (options_.read_only) {
    return fail(ErrorCode::kReadOnly,
                fmt::format("step {}: {} was opened read-only", step, directory_.string()));
  }
  STEPSTONE_TRY(queue_.wait_until_empty());
  return store_->retire(std::span(&step, 1));
}

bool CheckpointManager::Impl::reached_preemption() const {
  if (!options_.preemption->is_requested()) return false;
  return has_told_policy_of_preemption_ || options_.read_only;
}

std::optional<SaveStatistics> CheckpointManager::Impl::last_save_statistics() const {
  const std::scoped_lock lock(state_mutex_);
  return last_save_;
}

std::optional<RestoreStatistics> CheckpointManager::Impl::last_restore_statistics() const {
  const std::scoped_lock lock(state_mutex_);
  return last_restore_;
}

Result<void> CheckpointManager::Impl::check_open() const {
  if (store_.is_open()) return {};
  return fail(ErrorCode::kClosed, fmt::format("the manager of {} is closed", directory_.string()));
}

Result<void> CheckpointManager::Impl::close() {
  const std::scoped_lock call(call_mutex_);
  STEPSTONE_TRY(queue_.stop());
  const Result<void> saved = check_for_errors();
  staging_.trim();
  const std::scoped_lock lock(state_mutex_);
  const Result<void> closed = store_.close();
  return saved ? closed : saved;
}

}  // namespace stepstone
