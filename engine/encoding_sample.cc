#include "engine/encoding_sample.h"

#include <algorithm>
#include <chrono>

#include "engine/store_impl.h"

namespace stepstone {
namespace {

constexpr std::uint64_t kSampledChunks = 9;
// Of one leaf, before its chunks become deltas: one, and one more for every so many.
constexpr std::uint64_t kSampledDeltasMax = 4;
constexpr std::uint32_t kChunksPerSampledDelta = 32;
// A delta needs two chunks to be read, and has to be worth that.
constexpr double kDeltaFractionMax = 0.9;

}  // namespace

Result<EncodingSample> sample_encoding(std::uint64_t step, std::span<PlannedLeaf* const> leaves) {
  std::uint64_t chunk_count = 0;
  for (const PlannedLeaf* const leaf : leaves) chunk_count += leaf->planned_chunk_count();
  const std::uint64_t sampled_count = std::min<std::uint64_t>(chunk_count, kSampledChunks);
  ChunkEncoder encoder;
  std::vector<std::byte> scratch;
  std::uint64_t size_bytes = 0;
  std::uint64_t stored_bytes = 0;
  std::uint64_t timed_bytes = 0;
  std::chrono::duration<double> time{};
  auto leaf = leaves.begin();
  std::uint64_t first = 0;  // Chunk of `leaf`, in the numbering of all of them.
  for (std::uint64_t i = 0; i < sampled_count; ++i) {
    const std::uint64_t wanted = (2 * i + 1) * chunk_count / (2 * sampled_count);
    while (wanted - first >= (*leaf)->planned_chunk_count()) {
      first += (*leaf)->planned_chunk_count();
      ++leaf;
    }
    const auto chunk = static_cast<std::uint32_t>(wanted - first);
    const LeafRecord& record = (*leaf)->record;
    scratch.resize(record.chunk_size_bytes);
    const auto bytes =
        STEPSTONE_TRY_CONTEXT((*leaf)->source->read(std::uint64_t{chunk} * record.chunk_size_bytes,
                                                    record.chunk_size_at(chunk), scratch),
                              leaf_name(step, *(*leaf)->item, (*leaf)->encoded_path));
    const auto begin = std::chrono::steady_clock::now();
    stored_bytes += encoder.encode(bytes, (*leaf)->layout()).bytes.size();
    // The first one pays for the encoder's memory.
    if (i != 0 || sampled_count == 1) {
      time += std::chrono::steady_clock::now() - begin;
      timed_bytes += bytes.size();
    }
    size_bytes += bytes.size();
  }
  EncodingSample sample;
  sample.stored_fraction = static_cast<double>(stored_bytes) / static_cast<double>(size_bytes);
  sample.encode_bytes_per_second = static_cast<double>(timed_bytes) / std::max(time.count(), 1e-9);
  return sample;
}

Result<bool> is_smaller_as_delta(std::uint64_t step, const PlannedLeaf& leaf,
                                 const SharingBase& base) {
  const LeafRecord& record = leaf.record;
  const auto sampled_count =
      std::min<std::uint64_t>(1 + record.chunk_count() / kChunksPerSampledDelta, kSampledDeltasMax);
  ChunkEncoder encoder;
  std::vector<std::byte> scratch(record.chunk_size_bytes);
  std::vector<std::byte> base_scratch(record.chunk_size_bytes);
  std::uint64_t plain_bytes = 0;
  std::uint64_t delta_bytes = 0;
  for (std::uint64_t i = 0; i < sampled_count; ++i) {
    const auto chunk =
        static_cast<std::uint32_t>((2 * i + 1) * record.chunk_count() / (2 * sampled_count));
    const std::optional<ChunkBase> from = leaf.base->delta_base(record, chunk);
    if (!from) continue;
    const std::size_t size = record.chunk_size_at(chunk);
    const auto bytes = STEPSTONE_TRY_CONTEXT(
        leaf.source->read(std::uint64_t{chunk} * record.chunk_size_bytes, size, scratch),
        leaf_name(step, *leaf.item, leaf.encoded_path));
    const std::span<std::byte> base_bytes = std::span(base_scratch).first(size);
    // Damage to the other step is no reason for this save to fail.
    if (!base.read_base(leaf, *from, base_bytes) || std::ranges::equal(bytes, base_bytes)) continue;
    plain_bytes += encoder.encode(bytes, leaf.layout()).bytes.size();
    delta_bytes += encoder.encode_delta(bytes, base_bytes, leaf.layout()).bytes.size();
  }
  // What is as it was says nothing of what is not; changes that are so rare are small.
  if (plain_bytes == 0) return true;
  return static_cast<double>(delta_bytes) < kDeltaFractionMax * static_cast<double>(plain_bytes);
}

}  // namespace stepstone
