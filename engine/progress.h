#pragma once
// Counts bytes from several threads and tells a callback now and then.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <mutex>

namespace stepstone {

class Progress {
 public:
  using Callback = std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)>;

  // `callback` may be empty.
  Progress(Callback callback, std::uint64_t total_bytes)
      : callback_(std::move(callback)), total_bytes_(total_bytes) {}

  void add(std::uint64_t size_bytes) {
    if (!callback_) return;
    const std::scoped_lock lock(mutex_);
    done_bytes_ += size_bytes;
    if (done_bytes_ < next_report_bytes_ && done_bytes_ != total_bytes_) return;
    next_report_bytes_ = done_bytes_ + std::max<std::uint64_t>(total_bytes_ / 256, 1);
    callback_(done_bytes_, total_bytes_);
  }

 private:
  const Callback callback_;
  const std::uint64_t total_bytes_;
  std::mutex mutex_;
  std::uint64_t done_bytes_ = 0;
  std::uint64_t next_report_bytes_ = 0;
};

}  // namespace stepstone
