#pragma once
// Work shared out over a few threads.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <new>

#include "format/error.h"

namespace stepstone {

// 0 becomes the number of processors.
unsigned effective_thread_count(unsigned requested);

// Calls work(i) for each i below `count`, in rising order of start, on up to `thread_count` threads
// of which the caller's is one; a thread takes up to 16 neighbours at a time if there are very
// many. After an error only what a thread has taken is gone through to its end; the error of the
// lowest i that failed is returned. Running out of memory in `work` becomes kLimit.
Result<void> parallel_for(unsigned thread_count, std::size_t count,
                          const std::function<Result<void>(std::size_t index)>& work);

// Calls make(i), a Result<T>, for each i below `count` on up to `thread_count` threads, and
// take(T), a Result<void>, of what they made, one at a time and in the order of i. A thread makes
// no more before its last was taken, so that no more than `thread_count` wait. Nothing is taken
// after an error; that of the lowest i that failed is returned. Running out of memory becomes
// kLimit.
template <typename Make, typename Take>
Result<void> parallel_in_order(unsigned thread_count, std::size_t count, const Make& make,
                               const Take& take) {
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;
  std::condition_variable turn_ended;
  std::size_t turn = 0;
  bool has_failed = false;
  using Made = decltype(make(std::size_t{}));
  const auto make_one = [&](std::size_t i) -> Made {
    try {
      return make(i);
    } catch (const std::bad_alloc&) {
      return fail(ErrorCode::kLimit, "out of memory");
    }
  };
  const auto take_one = [&](Made made) -> Result<void> {
    try {
      return take(STEPSTONE_TRY(std::move(made)));
    } catch (const std::bad_alloc&) {
      return fail(ErrorCode::kLimit, "out of memory");
    }
  };
  const auto work = [&](std::size_t /*worker*/) -> Result<void> {
    for (std::size_t i = next++; i < count; i = next++) {
      Made made = make_one(i);
      std::unique_lock lock(mutex);
      turn_ended.wait(lock, [&] { return turn == i || has_failed; });
      if (has_failed) return {};
      const Result<void> taken = take_one(std::move(made));
      has_failed = !taken.has_value();
      ++turn;
      turn_ended.notify_all();
      STEPSTONE_TRY(taken);
    }
    return {};
  };
  // The caller's thread works in any case.
  const std::size_t worker_count =
      std::clamp<std::size_t>(thread_count, 1, std::max<std::size_t>(count, 1));
  return parallel_for(thread_count, worker_count, work);
}

}  // namespace stepstone
