// How fast a save can look at the bytes it hashes.

#include "format/hash.h"

#include <atomic>

#include "engine/parallel.h"
#include "tools/bench/context.h"
#include "tools/bench/raw.h"

namespace stepstone::bench {

Result<void> run_hash(Context& context) {
  constexpr std::size_t kHashedChunkBytes = std::size_t{256} << 10;
  // As much as gpt2 has.
  const std::size_t chunk_count =
      std::max<std::size_t>(1, 5696 / static_cast<std::size_t>(context.settings().shrink));
  const Memory memory = STEPSTONE_TRY(Memory::allocate(chunk_count * kHashedChunkBytes));
  context.describe_state(memory.size_bytes(), chunk_count);
  Limit limit{"a read, same threads", {}};
  std::vector<double> seconds;
  std::atomic<std::uint64_t> sum = 0;  // Observable, so that the hashing cannot be left out.
  const auto hash_chunk = [&](std::size_t chunk) -> Result<void> {
    sum += hash128(memory.bytes().subspan(chunk * kHashedChunkBytes, kHashedChunkBytes)).low;
    return {};
  };
  STEPSTONE_TRY(context.repeat([&](unsigned /*sample*/) -> Result<void> {
    limit.samples.push_back(STEPSTONE_TRY(parallel_read(memory.bytes(), context.thread_count())));
    seconds.push_back(
        seconds_of([&] { (void)parallel_for(context.thread_count(), chunk_count, hash_chunk); }));
    return {};
  }));
  context.add_rate("hash", memory.size_bytes(), std::move(seconds), std::move(limit));
  return {};
}

}  // namespace stepstone::bench
