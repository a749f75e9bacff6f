#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"

namespace stepstone::tool {
namespace {

struct RmArguments {
  std::filesystem::path store;
  std::vector<std::uint64_t> steps;
};

Result<int> run_rm(const RmArguments& arguments, Console& console) {
  std::vector<std::uint64_t> steps = arguments.steps;
  std::sort(steps.begin(), steps.end());
  steps.erase(std::unique(steps.begin(), steps.end()), steps.end());

  const auto store = STEPSTONE_TRY(Store::open(arguments.store, {}));
  STEPSTONE_TRY(store->retire(steps));
  // The space is free when the command returns, not some time later.
  store->wait_for_collector();
  const std::size_t remaining = store->steps().size();
  STEPSTONE_TRY(store->close());

  if (console.json) {
    const nlohmann::ordered_json answer = {{"store", printable(arguments.store.native())},
                                           {"removed", steps},
                                           {"remaining_step_count", remaining}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
    return kExitOk;
  }
  STEPSTONE_TRY(console.output.write(fmt::format("removed {}; {} left\n",
                                                 format_count(steps.size(), "step", "steps"),
                                                 format_count(remaining, "step", "steps"))));
  return kExitOk;
}

}  // namespace

void add_rm(CommandLine& line) {
  Verb verb(line, "rm", "Remove steps",
            "All of them go in one instant, or none if one is not there. This cannot be undone.\n\n"
            "Examples:\n"
            "  stepstone rm run 100\n"
            "  stepstone rm run 100 200 300");
  const auto arguments = std::make_shared<RmArguments>();
  verb.add_store(arguments->store);
  verb.add_steps({.names = "STEP", .description = "The steps' numbers", .is_required = true},
                 arguments->steps);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_rm(*arguments, console); });
}

}  // namespace stepstone::tool
