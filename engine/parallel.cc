#include "engine/parallel.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>
#include <new>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

namespace stepstone {

unsigned effective_thread_count(unsigned requested) {
  if (requested != 0) return requested;
  return std::max(1U, std::thread::hardware_concurrency());
}

Result<void> parallel_for(unsigned thread_count, std::size_t count,
                          const std::function<Result<void>(std::size_t index)>& work) {
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;
  std::size_t failed_index = std::numeric_limits<std::size_t>::max();
  std::optional<Error> error;

  // Several at a time where there are very many: threads that take turns at a counter wait for each
  // other.
  const std::size_t batch =
      std::clamp<std::size_t>(count / (std::max(1U, thread_count) * std::size_t{64}), 1, 16);
  const auto run_one = [&](std::size_t index) {
    Result<void> result;
    try {
      result = work(index);
    } catch (const std::bad_alloc&) {
      result = fail(ErrorCode::kLimit, "out of memory");
    }
    if (result) return true;
    next = count;
    const std::scoped_lock lock(mutex);
    if (index < failed_index) {
      failed_index = index;
      error = std::move(result).error();
    }
    return false;
  };
  const auto run = [&] {
    for (std::size_t begin = next.fetch_add(batch); begin < count; begin = next.fetch_add(batch)) {
      for (std::size_t index = begin; index < std::min(count, begin + batch); ++index) {
        if (!run_one(index)) return;
      }
    }
  };

  std::vector<std::jthread> threads;
  for (std::size_t i = 1; i < std::min<std::size_t>(thread_count, count); ++i) {
    try {
      threads.emplace_back(run);
    } catch (const std::system_error&) {
      break;  // No more threads to be had; those that there are do the work.
    }
  }
  run();
  threads.clear();
  if (error) return tl::unexpected<Error>(*std::move(error));
  return {};
}

}  // namespace stepstone
