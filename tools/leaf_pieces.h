#pragma once
// Reading many leaves, or a large one, from several threads in bounded memory.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/store.h"
#include "format/error.h"

namespace stepstone::tool {

// Some bytes of one of the leaves.
struct LeafPiece {
  std::size_t leaf = 0;      // Which one.
  std::uint64_t offset = 0;  // A multiple of 16 bytes, and so of every element.
  std::size_t size = 0;
};

// The size of the pieces that a leaf is read in: whole chunks, so that none is read and hashed
// twice, together a multiple of 16 bytes and, unless the chunks are larger, 4 MiB at most.
std::uint64_t piece_size_bytes(const LeafRecord& record);

// All pieces of the leaves, in order; a leaf without bytes has none.
std::vector<LeafPiece> pieces_of(std::span<const StoredLeaf* const> leaves);

// Calls visit(i, bytes of pieces[i]) for every piece, in rising order of start, on up to
// `thread_count` threads (0: one for each processor); kCorrupt and kIo of a read go to
// `on_error(i, error)` and the other pieces are read nevertheless. Both are called from several
// threads at once, and may return an error that ends it all.
Result<void> read_pieces(
    const StepReader& step, std::string_view item, std::span<const StoredLeaf* const> leaves,
    std::span<const LeafPiece> pieces, unsigned thread_count,
    const std::function<Result<void>(std::size_t i, std::span<const std::byte> bytes)>& visit,
    const std::function<Result<void>(std::size_t i, Error error)>& on_error);

}  // namespace stepstone::tool
