#pragma once
// Elements of every dtype as numbers to calculate with.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "format/dtype.h"
#include "format/records.h"

namespace stepstone::tool {

// Reads elements of one dtype as doubles: integers beyond 2^53 are rounded, true is 1, and a
// complex number is its magnitude (NaN if a part of it is). Immutable, and safe from several
// threads.
class ElementValues {
 public:
  explicit ElementValues(DType dtype);

  // The values.size() elements from element `first` of `bytes` on; there must be so many.
  void read(std::span<const std::byte> bytes, std::uint64_t first, std::span<double> values) const;

 private:
  DType dtype_;
  // Of dtypes of up to 16 bits that no C++ type stands for: the value of each pattern of bits.
  std::vector<double> table_;
};

// What a leaf's bytes are as an array: its own dtype, or that of the one number that it is.
// nullopt: it is no number.
std::optional<DType> numeric_dtype(const LeafRecord& record);

}  // namespace stepstone::tool
