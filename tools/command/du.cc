#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"
#include "tools/leaf_selection.h"

namespace stepstone::tool {
namespace {

struct DuArguments {
  std::filesystem::path store;
  LeafPatterns patterns;
};

// What the selected leaves of a step take, as their records tell.
struct LeafUsage {
  StepUsage bytes;
  std::uint64_t leaf_count = 0;
};

void add_leaf(const LeafRecord& record, LeafUsage& usage) {
  ++usage.leaf_count;
  usage.bytes.size_bytes += record.size_bytes;
  if (record.inline_bytes) {
    usage.bytes.stored_bytes += record.inline_bytes->size();
    return;
  }
  for (std::uint32_t chunk = 0; chunk < record.chunk_count(); ++chunk) {
    const bool is_shared = record.origin_of(chunk) != nullptr;
    (is_shared ? usage.bytes.shared_bytes : usage.bytes.stored_bytes) +=
        record.stored_size_at(chunk);
  }
}

// The steps in which a leaf is selected.
Result<std::vector<LeafUsage>> usage_of_leaves(const Store& store, const LeafSelection& selection) {
  std::vector<LeafUsage> usages;
  for (const std::uint64_t number : store.steps()) {
    const auto step = STEPSTONE_TRY(store.read_step(number));
    LeafUsage usage{.bytes = {.step = number}};
    for (const ItemSummary& item : step->record().items) {
      for (const ItemLeaf& leaf : STEPSTONE_TRY(list_leaves(*step, item.name, selection))) {
        add_leaf(leaf.stored.record, usage);
      }
    }
    if (usage.leaf_count != 0) usages.push_back(usage);
  }
  if (usages.empty()) return fail(ErrorCode::kNotFound, "no step has a leaf that is selected");
  return usages;
}

Result<int> run_du_of_leaves(const DuArguments& arguments, const LeafSelection& selection,
                             Console& console) {
  const auto store = STEPSTONE_TRY(open_for_reading(arguments.store));
  const std::vector<LeafUsage> usages = STEPSTONE_TRY(usage_of_leaves(*store, selection));
  if (console.json) {
    nlohmann::ordered_json steps = nlohmann::ordered_json::array();
    for (const LeafUsage& usage : usages) {
      steps.push_back({{"step", usage.bytes.step},
                       {"leaf_count", usage.leaf_count},
                       {"size_bytes", usage.bytes.size_bytes},
                       {"stored_bytes", usage.bytes.stored_bytes},
                       {"shared_bytes", usage.bytes.shared_bytes}});
    }
    const nlohmann::ordered_json answer = {{"store", printable(arguments.store.native())},
                                           {"steps", std::move(steps)}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
    return kExitOk;
  }
  Table table({{.heading = "STEP", .align = Table::Align::kRight},
               {.heading = "LEAVES", .align = Table::Align::kRight},
               {.heading = "SIZE", .align = Table::Align::kRight},
               {.heading = "STORED", .align = Table::Align::kRight},
               {.heading = "SHARED", .align = Table::Align::kRight}});
  std::uint64_t stored_bytes = 0;
  for (const LeafUsage& usage : usages) {
    table.add_row({std::to_string(usage.bytes.step), std::to_string(usage.leaf_count),
                   format_size(usage.bytes.size_bytes), format_size(usage.bytes.stored_bytes),
                   format_size(usage.bytes.shared_bytes)});
    stored_bytes += usage.bytes.stored_bytes;
  }
  STEPSTONE_TRY(console.output.write(
      table.to_string(console.color) +
      fmt::format("{} stored for the selected leaves\n", format_size(stored_bytes))));
  return kExitOk;
}

Result<int> run_du(const DuArguments& arguments, Console& console) {
  const LeafSelection selection = STEPSTONE_TRY(LeafSelection::compile(arguments.patterns));
  if (!selection.selects_all()) return run_du_of_leaves(arguments, selection, console);
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
            "With chosen leaves, what these take in the store, as their records tell.\n\n"
            "Examples:\n"
            "  stepstone du run\n"
            "  stepstone du run --leaves params                   the weights alone\n"
            "  stepstone du run --json | jq .reclaimable_bytes    what no step needs any more");
  const auto arguments = std::make_shared<DuArguments>();
  verb.add_store(arguments->store);
  verb.add_leaves(arguments->patterns);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_du(*arguments, console); });
}

}  // namespace stepstone::tool
