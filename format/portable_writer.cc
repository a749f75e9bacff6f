#include "format/portable_writer.h"

#include <algorithm>
#include <unordered_map>

#include "format/chunk_codec.h"
#include "format/keys.h"
#include "format/leaf_path.h"
#include "format/limits.h"
#include "format/portable_index_writer.h"
#include "format/portable_layout.h"
#include "format/records.h"

namespace stepstone {
namespace {

// A scalar or a short text stands in its record; an array does not, or it would not be aligned.
constexpr std::uint64_t kInlineSizeBytesMax = 1024;
// With what the hash tables need for themselves.
constexpr std::size_t kSharedEntrySizeBytes = 128;

struct HashOfHash {
  std::size_t operator()(const Hash128& hash) const { return hash.low; }
};

// Where a chunk stands in the file.
struct StoredChunk {
  std::uint64_t offset_bytes = 0;
  std::uint64_t step = 0;  // Of the first leaf that has it.
  std::uint32_t size_bytes = 0;
  std::uint32_t stored_size_bytes = 0;
  Codec codec = Codec::kRaw;
};

// Where a leaf's chunks stand; as in a LeafRecord.
struct StoredLeaf {
  std::vector<ChunkExtent> extents;
  std::vector<Codec> codecs;
  std::vector<std::uint32_t> stored_sizes;
};

// What the file holds already, as far as the memory allows.
class SharedContent {
 public:
  explicit SharedContent(std::size_t memory_bytes_max) : memory_bytes_left_(memory_bytes_max) {}

  const StoredChunk* find_chunk(Hash128 hash, std::size_t size_bytes) const {
    const auto found = chunks_.find(hash);
    return found == chunks_.end() || found->second.size_bytes != size_bytes ? nullptr
                                                                            : &found->second;
  }
  const StoredLeaf* find_leaf(Hash128 digest) const {
    const auto found = leaves_.find(digest);
    return found == leaves_.end() ? nullptr : &found->second;
  }
  void remember_chunk(Hash128 hash, const StoredChunk& chunk) {
    if (take(kSharedEntrySizeBytes)) chunks_.emplace(hash, chunk);
  }
  void remember_leaf(Hash128 digest, const LeafRecord& record) {
    if (take(kSharedEntrySizeBytes + record.extents.size() * sizeof(ChunkExtent) +
             record.codecs.size() * (sizeof(Codec) + sizeof(std::uint32_t)))) {
      leaves_.emplace(digest, StoredLeaf{record.extents, record.codecs, record.stored_sizes});
    }
  }

 private:
  bool take(std::size_t size_bytes) {
    if (size_bytes > memory_bytes_left_) return false;
    memory_bytes_left_ -= size_bytes;
    return true;
  }

  std::size_t memory_bytes_left_;
  std::unordered_map<Hash128, StoredChunk, HashOfHash> chunks_;
  std::unordered_map<Hash128, StoredLeaf, HashOfHash> leaves_;
};

// Of everything that makes two leaves have the same chunks.
Hash128 digest_of(const LeafRecord& record) {
  std::vector<Hash128> content = record.hashes;
  content.push_back({record.size_bytes, record.chunk_size_bytes});
  return hash128(std::as_bytes(std::span(content)));
}

class BytesInMemory final : public PortableLeafBytes {
 public:
  BytesInMemory(std::span<const std::byte> bytes, std::size_t chunk_size_bytes)
      : bytes_(bytes), chunk_size_bytes_(chunk_size_bytes) {}

  Result<std::span<const std::byte>> chunk(std::uint32_t chunk) override {
    const auto rest = bytes_.subspan(chunk * chunk_size_bytes_);
    return rest.first(std::min(rest.size(), chunk_size_bytes_));
  }

 private:
  std::span<const std::byte> bytes_;
  std::size_t chunk_size_bytes_;
};

// An item whose leaves are being written.
struct OpenItem {
  PortableItemInfo info;
  std::uint64_t leaf_count = 0;  // Of its structure...
  Hash128 paths_digest;          // ...and the sum of the hashes of their paths.
  std::uint64_t added_count = 0;
  Hash128 added_digest;
  std::uint64_t size_bytes = 0;
  std::string last_path;
};
struct OpenStep {
  PortableStepInfo info;
  std::uint64_t size_bytes = 0;
  std::vector<ItemSummary> items;
  std::optional<OpenItem> item;
};

tl::unexpected<Error> bad_order(std::string message) {
  return fail(ErrorCode::kInvalidArgument, "portable file: " + std::move(message));
}

Result<void> check_text(std::string_view text, std::string_view what, std::size_t size_bytes_max) {
  if (text.size() <= size_bytes_max) return {};
  return fail(ErrorCode::kLimit, std::string(what) + " of " + std::to_string(text.size()) +
                                     " bytes, over the limit of " + std::to_string(size_bytes_max));
}

}  // namespace

class PortableWriter::Impl {
 public:
  Impl(PortableSink& sink, PortableWriteOptions options)
      : options_(options),
        output_(sink),
        index_(output_),
        shared_(options.sharing_memory_bytes_max) {}

  Result<void> start() { return output_.append(portable::encode_header()); }
  Result<void> begin_step(PortableStepInfo step);
  Result<void> begin_item(PortableItemInfo item);
  Result<void> add_leaf(const PortableLeafInfo& leaf, PortableLeafBytes& bytes);
  Result<void> end_step();
  Result<std::uint64_t> finish();

 private:
  Result<void> check_open() const {
    if (!is_closed_) return {};
    return fail(ErrorCode::kClosed, "portable file: it was finished, or writing it failed");
  }
  // What was written cannot be taken back: after an error of `result` nothing can follow it.
  template <typename Value>
  Result<Value> or_close(Result<Value> result) {
    if (!result) is_closed_ = true;
    return result;
  }

  SaveId save() const { return {step_->info.step, 0}; }
  Result<LeafRecord> plan_leaf(const PortableLeafInfo& leaf, PortableLeafBytes& bytes) const;
  Result<void> check_item_is_complete() const;
  Result<void> write_leaf(const PortableLeafInfo& leaf, LeafRecord record, bool hashes_are_known,
                          PortableLeafBytes& bytes);
  Result<void> store_inline(LeafRecord* record, bool hashes_are_known, PortableLeafBytes& bytes);
  Result<void> store_chunks(LeafRecord* record, bool hashes_are_known, PortableLeafBytes& bytes);
  Result<std::span<const std::byte>> fetch(LeafRecord* record, std::uint32_t chunk,
                                           bool hash_is_known, PortableLeafBytes& bytes);
  Result<StoredChunk> store_chunk(const LeafRecord& record, std::span<const std::byte> chunk,
                                  bool continues_run);
  Result<void> end_item();
  Result<void> write_step();
  Result<std::uint64_t> write_end();

  PortableWriteOptions options_;
  portable::Output output_;
  portable::IndexWriter index_;
  SharedContent shared_;
  ChunkEncoder encoder_;
  std::optional<OpenStep> step_;
  std::optional<std::uint64_t> last_step_;
  bool is_closed_ = false;
};

Result<void> PortableWriter::Impl::begin_step(PortableStepInfo step) {
  STEPSTONE_TRY(check_open());
  const std::string name = "step " + std::to_string(step.step);
  if (step_)
    return bad_order(name + " begins before step " + std::to_string(step_->info.step) +
                     " was ended");
  if (step.step > limits::kStepMax) return bad_order(name + " is over the limit");
  if (last_step_ && step.step <= *last_step_) {
    return bad_order(name + " comes after step " + std::to_string(*last_step_) +
                     "; add steps in ascending order");
  }
  STEPSTONE_TRY_CONTEXT(check_text(step.metrics, "metrics", limits::kMetadataSizeBytesMax), name);
  STEPSTONE_TRY_CONTEXT(
      check_text(step.custom_metadata, "custom metadata", limits::kMetadataSizeBytesMax), name);
  STEPSTONE_TRY_CONTEXT(
      check_text(step.store_metadata, "metadata of the store", limits::kStoreMetadataSizeBytesMax),
      name);
  step_.emplace();
  step_->info = std::move(step);
  return {};
}

Result<void> PortableWriter::Impl::begin_item(PortableItemInfo item) {
  STEPSTONE_TRY(check_open());
  const std::string name = "item '" + printable(item.name) + "'";
  if (!step_) return bad_order(name + " begins outside of a step");
  STEPSTONE_TRY(check_item_is_complete());
  const std::string* const last_name =
      step_->item ? &step_->item->info.name
                  : (step_->items.empty() ? nullptr : &step_->items.back().name);
  if (last_name != nullptr && item.name <= *last_name) {
    return bad_order(name + " comes after item '" + printable(*last_name) +
                     "'; add items in ascending order of their names");
  }
  if (step_->items.size() + (step_->item ? 1 : 0) >= limits::kItemsPerStepMax) {
    return fail(ErrorCode::kLimit, name + ": the step has too many items");
  }
  STEPSTONE_TRY_CONTEXT(check_text(item.name, "name", limits::kNameSizeBytesMax), name);
  STEPSTONE_TRY_CONTEXT(check_text(item.handler, "handler", limits::kNameSizeBytesMax), name);
  STEPSTONE_TRY_CONTEXT(
      check_text(item.custom_metadata, "custom metadata", limits::kMetadataSizeBytesMax), name);
  OpenItem open;
  const auto count_leaf = [&](const std::string& path) -> Result<void> {
    ++open.leaf_count;
    open.paths_digest = open.paths_digest + hash128(std::as_bytes(std::span(path)));
    return {};
  };
  const Result<void> visited =
      visit(item.structure, {.enter = {}, .leaf = count_leaf, .leave = {}});
  if (!visited) return fail(ErrorCode::kInvalidArgument, name + ": " + visited.error().message);
  open.info = std::move(item);
  STEPSTONE_TRY(or_close(end_item()));
  step_->item = std::move(open);
  return {};
}

Result<LeafRecord> PortableWriter::Impl::plan_leaf(const PortableLeafInfo& leaf,
                                                   PortableLeafBytes& bytes) const {
  const auto path = decode_path(leaf.encoded_path);
  if (!path) return fail(ErrorCode::kInvalidArgument, path.error().message);
  if (!step_->item->last_path.empty() && leaf.encoded_path <= step_->item->last_path) {
    return bad_order("it comes after leaf '" + to_text(std::string_view(step_->item->last_path)) +
                     "'; add leaves in ascending order of their encoded paths");
  }
  if (leaf.chunk_size_bytes == 0 || leaf.chunk_size_bytes % portable::kLeafAlignment != 0) {
    return fail(
        ErrorCode::kInvalidArgument,
        "chunk size of " + std::to_string(leaf.chunk_size_bytes) + " bytes is no multiple of 64");
  }
  LeafRecord record;
  record.kind = leaf.kind;
  record.dtype = leaf.dtype;
  record.shape = leaf.shape;
  record.size_bytes = leaf.size_bytes;
  record.chunk_size_bytes = leaf.chunk_size_bytes;
  const std::uint64_t chunk_count = leaf.size_bytes / leaf.chunk_size_bytes +
                                    (leaf.size_bytes % leaf.chunk_size_bytes != 0 ? 1 : 0);
  if (chunk_count > limits::kChunksPerLeafMax) {
    return fail(ErrorCode::kLimit,
                "leaf of " + std::to_string(chunk_count) + " chunks; choose a larger chunk size");
  }
  const std::span<const Hash128> hashes = bytes.hashes();
  if (!hashes.empty() && hashes.size() != chunk_count) {
    return fail(ErrorCode::kInvalidArgument, "wrong number of hashes");
  }
  record.hashes.assign(hashes.begin(), hashes.end());
  record.hashes.resize(chunk_count);
  STEPSTONE_TRY(check(record));
  return record;
}

Result<void> PortableWriter::Impl::add_leaf(const PortableLeafInfo& leaf,
                                            PortableLeafBytes& bytes) {
  STEPSTONE_TRY(check_open());
  const auto context = [&] {
    std::string text = "leaf '" + to_text(std::string_view(leaf.encoded_path)) + "'";
    if (!step_ || !step_->item) return text;
    return "step " + std::to_string(step_->info.step) + ", item '" +
           printable(step_->item->info.name) + "', " + text;
  };
  if (!step_ || !step_->item) return bad_order(context() + " is outside of an item");
  LeafRecord record = STEPSTONE_TRY_CONTEXT(plan_leaf(leaf, bytes), context());
  STEPSTONE_TRY_CONTEXT(
      or_close(write_leaf(leaf, std::move(record), !bytes.hashes().empty(), bytes)), context());
  return {};
}

Result<void> PortableWriter::Impl::write_leaf(const PortableLeafInfo& leaf, LeafRecord record,
                                              bool hashes_are_known, PortableLeafBytes& bytes) {
  if (record.kind != LeafKind::kArray && record.size_bytes <= kInlineSizeBytesMax) {
    STEPSTONE_TRY(store_inline(&record, hashes_are_known, bytes));
  } else {
    STEPSTONE_TRY(store_chunks(&record, hashes_are_known, bytes));
  }
  OpenItem& item = *step_->item;
  std::string key = leaf_key(save(), item.info.name, leaf.encoded_path);
  const std::string encoded = STEPSTONE_TRY(encode(record, key));
  STEPSTONE_TRY(index_.add(portable::Tree::kLeaves, std::move(key), encoded));
  item.last_path = leaf.encoded_path;
  item.size_bytes += record.size_bytes;
  item.added_digest = item.added_digest + hash128(std::as_bytes(std::span(leaf.encoded_path)));
  ++item.added_count;
  return {};
}

// A chunk of the leaf, checked against the hash that is known or giving the one that is not.
Result<std::span<const std::byte>> PortableWriter::Impl::fetch(LeafRecord* record,
                                                               std::uint32_t chunk,
                                                               bool hash_is_known,
                                                               PortableLeafBytes& bytes) {
  const std::span<const std::byte> content = STEPSTONE_TRY(bytes.chunk(chunk));
  if (content.size() != record->chunk_size_at(chunk)) {
    return fail(ErrorCode::kInvalidArgument, "chunk " + std::to_string(chunk) + " of " +
                                                 std::to_string(content.size()) + " bytes");
  }
  const Hash128 hash = hash128(content);
  if (hash_is_known && hash != record->hashes[chunk]) {
    return fail(ErrorCode::kCorrupt, "chunk " + std::to_string(chunk) + " does not match its hash");
  }
  record->hashes[chunk] = hash;
  return content;
}

Result<void> PortableWriter::Impl::store_inline(LeafRecord* record, bool hashes_are_known,
                                                PortableLeafBytes& bytes) {
  record->inline_bytes.emplace();
  for (std::uint32_t chunk = 0; chunk < record->chunk_count(); ++chunk) {
    const auto content = STEPSTONE_TRY(fetch(record, chunk, hashes_are_known, bytes));
    record->inline_bytes->assign(content.begin(), content.end());
  }
  return {};
}

Result<void> PortableWriter::Impl::store_chunks(LeafRecord* record, bool hashes_are_known,
                                                PortableLeafBytes& bytes) {
  if (options_.share && hashes_are_known) {
    if (const StoredLeaf* const leaf = shared_.find_leaf(digest_of(*record))) {
      record->extents = leaf->extents;
      record->codecs = leaf->codecs;
      record->stored_sizes = leaf->stored_sizes;
      return {};
    }
  }
  std::vector<Codec> codecs;
  std::vector<std::uint32_t> stored_sizes;
  std::uint64_t run_end = 0;  // Where the last chunk ended.
  for (std::uint32_t chunk = 0; chunk < record->chunk_count(); ++chunk) {
    const auto find_shared = [&]() -> const StoredChunk* {
      if (!options_.share) return nullptr;
      const StoredChunk* const found =
          shared_.find_chunk(record->hashes[chunk], record->chunk_size_at(chunk));
      // Sharing within a step would tear leaves apart over a chunk of zeros.
      return found != nullptr && found->step != step_->info.step ? found : nullptr;
    };
    const StoredChunk* shared = hashes_are_known ? find_shared() : nullptr;
    StoredChunk stored;
    if (shared == nullptr) {
      const auto content = STEPSTONE_TRY(fetch(record, chunk, hashes_are_known, bytes));
      if (!hashes_are_known) shared = find_shared();
      if (shared == nullptr) {
        const bool continues_run = chunk != 0 && run_end == output_.position();
        stored = STEPSTONE_TRY(store_chunk(*record, content, continues_run));
        if (options_.share) shared_.remember_chunk(record->hashes[chunk], stored);
      }
    }
    if (shared != nullptr) stored = *shared;
    if (chunk == 0 || stored.offset_bytes != run_end) {
      record->extents.push_back({chunk, 0, stored.offset_bytes});
    }
    run_end = stored.offset_bytes + stored.stored_size_bytes;
    codecs.push_back(stored.codec);
    stored_sizes.push_back(stored.stored_size_bytes);
  }
  if (std::any_of(codecs.begin(), codecs.end(), [](Codec codec) { return codec != Codec::kRaw; })) {
    record->codecs = std::move(codecs);
    record->stored_sizes = std::move(stored_sizes);
  }
  if (options_.share && record->chunk_count() != 0) {
    shared_.remember_leaf(digest_of(*record), *record);
  }
  return {};
}

Result<StoredChunk> PortableWriter::Impl::store_chunk(const LeafRecord& record,
                                                      std::span<const std::byte> chunk,
                                                      bool continues_run) {
  EncodedChunk encoded{Codec::kRaw, chunk};
  if (options_.compress) {
    encoded =
        encoder_.encode(chunk, record.dtype ? element_layout(*record.dtype) : ElementLayout{});
  }
  if (!continues_run) {
    STEPSTONE_TRY(output_.align(record.size_bytes >= portable::kBigLeafSizeBytesMin
                                    ? portable::kBigLeafAlignment
                                    : portable::kLeafAlignment));
  }
  StoredChunk stored{.offset_bytes = output_.position(),
                     .step = step_->info.step,
                     .size_bytes = static_cast<std::uint32_t>(chunk.size()),
                     .stored_size_bytes = static_cast<std::uint32_t>(encoded.bytes.size()),
                     .codec = encoded.codec};
  STEPSTONE_TRY(output_.append(encoded.bytes));
  return stored;
}

Result<void> PortableWriter::Impl::check_item_is_complete() const {
  if (!step_->item) return {};
  const OpenItem& item = *step_->item;
  if (item.added_count == item.leaf_count && item.added_digest == item.paths_digest) return {};
  return bad_order("step " + std::to_string(step_->info.step) + ", item '" +
                   printable(item.info.name) +
                   "': the leaves added are not those of its structure");
}

Result<void> PortableWriter::Impl::end_item() {
  if (!step_->item) return {};
  OpenItem item = *std::move(step_->item);
  step_->item.reset();
  ItemRecord record{.handler = item.info.handler,
                    .leaf_count = item.leaf_count,
                    .size_bytes = item.size_bytes,
                    .structure = std::move(item.info.structure),
                    .custom_metadata = std::move(item.info.custom_metadata)};
  std::string key = item_key(save(), item.info.name);
  const std::string encoded = STEPSTONE_TRY(encode(record, key));
  STEPSTONE_TRY(index_.add(portable::Tree::kItems, std::move(key), encoded));
  step_->size_bytes += item.size_bytes;
  step_->items.push_back(
      {std::move(item.info.name), std::move(item.info.handler), item.leaf_count, item.size_bytes});
  return {};
}

Result<void> PortableWriter::Impl::end_step() {
  STEPSTONE_TRY(check_open());
  if (!step_) return bad_order("no step was begun");
  if (step_->items.empty() && !step_->item) {
    return bad_order("step " + std::to_string(step_->info.step) + " has no item");
  }
  STEPSTONE_TRY(check_item_is_complete());
  return or_close(write_step());
}

Result<void> PortableWriter::Impl::write_step() {
  STEPSTONE_TRY(end_item());
  StepRecord record;
  record.save = save();
  record.started_unix_ns = step_->info.started_unix_ns;
  record.committed_unix_ns = step_->info.committed_unix_ns;
  record.size_bytes = step_->size_bytes;
  record.items = std::move(step_->items);
  record.metrics = std::move(step_->info.metrics);
  record.custom_metadata = std::move(step_->info.custom_metadata);
  record.store_metadata = std::move(step_->info.store_metadata);
  std::string key = step_record_key(record.save.step);
  const std::string encoded = STEPSTONE_TRY(encode(record, key));
  STEPSTONE_TRY(index_.add(portable::Tree::kSteps, std::move(key), encoded));
  last_step_ = record.save.step;
  step_.reset();
  return {};
}

Result<std::uint64_t> PortableWriter::Impl::finish() {
  STEPSTONE_TRY(check_open());
  if (step_) return bad_order("step " + std::to_string(step_->info.step) + " was not ended");
  if (!last_step_) return bad_order("it has no step");
  Result<std::uint64_t> size_bytes = write_end();
  is_closed_ = true;
  return size_bytes;
}

Result<std::uint64_t> PortableWriter::Impl::write_end() {
  portable::Footer footer{.roots = STEPSTONE_TRY(index_.finish())};
  STEPSTONE_TRY(output_.align(portable::kRecordAlignment));
  footer.file_size_bytes = output_.position() + portable::kFooterSizeBytes;
  STEPSTONE_TRY(output_.append(portable::encode_footer(footer)));
  STEPSTONE_TRY(output_.flush());
  return footer.file_size_bytes;
}

PortableWriter::PortableWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PortableWriter::PortableWriter(PortableWriter&&) noexcept = default;
PortableWriter& PortableWriter::operator=(PortableWriter&&) noexcept = default;
PortableWriter::~PortableWriter() = default;

Result<PortableWriter> PortableWriter::create(PortableSink& sink, PortableWriteOptions options) {
  auto impl = std::make_unique<Impl>(sink, options);
  STEPSTONE_TRY(impl->start());
  return PortableWriter(std::move(impl));
}

Result<void> PortableWriter::begin_step(PortableStepInfo step) {
  return impl_->begin_step(std::move(step));
}
Result<void> PortableWriter::begin_item(PortableItemInfo item) {
  return impl_->begin_item(std::move(item));
}
Result<void> PortableWriter::add_leaf(const PortableLeafInfo& leaf, PortableLeafBytes& bytes) {
  return impl_->add_leaf(leaf, bytes);
}
Result<void> PortableWriter::add_leaf(const PortableLeafInfo& leaf,
                                      std::span<const std::byte> bytes) {
  if (bytes.size() != leaf.size_bytes) {
    return fail(ErrorCode::kInvalidArgument, "leaf '" +
                                                 to_text(std::string_view(leaf.encoded_path)) +
                                                 "' of " + std::to_string(leaf.size_bytes) +
                                                 " bytes is given " + std::to_string(bytes.size()));
  }
  BytesInMemory source(bytes, leaf.chunk_size_bytes);
  return impl_->add_leaf(leaf, source);
}
Result<void> PortableWriter::end_step() { return impl_->end_step(); }
Result<std::uint64_t> PortableWriter::finish() { return impl_->finish(); }

}  // namespace stepstone
