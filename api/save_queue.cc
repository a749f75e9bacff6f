#include "api/save_queue.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <exception>

namespace stepstone {

using Clock = std::chrono::steady_clock;

SaveQueue::SaveQueue(std::string name, std::uint64_t capacity_bytes, Timeout timeout)
    : name_(std::move(name)), capacity_bytes_(capacity_bytes), timeout_(timeout) {}

SaveQueue::~SaveQueue() { end_worker(); }

template <typename Condition>
Result<double> SaveQueue::wait(std::unique_lock<std::mutex>& lock, Timeout timeout,
                               Condition is_met, std::string_view what) {
  if (is_met()) return 0;
  const Clock::time_point begun = Clock::now();
  if (!timeout) {
    changed_.wait(lock, is_met);
  } else if (!changed_.wait_for(lock, *timeout, is_met)) {
    return fail(ErrorCode::kBusy,
                fmt::format("{}: step {} is still being saved after {:.3g} s, and {}; it goes on: "
                            "try again, or raise async_options.timeout",
                            name_, saves_.front().info.step,
                            std::chrono::duration<double>(*timeout).count(), what));
  }
  return std::chrono::duration<double>(Clock::now() - begun).count();
}

Result<double> SaveQueue::wait_for_room(std::uint64_t size_bytes) {
  std::unique_lock lock(mutex_);
  const auto has_room = [&] {
    return saves_.empty() ||
           (size_bytes_ <= capacity_bytes_ && size_bytes <= capacity_bytes_ - size_bytes_);
  };
  return wait(lock, timeout_, has_room, "there is no room for another save");
}

void SaveQueue::push(Save save) {
  {
    const std::scoped_lock lock(mutex_);
    saves_.push_back(std::move(save));
    size_bytes_ += saves_.back().size_bytes;
  }
  changed_.notify_all();
  if (worker_.joinable()) return;
  try {
    worker_ = std::thread([this] { work(); });
  } catch (const std::exception&) {
    // No thread to be had, or no memory for one: the caller waits.
    finish_front();
  }
}

Result<void> SaveQueue::wait_until_empty(Timeout timeout) {
  std::unique_lock lock(mutex_);
  STEPSTONE_TRY(wait(
      lock, timeout, [&] { return saves_.empty(); }, "the wait for it was given up"));
  return {};
}

bool SaveQueue::is_empty() const {
  const std::scoped_lock lock(mutex_);
  return saves_.empty();
}

bool SaveQueue::contains(std::uint64_t step) const {
  const std::scoped_lock lock(mutex_);
  return std::any_of(saves_.begin(), saves_.end(),
                     [&](const Save& save) { return save.info.step == step; });
}

std::vector<CheckpointInfo> SaveQueue::saves() const {
  const std::scoped_lock lock(mutex_);
  std::vector<CheckpointInfo> infos;
  infos.reserve(saves_.size());
  for (const Save& save : saves_) infos.push_back(save.info);
  return infos;
}

Result<void> SaveQueue::take_error() {
  const std::scoped_lock lock(mutex_);
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

Result<void> SaveQueue::stop() {
  STEPSTONE_TRY(wait_until_empty());
  end_worker();
  return {};
}

// Once it has emptied the queue.
void SaveQueue::end_worker() {
  if (!worker_.joinable()) return;
  {
    const std::scoped_lock lock(mutex_);
    is_stopping_ = true;
  }
  changed_.notify_all();
  worker_.join();
  is_stopping_ = false;
}

void SaveQueue::work() {
  // The threads that write inherit it: where there are fewer processors than threads, the trainer
  // comes first. Of this thread alone, on Linux; if it is refused, nothing is lost.
  constexpr int kNiceness = 5;
  static_cast<void>(setpriority(PRIO_PROCESS, 0, kNiceness));
  while (true) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return !saves_.empty() || is_stopping_; });
      if (saves_.empty()) return;
    }
    finish_front();
  }
}

// The save stays in the queue, where it is counted, until all is done. Only this takes saves out.
void SaveQueue::finish_front() {
  std::function<Result<void>()> finish;
  {
    const std::scoped_lock lock(mutex_);
    finish = std::move(saves_.front().finish);
  }
  Result<void> finished = finish();
  finish = nullptr;
  {
    const std::scoped_lock lock(mutex_);
    if (!finished && first_error_) ++later_error_count_;
    if (!finished && !first_error_) first_error_ = std::move(finished).error();
    size_bytes_ -= saves_.front().size_bytes;
    saves_.pop_front();
  }
  changed_.notify_all();
}

}  // namespace stepstone
