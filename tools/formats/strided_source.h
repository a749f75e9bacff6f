#pragma once
// Arrays whose bytes stand in a file in another order than a store's: gathered while they are read.

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/leaf_source.h"

namespace stepstone::tool {

// How the elements of an array stand in its base.
struct StridedLayout {
  std::uint32_t element_size_bytes = 1;
  std::uint32_t swapped_size_bytes = 1;  // Big-endian numbers of so many bytes; 1: little-endian.
  std::uint64_t first = 0;               // The base's element that is element (0, ..., 0).
  std::vector<std::uint64_t> shape;
  std::vector<std::uint64_t> strides;  // In elements; 0 where an axis repeats itself.

  // As in C order without a gap, so that only `first` counts.
  bool is_contiguous() const;
};

std::vector<std::uint64_t> c_strides(const std::vector<std::uint64_t>& shape);
std::vector<std::uint64_t> fortran_strides(const std::vector<std::uint64_t>& shape);

// The array's bytes, C-contiguous and little-endian. Memory: what is asked for, and 64 KiB. The
// layout's elements are all in `base`, and its sizes overflow nowhere.
class StridedSource final : public LeafSource {
 public:
  StridedSource(std::shared_ptr<const LeafSource> base, StridedLayout layout);

  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> scratch) const override;

 private:
  Result<void> gather(std::uint64_t begin, std::uint64_t end, std::byte* target) const;
  Result<void> gather_within(std::size_t axis, std::uint64_t begin, std::uint64_t end,
                             std::uint64_t base_first, std::byte* target) const;
  // The elements [begin, end) of `axis`, and all of the axes behind it.
  Result<void> gather_box(std::size_t axis, std::uint64_t begin, std::uint64_t end,
                          std::uint64_t base_first, std::byte* target) const;
  Result<void> gather_run(std::uint64_t base_first, std::uint64_t base_stride, std::uint64_t count,
                          std::byte* target, std::uint64_t target_stride) const;

  const std::shared_ptr<const LeafSource> base_;
  const StridedLayout layout_;
  const std::vector<std::uint64_t> c_strides_;
};

}  // namespace stepstone::tool
