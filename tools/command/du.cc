#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"

namespace stepstone::tool {
namespace {

struct DuArguments {
  std::filesystem::path store;
};

Result<int> run_du(const DuArguments& arguments, Console& console) {
  const auto store = STEPSTONE_TRY(open_for_reading(arguments.store));
  const StoreUsage usage = STEPSTONE_TRY(store->usage());
  if (console.json) {
    nlohmann::ordered_json steps = nlohmann::ordered_json::array();
    for (const StepUsage& step : usage.steps) {
      steps.push_back({{"step", step.step},
                       {"size_bytes", step.size_bytes},
                       {"stored_bytes", step.stored_bytes},
                       {"shared_bytes", step.shared_bytes}});
    }
    const nlohmann::ordered_json answer = {{"store", printable(arguments.store.native())},
                                           {"stored_bytes", usage.stored_bytes},
                                           {"hidden_bytes", usage.hidden_bytes},
                                           {"reclaimable_bytes", usage.reclaimable_bytes},
                                           {"steps", std::move(steps)}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
    return kExitOk;
  }
  std::string text = "no steps\n";
  if (!usage.steps.empty()) {
    Table table({{.heading = "STEP", .align = Table::Align::kRight},
                 {.heading = "SIZE", .align = Table::Align::kRight},
                 {.heading = "STORED", .align = Table::Align::kRight},
                 {.heading = "SHARED", .align = Table::Align::kRight}});
    for (const StepUsage& step : usage.steps) {
      table.add_row({std::to_string(step.step), format_size(step.size_bytes),
                     format_size(step.stored_bytes), format_size(step.shared_bytes)});
    }
    text = table.to_string(console.color);
  }
  STEPSTONE_TRY(console.output.write(
      text + fmt::format("{} stored, {} of it for retired steps that others share with, {} "
                         "reclaimable\n",
                         format_size(usage.stored_bytes), format_size(usage.hidden_bytes),
                         format_size(usage.reclaimable_bytes))));
  return kExitOk;
}

}  // namespace

void add_du(CommandLine& line) {
  Verb verb(line, "du", "Tell how much room each step takes, alone and shared with others",
            "Examples:\n"
            "  stepstone du run\n"
            "  stepstone du run --json | jq .reclaimable_bytes    what no step needs any more");
  const auto arguments = std::make_shared<DuArguments>();
  verb.add_store(arguments->store);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_du(*arguments, console); });
}

}  // namespace stepstone::tool
