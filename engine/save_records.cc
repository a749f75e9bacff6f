// The records of a save, and the whole of one that goes into the commit batch.
#include "engine/database_step_saver.h"
#include "engine/parallel.h"
#include "format/assert.h"

namespace stepstone {
namespace {

// So many records are encoded at a time, or fewer, whose leaves' bytes and chunks' hashes are about
// so large: a thread holds what it has encoded until it is its turn to write.
constexpr std::size_t kRecordBatchCount = 256;
constexpr std::uint64_t kRecordBatchSizeBytes = std::uint64_t{1} << 20;

}  // namespace

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

Result<std::vector<DatabaseStepSaver::Entry>> DatabaseStepSaver::encode_leaves(
    std::span<PlannedLeaf> leaves) {
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
      addition.small_entries.emplace_back(
          chunk_key(save_, *leaf.item, leaf.encoded_path, chunk),
          std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
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

}  // namespace stepstone
