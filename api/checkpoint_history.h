#pragma once
// What policies are told about the steps of a store. Safe from several threads.

#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "api/checkpoint_info.h"
#include "engine/store.h"

namespace stepstone {

class CheckpointHistory {
 public:
  // Of the store's steps, ascending. Metrics that do not parse count as none.
  std::vector<CheckpointInfo> list(const Store& store);

  // Metrics that were given with a save that is visible now, but were not stored: known as long as
  // this lives.
  void set_unwritten_metrics(SaveId save, Tree metrics);

 private:
  std::mutex mutex_;
  std::map<SaveId, CheckpointInfo> infos_;  // Of the saves seen at the last look.
  std::map<SaveId, Tree> unwritten_metrics_;
};

CheckpointInfo checkpoint_info(const StepRecord& record);

}  // namespace stepstone
