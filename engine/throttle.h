#pragma once
// Slows background work down.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace stepstone {

// Lets through so many bytes per second. Safe from several threads.
class Throttle {
 public:
  // 0: as many as come.
  explicit Throttle(std::uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  // Waits until the bytes that were let through before have had their time, and lets `size_bytes`
  // more through. False: cancel() was called.
  bool wait(std::uint64_t size_bytes);

  // Ends the waiting, for good.
  void cancel();

 private:
  using Clock = std::chrono::steady_clock;

  const std::uint64_t bytes_per_second_;
  std::mutex mutex_;
  std::condition_variable canceled_;
  bool is_canceled_ = false;
  Clock::time_point next_;  // When the bytes so far have had their time.
};

}  // namespace stepstone
