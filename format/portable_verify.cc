// The whole verification of a portable file. What a single look-up need not know is checked here:
// that every byte of the file belongs to exactly one thing, that the trees agree with each other,
// and that every chunk is what its hash says.
#include <algorithm>

#include "format/keys.h"
#include "format/leaf_path.h"
#include "format/portable_file.h"

namespace stepstone {
namespace {

using portable::Place;
using portable::Tree;

tl::unexpected<Error> corrupt_content(std::string_view what) {
  return fail(ErrorCode::kCorrupt, "portable file: " + std::string(what));
}

Error missing_is_damage(Error error) {
  if (error.code == ErrorCode::kNotFound) error.code = ErrorCode::kCorrupt;
  return error;
}

// A stretch of the file that means something.
struct Piece {
  std::uint64_t offset = 0;
  std::uint64_t size_bytes = 0;

  auto operator<=>(const Piece&) const = default;
};

// A chunk as a leaf describes it. Several leaves may share one; all must say the same.
struct ChunkClaim {
  std::uint64_t offset = 0;
  std::uint32_t stored_size_bytes = 0;
  std::uint32_t size_bytes = 0;
  Codec codec = Codec::kRaw;
  Hash128 hash;

  auto operator<=>(const ChunkClaim&) const = default;
};

}  // namespace

class PortableVerification {
 public:
  PortableVerification(const PortableFile& file, PortableFile::Check check)
      : file_(file), check_(check) {}

  Result<void> run() {
    STEPSTONE_TRY(note_pages());
    STEPSTONE_TRY(check_steps());
    STEPSTONE_TRY(check_leaves());
    STEPSTONE_TRY(check_chunks());
    return check_pieces();
  }

 private:
  // Every page and record of the trees, each tree in the order of its keys.
  Result<void> note_pages();
  Result<void> note_page(Tree tree, std::uint32_t level, const Place& place);
  // Steps with their items, and each item's structure with the leaves.
  Result<void> check_steps();
  Result<void> check_item(std::uint64_t step, const ItemSummary& summary);
  Result<void> check_leaves();
  Result<void> check_chunks();
  Result<void> check_pieces();
  Result<void> check_padding(std::uint64_t begin, std::uint64_t end);

  const PortableFile& file_;
  const PortableFile::Check check_;
  std::vector<Piece> pieces_;
  std::vector<ChunkClaim> chunks_;
  std::uint64_t item_count_ = 0;
  std::uint64_t leaf_count_ = 0;
};

Result<void> PortableVerification::note_page(Tree tree, std::uint32_t level, const Place& place) {
  const auto page = STEPSTONE_TRY(file_.load_page(tree, level, place, {{}, std::nullopt}));
  pieces_.push_back({place.offset, place.size_bytes});
  for (const Place& below : page.places) {
    if (level != 0) {
      STEPSTONE_TRY(note_page(tree, level - 1, below));
    } else {
      pieces_.push_back({below.offset, below.size_bytes});
    }
  }
  return {};
}

Result<void> PortableVerification::note_pages() {
  for (const Tree tree : {Tree::kSteps, Tree::kItems, Tree::kLeaves}) {
    // The scan checks the order from page to page, so that no page is visited twice.
    std::uint64_t count = 0;
    STEPSTONE_TRY(file_.scan(tree, {}, [&](std::string_view, const Place&) -> Result<void> {
      ++count;
      return {};
    }));
    const portable::Root& root = file_.root(tree);
    if (count != root.entry_count)
      return corrupt_content("its footer counts other entries than its index has");
    if (count != 0) STEPSTONE_TRY(note_page(tree, root.level, root.place));
  }
  return {};
}

Result<void> PortableVerification::check_steps() {
  STEPSTONE_TRY(file_.for_each_step([&](const StepRecord& step) -> Result<void> {
    std::uint64_t size_bytes = 0;
    for (const ItemSummary& item : step.items) {
      STEPSTONE_TRY(check_item(step.save.step, item));
      size_bytes += item.size_bytes;
    }
    if (size_bytes != step.size_bytes) {
      return corrupt_content("step " + std::to_string(step.save.step) +
                             " has another size than its items");
    }
    item_count_ += step.items.size();
    return {};
  }));
  if (item_count_ != file_.root(Tree::kItems).entry_count)
    return corrupt_content("items without a step");
  if (leaf_count_ != file_.root(Tree::kLeaves).entry_count)
    return corrupt_content("leaves without an item");
  return {};
}

Result<void> PortableVerification::check_item(std::uint64_t step, const ItemSummary& summary) {
  // What the step names has to be there: that it is not is damage, and no question of the caller's.
  const ItemRecord item =
      STEPSTONE_TRY(file_.item(step, summary.name).map_error(missing_is_damage));
  const std::string name =
      "step " + std::to_string(step) + ", item '" + printable(summary.name) + "'";
  if (item.handler != summary.handler || item.leaf_count != summary.leaf_count ||
      item.size_bytes != summary.size_bytes) {
    return corrupt_content(name + " is not what its step says");
  }
  // The paths of a structure are distinct: if each is found and the counts agree, there is no
  // other.
  std::uint64_t size_bytes = 0;
  const auto find_leaf = [&](const std::string& path) -> Result<void> {
    const PortableLeaf leaf =
        STEPSTONE_TRY(file_.leaf(step, summary.name, path).map_error(missing_is_damage));
    size_bytes += leaf.record().size_bytes;
    return {};
  };
  STEPSTONE_TRY(visit(item.structure, {.enter = {}, .leaf = find_leaf, .leave = {}}));
  if (size_bytes != item.size_bytes)
    return corrupt_content(name + " has another size than its leaves");
  leaf_count_ += item.leaf_count;
  return {};
}

Result<void> PortableVerification::check_leaves() {
  return file_.scan(Tree::kLeaves, {},
                    [&](std::string_view key, const Place& place) -> Result<void> {
                      const PortableLeaf leaf = STEPSTONE_TRY(file_.load_leaf(key, place));
                      const LeafRecord& record = leaf.record();
                      for (std::uint32_t chunk = 0; chunk < leaf.chunk_offsets_.size(); ++chunk) {
                        chunks_.push_back({leaf.chunk_offsets_[chunk],
                                           static_cast<std::uint32_t>(record.stored_size_at(chunk)),
                                           static_cast<std::uint32_t>(record.chunk_size_at(chunk)),
                                           record.codec_at(chunk), record.hashes[chunk]});
                      }
                      if (record.inline_bytes && record.chunk_count() == 1 &&
                          hash128(*record.inline_bytes) != record.hashes[0]) {
                        return corrupt_content("a leaf in its record does not match its hash");
                      }
                      return {};
                    });
}

// Each chunk once, however many leaves share it, in the order of the file.
Result<void> PortableVerification::check_chunks() {
  std::sort(chunks_.begin(), chunks_.end());
  chunks_.erase(std::unique(chunks_.begin(), chunks_.end()), chunks_.end());
  ChunkDecoder decoder;
  std::vector<std::byte> content;
  for (const ChunkClaim& chunk : chunks_) {
    pieces_.push_back({chunk.offset, chunk.stored_size_bytes});
    if (check_ == PortableFile::Check::kNothing) continue;
    const LeafRecord alone{.size_bytes = chunk.size_bytes,
                           .chunk_size_bytes = chunk.size_bytes,
                           .hashes = {chunk.hash},
                           .codecs = {chunk.codec},
                           .stored_sizes = {chunk.stored_size_bytes}};
    content.resize(chunk.size_bytes);
    STEPSTONE_TRY_CONTEXT(file_.read_chunk_at(chunk.offset, alone, 0, content, decoder),
                          "at byte " + std::to_string(chunk.offset));
  }
  chunks_.clear();
  return {};
}

// Between two pieces there are less than 4096 zeros and nothing else.
Result<void> PortableVerification::check_pieces() {
  std::sort(pieces_.begin(), pieces_.end());
  std::uint64_t end = portable::kHeaderSizeBytes;
  for (const Piece& piece : pieces_) {
    STEPSTONE_TRY(check_padding(end, piece.offset));
    end = piece.offset + piece.size_bytes;
  }
  return check_padding(end, file_.size_bytes() - portable::kFooterSizeBytes);
}

Result<void> PortableVerification::check_padding(std::uint64_t begin, std::uint64_t end) {
  if (begin > end) return corrupt_content("things overlap at byte " + std::to_string(end));
  if (end - begin >= portable::kBigLeafAlignment) {
    return corrupt_content("nothing leads to what begins at byte " + std::to_string(begin));
  }
  std::array<std::byte, portable::kBigLeafAlignment> padding;
  const std::span<std::byte> bytes(padding.data(), end - begin);
  STEPSTONE_TRY(file_.read_at(begin, bytes));
  for (const std::byte byte : bytes) {
    if (byte != std::byte{0}) {
      return corrupt_content("bytes that are not zero between things, from byte " +
                             std::to_string(begin) + " on");
    }
  }
  return {};
}

Result<void> PortableFile::verify(Check check) const {
  return PortableVerification(*this, check).run();
}

}  // namespace stepstone
