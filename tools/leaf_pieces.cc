#include "tools/leaf_pieces.h"

#include <algorithm>
#include <memory>
#include <mutex>

#include "engine/parallel.h"

namespace stepstone::tool {
namespace {

// Lends each thread a buffer; there are never more than threads.
class BufferPool {
 public:
  using Buffer = std::unique_ptr<std::vector<std::byte>>;

  Buffer take() {
    const std::scoped_lock lock(mutex_);
    if (buffers_.empty()) return std::make_unique<std::vector<std::byte>>();
    Buffer buffer = std::move(buffers_.back());
    buffers_.pop_back();
    return buffer;
  }
  void give_back(Buffer buffer) {
    const std::scoped_lock lock(mutex_);
    buffers_.push_back(std::move(buffer));
  }

 private:
  std::mutex mutex_;
  std::vector<Buffer> buffers_;
};

}  // namespace

std::uint64_t piece_size_bytes(const LeafRecord& record) {
  constexpr std::uint64_t kPieceSizeBytes = std::uint64_t{4} << 20;
  // Chunk sizes are not bound to be multiples of 16; 16 chunks together are.
  const std::uint64_t unit = std::max<std::uint64_t>(record.chunk_size_bytes, 1) *
                             (record.chunk_size_bytes % 16 == 0 ? 1 : 16);
  return std::max(kPieceSizeBytes / unit, std::uint64_t{1}) * unit;
}

std::vector<LeafPiece> pieces_of(std::span<const StoredLeaf* const> leaves) {
  std::vector<LeafPiece> pieces;
  for (std::size_t leaf = 0; leaf < leaves.size(); ++leaf) {
    const LeafRecord& record = leaves[leaf]->record;
    const std::uint64_t piece_size = piece_size_bytes(record);
    for (std::uint64_t offset = 0; offset < record.size_bytes; offset += piece_size) {
      pieces.push_back(
          {.leaf = leaf,
           .offset = offset,
           .size = static_cast<std::size_t>(std::min(piece_size, record.size_bytes - offset))});
    }
  }
  return pieces;
}

Result<void> read_pieces(
    const StepReader& step, std::string_view item, std::span<const StoredLeaf* const> leaves,
    std::span<const LeafPiece> pieces, unsigned thread_count,
    const std::function<Result<void>(std::size_t i, std::span<const std::byte> bytes)>& visit,
    const std::function<Result<void>(std::size_t i, Error error)>& on_error) {
  BufferPool buffers;
  return parallel_for(
      effective_thread_count(thread_count), pieces.size(), [&](std::size_t i) -> Result<void> {
        const LeafPiece& piece = pieces[i];
        BufferPool::Buffer buffer = buffers.take();
        if (buffer->size() < piece.size) buffer->resize(piece.size);
        const auto bytes = std::span(*buffer).first(piece.size);
        const Result<void> read = step.read_bytes(item, *leaves[piece.leaf], piece.offset, bytes);
        Result<void> result = read ? visit(i, bytes) : on_error(i, read.error());
        buffers.give_back(std::move(buffer));
        return result;
      });
}

}  // namespace stepstone::tool
