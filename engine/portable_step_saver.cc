// A save of one step into a portable file: leaves are collected as for a database, and written in
// one pass by the commit.
#include <algorithm>
#include <chrono>
#include <map>

#include "engine/new_file.h"
#include "engine/parallel.h"
#include "engine/portable_leaves.h"
#include "engine/step_saver.h"
#include "engine/store_content.h"
#include "engine/store_impl.h"
#include "format/limits.h"

namespace stepstone {
namespace {

// Asks before each chunk whether the save is still wanted.
class WantedSource final : public LeafSource {
 public:
  WantedSource(std::shared_ptr<const LeafSource> source, const SaveFate& fate, std::uint64_t step)
      : source_(std::move(source)), fate_(fate), step_(step) {}

  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> scratch) const override {
    STEPSTONE_TRY(fate_.check_wanted(step_));
    return source_->read(offset, size, scratch);
  }

 private:
  const std::shared_ptr<const LeafSource> source_;
  const SaveFate& fate_;
  const std::uint64_t step_;
};

class PortableStepSaver final : public StepSaver {
 public:
  PortableStepSaver(std::filesystem::path file, std::uint64_t step, SaveOptions options,
                    std::shared_ptr<rocksdb::FileSystem> file_system)
      : file_(std::move(file)),
        step_(step),
        options_(std::move(options)),
        file_system_(std::move(file_system)),
        started_unix_ns_(options_.started_unix_ns.value_or(unix_time_ns())) {}

  Result<void> put_item(std::string name, PlannedItem item) override {
    if (items_.contains(name)) {
      return fail(ErrorCode::kAlreadyExists,
                  item_name(step_, name) + " was already added to this save");
    }
    items_.emplace(std::move(name), Item{std::move(item), {}});
    return {};
  }

  Result<void> put_leaf(std::string_view item, std::string encoded_path, LeafInfo info,
                        std::shared_ptr<const LeafSource> source) override {
    const auto found = items_.find(item);
    if (found == items_.end()) {
      return fail(ErrorCode::kNotFound, item_name(step_, item) + " was not added to this save");
    }
    const std::uint32_t wanted = info.chunk_size_bytes.value_or(options_.chunk_size_bytes);
    STEPSTONE_TRY_CONTEXT(plan_record(info, wanted), leaf_name(step_, item, encoded_path));
    found->second.plan.leaf_count += 1;
    found->second.plan.size_bytes += info.size_bytes;
    size_bytes_ += info.size_bytes;
    found->second.leaves.push_back(
        {.info = {.encoded_path = std::move(encoded_path),
                  .kind = info.kind,
                  .dtype = info.dtype,
                  .shape = std::move(info.shape),
                  .size_bytes = info.size_bytes,
                  .chunk_size_bytes = portable_chunk_size_bytes(wanted)},
         .source = std::make_shared<const WantedSource>(std::move(source), fate_, step_),
         .hashes = {},
         .original_size_bytes = info.size_bytes});
    return {};
  }

  void on_progress(Progress::Callback callback) override { callback_ = std::move(callback); }
  bool give_up() override { return fate_.give_up(); }
  const SaveCounters& counters() const override { return counters_; }

  Result<StepRecord> commit(const ChooseRetired& choose_retired) override {
    if (is_begun_) {
      return fail(ErrorCode::kInvalidArgument, step_name(step_) + ": commit() was called before");
    }
    is_begun_ = true;
    STEPSTONE_TRY(fate_.check_wanted(step_));
    STEPSTONE_TRY(check_leaves());
    const auto begin = std::chrono::steady_clock::now();
    const auto file =
        STEPSTONE_TRY(NewFile::create(*file_system_, file_, options_.overwrite, size_bytes_));
    StepRecord record = STEPSTONE_TRY(write(*file));
    const auto written = std::chrono::steady_clock::now();
    STEPSTONE_TRY(fate_.begin_commit(step_));
    // There is nothing that could be retired, but this may be the caller's last word.
    STEPSTONE_TRY(choose_retired());
    STEPSTONE_TRY(file->commit());
    counters_.write_time = written - begin;
    counters_.commit_time = std::chrono::steady_clock::now() - written;
    return record;
  }

 private:
  struct Item {
    PlannedItem plan;
    std::vector<PortableSourceLeaf> leaves;
  };

  Result<void> check_leaves() {
    if (items_.empty()) {
      return fail(ErrorCode::kInvalidArgument,
                  step_name(step_) + ": nothing to save, add an item first");
    }
    for (auto& [name, item] : items_) {
      std::sort(item.leaves.begin(), item.leaves.end(), [](const auto& a, const auto& b) {
        return a.info.encoded_path < b.info.encoded_path;
      });
      std::vector<const std::string*> paths;
      for (const PortableSourceLeaf& leaf : item.leaves) paths.push_back(&leaf.info.encoded_path);
      STEPSTONE_TRY(check_paths(step_, name, item.plan.structure, paths));
    }
    return {};
  }

  Result<StepRecord> write(NewFile& file) {
    const bool compress =
        options_.compression == Compression::kAlways || options_.compression == Compression::kDelta;
    StepRecord record{.save = {step_, 0},
                      .started_unix_ns = started_unix_ns_,
                      .committed_unix_ns = options_.committed_unix_ns.value_or(unix_time_ns()),
                      .size_bytes = size_bytes_,
                      .items = {},
                      .metrics = options_.metrics,
                      .custom_metadata = options_.custom_metadata,
                      .origin_saves = {}};
    counters_.thread_count = effective_thread_count(0);
    ReadAhead read_ahead(counters_.thread_count);
    Progress progress(callback_, size_bytes_);
    PortableWriter writer = STEPSTONE_TRY(
        PortableWriter::create(file, {.compress = compress, .share = options_.share}));
    STEPSTONE_TRY(writer.begin_step({.step = step_,
                                     .started_unix_ns = record.started_unix_ns,
                                     .committed_unix_ns = record.committed_unix_ns,
                                     .metrics = record.metrics,
                                     .custom_metadata = record.custom_metadata}));
    for (auto& [name, item] : items_) {
      STEPSTONE_TRY(write_item(writer, name, item, read_ahead, progress));
      record.items.push_back({name, item.plan.handler, item.plan.leaf_count, item.plan.size_bytes});
    }
    STEPSTONE_TRY(writer.end_step());
    counters_.stored_bytes = STEPSTONE_TRY(writer.finish());
    counters_.size_bytes = size_bytes_;
    return record;
  }

  static Result<void> write_item(PortableWriter& writer, const std::string& name, Item& item,
                                 ReadAhead& read_ahead, Progress& progress) {
    STEPSTONE_TRY(writer.begin_item({.name = name,
                                     .handler = item.plan.handler,
                                     .structure = std::move(item.plan.structure),
                                     .custom_metadata = std::move(item.plan.custom_metadata)}));
    std::size_t next_leaf = 0;
    const ChunkHashes none;
    PortableLeaves leaves(
        [&]() -> Result<std::optional<PortableSourceLeaf>> {
          if (next_leaf == item.leaves.size()) return std::nullopt;
          return std::move(item.leaves[next_leaf++]);
        },
        none, read_ahead);
    while (const PortableSourceLeaf* const leaf = STEPSTONE_TRY(leaves.next())) {
      STEPSTONE_TRY(writer.add_leaf(leaf->info, leaves));
      progress.add(leaf->info.size_bytes);
    }
    return {};
  }

  const std::filesystem::path file_;
  const std::uint64_t step_;
  const SaveOptions options_;
  const std::shared_ptr<rocksdb::FileSystem> file_system_;
  const std::int64_t started_unix_ns_;
  SaveFate fate_;
  std::map<std::string, Item, std::less<>> items_;
  std::uint64_t size_bytes_ = 0;
  Progress::Callback callback_;
  SaveCounters counters_;
  bool is_begun_ = false;
};

}  // namespace

Result<std::unique_ptr<StepWriter>> StepWriter::into_file(
    const std::filesystem::path& file, std::uint64_t step, const SaveOptions& options,
    std::shared_ptr<rocksdb::FileSystem> file_system) {
  if (step > limits::kStepMax) {
    return fail(ErrorCode::kLimit, step_name(step) + " is over the limit");
  }
  STEPSTONE_TRY_CONTEXT(check_chunk_size(options.chunk_size_bytes), step_name(step));
  if (file_system == nullptr) file_system = rocksdb::FileSystem::Default();
  return std::unique_ptr<StepWriter>(new StepWriter(
      std::make_unique<PortableStepSaver>(file, step, options, std::move(file_system))));
}

}  // namespace stepstone
