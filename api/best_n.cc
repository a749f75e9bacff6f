#include "api/best_n.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace stepstone {

namespace {

struct MetricAtPath {
  std::string path;

  std::optional<double> operator()(const Tree& metrics) const {
    const Tree* const value = metrics.find(path);
    if (value == nullptr) return std::nullopt;
    if (const auto* number = value->get_if<double>()) return *number;
    if (const auto* number = value->get_if<std::int64_t>()) return static_cast<double>(*number);
    return std::nullopt;
  }
};

}  // namespace

MetricFunction metric(std::string path) { return MetricAtPath{std::move(path)}; }

std::optional<std::string> metric_path(const MetricFunction& function) {
  const auto* const known = function.target<MetricAtPath>();
  if (known == nullptr) return std::nullopt;
  return known->path;
}

std::vector<std::size_t> ranked_by_metric(std::span<const CheckpointInfo> checkpoints,
                                          const MetricFunction& get_metric, bool reverse) {
  struct Ranked {
    std::size_t index = 0;
    double goodness = 0;
  };
  std::vector<Ranked> ranked;
  // From the highest step on, so that a stable sort puts the later of two equals first.
  for (std::size_t i = checkpoints.size(); i-- > 0;) {
    if (!checkpoints[i].metrics) continue;
    const std::optional<double> value = get_metric(*checkpoints[i].metrics);
    if (value) ranked.push_back({i, reverse ? -*value : *value});
  }
  std::stable_sort(ranked.begin(), ranked.end(), [](const Ranked& a, const Ranked& b) {
    if (std::isnan(a.goodness) || std::isnan(b.goodness)) return !std::isnan(a.goodness);
    return a.goodness > b.goodness;
  });
  std::vector<std::size_t> order;
  order.reserve(ranked.size());
  for (const Ranked& entry : ranked) order.push_back(entry.index);
  return order;
}

std::vector<bool> BestN::should_preserve(std::span<const CheckpointInfo> checkpoints,
                                         const PreservationContext& /*context*/) const {
  if (!options_.n || checkpoints.size() <= *options_.n) {
    return std::vector<bool>(checkpoints.size(), true);
  }
  // None at all, not even those without metrics.
  const bool keeps_unranked = options_.keep_checkpoints_without_metrics && *options_.n != 0;
  std::vector<bool> kept(checkpoints.size(), keeps_unranked);
  std::uint64_t left = *options_.n;
  for (const std::size_t i : ranked_by_metric(checkpoints, get_metric_, options_.reverse)) {
    kept[i] = left != 0;
    if (left != 0) --left;
  }
  if (options_.keep_newest) kept.back() = true;
  return kept;
}

Tree BestN::description() const {
  std::string path = metric_path(get_metric_).value_or(options_.metric_path);
  constexpr auto kMax = std::uint64_t{std::numeric_limits<std::int64_t>::max()};
  return Tree::dict(
      {{"policy", "BestN"},
       {"n", options_.n ? Tree(static_cast<std::int64_t>(std::min(*options_.n, kMax))) : Tree()},
       {"reverse", options_.reverse},
       {"keep_checkpoints_without_metrics", options_.keep_checkpoints_without_metrics},
       {"keep_newest", options_.keep_newest},
       {"metric", path.empty() ? Tree() : Tree(std::move(path))}});
}

Result<void> BestN::check() const {
  if (get_metric_) return {};
  return fail(ErrorCode::kInvalidArgument, "BestN: there is no function that gives the metric");
}

}  // namespace stepstone
