#include "api/checkpoint_manager.h"

#include <fmt/format.h>

#include <condition_variable>
#include <cstdio>
#include <exception>
#include <mutex>
#include <new>
#include <thread>

#include "api/tree_io.h"
#include "engine/store.h"

namespace stepstone {

// One save runs in the background at a time. `call_mutex_` lets one call at a time start, await or
// close; `state_mutex_` guards what the background thread shares with the callers, keeps the store
// from being closed under those who ask for its steps, and is never held for long.
class CheckpointManager::Impl {
 public:
  Impl(std::unique_ptr<Store> store, CheckpointManagerOptions options)
      : directory_(store->directory()), options_(options), store_(std::move(store)) {}

  Result<bool> save(std::uint64_t step, const Tree& tree, const SaveOptions& options) {
    const std::scoped_lock call(call_mutex_);
    STEPSTONE_TRY(check_open());
    if (options_.read_only) {
      return fail(ErrorCode::kReadOnly,
                  fmt::format("step {}: {} was opened read-only", step, directory_.string()));
    }
    STEPSTONE_TRY(finish_background());
    if (!options.force && !should_save(step)) return false;
    STEPSTONE_TRY_CONTEXT(check_tree(tree), fmt::format("step {}", step));
    std::shared_ptr<StepWriter> writer = STEPSTONE_TRY(store_->begin_save(
        step, {.metrics = options.metrics, .custom_metadata = options.custom_metadata}));
    const bool is_async = options_.enable_async_checkpointing;
    STEPSTONE_TRY_CONTEXT(put_tree(*writer, kDefaultItem, is_async ? staged(tree) : tree),
                          fmt::format("step {}", step));
    std::vector<std::uint64_t> retired = retired_by(step);
    if (!is_async) {
      STEPSTONE_TRY(writer->commit(retired));
      return true;
    }
    auto work = [this, writer = std::move(writer), retired = std::move(retired)]() mutable {
      Result<StepRecord> result = commit(*writer, retired);
      writer.reset();
      const std::scoped_lock lock(state_mutex_);
      is_saving_ = false;
      if (!result) background_error_ = std::move(result).error();
    };
    set_saving(true);
    try {
      background_ = std::thread(work);
    } catch (const std::exception&) {
      // No thread to be had, or no memory for one: the caller waits.
      work();
      STEPSTONE_TRY(check_for_errors());
    }
    return true;
  }

  // The first save counts from its beginning, not only from its commit.
  bool should_save(std::uint64_t step) const {
    const std::scoped_lock lock(state_mutex_);
    return step % options_.save_interval_steps == 0 || (!is_saving_ && store_->steps().empty());
  }

  Result<void> wait_until_finished() {
    const std::scoped_lock call(call_mutex_);
    return finish_background();
  }

  Result<void> check_for_errors() {
    const std::scoped_lock lock(state_mutex_);
    if (is_saving_ || !background_error_) return {};
    Error error = *std::move(background_error_);
    background_error_.reset();
    return tl::unexpected<Error>(std::move(error));
  }

  bool is_saving_in_progress() const {
    const std::scoped_lock lock(state_mutex_);
    return is_saving_;
  }

  Result<Tree> restore(std::optional<std::uint64_t> step, const Tree* target) {
    std::shared_ptr<const StepReader> reader;
    {
      const std::scoped_lock call(call_mutex_);
      STEPSTONE_TRY(check_open());
      join_background();
      if (!step) step = store_->latest_step();
      if (!step) {
        return fail(ErrorCode::kNotFound,
                    fmt::format("{} has no checkpoint yet", directory_.string()));
      }
      reader = STEPSTONE_TRY(store_->read_step(*step));
    }
    return read_tree(*reader, kDefaultItem, target);
  }

  std::vector<std::uint64_t> all_steps() const {
    const std::scoped_lock lock(state_mutex_);
    return store_->steps();
  }

  Result<void> delete_step(std::uint64_t step) {
    const std::scoped_lock call(call_mutex_);
    STEPSTONE_TRY(check_open());
    join_background();
    return store_->retire(std::span(&step, 1));
  }

  const std::filesystem::path& directory() const { return directory_; }

  Result<void> close() {
    const std::scoped_lock call(call_mutex_);
    const Result<void> saved = finish_background();
    const std::scoped_lock lock(state_mutex_);
    const Result<void> closed = store_->close();
    return saved ? closed : saved;
  }

 private:
  static Result<StepRecord> commit(StepWriter& writer, std::span<const std::uint64_t> retired) {
    try {
      return writer.commit(retired);
    } catch (const std::bad_alloc&) {
      return fail(ErrorCode::kLimit, "out of memory while saving in the background");
    }
  }

  Result<void> check_open() const {
    if (!store_->directory().empty()) return {};
    return fail(ErrorCode::kClosed,
                fmt::format("the manager of {} is closed", directory_.string()));
  }

  void set_saving(bool is_saving) {
    const std::scoped_lock lock(state_mutex_);
    is_saving_ = is_saving;
  }

  void join_background() {
    if (background_.joinable()) background_.join();
  }

  Result<void> finish_background() {
    join_background();
    return check_for_errors();
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
  std::mutex call_mutex_;
  std::unique_ptr<Store> store_;
  std::thread background_;
  mutable std::mutex state_mutex_;
  bool is_saving_ = false;
  std::optional<Error> background_error_;
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
    return std::unique_ptr<CheckpointManager>(
        new CheckpointManager(std::make_unique<Impl>(std::move(store), options)));
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kLimit, fmt::format("{}: out of memory", directory.string()));
  }
}

Result<bool> CheckpointManager::save(std::uint64_t step, const args::StandardSave& args,
                                     const SaveOptions& options) {
  try {
    return impl_->save(step, args.item, options);
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
    return impl_->restore(step, args.item ? &*args.item : nullptr);
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

Result<void> CheckpointManager::delete_step(std::uint64_t step) { return impl_->delete_step(step); }

const std::filesystem::path& CheckpointManager::directory() const { return impl_->directory(); }

Result<void> CheckpointManager::close() { return impl_->close(); }

}  // namespace stepstone
