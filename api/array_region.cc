#include "api/array_region.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace stepstone {

Result<std::vector<Slice>> whole_slice(const std::vector<Slice>& slice, Shape shape) {
  if (slice.size() > shape.size()) {
    return fail(ErrorCode::kMismatch,
                fmt::format("a slice of {} axes of an array {}", slice.size(), to_string(shape)));
  }
  std::vector<Slice> whole = slice;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    if (axis == whole.size()) whole.push_back({0, shape[axis]});
    if (whole[axis].begin <= whole[axis].end && whole[axis].end <= shape[axis]) continue;
    return fail(ErrorCode::kMismatch,
                fmt::format("the slice [{}, {}) of axis {} is not inside an array {}",
                            whole[axis].begin, whole[axis].end, axis, to_string(shape)));
  }
  return whole;
}

std::vector<std::uint64_t> shape_of(const std::vector<Slice>& slice) {
  std::vector<std::uint64_t> shape;
  shape.reserve(slice.size());
  for (const Slice& axis : slice) shape.push_back(axis.end - axis.begin);
  return shape;
}

// Axes that are taken whole, from the last one outwards, belong to one run together with the axis
// before them; over the others `index` counts like an odometer.
Result<void> for_each_run(
    const std::vector<Slice>& slice, Shape shape,
    const std::function<Result<void>(std::uint64_t first, std::uint64_t count)>& visit) {
  for (const Slice& axis : slice) {
    if (axis.begin == axis.end) return {};
  }
  if (slice.empty()) return visit(0, 1);
  std::vector<std::uint64_t> strides(shape.size(), 1);
  for (std::size_t axis = shape.size() - 1; axis > 0; --axis) {
    strides[axis - 1] = strides[axis] * shape[axis];
  }
  std::size_t inner = shape.size() - 1;
  while (inner > 0 && slice[inner].begin == 0 && slice[inner].end == shape[inner]) --inner;
  const std::uint64_t count = (slice[inner].end - slice[inner].begin) * strides[inner];
  std::vector<std::uint64_t> index;
  std::uint64_t first = 0;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    index.push_back(slice[axis].begin);
    first += slice[axis].begin * strides[axis];
  }
  while (true) {
    STEPSTONE_TRY(visit(first, count));
    std::size_t axis = inner;
    while (true) {
      if (axis == 0) return {};
      --axis;
      ++index[axis];
      first += strides[axis];
      if (index[axis] < slice[axis].end) break;
      first -= (index[axis] - slice[axis].begin) * strides[axis];
      index[axis] = slice[axis].begin;
    }
  }
}

void copy_elements(const std::byte* source, std::uint64_t source_first, std::byte* target,
                   std::uint64_t target_first, std::uint64_t count, unsigned bits) {
  if (bits >= 8) {
    const std::uint64_t size = bits / 8;
    std::memcpy(target + target_first * size, source + source_first * size,
                static_cast<std::size_t>(count * size));
    return;
  }
  const std::uint64_t per_byte = 8 / bits;
  const unsigned mask = (1U << bits) - 1;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t from = source_first + i;
    const std::uint64_t to = target_first + i;
    const auto from_shift = static_cast<unsigned>(from % per_byte) * bits;
    const auto to_shift = static_cast<unsigned>(to % per_byte) * bits;
    const unsigned value = std::to_integer<unsigned>(source[from / per_byte]) >> from_shift & mask;
    std::byte& byte = target[to / per_byte];
    byte = (byte & ~static_cast<std::byte>(mask << to_shift)) |
           static_cast<std::byte>(value << to_shift);
  }
}

Result<Array> resized(const Array& array, const std::vector<std::uint64_t>& shape) {
  const Array source = array.is_contiguous() ? array : array.owned();
  Array result = STEPSTONE_TRY(Array::zeros(array.dtype(), shape));
  std::vector<Slice> common;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    common.push_back({0, std::min(shape[axis], source.shape()[axis])});
  }
  // The same elements stand at other places in the two: both are walked in step, in runs that are
  // adjacent in both.
  std::vector<Slice> rows = common;
  const std::uint64_t row_size = rows.empty() ? 1 : rows.back().end;
  if (!rows.empty()) rows.back().end = std::min<std::uint64_t>(1, rows.back().end);
  std::vector<std::uint64_t> source_rows;
  STEPSTONE_TRY(for_each_run(rows, source.shape(), [&](std::uint64_t first, std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) source_rows.push_back(first + i);
    return Result<void>();
  }));
  std::byte* const target = result.mutable_bytes().data();
  std::size_t next = 0;
  STEPSTONE_TRY(for_each_run(rows, shape, [&](std::uint64_t first, std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      copy_elements(source.data(), source_rows[next++], target, first + i, row_size,
                    info(array.dtype()).bits);
    }
    return Result<void>();
  }));
  return result;
}

}  // namespace stepstone
