#include "engine/portable_leaves.h"

#include <algorithm>

#include "format/limits.h"
#include "format/portable_layout.h"

namespace stepstone {
namespace {

// What is read ahead: about what the disk takes in a hundredth of a second...
constexpr std::size_t kAheadBytesMax = std::size_t{16} << 20;
// ...and no more leaves than are worth it where all are tiny.
constexpr std::size_t kLeavesAheadMax = 256;

}  // namespace

std::uint32_t portable_chunk_size_bytes(std::uint32_t wanted) {
  constexpr std::uint32_t kChunkSizeBytes = std::uint32_t{256} << 10;
  return wanted % portable::kLeafAlignment == 0 ? wanted : kChunkSizeBytes;
}

Result<bool> PortableLeaves::plan() {
  if (is_planned_ || leaves_.size() > kLeavesAheadMax) return false;
  std::optional<PortableSourceLeaf> next = STEPSTONE_TRY(plan_next_());
  is_planned_ = !next;
  if (is_planned_) return false;
  LeafAhead leaf{.plan = *std::move(next)};
  const PortableLeafInfo& info = leaf.plan.info;
  const std::uint64_t chunk_count = info.size_bytes / info.chunk_size_bytes +
                                    (info.size_bytes % info.chunk_size_bytes != 0 ? 1 : 0);
  // What is over the limits is refused by the writer, before it asks for a chunk.
  leaf.chunk_count =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(chunk_count, limits::kChunksPerLeafMax));
  // Of another number of chunks than the leaf has now.
  if (leaf.plan.hashes.size() != chunk_count) leaf.plan.hashes.clear();
  leaves_.push_back(std::move(leaf));
  return true;
}

std::shared_ptr<ReadAhead::Piece> PortableLeaves::begin(const LeafAhead& leaf,
                                                        std::uint32_t chunk) {
  const PortableLeafInfo& info = leaf.plan.info;
  const std::uint64_t offset = std::uint64_t{chunk} * info.chunk_size_bytes;
  const auto size = static_cast<std::size_t>(
      std::min<std::uint64_t>(info.chunk_size_bytes, info.size_bytes - offset));
  return read_ahead_.begin(size,
                           [source = leaf.plan.source, offset, size](std::span<std::byte> scratch) {
                             return source->read(offset, size, scratch);
                           });
}

// Begins what comes next, as far as the budget reaches.
Result<void> PortableLeaves::read_on() {
  while (ahead_bytes_ < kAheadBytesMax) {
    if (first_unbegun_ == leaves_.size() && !STEPSTONE_TRY(plan())) return {};
    LeafAhead& leaf = leaves_[first_unbegun_];
    if (leaf.next_chunk == leaf.chunk_count) {
      ++first_unbegun_;
      continue;
    }
    const std::uint32_t chunk = leaf.next_chunk++;
    if (!leaf.plan.hashes.empty() && known_.contains(leaf.plan.hashes[chunk])) continue;
    leaf.chunks.push_back({chunk, begin(leaf, chunk)});
    ahead_bytes_ += leaf.chunks.back().piece->size_bytes();
  }
  return {};
}

void PortableLeaves::drop_chunk(LeafAhead& leaf) {
  ahead_bytes_ -= leaf.chunks.front().piece->size_bytes();
  leaf.chunks.pop_front();
}

Result<const PortableSourceLeaf*> PortableLeaves::next() {
  current_.reset();
  if (is_begun_) {
    LeafAhead& done = leaves_.front();
    while (!done.chunks.empty()) drop_chunk(done);
    leaves_.pop_front();
    if (first_unbegun_ != 0) --first_unbegun_;
  }
  is_begun_ = true;
  STEPSTONE_TRY(read_on());
  if (leaves_.empty() && !STEPSTONE_TRY(plan())) return nullptr;
  return &leaves_.front().plan;
}

Result<std::span<const std::byte>> PortableLeaves::chunk(std::uint32_t chunk) {
  LeafAhead& leaf = leaves_.front();
  current_.reset();
  // Those that the writer found in the file are not asked for.
  while (!leaf.chunks.empty() && leaf.chunks.front().number < chunk) drop_chunk(leaf);
  if (!leaf.chunks.empty() && leaf.chunks.front().number == chunk) {
    current_ = leaf.chunks.front().piece;
    drop_chunk(leaf);
  } else {
    leaf.next_chunk = std::max(leaf.next_chunk, chunk + 1);
    current_ = begin(leaf, chunk);
  }
  STEPSTONE_TRY(read_on());
  return read_ahead_.wait(current_);
}

}  // namespace stepstone
