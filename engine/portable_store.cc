#include "engine/portable_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "engine/huge_memory.h"
#include "engine/parallel.h"
#include "format/portable_layout.h"

namespace stepstone {
namespace {

// To say of a file that it is something else, rather than damaged.
bool begins_like_a_portable_file(const ReadOnlyFile& file) {
  const auto header = portable::encode_header();
  constexpr std::size_t kMagicSizeBytes = 8;
  std::array<std::byte, kMagicSizeBytes> magic;
  return file.size_bytes() >= magic.size() && file.read(0, magic).has_value() &&
         std::equal(magic.begin(), magic.end(), header.begin());
}

}  // namespace

PortableStore::PortableStore(std::filesystem::path path, unsigned thread_count,
                             std::unique_ptr<ReadOnlyFile> file, PortableFile content,
                             std::vector<std::uint64_t> steps)
    : path_(std::move(path)),
      thread_count_(thread_count),
      file_(std::move(file)),
      content_(std::move(content)),
      steps_(std::move(steps)) {}

Result<std::shared_ptr<PortableStore>> PortableStore::open(const std::filesystem::path& path,
                                                           const OpenOptions& options) {
  const auto open = [&]() -> Result<std::shared_ptr<PortableStore>> {
    auto file = STEPSTONE_TRY(ReadOnlyFile::open(path, options.file_system));
    if (!begins_like_a_portable_file(*file)) {
      return fail(ErrorCode::kInvalidArgument,
                  "it is a file, and neither a store's directory nor a portable file");
    }
    if (options.create_if_missing) {
      return fail(ErrorCode::kInvalidArgument,
                  "a portable file cannot be written to: open it without create_if_missing, or "
                  "import it into a store");
    }
    const ReadOnlyFile& bytes = *file;
    auto content = STEPSTONE_TRY(PortableFile::open(
        bytes.size_bytes(), [&bytes](std::uint64_t offset, std::span<std::byte> destination) {
          return bytes.read(offset, destination);
        }));
    auto steps = STEPSTONE_TRY(content.steps());
    return std::make_shared<PortableStore>(path, effective_thread_count(options.thread_count),
                                           std::move(file), std::move(content), std::move(steps));
  };
  return STEPSTONE_TRY_CONTEXT(open(), fmt::format("store {}", path.string()));
}

std::vector<SaveId> PortableStore::saves() const {
  std::vector<SaveId> saves;
  for (const std::uint64_t step : steps_) saves.push_back({step, 0});
  return saves;
}

Error PortableStore::at_path(Error error) const {
  return with_context(std::move(error), path_.string());
}

Result<std::optional<StepRecord>> PortableStore::find_step(std::uint64_t step) {
  if (!std::binary_search(steps_.begin(), steps_.end(), step)) return std::nullopt;
  Result<StepRecord> record = content_.step(step);
  if (!record) return tl::unexpected<Error>(at_path(std::move(record).error()));
  return *std::move(record);
}

Result<std::string> PortableStore::custom_metadata() {
  if (steps_.empty()) return std::string();
  return STEPSTONE_TRY(find_step(steps_.back())).value().store_metadata;
}

Result<std::unique_ptr<StepContent>> PortableStore::open_step(std::uint64_t step) {
  std::optional<StepRecord> record = STEPSTONE_TRY(find_step(step));
  if (!record) return nullptr;
  return std::make_unique<PortableStepReader>(shared_from_this(), *std::move(record));
}

Result<std::shared_ptr<StoreImpl>> PortableStore::writable() {
  return fail(ErrorCode::kReadOnly,
              fmt::format("{} is a portable file, which is never changed: import it into a store, "
                          "or export another one",
                          path_.string()));
}

Result<std::shared_ptr<const PortableStore::Mapped>> PortableStore::map() {
  const std::scoped_lock lock(mapped_mutex_);
  if (mapped_ != nullptr) return mapped_;
  auto mapping = STEPSTONE_TRY(file_->map());
  STEPSTONE_TRY(mapping->populate(mapping->bytes().first(portable::kHeaderSizeBytes)));
  STEPSTONE_TRY(mapping->populate(mapping->bytes().last(portable::kFooterSizeBytes)));
  auto content = STEPSTONE_TRY(PortableFile::open(mapping->bytes()));
  mapped_ = std::make_shared<const Mapped>(Mapped{std::move(mapping), std::move(content)});
  return mapped_;
}

template <typename Value>
Result<Value> PortableStepReader::expected(Result<Value> result) const {
  if (result) return result;
  Error error = std::move(result).error();
  if (error.code == ErrorCode::kNotFound) error.code = ErrorCode::kCorrupt;
  return tl::unexpected<Error>(std::move(error));
}

Result<ItemRecord> PortableStepReader::read_item(std::string_view item,
                                                 const LeafPath& below) const {
  STEPSTONE_TRY(check_item(record_, item));
  const PortableFile& content = store_->content();
  if (below.empty()) return expected(content.item(record_.save.step, item));
  return content.item(record_.save.step, item, below);
}

Result<std::vector<StoredLeaf>> PortableStepReader::read_leaves(
    std::string_view item, const LeafPath& below, const TreeStructure* /*structure*/) const {
  STEPSTONE_TRY(check_item(record_, item));
  const std::uint64_t step = record_.save.step;
  std::vector<StoredLeaf> leaves;
  STEPSTONE_TRY(store_->content().for_each_leaf(
      step, item, below, [&](std::string_view path, const PortableLeaf& leaf) -> Result<void> {
        leaves.push_back({std::string(path), leaf.record()});
        return {};
      }));
  const auto summary = std::find_if(record_.items.begin(), record_.items.end(),
                                    [&](const ItemSummary& s) { return s.name == item; });
  if (below.empty() && leaves.size() != summary->leaf_count) {
    return fail(ErrorCode::kCorrupt,
                fmt::format("{}: {} of its {} leaf records are there", item_name(step, item),
                            leaves.size(), summary->leaf_count));
  }
  return leaves;
}

Result<StoredLeaf> PortableStepReader::read_leaf(std::string_view item,
                                                 std::string encoded_path) const {
  STEPSTONE_TRY(check_item(record_, item));
  PortableLeaf leaf = STEPSTONE_TRY(store_->content().leaf(record_.save.step, item, encoded_path));
  return StoredLeaf{std::move(encoded_path), leaf.record()};
}

Result<void> PortableStepReader::read_chunk(std::string_view item, const StoredLeaf& leaf,
                                            std::uint32_t chunk,
                                            std::span<std::byte> destination) const {
  const ChunkScratchPool::Lease scratch = store_->scratches().take();
  STEPSTONE_TRY_CONTEXT(
      store_->content().read_chunk(leaf.record, chunk, destination, scratch->decoder),
      leaf_name(record_.save.step, item, leaf.encoded_path));
  return {};
}

Result<void> PortableStepReader::read_bytes(std::string_view item, const StoredLeaf& leaf,
                                            std::uint64_t offset,
                                            std::span<std::byte> destination) const {
  STEPSTONE_TRY(check_range(record_.save.step, item, leaf, offset, destination.size()));
  const LeafRecord& record = leaf.record;
  while (!destination.empty()) {
    const auto chunk = static_cast<std::uint32_t>(offset / record.chunk_size_bytes);
    const auto begin = static_cast<std::size_t>(offset % record.chunk_size_bytes);
    const std::size_t chunk_size = record.chunk_size_at(chunk);
    const std::size_t size = std::min(destination.size(), chunk_size - begin);
    if (size == chunk_size) {
      STEPSTONE_TRY(read_chunk(item, leaf, chunk, destination.first(size)));
    } else {
      // The hash is over the whole chunk.
      const ChunkScratchPool::Lease scratch = store_->scratches().take();
      scratch->decoded.resize(chunk_size);
      STEPSTONE_TRY(read_chunk(item, leaf, chunk, scratch->decoded));
      std::memcpy(destination.data(), scratch->decoded.data() + begin, size);
    }
    destination = destination.subspan(size);
    offset += size;
  }
  return {};
}

Result<void> PortableStepReader::read_all(std::span<const ReadRequest> requests) const {
  struct Piece {
    const ReadRequest* request;
    std::uint32_t chunk;
  };
  const std::uint64_t size_bytes = STEPSTONE_TRY(check_sizes(record_.save.step, requests));
  std::vector<Piece> pieces;
  for (const ReadRequest& request : requests) {
    for (std::uint32_t chunk = 0; chunk < request.leaf->record.chunk_count(); ++chunk) {
      pieces.push_back({&request, chunk});
    }
  }
  const unsigned thread_count = size_bytes >= kLargeSizeBytesMin ? store_->thread_count() : 1;
  return parallel_for(thread_count, pieces.size(), [&](std::size_t i) {
    const auto& [request, chunk] = pieces[i];
    const LeafRecord& record = request->leaf->record;
    const auto offset = static_cast<std::size_t>(chunk) * record.chunk_size_bytes;
    const auto destination = request->destination.subspan(offset, record.chunk_size_at(chunk));
    prepare_to_fill(destination);  // New memory, as a rule.
    return read_chunk(request->item, *request->leaf, chunk, destination);
  });
}

Result<LeafView> PortableStepReader::view(std::string_view item, const StoredLeaf& leaf,
                                          ViewCheck check) const {
  STEPSTONE_TRY(check_item(record_, item));
  // What keeps the bytes, of which those of an inline leaf stand in its record.
  struct Owner {
    std::shared_ptr<const PortableStore::Mapped> mapped;
    PortableLeaf leaf;
  };
  const auto find = [&]() -> Result<LeafView> {
    const auto owner = std::make_shared<Owner>();
    owner->leaf = STEPSTONE_TRY(store_->content().leaf(record_.save.step, item, leaf.encoded_path));
    owner->mapped = STEPSTONE_TRY(store_->map());
    const PortableFile& content = owner->mapped->content;
    const auto bytes = STEPSTONE_TRY(content.view(owner->leaf, PortableFile::Check::kNothing));
    if (check == ViewCheck::kHashes) {
      if (!owner->leaf.record().inline_bytes) {
        STEPSTONE_TRY(owner->mapped->mapping->populate(bytes));
      }
      STEPSTONE_TRY(content.view(owner->leaf, PortableFile::Check::kHashes));
    }
    return LeafView{bytes, owner};
  };
  return STEPSTONE_TRY_CONTEXT(find(), leaf_name(record_.save.step, item, leaf.encoded_path));
}

}  // namespace stepstone
