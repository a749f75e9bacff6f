#pragma once
// How the numbers of two leaves differ. Only chunks whose hashes differ are read, in pieces of a
// few MiB that several threads share out among themselves.

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/store.h"
#include "format/error.h"

namespace stepstone::tool {

struct LeafDifference {
  std::uint64_t element_count = 0;
  // Whose bytes differ or, between two dtypes, whose values do.
  std::uint64_t changed_count = 0;
  // Of these, where a NaN or an infinity stands in one of the two and not in the other: they have
  // no difference, and do not count below.
  std::uint64_t incomparable_count = 0;
  // Of |a - b|; between integers it is exact until it becomes a double. The mean is over all
  // elements that can be compared, 0 of none.
  double max_difference = 0;
  double mean_difference = 0;
};

// What holds a leaf.
struct ItemOfStep {
  const StepReader* step = nullptr;
  std::string_view item;
};

struct LeafPair {
  const StoredLeaf* a = nullptr;
  const StoredLeaf* b = nullptr;
};

// Whether two leaves can be compared element by element: numbers of the same shape, both real or
// both complex; or two leaves of one kind that are no numbers, which count as one element that has
// changed or not.
bool are_comparable(const LeafRecord& a, const LeafRecord& b);

struct DifferenceOptions {
  unsigned thread_count = 0;  // 0: one for each processor.
  // Called now and then, from any thread but never twice at once.
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> progress;
};

struct LeafDifferences {
  std::vector<Result<LeafDifference>> of_pairs;  // In the order of the pairs.
  std::uint64_t read_bytes = 0;                  // Of the leaves, on both sides.
};

// Compares pairs, all of them are_comparable(). kCorrupt, kIo of a pair: one of the two cannot be
// read; the others are compared nevertheless.
LeafDifferences compare_leaves(const ItemOfStep& a, const ItemOfStep& b,
                               std::span<const LeafPair> pairs,
                               const DifferenceOptions& options = {});

}  // namespace stepstone::tool
