#pragma once
// Where the bytes of a leaf come from while it is saved.

#include <cstddef>
#include <cstdint>
#include <span>

#include "format/error.h"

namespace stepstone {

// Bytes that a save reads piece by piece, so that memory stays bounded however large the leaf is:
// memory, a file, a strided array that is gathered on the way. Must outlive the save; read() is
// called from several threads at once, for each range once or more, and must give the same bytes
// each time.
class LeafSource {
 public:
  LeafSource() = default;
  LeafSource(const LeafSource&) = delete;
  LeafSource& operator=(const LeafSource&) = delete;
  virtual ~LeafSource() = default;

  // The `size` bytes from `offset`: either a view of memory that the source owns, or `scratch`
  // (which has at least `size` bytes) filled. The view holds until the next call with the same
  // scratch.
  virtual Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                                  std::span<std::byte> scratch) const = 0;
};

// Contiguous memory; the caller keeps it alive and unchanged.
class MemorySource final : public LeafSource {
 public:
  explicit MemorySource(std::span<const std::byte> bytes) : bytes_(bytes) {}

  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> /*scratch*/) const override {
    return bytes_.subspan(static_cast<std::size_t>(offset), size);
  }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace stepstone
