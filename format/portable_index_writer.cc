#include "format/portable_index_writer.h"

#include <algorithm>

#include "format/assert.h"
#include "format/records.h"

namespace stepstone::portable {
namespace {

constexpr std::size_t kBlockSizeBytes = std::size_t{1} << 20;
constexpr std::size_t kBigPieceSizeBytes = std::size_t{64} << 10;
constexpr std::size_t kRecordsSizeBytes = std::size_t{1} << 20;
// A page is closed when it has so many entries or bytes of keys, which keeps a look-up at a few
// microseconds for each level.
constexpr std::size_t kPageEntries = 128;
constexpr std::size_t kPageKeysSizeBytes = std::size_t{16} << 10;

std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

Result<void> Output::append(std::span<const std::byte> bytes) {
  position_ += bytes.size();
  // A big piece goes from its owner's memory to the sink without a copy.
  if (bytes.size() >= kBigPieceSizeBytes) {
    STEPSTONE_TRY(flush());
    return sink_->append(bytes);
  }
  if (block_.size() + bytes.size() > kBlockSizeBytes) STEPSTONE_TRY(flush());
  if (block_.capacity() == 0) block_.reserve(kBlockSizeBytes);
  block_.insert(block_.end(), bytes.begin(), bytes.end());
  return {};
}

Result<void> Output::align(std::size_t alignment) {
  static constexpr std::array<std::byte, kBigLeafAlignment> kZeros{};
  const std::size_t past = position_ % alignment;
  return past == 0 ? Result<void>{} : append(std::span(kZeros).first(alignment - past));
}

Result<void> Output::flush() {
  if (block_.empty()) return {};
  STEPSTONE_TRY(sink_->append(block_));
  block_.clear();
  return {};
}

Result<void> IndexWriter::add(Tree tree, std::string key, std::string_view record) {
  records_.append((kRecordAlignment - records_.size() % kRecordAlignment) % kRecordAlignment, '\0');
  pending_.push_back({tree, std::move(key), {record_hash(record), records_.size(), record.size()}});
  records_.append(record);
  return records_.size() < kRecordsSizeBytes ? Result<void>{} : write_records();
}

Result<void> IndexWriter::write_records() {
  STEPSTONE_TRY(output_->align(kRecordAlignment));
  const std::uint64_t begin = output_->position();
  STEPSTONE_TRY(output_->append(as_bytes(records_)));
  for (PendingRecord& record : pending_) {
    record.place.offset += begin;
    ++state(record.tree).entry_count;
    STEPSTONE_TRY(add_entry(record.tree, 0, record.key, record.place));
  }
  records_.clear();
  pending_.clear();
  return {};
}

Result<void> IndexWriter::add_entry(Tree tree, std::uint32_t level, std::string_view key,
                                    const Place& place) {
  if (state(tree).levels.size() <= level) state(tree).levels.resize(level + 1);
  IndexPage& page = state(tree).levels[level];
  page.add(key, place);
  // Two entries at least, or long keys would build a tree without an end.
  const bool is_full = page.size() >= kPageEntries || page.keys.size() >= kPageKeysSizeBytes;
  return is_full && page.size() >= 2 ? close_page(tree, level) : Result<void>{};
}

Result<Place> IndexWriter::write_page(Tree tree, std::uint32_t level) {
  const std::string bytes =
      STEPSTONE_TRY(encode_index_page(state(tree).levels[level], tree, level));
  STEPSTONE_TRY(output_->align(kRecordAlignment));
  const Place place{record_hash(bytes), output_->position(), bytes.size()};
  STEPSTONE_TRY(output_->append(as_bytes(bytes)));
  return place;
}

Result<void> IndexWriter::close_page(Tree tree, std::uint32_t level) {
  const Place place = STEPSTONE_TRY(write_page(tree, level));
  const std::string first_key(state(tree).levels[level].key(0));
  state(tree).levels[level].clear();
  return add_entry(tree, level + 1, first_key, place);
}

Result<Root> IndexWriter::finish_tree(Tree tree) {
  if (state(tree).entry_count == 0) return Root{};
  std::uint32_t level = 0;
  // Closing a page may add a level.
  for (; level + 1 < state(tree).levels.size(); ++level) {
    if (state(tree).levels[level].size() != 0) STEPSTONE_TRY(close_page(tree, level));
  }
  STEPSTONE_ASSERT(state(tree).levels[level].size() != 0);
  return Root{STEPSTONE_TRY(write_page(tree, level)), state(tree).entry_count, level};
}

Result<std::array<Root, kTreeCount>> IndexWriter::finish() {
  STEPSTONE_TRY(write_records());
  std::array<Root, kTreeCount> roots;
  for (const Tree tree : {Tree::kSteps, Tree::kItems, Tree::kLeaves}) {
    roots[static_cast<std::size_t>(tree)] = STEPSTONE_TRY(finish_tree(tree));
  }
  return roots;
}

}  // namespace stepstone::portable
