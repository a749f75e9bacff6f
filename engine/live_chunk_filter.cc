#include "engine/live_chunk_filter.h"

#include <string>

namespace stepstone {
namespace {

class LiveChunkFilter : public rocksdb::CompactionFilter {
 public:
  LiveChunkFilter(SaveId save, std::shared_ptr<const ChunkSet> live)
      : save_(save), live_(std::move(live)) {}

  const char* Name() const override { return "StepstoneLiveChunkFilter"; }

  // From one chunk that is kept to the next without reading what is between.
  Decision FilterV2(int /*level*/, const rocksdb::Slice& key, ValueType /*type*/,
                    const rocksdb::Slice& /*value*/, std::string* /*new_value*/,
                    std::string* skip_until) const override {
    if (save_of_key(key.ToStringView()) != save_) return Decision::kKeep;
    const std::optional<std::string> next = live_->next(key.ToStringView());
    if (next && *next == key.ToStringView()) return Decision::kKeep;
    *skip_until = next ? *next : save_range(save_).end;
    return Decision::kRemoveAndSkipUntil;
  }

 private:
  const SaveId save_;
  const std::shared_ptr<const ChunkSet> live_;
};

}  // namespace

void LiveChunkFilterFactory::set(SaveId save, std::shared_ptr<const ChunkSet> live) {
  const std::scoped_lock lock(mutex_);
  save_ = save;
  live_ = std::move(live);
}

std::unique_ptr<rocksdb::CompactionFilter> LiveChunkFilterFactory::CreateCompactionFilter(
    const rocksdb::CompactionFilter::Context& /*context*/) {
  const std::scoped_lock lock(mutex_);
  if (live_ == nullptr) return nullptr;
  return std::make_unique<LiveChunkFilter>(save_, live_);
}

}  // namespace stepstone
