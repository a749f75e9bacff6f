#pragma once
// The leaves of one item on their way into a portable file, their chunks read ahead.

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <unordered_set>
#include <vector>

#include "engine/leaf_source.h"
#include "engine/read_ahead.h"
#include "format/hash.h"
#include "format/portable_writer.h"

namespace stepstone {

struct HashOfHash {
  std::size_t operator()(const Hash128& hash) const { return hash.low; }
};
using ChunkHashes = std::unordered_set<Hash128, HashOfHash>;

struct PortableSourceLeaf {
  PortableLeafInfo info;
  std::shared_ptr<const LeafSource> source;
  std::vector<Hash128> hashes;            // Of its chunks, or empty: not known.
  std::uint64_t original_size_bytes = 0;  // For whoever counts.
};

// The chunk size for a leaf that would like this one: one whose chunks keep the next aligned.
std::uint32_t portable_chunk_size_bytes(std::uint32_t wanted);

// For one thread.
class PortableLeaves final : public PortableLeafBytes {
 public:
  // nullopt: there is none after it. In the order of their paths.
  using PlanNext = std::function<Result<std::optional<PortableSourceLeaf>>()>;

  // `known` are chunks that the file holds already, so that the writer will not ask for them. Both
  // must outlive this.
  PortableLeaves(PlanNext plan_next, const ChunkHashes& known, ReadAhead& read_ahead)
      : plan_next_(std::move(plan_next)), known_(known), read_ahead_(read_ahead) {}

  // Steps to the next leaf; null: that was the last.
  Result<const PortableSourceLeaf*> next();

  std::span<const Hash128> hashes() const override { return leaves_.front().plan.hashes; }
  Result<std::span<const std::byte>> chunk(std::uint32_t chunk) override;

 private:
  struct ChunkAhead {
    std::uint32_t number;
    std::shared_ptr<ReadAhead::Piece> piece;
  };
  struct LeafAhead {
    PortableSourceLeaf plan;
    std::uint32_t chunk_count = 0;
    std::uint32_t next_chunk = 0;  // To be begun.
    std::deque<ChunkAhead> chunks;
  };

  Result<void> read_on();
  Result<bool> plan();
  std::shared_ptr<ReadAhead::Piece> begin(const LeafAhead& leaf, std::uint32_t chunk);
  void drop_chunk(LeafAhead& leaf);

  const PlanNext plan_next_;
  const ChunkHashes& known_;
  ReadAhead& read_ahead_;
  std::deque<LeafAhead> leaves_;  // The first is the current one.
  bool is_begun_ = false;
  bool is_planned_ = false;        // There are no more to be planned.
  std::size_t first_unbegun_ = 0;  // Among leaves_: all before it are being read to their ends.
  std::size_t ahead_bytes_ = 0;
  std::shared_ptr<ReadAhead::Piece> current_;
};

}  // namespace stepstone
