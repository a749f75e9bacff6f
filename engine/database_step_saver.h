#pragma once
// A save into a database. Chunks first: their sequence, in key order, is cut into as many runs as
// there are threads (more when a run would become too long), and each run is hashed and, where an
// earlier step does not have the same chunk, written into a segment of its own, in one pass over
// the caller's memory (save_chunks.cc). Then the records, which need the hashes, into one more
// segment in front of the others (save_records.cc). A step that is too small to deserve files goes
// into the commit batch instead.

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/progress.h"
#include "engine/replacement.h"
#include "engine/save_plan.h"
#include "engine/segment_writer.h"
#include "engine/sharing.h"
#include "engine/step_saver.h"
#include "engine/store.h"
#include "engine/store_impl.h"

namespace stepstone {

class DatabaseStepSaver final : public StepSaver {
 public:
  // `replacement` may be null.
  DatabaseStepSaver(std::shared_ptr<StoreImpl> store, SaveId save, SaveOptions options,
                    Replacement* replacement = nullptr)
      : store_(std::move(store)),
        save_(save),
        options_(std::move(options)),
        replacement_(replacement),
        thread_count_(replacement == nullptr ? store_->thread_count()
                                             : replacement->thread_count()) {
    started_unix_ns_ = options_.started_unix_ns.value_or(unix_time_ns());
  }
  ~DatabaseStepSaver() override;

  Result<void> put_item(std::string name, PlannedItem item) override;
  Result<void> put_leaf(std::string_view item, std::string encoded_path, LeafInfo info,
                        std::shared_ptr<const LeafSource> source) override;
  void on_progress(Progress::Callback callback) override {
    progress_callback_ = std::move(callback);
  }
  Result<StepRecord> commit(const ChooseRetired& choose_retired) override;
  bool give_up() override { return fate_.give_up(); }
  const SaveCounters& counters() const override { return counters_; }

 private:
  using Entry = std::pair<std::string, std::string>;  // Key and value.

  // Leaves up to this size stand in their own record.
  static constexpr std::uint64_t kInlineSizeBytes = std::uint64_t{32} << 10;

  // The chunks [begin, end) in the numbering of the whole save.
  struct ChunkRun {
    std::uint64_t begin;
    std::uint64_t end;
    // Of a state that is mostly shared: those that the step before had to write, or does not have.
    std::uint64_t fresh_count = 0;
  };
  // One run's segment: opened with the first chunk that has to be written.
  struct RunSegment {
    std::uint32_t number = 0;
    std::optional<SegmentWriter> writer;
    std::optional<SegmentInfo> info;
    std::vector<std::byte> base_bytes;  // Of what a delta differs from.
  };

  void sort_leaves();
  Result<void> check_leaves();
  Result<void> find_shared();
  // Decides which leaves go through the encoder.
  Result<void> decide_encoding();
  Result<void> decide_deltas();
  // Whether the step before was, so that this one will be, as a rule.
  bool is_mostly_shared() const { return base_ != nullptr && base_->is_mostly_shared(); }
  std::vector<ChunkRun> plan_runs();
  void count_fresh_chunks(std::span<ChunkRun> runs) const;
  Result<void> write_segments(StoreImpl::Addition& addition);
  Result<SegmentWriter> create_segment(SegmentContent content);
  Result<void> write_run(ChunkRun run, RunSegment& segment);
  // The bytes of a chunk, hashed.
  Result<std::span<const std::byte>> read_chunk(PlannedLeaf& leaf, std::uint32_t chunk,
                                                std::span<std::byte> scratch);
  Result<void> write_chunk(PlannedLeaf& leaf, std::uint32_t chunk, std::span<const std::byte> bytes,
                           ChunkEncoder& encoder, RunSegment& segment);
  // kRaw where the chunk does not become smaller that way.
  EncodedChunk encode_delta(PlannedLeaf& leaf, std::uint32_t chunk,
                            std::span<const std::byte> bytes, ChunkEncoder& encoder,
                            RunSegment& segment);
  // Turns the places of all chunks into what the records say of them.
  void settle_places(StepRecord& step, const std::vector<RunSegment>& runs);
  // The step's own copy, items and leaves, in key order; encoded on so many threads.
  Result<void> write_records(
      const StepRecord& step, unsigned thread_count,
      const std::function<Result<void>(std::string key, std::string value)>& put);
  std::vector<std::span<PlannedLeaf>> record_batches();
  Result<std::vector<Entry>> encode_leaves(std::span<PlannedLeaf> leaves);
  Result<void> write_small(StoreImpl::Addition& addition);
  StepRecord step_record() const;
  std::string leaf_name_of(const PlannedLeaf& leaf) const {
    return leaf_name(save_.step, *leaf.item, leaf.encoded_path);
  }

  std::shared_ptr<StoreImpl> store_;
  const SaveId save_;
  const SaveOptions options_;
  Replacement* const replacement_;  // Null: the save has a content of its own.
  const unsigned thread_count_;
  std::int64_t started_unix_ns_ = 0;
  std::map<std::string, PlannedItem, std::less<>> items_;
  std::vector<PlannedLeaf> leaves_;
  std::vector<std::uint64_t> first_chunks_;  // Of each leaf, in the numbering of the whole save.
  std::uint64_t chunk_count_ = 0;            // That are entries of their own, or may be.
  std::uint64_t size_bytes_ = 0;
  Progress::Callback progress_callback_;
  std::unique_ptr<Progress> progress_;
  std::mutex staged_paths_mutex_;
  std::vector<std::string> staged_paths_;
  std::unique_ptr<SharingBase> base_;
  SaveCounters counters_;
  std::atomic<std::uint64_t> shared_bytes_ = 0;
  std::atomic<std::uint64_t> encoded_bytes_ = 0;
  // What the save tells the store's policy about: all leaves that were free to choose chose this.
  std::optional<bool> auto_is_encoded_;
  SaveFate fate_;
  bool is_begun_ = false;    // commit() was called.
  bool is_settled_ = false;  // The registry knows how the save ended, or must not know.
};

}  // namespace stepstone
