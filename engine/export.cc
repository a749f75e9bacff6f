// Writing a portable file. One thread puts it together and hashes, a few read what comes next
// (ReadAhead), and one hands blocks to the disk (NewFile).
#include <fmt/format.h>

#include <algorithm>

#include "engine/new_file.h"
#include "engine/portable_leaves.h"
#include "engine/progress.h"
#include "engine/step_copy.h"
#include "engine/store_content.h"
#include "format/portable_writer.h"

namespace stepstone {
namespace {

// Of chunks that need not be read again; beyond it, they are read for nothing.
constexpr std::size_t kKnownChunksMax = std::size_t{1} << 20;

class Exporter {
 public:
  Exporter(std::vector<std::shared_ptr<const StepReader>> steps, std::string store_metadata,
           unsigned thread_count, const ExportOptions& options)
      : steps_(std::move(steps)),
        store_metadata_(std::move(store_metadata)),
        options_(options),
        read_ahead_(thread_count) {
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
                                     .custom_metadata = record.custom_metadata,
                                     .store_metadata = is_last ? store_metadata_ : ""}));
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
    std::size_t next_path = 0;
    PortableLeaves leaves(
        [&]() -> Result<std::optional<PortableSourceLeaf>> {
          if (next_path == item.encoded_paths.size()) return std::nullopt;
          return STEPSTONE_TRY(plan_leaf(copy, item, item.encoded_paths[next_path++]));
        },
        known_, read_ahead_);
    while (const PortableSourceLeaf* const leaf = STEPSTONE_TRY(leaves.next())) {
      STEPSTONE_TRY(writer.add_leaf(leaf->info, leaves));
      original_bytes += leaf->original_size_bytes;
      progress.add(leaf->original_size_bytes);
      ++counters_.leaf_count;
      counters_.size_bytes += leaf->info.size_bytes;
      if (!options_.share || is_last) continue;
      for (const Hash128& hash : leaf->hashes) {
        if (known_.size() + written_.size() < kKnownChunksMax) written_.insert(hash);
      }
    }
    return original_bytes;
  }

  static Result<PortableSourceLeaf> plan_leaf(const StepCopy& copy, const StepCopy::Item& item,
                                              const std::string& encoded_path) {
    StepCopy::Leaf leaf = STEPSTONE_TRY(copy.plan_leaf(item, encoded_path));
    const LeafInfo& info = leaf.content.info;
    const std::uint32_t wanted = info.chunk_size_bytes.value_or(SaveOptions().chunk_size_bytes);
    PortableSourceLeaf source{.info = {.encoded_path = encoded_path,
                                       .kind = info.kind,
                                       .dtype = info.dtype,
                                       .shape = info.shape,
                                       .size_bytes = info.size_bytes,
                                       .chunk_size_bytes = portable_chunk_size_bytes(wanted)},
                              .source = std::move(leaf.content.source),
                              .hashes = std::move(leaf.hashes),
                              .original_size_bytes = leaf.original_size_bytes};
    if (source.info.chunk_size_bytes != wanted) source.hashes.clear();
    return source;
  }

  std::vector<std::shared_ptr<const StepReader>> steps_;
  const std::string store_metadata_;
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
  std::string metadata = STEPSTONE_TRY(metadata_to_copy(options.steps.has_value()));
  return Exporter(std::move(steps), std::move(metadata), content_->thread_count(), options)
      .run(*file_system, file);
}

}  // namespace stepstone
