// A step's leaves are looked up by item and path; each has the hash of its hashes as of the step
// that was taken before, so that a leaf that did not change from one measured step to the next is
// neither read nor counted twice.
#include "tools/report/report_leaves.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>

#include "format/leaf_path.h"
#include "tools/report/base64.h"

namespace stepstone::tool {
namespace {

// So much is read between two looks at whether to go on.
constexpr std::uint64_t kBatchBytes = std::uint64_t{256} << 20;

Hash128 content_of(const LeafRecord& record) {
  std::vector<std::uint64_t> words = {static_cast<std::uint64_t>(record.kind),
                                      record.dtype ? static_cast<std::uint64_t>(*record.dtype) : 0,
                                      record.shape.size()};
  words.insert(words.end(), record.shape.begin(), record.shape.end());
  for (const Hash128& hash : record.hashes) {
    words.push_back(hash.low);
    words.push_back(hash.high);
  }
  if (record.inline_bytes) {
    const Hash128 hash = hash128(*record.inline_bytes);
    words.push_back(hash.low);
    words.push_back(hash.high);
  }
  return hash128(std::as_bytes(std::span(words)));
}

double element_count(const LeafRecord& record) {
  double count = 1;
  if (!record.dtype) return count;
  for (const std::uint64_t extent : record.shape) count *= static_cast<double>(extent);
  return count;
}

// A norm beyond a float's range is shown as the largest there is.
float to_float(double value) {
  constexpr double kLargest = std::numeric_limits<float>::max();
  return static_cast<float>(std::min(value, kLargest));
}

}  // namespace

std::uint8_t flags_of(const LeafStatistics& statistics) {
  unsigned flags = kPresent | kMeasured;
  if (statistics.nan_count != 0) flags |= kHasNan;
  if (statistics.infinity_count() != 0) flags |= kHasInfinity;
  return static_cast<std::uint8_t>(flags);
}

void ReportLeaves::add_problem(std::string message) {
  constexpr std::size_t kKept = 100;
  ++problem_count_;
  if (problems_.size() < kKept) problems_.push_back({.message = std::move(message)});
}

std::uint32_t ReportLeaves::find_or_add(std::uint32_t item_number, std::uint32_t step_index,
                                        const StoredLeaf& stored) {
  std::string key = std::to_string(item_number) + ' ' + stored.encoded_path;
  const auto [found, is_new] =
      by_path_.try_emplace(std::move(key), static_cast<std::uint32_t>(leaves_.size()));
  if (!is_new) return found->second;
  const LeafRecord& record = stored.record;
  Leaf leaf{.item = item_number,
            .newest_step = step_index,
            .size_bytes = record.size_bytes,
            .encoded_path = stored.encoded_path,
            .content = {}};
  const std::string type(record.dtype ? to_string(*record.dtype) : to_string(record.kind));
  const auto known = std::find(types_.begin(), types_.end(), type);
  leaf.type = static_cast<std::uint32_t>(known - types_.begin());
  if (known == types_.end()) types_.push_back(type);
  const std::string shape = record.dtype ? stepstone::to_string(record.shape) : "";
  const auto [place, is_new_shape] =
      shape_numbers_.try_emplace(shape, static_cast<std::uint32_t>(shapes_.size()));
  leaf.shape = place->second;
  if (is_new_shape) {
    shapes_.push_back(shape);
    element_counts_.push_back(element_count(record));
  }
  leaves_.push_back(std::move(leaf));
  return found->second;
}

void ReportLeaves::begin_measured_step(std::uint32_t step_index) {
  measured_.push_back({.step_index = step_index, .cells = {}});
}

ReportLeaves::Cell& ReportLeaves::cell_of(std::uint32_t leaf) {
  std::vector<Cell>& cells = measured_.back().cells;
  if (cells.size() <= leaf) cells.resize(leaves_.size());
  return cells[leaf];
}

// Where the records cannot be read all together because one is damaged, each is read alone, so that
// one bad leaf hides no other.
Result<std::vector<StoredLeaf>> ReportLeaves::list(const StepReader& step, std::string_view item) {
  Result<std::vector<StoredLeaf>> together = step.read_leaves(item);
  if (together || together.error().code != ErrorCode::kCorrupt) return together;
  const ItemRecord record = STEPSTONE_TRY(step.read_item(item));
  std::vector<StoredLeaf> leaves;
  const auto leaf = [&](const std::string& encoded_path) -> Result<void> {
    Result<StoredLeaf> stored = step.read_leaf(item, encoded_path);
    if (stored) {
      leaves.push_back(*std::move(stored));
    } else if (stored.error().code == ErrorCode::kCorrupt) {
      add_problem(printable(stored.error().message));
    } else {
      return tl::unexpected<Error>(stored.error());
    }
    return {};
  };
  const auto enter = [](NodeKind, const PathComponent*, std::string_view,
                        std::uint32_t) -> Result<void> { return {}; };
  const auto leave = [](NodeKind) -> Result<void> { return {}; };
  STEPSTONE_TRY(visit(record.structure, {.enter = enter, .leaf = leaf, .leave = leave}));
  return leaves;
}

Result<void> ReportLeaves::add_item(const StepReader& step, std::uint32_t step_index,
                                    std::string_view item, std::uint32_t item_number,
                                    const Options& options) {
  const std::vector<StoredLeaf> stored = STEPSTONE_TRY(list(step, item));
  if (options.measure && measured_.size() * (leaves_.size() + stored.size()) > kReportCellsMax) {
    return fail(ErrorCode::kLimit,
                fmt::format("{} steps with {} leaves are more than a report holds: name fewer with "
                            "--steps, or one item with --item",
                            measured_.size(), stored.size()));
  }
  std::vector<const StoredLeaf*> to_read;
  std::vector<std::uint32_t> leaves_to_read;
  const auto visit_number = static_cast<std::uint32_t>(measured_.size());
  for (const StoredLeaf& leaf : stored) {
    const std::uint32_t index = find_or_add(item_number, step_index, leaf);
    if (!options.measure) continue;
    Leaf& known = leaves_[index];
    const Hash128 content = content_of(leaf.record);
    Cell& cell = cell_of(index);
    if (known.seen_in != 0 && known.content == content && (known.flags & kUnreadable) == 0) {
      // The newer step has what this one has.
      if (known.seen_in + 1 == visit_number) {
        measured_[visit_number - 2].cells[index].flags |= kUnchanged;
      }
      cell = {.norm = known.norm, .flags = known.flags, .row = known.row};
      done_bytes_ += leaf.record.size_bytes;
    } else {
      cell.flags = kPresent;
      known.row = kNoRow;
      to_read.push_back(&leaf);
      leaves_to_read.push_back(index);
    }
    known.content = content;
    known.seen_in = visit_number;
  }
  if (options.progress) options.progress(done_bytes_);
  return measure(step, item, to_read, leaves_to_read, options);
}

Result<void> ReportLeaves::measure(const StepReader& step, std::string_view item,
                                   const std::vector<const StoredLeaf*>& stored,
                                   const std::vector<std::uint32_t>& leaves,
                                   const Options& options) {
  for (std::size_t begin = 0; begin < stored.size();) {
    std::size_t end = begin;
    std::uint64_t batch_bytes = 0;
    while (end < stored.size() && (end == begin || batch_bytes < kBatchBytes)) {
      batch_bytes += stored[end++]->record.size_bytes;
    }
    if (options.was_interrupted()) return fail(ErrorCode::kIo, "interrupted");
    StatisticsOptions statistics_options;
    if (options.progress) {
      statistics_options.progress = [&](std::uint64_t done, std::uint64_t) {
        options.progress(done_bytes_ + done);
      };
    }
    const std::vector<LeafStatisticsResult> results =
        count_leaves(step, item, std::span(stored).subspan(begin, end - begin), statistics_options);
    for (std::size_t i = begin; i < end; ++i) {
      const LeafStatisticsResult& result = results[i - begin];
      Leaf& leaf = leaves_[leaves[i]];
      Cell& cell = cell_of(leaves[i]);
      if (!result) {
        if (result.error().code != ErrorCode::kCorrupt) {
          return tl::unexpected<Error>(result.error());
        }
        cell.flags |= kUnreadable;
        add_problem(printable(result.error().message));
      } else if (*result) {
        const LeafStatistics& statistics = **result;
        cell.flags |= flags_of(statistics);
        cell.norm = to_float(statistics.l2_norm);
        keep_figures(leaves[i], statistics);
        cell.row = leaf.row;
        STEPSTONE_TRY(keep_histogram(step, item, *stored[i], leaves[i]));
      }
      leaf.norm = cell.norm;
      leaf.flags = cell.flags;
    }
    done_bytes_ += batch_bytes;
    begin = end;
  }
  return {};
}

void ReportLeaves::keep_figures(std::uint32_t leaf, const LeafStatistics& statistics) {
  if (rows_.size() >= kReportFiguresMax) return;
  leaves_[leaf].row = static_cast<std::uint32_t>(rows_.size());
  rows_.push_back(statistics);
  histogram_of_row_.push_back(kNoRow);
}

Result<void> ReportLeaves::keep_histogram(const StepReader& step, std::string_view item,
                                          const StoredLeaf& stored, std::uint32_t leaf) {
  const std::uint32_t row = leaves_[leaf].row;
  if (row == kNoRow || histograms_.size() >= kReportHistogramsMax) return {};
  const LeafStatistics& statistics = rows_[row];
  if (statistics.finite_count() < 2) return {};
  // Of the newest step always.
  const bool is_newest = measured_.size() == 1;
  if (!is_newest && histogram_bytes_ + stored.record.size_bytes > kReportHistogramBytesMax) {
    return {};
  }
  if (!is_newest) histogram_bytes_ += stored.record.size_bytes;
  Result<Histogram> histogram =
      count_histogram(step, item, stored, statistics.minimum, statistics.maximum, kReportBinCount);
  if (!histogram) {
    if (histogram.error().code == ErrorCode::kIo) return tl::unexpected(histogram.error());
    return {};
  }
  histogram_of_row_[row] = static_cast<std::uint32_t>(histograms_.size());
  histograms_.push_back(*std::move(histogram));
  return {};
}

std::vector<std::uint32_t> ReportLeaves::in_order() const {
  std::vector<std::uint32_t> order(leaves_.size());
  for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    return std::tie(leaves_[a].item, leaves_[a].encoded_path) <
           std::tie(leaves_[b].item, leaves_[b].encoded_path);
  });
  return order;
}

// Paths come with the number of characters that they share with the one before, which are ASCII, so
// that they are as many for a script as they are bytes.
nlohmann::ordered_json ReportLeaves::leaves_json() const {
  std::vector<std::uint32_t> item;
  std::vector<std::uint32_t> shared;
  std::vector<std::uint32_t> shape;
  std::vector<std::uint32_t> newest_step;
  std::vector<std::uint8_t> type;
  std::vector<double> size_bytes;
  nlohmann::ordered_json suffixes = nlohmann::ordered_json::array();
  std::string before;
  for (const std::uint32_t i : in_order()) {
    const Leaf& leaf = leaves_[i];
    const std::string path = to_text(std::string_view(leaf.encoded_path));
    std::size_t common = 0;
    while (common < path.size() && common < before.size() && path[common] == before[common] &&
           static_cast<unsigned char>(path[common]) < 0x80) {
      ++common;
    }
    shared.push_back(static_cast<std::uint32_t>(common));
    suffixes.push_back(path.substr(common));
    before = path;
    item.push_back(leaf.item);
    type.push_back(static_cast<std::uint8_t>(leaf.type));
    shape.push_back(leaf.shape);
    newest_step.push_back(leaf.newest_step);
    size_bytes.push_back(static_cast<double>(leaf.size_bytes));
  }
  return {{"item", to_base64(item)},
          {"shared", to_base64(shared)},
          {"suffix", std::move(suffixes)},
          {"types", types_},
          {"type", to_base64(type)},
          {"shapes", shapes_},
          {"element_counts", element_counts_},
          {"shape", to_base64(shape)},
          {"size_bytes", to_base64(size_bytes)},
          {"newest_step", to_base64(newest_step)}};
}

nlohmann::ordered_json ReportLeaves::statistics_json() const {
  if (measured_.empty()) return nullptr;
  const std::vector<std::uint32_t> order = in_order();
  std::vector<std::uint32_t> steps;
  std::vector<float> norm;
  std::vector<std::uint8_t> flags;
  std::vector<std::uint32_t> cell_numbers;
  std::vector<std::uint32_t> rows;
  for (auto measured = measured_.rbegin(); measured != measured_.rend(); ++measured) {
    steps.push_back(measured->step_index);
    for (const std::uint32_t i : order) {
      const Cell cell = i < measured->cells.size() ? measured->cells[i] : Cell();
      if (cell.row != kNoRow) {
        cell_numbers.push_back(static_cast<std::uint32_t>(norm.size()));
        rows.push_back(cell.row);
      }
      norm.push_back(cell.norm);
      flags.push_back(cell.flags);
    }
  }
  nlohmann::ordered_json figures = {{"cell", to_base64(cell_numbers)}, {"row", to_base64(rows)}};
  const auto add_column = [&](const char* name, const auto& value_of) {
    std::vector<double> values;
    values.reserve(rows_.size());
    for (const LeafStatistics& row : rows_) values.push_back(static_cast<double>(value_of(row)));
    figures[name] = to_base64(values);
  };
  add_column("nan", [](const LeafStatistics& row) { return row.nan_count; });
  add_column("infinite", [](const LeafStatistics& row) { return row.infinity_count(); });
  add_column("zero", [](const LeafStatistics& row) { return row.zero_count; });
  add_column("min", [](const LeafStatistics& row) { return row.minimum; });
  add_column("max", [](const LeafStatistics& row) { return row.maximum; });
  add_column("mean", [](const LeafStatistics& row) { return row.mean; });
  add_column("std", [](const LeafStatistics& row) { return row.standard_deviation; });
  add_column("norm", [](const LeafStatistics& row) { return row.l2_norm; });
  figures["histogram"] = to_base64(histogram_of_row_);
  std::vector<double> low;
  std::vector<double> high;
  std::vector<double> counts;
  for (const Histogram& histogram : histograms_) {
    low.push_back(histogram.low);
    high.push_back(histogram.high);
    for (const std::uint64_t count : histogram.counts) counts.push_back(static_cast<double>(count));
  }
  return {{"steps", steps},
          {"norm", to_base64(norm)},
          {"flags", to_base64(flags)},
          {"figures", std::move(figures)},
          {"histograms",
           {{"bins", kReportBinCount},
            {"low", to_base64(low)},
            {"high", to_base64(high)},
            {"counts", to_base64(counts)}}}};
}

}  // namespace stepstone::tool
