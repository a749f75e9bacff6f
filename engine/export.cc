// Writing a portable file. One thread puts it together and hashes, a few read what comes next
// (ReadAhead), and one hands blocks to the disk (NewFile).
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <unordered_set>

#include "engine/new_file.h"
#include "engine/progress.h"
#include "engine/read_ahead.h"
#include "engine/step_copy.h"
#include "engine/store_content.h"
#include "format/limits.h"
#include "format/portable_layout.h"
#include "format/portable_writer.h"

namespace stepstone {
namespace {

// What is read ahead: about what the disk takes in a hundredth of a second...
constexpr std::size_t kAheadBytesMax = std::size_t{16} << 20;
// ...and no more leaves than are worth it where all are tiny.
constexpr std::size_t kLeavesAheadMax = 256;
constexpr std::uint32_t kChunkSizeBytes = std::uint32_t{256} << 10;
// Of chunks that need not be read again; beyond it, they are read for nothing.
constexpr std::size_t kKnownChunksMax = std::size_t{1} << 20;

struct HashOfHash {
  std::size_t operator()(const Hash128& hash) const { return hash.low; }
};
using ChunkHashes = std::unordered_set<Hash128, HashOfHash>;

PortableLeafInfo portable_info(const TransferLeaf& leaf) {
  const std::uint32_t chunk_size = leaf.info.chunk_size_bytes.value_or(kChunkSizeBytes);
  return {.encoded_path = leaf.encoded_path,
          .kind = leaf.info.kind,
          .dtype = leaf.info.dtype,
          .shape = leaf.info.shape,
          .size_bytes = leaf.info.size_bytes,
          .chunk_size_bytes =
              chunk_size % portable::kLeafAlignment == 0 ? chunk_size : kChunkSizeBytes};
}

// The leaves of one item in order, their chunks read ahead.
class ItemReader final : public PortableLeafBytes {
 public:
  // `known` are chunks that the file holds already.
  ItemReader(const StepCopy& copy, const StepCopy::Item& item, const ChunkHashes& known,
             ReadAhead& read_ahead)
      : copy_(copy), item_(item), known_(known), read_ahead_(read_ahead) {}

  // Steps to the next leaf; null: that was the last.
  Result<const PortableLeafInfo*> next_leaf();
  const StepCopy::Leaf& leaf() const { return leaves_.front().plan; }

  std::span<const Hash128> hashes() const override { return leaves_.front().plan.hashes; }
  Result<std::span<const std::byte>> chunk(std::uint32_t chunk) override;

 private:
  struct ChunkAhead {
    std::uint32_t number;
    std::shared_ptr<ReadAhead::Piece> piece;
  };
  struct LeafAhead {
    StepCopy::Leaf plan;
    PortableLeafInfo info;
    std::uint32_t chunk_count = 0;
    std::uint32_t next_chunk = 0;  // To be begun.
    std::deque<ChunkAhead> chunks;
  };

  Result<void> read_on();
  Result<bool> plan_next();
  std::shared_ptr<ReadAhead::Piece> begin(const LeafAhead& leaf, std::uint32_t chunk);
  void drop_chunk(LeafAhead& leaf);

  const StepCopy& copy_;
  const StepCopy::Item& item_;
  const ChunkHashes& known_;
  ReadAhead& read_ahead_;
  std::size_t next_path_ = 0;
  std::deque<LeafAhead> leaves_;  // The first is the current one.
  bool is_begun_ = false;
  std::size_t first_unbegun_ = 0;  // Among leaves_: all before it are being read to their ends.
  std::size_t ahead_bytes_ = 0;
  std::shared_ptr<ReadAhead::Piece> current_;
};

Result<bool> ItemReader::plan_next() {
  if (next_path_ == item_.encoded_paths.size() || leaves_.size() > kLeavesAheadMax) return false;
  LeafAhead leaf;
  leaf.plan = STEPSTONE_TRY(copy_.plan_leaf(item_, item_.encoded_paths[next_path_]));
  ++next_path_;
  leaf.info = portable_info(leaf.plan.content);
  const std::uint64_t chunk_count =
      leaf.info.size_bytes / leaf.info.chunk_size_bytes +
      (leaf.info.size_bytes % leaf.info.chunk_size_bytes != 0 ? 1 : 0);
  // Of another chunk size, or of what a hook made of it.
  if (leaf.info.chunk_size_bytes != leaf.plan.content.info.chunk_size_bytes ||
      leaf.plan.hashes.size() != chunk_count) {
    leaf.plan.hashes.clear();
  }
  // What is over the limits is refused by the writer, before it asks for a chunk.
  leaf.chunk_count =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(chunk_count, limits::kChunksPerLeafMax));
  leaves_.push_back(std::move(leaf));
  return true;
}

std::shared_ptr<ReadAhead::Piece> ItemReader::begin(const LeafAhead& leaf, std::uint32_t chunk) {
  const std::uint64_t offset = std::uint64_t{chunk} * leaf.info.chunk_size_bytes;
  const auto size = static_cast<std::size_t>(
      std::min<std::uint64_t>(leaf.info.chunk_size_bytes, leaf.info.size_bytes - offset));
  return read_ahead_.begin(
      size, [source = leaf.plan.content.source, offset, size](std::span<std::byte> scratch) {
        return source->read(offset, size, scratch);
      });
}

// Begins what comes next, as far as the budget reaches.
Result<void> ItemReader::read_on() {
  while (ahead_bytes_ < kAheadBytesMax) {
    if (first_unbegun_ == leaves_.size() && !STEPSTONE_TRY(plan_next())) return {};
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

void ItemReader::drop_chunk(LeafAhead& leaf) {
  ahead_bytes_ -= leaf.chunks.front().piece->size_bytes();
  leaf.chunks.pop_front();
}

Result<const PortableLeafInfo*> ItemReader::next_leaf() {
  current_.reset();
  if (is_begun_) {
    LeafAhead& done = leaves_.front();
    while (!done.chunks.empty()) drop_chunk(done);
    leaves_.pop_front();
    if (first_unbegun_ != 0) --first_unbegun_;
  }
  is_begun_ = true;
  STEPSTONE_TRY(read_on());
  if (leaves_.empty() && !STEPSTONE_TRY(plan_next())) return nullptr;
  return &leaves_.front().info;
}

Result<std::span<const std::byte>> ItemReader::chunk(std::uint32_t chunk) {
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

class Exporter {
 public:
  Exporter(std::vector<std::shared_ptr<const StepReader>> steps, unsigned thread_count,
           const ExportOptions& options)
      : steps_(std::move(steps)), options_(options), read_ahead_(thread_count) {
    for (const auto& step : steps_) total_bytes_ += step->record().size_bytes;
  }

  Result<ExportCounters> run(rocksdb::FileSystem& file_system, const std::filesystem::path& path) {
    const auto file =
        STEPSTONE_TRY(NewFile::create(file_system, path, options_.overwrite, total_bytes_));
    PortableWriter writer = STEPSTONE_TRY(
        PortableWriter::create(*file, {.compress = options_.compress, .share = options_.share}));
    Progress progress(options_.progress, total_bytes_);
    for (auto& step : steps_) {
      STEPSTONE_TRY(write_step(writer, step, progress, step == steps_.back()));
      step.reset();  // It may be collected now.
    }
    counters_.file_size_bytes = STEPSTONE_TRY(writer.finish());
    STEPSTONE_TRY(file->commit());
    return counters_;
  }

 private:
  Result<void> write_step(PortableWriter& writer, const std::shared_ptr<const StepReader>& step,
                          Progress& progress, bool is_last) {
    const StepRecord& record = step->record();
    const StepCopy copy(step, options_.hooks, options_.should_stop);
    STEPSTONE_TRY(writer.begin_step({.step = record.save.step,
                                     .started_unix_ns = record.started_unix_ns,
                                     .committed_unix_ns = record.committed_unix_ns,
                                     .metrics = record.metrics,
                                     .custom_metadata = record.custom_metadata}));
    bool is_empty = true;
    for (const ItemSummary& summary : record.items) {
      std::uint64_t done_bytes = 0;
      std::optional<StepCopy::Item> item = STEPSTONE_TRY(copy.plan_item(summary.name));
      if (item) {
        is_empty = false;
        done_bytes = STEPSTONE_TRY(write_item(writer, copy, *item, progress, is_last));
      }
      // Of what is left out.
      progress.add(summary.size_bytes - std::min(done_bytes, summary.size_bytes));
    }
    if (is_empty) {
      return fail(ErrorCode::kInvalidArgument,
                  step_name(record.save.step) + ": none of its items was chosen");
    }
    STEPSTONE_TRY(writer.end_step());
    known_.merge(written_);
    written_.clear();
    ++counters_.step_count;
    return {};
  }

  // Gives the size of the leaves of the original.
  Result<std::uint64_t> write_item(PortableWriter& writer, const StepCopy& copy,
                                   const StepCopy::Item& item, Progress& progress, bool is_last) {
    STEPSTONE_TRY(writer.begin_item({.name = item.name,
                                     .handler = item.content.handler,
                                     .structure = item.content.structure,
                                     .custom_metadata = item.content.custom_metadata}));
    std::uint64_t original_bytes = 0;
    ItemReader reader(copy, item, known_, read_ahead_);
    while (const PortableLeafInfo* const info = STEPSTONE_TRY(reader.next_leaf())) {
      STEPSTONE_TRY(writer.add_leaf(*info, reader));
      const StepCopy::Leaf& leaf = reader.leaf();
      original_bytes += leaf.original_size_bytes;
      progress.add(leaf.original_size_bytes);
      ++counters_.leaf_count;
      counters_.size_bytes += info->size_bytes;
      if (!options_.share || is_last) continue;
      for (const Hash128& hash : leaf.hashes) {
        if (known_.size() + written_.size() < kKnownChunksMax) written_.insert(hash);
      }
    }
    return original_bytes;
  }

  std::vector<std::shared_ptr<const StepReader>> steps_;
  const ExportOptions& options_;
  ReadAhead read_ahead_;
  ChunkHashes known_;    // Of chunks of earlier steps, which the writer does not ask for again.
  ChunkHashes written_;  // Of this step.
  std::uint64_t total_bytes_ = 0;
  ExportCounters counters_;
};

}  // namespace

Result<ExportCounters> Store::export_steps(const std::filesystem::path& file,
                                           const ExportOptions& options) const {
  std::vector<std::shared_ptr<const StepReader>> steps = STEPSTONE_TRY(hold_steps(options.steps));
  if (steps.empty()) {
    return fail(ErrorCode::kNotFound,
                fmt::format("{} has no steps to export", directory().string()));
  }
  const std::shared_ptr<rocksdb::FileSystem> file_system =
      options.file_system ? options.file_system : rocksdb::FileSystem::Default();
  return Exporter(std::move(steps), content_->thread_count(), options).run(*file_system, file);
}

}  // namespace stepstone
