#include "engine/dead_save_filter.h"

#include <optional>
#include <string>

#include "format/keys.h"

namespace stepstone {
namespace {

class DeadSaveFilter : public rocksdb::CompactionFilter {
 public:
  explicit DeadSaveFilter(std::shared_ptr<const SaveRegistry> registry)
      : registry_(std::move(registry)) {}

  const char* Name() const override { return "StepstoneDeadSaveFilter"; }

  // A dead save is skipped as a whole, which reads none of its blocks and leaves no tombstones.
  // RocksDB permits that for keys that were written only once, as all of ours are.
  Decision FilterV2(int /*level*/, const rocksdb::Slice& key, ValueType /*type*/,
                    const rocksdb::Slice& /*value*/, std::string* /*new_value*/,
                    std::string* skip_until) const override {
    const std::optional<SaveId> save = save_of_key(key.ToStringView());
    if (!save) return Decision::kKeep;
    // Keys come in order, so that one answer serves for a whole save. The dead stay dead; one that
    // dies meanwhile waits for the next compaction.
    if (save != last_save_) {
      last_save_ = save;
      last_is_dead_ = registry_->is_dead(*save);
    }
    if (!last_is_dead_) return Decision::kKeep;
    *skip_until = save_range(*save).end;
    return Decision::kRemoveAndSkipUntil;
  }

 private:
  std::shared_ptr<const SaveRegistry> registry_;
  // RocksDB calls one filter object from one thread.
  mutable std::optional<SaveId> last_save_;
  mutable bool last_is_dead_ = false;
};

class DeadSaveFilterFactory : public rocksdb::CompactionFilterFactory {
 public:
  explicit DeadSaveFilterFactory(std::shared_ptr<const SaveRegistry> registry)
      : registry_(std::move(registry)) {}

  const char* Name() const override { return "StepstoneDeadSaveFilterFactory"; }

  // Most small steps are dead by the time their memtable is full, and never reach a file.
  bool ShouldFilterTableFileCreation(rocksdb::TableFileCreationReason reason) const override {
    return reason == rocksdb::TableFileCreationReason::kFlush ||
           reason == rocksdb::TableFileCreationReason::kCompaction;
  }

  std::unique_ptr<rocksdb::CompactionFilter> CreateCompactionFilter(
      const rocksdb::CompactionFilter::Context& /*context*/) override {
    return std::make_unique<DeadSaveFilter>(registry_);
  }

 private:
  std::shared_ptr<const SaveRegistry> registry_;
};

}  // namespace

std::shared_ptr<rocksdb::CompactionFilterFactory> dead_save_filter(
    std::shared_ptr<const SaveRegistry> registry) {
  return std::make_shared<DeadSaveFilterFactory>(std::move(registry));
}

}  // namespace stepstone
