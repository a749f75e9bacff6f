#pragma once
// Whether compressing makes a save shorter: decided from what earlier saves of this store took, and
// before there are any from a sample of the state.

#include <cstdint>
#include <mutex>
#include <optional>

namespace stepstone {

// How a save would go if its chunks were encoded, found out on a few of them.
struct EncodingSample {
  double stored_fraction = 1;          // Of encoded bytes in the bytes as given.
  double encode_bytes_per_second = 0;  // Of one thread.
};

// Safe from several threads.
class CompressionPolicy {
 public:
  // Whether the next save is to encode its chunks.
  bool should_encode(const EncodingSample& sample, unsigned thread_count);

  // What a save took that wrote `size_bytes` (as given, without what it shared).
  void note(bool was_encoded, std::uint64_t size_bytes, double seconds);

 private:
  std::mutex mutex_;
  // Moving averages, of bytes as given; nullopt: not tried yet.
  std::optional<double> raw_bytes_per_second_;
  std::optional<double> encoded_bytes_per_second_;
  unsigned decisions_since_probe_ = 0;
};

}  // namespace stepstone
