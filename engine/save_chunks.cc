// The chunks of a save: shared, encoded and written.
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <system_error>
#include <thread>

#include "engine/database_step_saver.h"
#include "engine/parallel.h"
#include "format/assert.h"
#include "format/limits.h"

namespace stepstone {
namespace {

// A run of chunks shorter than this is not worth a file of its own...
constexpr std::uint64_t kSegmentSizeBytesMin = std::uint64_t{8} << 20;
// ...and one longer than this is cut, so that one file never holds too much to rewrite.
constexpr std::uint64_t kSegmentSizeBytesMax = std::uint64_t{1} << 30;

// Into at least so many runs the chunks are cut where the step before found most of its bytes
// stored already, so that this one should too: the few that have something to write are synced
// while others are still being hashed.
constexpr unsigned kSharedRunCountMin = 16;

// Whether the earlier step has this chunk, which is hashed.
bool is_in_base(const PlannedLeaf& leaf, std::uint32_t chunk) {
  return leaf.base != nullptr && leaf.base->has(leaf.record, chunk);
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::vector<DatabaseStepSaver::ChunkRun> DatabaseStepSaver::plan_runs() {
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

}  // namespace stepstone
