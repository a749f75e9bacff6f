#pragma once
// Which checkpoints a manager keeps. A policy is asked at every commit, and what it does not keep
// is retired in the same instant as the new step appears. One of yours derives from
// PreservationPolicy. Whatever a policy says, the step that is being saved survives its own commit.

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "checkpoint_info.h"

namespace stepstone {

struct PreservationContext {
  std::chrono::system_clock::time_point now = {};
  std::optional<std::uint64_t> saved_step = {};  // Whose commit this is.
};

// Asked under the manager's and the store's locks, by the thread that commits: must not call the
// manager.
class PreservationPolicy {
 public:
  PreservationPolicy() = default;
  PreservationPolicy(const PreservationPolicy&) = default;
  PreservationPolicy& operator=(const PreservationPolicy&) = default;
  virtual ~PreservationPolicy() = default;

  // For each of `checkpoints`, which are ascending by step and include the one being saved, whether
  // to keep it.
  virtual std::vector<bool> should_preserve(std::span<const CheckpointInfo> checkpoints,
                                            const PreservationContext& context) const = 0;
  // kInvalidArgument: the policy cannot be meant. Asked once, when a manager is opened with it.
  virtual Result<void> check() const { return {}; }
  // What JSON can hold: {"policy": a name of the kind, and whatever makes it this one}. The store
  // keeps it, so that others can tell why a step is there. Asked once, as check().
  virtual Tree description() const;
};

using PreservationPolicies = std::vector<std::shared_ptr<const PreservationPolicy>>;

class PreserveAll : public PreservationPolicy {
 public:
  std::vector<bool> should_preserve(std::span<const CheckpointInfo> checkpoints,
                                    const PreservationContext& context) const override;
  Tree description() const override;
};

// The n highest steps; nullopt: all. The step being saved counts as the highest, so that an earlier
// one that is filled in stays until the next save.
class LatestN : public PreservationPolicy {
 public:
  explicit LatestN(std::optional<std::uint64_t> n = std::nullopt) : n_(n) {}
  std::vector<bool> should_preserve(std::span<const CheckpointInfo> checkpoints,
                                    const PreservationContext& context) const override;
  Tree description() const override;

 private:
  std::optional<std::uint64_t> n_;
};

// The highest step. A run is continued from there, and LatestN lets it go where only one may be
// kept and an earlier one is filled in.
class Newest : public PreservationPolicy {
 public:
  std::vector<bool> should_preserve(std::span<const CheckpointInfo> checkpoints,
                                    const PreservationContext& context) const override;
  Tree description() const override;
};

// In the order of their times: the first, and each that is at least `interval` after the last one
// kept.
class EveryNSeconds : public PreservationPolicy {
 public:
  explicit EveryNSeconds(std::chrono::nanoseconds interval) : interval_(interval) {}
  std::vector<bool> should_preserve(std::span<const CheckpointInfo> checkpoints,
                                    const PreservationContext& context) const override;
  Tree description() const override;

 private:
  std::chrono::nanoseconds interval_;
};

struct EveryNStepsOptions {
  // Keep multiples of the interval; false: the first, and each that is at least the interval after
  // the last one kept.
  bool exact_interval = true;
  std::optional<std::uint64_t> max_to_keep = std::nullopt;  // Only the highest so many of them.
};

// The interval is not 0.
class EveryNSteps : public PreservationPolicy {
 public:
  explicit EveryNSteps(std::uint64_t interval_steps, EveryNStepsOptions options = {})
      : interval_steps_(interval_steps), options_(options) {}
  std::vector<bool> should_preserve(std::span<const CheckpointInfo> checkpoints,
                                    const PreservationContext& context) const override;
  Tree description() const override;
  Result<void> check() const override;

 private:
  std::uint64_t interval_steps_;
  EveryNStepsOptions options_;
};

// For each multiple of the interval, which is not 0, the checkpoint that is closest to it among
// those that have no other multiple closer to them (half way between two: the even one); the later
// of two that are equally close. And the highest step. Of all these the highest `max_to_keep`.
class EveryNStepsClosest : public PreservationPolicy {
 public:
  explicit EveryNStepsClosest(std::uint64_t interval_steps,
                              std::optional<std::uint64_t> max_to_keep = std::nullopt)
      : interval_steps_(interval_steps), max_to_keep_(max_to_keep) {}
  std::vector<bool> should_preserve(std::span<const CheckpointInfo> checkpoints,
                                    const PreservationContext& context) const override;
  Tree description() const override;
  Result<void> check() const override;

 private:
  std::uint64_t interval_steps_;
  std::optional<std::uint64_t> max_to_keep_;
};

class CustomSteps : public PreservationPolicy {
 public:
  explicit CustomSteps(std::set<std::uint64_t> steps) : steps_(std::move(steps)) {}
  std::vector<bool> should_preserve(std::span<const CheckpointInfo> checkpoints,
                                    const PreservationContext& context) const override;
  Tree description() const override;

 private:
  std::set<std::uint64_t> steps_;
};

// Those that are not older than this.
class LatestDuration : public PreservationPolicy {
 public:
  explicit LatestDuration(std::chrono::nanoseconds duration) : duration_(duration) {}
  std::vector<bool> should_preserve(std::span<const CheckpointInfo> checkpoints,
                                    const PreservationContext& context) const override;
  Tree description() const override;

 private:
  std::chrono::nanoseconds duration_;
};

// What one of them keeps.
class AnyPreservationPolicy : public PreservationPolicy {
 public:
  explicit AnyPreservationPolicy(PreservationPolicies policies) : policies_(std::move(policies)) {}
  std::vector<bool> should_preserve(std::span<const CheckpointInfo> checkpoints,
                                    const PreservationContext& context) const override;
  Tree description() const override;
  Result<void> check() const override;

 private:
  PreservationPolicies policies_;
};

}  // namespace stepstone
