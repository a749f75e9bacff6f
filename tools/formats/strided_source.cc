// A range of the array in C order is cut into boxes (part of one axis, all of the axes behind it).
// A box is read by runs along the axis whose elements lie closest together in the base: there a few
// reads of whole stretches do, where one read for each element would be needed along another.
#include "tools/formats/strided_source.h"

#include <algorithm>
#include <cstring>

namespace stepstone::tool {
namespace {

// Of the base, read at once to pick elements from.
constexpr std::uint64_t kStretchSizeBytes = std::uint64_t{64} << 10;
// Elements that lie further apart are read one by one.
constexpr std::uint64_t kGapSizeBytesMax = 512;

void swap_bytes(std::span<std::byte> bytes, std::size_t width) {
  for (std::size_t i = 0; i + width <= bytes.size(); i += width) {
    std::reverse(bytes.data() + i, bytes.data() + i + width);
  }
}

}  // namespace

std::vector<std::uint64_t> c_strides(const std::vector<std::uint64_t>& shape) {
  std::vector<std::uint64_t> strides(shape.size());
  std::uint64_t stride = 1;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = stride;
    stride *= std::max<std::uint64_t>(shape[axis], 1);
  }
  return strides;
}

std::vector<std::uint64_t> fortran_strides(const std::vector<std::uint64_t>& shape) {
  std::vector<std::uint64_t> strides(shape.size());
  std::uint64_t stride = 1;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    strides[axis] = stride;
    stride *= std::max<std::uint64_t>(shape[axis], 1);
  }
  return strides;
}

bool StridedLayout::is_contiguous() const {
  const std::vector<std::uint64_t> wanted = c_strides(shape);
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    if (shape[axis] == 0) return true;
    if (shape[axis] > 1 && strides[axis] != wanted[axis]) return false;
  }
  return true;
}

StridedSource::StridedSource(std::shared_ptr<const LeafSource> base, StridedLayout layout)
    : base_(std::move(base)), layout_(std::move(layout)), c_strides_(c_strides(layout_.shape)) {}

Result<std::span<const std::byte>> StridedSource::read(std::uint64_t offset, std::size_t size,
                                                       std::span<std::byte> scratch) const {
  const std::uint64_t width = layout_.element_size_bytes;
  const std::uint64_t begin = offset / width;
  const std::uint64_t end = (offset + size + width - 1) / width;
  if (offset % width == 0 && size % width == 0) {
    STEPSTONE_TRY(gather(begin, end, scratch.data()));
  } else {
    // The range begins or ends inside an element.
    std::vector<std::byte> whole(static_cast<std::size_t>((end - begin) * width));
    STEPSTONE_TRY(gather(begin, end, whole.data()));
    std::memcpy(scratch.data(), whole.data() + offset % width, size);
  }
  return scratch.first(size);
}

Result<void> StridedSource::gather(std::uint64_t begin, std::uint64_t end,
                                   std::byte* target) const {
  if (begin == end) return {};
  if (layout_.is_contiguous()) {
    STEPSTONE_TRY(gather_run(layout_.first + begin, 1, end - begin, target, 1));
  } else {
    STEPSTONE_TRY(gather_within(0, begin, end, layout_.first, target));
  }
  if (layout_.swapped_size_bytes > 1) {
    swap_bytes({target, static_cast<std::size_t>((end - begin) * layout_.element_size_bytes)},
               layout_.swapped_size_bytes);
  }
  return {};
}

// The elements [begin, end) of the part of the array below `axis`. Recurses once for each axis.
Result<void> StridedSource::gather_within(std::size_t axis, std::uint64_t begin, std::uint64_t end,
                                          std::uint64_t base_first, std::byte* target) const {
  const std::uint64_t inner = c_strides_[axis];
  const auto base_of = [&](std::uint64_t place) {
    return base_first + place * layout_.strides[axis];
  };
  if (axis + 1 == layout_.shape.size()) return gather_box(axis, begin, end, base_first, target);
  const auto skip = [&](std::uint64_t count) {
    target += count * layout_.element_size_bytes;
    begin += count;
  };
  if (begin % inner != 0) {
    const std::uint64_t stop = std::min(end, (begin / inner + 1) * inner);
    STEPSTONE_TRY(gather_within(axis + 1, begin % inner, begin % inner + (stop - begin),
                                base_of(begin / inner), target));
    skip(stop - begin);
  }
  if (end - begin >= inner) {
    const std::uint64_t last = end / inner;
    const std::uint64_t count = (last - begin / inner) * inner;
    STEPSTONE_TRY(gather_box(axis, begin / inner, last, base_first, target));
    skip(count);
  }
  if (begin == end) return {};
  return gather_within(axis + 1, 0, end - begin, base_of(begin / inner), target);
}

Result<void> StridedSource::gather_box(std::size_t axis, std::uint64_t begin, std::uint64_t end,
                                       std::uint64_t base_first, std::byte* target) const {
  const std::size_t rank = layout_.shape.size();
  std::vector<std::uint64_t> counts(layout_.shape.begin() + static_cast<std::ptrdiff_t>(axis),
                                    layout_.shape.end());
  counts.front() = end - begin;
  base_first += begin * layout_.strides[axis];
  std::size_t run = rank - 1 - axis;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const bool is_closer = layout_.strides[axis + i] < layout_.strides[axis + run];
    if (counts[i] > 1 && (is_closer || counts[run] <= 1)) run = i;
  }
  // An odometer over all axes but that of the runs.
  std::vector<std::uint64_t> place(counts.size(), 0);
  while (true) {
    std::uint64_t base = base_first;
    std::uint64_t element = 0;
    for (std::size_t i = 0; i < counts.size(); ++i) {
      base += place[i] * layout_.strides[axis + i];
      element += place[i] * c_strides_[axis + i];
    }
    STEPSTONE_TRY(gather_run(base, layout_.strides[axis + run], counts[run],
                             target + element * layout_.element_size_bytes,
                             c_strides_[axis + run]));
    std::size_t turned = counts.size();
    while (turned-- > 0) {
      if (turned == run) continue;
      if (++place[turned] < counts[turned]) break;
      place[turned] = 0;
    }
    if (turned == static_cast<std::size_t>(-1)) return {};
  }
}

Result<void> StridedSource::gather_run(std::uint64_t base_first, std::uint64_t base_stride,
                                       std::uint64_t count, std::byte* target,
                                       std::uint64_t target_stride) const {
  const std::size_t width = layout_.element_size_bytes;
  if (base_stride == 1 && target_stride == 1) {
    const auto size = static_cast<std::size_t>(count * width);
    const std::span<const std::byte> bytes =
        STEPSTONE_TRY(base_->read(base_first * width, size, {target, size}));
    if (bytes.data() != target) std::memcpy(target, bytes.data(), size);
    return {};
  }
  const bool is_close = base_stride * width <= kGapSizeBytesMax;
  const std::uint64_t step =
      is_close ? (kStretchSizeBytes / width - 1) / std::max<std::uint64_t>(base_stride, 1) + 1 : 1;
  std::vector<std::byte> stretch;
  for (std::uint64_t done = 0; done < count;) {
    const std::uint64_t picked = std::min(step, count - done);
    const auto size = static_cast<std::size_t>(((picked - 1) * base_stride + 1) * width);
    stretch.resize(size);
    const std::span<const std::byte> bytes = STEPSTONE_TRY(
        base_->read((base_first + done * base_stride) * width, size, std::span(stretch)));
    for (std::uint64_t i = 0; i < picked; ++i) {
      std::memcpy(target + (done + i) * target_stride * width,
                  bytes.data() + i * base_stride * width, width);
    }
    done += picked;
  }
  return {};
}

}  // namespace stepstone::tool
