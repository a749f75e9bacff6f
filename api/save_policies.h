#pragma once
// When a manager saves. A policy is asked about each step that the trainer offers; one of yours
// derives from SaveDecisionPolicy.

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "checkpoint_info.h"

namespace stepstone {

struct DecisionContext {
  bool is_saving_in_progress = false;
  bool reached_preemption = false;  // The process is about to be ended.
};

// Asked under the manager's locks, from the thread of the caller: must not call the manager.
class SaveDecisionPolicy {
 public:
  SaveDecisionPolicy() = default;
  SaveDecisionPolicy(const SaveDecisionPolicy&) = default;
  SaveDecisionPolicy& operator=(const SaveDecisionPolicy&) = default;
  virtual ~SaveDecisionPolicy() = default;

  // `step` has the present time and no metrics. `previous_steps` are those that are there and those
  // on their way, ascending.
  virtual bool should_save(const CheckpointInfo& step,
                           std::span<const CheckpointInfo> previous_steps,
                           const DecisionContext& context) const = 0;
  // kInvalidArgument: the policy cannot be meant. Asked once, when a manager is opened with it.
  virtual Result<void> check() const { return {}; }
};

using SaveDecisionPolicies = std::vector<std::shared_ptr<const SaveDecisionPolicy>>;

// Multiples of an interval, which is not 0.
class FixedIntervalPolicy : public SaveDecisionPolicy {
 public:
  explicit FixedIntervalPolicy(std::uint64_t interval) : interval_(interval) {}
  bool should_save(const CheckpointInfo& step, std::span<const CheckpointInfo> previous_steps,
                   const DecisionContext& context) const override;
  Result<void> check() const override;

 private:
  std::uint64_t interval_;
};

class SpecificStepsPolicy : public SaveDecisionPolicy {
 public:
  explicit SpecificStepsPolicy(std::set<std::uint64_t> steps) : steps_(std::move(steps)) {}
  bool should_save(const CheckpointInfo& step, std::span<const CheckpointInfo> previous_steps,
                   const DecisionContext& context) const override;

 private:
  std::set<std::uint64_t> steps_;
};

// As often as possible: whenever no save is in progress, and the newest is at least so old.
class ContinuousCheckpointingPolicy : public SaveDecisionPolicy {
 public:
  explicit ContinuousCheckpointingPolicy(
      std::optional<std::chrono::nanoseconds> minimum_interval = std::nullopt)
      : minimum_interval_(minimum_interval) {}
  bool should_save(const CheckpointInfo& step, std::span<const CheckpointInfo> previous_steps,
                   const DecisionContext& context) const override;

 private:
  std::optional<std::chrono::nanoseconds> minimum_interval_;
};

// When the process is about to be ended.
class PreemptionCheckpointingPolicy : public SaveDecisionPolicy {
 public:
  bool should_save(const CheckpointInfo& step, std::span<const CheckpointInfo> previous_steps,
                   const DecisionContext& context) const override;
};

// While there is no step.
class InitialSavePolicy : public SaveDecisionPolicy {
 public:
  bool should_save(const CheckpointInfo& step, std::span<const CheckpointInfo> previous_steps,
                   const DecisionContext& context) const override;
};

// When one of them does; those after it are not asked. None: never.
class AnySavePolicy : public SaveDecisionPolicy {
 public:
  explicit AnySavePolicy(SaveDecisionPolicies policies) : policies_(std::move(policies)) {}
  bool should_save(const CheckpointInfo& step, std::span<const CheckpointInfo> previous_steps,
                   const DecisionContext& context) const override;
  Result<void> check() const override;

 private:
  SaveDecisionPolicies policies_;
};

}  // namespace stepstone
