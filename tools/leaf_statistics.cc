// A piece is counted in blocks that fit the fastest cache: once for what kinds of numbers there are
// and their sum, once for the squared differences from the block's mean. Blocks and pieces are then
// joined by Chan's formulas, which lose nothing where the mean is large beside the differences. The
// norm follows from mean and differences, both of which add to it.
#include "tools/leaf_statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <mutex>

#include "engine/parallel.h"
#include "engine/progress.h"
#include "tools/element_values.h"
#include "tools/leaf_pieces.h"

namespace stepstone::tool {
namespace {

constexpr std::size_t kBlockSize = 2048;  // Doubles: 16 KiB.
// Sums that the processor can keep at once.
constexpr std::size_t kLaneCount = 8;
using Lanes = std::array<double, kLaneCount>;

// Of the finite elements. The wide type keeps squares of the largest and smallest doubles.
struct Moments {
  std::uint64_t count = 0;
  long double mean = 0;
  long double squares = 0;  // Of the differences from the mean.

  void join(const Moments& other) {
    if (other.count == 0) return;
    const auto own = static_cast<long double>(count);
    const auto others = static_cast<long double>(other.count);
    const long double difference = other.mean - mean;
    mean += difference * (others / (own + others));
    squares += other.squares + difference * difference * (own * others / (own + others));
    count += other.count;
  }
};

struct Counts {
  LeafStatistics statistics;  // Counts, minimum and maximum.
  Moments moments;

  void join(const Counts& other) {
    LeafStatistics& own = statistics;
    own.count += other.statistics.count;
    own.nan_count += other.statistics.nan_count;
    own.positive_infinity_count += other.statistics.positive_infinity_count;
    own.negative_infinity_count += other.statistics.negative_infinity_count;
    own.zero_count += other.statistics.zero_count;
    // fmin() and fmax() leave a NaN, which stands for no elements, aside.
    own.minimum = std::fmin(own.minimum, other.statistics.minimum);
    own.maximum = std::fmax(own.maximum, other.statistics.maximum);
    moments.join(other.moments);
  }

  LeafStatistics finish() const {
    LeafStatistics result = statistics;
    if (moments.count == 0) return result;
    const auto count = static_cast<long double>(moments.count);
    result.mean = static_cast<double>(moments.mean);
    result.standard_deviation = static_cast<double>(std::sqrt(moments.squares / count));
    result.l2_norm =
        static_cast<double>(std::sqrt(moments.squares + count * moments.mean * moments.mean));
    return result;
  }
};

double sum_of(const Lanes& lanes) {
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
         ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

// All of them finite. `magnitude` is the largest of theirs.
Moments moments_of(std::span<const double> values, double magnitude) {
  Moments moments{.count = values.size()};
  const auto count = static_cast<double>(values.size());
  // Squares of what lies between these, and sums of them, are doubles.
  constexpr double kLargest = 1e150;
  constexpr double kSmallest = 1e-140;
  if (magnitude == 0) return moments;
  if (magnitude > kLargest || magnitude < kSmallest) {
    for (const double value : values) moments.mean += static_cast<long double>(value);
    moments.mean /= static_cast<long double>(count);
    for (const double value : values) {
      const long double difference = static_cast<long double>(value) - moments.mean;
      moments.squares += difference * difference;
    }
    return moments;
  }
  const std::size_t even = values.size() / kLaneCount * kLaneCount;
  Lanes sums = {};
  for (std::size_t i = 0; i < even; i += kLaneCount) {
    for (std::size_t lane = 0; lane < kLaneCount; ++lane) sums[lane] += values[i + lane];
  }
  for (std::size_t i = even; i < values.size(); ++i) sums[0] += values[i];
  const double mean = sum_of(sums) / count;
  Lanes squares = {};
  // What rounding left of the mean.
  Lanes rests = {};
  for (std::size_t i = 0; i < even; i += kLaneCount) {
    for (std::size_t lane = 0; lane < kLaneCount; ++lane) {
      const double difference = values[i + lane] - mean;
      rests[lane] += difference;
      squares[lane] += difference * difference;
    }
  }
  for (std::size_t i = even; i < values.size(); ++i) {
    const double difference = values[i] - mean;
    rests[0] += difference;
    squares[0] += difference * difference;
  }
  const double rest = sum_of(rests) / count;
  moments.mean = static_cast<long double>(mean) + static_cast<long double>(rest);
  moments.squares = std::max(0.0, sum_of(squares) - rest * rest * count);
  return moments;
}

// Counts what is not finite, and moves the finite elements to the front.
std::span<double> take_out_what_is_not_finite(std::span<double> values,
                                              LeafStatistics& statistics) {
  std::size_t finite_count = 0;
  for (const double value : values) {
    if (std::isnan(value)) {
      ++statistics.nan_count;
    } else if (std::isinf(value)) {
      ++(value > 0 ? statistics.positive_infinity_count : statistics.negative_infinity_count);
    } else {
      values[finite_count++] = value;
    }
  }
  return values.first(finite_count);
}

// Uses up the values.
Counts count_block(std::span<double> values) {
  Counts counts;
  LeafStatistics& statistics = counts.statistics;
  statistics.count = values.size();
  const bool is_finite = std::all_of(values.begin(), values.end(), [](double value) {
    return std::fabs(value) <= std::numeric_limits<double>::max();
  });
  if (!is_finite) values = take_out_what_is_not_finite(values, statistics);
  if (values.empty()) return counts;
  double minimum = values.front();
  double maximum = values.front();
  std::uint64_t zero_count = 0;
  for (const double value : values) {
    minimum = value < minimum ? value : minimum;
    maximum = value > maximum ? value : maximum;
    zero_count += value == 0 ? 1 : 0;
  }
  statistics.minimum = minimum;
  statistics.maximum = maximum;
  statistics.zero_count = zero_count;
  counts.moments = moments_of(values, std::max(std::fabs(minimum), std::fabs(maximum)));
  return counts;
}

// Calls visit(values) for the elements that whole blocks of `bytes` hold; the padding behind packed
// elements aside.
template <typename Visit>
void for_each_block(const ElementValues& elements, std::span<const std::byte> bytes,
                    std::uint64_t element_count, Visit visit) {
  std::array<double, kBlockSize> block;
  for (std::uint64_t first = 0; first < element_count;) {
    const auto count =
        static_cast<std::size_t>(std::min<std::uint64_t>(kBlockSize, element_count - first));
    const std::span<double> values = std::span(block).first(count);
    elements.read(bytes, first, values);
    visit(values);
    first += count;
  }
}

// How many elements of the leaf a piece has.
Result<std::uint64_t> elements_in(const LeafRecord& record, DType dtype, const LeafPiece& piece) {
  const std::uint64_t bits = info(dtype).bits;
  const std::uint64_t all = STEPSTONE_TRY(element_count(record.shape));
  return std::min<std::uint64_t>(piece.size * std::uint64_t{8} / bits,
                                 all - piece.offset * 8 / bits);
}

// Tells of a progress if there is one to be told.
class ByteCounter {
 public:
  ByteCounter(std::span<const LeafPiece> pieces, const StatisticsOptions& options)
      : progress_(options.progress, total(pieces)) {}
  void add(const LeafPiece& piece) { progress_.add(piece.size); }

 private:
  static std::uint64_t total(std::span<const LeafPiece> pieces) {
    std::uint64_t size_bytes = 0;
    for (const LeafPiece& piece : pieces) size_bytes += piece.size;
    return size_bytes;
  }

  stepstone::Progress progress_;
};

}  // namespace

std::vector<LeafStatisticsResult> count_leaves(const StepReader& step, std::string_view item,
                                               std::span<const StoredLeaf* const> leaves,
                                               const StatisticsOptions& options) {
  std::vector<LeafStatisticsResult> results(leaves.size());
  std::map<DType, ElementValues> elements;
  std::vector<std::optional<DType>> dtypes;
  for (const StoredLeaf* const leaf : leaves) {
    dtypes.push_back(numeric_dtype(leaf->record));
    if (dtypes.back()) elements.try_emplace(*dtypes.back(), *dtypes.back());
  }
  std::vector<LeafPiece> pieces = pieces_of(leaves);
  std::erase_if(pieces, [&](const LeafPiece& piece) { return !dtypes[piece.leaf]; });
  std::vector<Counts> counts(pieces.size());
  ByteCounter counter(pieces, options);
  std::mutex mutex;
  const auto count_piece = [&](std::size_t i, std::span<const std::byte> bytes) -> Result<void> {
    const LeafPiece& piece = pieces[i];
    const DType dtype = *dtypes[piece.leaf];
    const std::uint64_t element_count =
        STEPSTONE_TRY(elements_in(leaves[piece.leaf]->record, dtype, piece));
    for_each_block(elements.at(dtype), bytes, element_count,
                   [&](std::span<double> values) { counts[i].join(count_block(values)); });
    counter.add(piece);
    return {};
  };
  std::vector<std::optional<Error>> errors(leaves.size());
  const auto note_error = [&](std::size_t i, Error error) -> Result<void> {
    const std::scoped_lock lock(mutex);
    std::optional<Error>& noted = errors[pieces[i].leaf];
    if (!noted) noted = std::move(error);
    counter.add(pieces[i]);
    return {};
  };
  const Result<void> read =
      read_pieces(step, item, leaves, pieces, options.thread_count, count_piece, note_error);
  std::vector<Counts> sums(leaves.size());
  // In the order of the pieces, whoever was ready first.
  for (std::size_t i = 0; i < pieces.size(); ++i) sums[pieces[i].leaf].join(counts[i]);
  for (std::size_t leaf = 0; leaf < leaves.size(); ++leaf) {
    if (!read) {
      results[leaf] = tl::unexpected<Error>(read.error());
    } else if (errors[leaf]) {
      results[leaf] = tl::unexpected<Error>(*std::move(errors[leaf]));
    } else if (dtypes[leaf]) {
      results[leaf] = sums[leaf].finish();
    }
  }
  return results;
}

Result<Histogram> count_histogram(const StepReader& step, std::string_view item,
                                  const StoredLeaf& leaf, double low, double high,
                                  std::size_t bin_count, const StatisticsOptions& options) {
  const std::optional<DType> dtype = numeric_dtype(leaf.record);
  if (!dtype) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("leaf '{}' holds no numbers", to_text(leaf.encoded_path)));
  }
  if (!std::isfinite(low) || !std::isfinite(high) || low > high || bin_count == 0) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("no histogram has {} bins from {} to {}", bin_count, low, high));
  }
  const ElementValues elements(*dtype);
  const StoredLeaf* const leaves[] = {&leaf};
  const std::vector<LeafPiece> pieces = pieces_of(leaves);
  ByteCounter counter(pieces, options);
  Histogram histogram{.low = low, .high = high, .counts = std::vector<std::uint64_t>(bin_count)};
  // Halves, so that the width of the widest range is a double.
  const double half_width = high / 2 - low / 2;
  const auto bin_of = [&](double value) {
    if (half_width == 0) return std::size_t{0};
    const double place = (value / 2 - low / 2) / half_width * static_cast<double>(bin_count);
    return std::min(static_cast<std::size_t>(place), bin_count - 1);
  };
  std::mutex mutex;
  const auto count_piece = [&](std::size_t i, std::span<const std::byte> bytes) -> Result<void> {
    const std::uint64_t element_count = STEPSTONE_TRY(elements_in(leaf.record, *dtype, pieces[i]));
    std::vector<std::uint64_t> counts(bin_count);
    for_each_block(elements, bytes, element_count, [&](std::span<const double> values) {
      for (const double value : values) {
        if (value >= low && value <= high) ++counts[bin_of(value)];
      }
    });
    const std::scoped_lock lock(mutex);
    for (std::size_t bin = 0; bin < bin_count; ++bin) histogram.counts[bin] += counts[bin];
    counter.add(pieces[i]);
    return {};
  };
  const auto give_error = [](std::size_t, Error error) -> Result<void> {
    return tl::unexpected<Error>(std::move(error));
  };
  STEPSTONE_TRY(
      read_pieces(step, item, leaves, pieces, options.thread_count, count_piece, give_error));
  return histogram;
}

}  // namespace stepstone::tool
