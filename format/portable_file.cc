#include "format/portable_file.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "format/keys.h"
#include "format/leaf_path.h"
#include "format/limits.h"

namespace stepstone {
namespace {

using portable::IndexPage;
using portable::Place;
using portable::Tree;

tl::unexpected<Error> corrupt(std::string_view what) {
  return fail(ErrorCode::kCorrupt, "portable file: " + std::string(what));
}

std::string step_name(std::uint64_t step) { return "step " + std::to_string(step); }
std::string item_name(std::uint64_t step, std::string_view item) {
  return step_name(step) + ", item '" + printable(item) + "'";
}
std::string leaf_name(std::uint64_t step, std::string_view item, std::string_view path) {
  return item_name(step, item) + ", leaf '" + to_text(path) + "'";
}

// Where each chunk stands, from the extents, which are no hint here: they cover every chunk, and
// what they lead to ends before the record that says so.
Result<std::vector<std::uint64_t>> chunk_offsets(const LeafRecord& record,
                                                 std::uint64_t record_offset) {
  std::vector<std::uint64_t> offsets;
  if (record.inline_bytes || record.chunk_count() == 0) {
    if (record.extents.empty()) return offsets;
    return corrupt("an extent of a leaf without chunks");
  }
  if (record.extents.empty() || record.extents.front().first_chunk != 0) {
    return corrupt("chunks without a place");
  }
  offsets.reserve(record.chunk_count());
  std::size_t next_extent = 0;
  std::uint64_t offset = 0;
  for (std::uint32_t chunk = 0; chunk < record.chunk_count(); ++chunk) {
    if (next_extent < record.extents.size() && record.extents[next_extent].first_chunk == chunk) {
      const ChunkExtent& extent = record.extents[next_extent++];
      if (extent.segment != 0) return corrupt("an extent in another file");
      offset = extent.offset_bytes;
    }
    const std::size_t stored_size = record.stored_size_at(chunk);
    if (stored_size == 0 || offset < portable::kHeaderSizeBytes || offset > record_offset ||
        stored_size > record_offset - offset) {
      return corrupt("a chunk in an impossible place");
    }
    offsets.push_back(offset);
    offset += stored_size;
  }
  return offsets;
}

}  // namespace

bool PortableLeaf::is_contiguous() const {
  if (record_.inline_bytes || record_.chunk_count() == 0) return true;
  for (std::uint32_t chunk = 0; chunk < record_.chunk_count(); ++chunk) {
    if (record_.codec_at(chunk) != Codec::kRaw ||
        chunk_offsets_[chunk] !=
            chunk_offsets_[0] + std::uint64_t{chunk} * record_.chunk_size_bytes) {
      return false;
    }
  }
  return chunk_offsets_[0] % portable::kLeafAlignment == 0;
}

Result<PortableFile> PortableFile::open(std::span<const std::byte> mapping) {
  return open(PortableFile(mapping.size(), mapping, nullptr));
}

Result<PortableFile> PortableFile::open(std::uint64_t size_bytes, Read read) {
  return open(PortableFile(size_bytes, {}, std::move(read)));
}

Result<PortableFile> PortableFile::open(PortableFile file) {
  if (file.size_bytes_ < portable::kHeaderSizeBytes + portable::kFooterSizeBytes) {
    return corrupt(std::to_string(file.size_bytes_) + " bytes are too few");
  }
  std::array<std::byte, portable::kHeaderSizeBytes> header;
  STEPSTONE_TRY(file.read_at(0, header));
  STEPSTONE_TRY(portable::check_header(header));
  std::array<std::byte, portable::kFooterSizeBytes> footer;
  STEPSTONE_TRY(file.read_at(file.size_bytes_ - footer.size(), footer));
  file.footer_ = STEPSTONE_TRY(portable::decode_footer(footer, file.size_bytes_));
  return file;
}

// The place was checked: it is inside the file.
Result<void> PortableFile::read_at(std::uint64_t offset, std::span<std::byte> destination) const {
  if (read_) return read_(offset, destination);
  const auto source = mapping_.subspan(offset, destination.size());
  std::memcpy(destination.data(), source.data(), source.size());
  return {};
}

Result<PortableFile::Bytes> PortableFile::load(const Place& place) const {
  if (place.size_bytes > limits::kRecordSizeBytesMax + sizeof(Hash128) ||
      place.size_bytes < sizeof(Hash128)) {
    return corrupt("a record of an impossible size");
  }
  Bytes bytes;
  if (read_) {
    bytes.owned.resize(place.size_bytes);
    STEPSTONE_TRY(read_(place.offset, std::as_writable_bytes(std::span(bytes.owned))));
  } else {
    bytes.mapped = {reinterpret_cast<const char*>(mapping_.data()) + place.offset,
                    place.size_bytes};
  }
  // That this is the hash of the bytes is checked by who decodes them.
  if (record_hash(bytes.view()) != place.hash) return corrupt("a record does not match its hash");
  return bytes;
}

// `keys` says what the pages above promise: the page's first key, and one above all of them.
Result<IndexPage> PortableFile::load_page(Tree tree, std::uint32_t level, const Place& place,
                                          const KeyRange& keys) const {
  const Bytes bytes = STEPSTONE_TRY(load(place));
  IndexPage page =
      STEPSTONE_TRY(portable::decode_index_page(bytes.view(), tree, level, place.offset));
  if (!keys.begin.empty() && page.key(0) != keys.begin)
    return corrupt("index page under a wrong key");
  if (keys.end && page.key(page.size() - 1) >= *keys.end) return corrupt("index pages overlap");
  return page;
}

Result<std::optional<Place>> PortableFile::find(Tree tree, std::string_view key) const {
  if (root(tree).entry_count == 0) return std::nullopt;
  Place place = root(tree).place;
  std::string first_key;
  std::optional<std::string> end_key;
  for (std::uint32_t level = root(tree).level;; --level) {
    KeyRange keys{first_key, std::nullopt};
    if (end_key) keys.end = *end_key;
    const IndexPage page = STEPSTONE_TRY(load_page(tree, level, place, keys));
    std::size_t begin = 0;  // Entries before it are at or below the key.
    std::size_t end = page.size();
    while (begin < end) {
      const std::size_t middle = begin + (end - begin) / 2;
      if (page.key(middle) <= key) {
        begin = middle + 1;
      } else {
        end = middle;
      }
    }
    if (begin == 0) return std::nullopt;
    const std::size_t entry = begin - 1;
    place = page.places[entry];
    if (level == 0) {
      return page.key(entry) == key ? std::optional(place) : std::nullopt;
    }
    first_key = page.key(entry);
    if (begin < page.size()) end_key = page.key(begin);
  }
}

Result<void> PortableFile::scan(Tree tree, const KeyRange& wanted, const VisitEntry& visit) const {
  if (root(tree).entry_count == 0) return {};
  return scan_page(tree, root(tree).level, root(tree).place, {{}, std::nullopt}, wanted, visit);
}

// As deep as the index has levels.
Result<void> PortableFile::scan_page(Tree tree, std::uint32_t level, const Place& place,
                                     const KeyRange& keys, const KeyRange& wanted,
                                     const VisitEntry& visit) const {
  const IndexPage page = STEPSTONE_TRY(load_page(tree, level, place, keys));
  for (std::size_t entry = 0; entry < page.size(); ++entry) {
    const bool is_last = entry + 1 == page.size();
    if (wanted.end && page.key(entry) >= *wanted.end) break;
    if (level == 0) {
      if (page.key(entry) < wanted.begin) continue;
      STEPSTONE_TRY(visit(page.key(entry), page.places[entry]));
      continue;
    }
    // What begins at the next entry or later is not in this one.
    if (!is_last && page.key(entry + 1) <= wanted.begin) continue;
    const std::optional<std::string_view> end =
        is_last ? keys.end : std::optional(page.key(entry + 1));
    STEPSTONE_TRY(
        scan_page(tree, level - 1, page.places[entry], {page.key(entry), end}, wanted, visit));
  }
  return {};
}

Result<StepRecord> PortableFile::load_step(std::string_view key, const Place& place) const {
  const Bytes bytes = STEPSTONE_TRY(load(place));
  StepRecord record = STEPSTONE_TRY(decode_step_record(bytes.view(), key));
  if (key != step_record_key(record.save.step) || record.save.generation != 0 ||
      record.placement != Placement::kSegments || !record.segments.empty() ||
      !record.origin_saves.empty()) {
    return corrupt("a step that refers to a store");
  }
  return record;
}

Result<std::vector<std::uint64_t>> PortableFile::steps() const {
  std::vector<std::uint64_t> steps;
  STEPSTONE_TRY(scan(Tree::kSteps, {}, [&](std::string_view key, const Place&) -> Result<void> {
    const std::optional<std::uint64_t> step = step_of_record_key(key);
    if (!step) return corrupt("a step under a key that is none");
    steps.push_back(*step);
    return {};
  }));
  return steps;
}

Result<void> PortableFile::for_each_step(
    const std::function<Result<void>(const StepRecord&)>& visit) const {
  return scan(Tree::kSteps, {}, [&](std::string_view key, const Place& place) -> Result<void> {
    return visit(STEPSTONE_TRY(load_step(key, place)));
  });
}

Result<StepRecord> PortableFile::step(std::uint64_t step) const {
  const std::string key = step_record_key(step);
  const auto place = STEPSTONE_TRY(find(Tree::kSteps, key));
  if (!place) return fail(ErrorCode::kNotFound, step_name(step) + " is not in the portable file");
  return STEPSTONE_TRY_CONTEXT(load_step(key, *place), step_name(step));
}

Result<ItemRecord> PortableFile::item(std::uint64_t step, std::string_view item,
                                      const LeafPath& below) const {
  const std::string key = item_key({step, 0}, item);
  const auto place = STEPSTONE_TRY(find(Tree::kItems, key));
  if (!place) {
    return fail(ErrorCode::kNotFound, item_name(step, item) + " is not in the portable file");
  }
  const Bytes bytes = STEPSTONE_TRY_CONTEXT(load(*place), item_name(step, item));
  return STEPSTONE_TRY_CONTEXT(decode_item_record(bytes.view(), key, below), item_name(step, item));
}

Result<PortableLeaf> PortableFile::load_leaf(std::string_view key, const Place& place) const {
  const Bytes bytes = STEPSTONE_TRY(load(place));
  PortableLeaf leaf;
  leaf.record_ = STEPSTONE_TRY(decode_leaf_record(bytes.view(), key));
  // No reader of a portable file follows anything to a store, or from one leaf to another.
  if (!leaf.record_.origins.empty() || !leaf.record_.sources.empty() ||
      !leaf.record_.bases.empty()) {
    return corrupt("a leaf that refers to a store");
  }
  if (leaf.record_.alignment_bytes != 0) return corrupt("a leaf with padding between its chunks");
  leaf.chunk_offsets_ = STEPSTONE_TRY(chunk_offsets(leaf.record_, place.offset));
  return leaf;
}

Result<PortableLeaf> PortableFile::leaf(std::uint64_t step, std::string_view item,
                                        std::string_view encoded_path) const {
  const std::string key = leaf_key({step, 0}, item, encoded_path);
  const auto place = STEPSTONE_TRY(find(Tree::kLeaves, key));
  if (!place) {
    return fail(ErrorCode::kNotFound,
                leaf_name(step, item, encoded_path) + " is not in the portable file");
  }
  return STEPSTONE_TRY_CONTEXT(load_leaf(key, *place), leaf_name(step, item, encoded_path));
}

Result<void> PortableFile::for_each_leaf(std::uint64_t step, std::string_view item,
                                         const LeafPath& below, const VisitLeaf& visit) const {
  const std::string prefix = region_prefix({step, 0}, Region::kLeaf, item);
  std::string begin = prefix;
  for (const PathComponent& component : below) append_component(begin, component);
  // Every path goes on with a kind of component or its end, all below this byte.
  const std::string end = begin + '\xff';
  return scan(Tree::kLeaves, {begin, end},
              [&](std::string_view key, const Place& place) -> Result<void> {
                const std::string_view path = key.substr(prefix.size());
                STEPSTONE_TRY(decode_path(path));
                const PortableLeaf leaf =
                    STEPSTONE_TRY_CONTEXT(load_leaf(key, place), leaf_name(step, item, path));
                return visit(path, leaf);
              });
}

Result<void> PortableFile::read_chunk_at(std::uint64_t offset, const LeafRecord& record,
                                         std::uint32_t chunk, std::span<std::byte> destination,
                                         ChunkDecoder& decoder) const {
  if (record.inline_bytes) {
    if (destination.data() != record.inline_bytes->data()) {
      std::memcpy(destination.data(), record.inline_bytes->data(), destination.size());
    }
  } else if (record.codec_at(chunk) == Codec::kRaw) {
    STEPSTONE_TRY(read_at(offset, destination));
  } else {
    const std::size_t stored_size = record.stored_size_at(chunk);
    std::unique_ptr<std::byte[]> memory;
    std::span<const std::byte> stored;
    if (read_) {
      memory = std::make_unique_for_overwrite<std::byte[]>(stored_size);
      STEPSTONE_TRY(read_(offset, {memory.get(), stored_size}));
      stored = {memory.get(), stored_size};
    } else {
      stored = mapping_.subspan(offset, stored_size);
    }
    STEPSTONE_TRY(decoder.decode(record.codec_at(chunk), stored, destination));
  }
  if (hash128(destination) == record.hashes[chunk]) return {};
  return corrupt("chunk " + std::to_string(chunk) + " does not match its hash");
}

Result<void> PortableFile::read_chunk(const LeafRecord& record, std::uint32_t chunk,
                                      std::span<std::byte> destination,
                                      ChunkDecoder& decoder) const {
  if (record.inline_bytes) return read_chunk_at(0, record, chunk, destination, decoder);
  const auto after =
      std::upper_bound(record.extents.begin(), record.extents.end(), chunk,
                       [](std::uint32_t c, const ChunkExtent& e) { return c < e.first_chunk; });
  if (after == record.extents.begin()) return corrupt("chunks without a place");
  const ChunkExtent& extent = *std::prev(after);
  std::uint64_t offset = extent.offset_bytes;
  if (record.stored_sizes.empty()) {
    offset += std::uint64_t{chunk - extent.first_chunk} * record.chunk_size_bytes;
  } else {
    for (std::uint32_t c = extent.first_chunk; c < chunk; ++c) offset += record.stored_sizes[c];
  }
  if (offset > size_bytes_ || record.stored_size_at(chunk) > size_bytes_ - offset) {
    return corrupt("a chunk in an impossible place");
  }
  return read_chunk_at(offset, record, chunk, destination, decoder);
}

Result<void> PortableFile::read(const PortableLeaf& leaf, std::uint64_t first_byte,
                                std::span<std::byte> destination, ChunkDecoder& decoder) const {
  const LeafRecord& record = leaf.record_;
  if (first_byte > record.size_bytes || destination.size() > record.size_bytes - first_byte) {
    return fail(ErrorCode::kInvalidArgument,
                "portable file: " + std::to_string(destination.size()) + " bytes from " +
                    std::to_string(first_byte) + " on of a leaf of " +
                    std::to_string(record.size_bytes));
  }
  const auto offset_of = [&](std::uint32_t chunk) {
    return record.inline_bytes ? 0 : leaf.chunk_offsets_[chunk];
  };
  std::unique_ptr<std::byte[]> whole_chunk;
  while (!destination.empty()) {
    const auto chunk = static_cast<std::uint32_t>(first_byte / record.chunk_size_bytes);
    const auto skipped = static_cast<std::size_t>(first_byte % record.chunk_size_bytes);
    const std::size_t chunk_size = record.chunk_size_at(chunk);
    const std::size_t taken = std::min(chunk_size - skipped, destination.size());
    if (taken == chunk_size) {
      STEPSTONE_TRY(
          read_chunk_at(offset_of(chunk), record, chunk, destination.first(taken), decoder));
    } else {
      // The hash is over the whole chunk.
      if (!whole_chunk) {
        whole_chunk = std::make_unique_for_overwrite<std::byte[]>(record.chunk_size_at(0));
      }
      STEPSTONE_TRY(
          read_chunk_at(offset_of(chunk), record, chunk, {whole_chunk.get(), chunk_size}, decoder));
      std::memcpy(destination.data(), whole_chunk.get() + skipped, taken);
    }
    destination = destination.subspan(taken);
    first_byte += taken;
  }
  return {};
}

Result<std::span<const std::byte>> PortableFile::view(const PortableLeaf& leaf, Check check) const {
  const LeafRecord& record = leaf.record_;
  std::span<const std::byte> bytes;
  if (record.inline_bytes) {
    bytes = *record.inline_bytes;
  } else if (record.chunk_count() != 0) {
    if (read_ || !leaf.is_contiguous()) {
      return fail(ErrorCode::kUnsupported,
                  "portable file: this leaf cannot be viewed where it is; read it instead");
    }
    bytes = mapping_.subspan(leaf.chunk_offsets_[0], record.size_bytes);
  }
  if (check == Check::kNothing) return bytes;
  for (std::uint32_t chunk = 0; chunk < record.chunk_count(); ++chunk) {
    const auto content =
        bytes.subspan(std::size_t{chunk} * record.chunk_size_bytes, record.chunk_size_at(chunk));
    if (hash128(content) != record.hashes[chunk]) {
      return corrupt("chunk " + std::to_string(chunk) + " does not match its hash");
    }
  }
  return bytes;
}

}  // namespace stepstone
