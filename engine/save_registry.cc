#include "engine/save_registry.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "format/assert.h"

namespace stepstone {
namespace {

// So many bytes of small steps die before the collector looks at them.
constexpr std::uint64_t kSmallGarbageSizeBytes = std::uint64_t{4} << 20;

std::uint64_t small_size_bytes(const StepRecord& record) {
  constexpr std::uint64_t kRecordSizeEstimateBytes = 256;
  std::uint64_t size_bytes = record.size_bytes + kRecordSizeEstimateBytes;
  for (const ItemSummary& item : record.items) {
    size_bytes += (item.leaf_count + 1) * kRecordSizeEstimateBytes;
  }
  return size_bytes;
}

}  // namespace

SaveRegistry::Lease::~Lease() {
  const std::scoped_lock lock(registry_->mutex_);
  const auto found = registry_->uses_.find(save_);
  STEPSTONE_ASSERT(found != registry_->uses_.end() && found->second.lease_count != 0);
  --found->second.lease_count;
  // The collector is not to be woken by everyone who has read a step.
  if (registry_->forget_if_unused(save_)) registry_->changed_.notify_all();
}

void SaveRegistry::load(std::map<std::uint64_t, VisibleStep> steps, std::uint32_t next_generation) {
  const std::scoped_lock lock(mutex_);
  for (auto& entry : steps) show(std::move(entry.second));
  next_generation_ = next_generation;
  is_loaded_ = true;
}

void SaveRegistry::raise_next_generation(std::uint32_t next_generation) {
  const std::scoped_lock lock(mutex_);
  next_generation_ = std::max(next_generation_, next_generation);
}

std::vector<std::uint64_t> SaveRegistry::steps() const {
  const std::scoped_lock lock(mutex_);
  std::vector<std::uint64_t> steps;
  steps.reserve(visible_.size());
  for (const auto& [step, visible] : visible_) steps.push_back(step);
  return steps;
}

std::vector<SaveId> SaveRegistry::visible_saves() const {
  const std::scoped_lock lock(mutex_);
  std::vector<SaveId> saves;
  saves.reserve(visible_.size());
  for (const auto& [step, visible] : visible_) saves.push_back(visible.record.save);
  return saves;
}

std::optional<VisibleStep> SaveRegistry::find(std::uint64_t step) const {
  const std::scoped_lock lock(mutex_);
  const auto found = visible_.find(step);
  if (found == visible_.end()) return std::nullopt;
  return found->second;
}

std::map<SaveId, std::uint64_t> SaveRegistry::small_saves() const {
  const std::scoped_lock lock(mutex_);
  std::map<SaveId, std::uint64_t> saves;
  for (const auto& [step, visible] : visible_) {
    if (visible.record.placement != Placement::kSmall) continue;
    saves.emplace(visible.record.save, small_size_bytes(visible.record));
  }
  return saves;
}

std::optional<SaveRegistry::Leased> SaveRegistry::lease(std::uint64_t step) {
  const std::scoped_lock lock(mutex_);
  const auto found = visible_.find(step);
  if (found == visible_.end()) return std::nullopt;
  const SaveId save = found->second.record.save;
  ++uses_[save].lease_count;
  return Leased{found->second.record, std::make_unique<Lease>(shared_from_this(), save)};
}

std::optional<SaveId> SaveRegistry::begin_save(std::uint64_t step) {
  const std::scoped_lock lock(mutex_);
  if (next_generation_ == std::numeric_limits<std::uint32_t>::max()) return std::nullopt;
  const SaveId save{step, next_generation_++};
  uses_[save].is_being_written = true;
  return save;
}

void SaveRegistry::end_save(SaveId save, std::optional<VisibleStep> published,
                            std::span<const std::uint64_t> retired) {
  const std::scoped_lock lock(mutex_);
  // The new step first: it may be the only one left that refers to what the others did.
  if (published) {
    std::optional<VisibleStep> replaced = take(save.step);
    show(*std::move(published));
    if (replaced) bury(*replaced);
  } else {
    garbage_.insert(save);
  }
  for (const std::uint64_t step : retired) hide(step);
  uses_[save].is_being_written = false;
  forget_if_unused(save);
  changed_.notify_all();
}

void SaveRegistry::retire(std::span<const std::uint64_t> steps) {
  const std::scoped_lock lock(mutex_);
  for (const std::uint64_t step : steps) hide(step);
  changed_.notify_all();
}

bool SaveRegistry::is_dead(SaveId save) const {
  const std::scoped_lock lock(mutex_);
  return is_dead_locked(save);
}

bool SaveRegistry::is_in_use(SaveId save) const {
  const std::scoped_lock lock(mutex_);
  return uses_.contains(save);
}

std::set<SaveId> SaveRegistry::hollow_saves() const {
  const std::scoped_lock lock(mutex_);
  std::set<SaveId> hollow;
  for (const auto& [save, referrers] : referrers_) {
    if (!uses_.contains(save)) hollow.insert(save);
  }
  return hollow;
}

void SaveRegistry::add_garbage(const std::vector<SaveId>& saves) {
  const std::scoped_lock lock(mutex_);
  garbage_.insert(saves.begin(), saves.end());
  for (const SaveId save : saves) note_if_hollow(save);
  dead_small_bytes_ = kSmallGarbageSizeBytes;
  changed_.notify_all();
}

SaveRegistry::Garbage SaveRegistry::take_garbage() {
  std::unique_lock lock(mutex_);
  Garbage taken;
  changed_.wait(lock, [&] {
    taken = garbage();
    return !taken.is_empty() || is_stopping_;
  });
  for (const SaveId save : taken.dead) garbage_.erase(save);
  for (const SaveId save : taken.hollow) maybe_shrunk_.erase(save);
  if (taken.is_small_due) dead_small_bytes_ = 0;
  is_collecting_ = !taken.is_empty();
  return taken;
}

std::vector<SaveRegistry::Referrer> SaveRegistry::lease_referrers(SaveId hollow) {
  const std::scoped_lock lock(mutex_);
  std::vector<Referrer> referrers;
  const auto found = referrers_.find(hollow);
  if (uses_.contains(hollow) || found == referrers_.end()) return referrers;
  for (const SaveId save : found->second) {
    ++uses_[save].lease_count;
    referrers.push_back({save, std::make_unique<Lease>(shared_from_this(), save)});
  }
  return referrers;
}

void SaveRegistry::collected() {
  const std::scoped_lock lock(mutex_);
  is_collecting_ = false;
  changed_.notify_all();
}

void SaveRegistry::stop() {
  const std::scoped_lock lock(mutex_);
  is_stopping_ = true;
  changed_.notify_all();
}

void SaveRegistry::wait_until_collected() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !is_collecting_ && garbage().is_empty(); });
}

bool SaveRegistry::is_dead_locked(SaveId save) const {
  return is_loaded_ && !uses_.contains(save) && !referrers_.contains(save);
}

void SaveRegistry::show(VisibleStep step) {
  const SaveId save = step.record.save;
  Use& use = uses_[save];
  use.is_visible = true;
  use.origins = step.record.origin_saves;
  for (const SaveId origin : use.origins) referrers_[origin].insert(save);
  visible_.emplace(save.step, std::move(step));
}

std::optional<VisibleStep> SaveRegistry::take(std::uint64_t step) {
  const auto found = visible_.find(step);
  if (found == visible_.end()) return std::nullopt;
  VisibleStep taken = std::move(found->second);
  visible_.erase(found);
  return taken;
}

void SaveRegistry::bury(const VisibleStep& step) {
  const SaveId save = step.record.save;
  if (step.record.placement == Placement::kSegments) {
    garbage_.insert(save);
  } else {
    dead_small_bytes_ += small_size_bytes(step.record);
  }
  uses_[save].is_visible = false;
  forget_if_unused(save);
}

void SaveRegistry::hide(std::uint64_t step) {
  const std::optional<VisibleStep> taken = take(step);
  if (taken) bury(*taken);
}

bool SaveRegistry::forget_if_unused(SaveId save) {
  const auto found = uses_.find(save);
  if (found->second.is_used()) return false;
  const std::vector<SaveId> origins = std::move(found->second.origins);
  uses_.erase(found);
  for (const SaveId origin : origins) {
    const auto referrers = referrers_.find(origin);
    referrers->second.erase(save);
    if (referrers->second.empty()) {
      referrers_.erase(referrers);
      maybe_shrunk_.erase(origin);
    }
    note_if_hollow(origin);
  }
  note_if_hollow(save);
  return true;
}

void SaveRegistry::note_if_hollow(SaveId save) {
  if (referrers_.contains(save) && !uses_.contains(save)) maybe_shrunk_.insert(save);
}

SaveRegistry::Garbage SaveRegistry::garbage() const {
  Garbage garbage;
  for (const SaveId save : garbage_) {
    if (is_dead_locked(save)) garbage.dead.push_back(save);
  }
  // The rest is not worth the time of somebody who waits for the store to close.
  if (is_stopping_) return garbage;
  garbage.hollow.assign(maybe_shrunk_.begin(), maybe_shrunk_.end());
  garbage.is_small_due = dead_small_bytes_ >= kSmallGarbageSizeBytes;
  return garbage;
}

}  // namespace stepstone
