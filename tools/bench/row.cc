#include "tools/bench/row.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "tools/output.h"

namespace stepstone::bench {
namespace {

// Three significant digits, but no fewer than the whole number: 0.00412, 3.14, 1490.
std::string number(double value) {
  if (value == 0 || !std::isfinite(value)) return fmt::format("{}", value);
  const int digits = static_cast<int>(std::floor(std::log10(std::fabs(value))));
  return fmt::format("{:.{}f}", value, std::clamp(2 - digits, 0, 9));
}

nlohmann::ordered_json optional_number(const std::optional<double>& value) {
  if (!value) return nullptr;
  return *value;
}

}  // namespace

double median(std::vector<double> samples) {
  if (samples.empty()) return 0;
  std::ranges::sort(samples);
  const std::size_t middle = samples.size() / 2;
  if (samples.size() % 2 == 1) return samples[middle];
  return (samples[middle - 1] + samples[middle]) / 2;
}

std::string to_text(const Machine& machine) {
  return fmt::format("stepstone {} on {}, {}, {} of memory, Linux {}\n{} in {}\n", machine.version,
                     machine.cpu,
                     tool::format_count(machine.processor_count, "processor", "processors"),
                     tool::format_size(machine.memory_bytes), machine.kernel, machine.file_system,
                     machine.directory);
}

std::string to_table(const std::vector<Row>& rows) {
  using Align = tool::Table::Align;
  tool::Table table({{.heading = "WORKLOAD"},
                     {.heading = "CODEC"},
                     {.heading = "METRIC"},
                     {.heading = "VALUE", .align = Align::kRight},
                     {.heading = "UNIT"},
                     {.heading = "LIMIT", .align = Align::kRight},
                     {.heading = "RATIO", .align = Align::kRight},
                     {.heading = "MS", .align = Align::kRight},
                     {.heading = "THE LIMIT IS"}});
  for (const Row& row : rows) {
    table.add_row({row.workload, row.codec, row.metric, number(row.value), row.unit,
                   row.limit ? number(*row.limit) : "",
                   row.ratio ? fmt::format("{:.2f}", *row.ratio) : "",
                   row.seconds ? number(*row.seconds * 1e3) : "", row.limit_name});
  }
  return table.to_string();
}

std::string to_json(const Machine& machine, const std::vector<Row>& rows) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Row& row : rows) {
    list.push_back({{"workload", row.workload},
                    {"codec", row.codec},
                    {"metric", row.metric},
                    {"value", row.value},
                    {"unit", row.unit},
                    {"limit", optional_number(row.limit)},
                    {"ratio", optional_number(row.ratio)},
                    {"samples", row.samples},
                    {"limit_name", row.limit_name},
                    {"seconds", optional_number(row.seconds)},
                    {"state_bytes", row.state_bytes},
                    {"leaf_count", row.leaf_count}});
  }
  const nlohmann::ordered_json answer = {{"machine",
                                          {{"cpu", machine.cpu},
                                           {"processor_count", machine.processor_count},
                                           {"memory_bytes", machine.memory_bytes},
                                           {"kernel", machine.kernel},
                                           {"file_system", machine.file_system},
                                           {"directory", machine.directory},
                                           {"version", machine.version}}},
                                         {"rows", std::move(list)}};
  return answer.dump(1) + "\n";
}

}  // namespace stepstone::bench
