#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"

namespace stepstone::tool {
namespace {

struct GcArguments {
  std::filesystem::path store;
};

Result<int> run_gc(const GcArguments& arguments, Console& console) {
  // What was there before the store is opened for writing, which begins to collect.
  const auto usage = [&](bool read_only) -> Result<StoreUsage> {
    const auto store = STEPSTONE_TRY(Store::open(arguments.store, {.read_only = read_only}));
    if (!read_only && store->is_read_only()) {
      return fail(ErrorCode::kReadOnly, printable(arguments.store.native()) +
                                            " is a portable file: nothing in it can be freed");
    }
    if (!read_only) store->wait_for_collector();
    StoreUsage result = STEPSTONE_TRY(store->usage());
    STEPSTONE_TRY(store->close());
    return result;
  };
  const StoreUsage before = STEPSTONE_TRY(usage(/*read_only=*/true));
  const StoreUsage after = STEPSTONE_TRY(usage(/*read_only=*/false));
  const std::uint64_t freed_bytes =
      before.stored_bytes - std::min(before.stored_bytes, after.stored_bytes);
  if (console.json) {
    const nlohmann::ordered_json answer = {{"store", printable(arguments.store.native())},
                                           {"stored_bytes_before", before.stored_bytes},
                                           {"stored_bytes", after.stored_bytes},
                                           {"freed_bytes", freed_bytes},
                                           {"hidden_bytes", after.hidden_bytes},
                                           {"reclaimable_bytes", after.reclaimable_bytes}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
    return kExitOk;
  }
  STEPSTONE_TRY(console.output.write(fmt::format(
      "freed {}; {} stored, {} of it for retired steps that others share with, {} reclaimable\n",
      format_size(freed_bytes), format_size(after.stored_bytes), format_size(after.hidden_bytes),
      format_size(after.reclaimable_bytes))));
  return kExitOk;
}

}  // namespace

void add_gc(CommandLine& line) {
  Verb verb(line, "gc", "Free the space of retired steps now",
            "A store that is open for writing does so by itself, in the background; a trainer that "
            "was killed\n"
            "may have left some. What stays reclaimable is not worth rewriting a file for.\n\n"
            "Examples:\n"
            "  stepstone gc run");
  const auto arguments = std::make_shared<GcArguments>();
  verb.add_store(arguments->store);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_gc(*arguments, console); });
}

}  // namespace stepstone::tool
