#pragma once
// Casting on the way into the engine, chunk by chunk: a copy of the whole array in its new dtype is
// never made.

#include <memory>

#include "api/array.h"
#include "engine/leaf_source.h"

namespace stepstone {

// Before anything is written: reads the elements only where integers may be too large for `to`.
// kMismatch: such a cast would lose what the type stands for, and is not allowed to, or an integer
// does not fit; the message says which element of the array, in C order.
Result<void> check_cast(const Array& array, DType to, bool allow_lossy);

class CastSource final : public LeafSource {
 public:
  // `source` gives the packed elements of dtype `from`.
  CastSource(std::shared_ptr<const LeafSource> source, DType from, DType to,
             std::uint64_t element_count, bool allow_lossy)
      : source_(std::move(source)),
        from_(from),
        to_(to),
        element_count_(element_count),
        allow_lossy_(allow_lossy) {}

  // kMismatch: an integer does not fit, which can only be if `source` was changed since it was
  // checked.
  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> scratch) const override;

 private:
  std::shared_ptr<const LeafSource> source_;
  DType from_;
  DType to_;
  std::uint64_t element_count_;
  bool allow_lossy_;
};

}  // namespace stepstone
