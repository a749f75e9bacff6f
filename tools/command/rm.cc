#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tools/command/command.h"

namespace stepstone::tool {

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

}  // namespace stepstone::tool
