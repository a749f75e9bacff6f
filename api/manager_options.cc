#include "api/manager_options.h"

#include <fmt/format.h>

#include <algorithm>

#include "api/json.h"
#include "api/preservation_text.h"

namespace stepstone {
namespace {

tl::unexpected<Error> refuse(std::string message) {
  return fail(ErrorCode::kInvalidArgument, std::move(message));
}

class ShouldSaveFunction : public SaveDecisionPolicy {
 public:
  using Function = std::function<bool(std::uint64_t, std::optional<std::uint64_t>)>;
  explicit ShouldSaveFunction(Function function) : function_(std::move(function)) {}

  bool should_save(const CheckpointInfo& step, std::span<const CheckpointInfo> previous_steps,
                   const DecisionContext& /*context*/) const override {
    if (previous_steps.empty()) return function_(step.step, std::nullopt);
    return function_(step.step, previous_steps.back().step);
  }

 private:
  Function function_;
};

std::shared_ptr<const SaveDecisionPolicy> save_policy_of(const CheckpointManagerOptions& options) {
  if (options.save_decision_policy != nullptr) return options.save_decision_policy;
  const auto preemption = std::make_shared<PreemptionCheckpointingPolicy>();
  if (options.should_save_fn) {
    return std::make_shared<AnySavePolicy>(SaveDecisionPolicies{
        std::make_shared<ShouldSaveFunction>(options.should_save_fn), preemption});
  }
  return std::make_shared<AnySavePolicy>(
      SaveDecisionPolicies{std::make_shared<FixedIntervalPolicy>(options.save_interval_steps),
                           std::make_shared<SpecificStepsPolicy>(options.save_on_steps), preemption,
                           std::make_shared<InitialSavePolicy>()});
}

std::shared_ptr<const PreservationPolicy> preservation_policy_of(
    const CheckpointManagerOptions& options) {
  if (options.preservation_policy != nullptr) return options.preservation_policy;
  // Whatever else is to be kept besides everything.
  if (!options.max_to_keep) return nullptr;
  PreservationPolicies policies;
  if (options.keep_period) policies.push_back(std::make_shared<EveryNSteps>(*options.keep_period));
  if (options.keep_time_interval) {
    policies.push_back(std::make_shared<EveryNSeconds>(*options.keep_time_interval));
  }
  if (options.best_fn) {
    policies.push_back(std::make_shared<BestN>(
        options.best_fn, BestNOptions{.reverse = options.best_mode == BestMode::kMin,
                                      .n = options.max_to_keep,
                                      .keep_checkpoints_without_metrics =
                                          options.keep_checkpoints_without_metrics}));
  } else {
    policies.push_back(std::make_shared<LatestN>(options.max_to_keep));
    policies.push_back(std::make_shared<Newest>());
  }
  return std::make_shared<AnyPreservationPolicy>(std::move(policies));
}

Result<void> check_numbers(const CheckpointManagerOptions& options) {
  if (options.save_interval_steps == 0) {
    return refuse("save_interval_steps is 0: it must be at least 1");
  }
  if (options.max_to_keep == 0) {
    return refuse(
        "max_to_keep is 0, which would delete every checkpoint: leave it unset to keep "
        "all");
  }
  if (options.keep_period == 0) {
    return refuse("keep_period is 0: it must be at least 1, or unset");
  }
  using std::chrono::nanoseconds;
  if (options.keep_time_interval && *options.keep_time_interval < nanoseconds::zero()) {
    return refuse("keep_time_interval is negative");
  }
  if (options.async_options.timeout && *options.async_options.timeout < nanoseconds::zero()) {
    return refuse("async_options.timeout is negative");
  }
  return {};
}

Result<void> check_pairs(const CheckpointManagerOptions& options, const ManagerItems& items) {
  if (options.preservation_policy != nullptr &&
      (options.max_to_keep || options.keep_time_interval || options.keep_period)) {
    return refuse(
        "preservation_policy takes the place of max_to_keep, keep_time_interval and "
        "keep_period: set one or the others");
  }
  if (options.todelete_subdir && options.todelete_full_path) {
    return refuse("todelete_subdir and todelete_full_path do not go together");
  }
  if (options.async_options.post_finalization_callback && !options.enable_async_checkpointing) {
    return refuse(
        "async_options.post_finalization_callback needs enable_async_checkpointing: "
        "on_save is called for every save");
  }
  if (items.handler_registry && (!items.item_names.empty() || !items.item_handlers.empty() ||
                                 items.item_handler != nullptr)) {
    return refuse(
        "handler_registry does not go with item_names, item_handlers or item_handler: "
        "add the items' handlers to the registry");
  }
  if (items.item_handler != nullptr &&
      (!items.item_names.empty() || !items.item_handlers.empty())) {
    return refuse("item_handler is for one object: give named items their item_handlers");
  }
  return {};
}

Result<void> check_item_names(const std::vector<std::string>& names) {
  for (auto name = names.begin(); name != names.end(); ++name) {
    if (name->empty()) return refuse("item_names: a name is empty");
    if (std::find(names.begin(), name, *name) != name) {
      return refuse(fmt::format("item_names: '{}' is there twice", printable(*name)));
    }
  }
  return {};
}

Result<HandlerRegistry> registry_of(const ManagerItems& items) {
  if (items.handler_registry) return *items.handler_registry;
  HandlerRegistry registry = HandlerRegistry::defaults();
  for (const auto& [name, handler] : items.item_handlers) {
    STEPSTONE_TRY(registry.add(name, handler));
  }
  if (items.item_handler != nullptr) STEPSTONE_TRY(registry.add("default", items.item_handler));
  return registry;
}

// The user's function may throw; that says no more than that it knows no number.
MetricFunction guarded(MetricFunction function) {
  if (!function || metric_path(function)) return function;
  return [function = std::move(function)](const Tree& metrics) -> std::optional<double> {
    try {
      return function(metrics);
    } catch (...) {
      return std::nullopt;
    }
  };
}

}  // namespace

Result<std::string> json_dict(const JsonText& json, const std::string& what) {
  if (json.is_empty()) return std::string();
  std::string text = STEPSTONE_TRY_CONTEXT(json.text(), what);
  const Tree tree = STEPSTONE_TRY_CONTEXT(from_json(text), what);
  if (tree.kind() != NodeKind::kDict) {
    return refuse(fmt::format("{} must be a JSON dict: put the value under a key", what));
  }
  return text;
}

Result<ManagerSetup> set_up(const CheckpointManagerOptions& options, const ManagerItems& items) {
  STEPSTONE_TRY(check_numbers(options));
  STEPSTONE_TRY(check_pairs(options, items));
  STEPSTONE_TRY(check_item_names(items.item_names));
  ManagerSetup setup;
  setup.options = options;
  setup.options.best_fn = guarded(options.best_fn);
  setup.best_fn = setup.options.best_fn;
  setup.save_policy = save_policy_of(setup.options);
  STEPSTONE_TRY_CONTEXT(setup.save_policy->check(), "save_decision_policy");
  setup.preservation_policy = preservation_policy_of(setup.options);
  if (setup.preservation_policy != nullptr) {
    STEPSTONE_TRY_CONTEXT(setup.preservation_policy->check(), "preservation_policy");
  }
  setup.preservation_text = to_text(setup.preservation_policy.get());
  setup.step_names = options.step_name_format;
  if (setup.step_names == nullptr) {
    setup.step_names = STEPSTONE_TRY(
        standard_name_format({.step_prefix = options.step_prefix,
                              .step_format_fixed_length = options.step_format_fixed_length}));
  }
  setup.registry = STEPSTONE_TRY(registry_of(items));
  setup.item_names = items.item_names;
  setup.is_single = items.item_handler != nullptr;
  setup.is_multiple = !items.item_names.empty() || !items.item_handlers.empty();
  setup.root_metadata = STEPSTONE_TRY(json_dict(items.metadata, "metadata of the run"));
  if (setup.options.preemption == nullptr) {
    setup.options.preemption = std::make_shared<Preemption>();
  }
  if (!setup.options.clock) setup.options.clock = std::chrono::system_clock::now;
  return setup;
}

}  // namespace stepstone
