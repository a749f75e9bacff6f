#include "api/preservation_policies.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <string>

namespace stepstone {
namespace {

// Keeps the last `count` of those that are kept.
void trim(std::vector<bool>& kept, std::optional<std::uint64_t> count) {
  if (!count) return;
  std::uint64_t left = *count;
  for (std::size_t i = kept.size(); i-- > 0;) {
    if (kept[i] && left != 0) {
      --left;
    } else {
      kept[i] = false;
    }
  }
}

// Steps end where int64 does, so that what is beyond it means the same.
Tree number_tree(std::uint64_t number) {
  constexpr auto kMax = std::uint64_t{std::numeric_limits<std::int64_t>::max()};
  return static_cast<std::int64_t>(std::min(number, kMax));
}

Tree number_or_none(std::optional<std::uint64_t> number) {
  return number ? number_tree(*number) : Tree(None{});
}

Result<void> check_interval(std::uint64_t interval_steps, const char* policy) {
  if (interval_steps != 0) return {};
  return fail(ErrorCode::kInvalidArgument,
              std::string(policy) + ": interval_steps is 0: it must be at least 1");
}

}  // namespace

Tree PreservationPolicy::description() const { return Tree::dict({{"policy", "custom"}}); }

std::vector<bool> PreserveAll::should_preserve(std::span<const CheckpointInfo> checkpoints,
                                               const PreservationContext& /*context*/) const {
  return std::vector<bool>(checkpoints.size(), true);
}

Tree PreserveAll::description() const { return Tree::dict({{"policy", "PreserveAll"}}); }

std::vector<bool> LatestN::should_preserve(std::span<const CheckpointInfo> checkpoints,
                                           const PreservationContext& context) const {
  std::vector<bool> kept(checkpoints.size(), true);
  if (!n_ || checkpoints.size() <= *n_) return kept;
  std::uint64_t left = *n_;
  for (std::size_t i = 0; i < checkpoints.size(); ++i) {
    kept[i] = left != 0 && checkpoints[i].step == context.saved_step;
  }
  if (std::find(kept.begin(), kept.end(), true) != kept.end()) --left;
  for (std::size_t i = checkpoints.size(); left != 0 && i-- > 0;) {
    if (kept[i]) continue;
    kept[i] = true;
    --left;
  }
  return kept;
}

Tree LatestN::description() const {
  return Tree::dict({{"policy", "LatestN"}, {"n", number_or_none(n_)}});
}

std::vector<bool> Newest::should_preserve(std::span<const CheckpointInfo> checkpoints,
                                          const PreservationContext& /*context*/) const {
  std::vector<bool> kept(checkpoints.size());
  if (!kept.empty()) kept.back() = true;
  return kept;
}

Tree Newest::description() const { return Tree::dict({{"policy", "Newest"}}); }

std::vector<bool> EveryNSeconds::should_preserve(std::span<const CheckpointInfo> checkpoints,
                                                 const PreservationContext& /*context*/) const {
  std::vector<std::size_t> by_time(checkpoints.size());
  std::iota(by_time.begin(), by_time.end(), std::size_t{0});
  std::stable_sort(by_time.begin(), by_time.end(), [&](std::size_t a, std::size_t b) {
    return checkpoints[a].time < checkpoints[b].time;
  });
  std::vector<bool> kept(checkpoints.size());
  std::optional<std::chrono::system_clock::time_point> last;
  for (const std::size_t i : by_time) {
    if (last && checkpoints[i].time - *last < interval_) continue;
    kept[i] = true;
    last = checkpoints[i].time;
  }
  return kept;
}

Tree EveryNSeconds::description() const {
  return Tree::dict(
      {{"policy", "EveryNSeconds"}, {"interval_ns", std::int64_t{interval_.count()}}});
}

std::vector<bool> EveryNSteps::should_preserve(std::span<const CheckpointInfo> checkpoints,
                                               const PreservationContext& /*context*/) const {
  std::vector<bool> kept(checkpoints.size());
  if (interval_steps_ == 0) return kept;
  std::optional<std::uint64_t> last;
  for (std::size_t i = 0; i < checkpoints.size(); ++i) {
    const std::uint64_t step = checkpoints[i].step;
    kept[i] = options_.exact_interval ? step % interval_steps_ == 0
                                      : !last || step - *last >= interval_steps_;
    if (kept[i]) last = step;
  }
  trim(kept, options_.max_to_keep);
  return kept;
}

Tree EveryNSteps::description() const {
  return Tree::dict({{"policy", "EveryNSteps"},
                     {"interval_steps", number_tree(interval_steps_)},
                     {"exact_interval", options_.exact_interval},
                     {"max_to_keep", number_or_none(options_.max_to_keep)}});
}

Result<void> EveryNSteps::check() const { return check_interval(interval_steps_, "EveryNSteps"); }

std::vector<bool> EveryNStepsClosest::should_preserve(
    std::span<const CheckpointInfo> checkpoints, const PreservationContext& /*context*/) const {
  std::vector<bool> kept(checkpoints.size());
  if (interval_steps_ == 0 || checkpoints.empty()) return kept;
  struct Closest {
    std::size_t index = 0;
    std::uint64_t distance = 0;
  };
  std::map<std::uint64_t, Closest> by_multiple;
  for (std::size_t i = 0; i < checkpoints.size(); ++i) {
    const std::uint64_t below = checkpoints[i].step / interval_steps_;
    const std::uint64_t over = checkpoints[i].step % interval_steps_;
    const std::uint64_t under = interval_steps_ - over;
    const bool is_above = over > under || (over == under && below % 2 == 1);
    const Closest candidate = {i, is_above ? under : over};
    const auto [entry, is_new] = by_multiple.emplace(below + (is_above ? 1 : 0), candidate);
    if (!is_new && candidate.distance <= entry->second.distance) entry->second = candidate;
  }
  for (const auto& [multiple, closest] : by_multiple) kept[closest.index] = true;
  kept.back() = true;
  trim(kept, max_to_keep_);
  return kept;
}

Tree EveryNStepsClosest::description() const {
  return Tree::dict({{"policy", "EveryNStepsClosest"},
                     {"interval_steps", number_tree(interval_steps_)},
                     {"max_to_keep", number_or_none(max_to_keep_)}});
}

Result<void> EveryNStepsClosest::check() const {
  return check_interval(interval_steps_, "EveryNStepsClosest");
}

std::vector<bool> CustomSteps::should_preserve(std::span<const CheckpointInfo> checkpoints,
                                               const PreservationContext& /*context*/) const {
  std::vector<bool> kept;
  kept.reserve(checkpoints.size());
  for (const CheckpointInfo& checkpoint : checkpoints) {
    kept.push_back(steps_.contains(checkpoint.step));
  }
  return kept;
}

Tree CustomSteps::description() const {
  std::vector<Tree> steps;
  for (const std::uint64_t step : steps_) steps.push_back(number_tree(step));
  return Tree::dict({{"policy", "CustomSteps"}, {"steps", Tree::list(std::move(steps))}});
}

std::vector<bool> LatestDuration::should_preserve(std::span<const CheckpointInfo> checkpoints,
                                                  const PreservationContext& context) const {
  std::vector<bool> kept;
  kept.reserve(checkpoints.size());
  for (const CheckpointInfo& checkpoint : checkpoints) {
    kept.push_back(context.now - checkpoint.time <= duration_);
  }
  return kept;
}

Tree LatestDuration::description() const {
  return Tree::dict(
      {{"policy", "LatestDuration"}, {"duration_ns", std::int64_t{duration_.count()}}});
}

std::vector<bool> AnyPreservationPolicy::should_preserve(
    std::span<const CheckpointInfo> checkpoints, const PreservationContext& context) const {
  std::vector<bool> kept(checkpoints.size());
  for (const auto& policy : policies_) {
    const std::vector<bool> also_kept = policy->should_preserve(checkpoints, context);
    // A policy that answers for fewer or more is found out below: the sizes differ.
    if (also_kept.size() != checkpoints.size()) return also_kept;
    for (std::size_t i = 0; i < kept.size(); ++i) kept[i] = kept[i] || also_kept[i];
  }
  return kept;
}

Tree AnyPreservationPolicy::description() const {
  std::vector<Tree> policies;
  for (const auto& policy : policies_) policies.push_back(policy->description());
  return Tree::dict({{"policy", "AnyPreservationPolicy"}, {"policies", Tree::list(policies)}});
}

Result<void> AnyPreservationPolicy::check() const {
  if (policies_.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "AnyPreservationPolicy: without policies it would delete every checkpoint");
  }
  for (const auto& policy : policies_) {
    if (policy == nullptr) {
      return fail(ErrorCode::kInvalidArgument, "AnyPreservationPolicy: null policy");
    }
    STEPSTONE_TRY(policy->check());
  }
  return {};
}

}  // namespace stepstone
