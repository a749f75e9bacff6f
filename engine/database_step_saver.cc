// Planning a save, and its commit.
#include "engine/database_step_saver.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include "engine/encoding_sample.h"
#include "engine/parallel.h"
#include "format/limits.h"

namespace stepstone {
namespace {

// Steps up to this size, records counted roughly, travel in the commit batch.
constexpr std::uint64_t kSmallStepSizeBytes = std::uint64_t{256} << 10;
constexpr std::uint64_t kRecordSizeEstimateBytes = 256;

}  // namespace

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

}  // namespace stepstone
