#pragma once
// What a benchmark found: rows of figures, each beside the limit that was measured in the same run.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace stepstone::bench {

// Half of the samples are below it; 0 without samples.
double median(std::vector<double> samples);

// Times of the thing that nothing can beat, taken in turns with those of the thing measured.
struct Limit {
  std::string name;
  std::vector<double> samples;  // Seconds, or whatever the row's unit is.
};

struct Row {
  std::string workload;
  std::string codec;
  std::string metric;
  double value = 0;  // The median of the samples.
  std::string unit;
  std::optional<double> limit;  // The limit's median, in the same unit.
  std::optional<double> ratio;  // value / limit: 1 is the limit; of rates, more is better.
  std::vector<double> samples;
  std::string limit_name;
  std::optional<double> seconds;  // Of a rate: the median time it was computed from.
  std::uint64_t state_bytes = 0;  // How large the state was that the figure is about.
  std::uint64_t leaf_count = 0;
};

// Where the figures were taken.
struct Machine {
  std::string cpu;
  unsigned processor_count = 0;
  std::uint64_t memory_bytes = 0;
  std::string kernel;
  std::string file_system;  // Type and device of the directory the stores were in.
  std::string directory;
  std::string version;  // Of this program.
};

std::string to_text(const Machine& machine);

// One line per row under a heading.
std::string to_table(const std::vector<Row>& rows);

// {"machine": {...}, "rows": [...]}; tools/README.md lists the fields.
std::string to_json(const Machine& machine, const std::vector<Row>& rows);

}  // namespace stepstone::bench
