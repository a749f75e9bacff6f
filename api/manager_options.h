#pragma once
// What a manager's options come to.

#include <memory>
#include <string>

#include "api/checkpoint_manager_options.h"

namespace stepstone {

// The options, checked and resolved.
struct ManagerSetup {
  CheckpointManagerOptions options;
  std::shared_ptr<const SaveDecisionPolicy> save_policy;
  std::shared_ptr<const PreservationPolicy> preservation_policy;  // Null: everything is kept.
  std::string preservation_text;                                  // The same as JSON.
  MetricFunction best_fn;  // Null, or one that does not throw.
  std::shared_ptr<const StepNameFormat> step_names;
  HandlerRegistry registry;
  std::vector<std::string> item_names;  // Empty: any.
  bool is_single = false;               // The items say that a step is one object...
  bool is_multiple = false;             // ...or named ones.
  std::string root_metadata;            // JSON text, or empty.
};

// kInvalidArgument: CheckpointManager::open's.
Result<ManagerSetup> set_up(const CheckpointManagerOptions& options, const ManagerItems& items);

// The text of a JSON dict, or an empty one. kInvalidArgument, naming it as `what`.
Result<std::string> json_dict(const JsonText& json, const std::string& what);

}  // namespace stepstone
