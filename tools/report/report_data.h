#pragma once
// What a report knows about a store, as JSON; tools/README.md describes it.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/store.h"
#include "format/error.h"

namespace stepstone::tool {

// Steps by their numbers, from the first to the last of each pair.
using StepRanges = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

struct ReportOptions {
  std::optional<std::string> item;  // Its name or that as printable() shows it; nullopt: all items.
  bool measure = true;              // Read the leaves and say what is in them.
  // Which steps to measure: nullopt: the newest and others spread evenly, few enough for the page
  // to stay small. The page lists all steps in any case.
  std::optional<StepRanges> measured_steps;
  bool is_live = false;  // For a page with a server behind it.
  // Called now and then, never twice at once.
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> progress;
  std::function<bool()> was_interrupted = [] { return false; };
};

struct ReportData {
  std::string json;
  std::size_t step_count = 0;
  std::size_t measured_step_count = 0;
  std::size_t leaf_count = 0;
  std::vector<std::string> problems;  // What could not be read, at most some.
  std::size_t problem_count = 0;
};

// Reads what is needed; damage and steps that another process removed meanwhile are problems, not
// errors. Memory: the page's data, the leaf records of one step and a few MiB for each thread.
// kNotFound: no step has the item, or a step named alone is not there. kLimit: more leaves in steps
// than a page holds. kIo: also if interrupted.
Result<ReportData> gather_report(const Store& store, const ReportOptions& options);

// Changes whenever the steps that are visible do.
std::string revision_of(const Store& store);

// The figures of one leaf in one step, for a page with a server behind it. kNotFound, kCorrupt,
// kIo.
Result<std::string> leaf_figures_json(const Store& store, std::uint64_t step, std::string_view item,
                                      std::string_view leaf);

}  // namespace stepstone::tool
