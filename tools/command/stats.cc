// What numbers stand in the leaves of a step, or of one leaf after another over all steps. A leaf
// with the same hashes as in the step before is not read again.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"
#include "tools/leaf_selection.h"
#include "tools/leaf_statistics.h"

namespace stepstone::tool {
namespace {

struct StatsArguments {
  std::filesystem::path store;
  std::optional<std::uint64_t> step;
  std::vector<std::string> over_steps;  // Patterns; empty: of one step.
  std::optional<std::string> item;
  LeafPatterns patterns;
  std::uint64_t bin_count = 0;  // 0: no histograms.
  unsigned thread_count = 0;
};

struct CountedLeaf {
  ItemLeaf leaf;
  LeafStatisticsResult statistics;
  std::optional<Histogram> histogram;
};

// What the leaf's bytes depend on.
bool have_same_bytes(const LeafRecord& a, const LeafRecord& b) {
  return a.kind == b.kind && a.dtype == b.dtype && a.shape == b.shape &&
         a.chunk_size_bytes == b.chunk_size_bytes && a.hashes == b.hashes;
}

// By encoded path.
using CountedBefore = std::map<std::string, CountedLeaf>;

Result<std::vector<CountedLeaf>> count_step(const StepReader& step, const std::string& item,
                                            const LeafSelection& selection, unsigned thread_count,
                                            const CountedBefore& before = {}) {
  std::vector<ItemLeaf> leaves = STEPSTONE_TRY(list_leaves(step, item, selection));
  std::vector<const StoredLeaf*> stored;
  std::vector<const CountedLeaf*> known(leaves.size());
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const auto found = before.find(leaves[i].stored.encoded_path);
    const bool is_known =
        found != before.end() && found->second.statistics.has_value() &&
        have_same_bytes(found->second.leaf.stored.record, leaves[i].stored.record);
    known[i] = is_known ? &found->second : nullptr;
    if (!is_known) stored.push_back(&leaves[i].stored);
  }
  Progress progress("stats");
  const std::vector<LeafStatisticsResult> results =
      count_leaves(step, item, stored,
                   {.thread_count = thread_count,
                    .progress = [&](std::uint64_t done_bytes, std::uint64_t total_bytes) {
                      progress.update(done_bytes, total_bytes);
                    }});
  std::vector<CountedLeaf> counted;
  std::size_t next = 0;
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    counted.push_back({.leaf = std::move(leaves[i]),
                       .statistics = known[i] != nullptr ? known[i]->statistics : results[next++]});
  }
  return counted;
}

// JSON has no number for what is not finite.
nlohmann::ordered_json number_json(double number) {
  if (std::isfinite(number)) return number;
  return nullptr;
}

nlohmann::ordered_json leaf_head_json(const ItemLeaf& leaf) {
  const LeafRecord& record = leaf.stored.record;
  nlohmann::ordered_json json = {{"path", leaf.text},
                                 {"kind", to_string(record.kind)},
                                 {"dtype", nullptr},
                                 {"shape", record.shape}};
  if (record.dtype) json["dtype"] = to_string(*record.dtype);
  return json;
}

void append_json(const LeafStatisticsResult& result, nlohmann::ordered_json& json) {
  if (!result) {
    json["damage"] = printable(result.error().message);
    return;
  }
  if (!*result) return;
  const LeafStatistics& statistics = **result;
  json["count"] = statistics.count;
  json["nan_count"] = statistics.nan_count;
  json["positive_infinity_count"] = statistics.positive_infinity_count;
  json["negative_infinity_count"] = statistics.negative_infinity_count;
  json["zero_count"] = statistics.zero_count;
  json["min"] = number_json(statistics.minimum);
  json["max"] = number_json(statistics.maximum);
  json["mean"] = number_json(statistics.mean);
  json["std"] = number_json(statistics.standard_deviation);
  json["l2_norm"] = number_json(statistics.l2_norm);
}

std::vector<Table::Column> columns(std::vector<std::string> leading) {
  std::vector<Table::Column> result;
  for (std::string& heading : leading) {
    const auto align = heading == "STEP" ? Table::Align::kRight : Table::Align::kLeft;
    result.push_back({.heading = std::move(heading), .align = align});
  }
  for (const char* heading : {"COUNT", "NAN", "INF", "ZERO", "MIN", "MAX", "MEAN", "STD", "NORM"}) {
    result.push_back({.heading = heading, .align = Table::Align::kRight});
  }
  return result;
}

void append_cells(const LeafStatisticsResult& result, std::vector<Table::Cell>& row) {
  constexpr std::size_t kCellCount = 9;
  if (!result || !*result) {
    row.insert(row.end(), kCellCount, result ? "" : "?");
    return;
  }
  const LeafStatistics& statistics = **result;
  const auto alarming = [](std::uint64_t count) {
    return Table::Cell(std::to_string(count), count == 0 ? Tone::kDim : Tone::kBad);
  };
  row.emplace_back(std::to_string(statistics.count));
  row.push_back(alarming(statistics.nan_count));
  row.push_back(alarming(statistics.infinity_count()));
  row.emplace_back(fmt::format("{:.1f}%", 100 * statistics.zero_fraction()));
  for (const double number : {statistics.minimum, statistics.maximum, statistics.mean,
                              statistics.standard_deviation, statistics.l2_norm}) {
    row.emplace_back(format_number(number));
  }
}

std::string type_text(const LeafRecord& record) {
  std::string text(type_name(record));
  if (record.dtype) text += " " + to_string(record.shape);
  return text;
}

// A bin per line: from where, how many, and a bar beside the fullest bin's.
std::string histogram_text(const CountedLeaf& counted) {
  const Histogram& histogram = *counted.histogram;
  std::uint64_t most = 1;
  for (const std::uint64_t count : histogram.counts) most = std::max(most, count);
  Table table({{.heading = "FROM", .align = Table::Align::kRight},
               {.heading = "COUNT", .align = Table::Align::kRight},
               {.heading = counted.leaf.text}});
  const auto bin_count = static_cast<double>(histogram.counts.size());
  for (std::size_t bin = 0; bin < histogram.counts.size(); ++bin) {
    const double fraction = static_cast<double>(bin) / bin_count;
    const std::uint64_t count = histogram.counts[bin];
    constexpr double kBarWidth = 40;
    const double width =
        std::ceil(kBarWidth * static_cast<double>(count) / static_cast<double>(most));
    table.add_row({format_number(histogram.low * (1 - fraction) + histogram.high * fraction),
                   std::to_string(count), std::string(static_cast<std::size_t>(width), '#')});
  }
  return "\n" + table.to_string();
}

Result<void> add_histograms(const StepReader& step, const std::string& item,
                            const StatsArguments& arguments, std::vector<CountedLeaf>& leaves) {
  for (CountedLeaf& counted : leaves) {
    if (!counted.statistics || !*counted.statistics) continue;
    const LeafStatistics& statistics = **counted.statistics;
    if (statistics.finite_count() == 0) continue;
    counted.histogram = STEPSTONE_TRY(count_histogram(
        step, item, counted.leaf.stored, statistics.minimum, statistics.maximum,
        static_cast<std::size_t>(arguments.bin_count), {.thread_count = arguments.thread_count}));
  }
  return {};
}

std::size_t damaged_count(const std::vector<CountedLeaf>& leaves) {
  return static_cast<std::size_t>(
      std::count_if(leaves.begin(), leaves.end(),
                    [](const CountedLeaf& leaf) { return !leaf.statistics.has_value(); }));
}

Result<int> run_for_one_step(const StatsArguments& arguments, const LeafSelection& selection,
                             const Store& store, Console& console) {
  const std::optional<std::uint64_t> number = arguments.step ? arguments.step : store.latest_step();
  if (!number) {
    return fail(ErrorCode::kNotFound, printable(arguments.store.native()) + " has no steps");
  }
  const auto step = STEPSTONE_TRY(store.read_step(*number));
  const std::string item = STEPSTONE_TRY(choose_item(step->record(), arguments.item));
  std::vector<CountedLeaf> leaves =
      STEPSTONE_TRY(count_step(*step, item, selection, arguments.thread_count));
  if (leaves.empty() && !selection.selects_all()) {
    return fail(ErrorCode::kNotFound, fmt::format("step {} item '{}' has no leaf that is selected",
                                                  *number, printable(item)));
  }
  if (arguments.bin_count != 0) STEPSTONE_TRY(add_histograms(*step, item, arguments, leaves));
  const std::size_t damages = damaged_count(leaves);
  if (console.json) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const CountedLeaf& counted : leaves) {
      nlohmann::ordered_json leaf = leaf_head_json(counted.leaf);
      append_json(counted.statistics, leaf);
      if (counted.histogram) {
        leaf["histogram"] = {{"low", counted.histogram->low},
                             {"high", counted.histogram->high},
                             {"counts", counted.histogram->counts}};
      }
      list.push_back(std::move(leaf));
    }
    const nlohmann::ordered_json answer = {{"store", printable(arguments.store.native())},
                                           {"step", *number},
                                           {"item", printable(item)},
                                           {"damaged_count", damages},
                                           {"leaves", std::move(list)}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
  } else {
    Table table(columns({"PATH", "TYPE"}));
    std::string histograms;
    for (const CountedLeaf& counted : leaves) {
      std::vector<Table::Cell> row = {counted.leaf.text.empty() ? "\"\"" : counted.leaf.text};
      if (counted.statistics) {
        row.emplace_back(type_text(counted.leaf.stored.record), Tone::kDim);
      } else {
        row.emplace_back("DAMAGED", Tone::kBad);
      }
      append_cells(counted.statistics, row);
      table.add_row(std::move(row));
      if (counted.histogram) histograms += histogram_text(counted);
    }
    STEPSTONE_TRY(console.output.write(table.to_string(console.color) + histograms));
  }
  return damages == 0 ? kExitOk : kExitFailed;
}

// One leaf over the steps that have it.
struct History {
  std::string path;
  std::vector<std::pair<std::uint64_t, LeafStatisticsResult>> steps;

  template <typename Test>
  std::optional<std::uint64_t> first(Test test) const {
    for (const auto& [step, result] : steps) {
      if (result && *result && test(**result)) return step;
    }
    return std::nullopt;
  }
  std::optional<std::uint64_t> first_nan() const {
    return first([](const LeafStatistics& statistics) { return statistics.nan_count != 0; });
  }
  std::optional<std::uint64_t> first_infinity() const {
    return first([](const LeafStatistics& statistics) { return statistics.infinity_count() != 0; });
  }
};

struct Histories {
  std::vector<History> leaves;  // In the order in which they were met.
  std::map<std::string, std::size_t> by_path;
  std::size_t damaged_count = 0;

  void add(std::uint64_t step, const CountedLeaf& counted) {
    const auto [place, is_new] =
        by_path.try_emplace(counted.leaf.stored.encoded_path, leaves.size());
    if (is_new) leaves.push_back({.path = counted.leaf.text, .steps = {}});
    leaves[place->second].steps.emplace_back(step, counted.statistics);
    if (!counted.statistics) ++damaged_count;
  }
};

Result<Histories> count_over_steps(const StatsArguments& arguments, const LeafSelection& selection,
                                   const Store& store) {
  Histories histories;
  CountedBefore before;
  for (const std::uint64_t number : store.steps()) {
    const Result<std::shared_ptr<const StepReader>> step = store.read_step(number);
    // Retired meanwhile.
    if (!step && step.error().code == ErrorCode::kNotFound) continue;
    if (!step) return tl::unexpected<Error>(step.error());
    const auto item = choose_item((*step)->record(), arguments.item);
    // Not every step need have the item.
    if (!item && item.error().code == ErrorCode::kNotFound) continue;
    if (!item) return tl::unexpected<Error>(item.error());
    CountedBefore counted_now;
    for (CountedLeaf& counted :
         STEPSTONE_TRY(count_step(**step, *item, selection, arguments.thread_count, before))) {
      histories.add(number, counted);
      std::string path = counted.leaf.stored.encoded_path;
      counted_now.emplace(std::move(path), std::move(counted));
    }
    before = std::move(counted_now);
  }
  if (histories.leaves.empty()) {
    return fail(ErrorCode::kNotFound, "no step has a leaf that is selected");
  }
  return histories;
}

nlohmann::ordered_json to_json(const std::optional<std::uint64_t>& step) {
  if (step) return *step;
  return nullptr;
}

Result<int> run_over_steps(const StatsArguments& arguments, const LeafSelection& selection,
                           const Store& store, Console& console) {
  const Histories histories = STEPSTONE_TRY(count_over_steps(arguments, selection, store));
  if (console.json) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const History& history : histories.leaves) {
      nlohmann::ordered_json steps = nlohmann::ordered_json::array();
      for (const auto& [step, result] : history.steps) {
        nlohmann::ordered_json json = {{"step", step}};
        append_json(result, json);
        steps.push_back(std::move(json));
      }
      list.push_back({{"path", history.path},
                      {"first_nan_step", to_json(history.first_nan())},
                      {"first_infinity_step", to_json(history.first_infinity())},
                      {"steps", std::move(steps)}});
    }
    const nlohmann::ordered_json answer = {{"store", printable(arguments.store.native())},
                                           {"damaged_count", histories.damaged_count},
                                           {"leaves", std::move(list)}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
    return histories.damaged_count == 0 ? kExitOk : kExitFailed;
  }
  Table table(columns({"PATH", "STEP"}));
  std::string findings;
  for (const History& history : histories.leaves) {
    const std::string path = history.path.empty() ? "\"\"" : history.path;
    for (const auto& [step, result] : history.steps) {
      std::vector<Table::Cell> row = {path, std::to_string(step)};
      append_cells(result, row);
      table.add_row(std::move(row));
    }
    const auto tell = [&](const char* what, const std::optional<std::uint64_t>& step) {
      if (!step) return;
      const std::string words = fmt::format("{}: first {} at step {}", path, what, *step);
      findings += painted(words, Tone::kBad, console.color) + "\n";
    };
    tell("NaN", history.first_nan());
    tell("infinity", history.first_infinity());
  }
  if (histories.damaged_count != 0) {
    findings += fmt::format("{} damaged: `stepstone verify` tells more\n", histories.damaged_count);
  } else if (findings.empty()) {
    findings = "no NaN or infinity\n";
  }
  STEPSTONE_TRY(console.output.write(table.to_string(console.color) + findings));
  return histories.damaged_count == 0 ? kExitOk : kExitFailed;
}

Result<int> run_stats(const StatsArguments& arguments, Console& console) {
  LeafPatterns patterns = arguments.patterns;
  patterns.include.insert(patterns.include.end(), arguments.over_steps.begin(),
                          arguments.over_steps.end());
  const LeafSelection selection = STEPSTONE_TRY(LeafSelection::compile(patterns));
  if (arguments.step && !arguments.over_steps.empty()) {
    return fail(ErrorCode::kInvalidArgument, "--over-steps goes through all steps: name none");
  }
  const auto store = STEPSTONE_TRY(open_for_reading(arguments.store));
  return arguments.over_steps.empty() ? run_for_one_step(arguments, selection, *store, console)
                                      : run_over_steps(arguments, selection, *store, console);
}

}  // namespace

void add_stats(CommandLine& line) {
  Verb verb(
      line, "stats", "Tell what numbers are in the leaves: min, max, mean, NaN, zeros, ...",
      "MIN to NORM are of the finite numbers; STD is that of the population, NORM the L2 norm; "
      "complex\n"
      "numbers count by their magnitude. Memory stays at some MiB, whatever the leaves' size.\n\n"
      "Examples:\n"
      "  stepstone stats run                                   of the newest step\n"
      "  stepstone stats run 100 --leaves 'params/*' --histogram 20\n"
      "  stepstone stats run --over-steps 'params/*'           where did a NaN first appear");
  const auto arguments = std::make_shared<StatsArguments>();
  verb.add_store(arguments->store);
  verb.add_step({.names = "STEP", .description = "The step's number; without it: the newest"},
                arguments->step);
  verb.add_texts({.names = "--over-steps",
                  .description = "These leaves in every step, and where a NaN or an infinity first "
                                 "appeared; may be given several times",
                  .type_name = "PATTERN"},
                 [arguments](const std::string& text) {
                   arguments->over_steps.push_back(text);
                   return std::string();
                 });
  verb.add_item(arguments->item);
  verb.add_leaves(arguments->patterns);
  verb.add_number({.names = "--histogram",
                   .description = "Also how the numbers are spread, in so many bins; reads twice",
                   .type_name = "BINS"},
                  arguments->bin_count, 1, 10'000);
  verb.add_number(
      {.names = "--threads", .description = "0: one for each processor", .type_name = "N"},
      arguments->thread_count, 0);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_stats(*arguments, console); });
}

}  // namespace stepstone::tool
