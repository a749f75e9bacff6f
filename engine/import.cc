// Copying steps into a store: ordinary saves, fed by readers of the original.
#include <fmt/format.h>

#include <algorithm>

#include "engine/progress.h"
#include "engine/step_copy.h"
#include "engine/store_content.h"
#include "engine/store_impl.h"

namespace stepstone {
namespace {

using Existing = ImportOptions::Existing;

// Progress over all steps, from that of the one at hand.
class ImportProgress {
 public:
  ImportProgress(const TransferProgress& callback, std::uint64_t total_bytes)
      : progress_(callback, total_bytes) {}

  // Of the bytes of the step at hand.
  void set(std::uint64_t done_bytes) {
    progress_.add(done_bytes - std::min(done_bytes, step_done_bytes_));
    step_done_bytes_ = std::max(done_bytes, step_done_bytes_);
  }
  void end_step(std::uint64_t size_bytes) {
    set(size_bytes);
    step_done_bytes_ = 0;
  }

 private:
  Progress progress_;
  std::uint64_t step_done_bytes_ = 0;
};

Result<void> import_step(Store& store, const StepCopy& copy, std::uint64_t target,
                         const ImportOptions& options, ImportProgress& progress,
                         ImportCounters& counters) {
  const StepRecord& record = copy.step().record();
  const auto writer =
      STEPSTONE_TRY(store.begin_save(target, {.overwrite = options.existing == Existing::kOverwrite,
                                              .share = options.share,
                                              .compression = options.compression,
                                              .metrics = record.metrics,
                                              .custom_metadata = record.custom_metadata,
                                              .started_unix_ns = record.started_unix_ns,
                                              .committed_unix_ns = record.committed_unix_ns}));
  std::uint64_t leaf_count = 0;
  bool is_empty = true;
  for (const ItemSummary& summary : record.items) {
    std::optional<StepCopy::Item> item = STEPSTONE_TRY(copy.plan_item(summary.name));
    if (!item) continue;
    is_empty = false;
    STEPSTONE_TRY(writer->put_item(item->name, item->content.handler, item->content.structure,
                                   item->content.custom_metadata));
    for (const std::string& path : item->encoded_paths) {
      StepCopy::Leaf leaf = STEPSTONE_TRY(copy.plan_leaf(*item, path));
      STEPSTONE_TRY(writer->put_leaf(item->name, path, std::move(leaf.content.info),
                                     std::move(leaf.content.source)));
      ++leaf_count;
    }
  }
  if (is_empty) {
    return fail(ErrorCode::kInvalidArgument,
                step_name(record.save.step) + ": none of its items was chosen");
  }
  // The copy may be smaller than the original.
  writer->on_progress([&](std::uint64_t done_bytes, std::uint64_t total_bytes) {
    const double share =
        total_bytes == 0 ? 1.0 : static_cast<double>(done_bytes) / static_cast<double>(total_bytes);
    progress.set(static_cast<std::uint64_t>(share * static_cast<double>(record.size_bytes)));
  });
  const StepRecord committed = STEPSTONE_TRY(writer->commit());
  ++counters.step_count;
  counters.leaf_count += leaf_count;
  counters.size_bytes += committed.size_bytes;
  counters.stored_bytes += writer->counters().stored_bytes;
  return {};
}

}  // namespace

Result<std::vector<std::shared_ptr<const StepReader>>> Store::hold_steps(
    const std::optional<std::vector<std::uint64_t>>& wanted) const {
  if (content_ == nullptr) return fail(ErrorCode::kClosed, "the store is closed");
  std::vector<std::shared_ptr<const StepReader>> readers;
  std::vector<std::uint64_t> numbers = wanted ? *wanted : steps();
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  for (const std::uint64_t step : numbers) {
    Result<std::shared_ptr<const StepReader>> reader = read_step(step);
    // One that was retired a moment ago was not asked for by name.
    if (!wanted && !reader && reader.error().code == ErrorCode::kNotFound) continue;
    readers.push_back(STEPSTONE_TRY(std::move(reader)));
    // A process that writes to it knows nothing of these readers.
    if (is_read_only()) STEPSTONE_TRY(readers.back()->hold_files());
  }
  return readers;
}

Result<std::string> Store::metadata_to_copy(bool are_steps_named) const {
  Result<std::string> metadata = custom_metadata();
  // In a portable file they stand with the highest step: damage to that is none to the others.
  if (are_steps_named && !metadata && metadata.error().code == ErrorCode::kCorrupt) {
    return std::string();
  }
  return metadata;
}

Result<ImportCounters> Store::import_steps(const Store& from, const ImportOptions& options) {
  STEPSTONE_TRY(writable());
  std::vector<std::shared_ptr<const StepReader>> steps =
      STEPSTONE_TRY(from.hold_steps(options.steps));
  if (options.as_step && steps.size() != 1) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("step {} cannot be what {} steps are called: choose one of them",
                            *options.as_step, steps.size()));
  }
  const auto target = [&](const StepReader& step) {
    return options.as_step.value_or(step.record().save.step);
  };
  std::uint64_t total_bytes = 0;
  for (const auto& step : steps) {
    total_bytes += step->record().size_bytes;
    if (options.existing != Existing::kRefuse) continue;
    if (!step_record(target(*step))) continue;
    return fail(ErrorCode::kAlreadyExists,
                fmt::format("step {} is in {} already: skip or overwrite it, or leave it out",
                            target(*step), directory().string()));
  }
  // A file that is not what it seems to be is not taken as a whole. Its good steps can be, by name.
  if (!options.steps) STEPSTONE_TRY(from.content_->check_whole());
  ImportCounters counters;
  ImportProgress progress(options.progress, total_bytes);
  for (auto& step : steps) {
    const std::uint64_t size_bytes = step->record().size_bytes;
    if (options.existing == Existing::kSkip && step_record(target(*step))) {
      ++counters.skipped_count;
    } else {
      const StepCopy copy(step, options.hooks, options.should_stop);
      STEPSTONE_TRY_CONTEXT(import_step(*this, copy, target(*step), options, progress, counters),
                            fmt::format("copying step {} of {}", step->record().save.step,
                                        from.directory().string()));
    }
    progress.end_step(size_bytes);
    step.reset();  // It may be collected now.
  }
  const std::string metadata = STEPSTONE_TRY(from.metadata_to_copy(options.steps.has_value()));
  if (!metadata.empty() && STEPSTONE_TRY(custom_metadata()).empty()) {
    STEPSTONE_TRY(set_custom_metadata(metadata));
  }
  return counters;
}

}  // namespace stepstone
