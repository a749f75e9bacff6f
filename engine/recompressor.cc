#include "engine/recompressor.h"

#if defined(__linux__)
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <new>
#include <system_error>

#include "engine/recompression.h"
#include "engine/store_impl.h"

namespace stepstone {
namespace {

// Of the calling thread alone, which only Linux can do this way.
void lower_priority() {
#if defined(__linux__)
  // Not the lowest: a save waits for the thread while it commits. Failing is no reason not to work.
  constexpr int kNiceness = 10;
  (void)setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), kNiceness);
#endif
}

}  // namespace

Recompressor::Recompressor(StoreImpl& store, std::size_t untouched_count,
                           std::uint64_t bytes_per_second)
    : store_(store), untouched_count_(untouched_count), throttle_(bytes_per_second) {}

Recompressor::~Recompressor() { stop(); }

void Recompressor::stop() {
  if (!thread_.joinable()) return;
  {
    const std::scoped_lock lock(mutex_);
    is_stopping_ = true;
    changed_.notify_all();
  }
  throttle_.cancel();
  thread_.join();
}

Result<void> Recompressor::start() {
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error&) {
    return fail(ErrorCode::kLimit, "no thread is to be had for recompressing old steps");
  }
  return {};
}

void Recompressor::wake() {
  const std::scoped_lock lock(mutex_);
  is_due_ = true;
  changed_.notify_all();
}

void Recompressor::wait_until_idle() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !is_due_ && !is_busy_; });
}

void Recompressor::run() {
  lower_priority();
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      is_busy_ = false;
      changed_.notify_all();
      changed_.wait(lock, [&] { return is_due_ || is_stopping_; });
      if (is_stopping_) return;
      is_due_ = false;
      is_busy_ = true;
    }
    bool goes_on = true;
    for (auto candidate = next_candidate(); goes_on && candidate; candidate = next_candidate()) {
      goes_on = recompress(*candidate) && throttle_.wait(0);
    }
  }
}

std::optional<Recompressor::Candidate> Recompressor::next_candidate() {
  const std::vector<std::uint64_t> steps = store_.registry().steps();
  if (steps.size() <= untouched_count_) return std::nullopt;
  const auto first_untouched = steps.end() - static_cast<std::ptrdiff_t>(untouched_count_);
  std::optional<Candidate> candidate;
  std::set<SaveId> still_there;
  for (auto step = steps.begin(); step != first_untouched; ++step) {
    const std::optional<VisibleStep> visible = store_.registry().find(*step);
    if (!visible) continue;  // Retired a moment ago.
    const SaveId save = visible->record.save;
    if (done_.contains(save)) {
      still_there.insert(save);
    } else if (!candidate && visible->record.placement == Placement::kSegments) {
      candidate = Candidate{save, visible->record.size_bytes, {first_untouched, steps.end()}};
    }
  }
  done_ = std::move(still_there);
  return candidate;
}

bool Recompressor::has_room_for(const Candidate& candidate) const {
  std::uint64_t free_bytes = 0;
  // A file system that cannot tell has room.
  return !store_.file_system()
              .GetFreeSpace(store_.directory().string(), rocksdb::IOOptions(), &free_bytes, nullptr)
              .ok() ||
         free_bytes / 2 >= candidate.size_bytes;
}

bool Recompressor::recompress(const Candidate& candidate) {
  if (!has_room_for(candidate)) return false;
  // Does not own the store, which owns this thread and ends it before it goes.
  const std::shared_ptr<StoreImpl> store(std::shared_ptr<StoreImpl>(), &store_);
  done_.insert(candidate.save);
  try {
    const auto result = Recompression::run(store, candidate.save.step,
                                           {.thread_count = 1,
                                            .samples_first = true,
                                            .untouched_steps = candidate.untouched_steps,
                                            .throttle = &throttle_});
    if (!result) return result.error().code != ErrorCode::kClosed;
    done_.insert(result->save);
  } catch (const std::bad_alloc&) {
    // The step stays as it is.
  }
  return true;
}

}  // namespace stepstone
