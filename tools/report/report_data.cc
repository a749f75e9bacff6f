#include "tools/report/report_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "api/preservation_text.h"
#include "format/leaf_path.h"
#include "tools/report/report_leaves.h"

namespace stepstone::tool {
namespace {

using nlohmann::ordered_json;

constexpr std::int64_t kNanosecondsPerMillisecond = 1'000'000;

// A metric as a page can draw it: numbers, and as a text what JSON has no number for.
void add_metrics(const nlohmann::json& value, const std::string& name, unsigned depth,
                 ordered_json& metrics) {
  constexpr std::size_t kCountMax = 64;
  constexpr unsigned kDepthMax = 8;
  if (metrics.size() >= kCountMax || depth > kDepthMax) return;
  if (value.is_number()) {
    metrics[name] = value.get<double>();
  } else if (value == "nan" || value == "inf" || value == "-inf") {
    metrics[name] = value.get<std::string>();
  } else if (value.is_object()) {
    for (const auto& [key, child] : value.items()) {
      add_metrics(child, name.empty() ? printable(key) : name + '/' + printable(key), depth + 1,
                  metrics);
    }
  }
}

ordered_json metrics_json(const std::string& text) {
  const nlohmann::json parsed = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) return nullptr;
  ordered_json metrics = ordered_json::object();
  add_metrics(parsed, "", 0, metrics);
  if (metrics.empty()) return nullptr;
  return metrics;
}

std::uint64_t leaf_count_of(const StepRecord& record) {
  std::uint64_t count = 0;
  for (const ItemSummary& item : record.items) count += item.leaf_count;
  return count;
}

ordered_json steps_json(const std::vector<StepRecord>& records, const StoreUsage* usage) {
  ordered_json steps = {{"step", ordered_json::array()},
                        {"committed_unix_ms", ordered_json::array()},
                        {"save_ms", ordered_json::array()},
                        {"size_bytes", ordered_json::array()},
                        {"leaf_count", ordered_json::array()},
                        {"metrics", ordered_json::array()},
                        {"uses_saves_of", ordered_json::array()},
                        {"stored_bytes", nullptr},
                        {"shared_bytes", nullptr}};
  for (const StepRecord& record : records) {
    steps["step"].push_back(std::to_string(record.save.step));
    steps["committed_unix_ms"].push_back(record.committed_unix_ns / kNanosecondsPerMillisecond);
    steps["save_ms"].push_back((record.committed_unix_ns - record.started_unix_ns) /
                               kNanosecondsPerMillisecond);
    steps["size_bytes"].push_back(record.size_bytes);
    steps["leaf_count"].push_back(leaf_count_of(record));
    steps["metrics"].push_back(metrics_json(record.metrics));
    std::set<std::uint64_t> origins;
    for (const SaveId& origin : record.origin_saves) {
      if (origin.step != record.save.step) origins.insert(origin.step);
    }
    ordered_json names = ordered_json::array();
    for (const std::uint64_t origin : origins) names.push_back(std::to_string(origin));
    steps["uses_saves_of"].push_back(std::move(names));
  }
  // Whatever was committed between the two looks at the store is in one of them only.
  if (usage != nullptr && usage->steps.size() == records.size()) {
    steps["stored_bytes"] = ordered_json::array();
    steps["shared_bytes"] = ordered_json::array();
    for (const StepUsage& step : usage->steps) {
      steps["stored_bytes"].push_back(step.stored_bytes);
      steps["shared_bytes"].push_back(step.shared_bytes);
    }
  }
  return steps;
}

// By which rules the trainer keeps steps, and which of them keep each of those that are there.
ordered_json kept_json(const std::string& policy, const std::vector<StepRecord>& records) {
  const PreservationReasons reasons = explain_preservation(policy, records);
  if (reasons.rules.empty()) return nullptr;
  ordered_json rules = ordered_json::array();
  for (const PreservationRule& rule : reasons.rules) {
    rules.push_back({{"words", rule.words}, {"is_known", rule.is_known}});
  }
  return {{"rules", std::move(rules)}, {"by", reasons.of_steps}};
}

// Indices of the steps to measure, descending; the newest is always among them if none are named.
Result<std::vector<std::uint32_t>> choose_steps(const std::vector<StepRecord>& records,
                                                const ReportOptions& options) {
  std::vector<std::uint32_t> chosen;
  if (!options.measure || records.empty()) return chosen;
  if (options.measured_steps) {
    for (const auto& [first, last] : *options.measured_steps) {
      const auto begin = std::lower_bound(
          records.begin(), records.end(), first,
          [](const StepRecord& record, std::uint64_t step) { return record.save.step < step; });
      if (first == last && (begin == records.end() || begin->save.step != first)) {
        return fail(ErrorCode::kNotFound,
                    fmt::format("there is no step {}; `stepstone ls` lists the steps", first));
      }
      for (auto found = begin; found != records.end() && found->save.step <= last; ++found) {
        chosen.push_back(static_cast<std::uint32_t>(found - records.begin()));
      }
    }
    std::sort(chosen.rbegin(), chosen.rend());
    chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
    return chosen;
  }
  constexpr std::size_t kStepsMax = 24;
  const auto leaf_count =
      static_cast<std::size_t>(std::max<std::uint64_t>(leaf_count_of(records.back()), 1));
  const std::size_t wanted = std::min(
      {std::clamp<std::size_t>(kReportCellsWanted / leaf_count, 2, kStepsMax), records.size()});
  for (std::size_t i = 0; i < wanted; ++i) {
    const std::size_t last = records.size() - 1;
    const std::size_t back = wanted == 1 ? 0 : i * last / (wanted - 1);
    chosen.push_back(static_cast<std::uint32_t>(last - back));
  }
  return chosen;
}

// The items of the report, by number.
class ReportItems {
 public:
  explicit ReportItems(std::optional<std::string> wanted) : wanted_(std::move(wanted)) {}

  bool wants(const std::string& name) const {
    return !wanted_ || *wanted_ == name || *wanted_ == printable(name);
  }
  std::uint32_t number_of(const ItemSummary& item) {
    const auto found = std::find(names_.begin(), names_.end(), item.name);
    if (found != names_.end()) return static_cast<std::uint32_t>(found - names_.begin());
    names_.push_back(item.name);
    json_.push_back({{"name", printable(item.name)}, {"handler", printable(item.handler)}});
    return static_cast<std::uint32_t>(names_.size() - 1);
  }
  const ordered_json& json() const { return json_; }

 private:
  std::optional<std::string> wanted_;
  std::vector<std::string> names_;
  ordered_json json_ = ordered_json::array();
};

// One step's leaves. Whatever is wrong with the step itself is a problem of the report.
Result<void> add_step(const Store& store, std::uint32_t index, const StepRecord& record,
                      const ReportLeaves::Options& options, ReportItems& items,
                      ReportLeaves& leaves) {
  const auto note = [&](const Error& error) -> Result<void> {
    if (error.code != ErrorCode::kCorrupt && error.code != ErrorCode::kNotFound) {
      return tl::unexpected<Error>(error);
    }
    leaves.add_problem(printable(error.message));
    return {};
  };
  const auto step = store.read_step(record.save.step);
  if (!step) return note(step.error());
  // A trainer may go on and let the step go while it is read.
  if (const Result<void> held = (*step)->hold_files(); !held) return note(held.error());
  if (options.measure) leaves.begin_measured_step(index);
  for (const ItemSummary& item : record.items) {
    if (!items.wants(item.name)) continue;
    const Result<void> added =
        leaves.add_item(**step, index, item.name, items.number_of(item), options);
    if (!added) STEPSTONE_TRY(note(added.error()));
  }
  return {};
}

std::int64_t now_unix_ms() {
  using std::chrono::milliseconds;
  return std::chrono::duration_cast<milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

ordered_json number_or_null(double value) {
  if (!std::isfinite(value)) return nullptr;
  return value;
}

}  // namespace

std::string revision_of(const Store& store) {
  std::vector<std::uint64_t> words;
  for (const SaveId& save : store.saves()) {
    words.push_back(save.step);
    words.push_back(save.generation);
  }
  return to_string(hash128(std::as_bytes(std::span(words))));
}

Result<ReportData> gather_report(const Store& store, const ReportOptions& options) {
  const std::string revision = revision_of(store);
  const std::string policy = store.preservation_policy();
  std::vector<StepRecord> records;
  for (const std::uint64_t step : store.steps()) {
    records.push_back(STEPSTONE_TRY(store.step_record(step)));
  }
  ReportItems items(options.item);
  const auto has_item = [&](const StepRecord& record) {
    return std::any_of(record.items.begin(), record.items.end(),
                       [&](const ItemSummary& item) { return items.wants(item.name); });
  };
  if (options.item && std::none_of(records.begin(), records.end(), has_item)) {
    return fail(ErrorCode::kNotFound, "no step has an item '" + printable(*options.item) + "'");
  }
  std::vector<std::uint32_t> chosen = STEPSTONE_TRY(choose_steps(records, options));

  ReportLeaves leaves;
  std::uint64_t total_bytes = 0;
  for (const std::uint32_t index : chosen) total_bytes += records[index].size_bytes;
  ReportLeaves::Options leaf_options;
  leaf_options.was_interrupted = options.was_interrupted;
  if (options.progress) {
    leaf_options.progress = [&](std::uint64_t done) { options.progress(done, total_bytes); };
  }
  // The newest step is listed even if it is not measured.
  if (!records.empty()) {
    const auto newest = static_cast<std::uint32_t>(records.size() - 1);
    if (chosen.empty() || chosen.front() != newest) {
      leaf_options.measure = false;
      STEPSTONE_TRY(add_step(store, newest, records[newest], leaf_options, items, leaves));
    }
  }
  leaf_options.measure = true;
  for (const std::uint32_t index : chosen) {
    if (options.was_interrupted()) return fail(ErrorCode::kIo, "interrupted");
    STEPSTONE_TRY(add_step(store, index, records[index], leaf_options, items, leaves));
  }

  const Result<StoreUsage> usage = store.usage();
  if (!usage) {
    if (usage.error().code != ErrorCode::kCorrupt && usage.error().code != ErrorCode::kNotFound) {
      return tl::unexpected<Error>(usage.error());
    }
    leaves.add_problem(printable(usage.error().message));
  }
  ordered_json usage_json = nullptr;
  if (usage) {
    usage_json = {{"stored_bytes", usage->stored_bytes},
                  {"hidden_bytes", usage->hidden_bytes},
                  {"reclaimable_bytes", usage->reclaimable_bytes}};
  }
  std::uint64_t commit_count = 0;
  for (const StepRecord& record : records) commit_count = std::max(commit_count, record.sequence);
  ordered_json problems = ordered_json::array();
  ReportData report;
  for (const ReportProblem& problem : leaves.problems()) {
    problems.push_back({{"message", problem.message}});
    report.problems.push_back(problem.message);
  }
  std::error_code ignored;
  const std::filesystem::path place = std::filesystem::weakly_canonical(store.directory(), ignored);
  const std::string name =
      place.has_filename() ? place.filename().native() : store.directory().native();
  const ordered_json data = {{"format", 1},
                             {"version", STEPSTONE_VERSION},
                             {"live", options.is_live},
                             {"revision", revision},
                             {"created_unix_ms", now_unix_ms()},
                             {"store",
                              {{"name", printable(name)},
                               {"commit_count", commit_count},
                               {"usage", std::move(usage_json)}}},
                             {"steps", steps_json(records, usage ? &*usage : nullptr)},
                             {"kept", kept_json(policy, records)},
                             {"items", items.json()},
                             {"leaves", leaves.leaves_json()},
                             {"statistics", leaves.statistics_json()},
                             {"problem_count", leaves.problem_count()},
                             {"problems", std::move(problems)}};
  report.json = data.dump(-1, ' ', /*ensure_ascii=*/true, ordered_json::error_handler_t::replace);
  report.step_count = records.size();
  report.measured_step_count = chosen.size();
  report.leaf_count = leaves.leaf_count();
  report.problem_count = leaves.problem_count();
  return report;
}

Result<std::string> leaf_figures_json(const Store& store, std::uint64_t step, std::string_view item,
                                      std::string_view leaf) {
  const auto reader = STEPSTONE_TRY(store.read_step(step));
  STEPSTONE_TRY(reader->hold_files());
  const LeafPath path = STEPSTONE_TRY(parse_path(leaf));
  const auto& items = reader->record().items;
  const auto found = std::find_if(items.begin(), items.end(), [&](const ItemSummary& summary) {
    return printable(summary.name) == item;
  });
  if (found == items.end()) return fail(ErrorCode::kNotFound, "there is no such item");
  const StoredLeaf stored =
      STEPSTONE_TRY(reader->read_leaf(found->name, STEPSTONE_TRY(encode_path(path))));
  const StoredLeaf* const leaves[] = {&stored};
  std::vector<LeafStatisticsResult> results = count_leaves(*reader, found->name, leaves);
  const std::optional<LeafStatistics> statistics = STEPSTONE_TRY(std::move(results.front()));
  if (!statistics) return ordered_json{{"flags", kPresent}}.dump();
  ordered_json figures = {{"flags", flags_of(*statistics)},
                          {"nan", statistics->nan_count},
                          {"infinite", statistics->infinity_count()},
                          {"zero", statistics->zero_count},
                          {"min", number_or_null(statistics->minimum)},
                          {"max", number_or_null(statistics->maximum)},
                          {"mean", number_or_null(statistics->mean)},
                          {"std", number_or_null(statistics->standard_deviation)},
                          {"norm", number_or_null(statistics->l2_norm)},
                          {"histogram", nullptr}};
  if (statistics->finite_count() >= 2) {
    const Histogram histogram = STEPSTONE_TRY(count_histogram(
        *reader, found->name, stored, statistics->minimum, statistics->maximum, kReportBinCount));
    figures["histogram"] = {
        {"low", histogram.low}, {"high", histogram.high}, {"counts", histogram.counts}};
  }
  return figures.dump();
}

}  // namespace stepstone::tool
