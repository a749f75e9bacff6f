// Reading. Every byte that leaves here has been compared with a hash: records with their own,
// chunks with the one in their leaf's record.
#include "engine/step_reader.h"

#include <fmt/format.h>
#include <rocksdb/db.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "engine/huge_memory.h"
#include "engine/parallel.h"
#include "engine/rocksdb_support.h"
#include "format/assert.h"
#include "format/leaf_path.h"
#include "format/limits.h"

namespace stepstone {
namespace {

std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// The least string that is greater than all that begin with `prefix`, which is not all 0xff.
std::string prefix_end(std::string prefix) {
  while (prefix.back() == '\xff') prefix.pop_back();
  ++prefix.back();
  return prefix;
}

// What the encoded paths of everything below a node begin with.
std::string open_path(const LeafPath& path) {
  std::string encoded;
  for (const PathComponent& component : path) append_component(encoded, component);
  return encoded;
}

// What the value of a raw chunk of `size_bytes` holds behind its padding. kCorrupt: it is too
// short, or has more in front than `alignment_bytes` allows.
Result<std::span<const std::byte>> without_padding(std::span<const std::byte> value,
                                                   std::size_t size_bytes,
                                                   std::uint32_t alignment_bytes) {
  const std::size_t padding_size_max = std::max<std::uint32_t>(alignment_bytes, 1) - 1;
  if (value.size() < size_bytes || value.size() - size_bytes > padding_size_max) {
    return fail(ErrorCode::kCorrupt,
                fmt::format("it has {} bytes instead of {}", value.size(), size_bytes));
  }
  return value.last(size_bytes);
}

// A look-up takes longer than reading less than this.
constexpr std::size_t kLargeChunkSizeBytesMin = std::size_t{64} << 10;

// Leaf records are scanned on several threads, in parts of at least so many.
constexpr std::uint64_t kPartLeafCountMin = 1024;
constexpr std::size_t kPartsPerThread = 4;
constexpr std::size_t kPartSampleInterval = 16;

}  // namespace

rocksdb::ColumnFamilyHandle* StepReaderImpl::family() const {
  return record_.placement == Placement::kSmall ? store_->small() : store_->leaves();
}

Result<std::optional<rocksdb::PinnableSlice>> StepReaderImpl::get(const std::string& key,
                                                                  bool is_chunk) const {
  rocksdb::ReadOptions options;
  options.fill_cache = !is_chunk;  // Chunks are read once, and would push the records out.
  rocksdb::PinnableSlice value;
  const rocksdb::Status status = store_->database().Get(options, family(), key, &value);
  if (status.ok()) return value;
  if (status.IsNotFound()) return std::nullopt;
  return tl::unexpected<Error>(to_read_error(status));
}

// A file that is gone, and a block that does not parse, are both damage, unless a writing process
// took the file away in good order.
Error StepReaderImpl::to_read_error(const rocksdb::Status& status) const {
  Error error = to_error(status, "reading");
  if (status.IsPathNotFound() && store_->was_changed_by_writer()) {
    return {ErrorCode::kNotFound,
            "the process that writes to the store has retired or recompressed the step since this "
            "read-only view was opened, or moved chunks that it shares: open it again"};
  }
  if (status.IsPathNotFound() || status.IsCorruption()) error.code = ErrorCode::kCorrupt;
  return error;
}

// RocksDB opens a file when it first reads from it, and keeps it open.
Result<void> StepReaderImpl::hold_files() const {
  std::set<SaveId> saves(record_.origin_saves.begin(), record_.origin_saves.end());
  saves.insert(record_.save);
  std::vector<rocksdb::LiveFileMetaData> files = store_->segment_files(saves);
  if (record_.placement == Placement::kSmall) {
    // Any of them may have entries of the step.
    files = store_->table_files();
    std::erase_if(files, [](const auto& file) { return file.column_family_name != "small"; });
  }
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  const std::unique_ptr<rocksdb::Iterator> entries(
      store_->database().NewIterator(options, family()));
  for (const rocksdb::LiveFileMetaData& file : files) {
    entries->Seek(file.smallestkey);  // Forgets what the last one met.
    // Damage does not close a file. Whoever reads what is damaged can name it, and reads the rest.
    if (entries->status().ok() || entries->status().IsCorruption()) continue;
    return tl::unexpected<Error>(
        with_context(to_read_error(entries->status()), step_name(record_.save.step)));
  }
  return {};
}

Result<ItemRecord> StepReaderImpl::read_item(std::string_view item, const LeafPath& below) const {
  STEPSTONE_TRY(check_item(record_, item));
  const std::string key = item_key(record_.save, item);
  const auto decode = [&]() -> Result<ItemRecord> {
    const auto value = STEPSTONE_TRY(get(key, /*is_chunk=*/false));
    // The step record says that the item exists.
    if (!value) return fail(ErrorCode::kCorrupt, "its record is gone");
    return decode_item_record(value->ToStringView(), key, below);
  };
  return STEPSTONE_TRY_CONTEXT(
      decode(), below.empty()
                    ? item_name(record_.save.step, item)
                    : fmt::format("{} '{}'", item_name(record_.save.step, item), to_text(below)));
}

std::vector<std::string> StepReaderImpl::part_leaves(std::string_view item, const LeafPath& below,
                                                     const TreeStructure* structure) const {
  const std::size_t part_count = std::min<std::size_t>(
      std::ranges::find(record_.items, item, &ItemSummary::name)->leaf_count / kPartLeafCountMin,
      kPartsPerThread * store_->thread_count());
  std::vector<std::string> paths;
  if (store_->thread_count() == 1 || part_count < 2) return paths;
  ItemRecord own;
  if (structure == nullptr) {
    // If this cannot be read, that is for who asked for it to find out; the leaves can be.
    Result<ItemRecord> record = read_item(item, below);
    if (!record) return paths;
    own = *std::move(record);
    structure = &own.structure;
  }
  const std::string prefix = open_path(below);
  // A structure is in its own order: every so many of its leaves, sorted, stand for all of them.
  std::size_t next = 0;
  const auto sample = [&](const std::string& encoded_path) -> Result<void> {
    if (next++ % kPartSampleInterval == 0) paths.push_back(prefix + encoded_path);
    return {};
  };
  if (!visit(*structure, {.enter = {}, .leaf = sample, .leave = {}, .is_checked = true})) return {};
  std::ranges::sort(paths);
  std::vector<std::string> chosen;
  for (std::size_t part = 1; part < part_count; ++part) {
    const std::size_t place = part * paths.size() / part_count;
    if (place != (part - 1) * paths.size() / part_count) chosen.push_back(paths[place]);
  }
  return chosen;
}

Result<void> StepReaderImpl::scan_leaves(std::string_view item, const KeyRange& keys,
                                         std::size_t item_prefix_size,
                                         std::vector<StoredLeaf>& leaves) const {
  const std::uint64_t step = record_.save.step;
  const rocksdb::Slice end(keys.end);
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = &end;
  options.fill_cache = false;
  const std::unique_ptr<rocksdb::Iterator> entries(
      store_->database().NewIterator(options, family()));
  for (entries->Seek(keys.begin); entries->Valid(); entries->Next()) {
    const std::string_view key = entries->key().ToStringView();
    std::string encoded_path(key.substr(item_prefix_size));
    LeafRecord record =
        STEPSTONE_TRY_CONTEXT(decode_leaf_record(entries->value().ToStringView(), key),
                              leaf_name(step, item, encoded_path));
    leaves.push_back({std::move(encoded_path), std::move(record)});
  }
  if (entries->status().ok()) return {};
  return tl::unexpected<Error>(
      with_context(to_read_error(entries->status()), item_name(step, item)));
}

Result<std::vector<StoredLeaf>> StepReaderImpl::read_leaves(std::string_view item,
                                                            const LeafPath& below,
                                                            const TreeStructure* structure) const {
  STEPSTONE_TRY(check_item(record_, item));
  if (record_.placement == Placement::kSmall) return look_up_leaves(item, below, structure);
  const std::string item_prefix = region_prefix(record_.save, Region::kLeaf, item);
  const std::string prefix = item_prefix + open_path(below);
  // A record belongs to the part that the last of these keys not above it begins.
  std::vector<std::string> begins = {prefix};
  for (const std::string& path : part_leaves(item, below, structure)) {
    begins.push_back(item_prefix + path);
  }
  // Without an end the iterator would go on into the first chunk, and fail over damage there.
  begins.push_back(prefix_end(prefix));
  // The first takes the others in. Memory that is not used is none, and a vector that grows takes
  // all of its pages anew.
  constexpr std::uint64_t kReservedMax = std::uint64_t{1} << 16;
  const std::uint64_t leaf_count =
      std::ranges::find(record_.items, item, &ItemSummary::name)->leaf_count;
  std::vector<std::vector<StoredLeaf>> parts(begins.size() - 1);
  for (auto& part : parts) {
    const std::uint64_t share = &part == &parts.front() ? 1 : (parts.size() + 1) / 2;
    part.reserve(std::min(leaf_count / share, kReservedMax));
  }
  STEPSTONE_TRY(parallel_for(store_->thread_count(), parts.size(), [&](std::size_t i) {
    return scan_leaves(item, {begins[i], begins[i + 1]}, item_prefix.size(), parts[i]);
  }));
  std::vector<StoredLeaf> leaves = std::move(parts.front());
  std::size_t count = leaves.size();
  for (std::size_t i = 1; i < parts.size(); ++i) count += parts[i].size();
  leaves.reserve(count);
  for (std::size_t i = 1; i < parts.size(); ++i) {
    leaves.insert(leaves.end(), std::move_iterator(parts[i].begin()),
                  std::move_iterator(parts[i].end()));
    parts[i] = {};
  }
  if (!below.empty()) return leaves;
  if (leaves.size() != leaf_count) {
    return fail(ErrorCode::kCorrupt,
                fmt::format("{}: {} of its {} leaf records are there",
                            item_name(record_.save.step, item), leaves.size(), leaf_count));
  }
  return leaves;
}

// Files of `small` hold many steps and overlap: an iterator would read a block of each of them, and
// fail over the damage of other steps.
Result<std::vector<StoredLeaf>> StepReaderImpl::look_up_leaves(
    std::string_view item, const LeafPath& below, const TreeStructure* structure) const {
  ItemRecord own;
  if (structure == nullptr) {
    own = STEPSTONE_TRY(read_item(item, below));
    structure = &own.structure;
  }
  const std::string prefix = open_path(below);
  std::vector<StoredLeaf> leaves;
  const auto look_up = [&](const std::string& encoded_path) -> Result<void> {
    Result<StoredLeaf> leaf = read_leaf(item, prefix + encoded_path);
    // The tree says that the leaf exists.
    if (!leaf && leaf.error().code == ErrorCode::kNotFound) leaf.error().code = ErrorCode::kCorrupt;
    leaves.push_back(STEPSTONE_TRY(std::move(leaf)));
    return {};
  };
  STEPSTONE_TRY(visit(*structure, {.enter = {}, .leaf = look_up, .leave = {}, .is_checked = true}));
  std::sort(leaves.begin(), leaves.end(), [](const StoredLeaf& a, const StoredLeaf& b) {
    return a.encoded_path < b.encoded_path;
  });
  return leaves;
}

Result<StoredLeaf> StepReaderImpl::read_leaf(std::string_view item,
                                             std::string encoded_path) const {
  STEPSTONE_TRY(check_item(record_, item));
  const std::string key = leaf_key(record_.save, item, encoded_path);
  const auto decode = [&]() -> Result<LeafRecord> {
    const auto value = STEPSTONE_TRY(get(key, /*is_chunk=*/false));
    if (!value) return fail(ErrorCode::kNotFound, "there is no such leaf");
    return decode_leaf_record(value->ToStringView(), key);
  };
  LeafRecord record =
      STEPSTONE_TRY_CONTEXT(decode(), leaf_name(record_.save.step, item, encoded_path));
  return StoredLeaf{std::move(encoded_path), std::move(record)};
}

std::string StepReaderImpl::key_of_chunk(std::string_view item, const StoredLeaf& leaf,
                                         std::uint32_t chunk) const {
  const ChunkOrigin* const origin = leaf.record.origin_of(chunk);
  const SaveId save = origin == nullptr ? record_.save : origin->save;
  if (origin == nullptr || origin->source == 0) {
    return chunk_key(save, item, leaf.encoded_path, chunk);
  }
  const ChunkSource& source = leaf.record.sources[origin->source - 1];
  return chunk_key(save, source.item, source.encoded_path, chunk);
}

std::string StepReaderImpl::key_of_base(std::string_view item, std::string_view encoded_path,
                                        const LeafRecord& record, const ChunkBase& base) {
  if (base.source == 0) return chunk_key(base.save, item, encoded_path, base.chunk);
  const ChunkSource& source = record.sources[base.source - 1];
  return chunk_key(base.save, source.item, source.encoded_path, base.chunk);
}

Result<void> StepReaderImpl::read_base(std::string_view item, std::string_view encoded_path,
                                       const LeafRecord& record, const ChunkBase& base,
                                       std::span<std::byte> destination) const {
  const auto value =
      STEPSTONE_TRY(get(key_of_base(item, encoded_path, record, base), /*is_chunk=*/true));
  if (!value) return fail(ErrorCode::kCorrupt, "it is gone");
  std::span<const std::byte> stored = as_bytes(value->ToStringView());
  if (base.codec == Codec::kRaw) {
    // `record` may be one that is being saved, which has no alignment yet; the hash decides.
    stored =
        STEPSTONE_TRY(without_padding(stored, destination.size(), limits::kChunkAlignmentBytesMax));
  }
  const ChunkScratchPool::Lease scratch = scratches_.take();
  STEPSTONE_TRY(scratch->decoder.decode(base.codec, stored, destination));
  if (hash128(destination) != base.hash) {
    return fail(ErrorCode::kCorrupt, "the bytes do not match their hash");
  }
  return {};
}

bool StepReaderImpl::read_chunk_at(std::string_view item, const StoredLeaf& leaf,
                                   std::uint32_t chunk, const ChunkPlace& place,
                                   std::span<std::byte> destination) const {
  if (!place.has_extent()) return false;
  const auto file = files_.find(place.save, place.segment);
  if (file == nullptr) return false;
  const std::uint64_t offset =
      value_offset_bytes(leaf.record, item, leaf.encoded_path, chunk, place);
  const auto read_into = [&](std::span<std::byte> memory) {
    auto* const begin = reinterpret_cast<char*>(memory.data());
    rocksdb::Slice bytes;
    const rocksdb::IOStatus status =
        file->Read(offset, memory.size(), rocksdb::IOOptions(), &bytes, begin, nullptr);
    if (!status.ok() || bytes.size() != memory.size()) return false;
    if (bytes.data() != begin) std::memcpy(begin, bytes.data(), bytes.size());
    return true;
  };
  const auto read_decoded = [&] {
    const Codec codec = leaf.record.codec_at(chunk);
    if (codec == Codec::kRaw) return read_into(destination);
    const ChunkScratchPool::Lease scratch = scratches_.take();
    scratch->stored.resize(leaf.record.stored_size_at(chunk));
    if (!read_into(scratch->stored)) return false;
    if (codec != Codec::kDelta) {
      return scratch->decoder.decode(codec, scratch->stored, destination).has_value();
    }
    scratch->base.resize(destination.size());
    return read_base(item, leaf.encoded_path, leaf.record, *leaf.record.base_of(chunk),
                     scratch->base) &&
           scratch->decoder.decode_delta(scratch->stored, scratch->base, destination);
  };
  if (read_decoded() && hash128(destination) == leaf.record.hashes[chunk]) return true;
  files_.give_up(place.save);
  return false;
}

Result<void> StepReaderImpl::read_chunk(std::string_view item, const StoredLeaf& leaf,
                                        std::uint32_t chunk, std::size_t begin,
                                        std::span<std::byte> destination) const {
  const LeafRecord& record = leaf.record;
  const auto name = [&] {
    return fmt::format("{}, chunk {}", leaf_name(record_.save.step, item, leaf.encoded_path),
                       chunk);
  };
  const auto copy_checked = [&](std::span<const std::byte> bytes) -> Result<void> {
    if (hash128(bytes) != record.hashes[chunk]) {
      return fail(ErrorCode::kCorrupt, name() + ": the bytes do not match their hash");
    }
    // A small leaf may be wanted where it is.
    if (!destination.empty() && destination.data() != bytes.data() + begin) {
      std::memcpy(destination.data(), bytes.data() + begin, destination.size());
    }
    return {};
  };
  if (record.inline_bytes) return copy_checked(*record.inline_bytes);
  const auto value =
      STEPSTONE_TRY_CONTEXT(get(key_of_chunk(item, leaf, chunk), /*is_chunk=*/true), name());
  if (!value) return fail(ErrorCode::kCorrupt, name() + ": it is gone");
  const std::span<const std::byte> stored = as_bytes(value->ToStringView());
  const Codec codec = record.codec_at(chunk);
  if (codec == Codec::kRaw) {
    return copy_checked(STEPSTONE_TRY_CONTEXT(
        without_padding(stored, record.chunk_size_at(chunk), record.alignment_bytes), name()));
  }
  const ChunkScratchPool::Lease scratch = scratches_.take();
  scratch->decoded.resize(record.chunk_size_at(chunk));
  if (codec != Codec::kDelta) {
    STEPSTONE_TRY_CONTEXT(scratch->decoder.decode(codec, stored, scratch->decoded), name());
    return copy_checked(scratch->decoded);
  }
  const ChunkBase& base = *record.base_of(chunk);
  scratch->base.resize(scratch->decoded.size());
  STEPSTONE_TRY_CONTEXT(
      read_base(item, leaf.encoded_path, record, base, scratch->base),
      fmt::format("{}, which differs from one saved with step {}", name(), base.save.step));
  STEPSTONE_TRY_CONTEXT(scratch->decoder.decode_delta(stored, scratch->base, scratch->decoded),
                        name());
  return copy_checked(scratch->decoded);
}

Result<void> StepReaderImpl::read_bytes(std::string_view item, const StoredLeaf& leaf,
                                        std::uint64_t offset,
                                        std::span<std::byte> destination) const {
  STEPSTONE_TRY(check_range(record_.save.step, item, leaf, offset, destination.size()));
  const std::uint32_t chunk_size_bytes = leaf.record.chunk_size_bytes;
  while (!destination.empty()) {
    const auto chunk = static_cast<std::uint32_t>(offset / chunk_size_bytes);
    const auto begin = static_cast<std::size_t>(offset % chunk_size_bytes);
    const std::size_t size = std::min(destination.size(), leaf.record.chunk_size_at(chunk) - begin);
    const auto is_read_past_rocksdb = [&] {
      if (leaf.record.extents.empty() || size < kLargeChunkSizeBytesMin ||
          size != leaf.record.chunk_size_at(chunk)) {
        return false;
      }
      const ChunkPlace place =
          places_of(leaf.record, record_.save, item, leaf.encoded_path, chunk, 1).front();
      return read_chunk_at(item, leaf, chunk, place, destination.first(size));
    };
    if (!is_read_past_rocksdb()) {
      STEPSTONE_TRY(read_chunk(item, leaf, chunk, begin, destination.first(size)));
    }
    destination = destination.subspan(size);
    offset += size;
  }
  return {};
}

Result<void> StepReaderImpl::read_all(std::span<const ReadRequest> requests) const {
  struct Piece {
    const ReadRequest* request;
    std::uint32_t chunk;
    ChunkPlace place;
  };
  std::vector<Piece> pieces;
  const std::uint64_t size_bytes = STEPSTONE_TRY(check_sizes(record_.save.step, requests));
  const bool is_large = size_bytes >= kLargeSizeBytesMin;
  for (const ReadRequest& request : requests) {
    const LeafRecord& record = request.leaf->record;
    if (record.inline_bytes) {
      if (record.chunk_count() == 0) continue;
      STEPSTONE_TRY(read_chunk(request.item, *request.leaf, 0, 0, request.destination));
      continue;
    }
    std::vector<ChunkPlace> places(record.chunk_count());
    if (is_large && !record.extents.empty()) {
      places = places_of(record, record_.save, request.item, request.leaf->encoded_path, 0,
                         record.chunk_count());
    }
    for (std::uint32_t chunk = 0; chunk < record.chunk_count(); ++chunk) {
      pieces.push_back({&request, chunk, places[chunk]});
    }
  }
  const unsigned thread_count = is_large ? store_->thread_count() : 1;
  return parallel_for(thread_count, pieces.size(), [&](std::size_t i) {
    const auto& [request, chunk, place] = pieces[i];
    const LeafRecord& record = request->leaf->record;
    const auto offset = static_cast<std::size_t>(chunk) * record.chunk_size_bytes;
    const auto destination = request->destination.subspan(offset, record.chunk_size_at(chunk));
    prepare_to_fill(destination);  // New memory, as a rule.
    if (read_chunk_at(request->item, *request->leaf, chunk, place, destination)) {
      return Result<void>();
    }
    return read_chunk(request->item, *request->leaf, chunk, 0, destination);
  });
}

// What RocksDB reads it gives back with its next read.
Result<LeafView> StepReaderImpl::view(std::string_view item, const StoredLeaf& leaf,
                                      ViewCheck /*check*/) const {
  return fail(ErrorCode::kUnsupported,
              leaf_name(record_.save.step, item, leaf.encoded_path) +
                  " is in a database, where it cannot be viewed: read it, or export the step");
}

}  // namespace stepstone
