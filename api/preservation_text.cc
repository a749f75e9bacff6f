#include "api/preservation_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "api/best_n.h"
#include "api/json.h"
#include "format/leaf_path.h"
#include "format/limits.h"

namespace stepstone {
namespace {

constexpr const char* kUnknownText = R"({"policy":"custom"})";

// The parts of BestN one by one, as a step is kept for one of them.
class RankedFirst : public PreservationPolicy {
 public:
  RankedFirst(std::string path, std::uint64_t n, bool reverse)
      : get_metric_(metric(std::move(path))), n_(n), reverse_(reverse) {}

  std::vector<bool> should_preserve(std::span<const CheckpointInfo> checkpoints,
                                    const PreservationContext& /*context*/) const override {
    std::vector<bool> kept(checkpoints.size());
    std::uint64_t left = n_;
    for (const std::size_t i : ranked_by_metric(checkpoints, get_metric_, reverse_)) {
      if (left-- == 0) break;
      kept[i] = true;
    }
    return kept;
  }

 private:
  MetricFunction get_metric_;
  std::uint64_t n_;
  bool reverse_;
};

// With a path: those whose metrics have no number there as well. With a maximum: as long as there
// are no more checkpoints.
class Unranked : public PreservationPolicy {
 public:
  explicit Unranked(std::optional<std::string> path,
                    std::optional<std::uint64_t> count_max = std::nullopt)
      : count_max_(count_max) {
    if (path) get_metric_ = metric(*std::move(path));
  }

  std::vector<bool> should_preserve(std::span<const CheckpointInfo> checkpoints,
                                    const PreservationContext& /*context*/) const override {
    if (count_max_ && checkpoints.size() > *count_max_) {
      return std::vector<bool>(checkpoints.size());
    }
    std::vector<bool> kept;
    kept.reserve(checkpoints.size());
    for (const CheckpointInfo& info : checkpoints) {
      kept.push_back(!info.metrics || (get_metric_ && !get_metric_(*info.metrics)));
    }
    return kept;
  }

 private:
  std::optional<std::uint64_t> count_max_;
  MetricFunction get_metric_;
};

struct NamedPolicy {
  std::string words;
  std::shared_ptr<const PreservationPolicy> policy;  // Null: not known.
};

std::string duration_words(std::int64_t duration_ns) {
  constexpr std::int64_t kSecond = 1'000'000'000;
  if (duration_ns % kSecond != 0) {
    return fmt::format("{:g} s", static_cast<double>(duration_ns) / kSecond);
  }
  const std::int64_t seconds = duration_ns / kSecond;
  constexpr std::pair<std::int64_t, const char*> kUnits[] = {
      {86400, "d"}, {3600, "h"}, {60, "min"}};
  for (const auto& [size, name] : kUnits) {
    if (seconds != 0 && seconds % size == 0) return fmt::format("{} {}", seconds / size, name);
  }
  return fmt::format("{} s", seconds);
}

// Turns one description after the other into rules; what it does not understand is a rule that is
// not known.
class RuleReader {
 public:
  void read(const Tree& policy, unsigned depth = 0) {
    constexpr unsigned kDepthMax = 16;
    const std::string name = text(policy, "policy").value_or("custom");
    if (name == "AnyPreservationPolicy" && depth < kDepthMax) {
      const Tree* const policies = policy.find("policies");
      if (policies == nullptr || policies->kind() != NodeKind::kList) return add_unknown(name);
      for (const Tree::Child& child : policies->children()) read(child.tree, depth + 1);
      return;
    }
    if (!add_known(name, policy)) add_unknown(name);
  }

  bool reads_metrics() const { return reads_metrics_; }

  // LatestN and Newest say the same of almost every store, and are one rule.
  std::vector<NamedPolicy> take() {
    const auto latest = std::find_if(rules_.begin(), rules_.end(), [](const NamedPolicy& rule) {
      return dynamic_cast<const LatestN*>(rule.policy.get()) != nullptr;
    });
    const auto is_newest = [](const NamedPolicy& rule) {
      return dynamic_cast<const Newest*>(rule.policy.get()) != nullptr;
    };
    const auto newest = std::find_if(rules_.begin(), rules_.end(), is_newest);
    if (latest != rules_.end() && newest != rules_.end()) {
      latest->policy = std::make_shared<AnyPreservationPolicy>(
          PreservationPolicies{latest->policy, newest->policy});
      std::erase_if(rules_, is_newest);
    }
    return std::move(rules_);
  }

 private:
  static std::optional<std::string> text(const Tree& policy, std::string_view name) {
    const Tree* const value = policy.kind() == NodeKind::kDict ? policy.find(name) : nullptr;
    const auto* const found = value == nullptr ? nullptr : value->get_if<std::string>();
    if (found == nullptr) return std::nullopt;
    return *found;
  }
  static bool is_none(const Tree& policy, std::string_view name) {
    const Tree* const value = policy.find(name);
    return value == nullptr || (value->is_leaf() && value->get_if<None>() != nullptr);
  }
  static std::optional<std::int64_t> number(const Tree& policy, std::string_view name) {
    const Tree* const value = policy.find(name);
    const auto* const found = value == nullptr ? nullptr : value->get_if<std::int64_t>();
    if (found == nullptr || *found < 0) return std::nullopt;
    return *found;
  }
  static bool flag(const Tree& policy, std::string_view name, bool otherwise) {
    const Tree* const value = policy.find(name);
    const auto* const found = value == nullptr ? nullptr : value->get_if<bool>();
    return found == nullptr ? otherwise : *found;
  }
  // A count that may be left out: nullopt and false if it is something else.
  static bool read_count(const Tree& policy, std::string_view name,
                         std::optional<std::uint64_t>& count) {
    if (is_none(policy, name)) return true;
    const std::optional<std::int64_t> found = number(policy, name);
    if (found) count = static_cast<std::uint64_t>(*found);
    return found.has_value();
  }

  void add(std::string words, std::shared_ptr<const PreservationPolicy> policy) {
    const bool is_there = std::any_of(rules_.begin(), rules_.end(),
                                      [&](const NamedPolicy& rule) { return rule.words == words; });
    if (!is_there) rules_.push_back({std::move(words), std::move(policy)});
  }
  void add_unknown(const std::string& name) {
    add(name == "custom" ? "a rule of the program's own"
                         : fmt::format("a rule of the program's own, {}", printable(name)),
        nullptr);
  }

  bool add_known(const std::string& name, const Tree& policy) {
    if (name == "PreserveAll") {
      add("all", std::make_shared<PreserveAll>());
      return true;
    }
    if (name == "Newest") {
      add("the newest", std::make_shared<Newest>());
      return true;
    }
    if (name == "LatestN") return add_latest(policy);
    if (name == "EveryNSeconds") return add_every_n_seconds(policy);
    if (name == "EveryNSteps" || name == "EveryNStepsClosest") {
      return add_every_n_steps(policy, name == "EveryNStepsClosest");
    }
    if (name == "CustomSteps") return add_custom_steps(policy);
    if (name == "LatestDuration") return add_latest_duration(policy);
    if (name == "BestN") return add_best(policy);
    return false;
  }

  bool add_latest(const Tree& policy) {
    std::optional<std::uint64_t> n;
    if (!read_count(policy, "n", n)) return false;
    if (!n) {
      add("all", std::make_shared<PreserveAll>());
    } else {
      add(*n == 1 ? "the newest one" : fmt::format("the newest {}", *n),
          std::make_shared<LatestN>(n));
    }
    return true;
  }

  bool add_every_n_seconds(const Tree& policy) {
    const std::optional<std::int64_t> interval_ns = number(policy, "interval_ns");
    if (!interval_ns) return false;
    add("one every " + duration_words(*interval_ns),
        std::make_shared<EveryNSeconds>(std::chrono::nanoseconds(*interval_ns)));
    return true;
  }

  bool add_every_n_steps(const Tree& policy, bool closest) {
    const std::optional<std::int64_t> found = number(policy, "interval_steps");
    std::optional<std::uint64_t> max_to_keep;
    if (!found || *found == 0 || !read_count(policy, "max_to_keep", max_to_keep)) return false;
    const auto interval = static_cast<std::uint64_t>(*found);
    const std::string limit =
        max_to_keep ? fmt::format(" (the newest {} of them)", *max_to_keep) : "";
    if (closest) {
      add(fmt::format("the closest to each multiple of {}, and the newest{}", interval, limit),
          std::make_shared<EveryNStepsClosest>(interval, max_to_keep));
      return true;
    }
    const bool is_exact = flag(policy, "exact_interval", true);
    add(is_exact ? fmt::format("multiples of {}{}", interval, limit)
                 : fmt::format("steps at least {} apart{}", interval, limit),
        std::make_shared<EveryNSteps>(
            interval, EveryNStepsOptions{.exact_interval = is_exact, .max_to_keep = max_to_keep}));
    return true;
  }

  bool add_custom_steps(const Tree& policy) {
    constexpr std::size_t kShown = 8;
    const Tree* const steps = policy.find("steps");
    if (steps == nullptr || steps->kind() != NodeKind::kList) return false;
    std::set<std::uint64_t> chosen;
    for (const Tree::Child& child : steps->children()) {
      const auto* const step = child.tree.get_if<std::int64_t>();
      if (step == nullptr || *step < 0) return false;
      chosen.insert(static_cast<std::uint64_t>(*step));
    }
    std::string words;
    std::size_t shown = 0;
    for (const std::uint64_t step : chosen) {
      if (shown++ == kShown) break;
      words += fmt::format("{}{}", words.empty() ? "" : ", ", step);
    }
    if (chosen.size() > kShown) words += fmt::format(" and {} others", chosen.size() - kShown);
    words = (chosen.size() == 1 ? "step " : "the steps ") + words;
    add(std::move(words), std::make_shared<CustomSteps>(std::move(chosen)));
    return true;
  }

  bool add_latest_duration(const Tree& policy) {
    const std::optional<std::int64_t> duration_ns = number(policy, "duration_ns");
    if (!duration_ns) return false;
    add("what is not older than " + duration_words(*duration_ns),
        std::make_shared<LatestDuration>(std::chrono::nanoseconds(*duration_ns)));
    return true;
  }

  bool add_best(const Tree& policy) {
    std::optional<std::uint64_t> n;
    if (!read_count(policy, "n", n)) return false;
    if (!n) {
      add("all", std::make_shared<PreserveAll>());
      return true;
    }
    reads_metrics_ = true;
    const std::optional<std::string> path = text(policy, "metric");
    const bool reverse = flag(policy, "reverse", false);
    const std::string count = *n == 1 ? "the one" : fmt::format("the {}", *n);
    if (path) {
      add(fmt::format("{} with the {} {}", count, reverse ? "lowest" : "highest", printable(*path)),
          std::make_shared<RankedFirst>(*path, *n, reverse));
    } else {
      add(fmt::format("{} that the program's own metric ranks {}", count,
                      reverse ? "lowest" : "highest"),
          nullptr);
    }
    if (*n == 0) {
      // Not even those without metrics.
    } else if (flag(policy, "keep_checkpoints_without_metrics", true)) {
      add("those without the metric", std::make_shared<Unranked>(path));
    } else {
      add(fmt::format("those without the metric as long as there are no more than {}", *n),
          std::make_shared<Unranked>(path, n));
    }
    if (flag(policy, "keep_newest", true)) add("the newest", std::make_shared<Newest>());
    return true;
  }

  std::vector<NamedPolicy> rules_;
  bool reads_metrics_ = false;  // Others need not be parsed for thousands of steps.
};

// Differences of any two of them can be counted.
std::chrono::system_clock::time_point clamped_time(std::int64_t unix_ns) {
  constexpr std::int64_t kMax = std::int64_t{1} << 61;
  using TimePoint = std::chrono::system_clock::time_point;
  return TimePoint(std::chrono::duration_cast<TimePoint::duration>(
      std::chrono::nanoseconds(std::clamp(unix_ns, -kMax, kMax))));
}

}  // namespace

std::string to_text(const PreservationPolicy* policy) {
  try {
    Result<std::string> text =
        to_json(policy == nullptr ? PreserveAll().description() : policy->description());
    if (!text || text->size() > limits::kStoreMetadataSizeBytesMax) return kUnknownText;
    return *std::move(text);
  } catch (...) {
    return kUnknownText;  // The program's own function; what it keeps does not depend on this.
  }
}

PreservationReasons explain_preservation(std::string_view text, std::span<const StepRecord> steps) {
  PreservationReasons reasons;
  reasons.of_steps.resize(steps.size());
  if (text.empty()) return reasons;
  const Result<Tree> policy = from_json(text);
  if (!policy) return reasons;
  RuleReader reader;
  reader.read(*policy);
  const std::vector<NamedPolicy> rules = reader.take();

  std::vector<CheckpointInfo> infos;
  infos.reserve(steps.size());
  const StepRecord* last = nullptr;
  for (const StepRecord& record : steps) {
    CheckpointInfo info = {.step = record.save.step, .time = clamped_time(record.started_unix_ns)};
    if (reader.reads_metrics() && !record.metrics.empty()) {
      // What does not parse ranks as what is not there.
      if (Result<Tree> metrics = from_json(record.metrics)) info.metrics = *std::move(metrics);
    }
    infos.push_back(std::move(info));
    if (last == nullptr || record.sequence > last->sequence) last = &record;
  }
  PreservationContext context;
  if (last != nullptr) {
    context = {.now = clamped_time(last->committed_unix_ns), .saved_step = last->save.step};
  }
  for (std::size_t r = 0; r < rules.size(); ++r) {
    reasons.rules.push_back({rules[r].words, rules[r].policy != nullptr});
    if (rules[r].policy == nullptr) continue;
    const std::vector<bool> kept = rules[r].policy->should_preserve(infos, context);
    for (std::size_t i = 0; i < kept.size(); ++i) {
      if (kept[i]) reasons.of_steps[i].push_back(static_cast<std::uint32_t>(r));
    }
  }
  return reasons;
}

std::string in_words(std::span<const PreservationRule> rules) {
  std::string words;
  for (std::size_t i = 0; i < rules.size(); ++i) {
    if (i != 0) words += i + 1 == rules.size() ? " and " : ", ";
    words += rules[i].words;
  }
  return words;
}

}  // namespace stepstone
