// A save. Chunks first: their sequence, in key order, is cut into as many runs as there are threads
// (more when a run would become too long), and each run is hashed and, where an earlier step does
// not have the same chunk, written into a segment of its own, in one pass over the caller's memory.
// Then the records, which need the hashes, into one more segment in front of the others. A step
// that is too small to deserve files goes into the commit batch instead.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <map>
#include <mutex>
#include <numeric>
#include <set>
#include <system_error>
#include <thread>

#include "engine/encoding_sample.h"
#include "engine/parallel.h"
#include "engine/progress.h"
#include "engine/replacement.h"
#include "engine/save_plan.h"
#include "engine/segment_writer.h"
#include "engine/sharing.h"
#include "engine/step_saver.h"
#include "engine/store.h"
#include "engine/store_impl.h"
#include "format/assert.h"
#include "format/leaf_path.h"
#include "format/limits.h"

namespace stepstone {
namespace {

// Leaves up to this size stand in their own record.
constexpr std::uint64_t kInlineSizeBytes = std::uint64_t{32} << 10;
// Steps up to this size, records counted roughly, travel in the commit batch.
constexpr std::uint64_t kSmallStepSizeBytes = std::uint64_t{256} << 10;
constexpr std::uint64_t kRecordSizeEstimateBytes = 256;
// A run of chunks shorter than this is not worth a file of its own...
constexpr std::uint64_t kSegmentSizeBytesMin = std::uint64_t{8} << 20;
// ...and one longer than this is cut, so that one file never holds too much to rewrite.
constexpr std::uint64_t kSegmentSizeBytesMax = std::uint64_t{1} << 30;

// Into at least so many runs the chunks are cut where the step before found most of its bytes
// stored already, so that this one should too: the few that have something to write are synced
// while others are still being hashed.
constexpr unsigned kSharedRunCountMin = 16;

// So many records are encoded at a time, or fewer, whose leaves' bytes and chunks' hashes are about
// so large: a thread holds what it has encoded until it is its turn to write.
constexpr std::size_t kRecordBatchCount = 256;
constexpr std::uint64_t kRecordBatchSizeBytes = std::uint64_t{1} << 20;

using Entry = std::pair<std::string, std::string>;  // Key and value.

// The chunks [begin, end) in the numbering of the whole save.
struct ChunkRun {
  std::uint64_t begin;
  std::uint64_t end;
  // Of a state that is mostly shared: those that the step before had to write, or does not have.
  std::uint64_t fresh_count = 0;
};

// Whether the earlier step has this chunk, which is hashed.
bool is_in_base(const PlannedLeaf& leaf, std::uint32_t chunk) {
  return leaf.base != nullptr && leaf.base->has(leaf.record, chunk);
}

tl::unexpected<Error> no_generation_left() {
  return fail(ErrorCode::kLimit, "this store has seen 2^32 saves: continue in a new one");
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

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

DatabaseStepSaver::~DatabaseStepSaver() {
  if (is_settled_) return;
  for (const std::string& path : staged_paths_) {
    store_->file_system().DeleteFile(path, rocksdb::IOOptions(), nullptr).PermitUncheckedError();
  }
  store_->registry().end_save(save_, std::nullopt, {});
}

Result<void> DatabaseStepSaver::put_item(std::string name, PlannedItem item) {
  if (name.size() > limits::kNameSizeBytesMax) {
    return fail(ErrorCode::kLimit,
                fmt::format("step {}: an item name of {} bytes is over the limit", save_.step,
                            name.size()));
  }
  if (items_.contains(name)) {
    return fail(ErrorCode::kAlreadyExists,
                item_name(save_.step, name) + " was already added to this save");
  }
  // A vector that grows takes all of its pages anew, and a leaf is large.
  const auto leaf_count = static_cast<std::size_t>(
      std::count(item.structure.kinds.begin(), item.structure.kinds.end(), NodeKind::kLeaf));
  if (leaves_.size() + leaf_count > leaves_.capacity()) {
    leaves_.reserve(std::max(leaves_.size() + leaf_count, 2 * leaves_.capacity()));
  }
  items_.emplace(std::move(name), std::move(item));
  return {};
}

Result<void> DatabaseStepSaver::put_leaf(std::string_view item, std::string encoded_path,
                                         LeafInfo info, std::shared_ptr<const LeafSource> source) {
  const auto found = items_.find(item);
  if (found == items_.end()) {
    return fail(ErrorCode::kNotFound, item_name(save_.step, item) + " was not added to this save");
  }
  PlannedLeaf leaf;
  leaf.item = &found->first;
  leaf.encoded_path = std::move(encoded_path);
  leaf.source = std::move(source);
  leaf.record = STEPSTONE_TRY_CONTEXT(
      plan_record(info, info.chunk_size_bytes.value_or(options_.chunk_size_bytes)),
      leaf_name_of(leaf));
  leaf.compression = info.compression.value_or(options_.compression);
  leaf.is_shareable = info.share;
  leaf.is_inline = info.size_bytes <= kInlineSizeBytes && leaf.record.chunk_count() <= 1;
  found->second.leaf_count += 1;
  found->second.size_bytes += info.size_bytes;
  size_bytes_ += info.size_bytes;
  leaves_.push_back(std::move(leaf));
  return {};
}

// By item and path. A leaf is large, so that it is moved only once, and within the memory that they
// have.
void DatabaseStepSaver::sort_leaves() {
  std::vector<std::size_t> order(leaves_.size());  // Of each place the leaf that belongs there.
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto is_before = [this](std::size_t i, std::size_t j) {
    const PlannedLeaf& a = leaves_[i];
    const PlannedLeaf& b = leaves_[j];
    const int items = a.item == b.item ? 0 : a.item->compare(*b.item);
    return items != 0 ? items < 0 : a.encoded_path < b.encoded_path;
  };
  if (std::is_sorted(order.begin(), order.end(), is_before)) return;
  std::sort(order.begin(), order.end(), is_before);
  for (std::size_t begin = 0; begin < order.size(); ++begin) {
    if (order[begin] == begin) continue;
    // Around one cycle of the permutation.
    PlannedLeaf first = std::move(leaves_[begin]);
    std::size_t place = begin;
    for (std::size_t next = order[place]; next != begin; next = order[place]) {
      leaves_[place] = std::move(leaves_[next]);
      order[place] = place;
      place = next;
    }
    leaves_[place] = std::move(first);
    order[place] = place;
  }
}

// Sorts the leaves and holds them against the structures: exactly one for each place.
Result<void> DatabaseStepSaver::check_leaves() {
  if (items_.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("step {}: nothing to save, add an item first", save_.step));
  }
  sort_leaves();
  auto begin = leaves_.begin();
  for (const auto& entry : items_) {
    const std::string& name = entry.first;
    const PlannedItem& item = entry.second;
    const auto end = std::find_if(begin, leaves_.end(),
                                  [&](const PlannedLeaf& leaf) { return leaf.item != &name; });
    std::vector<const std::string*> paths;
    for (const PlannedLeaf& leaf : std::span(begin, end)) paths.push_back(&leaf.encoded_path);
    STEPSTONE_TRY(check_paths(save_.step, name, item.structure, paths));
    begin = end;
  }
  return {};
}

// Asks what is stored already. Nothing of this is worth the trouble for a step that goes into the
// commit batch.
Result<void> DatabaseStepSaver::find_shared() {
  if (!options_.share) return {};
  STEPSTONE_TRY(find_equal_leaves(save_.step, leaves_, thread_count_));
  // A replacement must not refer to the save that it replaces, nor to a later step, without need.
  base_ = SharingBase::open(store_, save_.step, /*only_earlier=*/replacement_ != nullptr);
  if (base_ == nullptr) return {};
  for (auto begin = leaves_.begin(); begin != leaves_.end();) {
    const auto end = std::find_if(
        begin, leaves_.end(), [&](const PlannedLeaf& leaf) { return leaf.item != begin->item; });
    base_->find(std::span(begin, end));
    begin = end;
  }
  return {};
}

Result<void> DatabaseStepSaver::decide_encoding() {
  std::vector<PlannedLeaf*> undecided;
  for (PlannedLeaf& leaf : leaves_) {
    if (leaf.planned_chunk_count() == 0) continue;
    leaf.is_encoded =
        leaf.compression == Compression::kAlways || leaf.compression == Compression::kDelta;
    if (leaf.compression == Compression::kAuto) undecided.push_back(&leaf);
  }
  if (!undecided.empty()) {
    const EncodingSample sample = STEPSTONE_TRY(sample_encoding(save_.step, undecided));
    auto_is_encoded_ = store_->compression_policy().should_encode(sample, thread_count_);
    for (PlannedLeaf* const leaf : undecided) leaf->is_encoded = *auto_is_encoded_;
  }
  STEPSTONE_TRY(decide_deltas());
  for (PlannedLeaf& leaf : leaves_) {
    const bool base_is_encoded = leaf.base && !leaf.base->record.codecs.empty();
    if (!leaf.is_encoded && !base_is_encoded) continue;
    if (leaf.is_delta || (leaf.base && !leaf.base->record.bases.empty())) {
      leaf.bases.resize(leaf.record.chunk_count());
    }
    leaf.record.codecs.assign(leaf.record.chunk_count(), Codec::kRaw);
    for (std::uint32_t chunk = 0; chunk < leaf.record.chunk_count(); ++chunk) {
      leaf.record.stored_sizes.push_back(
          static_cast<std::uint32_t>(leaf.record.chunk_size_at(chunk)));
    }
  }
  return {};
}

Result<void> DatabaseStepSaver::decide_deltas() {
  std::vector<PlannedLeaf*> leaves;
  for (PlannedLeaf& leaf : leaves_) {
    const bool is_wanted = leaf.compression == Compression::kDelta && leaf.base != nullptr;
    if (is_wanted && leaf.planned_chunk_count() != 0) leaves.push_back(&leaf);
  }
  return parallel_for(thread_count_, leaves.size(), [&](std::size_t i) -> Result<void> {
    leaves[i]->is_delta = STEPSTONE_TRY(is_smaller_as_delta(save_.step, *leaves[i], *base_));
    return {};
  });
}

StepRecord DatabaseStepSaver::step_record() const {
  StepRecord record;
  record.save = save_;
  record.started_unix_ns = started_unix_ns_;
  record.committed_unix_ns = options_.committed_unix_ns.value_or(0);
  record.size_bytes = size_bytes_;
  record.metrics = options_.metrics;
  record.custom_metadata = options_.custom_metadata;
  for (const auto& [name, item] : items_) {
    record.items.push_back({name, item.handler, item.leaf_count, item.size_bytes});
  }
  return record;
}

Result<StepRecord> DatabaseStepSaver::commit(const ChooseRetired& choose_retired) {
  if (is_begun_) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("step {}: commit() was called before", save_.step));
  }
  is_begun_ = true;
  STEPSTONE_TRY(fate_.check_wanted(save_.step));
  STEPSTONE_TRY(store_->check_writable());
  STEPSTONE_TRY(check_leaves());
  progress_ = std::make_unique<Progress>(progress_callback_, size_bytes_);

  StoreImpl::Addition addition;
  addition.record = step_record();
  addition.overwrite = options_.overwrite;
  addition.preservation_policy = options_.preservation_policy;
  const bool is_small =
      replacement_ == nullptr &&
      size_bytes_ + kRecordSizeEstimateBytes * leaves_.size() <= kSmallStepSizeBytes;
  const auto begin = std::chrono::steady_clock::now();
  if (is_small) {
    STEPSTONE_TRY(write_small(addition));
  } else {
    if (replacement_ != nullptr) {
      replacement_->adopt_hashes(leaves_);
      addition.replaced = replacement_->replaced().save;
      addition.record.started_unix_ns = replacement_->replaced().started_unix_ns;
      addition.record.committed_unix_ns = replacement_->replaced().committed_unix_ns;
    }
    STEPSTONE_TRY(find_shared());
    if (replacement_ != nullptr && !STEPSTONE_TRY(replacement_->plan(leaves_))) {
      return replacement_->replaced();
    }
    STEPSTONE_TRY(decide_encoding());
    STEPSTONE_TRY(write_segments(addition));
    if (replacement_ != nullptr && !replacement_->is_smaller(leaves_, save_)) {
      return replacement_->replaced();
    }
  }
  const auto written = std::chrono::steady_clock::now();
  if (auto_is_encoded_ && shared_bytes_ < size_bytes_ / 2) {
    const std::chrono::duration<double> seconds = written - begin;
    store_->compression_policy().note(*auto_is_encoded_, size_bytes_ - shared_bytes_,
                                      seconds.count());
  }

  // A commit that fails on the way leaves unknown whether the step exists, so that its files must
  // not be given up: the next open finds out.
  Result<StepRecord> committed =
      store_->commit(&addition, [&]() -> Result<std::vector<std::uint64_t>> {
        STEPSTONE_TRY(fate_.begin_commit(save_.step));
        return choose_retired();
      });
  is_settled_ = committed.has_value() || !store_->check_writable();
  base_.reset();
  counters_.size_bytes = size_bytes_;
  counters_.shared_bytes = shared_bytes_;
  counters_.encoded_bytes = encoded_bytes_;
  counters_.thread_count = is_small ? 1 : thread_count_;
  counters_.write_time = written - begin;
  counters_.commit_time = std::chrono::steady_clock::now() - written;
  return committed;
}

std::vector<ChunkRun> DatabaseStepSaver::plan_runs() {
  std::uint64_t chunk_bytes = 0;
  for (PlannedLeaf& leaf : leaves_) {
    first_chunks_.push_back(chunk_count_);
    chunk_count_ += leaf.planned_chunk_count();
    if (leaf.planned_chunk_count() == 0) continue;
    chunk_bytes += leaf.record.size_bytes;
    leaf.places.resize(leaf.record.chunk_count());
  }
  if (chunk_count_ == 0) return {};
  const std::uint64_t worth = std::max<std::uint64_t>(1, chunk_bytes / kSegmentSizeBytesMin);
  std::uint64_t run_count = std::min<std::uint64_t>(
      is_mostly_shared() ? std::max(thread_count_, kSharedRunCountMin) : thread_count_, worth);
  // Round up to a multiple of the threads, so that all of them finish together.
  const std::uint64_t rounds =
      (chunk_bytes / run_count + kSegmentSizeBytesMax - 1) / kSegmentSizeBytesMax;
  run_count = std::min<std::uint64_t>({run_count * std::max<std::uint64_t>(1, rounds), chunk_count_,
                                       limits::kSegmentsPerStepMax - 1});
  std::vector<ChunkRun> runs;
  for (std::uint64_t i = 0; i < run_count; ++i) {
    runs.push_back({chunk_count_ * i / run_count, chunk_count_ * (i + 1) / run_count});
  }
  if (is_mostly_shared()) count_fresh_chunks(runs);
  return runs;
}

void DatabaseStepSaver::count_fresh_chunks(std::span<ChunkRun> runs) const {
  auto run = runs.begin();
  for (std::size_t i = 0; i < leaves_.size(); ++i) {
    const BaseLeaf* const base = leaves_[i].base.get();
    for (std::uint32_t chunk = 0; chunk < leaves_[i].planned_chunk_count(); ++chunk) {
      while (first_chunks_[i] + chunk >= run->end) ++run;
      const bool is_fresh = base == nullptr || chunk >= base->places.size() ||
                            base->places[chunk].save == base_->save();
      if (is_fresh) ++run->fresh_count;
    }
  }
}

Result<SegmentWriter> DatabaseStepSaver::create_segment(SegmentContent content) {
  SegmentWriter segment =
      STEPSTONE_TRY_CONTEXT(SegmentWriter::create(*store_, content), step_name(save_.step));
  const std::scoped_lock lock(staged_paths_mutex_);
  staged_paths_.push_back(segment.path());
  return segment;
}

Result<void> DatabaseStepSaver::write_segments(StoreImpl::Addition& addition) {
  const std::vector<ChunkRun> runs = plan_runs();
  std::vector<RunSegment> segments(runs.size());
  std::vector<std::size_t> order(runs.size());
  for (std::size_t i = 0; i < runs.size(); ++i) {
    segments[i].number = static_cast<std::uint32_t>(i);
    order[i] = i;
  }
  // What changed last time will most likely have changed again. With that first, its syncs too are
  // over when the last chunk is hashed.
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return runs[a].fresh_count > runs[b].fresh_count;
  });
  std::optional<SegmentWriter> records;
  SegmentInfo records_info;
  const auto write_record_segment = [&]() -> Result<void> {
    settle_places(addition.record, segments);
    records = STEPSTONE_TRY(create_segment(SegmentContent::kRecords));
    STEPSTONE_TRY(
        write_records(addition.record, thread_count_,
                      [&](const std::string& key, const std::string& value) -> Result<void> {
                        return records->put(key, value);
                      }));
    records_info = STEPSTONE_TRY_CONTEXT(records->finish(), step_name(save_.step));
    return {};
  };
  // The records need the hashes of all chunks, but need not wait until these are on the disk: who
  // hashes the last chunk has them written on one more thread, and goes on to its own sync.
  Result<void> records_result;
  std::optional<std::jthread> records_thread;
  const auto start_records = [&] {
    try {
      records_thread.emplace([&] {
        records_result = parallel_for(1, 1, [&](std::size_t) { return write_record_segment(); });
      });
    } catch (const std::system_error&) {
      // No more threads to be had: they are written when the chunks are on the disk.
    }
  };
  std::atomic<std::size_t> unhashed_count = runs.size();
  // Of a state that is mostly shared, one more hashes while the few that write wait for their sync.
  const bool is_one_more = thread_count_ > 1 && is_mostly_shared();
  const Result<void> chunks_result = parallel_for(
      thread_count_ + (is_one_more ? 1 : 0), runs.size(), [&](std::size_t i) -> Result<void> {
        RunSegment& segment = segments[order[i]];
        STEPSTONE_TRY(write_run(runs[order[i]], segment));
        if (--unhashed_count == 0 && thread_count_ > 1) start_records();
        if (!segment.writer) return {};
        segment.info = STEPSTONE_TRY_CONTEXT(segment.writer->finish(), step_name(save_.step));
        return {};
      });
  if (records_thread) records_thread->join();
  STEPSTONE_TRY(chunks_result);
  STEPSTONE_TRY(records_thread ? records_result : write_record_segment());
  addition.record.segments.push_back(records_info);
  addition.segment_paths.push_back(records->path());
  for (const RunSegment& segment : segments) {
    if (!segment.info) continue;
    addition.record.segments.push_back(*segment.info);
    addition.segment_paths.push_back(segment.writer->path());
  }
  for (const SegmentInfo& info : addition.record.segments) {
    counters_.stored_bytes += info.size_bytes;
  }
  return {};
}

void DatabaseStepSaver::settle_places(StepRecord& step, const std::vector<RunSegment>& runs) {
  // Runs that wrote nothing have no segment. The records' segment is the first.
  std::vector<std::uint32_t> numbers(runs.size(), ChunkPlace::kUnknownSegment);
  std::uint32_t next_number = 1;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (!runs[i].writer) continue;
    const std::uint32_t number = next_number++;
    if (runs[i].writer->has_expected_layout()) numbers[i] = number;
  }
  std::set<SaveId> origin_saves;
  for (PlannedLeaf& leaf : leaves_) {
    for (ChunkPlace& place : leaf.places) {
      if (place.save == save_) {
        place.segment = numbers[place.segment];
      } else {
        origin_saves.insert(place.save);
      }
    }
    for (std::uint32_t chunk = 0; chunk < leaf.bases.size(); ++chunk) {
      if (leaf.record.codec_at(chunk) == Codec::kDelta) origin_saves.insert(leaf.bases[chunk].save);
    }
  }
  // Before the sources of the other leaf are numbered anew.
  for (PlannedLeaf& leaf : leaves_) {
    if (leaf.equal == nullptr) continue;
    refer_to_equal_leaf(leaf, save_);
    shared_bytes_ += leaf.record.size_bytes;
    progress_->add(leaf.record.size_bytes);
  }
  for (PlannedLeaf& leaf : leaves_) {
    if (leaf.is_inline || leaf.record.chunk_count() == 0) continue;
    if (std::all_of(leaf.record.codecs.begin(), leaf.record.codecs.end(),
                    [](Codec codec) { return codec == Codec::kRaw; })) {
      leaf.record.codecs.clear();
      leaf.record.stored_sizes.clear();
    }
    for (std::uint32_t chunk = 0; chunk < leaf.bases.size(); ++chunk) {
      if (leaf.record.codec_at(chunk) == Codec::kDelta) {
        leaf.record.bases.push_back(leaf.bases[chunk]);
      }
    }
    set_places(leaf.record, save_, *leaf.item, leaf.encoded_path, leaf.places);
  }
  step.origin_saves.assign(origin_saves.begin(), origin_saves.end());
}

Result<void> DatabaseStepSaver::write_run(ChunkRun run, RunSegment& segment) {
  std::vector<std::byte> scratch;
  ChunkEncoder encoder;
  // The leaf that chunk run.begin belongs to.
  auto index = static_cast<std::size_t>(
      std::upper_bound(first_chunks_.begin(), first_chunks_.end(), run.begin) -
      first_chunks_.begin() - 1);
  for (std::uint64_t at = run.begin; at < run.end;) {
    PlannedLeaf& leaf = leaves_[index];
    const std::uint64_t first = first_chunks_[index];
    const std::uint64_t end = std::min<std::uint64_t>(run.end, first + leaf.planned_chunk_count());
    scratch.resize(leaf.record.chunk_size_bytes);
    for (; at < end; ++at) {
      const auto chunk = static_cast<std::uint32_t>(at - first);
      // Without need of its bytes where the hash is known.
      const bool is_known = leaf.is_hashed && is_in_base(leaf, chunk);
      const auto bytes =
          is_known ? std::span<const std::byte>() : STEPSTONE_TRY(read_chunk(leaf, chunk, scratch));
      if (is_in_base(leaf, chunk)) {
        leaf.places[chunk] = leaf.base->places[chunk];
        if (!leaf.record.codecs.empty()) {
          leaf.record.codecs[chunk] = leaf.base->record.codec_at(chunk);
          leaf.record.stored_sizes[chunk] =
              static_cast<std::uint32_t>(leaf.base->record.stored_size_at(chunk));
        }
        if (const ChunkBase* const base = leaf.base->record.base_of(chunk)) {
          leaf.bases[chunk] = *base;
        }
        shared_bytes_ += leaf.record.chunk_size_at(chunk);
      } else {
        STEPSTONE_TRY(write_chunk(leaf, chunk, bytes, encoder, segment));
      }
      progress_->add(leaf.record.chunk_size_at(chunk));
    }
    ++index;
  }
  return {};
}

Result<std::span<const std::byte>> DatabaseStepSaver::read_chunk(PlannedLeaf& leaf,
                                                                 std::uint32_t chunk,
                                                                 std::span<std::byte> scratch) {
  STEPSTONE_TRY(fate_.check_wanted(save_.step));
  const std::uint64_t offset = std::uint64_t{chunk} * leaf.record.chunk_size_bytes;
  const std::size_t size = leaf.record.chunk_size_at(chunk);
  const std::span<const std::byte> bytes =
      STEPSTONE_TRY_CONTEXT(leaf.source->read(offset, size, scratch), leaf_name_of(leaf));
  STEPSTONE_ASSERT(bytes.size() == size);
  if (!leaf.is_hashed) leaf.record.hashes[chunk] = hash128(bytes);
  return bytes;
}

EncodedChunk DatabaseStepSaver::encode_delta(PlannedLeaf& leaf, std::uint32_t chunk,
                                             std::span<const std::byte> bytes,
                                             ChunkEncoder& encoder, RunSegment& segment) {
  const EncodedChunk raw{.codec = Codec::kRaw, .bytes = bytes};
  const std::optional<ChunkBase> base = leaf.base->delta_base(leaf.record, chunk);
  if (!base) return raw;
  segment.base_bytes.resize(bytes.size());
  // Damage to the other step is no reason for this save to fail.
  if (!base_->read_base(leaf, *base, segment.base_bytes)) return raw;
  const EncodedChunk encoded = encoder.encode_delta(bytes, segment.base_bytes, leaf.layout());
  if (encoded.codec == Codec::kDelta) leaf.bases[chunk] = *base;
  return encoded;
}

Result<void> DatabaseStepSaver::write_chunk(PlannedLeaf& leaf, std::uint32_t chunk,
                                            std::span<const std::byte> bytes, ChunkEncoder& encoder,
                                            RunSegment& segment) {
  if (!segment.writer) {
    segment.writer = STEPSTONE_TRY(create_segment(SegmentContent::kChunks));
  }
  leaf.places[chunk] = {.save = save_,
                        .source = 0,
                        .segment = segment.number,
                        .offset_bytes = segment.writer->next_offset_bytes(),
                        .alignment_bytes = kChunkAlignmentBytes};
  EncodedChunk encoded{.codec = Codec::kRaw, .bytes = bytes};
  if (leaf.is_delta) encoded = encode_delta(leaf, chunk, bytes, encoder, segment);
  if (leaf.is_encoded && encoded.codec == Codec::kRaw)
    encoded = encoder.encode(bytes, leaf.layout());
  if (encoded.codec != Codec::kRaw) {
    leaf.record.codecs[chunk] = encoded.codec;
    leaf.record.stored_sizes[chunk] = static_cast<std::uint32_t>(encoded.bytes.size());
    encoded_bytes_ += bytes.size();
  }
  const std::string key = chunk_key(save_, *leaf.item, leaf.encoded_path, chunk);
  STEPSTONE_TRY_CONTEXT(encoded.codec == Codec::kRaw
                            ? segment.writer->put_aligned(key, encoded.bytes)
                            : segment.writer->put(key, as_text(encoded.bytes)),
                        leaf_name_of(leaf));
  return {};
}

Result<void> DatabaseStepSaver::write_records(
    const StepRecord& step, unsigned thread_count,
    const std::function<Result<void>(std::string key, std::string value)>& put) {
  const std::string copy_key = step_copy_key(save_);
  STEPSTONE_TRY(
      put(copy_key, STEPSTONE_TRY_CONTEXT(encode(step, copy_key), step_name(save_.step))));
  for (const auto& [name, item] : items_) {
    const std::string key = item_key(save_, name);
    const ItemRecord record{.handler = item.handler,
                            .leaf_count = item.leaf_count,
                            .size_bytes = item.size_bytes,
                            .structure = item.structure,
                            .custom_metadata = item.custom_metadata};
    STEPSTONE_TRY(
        put(key, STEPSTONE_TRY_CONTEXT(encode(record, key), item_name(save_.step, name))));
  }
  const std::vector<std::span<PlannedLeaf>> batches = record_batches();
  return parallel_in_order(
      thread_count, batches.size(), [&](std::size_t i) { return encode_leaves(batches[i]); },
      [&](std::vector<Entry> entries) -> Result<void> {
        for (auto& [key, value] : entries) STEPSTONE_TRY(put(std::move(key), std::move(value)));
        return {};
      });
}

std::vector<std::span<PlannedLeaf>> DatabaseStepSaver::record_batches() {
  std::vector<std::span<PlannedLeaf>> batches;
  std::size_t begin = 0;
  std::uint64_t size = 0;
  for (std::size_t i = 0; i < leaves_.size(); ++i) {
    const LeafRecord& record = leaves_[i].record;
    size += leaves_[i].is_inline ? record.size_bytes : record.hashes.size() * sizeof(Hash128);
    const std::size_t end = i + 1;
    const bool is_full = end - begin == kRecordBatchCount || size >= kRecordBatchSizeBytes;
    if (!is_full && end != leaves_.size()) continue;
    batches.push_back(std::span(leaves_).subspan(begin, end - begin));
    begin = end;
    size = 0;
  }
  return batches;
}

Result<std::vector<Entry>> DatabaseStepSaver::encode_leaves(std::span<PlannedLeaf> leaves) {
  std::vector<Entry> entries;
  entries.reserve(leaves.size());
  std::vector<std::byte> scratch(kInlineSizeBytes);
  for (PlannedLeaf& leaf : leaves) {
    if (leaf.is_inline) {
      const auto size = static_cast<std::size_t>(leaf.record.size_bytes);
      const std::span<const std::byte> bytes =
          STEPSTONE_TRY_CONTEXT(leaf.source->read(0, size, scratch), leaf_name_of(leaf));
      STEPSTONE_ASSERT(bytes.size() == size);
      leaf.record.inline_bytes.emplace(bytes.begin(), bytes.end());
      if (size != 0) leaf.record.hashes[0] = hash128(bytes);
      progress_->add(size);
    }
    std::string key = leaf_key(save_, *leaf.item, leaf.encoded_path);
    std::string value = STEPSTONE_TRY_CONTEXT(encode(leaf.record, key), leaf_name_of(leaf));
    entries.emplace_back(std::move(key), std::move(value));
    // The bytes are in the entry now; holding them too would double a state of small leaves.
    leaf.record.inline_bytes.reset();
  }
  return entries;
}

Result<void> DatabaseStepSaver::write_small(StoreImpl::Addition& addition) {
  addition.record.placement = Placement::kSmall;
  std::vector<std::byte> scratch;
  for (PlannedLeaf& leaf : leaves_) {
    scratch.resize(leaf.record.chunk_size_bytes);
    for (std::uint32_t chunk = 0; chunk < leaf.planned_chunk_count(); ++chunk) {
      const auto bytes = STEPSTONE_TRY(read_chunk(leaf, chunk, scratch));
      addition.small_entries.emplace_back(chunk_key(save_, *leaf.item, leaf.encoded_path, chunk),
                                          as_text(bytes));
      progress_->add(bytes.size());
    }
  }
  STEPSTONE_TRY(
      write_records(addition.record, 1, [&](std::string key, std::string value) -> Result<void> {
        addition.small_entries.emplace_back(std::move(key), std::move(value));
        return {};
      }));
  for (const auto& entry : addition.small_entries) {
    counters_.stored_bytes += entry.first.size() + entry.second.size();
  }
  return {};
}

StepWriter::StepWriter(std::unique_ptr<StepSaver> impl) : impl_(std::move(impl)) {}

StepWriter::~StepWriter() = default;

Result<void> StepWriter::put_item(std::string name, std::string handler, TreeStructure structure,
                                  std::string custom_metadata) {
  return impl_->put_item(std::move(name), {.handler = std::move(handler),
                                           .structure = std::move(structure),
                                           .custom_metadata = std::move(custom_metadata)});
}

Result<void> StepWriter::put_leaf(std::string_view item, std::string encoded_path, LeafInfo info,
                                  std::shared_ptr<const LeafSource> source) {
  return impl_->put_leaf(item, std::move(encoded_path), std::move(info), std::move(source));
}

void StepWriter::on_progress(Progress::Callback callback) {
  impl_->on_progress(std::move(callback));
}

Result<StepRecord> StepWriter::commit(std::span<const std::uint64_t> retire) {
  return impl_->commit([&] { return std::vector<std::uint64_t>(retire.begin(), retire.end()); });
}

Result<StepRecord> StepWriter::commit_choosing(const ChooseRetired& choose) {
  return impl_->commit(choose);
}

bool StepWriter::give_up() { return impl_->give_up(); }

const SaveCounters& StepWriter::counters() const { return impl_->counters(); }

Result<std::unique_ptr<StepWriter>> StepWriter::replace(std::shared_ptr<StoreImpl> store,
                                                        const SaveOptions& options,
                                                        Replacement& replacement) {
  STEPSTONE_TRY(store->check_writable());
  const std::optional<SaveId> save = store->registry().begin_save(replacement.replaced().save.step);
  if (!save) return no_generation_left();
  return std::unique_ptr<StepWriter>(new StepWriter(
      std::make_unique<DatabaseStepSaver>(std::move(store), *save, options, &replacement)));
}

Result<std::unique_ptr<StepWriter>> Store::begin_save(std::uint64_t step,
                                                      const SaveOptions& options) {
  std::shared_ptr<StoreImpl> store = STEPSTONE_TRY(writable());
  if (step > limits::kStepMax) {
    return fail(ErrorCode::kLimit,
                fmt::format("step {} is over the limit of {}", step, limits::kStepMax));
  }
  STEPSTONE_TRY_CONTEXT(check_chunk_size(options.chunk_size_bytes), fmt::format("step {}", step));
  if (!options.overwrite && store->registry().find(step)) {
    return fail(ErrorCode::kAlreadyExists,
                fmt::format("step {} exists already in {}: choose another step, or overwrite it",
                            step, store->directory().string()));
  }
  const std::optional<SaveId> save = store->registry().begin_save(step);
  if (!save) return no_generation_left();
  return std::unique_ptr<StepWriter>(
      new StepWriter(std::make_unique<DatabaseStepSaver>(std::move(store), *save, options)));
}

}  // namespace stepstone
