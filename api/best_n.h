#pragma once
// Keeping the checkpoints with the best metrics.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "preservation_policies.h"

namespace stepstone {

// The number that ranks a checkpoint; nullopt: these metrics do not say.
using MetricFunction = std::function<std::optional<double>(const Tree& metrics)>;
// The number at a path of the metrics: metric("loss").
MetricFunction metric(std::string path);
// Of what metric() gave; nullopt: of another function, which may do anything.
std::optional<std::string> metric_path(const MetricFunction& function);

struct BestNOptions {
  bool reverse = false;                           // The lowest are the best.
  std::optional<std::uint64_t> n = std::nullopt;  // nullopt: keep all.
  // On top of the n; false: they go once there are more than n checkpoints.
  bool keep_checkpoints_without_metrics = true;
  // The highest step, on top of the n: a run that is continued from there must find it.
  bool keep_newest = true;
  // What another function than that of metric() reads, to be told to those who look at the store;
  // empty: unknown.
  std::string metric_path = {};
};

// The n best, the later of two equals. NaN is worse than any number.
class BestN : public PreservationPolicy {
 public:
  explicit BestN(MetricFunction get_metric, BestNOptions options = {})
      : get_metric_(std::move(get_metric)), options_(std::move(options)) {}
  std::vector<bool> should_preserve(std::span<const CheckpointInfo> checkpoints,
                                    const PreservationContext& context) const override;
  Tree description() const override;
  Result<void> check() const override;

 private:
  MetricFunction get_metric_;
  BestNOptions options_;
};

// From best to worst, as BestN ranks them: the positions of those that have a number.
std::vector<std::size_t> ranked_by_metric(std::span<const CheckpointInfo> checkpoints,
                                          const MetricFunction& get_metric, bool reverse);

}  // namespace stepstone
