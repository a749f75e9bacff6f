#include "engine/save_registry.h"

#include <algorithm>
#include <limits>

#include "format/assert.h"

namespace stepstone {

SaveRegistry::Lease::~Lease() {
  const std::scoped_lock lock(registry_->mutex_);
  const auto found = registry_->leases_.find(save_);
  STEPSTONE_ASSERT(found != registry_->leases_.end());
  if (--found->second == 0) registry_->leases_.erase(found);
  registry_->changed_.notify_all();
}

void SaveRegistry::load(std::map<std::uint64_t, VisibleStep> steps, std::uint32_t next_generation) {
  const std::scoped_lock lock(mutex_);
  visible_ = std::move(steps);
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

std::optional<VisibleStep> SaveRegistry::find(std::uint64_t step) const {
  const std::scoped_lock lock(mutex_);
  const auto found = visible_.find(step);
  if (found == visible_.end()) return std::nullopt;
  return found->second;
}

std::optional<SaveRegistry::Leased> SaveRegistry::lease(std::uint64_t step) {
  const std::scoped_lock lock(mutex_);
  const auto found = visible_.find(step);
  if (found == visible_.end()) return std::nullopt;
  const SaveId save = found->second.record.save;
  ++leases_[save];
  return Leased{found->second.record, std::make_unique<Lease>(shared_from_this(), save)};
}

std::optional<SaveId> SaveRegistry::begin_save(std::uint64_t step) {
  const std::scoped_lock lock(mutex_);
  if (next_generation_ == std::numeric_limits<std::uint32_t>::max()) return std::nullopt;
  const SaveId save{step, next_generation_++};
  writing_.insert(save);
  return save;
}

void SaveRegistry::end_save(SaveId save, std::optional<VisibleStep> published,
                            std::span<const std::uint64_t> retired) {
  const std::scoped_lock lock(mutex_);
  writing_.erase(save);
  for (const std::uint64_t step : retired) hide(step);
  if (published) {
    hide(save.step);
    visible_.emplace(save.step, *std::move(published));
  } else {
    garbage_.insert(save);
  }
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

void SaveRegistry::add_garbage(const std::vector<SaveId>& saves) {
  const std::scoped_lock lock(mutex_);
  garbage_.insert(saves.begin(), saves.end());
  changed_.notify_all();
}

std::vector<SaveId> SaveRegistry::take_garbage() {
  std::unique_lock lock(mutex_);
  std::vector<SaveId> dead;
  changed_.wait(lock, [&] {
    dead = dead_garbage();
    return !dead.empty() || is_stopping_;
  });
  for (const SaveId save : dead) garbage_.erase(save);
  is_collecting_ = !dead.empty();
  return dead;
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
  changed_.wait(lock, [&] { return !is_collecting_ && dead_garbage().empty(); });
}

bool SaveRegistry::is_dead_locked(SaveId save) const {
  if (!is_loaded_) return false;
  const auto found = visible_.find(save.step);
  const bool is_visible = found != visible_.end() && found->second.record.save == save;
  return !is_visible && !writing_.contains(save) && !leases_.contains(save);
}

void SaveRegistry::hide(std::uint64_t step) {
  const auto found = visible_.find(step);
  if (found == visible_.end()) return;
  // Saves in the column family `small` go with its compactions, by the filter.
  if (found->second.record.placement == Placement::kSegments) {
    garbage_.insert(found->second.record.save);
  }
  visible_.erase(found);
}

std::vector<SaveId> SaveRegistry::dead_garbage() const {
  std::vector<SaveId> dead;
  for (const SaveId save : garbage_) {
    if (is_dead_locked(save)) dead.push_back(save);
  }
  return dead;
}

}  // namespace stepstone
