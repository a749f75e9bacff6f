#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "api/preservation_text.h"
#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"

namespace stepstone::tool {
namespace {

struct LsArguments {
  std::filesystem::path store;
};

std::uint64_t leaf_count(const StepRecord& record) {
  std::uint64_t count = 0;
  for (const ItemSummary& item : record.items) count += item.leaf_count;
  return count;
}

// The first few names: a step may have a thousand.
std::string item_names(const StepRecord& record) {
  constexpr std::size_t kShown = 3;
  std::string names;
  for (std::size_t i = 0; i < record.items.size() && i < kShown; ++i) {
    names += (i == 0 ? "" : ", ") + printable(record.items[i].name);
  }
  if (record.items.size() > kShown) {
    names += fmt::format(" and {} more", record.items.size() - kShown);
  }
  return names;
}

nlohmann::ordered_json to_json(const StepRecord& record, const PreservationReasons& reasons,
                               const std::vector<std::uint32_t>& kept_by) {
  nlohmann::ordered_json rules = nlohmann::ordered_json::array();
  for (const std::uint32_t rule : kept_by) rules.push_back(reasons.rules[rule].words);

  nlohmann::ordered_json items = nlohmann::ordered_json::array();
  for (const ItemSummary& item : record.items) {
    items.push_back({{"name", printable(item.name)},
                     {"handler", printable(item.handler)},
                     {"leaf_count", item.leaf_count},
                     {"size_bytes", item.size_bytes}});
  }
  return {{"step", record.save.step},         {"committed_unix_ns", record.committed_unix_ns},
          {"leaf_count", leaf_count(record)}, {"size_bytes", record.size_bytes},
          {"items", std::move(items)},        {"metrics", text_or_null(record.metrics)},
          {"kept_by", std::move(rules)}};
}

Result<int> run_ls(const LsArguments& arguments, Console& console) {
  const auto store = STEPSTONE_TRY(open_for_reading(arguments.store));
  std::vector<StepRecord> records;
  for (const std::uint64_t step : store->steps()) {
    records.push_back(STEPSTONE_TRY(store->step_record(step)));
  }
  const PreservationReasons reasons = explain_preservation(store->preservation_policy(), records);
  if (console.json) {
    nlohmann::ordered_json rules = nlohmann::ordered_json::array();
    for (const PreservationRule& rule : reasons.rules) {
      rules.push_back({{"words", rule.words}, {"is_known", rule.is_known}});
    }
    const nlohmann::ordered_json answer = {{"store", printable(arguments.store.native())},
                                           {"rules", std::move(rules)},
                                           {"steps", nlohmann::ordered_json::array()}};
    // The steps, of which there may be many, one by one into the array.
    std::string text = answer.dump();
    text.resize(text.size() - 2);
    for (std::size_t i = 0; i < records.size(); ++i) {
      if (i != 0) text += ',';
      text += to_json(records[i], reasons, reasons.of_steps[i]).dump();
    }
    STEPSTONE_TRY(console.output.write(text + "]}\n"));
    return kExitOk;
  }
  if (records.empty()) {
    STEPSTONE_TRY(console.output.write("no steps\n"));
    return kExitOk;
  }
  const bool has_metrics = std::ranges::any_of(
      records, [](const StepRecord& record) { return !record.metrics.empty(); });
  std::vector<Table::Column> columns = {{.heading = "STEP", .align = Table::Align::kRight},
                                        {.heading = "COMMITTED (UTC)"},
                                        {.heading = "LEAVES", .align = Table::Align::kRight},
                                        {.heading = "SIZE", .align = Table::Align::kRight},
                                        {.heading = "ITEMS"}};
  if (has_metrics) columns.push_back({.heading = "METRICS"});
  Table table(std::move(columns));
  std::uint64_t size_bytes = 0;
  for (const StepRecord& record : records) {
    std::vector<Table::Cell> row = {
        std::to_string(record.save.step), format_time(record.committed_unix_ns),
        std::to_string(leaf_count(record)), format_size(record.size_bytes), item_names(record)};
    if (has_metrics) row.push_back(metrics_in_line(record));
    table.add_row(std::move(row));
    size_bytes += record.size_bytes;
  }
  const std::string rules = in_words(reasons.rules);
  STEPSTONE_TRY(console.output.write(
      table.to_string(console.color) +
      fmt::format("{}, {}{}\n", format_count(records.size(), "step", "steps"),
                  format_size(size_bytes), rules.empty() ? "" : "; kept: " + rules)));
  return kExitOk;
}

}  // namespace

void add_ls(CommandLine& line) {
  Verb verb(line, "ls", "List the steps of a store",
            "Examples:\n"
            "  stepstone ls run\n"
            "  stepstone ls run --json | jq '.steps[-1].step'    the newest step");
  const auto arguments = std::make_shared<LsArguments>();
  verb.add_store(arguments->store);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_ls(*arguments, console); });
}

}  // namespace stepstone::tool
