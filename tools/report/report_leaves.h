#pragma once
// The leaves that a report lists, and what was measured of them over the steps: tables of numbers,
// as small as they can be, since there may be 100,000 leaves.

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/store.h"
#include "format/error.h"
#include "format/hash.h"
#include "tools/leaf_statistics.h"

namespace stepstone::tool {

inline constexpr std::size_t kReportBinCount = 32;
// Bounds of what a report holds: full figures for so many leaves in steps, and histograms for so
// many, which take a second pass over the bytes; the newest step comes first.
inline constexpr std::size_t kReportFiguresMax = 120'000;
inline constexpr std::size_t kReportHistogramsMax = 4096;
inline constexpr std::uint64_t kReportHistogramBytesMax = std::uint64_t{1} << 30;
// Norms: so many leaves in steps, unless the steps were named.
inline constexpr std::size_t kReportCellsWanted = 1'000'000;
inline constexpr std::size_t kReportCellsMax = 16'000'000;

// What is known of a leaf in a step, as bits that the page knows too.
enum ReportFlag : std::uint8_t {
  kPresent = 1,
  kMeasured = 2,
  kHasNan = 4,
  kHasInfinity = 8,
  kUnchanged = 16,  // Since the measured step before.
  kUnreadable = 32,
};
std::uint8_t flags_of(const LeafStatistics& statistics);

// Something that could not be read.
struct ReportProblem {
  std::string message;
};

// Takes the steps from the newest to the oldest. What a leaf holds is read only where its hashes
// are not those of the step that was taken before.
class ReportLeaves {
 public:
  struct Options {
    bool measure = true;
    // Called now and then with the bytes that are done, whether they had to be read or not.
    std::function<void(std::uint64_t done_bytes)> progress;
    std::function<bool()> was_interrupted = [] { return false; };
  };

  // Adds the leaves of the item named `item`, which is number `item_number` of the report, of step
  // number `step_index`. kCorrupt, kNotFound: the item cannot be read; nothing was added. A leaf
  // that cannot be read is a problem, not an error. kIo: also if interrupted. kLimit: more leaves
  // in steps than a report can hold.
  Result<void> add_item(const StepReader& step, std::uint32_t step_index, std::string_view item,
                        std::uint32_t item_number, const Options& options);
  // Says that a step is among the measured, before its items are added.
  void begin_measured_step(std::uint32_t step_index);

  std::size_t leaf_count() const { return leaves_.size(); }
  const std::vector<ReportProblem>& problems() const { return problems_; }
  std::size_t problem_count() const { return problem_count_; }
  void add_problem(std::string message);

  nlohmann::ordered_json leaves_json() const;
  // Null unless a step was measured.
  nlohmann::ordered_json statistics_json() const;

 private:
  static constexpr std::uint32_t kNoRow = 0xFFFFFFFF;

  struct Leaf {
    std::uint32_t item = 0;
    std::uint32_t newest_step = 0;
    std::uint32_t type = 0;
    std::uint32_t shape = 0;
    std::uint64_t size_bytes = 0;
    std::string encoded_path;
    // As of the step taken before, for those that follow.
    Hash128 content;
    std::uint32_t seen_in = 0;  // A measured step, counted from 1; 0: none yet.
    float norm = 0;
    std::uint8_t flags = 0;
    std::uint32_t row = kNoRow;
  };
  // A leaf in a measured step.
  struct Cell {
    float norm = 0;
    std::uint8_t flags = 0;
    std::uint32_t row = kNoRow;  // Its figures.
  };
  struct MeasuredStep {
    std::uint32_t step_index = 0;
    std::vector<Cell> cells;  // By leaf, as far as any was added.
  };

  Result<std::vector<StoredLeaf>> list(const StepReader& step, std::string_view item);
  std::uint32_t find_or_add(std::uint32_t item_number, std::uint32_t step_index,
                            const StoredLeaf& stored);
  Cell& cell_of(std::uint32_t leaf);
  Result<void> measure(const StepReader& step, std::string_view item,
                       const std::vector<const StoredLeaf*>& stored,
                       const std::vector<std::uint32_t>& leaves, const Options& options);
  void keep_figures(std::uint32_t leaf, const LeafStatistics& statistics);
  Result<void> keep_histogram(const StepReader& step, std::string_view item,
                              const StoredLeaf& stored, std::uint32_t leaf);
  std::vector<std::uint32_t> in_order() const;

  std::vector<Leaf> leaves_;  // In the order in which they were found.
  std::unordered_map<std::string, std::uint32_t> by_path_;
  std::vector<std::string> types_;
  std::unordered_map<std::string, std::uint32_t> shape_numbers_;
  std::vector<std::string> shapes_;
  std::vector<double> element_counts_;
  std::vector<MeasuredStep> measured_;  // Newest first.
  std::uint64_t done_bytes_ = 0;

  std::vector<LeafStatistics> rows_;
  std::vector<std::uint32_t> histogram_of_row_;
  std::vector<Histogram> histograms_;
  std::uint64_t histogram_bytes_ = 0;

  std::vector<ReportProblem> problems_;
  std::size_t problem_count_ = 0;
};

}  // namespace stepstone::tool
