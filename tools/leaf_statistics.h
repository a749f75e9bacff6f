#pragma once
// What numbers are in a leaf. The leaves are read once, in pieces of a few MiB that several threads
// share out among themselves, each checked against its hashes; the result is the same however many
// threads there are.

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/store.h"
#include "format/error.h"

namespace stepstone::tool {

// Of complex numbers the magnitudes count; true is 1. Minimum to norm are of the finite elements
// alone: NaN where there are none, but a norm of 0. Integers beyond 2^53 are rounded to doubles.
struct LeafStatistics {
  std::uint64_t count = 0;
  std::uint64_t nan_count = 0;
  std::uint64_t positive_infinity_count = 0;
  std::uint64_t negative_infinity_count = 0;
  std::uint64_t zero_count = 0;
  double minimum = std::numeric_limits<double>::quiet_NaN();
  double maximum = std::numeric_limits<double>::quiet_NaN();
  double mean = std::numeric_limits<double>::quiet_NaN();
  double standard_deviation = std::numeric_limits<double>::quiet_NaN();  // Of the population.
  double l2_norm = 0;

  std::uint64_t infinity_count() const { return positive_infinity_count + negative_infinity_count; }
  std::uint64_t finite_count() const { return count - nan_count - infinity_count(); }
  // 0 of no elements.
  double zero_fraction() const {
    return count == 0 ? 0 : static_cast<double>(zero_count) / static_cast<double>(count);
  }
};

// Bins of equal width from `low` to `high`, the last with `high` itself.
struct Histogram {
  double low = 0;
  double high = 0;
  std::vector<std::uint64_t> counts;
};

struct StatisticsOptions {
  unsigned thread_count = 0;  // 0: one for each processor.
  // Called now and then, from any thread but never twice at once.
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> progress;
};

// Of one leaf. nullopt: it holds no numbers (a string, none, bytes, an integer beyond int64).
// kCorrupt, kIo: it cannot be read; the others are counted nevertheless.
using LeafStatisticsResult = Result<std::optional<LeafStatistics>>;

// One result for each leaf, in their order. Memory: a few MiB for each thread, and some bytes for
// each MiB of the leaves.
std::vector<LeafStatisticsResult> count_leaves(const StepReader& step, std::string_view item,
                                               std::span<const StoredLeaf* const> leaves,
                                               const StatisticsOptions& options = {});

// How the finite elements of one leaf from `low` to `high` are spread, in `bin_count` bins; others
// are left out. kInvalidArgument: the leaf holds no numbers, no bins, or not low <= high, both
// finite. kCorrupt, kIo.
Result<Histogram> count_histogram(const StepReader& step, std::string_view item,
                                  const StoredLeaf& leaf, double low, double high,
                                  std::size_t bin_count, const StatisticsOptions& options = {});

}  // namespace stepstone::tool
