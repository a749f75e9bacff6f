#include "api/checkpoint_history.h"

#include "api/json.h"

namespace stepstone {

CheckpointInfo checkpoint_info(const StepRecord& record) {
  CheckpointInfo info;
  info.step = record.save.step;
  info.time = std::chrono::system_clock::time_point(
      std::chrono::duration_cast<std::chrono::system_clock::duration>(
          std::chrono::nanoseconds(record.started_unix_ns)));
  if (record.metrics.empty()) return info;
  if (Result<Tree> metrics = from_json(record.metrics)) info.metrics = *std::move(metrics);
  return info;
}

std::vector<CheckpointInfo> CheckpointHistory::list(const Store& store) {
  const std::scoped_lock lock(mutex_);
  std::map<SaveId, CheckpointInfo> seen;
  std::vector<CheckpointInfo> list;
  for (const SaveId save : store.saves()) {
    auto known = infos_.extract(save);
    if (known.empty()) {
      const Result<StepRecord> record = store.step_record(save.step);
      // It has just been retired, or saved again.
      if (!record || record->save != save) continue;
      seen.emplace(save, checkpoint_info(*record));
    } else {
      seen.insert(std::move(known));
    }
    list.push_back(seen.at(save));
    const auto unwritten = unwritten_metrics_.find(save);
    if (unwritten != unwritten_metrics_.end()) list.back().metrics = unwritten->second;
  }
  std::erase_if(unwritten_metrics_, [&](const auto& entry) { return !seen.contains(entry.first); });
  infos_ = std::move(seen);
  return list;
}

void CheckpointHistory::set_unwritten_metrics(SaveId save, Tree metrics) {
  const std::scoped_lock lock(mutex_);
  unwritten_metrics_.insert_or_assign(save, std::move(metrics));
}

}  // namespace stepstone
