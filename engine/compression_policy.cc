#include "engine/compression_policy.h"

#include <algorithm>

namespace stepstone {
namespace {

// What a disk is taken to write until the store has measured it: a fast one, so that a wrong guess
// costs little.
constexpr double kAssumedDiskBytesPerSecond = 2e9;
// Below this gain decoding is not worth it.
constexpr double kStoredFractionMax = 0.95;
// A save of less says more about the disk's latency than about its rate.
constexpr std::uint64_t kTellingSizeBytesMin = std::uint64_t{16} << 20;
// Every so often the way that was slower is tried again: disks fill up and neighbours come and go.
constexpr unsigned kDecisionsBetweenProbes = 64;
constexpr double kWeightOfNewest = 0.3;

}  // namespace

bool CompressionPolicy::should_encode(const EncodingSample& sample, unsigned thread_count) {
  if (sample.stored_fraction > kStoredFractionMax) return false;
  const std::scoped_lock lock(mutex_);
  bool encodes = false;
  if (raw_bytes_per_second_ && encoded_bytes_per_second_) {
    encodes = *encoded_bytes_per_second_ > *raw_bytes_per_second_;
  } else {
    // Encoding and the disk work side by side, so that the slower of the two counts.
    const double disk = raw_bytes_per_second_.value_or(kAssumedDiskBytesPerSecond);
    const double expected =
        std::min(sample.encode_bytes_per_second * thread_count, disk / sample.stored_fraction);
    encodes = encoded_bytes_per_second_.value_or(expected) > disk;
  }
  if (++decisions_since_probe_ == kDecisionsBetweenProbes) {
    decisions_since_probe_ = 0;
    encodes = !encodes;
  }
  return encodes;
}

void CompressionPolicy::note(bool was_encoded, std::uint64_t size_bytes, double seconds) {
  if (size_bytes < kTellingSizeBytesMin || seconds <= 0) return;
  const std::scoped_lock lock(mutex_);
  std::optional<double>& average = was_encoded ? encoded_bytes_per_second_ : raw_bytes_per_second_;
  const double measured = static_cast<double>(size_bytes) / seconds;
  average = average ? *average + kWeightOfNewest * (measured - *average) : measured;
}

}  // namespace stepstone
