#include "api/array.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

#include "format/assert.h"

namespace stepstone {

// The formats are little-endian, and arrays go in and out as they are.
static_assert(std::endian::native == std::endian::little);

namespace {

tl::unexpected<Error> out_of_memory(DType dtype, Shape shape) {
  return fail(ErrorCode::kLimit, "out of memory for an array of shape " + to_string(shape) +
                                     " and dtype " + std::string(to_string(dtype)));
}

}  // namespace

Array::Array() : shape_{0} {}

Result<Array> Array::of(DType dtype, std::vector<std::uint64_t> shape) {
  Array array(std::move(shape));
  array.dtype_ = dtype;
  array.element_count_ = STEPSTONE_TRY(stepstone::element_count(array.shape_));
  array.size_bytes_ = STEPSTONE_TRY(array_size_bytes(dtype, array.shape_));
  return array;
}

Result<Array> Array::zeros(DType dtype, std::vector<std::uint64_t> shape) {
  Array array = STEPSTONE_TRY(of(dtype, std::move(shape)));
  try {
    array.writable_ = std::make_shared<std::byte[]>(static_cast<std::size_t>(array.size_bytes_));
  } catch (const std::bad_alloc&) {
    return out_of_memory(dtype, array.shape_);
  }
  array.data_ = array.writable_.get();
  array.owner_ = array.writable_;
  return array;
}

Result<Array> Array::borrow(DType dtype, std::vector<std::uint64_t> shape,
                            std::span<const std::byte> bytes) {
  return own(dtype, std::move(shape), bytes, nullptr);
}

Result<Array> Array::own(DType dtype, std::vector<std::uint64_t> shape,
                         std::span<const std::byte> bytes, std::shared_ptr<const void> owner) {
  Array array = STEPSTONE_TRY(of(dtype, std::move(shape)));
  if (bytes.size() != array.size_bytes_) {
    return fail(ErrorCode::kInvalidArgument,
                "an array of shape " + to_string(array.shape_) + " and dtype " +
                    std::string(to_string(dtype)) + " has " + std::to_string(array.size_bytes_) +
                    " bytes, but " + std::to_string(bytes.size()) + " were given");
  }
  array.data_ = bytes.data();
  array.owner_ = std::move(owner);
  return array;
}

Result<Array> Array::adopt(DType dtype, std::vector<std::uint64_t> shape,
                           std::shared_ptr<std::byte[]> bytes) {
  Array array = STEPSTONE_TRY(of(dtype, std::move(shape)));
  array.data_ = bytes.get();
  array.owner_ = bytes;
  array.writable_ = std::move(bytes);
  return array;
}

Result<Array> Array::borrow_strided(DType dtype, std::vector<std::uint64_t> shape,
                                    std::vector<std::int64_t> strides_bytes,
                                    const std::byte* data) {
  Array array = STEPSTONE_TRY(of(dtype, std::move(shape)));
  if (strides_bytes.size() != array.shape_.size() || info(dtype).bits < 8) {
    return fail(ErrorCode::kInvalidArgument,
                "a strided array needs one stride per axis and elements of whole bytes; shape " +
                    to_string(array.shape_) + " has " + std::to_string(strides_bytes.size()) +
                    " strides, dtype " + std::string(to_string(dtype)));
  }
  array.data_ = data;
  // Without elements the extents may be too large for strides of their own.
  if (array.element_count_ == 0) return array;
  std::int64_t expected = info(dtype).bits / 8;
  bool is_contiguous = true;
  for (std::size_t axis = array.shape_.size(); axis-- > 0;) {
    const auto extent = static_cast<std::int64_t>(array.shape_[axis]);
    // Strides of axes that are never stepped along mean nothing; some libraries put huge numbers
    // there.
    if (extent == 1) strides_bytes[axis] = 0;
    if (extent > 1 && strides_bytes[axis] != expected) is_contiguous = false;
    expected *= extent;
  }
  if (!is_contiguous) array.strides_bytes_ = std::move(strides_bytes);
  return array;
}

Result<Array> Array::copy_bytes(DType dtype, std::vector<std::uint64_t> shape,
                                std::span<const std::byte> bytes) {
  const Array borrowed = STEPSTONE_TRY(borrow(dtype, std::move(shape), bytes));
  try {
    return borrowed.owned();
  } catch (const std::bad_alloc&) {
    return out_of_memory(dtype, borrowed.shape_);
  }
}

std::span<const std::byte> Array::bytes() const {
  STEPSTONE_ASSERT(is_contiguous());
  return {data_, static_cast<std::size_t>(size_bytes_)};
}

std::span<std::byte> Array::mutable_bytes() {
  // Two owners are this array's own: `owner_` and `writable_`.
  if (writable_ == nullptr || writable_.use_count() != 2) {
    const Array source = *this;
    writable_ = std::make_shared_for_overwrite<std::byte[]>(static_cast<std::size_t>(size_bytes_));
    source.gather(0, {writable_.get(), static_cast<std::size_t>(size_bytes_)});
    data_ = writable_.get();
    owner_ = writable_;
    strides_bytes_.clear();
  } else {
    // Another thread may have dropped its copy just now. use_count() alone does not order its reads
    // before the caller's writes; taking part in the counting does.
    const std::shared_ptr<std::byte[]> ordered = writable_;
  }
  return {writable_.get(), static_cast<std::size_t>(size_bytes_)};
}

Array Array::owned() const {
  if (!is_borrowed() && is_contiguous()) return *this;
  Array copy = *this;
  copy.mutable_bytes();
  return copy;
}

// Copies whole innermost rows where their elements are adjacent, single elements otherwise. `index`
// counts like an odometer, and `at` follows it.
void Array::gather(std::uint64_t offset, std::span<std::byte> destination) const {
  STEPSTONE_ASSERT(offset <= size_bytes_ && destination.size() <= size_bytes_ - offset);
  if (destination.empty()) return;
  if (is_contiguous()) {
    std::memcpy(destination.data(), data_ + offset, destination.size());
    return;
  }
  const std::size_t rank = shape_.size();
  const std::uint64_t item_size = info(dtype_).bits / 8;
  std::vector<std::uint64_t> index(rank);
  std::uint64_t element = offset / item_size;
  std::uint64_t skipped = offset % item_size;  // Of the first element's bytes.
  const std::byte* at = data_;
  for (std::size_t axis = rank; axis-- > 0;) {
    index[axis] = element % shape_[axis];
    element /= shape_[axis];
    at += static_cast<std::int64_t>(index[axis]) * strides_bytes_[axis];
  }
  // An array that is not contiguous has an axis.
  const std::size_t last = rank - 1;
  const bool row_is_adjacent = strides_bytes_[last] == static_cast<std::int64_t>(item_size);
  while (true) {
    const std::uint64_t run = row_is_adjacent ? shape_[last] - index[last] : 1;
    const auto size = static_cast<std::size_t>(
        std::min<std::uint64_t>(run * item_size - skipped, destination.size()));
    std::memcpy(destination.data(), at + skipped, size);
    destination = destination.subspan(size);
    if (destination.empty()) return;
    skipped = 0;
    at += static_cast<std::int64_t>(run) * strides_bytes_[last];
    index[last] += run;
    for (std::size_t axis = last; index[axis] == shape_[axis]; --axis) {
      at -= static_cast<std::int64_t>(shape_[axis]) * strides_bytes_[axis];
      index[axis] = 0;
      // Bytes are left, so an axis further out has room.
      STEPSTONE_ASSERT(axis > 0);
      at += strides_bytes_[axis - 1];
      ++index[axis - 1];
    }
  }
}

bool operator==(const Array& a, const Array& b) {
  if (a.dtype_ != b.dtype_ || a.shape_ != b.shape_) return false;
  const Array left = a.is_contiguous() ? a : a.owned();
  const Array right = b.is_contiguous() ? b : b.owned();
  return left.size_bytes_ == 0 ||
         std::memcmp(left.data_, right.data_, static_cast<std::size_t>(left.size_bytes_)) == 0;
}

Result<void> Array::check_values(DType dtype, std::size_t alignment) const {
  if (dtype != dtype_) {
    return fail(ErrorCode::kMismatch, "the array has dtype " + std::string(to_string(dtype_)) +
                                          ", not " + std::string(to_string(dtype)));
  }
  if (!is_contiguous() || reinterpret_cast<std::uintptr_t>(data_) % alignment != 0) {
    return fail(ErrorCode::kInvalidArgument,
                "the array is strided or not aligned: call owned() first");
  }
  return {};
}

}  // namespace stepstone
