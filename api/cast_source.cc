#include "api/cast_source.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "api/cast.h"

namespace stepstone {

namespace {

struct IntegerRange {
  std::int64_t min = 0;
  std::uint64_t max = 0;
};

// nullopt: no integers.
std::optional<IntegerRange> range_of(DType dtype) {
  const DTypeKind kind = info(dtype).kind;
  if (kind != DTypeKind::kUnsigned && kind != DTypeKind::kSigned) return std::nullopt;
  const unsigned bits = info(dtype).bits;
  const std::uint64_t unsigned_max = std::numeric_limits<std::uint64_t>::max() >> (64 - bits);
  if (kind == DTypeKind::kUnsigned) return IntegerRange{0, unsigned_max};
  const std::uint64_t max = unsigned_max >> 1;
  return IntegerRange{-static_cast<std::int64_t>(max) - 1, max};
}

// The position of the first of these integers that is outside the range.
template <typename T>
std::optional<std::uint64_t> first_outside(std::span<const std::byte> bytes, IntegerRange range) {
  const auto element = [&](std::size_t i) {
    T value{};
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    return value;
  };
  const std::size_t count = bytes.size() / sizeof(T);
  // Nearly always all fit, and this loop becomes vector instructions.
  T lowest = 0;
  T highest = 0;
  for (std::size_t i = 0; i < count; ++i) {
    lowest = std::min(lowest, element(i));
    highest = std::max(highest, element(i));
  }
  const auto is_inside = [&](T value) {
    return std::cmp_greater_equal(value, range.min) && std::cmp_less_equal(value, range.max);
  };
  if (is_inside(lowest) && is_inside(highest)) return std::nullopt;
  std::size_t i = 0;
  while (is_inside(element(i))) ++i;
  return i;
}

std::optional<std::uint64_t> first_outside(std::span<const std::byte> bytes, DType dtype,
                                           IntegerRange range) {
  const bool is_signed = info(dtype).kind == DTypeKind::kSigned;
  switch (info(dtype).bits) {
    case 8:
      return is_signed ? first_outside<std::int8_t>(bytes, range)
                       : first_outside<std::uint8_t>(bytes, range);
    case 16:
      return is_signed ? first_outside<std::int16_t>(bytes, range)
                       : first_outside<std::uint16_t>(bytes, range);
    case 32:
      return is_signed ? first_outside<std::int32_t>(bytes, range)
                       : first_outside<std::uint32_t>(bytes, range);
    default:
      return is_signed ? first_outside<std::int64_t>(bytes, range)
                       : first_outside<std::uint64_t>(bytes, range);
  }
}

Result<void> check_integers(const Array& array, DType to, IntegerRange range) {
  const DType from = array.dtype();
  if (info(from).bits < 8) {
    // Several stand in one byte; they are few, or small, enough to be spread out.
    const DType whole = info(from).kind == DTypeKind::kSigned ? DType::kInt8 : DType::kUint8;
    const Array spread = STEPSTONE_TRY(cast(array, whole));
    const auto found = first_outside(spread.bytes(), whole, range);
    if (found) return does_not_fit(from, to, *found);
    return {};
  }
  // A multiple of the size of every element.
  constexpr std::uint64_t kPieceSizeBytes = std::uint64_t{1} << 16;
  std::vector<std::byte> gathered;
  for (std::uint64_t offset = 0; offset < array.size_bytes(); offset += kPieceSizeBytes) {
    const auto size =
        static_cast<std::size_t>(std::min(kPieceSizeBytes, array.size_bytes() - offset));
    std::span<const std::byte> piece;
    if (array.is_contiguous()) {
      piece = array.bytes().subspan(static_cast<std::size_t>(offset), size);
    } else {
      gathered.resize(size);
      array.gather(offset, gathered);
      piece = gathered;
    }
    if (const auto found = first_outside(piece, from, range)) {
      return does_not_fit(from, to, offset * 8 / info(from).bits + *found);
    }
  }
  return {};
}

}  // namespace

Result<void> check_cast(const Array& array, DType to, bool allow_lossy) {
  if (allow_lossy) return {};
  const DType from = array.dtype();
  const auto with_hint = [](Error error) {
    error.message += "; set allow_lossy_cast if that is meant";
    return error;
  };
  if (const std::string_view why = refusal(from, to); !why.empty()) {
    return tl::unexpected<Error>(with_hint(cannot_cast(from, to, why).value()));
  }
  const std::optional<IntegerRange> stored = range_of(from);
  const std::optional<IntegerRange> wanted = range_of(to);
  if (!stored || !wanted || (stored->min >= wanted->min && stored->max <= wanted->max)) return {};
  return check_integers(array, to, *wanted).map_error(with_hint);
}

Result<std::span<const std::byte>> CastSource::read(std::uint64_t offset, std::size_t size,
                                                    std::span<std::byte> scratch) const {
  if (size == 0) return scratch.first(0);
  const std::uint64_t from_bits = info(from_).bits;
  const std::uint64_t to_bits = info(to_).bits;
  // Eight elements end at a byte in every dtype.
  constexpr std::uint64_t kGroup = 8;
  const std::uint64_t begin = offset * 8 / to_bits / kGroup * kGroup;
  const std::uint64_t wanted_end = ((offset + size) * 8 + to_bits - 1) / to_bits;
  const std::uint64_t end = std::min(element_count_, (wanted_end + kGroup - 1) / kGroup * kGroup);
  const auto source_size = static_cast<std::size_t>(((end - begin) * from_bits + 7) / 8);
  std::vector<std::byte> memory(source_size);
  const auto bytes = STEPSTONE_TRY(source_->read(begin * from_bits / 8, source_size, memory));
  const Array elements = STEPSTONE_TRY(Array::borrow(from_, {end - begin}, bytes));
  const Array result = STEPSTONE_TRY(cast(elements, to_, allow_lossy_, begin));
  const auto skipped = static_cast<std::size_t>(offset - begin * to_bits / 8);
  std::memcpy(scratch.data(), result.bytes().data() + skipped, size);
  return scratch.first(size);
}

}  // namespace stepstone
