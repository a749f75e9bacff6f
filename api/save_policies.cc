#include "api/save_policies.h"

#include <algorithm>

namespace stepstone {

bool FixedIntervalPolicy::should_save(const CheckpointInfo& step,
                                      std::span<const CheckpointInfo> /*previous_steps*/,
                                      const DecisionContext& /*context*/) const {
  return interval_ != 0 && step.step % interval_ == 0;
}

Result<void> FixedIntervalPolicy::check() const {
  if (interval_ != 0) return {};
  return fail(ErrorCode::kInvalidArgument,
              "FixedIntervalPolicy: the interval is 0: it must be at least 1");
}

bool SpecificStepsPolicy::should_save(const CheckpointInfo& step,
                                      std::span<const CheckpointInfo> /*previous_steps*/,
                                      const DecisionContext& /*context*/) const {
  return steps_.contains(step.step);
}

bool ContinuousCheckpointingPolicy::should_save(const CheckpointInfo& step,
                                                std::span<const CheckpointInfo> previous_steps,
                                                const DecisionContext& context) const {
  if (context.is_saving_in_progress) return false;
  if (previous_steps.empty() || !minimum_interval_) return true;
  // The highest step is not the last one saved when an earlier one was filled in.
  const auto by_time = [](const auto& a, const auto& b) { return a.time < b.time; };
  const auto last = std::max_element(previous_steps.begin(), previous_steps.end(), by_time);
  return step.time - last->time >= *minimum_interval_;
}

bool PreemptionCheckpointingPolicy::should_save(const CheckpointInfo& /*step*/,
                                                std::span<const CheckpointInfo> /*previous_steps*/,
                                                const DecisionContext& context) const {
  return context.reached_preemption;
}

bool InitialSavePolicy::should_save(const CheckpointInfo& /*step*/,
                                    std::span<const CheckpointInfo> previous_steps,
                                    const DecisionContext& /*context*/) const {
  return previous_steps.empty();
}

bool AnySavePolicy::should_save(const CheckpointInfo& step,
                                std::span<const CheckpointInfo> previous_steps,
                                const DecisionContext& context) const {
  return std::any_of(policies_.begin(), policies_.end(), [&](const auto& policy) {
    return policy->should_save(step, previous_steps, context);
  });
}

Result<void> AnySavePolicy::check() const {
  for (const auto& policy : policies_) {
    if (policy == nullptr) return fail(ErrorCode::kInvalidArgument, "AnySavePolicy: null policy");
    STEPSTONE_TRY(policy->check());
  }
  return {};
}

}  // namespace stepstone
