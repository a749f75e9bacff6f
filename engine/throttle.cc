#include "engine/throttle.h"

#include <algorithm>

namespace stepstone {

bool Throttle::wait(std::uint64_t size_bytes) {
  std::unique_lock lock(mutex_);
  if (bytes_per_second_ != 0) {
    const Clock::time_point begin = std::max(next_, Clock::now());
    const std::chrono::duration<double> time(static_cast<double>(size_bytes) /
                                             static_cast<double>(bytes_per_second_));
    next_ = begin + std::chrono::duration_cast<Clock::duration>(time);
    canceled_.wait_until(lock, begin, [&] { return is_canceled_; });
  }
  return !is_canceled_;
}

void Throttle::cancel() {
  const std::scoped_lock lock(mutex_);
  is_canceled_ = true;
  canceled_.notify_all();
}

}  // namespace stepstone
