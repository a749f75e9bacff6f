// Removes all steps but those that a rule keeps. The rules are the api's preservation policies, so
// that the command and a manager decide alike.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "api/best_n.h"
#include "api/json.h"
#include "api/preservation_policies.h"
#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"

namespace stepstone::tool {
namespace {

struct KeepArguments {
  std::filesystem::path store;
  // 0, empty: no such rule.
  std::uint64_t last = 0;
  std::uint64_t every = 0;
  std::vector<std::uint64_t> steps;
  std::string metric;
  std::uint64_t best_count = 1;
  bool lowest = false;
  bool highest = false;
  bool dry_run = false;
};

struct Rule {
  std::string name;
  std::shared_ptr<const PreservationPolicy> policy;
};

struct Verdict {
  std::uint64_t step = 0;
  std::vector<std::string> reasons;  // To keep it; empty: it goes.
};

std::vector<Rule> rules_of(const KeepArguments& arguments) {
  std::vector<Rule> rules;
  if (arguments.last != 0) {
    rules.push_back(
        {fmt::format("last {}", arguments.last), std::make_shared<LatestN>(arguments.last)});
  }
  if (arguments.every != 0) {
    rules.push_back(
        {fmt::format("every {}", arguments.every), std::make_shared<EveryNSteps>(arguments.every)});
  }
  if (!arguments.steps.empty()) {
    rules.push_back({"named", std::make_shared<CustomSteps>(std::set<std::uint64_t>(
                                  arguments.steps.begin(), arguments.steps.end()))});
  }
  if (!arguments.metric.empty()) {
    rules.push_back({"best " + printable(arguments.metric),
                     std::make_shared<BestN>(metric(arguments.metric),
                                             BestNOptions{.reverse = arguments.lowest,
                                                          .n = arguments.best_count,
                                                          .keep_checkpoints_without_metrics = false,
                                                          .keep_newest = false})});
  }
  return rules;
}

Result<std::vector<CheckpointInfo>> checkpoints_of(const Store& store,
                                                   const std::string& metric_path) {
  std::vector<CheckpointInfo> checkpoints;
  bool has_metric = metric_path.empty();
  for (const std::uint64_t step : store.steps()) {
    const StepRecord record = STEPSTONE_TRY(store.step_record(step));
    CheckpointInfo checkpoint{.step = step};
    if (!record.metrics.empty() && !metric_path.empty()) {
      checkpoint.metrics = STEPSTONE_TRY_CONTEXT(from_json(record.metrics),
                                                 fmt::format("step {}: its metrics", step));
      has_metric = has_metric || metric(metric_path)(*checkpoint.metrics).has_value();
    }
    checkpoints.push_back(std::move(checkpoint));
  }
  if (!has_metric && !checkpoints.empty()) {
    return fail(ErrorCode::kNotFound, fmt::format("no step has a metric '{}': nothing was removed",
                                                  printable(metric_path)));
  }
  return checkpoints;
}

std::vector<Verdict> judge(const std::vector<CheckpointInfo>& checkpoints,
                           const std::vector<Rule>& rules) {
  std::vector<Verdict> verdicts;
  verdicts.reserve(checkpoints.size());
  for (const CheckpointInfo& checkpoint : checkpoints) {
    verdicts.push_back({.step = checkpoint.step, .reasons = {}});
  }
  for (const Rule& rule : rules) {
    const std::vector<bool> kept = rule.policy->should_preserve(checkpoints, {});
    for (std::size_t i = 0; i < verdicts.size(); ++i) {
      if (kept[i]) verdicts[i].reasons.push_back(rule.name);
    }
  }
  // A run that goes on must find where it was.
  if (!verdicts.empty() && verdicts.back().reasons.empty()) {
    verdicts.back().reasons.emplace_back("newest");
  }
  return verdicts;
}

Result<void> check_named_steps(const Store& store, const std::vector<std::uint64_t>& steps) {
  // A step that is not there may be a slip, which would cost the one that was meant.
  for (const std::uint64_t step : steps) STEPSTONE_TRY(store.step_record(step));
  return {};
}

Result<int> run_keep(const KeepArguments& arguments, Console& console) {
  const std::vector<Rule> rules = rules_of(arguments);
  if (rules.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "no rule says what to keep: give --last, --every, --steps or --best");
  }
  if (!arguments.metric.empty() && !arguments.lowest && !arguments.highest) {
    return fail(ErrorCode::kInvalidArgument,
                "--best needs --lowest or --highest: which values of the metric are good");
  }
  const auto store = STEPSTONE_TRY(Store::open(arguments.store, {.read_only = arguments.dry_run}));
  STEPSTONE_TRY(check_named_steps(*store, arguments.steps));
  const std::vector<Verdict> verdicts =
      judge(STEPSTONE_TRY(checkpoints_of(*store, arguments.metric)), rules);
  std::vector<std::uint64_t> removed;
  for (const Verdict& verdict : verdicts) {
    if (verdict.reasons.empty()) removed.push_back(verdict.step);
  }
  if (!arguments.dry_run && !removed.empty()) {
    STEPSTONE_TRY(store->retire(removed));
    // The space is free when the command returns, not some time later.
    store->wait_for_collector();
  }
  STEPSTONE_TRY(store->close());

  const std::size_t kept_count = verdicts.size() - removed.size();
  if (console.json) {
    nlohmann::ordered_json kept = nlohmann::ordered_json::array();
    for (const Verdict& verdict : verdicts) {
      if (!verdict.reasons.empty()) {
        kept.push_back({{"step", verdict.step}, {"reasons", verdict.reasons}});
      }
    }
    const nlohmann::ordered_json answer = {
        {"store", printable(arguments.store.native())},
        {"dry_run", arguments.dry_run},
        {"kept", std::move(kept)},
        {"removed", removed},
        {"remaining_step_count", arguments.dry_run ? verdicts.size() : kept_count}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
    return kExitOk;
  }
  std::string text;
  if (arguments.dry_run && !verdicts.empty()) {
    Table table({{.heading = "STEP", .align = Table::Align::kRight}, {.heading = "KEPT FOR"}});
    for (const Verdict& verdict : verdicts) {
      if (verdict.reasons.empty()) {
        table.add_row({std::to_string(verdict.step), {"would be removed", Tone::kBad}});
      } else {
        table.add_row({std::to_string(verdict.step),
                       {fmt::format("{}", fmt::join(verdict.reasons, ", ")), Tone::kGood}});
      }
    }
    text = table.to_string(console.color);
  }
  text += fmt::format("{} {}; {} left\n", arguments.dry_run ? "would remove" : "removed",
                      format_count(removed.size(), "step", "steps"),
                      format_count(kept_count, "step", "steps"));
  STEPSTONE_TRY(console.output.write(text));
  return kExitOk;
}

}  // namespace

void add_keep(CommandLine& line) {
  Verb verb(line, "keep", "Remove all steps but those that a rule keeps",
            "A step stays if any rule keeps it, and the newest stays whatever the rules say. The "
            "others go in\n"
            "one instant. This cannot be undone: --dry-run tells what would happen.\n\n"
            "Examples:\n"
            "  stepstone keep run --last 5 --every 1000 --dry-run\n"
            "  stepstone keep run --best loss --lowest --best-count 3\n"
            "  stepstone keep run --steps 100,200");
  const auto arguments = std::make_shared<KeepArguments>();
  verb.add_store(arguments->store);
  verb.add_number({.names = "--last", .description = "Keep the highest N steps", .type_name = "N"},
                  arguments->last, 1);
  verb.add_number(
      {.names = "--every", .description = "Keep the steps that N divides", .type_name = "N"},
      arguments->every, 1);
  verb.add_step_lists(
      {.names = "--steps",
       .description = "Keep these steps, which must be there; may be given several times",
       .type_name = "STEP,..."},
      arguments->steps);
  verb.add_text({.names = "--best",
                 .description = "Keep the best by the number at this path of the metrics; steps "
                                "without it are not among them",
                 .type_name = "METRIC"},
                arguments->metric);
  verb.add_number({.names = "--best-count",
                   .description = "With --best: so many",
                   .type_name = "N",
                   .default_text = "1"},
                  arguments->best_count, 1);
  verb.add_flag("--lowest", "With --best: low values are good", arguments->lowest);
  verb.add_flag("--highest", "With --best: high values are good", arguments->highest);
  verb.choose_one("Direction", {"--lowest", "--highest"}, /*is_required=*/false);
  verb.add_flag("-n,--dry-run", "Remove nothing, tell what would be removed", arguments->dry_run);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_keep(*arguments, console); });
}

}  // namespace stepstone::tool
