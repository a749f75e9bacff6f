#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"

namespace stepstone::tool {
namespace {

struct RecompressArguments {
  std::filesystem::path store;
  std::vector<std::uint64_t> steps;  // Empty: all.
};

struct Outcome {
  std::uint64_t step = 0;
  RecompressCounters counters;
};

nlohmann::ordered_json to_json(const Outcome& outcome) {
  return {{"step", outcome.step},
          {"replaced", outcome.counters.was_replaced},
          {"bytes_before", outcome.counters.bytes_before},
          {"bytes_after", outcome.counters.bytes_after}};
}

std::string to_line(const Outcome& outcome) {
  if (!outcome.counters.was_replaced) return fmt::format("step {}: left as it is\n", outcome.step);
  return fmt::format("step {}: {} became {}\n", outcome.step,
                     format_size(outcome.counters.bytes_before),
                     format_size(outcome.counters.bytes_after));
}

Result<int> run_recompress(const RecompressArguments& arguments, Console& console) {
  const auto store = STEPSTONE_TRY(Store::open(arguments.store, {}));
  std::vector<std::uint64_t> steps = arguments.steps.empty() ? store->steps() : arguments.steps;
  std::sort(steps.begin(), steps.end());
  steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
  // Nothing is done if one is not there.
  for (const std::uint64_t step : steps) STEPSTONE_TRY(store->step_record(step));
  std::vector<Outcome> outcomes;
  outcomes.reserve(steps.size());
  for (const std::uint64_t step : steps) {
    outcomes.push_back({step, STEPSTONE_TRY(store->recompress(step))});
    if (!console.json) STEPSTONE_TRY(console.output.write(to_line(outcomes.back())));
  }
  // The space is free when the command returns, not some time later.
  store->wait_for_collector();
  STEPSTONE_TRY(store->close());
  if (console.json) {
    nlohmann::ordered_json answer = {{"store", printable(arguments.store.native())},
                                     {"steps", nlohmann::ordered_json::array()}};
    for (const Outcome& outcome : outcomes) answer["steps"].push_back(to_json(outcome));
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
  } else if (outcomes.empty()) {
    STEPSTONE_TRY(console.output.write("no steps\n"));
  }
  return kExitOk;
}

}  // namespace

void add_recompress(CommandLine& line) {
  Verb verb(line, "recompress", "Encode steps that were saved without compression",
            "Each step is saved again in fewer bytes and takes its own place in one instant; what "
            "is read from\n"
            "it stays the same. One that would not become smaller is left alone. From the oldest "
            "to the newest:\n"
            "a later step that shares chunks with one of these refers to the encoded ones.\n\n"
            "Examples:\n"
            "  stepstone recompress run            all steps\n"
            "  stepstone recompress run 100 200");
  const auto arguments = std::make_shared<RecompressArguments>();
  verb.add_store(arguments->store);
  verb.add_steps({.names = "STEP", .description = "The steps' numbers; without any: all"},
                 arguments->steps);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_recompress(*arguments, console); });
}

}  // namespace stepstone::tool
