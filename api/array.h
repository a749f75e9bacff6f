#pragma once
// An n-dimensional array: dtype, shape, strides and bytes, either shared and immutable or borrowed.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "../format/dtype.h"
#include "../format/error.h"

namespace stepstone {

namespace internal {
template <typename T>
struct DTypeOf;
#define STEPSTONE_DTYPE_OF_(type, dtype)         \
  template <>                                    \
  struct DTypeOf<type> {                         \
    static constexpr DType value = DType::dtype; \
  }
STEPSTONE_DTYPE_OF_(bool, kBool);
STEPSTONE_DTYPE_OF_(std::int8_t, kInt8);
STEPSTONE_DTYPE_OF_(std::int16_t, kInt16);
STEPSTONE_DTYPE_OF_(std::int32_t, kInt32);
STEPSTONE_DTYPE_OF_(std::int64_t, kInt64);
STEPSTONE_DTYPE_OF_(std::uint8_t, kUint8);
STEPSTONE_DTYPE_OF_(std::uint16_t, kUint16);
STEPSTONE_DTYPE_OF_(std::uint32_t, kUint32);
STEPSTONE_DTYPE_OF_(std::uint64_t, kUint64);
STEPSTONE_DTYPE_OF_(float, kFloat32);
STEPSTONE_DTYPE_OF_(double, kFloat64);
#undef STEPSTONE_DTYPE_OF_
}  // namespace internal

// A value type: copies are cheap and share the bytes.
//
// A *borrowed* array views the caller's memory, which must stay valid, and unchanged while a save
// reads it (an asynchronous save copies it before it returns). Any other array *owns* its bytes
// together with its copies and is immutable, so that an asynchronous save only refers to it;
// mutable_bytes() makes a copy first where others share them.
//
// Elements are little-endian. Those of 2 and 4 bits are packed, the first in the lowest bits.
class Array {
 public:
  // An empty float32 array.
  Array();

  // C-contiguous, all bytes zero. kLimit: rank or size over format/limits.h.
  static Result<Array> zeros(DType dtype, std::vector<std::uint64_t> shape);

  // Borrows C-contiguous memory. kInvalidArgument: `bytes` is not exactly the size that dtype and
  // shape give. kLimit.
  static Result<Array> borrow(DType dtype, std::vector<std::uint64_t> shape,
                              std::span<const std::byte> bytes);

  // Borrows strided memory: element (i, j, …) begins at data + i * strides[0] + j * strides[1] + …,
  // in bytes; strides may be zero or negative. kInvalidArgument: not one stride per axis, or a
  // dtype under 8 bits.
  static Result<Array> borrow_strided(DType dtype, std::vector<std::uint64_t> shape,
                                      std::vector<std::int64_t> strides_bytes,
                                      const std::byte* data);

  // Takes over C-contiguous memory whose lifetime `owner` holds; nobody may write it any more. As
  // borrow().
  static Result<Array> own(DType dtype, std::vector<std::uint64_t> shape,
                           std::span<const std::byte> bytes, std::shared_ptr<const void> owner);

  // Takes over memory that holds the array C-contiguously, as own() does; since nobody else refers
  // to it, mutable_bytes() need not copy. `bytes` must have room for what dtype and shape give.
  // kLimit.
  static Result<Array> adopt(DType dtype, std::vector<std::uint64_t> shape,
                             std::shared_ptr<std::byte[]> bytes);

  // Of C++ values. kInvalidArgument: the shape does not have values.size() elements.
  template <typename T>
  static Result<Array> copy_of(std::span<const T> values, std::vector<std::uint64_t> shape) {
    return copy_bytes(internal::DTypeOf<T>::value, std::move(shape), std::as_bytes(values));
  }
  template <typename T>
  static Result<Array> borrow(std::span<const T> values, std::vector<std::uint64_t> shape) {
    return borrow(internal::DTypeOf<T>::value, std::move(shape), std::as_bytes(values));
  }
  static Result<Array> copy_bytes(DType dtype, std::vector<std::uint64_t> shape,
                                  std::span<const std::byte> bytes);

  DType dtype() const { return dtype_; }
  const std::vector<std::uint64_t>& shape() const { return shape_; }
  // One per axis, in bytes; empty where the array is C-contiguous.
  const std::vector<std::int64_t>& strides_bytes() const { return strides_bytes_; }
  bool is_contiguous() const { return strides_bytes_.empty(); }
  bool is_borrowed() const { return owner_ == nullptr; }
  std::uint64_t element_count() const { return element_count_; }
  // Of the elements, packed together.
  std::uint64_t size_bytes() const { return size_bytes_; }
  const std::byte* data() const { return data_; }

  // All bytes of a C-contiguous array.
  std::span<const std::byte> bytes() const;
  // The same, to be written. Copies first unless this array is the only owner.
  std::span<std::byte> mutable_bytes();
  // The elements as C++ values. kMismatch: another dtype; kInvalidArgument: not C-contiguous, or
  // memory that is not aligned for T.
  template <typename T>
  Result<std::span<const T>> values() const {
    STEPSTONE_TRY(check_values(internal::DTypeOf<T>::value, alignof(T)));
    return std::span<const T>(reinterpret_cast<const T*>(data_),
                              static_cast<std::size_t>(element_count_));
  }

  // C-contiguous and owned: this array where it is so already, else a copy.
  Array owned() const;

  // Copies the bytes [offset, offset + destination.size()) of the packed elements, gathering
  // strided ones. The range must be inside size_bytes().
  void gather(std::uint64_t offset, std::span<std::byte> destination) const;

  // Same dtype, shape and bytes (NaN equals the same NaN; strides do not matter).
  friend bool operator==(const Array& a, const Array& b);

 private:
  // Without data. kLimit.
  static Result<Array> of(DType dtype, std::vector<std::uint64_t> shape);
  explicit Array(std::vector<std::uint64_t> shape) : shape_(std::move(shape)) {}
  Result<void> check_values(DType dtype, std::size_t alignment) const;

  DType dtype_ = DType::kFloat32;
  std::vector<std::uint64_t> shape_;
  std::vector<std::int64_t> strides_bytes_;
  std::uint64_t element_count_ = 0;
  std::uint64_t size_bytes_ = 0;
  const std::byte* data_ = nullptr;
  std::shared_ptr<const void> owner_;
  std::shared_ptr<std::byte[]> writable_;  // Set where the bytes are memory that we allocated.
};

}  // namespace stepstone
