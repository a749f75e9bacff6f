#include "api/checkpoint_manager.h"

#include <fmt/format.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <exception>
#include <mutex>
#include <new>
#include <thread>

#include "api/checkpoint_plan.h"
#include "engine/parallel.h"
#include "engine/staging_pool.h"
#include "engine/store.h"

namespace stepstone {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

}  // namespace

// The calling thread plans a save, waits for room, copies what is borrowed, and appends the save to
// the queue; one thread takes the saves from the queue's front. `call_mutex_` lets one call at a
// time start, await or close; `state_mutex_` guards what the background thread shares with the
// callers, keeps the store from being closed under those who ask for its steps, and is never held
// for long.
class CheckpointManager::Impl {
 public:
  Impl(std::unique_ptr<Store> store, CheckpointManagerOptions options)
      : directory_(store->directory()), options_(std::move(options)), store_(std::move(store)) {}

  Result<void> reserve_staging() { return staging_.reserve(options_.staging_reserve_bytes); }

  Result<bool> save(std::uint64_t step, const args::CheckpointArgs& args,
                    const SaveOptions& options) {
    const Clock::time_point begun = Clock::now();
    const std::scoped_lock call(call_mutex_);
    STEPSTONE_TRY(check_open());
    if (options_.read_only) {
      return fail(ErrorCode::kReadOnly,
                  fmt::format("step {}: {} was opened read-only", step, directory_.string()));
    }
    STEPSTONE_TRY(check_for_errors());
    if (!options.force && !should_save(step)) return false;
    CheckpointPlan plan =
        STEPSTONE_TRY(CheckpointPlan::make(step, args, registry_, options_.storage));
    STEPSTONE_TRY(check_not_queued(step));
    Save save;
    save.begun = begun;
    save.writer =
        STEPSTONE_TRY(store_->begin_save(step, {.share = options_.storage.share,
                                                .compression = options_.storage.compression,
                                                .metrics = options.metrics,
                                                .custom_metadata = options.custom_metadata}));
    STEPSTONE_TRY(plan.put(*save.writer));
    save.statistics.step = step;
    save.statistics.leaf_count = plan.leaf_count();
    save.statistics.size_bytes = plan.size_bytes();
    if (!options_.enable_async_checkpointing) {
      STEPSTONE_TRY(finish(save));
      return true;
    }
    save.statistics.is_async = true;
    save.statistics.wait_s = wait_for_room(plan.size_bytes());
    // Of those that it waited for.
    STEPSTONE_TRY(check_for_errors());
    const Clock::time_point planned = Clock::now();
    save.statistics.staged_bytes =
        STEPSTONE_TRY_CONTEXT(plan.stage(staging_), fmt::format("step {}", step));
    save.statistics.staging_capacity_bytes = staging_.capacity_bytes();
    save.queued = Clock::now();
    save.statistics.stage_s = seconds_between(planned, save.queued);
    save.statistics.stall_s = seconds_between(begun, save.queued);
    STEPSTONE_TRY(enqueue(std::move(save)));
    return true;
  }

  // The first save counts from its beginning, not only from its commit.
  bool should_save(std::uint64_t step) const {
    const std::scoped_lock lock(state_mutex_);
    return step % options_.save_interval_steps == 0 || (queue_.empty() && store_->steps().empty());
  }

  Result<void> wait_until_finished() {
    const std::scoped_lock call(call_mutex_);
    wait_for_queue();
    return check_for_errors();
  }

  Result<void> check_for_errors() {
    const std::scoped_lock lock(state_mutex_);
    if (!first_error_) return {};
    Error error = *std::move(first_error_);
    first_error_.reset();
    if (later_error_count_ != 0) {
      error.message += fmt::format(" (and {} more {} failed after it)", later_error_count_,
                                   later_error_count_ == 1 ? "save" : "saves");
      later_error_count_ = 0;
    }
    return tl::unexpected<Error>(std::move(error));
  }

  bool is_saving_in_progress() const {
    const std::scoped_lock lock(state_mutex_);
    return !queue_.empty();
  }

  Result<Tree> restore(std::optional<std::uint64_t> step, const args::CheckpointArgs& args) {
    const Clock::time_point begun = Clock::now();
    std::shared_ptr<const StepReader> reader;
    {
      const std::scoped_lock call(call_mutex_);
      STEPSTONE_TRY(check_open());
      wait_for_queue();
      if (!step) step = store_->latest_step();
      if (!step) {
        return fail(ErrorCode::kNotFound,
                    fmt::format("{} has no checkpoint yet", directory_.string()));
      }
      reader = STEPSTONE_TRY(store_->read_step(*step));
    }
    RestoreStatistics statistics;
    statistics.step = *step;
    statistics.thread_count = effective_thread_count(0);
    Tree tree = STEPSTONE_TRY(
        STEPSTONE_TRY(restore_item(*reader, kDefaultItem, args, registry_, &statistics))
            .get<Tree>());
    // A callback may take its time; the store can be closed meanwhile.
    reader.reset();
    statistics.total_s = seconds_between(begun, Clock::now());
    report(statistics, options_.on_restore, last_restore_);
    return tree;
  }

  std::vector<std::uint64_t> all_steps() const {
    const std::scoped_lock lock(state_mutex_);
    return store_->steps();
  }

  std::optional<SaveStatistics> last_save_statistics() const {
    const std::scoped_lock lock(state_mutex_);
    return last_save_;
  }

  std::optional<RestoreStatistics> last_restore_statistics() const {
    const std::scoped_lock lock(state_mutex_);
    return last_restore_;
  }

  Result<void> delete_step(std::uint64_t step) {
    const std::scoped_lock call(call_mutex_);
    STEPSTONE_TRY(check_open());
    wait_for_queue();
    return store_->retire(std::span(&step, 1));
  }

  const std::filesystem::path& directory() const { return directory_; }

  Result<void> close() {
    const std::scoped_lock call(call_mutex_);
    stop_worker();
    const Result<void> saved = check_for_errors();
    staging_.trim();
    const std::scoped_lock lock(state_mutex_);
    const Result<void> closed = store_->close();
    return saved ? closed : saved;
  }

 private:
  struct Save {
    std::unique_ptr<StepWriter> writer;  // Holds the leaves: copies, and the arrays referred to.
    SaveStatistics statistics;
    Clock::time_point begun;
    Clock::time_point queued;
  };

  // Writes a save and makes it durable. Whatever becomes of it, its memory is free afterwards.
  Result<void> finish(Save& save) {
    SaveStatistics& statistics = save.statistics;
    const Clock::time_point begun = Clock::now();
    if (statistics.is_async) statistics.queue_s = seconds_between(save.queued, begun);
    Result<void> committed = commit(*save.writer, statistics.step);
    const Clock::time_point ended = Clock::now();
    const SaveCounters counters = save.writer->counters();
    save.writer.reset();
    if (!committed) return committed;
    statistics.stored_bytes = counters.stored_bytes;
    statistics.shared_bytes = counters.shared_bytes;
    statistics.thread_count = counters.thread_count;
    statistics.write_s = std::chrono::duration<double>(counters.write_time).count();
    statistics.commit_s = std::chrono::duration<double>(counters.commit_time).count();
    statistics.total_s = seconds_between(save.begun, ended);
    if (!statistics.is_async) statistics.stall_s = statistics.total_s;
    report(statistics, options_.on_save, last_save_);
    return {};
  }

  Result<void> commit(StepWriter& writer, std::uint64_t step) const {
    try {
      STEPSTONE_TRY(writer.commit(retired_by(step)));
      return {};
    } catch (const std::bad_alloc&) {
      return fail(ErrorCode::kLimit, fmt::format("step {}: out of memory", step));
    }
  }

  template <typename Statistics>
  void report(const Statistics& statistics,
              const std::function<void(const Statistics& statistics)>& callback,
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

  Result<void> check_open() const {
    if (!store_->directory().empty()) return {};
    return fail(ErrorCode::kClosed,
                fmt::format("the manager of {} is closed", directory_.string()));
  }

  Result<void> check_not_queued(std::uint64_t step) const {
    const std::scoped_lock lock(state_mutex_);
    for (const Save& save : queue_) {
      if (save.statistics.step != step) continue;
      return fail(ErrorCode::kAlreadyExists,
                  fmt::format("step {} is being saved to {}", step, directory_.string()));
    }
    return {};
  }

  // Until a save of this size may join the queue. Returns for how many seconds.
  double wait_for_room(std::uint64_t size_bytes) {
    const Clock::time_point begun = Clock::now();
    std::unique_lock lock(state_mutex_);
    const auto has_room = [&] {
      return queue_.empty() || (queue_size_bytes_ <= options_.async_queue_size_bytes &&
                                size_bytes <= options_.async_queue_size_bytes - queue_size_bytes_);
    };
    if (has_room()) return 0;
    queue_changed_.wait(lock, has_room);
    return seconds_between(begun, Clock::now());
  }

  Result<void> enqueue(Save save) {
    {
      const std::scoped_lock lock(state_mutex_);
      queue_.push_back(std::move(save));
      queue_size_bytes_ += queue_.back().statistics.size_bytes;
    }
    queue_changed_.notify_all();
    if (worker_.joinable()) return {};
    try {
      worker_ = std::thread([this] { work(); });
    } catch (const std::exception&) {
      // No thread to be had, or no memory for one: the caller waits.
      finish_front();
      return check_for_errors();
    }
    return {};
  }

  void work() {
    while (true) {
      {
        std::unique_lock lock(state_mutex_);
        queue_changed_.wait(lock, [&] { return !queue_.empty() || is_stopping_; });
        if (queue_.empty()) return;
      }
      finish_front();
    }
  }

  // The save stays in the queue, where it is counted, until all is done. Only this takes saves out.
  void finish_front() {
    Save* save = nullptr;
    {
      const std::scoped_lock lock(state_mutex_);
      save = &queue_.front();
    }
    Result<void> finished = finish(*save);
    {
      const std::scoped_lock lock(state_mutex_);
      if (!finished && first_error_) ++later_error_count_;
      if (!finished && !first_error_) first_error_ = std::move(finished).error();
      queue_size_bytes_ -= save->statistics.size_bytes;
      queue_.pop_front();
    }
    queue_changed_.notify_all();
  }

  void wait_for_queue() {
    std::unique_lock lock(state_mutex_);
    queue_changed_.wait(lock, [&] { return queue_.empty(); });
  }

  // Once it has emptied the queue. The next asynchronous save would start another.
  void stop_worker() {
    if (!worker_.joinable()) return;
    {
      const std::scoped_lock lock(state_mutex_);
      is_stopping_ = true;
    }
    queue_changed_.notify_all();
    worker_.join();
    is_stopping_ = false;
  }

  // The steps that are too many once `step` is there: the oldest.
  std::vector<std::uint64_t> retired_by(std::uint64_t step) const {
    if (!options_.max_to_keep) return {};
    std::vector<std::uint64_t> steps = store_->steps();
    std::erase(steps, step);
    const std::uint64_t others_kept = *options_.max_to_keep - 1;
    if (steps.size() <= others_kept) return {};
    steps.resize(steps.size() - static_cast<std::size_t>(others_kept));
    return steps;
  }

  const std::filesystem::path directory_;
  const CheckpointManagerOptions options_;
  const HandlerRegistry registry_ = HandlerRegistry::defaults();
  std::mutex call_mutex_;
  std::unique_ptr<Store> store_;
  StagingPool staging_;
  std::thread worker_;  // From the first asynchronous save on.

  mutable std::mutex state_mutex_;  // Guards what follows.
  std::condition_variable queue_changed_;
  std::deque<Save> queue_;  // The front is being written.
  std::uint64_t queue_size_bytes_ = 0;
  bool is_stopping_ = false;
  std::optional<Error> first_error_;  // That nobody has seen.
  std::uint64_t later_error_count_ = 0;
  std::optional<SaveStatistics> last_save_;
  std::optional<RestoreStatistics> last_restore_;
};

CheckpointManager::CheckpointManager(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

CheckpointManager::~CheckpointManager() {
  const Result<void> closed = impl_->close();
  if (!closed) {
    std::fprintf(stderr, "stepstone: closing %s: %s\n", impl_->directory().c_str(),
                 closed.error().message.c_str());
  }
}

Result<std::unique_ptr<CheckpointManager>> CheckpointManager::open(
    const std::filesystem::path& directory, const CheckpointManagerOptions& options) {
  if (options.save_interval_steps == 0) {
    return fail(ErrorCode::kInvalidArgument, "save_interval_steps is 0: it must be at least 1");
  }
  if (options.max_to_keep == 0) {
    return fail(
        ErrorCode::kInvalidArgument,
        "max_to_keep is 0, which would delete every checkpoint: leave it unset to keep all");
  }
  try {
    auto store = STEPSTONE_TRY(
        Store::open(directory, {.create_if_missing = options.create && !options.read_only,
                                .read_only = options.read_only}));
    auto impl = std::make_unique<Impl>(std::move(store), options);
    STEPSTONE_TRY_CONTEXT(impl->reserve_staging(), directory.string());
    return std::unique_ptr<CheckpointManager>(new CheckpointManager(std::move(impl)));
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kLimit, fmt::format("{}: out of memory", directory.string()));
  }
}

Result<bool> CheckpointManager::save(std::uint64_t step, const args::StandardSave& args,
                                     const SaveOptions& options) {
  try {
    return impl_->save(step, args, options);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kLimit, fmt::format("step {}: out of memory", step));
  }
}

bool CheckpointManager::should_save(std::uint64_t step) const { return impl_->should_save(step); }

Result<void> CheckpointManager::wait_until_finished() { return impl_->wait_until_finished(); }

Result<void> CheckpointManager::check_for_errors() { return impl_->check_for_errors(); }

bool CheckpointManager::is_saving_in_progress() const { return impl_->is_saving_in_progress(); }

Result<Tree> CheckpointManager::restore(std::optional<std::uint64_t> step,
                                        const args::StandardRestore& args) {
  try {
    return impl_->restore(step, args);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kLimit, "restore: out of memory");
  }
}

std::optional<std::uint64_t> CheckpointManager::latest_step() const {
  const std::vector<std::uint64_t> steps = all_steps();
  if (steps.empty()) return std::nullopt;
  return steps.back();
}

std::vector<std::uint64_t> CheckpointManager::all_steps() const { return impl_->all_steps(); }

std::optional<SaveStatistics> CheckpointManager::last_save_statistics() const {
  return impl_->last_save_statistics();
}

std::optional<RestoreStatistics> CheckpointManager::last_restore_statistics() const {
  return impl_->last_restore_statistics();
}

Result<void> CheckpointManager::delete_step(std::uint64_t step) { return impl_->delete_step(step); }

const std::filesystem::path& CheckpointManager::directory() const { return impl_->directory(); }

Result<void> CheckpointManager::close() { return impl_->close(); }

}  // namespace stepstone
