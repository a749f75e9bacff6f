#include "tools/leaf_difference.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <optional>

#include "engine/parallel.h"
#include "engine/progress.h"
#include "tools/element_values.h"
#include "tools/leaf_pieces.h"

namespace stepstone::tool {
namespace {

// What was found in some of a leaf's elements.
struct PieceDifference {
  std::uint64_t changed_count = 0;
  std::uint64_t incomparable_count = 0;
  double max = 0;
  double sum = 0;

  void add(double difference, bool is_changed) {
    changed_count += is_changed ? 1 : 0;
    if (std::isfinite(difference)) {
      max = std::max(max, difference);
      sum += difference;
    } else {
      ++incomparable_count;
    }
  }

  void join(const PieceDifference& other) {
    changed_count += other.changed_count;
    incomparable_count += other.incomparable_count;
    max = std::max(max, other.max);
    sum += other.sum;
  }
};

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// |a - b|; infinite where one of them alone is not finite, or both are not and differ.
double difference_of(double a, double b) {
  if (std::isnan(a) && std::isnan(b)) return 0;
  if (a == b) return 0;
  if (!std::isfinite(a) || !std::isfinite(b)) return kInfinity;
  // Two doubles may be farther apart than a double can say.
  return std::min(std::fabs(a - b), std::numeric_limits<double>::max());
}

template <typename Integer>
double integer_difference(const std::byte* a, const std::byte* b) {
  Integer x = 0;
  Integer y = 0;
  std::memcpy(&x, a, sizeof(Integer));
  std::memcpy(&y, b, sizeof(Integer));
  const auto high = static_cast<std::uint64_t>(std::max(x, y));
  const auto low = static_cast<std::uint64_t>(std::min(x, y));
  return static_cast<double>(high - low);
}

bool is_complex(DType dtype) { return info(dtype).kind == DTypeKind::kComplex; }

// A complex number is two numbers one behind the other.
DType part_of(DType dtype) {
  if (dtype == DType::kComplex64) return DType::kFloat32;
  if (dtype == DType::kComplex128) return DType::kFloat64;
  return dtype;
}

// Compares elements of two dtypes. Safe from several threads.
class ElementComparer {
 public:
  ElementComparer(DType a, DType b)
      : a_(a),
        b_(b),
        values_a_(part_of(a)),
        values_b_(part_of(b)),
        part_count_(is_complex(a) ? 2 : 1) {}

  // `count` elements, whose bytes these are.
  PieceDifference compare(std::span<const std::byte> a, std::span<const std::byte> b,
                          std::uint64_t count) const {
    PieceDifference difference;
    const unsigned bits = info(a_).bits;
    for (std::uint64_t first = 0; first < count; first += kBlockSize) {
      const auto size =
          static_cast<std::size_t>(std::min<std::uint64_t>(kBlockSize, count - first));
      if (a_ == b_) {
        const auto begin = static_cast<std::size_t>(first * bits / 8);
        const std::size_t size_bytes = (size * bits + 7) / 8;
        if (std::memcmp(a.data() + begin, b.data() + begin, size_bytes) == 0) continue;
      }
      compare_block(a, b, first, size, difference);
    }
    return difference;
  }

 private:
  static constexpr std::size_t kBlockSize = 1024;
  using Block = std::array<double, 2 * kBlockSize>;

  void compare_block(std::span<const std::byte> a, std::span<const std::byte> b,
                     std::uint64_t first, std::size_t size, PieceDifference& difference) const {
    Block block_a;
    Block block_b;
    const std::size_t part_count = size * part_count_;
    values_a_.read(a, first * part_count_, std::span(block_a).first(part_count));
    values_b_.read(b, first * part_count_, std::span(block_b).first(part_count));
    for (std::size_t i = 0; i < size; ++i) {
      double distance = 0;
      if (part_count_ == 2) {
        distance = std::hypot(difference_of(block_a[2 * i], block_b[2 * i]),
                              difference_of(block_a[2 * i + 1], block_b[2 * i + 1]));
      } else {
        distance =
            exact_difference(a, b, first + i).value_or(difference_of(block_a[i], block_b[i]));
      }
      difference.add(distance, distance != 0 || !are_same_bytes(a, b, first + i));
    }
  }

  // Of the integers that a double may round.
  std::optional<double> exact_difference(std::span<const std::byte> a, std::span<const std::byte> b,
                                         std::uint64_t i) const {
    if (a_ != b_ || (a_ != DType::kInt64 && a_ != DType::kUint64)) return std::nullopt;
    const std::byte* const at_a = a.data() + i * 8;
    const std::byte* const at_b = b.data() + i * 8;
    return a_ == DType::kInt64 ? integer_difference<std::int64_t>(at_a, at_b)
                               : integer_difference<std::uint64_t>(at_a, at_b);
  }

  // Between two dtypes the values decide.
  bool are_same_bytes(std::span<const std::byte> a, std::span<const std::byte> b,
                      std::uint64_t i) const {
    if (a_ != b_) return true;
    const unsigned bits = info(a_).bits;
    const auto begin = static_cast<std::size_t>(i * bits / 8);
    if (bits >= 8) return std::memcmp(a.data() + begin, b.data() + begin, bits / 8) == 0;
    const auto mask = static_cast<std::byte>(((1U << bits) - 1) << (i * bits % 8));
    return ((a[begin] ^ b[begin]) & mask) == std::byte{0};
  }

  DType a_;
  DType b_;
  ElementValues values_a_;
  ElementValues values_b_;
  std::size_t part_count_;
};

// Elements that are compared at once; of a leaf that is no number, bytes.
struct Range {
  std::size_t pair = 0;
  std::uint64_t first = 0;
  std::uint64_t count = 0;
};

// What a range is of each side, in bytes.
std::uint64_t bits_of(const LeafRecord& record) {
  const std::optional<DType> dtype = numeric_dtype(record);
  return dtype ? info(*dtype).bits : 8;
}

bool have_same_chunks(const LeafRecord& a, const LeafRecord& b) {
  return a.kind == b.kind && a.dtype == b.dtype && a.size_bytes == b.size_bytes &&
         a.chunk_size_bytes == b.chunk_size_bytes && a.hashes.size() == b.hashes.size();
}

// The elements of the pair that may differ.
void append_ranges(std::size_t pair, const LeafPair& leaves, std::uint64_t element_count,
                   std::vector<Range>& ranges) {
  const LeafRecord& a = leaves.a->record;
  const std::uint64_t bits = bits_of(a);
  constexpr std::uint64_t kElementsAtOnce = std::uint64_t{1} << 19;
  if (!have_same_chunks(a, leaves.b->record)) {
    for (std::uint64_t first = 0; first < element_count; first += kElementsAtOnce) {
      ranges.push_back({pair, first, std::min(kElementsAtOnce, element_count - first)});
    }
    return;
  }
  // Whole chunks, as many together as it takes to begin with an element.
  const std::uint32_t chunks_at_once = a.chunk_size_bytes % 16 == 0 ? 1 : 16;
  const std::uint64_t limit = piece_size_bytes(a) * 8 / bits;
  for (std::uint32_t chunk = 0; chunk < a.chunk_count(); chunk += chunks_at_once) {
    const std::uint32_t end = std::min(chunk + chunks_at_once, a.chunk_count());
    const auto begin_at = a.hashes.begin() + chunk;
    if (std::equal(begin_at, a.hashes.begin() + end, leaves.b->record.hashes.begin() + chunk)) {
      continue;
    }
    const std::uint64_t first = std::uint64_t{chunk} * a.chunk_size_bytes * 8 / bits;
    const std::uint64_t last =
        std::min(std::uint64_t{end} * a.chunk_size_bytes * 8 / bits, element_count);
    const bool continues = !ranges.empty() && ranges.back().pair == pair &&
                           ranges.back().first + ranges.back().count == first &&
                           last - ranges.back().first <= limit;
    if (continues) {
      ranges.back().count = last - ranges.back().first;
    } else {
      ranges.push_back({pair, first, last - first});
    }
  }
}

// The bytes of a range of one side.
struct ByteRange {
  std::uint64_t offset = 0;
  std::size_t size = 0;

  ByteRange(const Range& range, std::uint64_t bits)
      : offset(range.first * bits / 8),
        size(static_cast<std::size_t>((range.count * bits + 7) / 8)) {}
};

struct DifferencePlan {
  std::optional<ElementComparer> comparer;  // Of numbers.
  std::uint64_t element_count = 1;
};

}  // namespace

bool are_comparable(const LeafRecord& a, const LeafRecord& b) {
  const std::optional<DType> dtype_a = numeric_dtype(a);
  const std::optional<DType> dtype_b = numeric_dtype(b);
  if (!dtype_a || !dtype_b) return a.kind == b.kind;
  return a.shape == b.shape && is_complex(*dtype_a) == is_complex(*dtype_b);
}

LeafDifferences compare_leaves(const ItemOfStep& a, const ItemOfStep& b,
                               std::span<const LeafPair> pairs, const DifferenceOptions& options) {
  LeafDifferences result;
  std::vector<DifferencePlan> plans(pairs.size());
  std::vector<Range> ranges;
  std::vector<PieceDifference> sums(pairs.size());
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const LeafRecord& record_a = pairs[i].a->record;
    const LeafRecord& record_b = pairs[i].b->record;
    const std::optional<DType> dtype_a = numeric_dtype(record_a);
    const std::optional<DType> dtype_b = numeric_dtype(record_b);
    if (!dtype_a || !dtype_b) {
      // One element, whose bytes the hashes stand for; another size or division alone must be read.
      const bool is_same_size = record_a.size_bytes == record_b.size_bytes;
      if (!is_same_size) {
        sums[i].changed_count = 1;
      } else if (!have_same_chunks(record_a, record_b) || record_a.hashes != record_b.hashes) {
        append_ranges(i, pairs[i], record_a.size_bytes, ranges);
      }
      continue;
    }
    plans[i].element_count = element_count(record_a.shape).value_or(0);
    plans[i].comparer.emplace(*dtype_a, *dtype_b);
    append_ranges(i, pairs[i], plans[i].element_count, ranges);
  }
  const auto bytes_of = [&](const Range& range) {
    const LeafPair& pair = pairs[range.pair];
    return std::pair(ByteRange(range, bits_of(pair.a->record)),
                     ByteRange(range, bits_of(pair.b->record)));
  };
  for (const Range& range : ranges) {
    const auto [bytes_a, bytes_b] = bytes_of(range);
    result.read_bytes += bytes_a.size + bytes_b.size;
  }
  stepstone::Progress progress(options.progress, result.read_bytes);
  std::vector<PieceDifference> found(ranges.size());
  std::vector<std::optional<Error>> errors(pairs.size());
  std::mutex mutex;
  const Result<void> compared = parallel_for(
      effective_thread_count(options.thread_count), ranges.size(),
      [&](std::size_t i) -> Result<void> {
        const Range& range = ranges[i];
        const LeafPair& pair = pairs[range.pair];
        const auto [range_a, range_b] = bytes_of(range);
        std::vector<std::byte> bytes_a(range_a.size);
        std::vector<std::byte> bytes_b(range_b.size);
        Result<void> read = a.step->read_bytes(a.item, *pair.a, range_a.offset, bytes_a);
        if (read) read = b.step->read_bytes(b.item, *pair.b, range_b.offset, bytes_b);
        if (!read) {
          const std::scoped_lock lock(mutex);
          if (!errors[range.pair]) errors[range.pair] = read.error();
        } else if (plans[range.pair].comparer) {
          found[i] = plans[range.pair].comparer->compare(bytes_a, bytes_b, range.count);
        } else {
          found[i].changed_count = bytes_a == bytes_b ? 0 : 1;
        }
        progress.add(range_a.size + range_b.size);
        return {};
      });
  // In the order of the elements, whoever was ready first.
  for (std::size_t i = 0; i < ranges.size(); ++i) sums[ranges[i].pair].join(found[i]);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    if (!compared || errors[i]) {
      result.of_pairs.push_back(
          tl::unexpected<Error>(compared ? *std::move(errors[i]) : compared.error()));
      continue;
    }
    const std::uint64_t element_count = plans[i].element_count;
    const std::uint64_t comparable_count = element_count - sums[i].incomparable_count;
    result.of_pairs.push_back(LeafDifference{
        .element_count = element_count,
        .changed_count = std::min(sums[i].changed_count, element_count),
        .incomparable_count = sums[i].incomparable_count,
        .max_difference = sums[i].max,
        .mean_difference =
            comparable_count == 0 ? 0 : sums[i].sum / static_cast<double>(comparable_count)});
  }
  return result;
}

}  // namespace stepstone::tool
