#pragma once
// The saves that a manager has begun and nobody waits for: one thread takes them from the front and
// finishes them in the order in which they came. The first error is kept, and how many more saves
// failed after it, until take_error() returns it. Safe from several threads, but for wait_for_room
// and push, which are for one at a time, and stop().

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "api/checkpoint_info.h"
#include "format/error.h"

namespace stepstone {

class SaveQueue {
 public:
  struct Save {
    CheckpointInfo info;
    std::uint64_t size_bytes = 0;
    // Makes the save durable. Holds what it needs for that, and must not throw. Destroyed, without
    // the queue's lock, before the save counts as finished.
    std::function<Result<void>()> finish;
  };
  using Timeout = std::optional<std::chrono::nanoseconds>;

  // The saves in the queue may hold so many bytes together, or be a single one. A wait that lasts
  // longer than the timeout gives kBusy; the saves go on.
  SaveQueue(std::string name, std::uint64_t capacity_bytes, Timeout timeout);
  // Waits for the saves, however long it takes.
  ~SaveQueue();
  SaveQueue(const SaveQueue&) = delete;
  SaveQueue& operator=(const SaveQueue&) = delete;

  // Until a save of this size may join. Returns for how many seconds. kBusy.
  Result<double> wait_for_room(std::uint64_t size_bytes);
  // Where no thread can be had, the save is finished before this returns.
  void push(Save save);

  Result<void> wait_until_empty() { return wait_until_empty(timeout_); }  // kBusy.
  // With another timeout than the queue's.
  Result<void> wait_until_empty(Timeout timeout);
  bool is_empty() const;
  bool contains(std::uint64_t step) const;
  std::vector<CheckpointInfo> saves() const;  // In the order in which they will be finished.

  // The error that nobody has seen, once.
  Result<void> take_error();

  // Waits for the saves, and ends the thread; the next push would start another. kBusy: the wait
  // timed out, and nothing was ended.
  Result<void> stop();

 private:
  void end_worker();
  void work();
  void finish_front();
  template <typename Condition>
  Result<double> wait(std::unique_lock<std::mutex>& lock, Timeout timeout, Condition is_met,
                      std::string_view what);

  const std::string name_;
  const std::uint64_t capacity_bytes_;
  const Timeout timeout_;
  std::thread worker_;  // From the first push on.

  mutable std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  std::deque<Save> saves_;  // The front is being finished.
  std::uint64_t size_bytes_ = 0;
  bool is_stopping_ = false;
  std::optional<Error> first_error_;
  std::uint64_t later_error_count_ = 0;
};

}  // namespace stepstone
