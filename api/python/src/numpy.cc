// Arrays of numpy through its C interface: a checkpoint may have very many.
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_1_25_API_VERSION
#include "trees.h"
// The order matters: Python's own header first.
#include <numpy/arrayobject.h>

#include <array>
#include <unordered_map>

namespace stepstone::python {
namespace {

// Types that numpy does not know itself have a number that depends on who registered first, so that
// what a number means is asked once.
std::optional<DType> dtype_of(PyArray_Descr* descriptor) {
  if (PyDataType_ISBYTESWAPPED(descriptor)) return std::nullopt;
  if (PyDataType_HASFIELDS(descriptor) || PyDataType_HASSUBARRAY(descriptor)) return std::nullopt;
  static auto* const kKnown = new std::unordered_map<int, std::optional<DType>>();
  const auto found = kKnown->find(descriptor->type_num);
  if (found != kKnown->end()) return found->second;
  const nb::object name = nb::handle(reinterpret_cast<PyObject*>(descriptor)).attr("name");
  const std::optional<DType> dtype = dtype_from_name(nb::cast<std::string>(name));
  kKnown->emplace(descriptor->type_num, dtype);
  return dtype;
}

// A new reference; null: ml_dtypes, which knows this dtype, is not installed.
PyArray_Descr* descriptor_of(DType dtype) {
  static auto* const kKnown =
      new std::array<PyArray_Descr*, static_cast<std::size_t>(kDTypeLast) + 1>();
  PyArray_Descr*& descriptor = kKnown->at(static_cast<std::size_t>(dtype));
  if (descriptor == nullptr) {
    const std::string name(info(dtype).name);
    const nb::module_ numpy = nb::module_::import_("numpy");
    nb::object type = nb::str(name.c_str());
    if (!nb::hasattr(numpy, name.c_str()) && dtype != DType::kBool) {
      try {
        type = nb::module_::import_("ml_dtypes").attr(name.c_str());
      } catch (nb::python_error& error) {
        if (!error.matches(PyExc_ImportError)) throw;
        return nullptr;
      }
    }
    descriptor = reinterpret_cast<PyArray_Descr*>(numpy.attr("dtype")(type).release().ptr());
  }
  Py_INCREF(descriptor);
  return descriptor;
}

PyArray_Descr* bits_descriptor_of(DType dtype) {
  return descriptor_of(info(dtype).bits == 16 ? DType::kUint16 : DType::kUint8);
}

// One element per byte, as ml_dtypes has them; a sign fills the byte.
std::shared_ptr<std::byte[]> unpack(const Array& packed) {
  const DTypeInfo& type = info(packed.dtype());
  const std::uint64_t count = packed.element_count();
  std::shared_ptr<std::byte[]> bytes(new std::byte[count == 0 ? 1 : count]);
  const unsigned per_byte = 8U / type.bits;
  const unsigned mask = (1U << type.bits) - 1;
  const unsigned sign = type.kind == DTypeKind::kSigned ? 1U << (type.bits - 1) : 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const unsigned shift = static_cast<unsigned>(i % per_byte) * type.bits;
    unsigned element = (std::to_integer<unsigned>(packed.data()[i / per_byte]) >> shift) & mask;
    element = (element ^ sign) - sign;
    bytes[i] = static_cast<std::byte>(element & 0xFFU);
  }
  return bytes;
}

}  // namespace

Array pack(const Array& unpacked, DType dtype) {
  const unsigned bits = info(dtype).bits;
  const unsigned per_byte = 8U / bits;
  const unsigned mask = (1U << bits) - 1;
  const Array whole = unpacked.owned();
  Array packed = value_of(Array::zeros(dtype, unpacked.shape()));
  const std::span<std::byte> bytes = packed.mutable_bytes();
  for (std::uint64_t i = 0; i < whole.element_count(); ++i) {
    const unsigned element = std::to_integer<unsigned>(whole.data()[i]) & mask;
    bytes[i / per_byte] |= static_cast<std::byte>(element << ((i % per_byte) * bits));
  }
  return packed;
}

void import_numpy() {
  if (_import_array() < 0) throw nb::python_error();
}

bool is_numpy_array(nb::handle value) { return PyArray_CheckExact(value.ptr()); }

bool is_numpy_scalar(nb::handle value) { return PyArray_IsScalar(value.ptr(), Generic); }

std::optional<Array> borrow_numpy(nb::handle value) {
  nb::object made;
  if (is_numpy_scalar(value)) {
    made = nb::steal(PyArray_FromScalar(value.ptr(), nullptr));
    if (!made.is_valid()) throw nb::python_error();
    value = made;
  }
  auto* const array = reinterpret_cast<PyArrayObject*>(value.ptr());
  const std::optional<DType> dtype = dtype_of(PyArray_DESCR(array));
  if (!dtype) return std::nullopt;
  const auto rank = static_cast<std::size_t>(PyArray_NDIM(array));
  std::vector<std::uint64_t> shape(rank);
  std::vector<std::int64_t> strides(rank);
  for (std::size_t axis = 0; axis < rank; ++axis) {
    shape[axis] = static_cast<std::uint64_t>(PyArray_DIM(array, static_cast<int>(axis)));
    strides[axis] = PyArray_STRIDE(array, static_cast<int>(axis));
  }
  const auto* const data = static_cast<const std::byte*>(PyArray_DATA(array));
  const auto size = static_cast<std::size_t>(PyArray_NBYTES(array));
  if (info(*dtype).bits < 8) {
    return pack(value_of(Array::borrow_strided(DType::kUint8, shape, strides, data)), *dtype);
  }
  if (made.is_valid()) return value_of(Array::copy_bytes(*dtype, shape, {data, size}));
  if (PyArray_IS_C_CONTIGUOUS(array)) return value_of(Array::borrow(*dtype, shape, {data, size}));
  return value_of(Array::borrow_strided(*dtype, shape, strides, data));
}

nb::object numpy_array(const Array& given, NumpyForm form) {
  PyArray_Descr* descriptor = descriptor_of(given.dtype());
  if (descriptor == nullptr && form.as_bits) descriptor = bits_descriptor_of(given.dtype());
  if (descriptor == nullptr) {
    raise({ErrorCode::kUnsupported, "arrays of " + std::string(info(given.dtype()).name) +
                                        " need the package ml_dtypes: pip install ml_dtypes"});
  }
  // Borrowed memory is somebody else's, who may let it go.
  Array array = given.owned();
  const bool is_empty = array.element_count() == 0;
  const std::size_t rank = array.shape().size();
  std::vector<npy_intp> shape(rank);
  for (std::size_t axis = 0; axis < rank; ++axis) {
    shape[axis] = static_cast<npy_intp>(array.shape()[axis]);
  }
  // Whoever restores an array may write to it, unless it is mapped: nobody else has its memory.
  const std::byte* data = array.data();
  nb::capsule owner;
  if (info(array.dtype()).bits < 8) {
    auto* const bytes = new std::shared_ptr<std::byte[]>(unpack(array));
    data = bytes->get();
    owner = nb::capsule(bytes, [](void* held) noexcept {
      delete static_cast<std::shared_ptr<std::byte[]>*>(held);
    });
  } else {
    owner = nb::capsule(new Array(std::move(array)),
                        [](void* held) noexcept { delete static_cast<Array*>(held); });
  }
  PyObject* const made = PyArray_NewFromDescr(
      &PyArray_Type, descriptor, static_cast<int>(rank), shape.data(), nullptr,
      is_empty ? nullptr : const_cast<std::byte*>(data), NPY_ARRAY_CARRAY, nullptr);
  if (made == nullptr) throw nb::python_error();
  nb::object result = nb::steal(made);
  if (form.is_read_only) {
    PyArray_CLEARFLAGS(reinterpret_cast<PyArrayObject*>(made), NPY_ARRAY_WRITEABLE);
  }
  if (!is_empty &&
      PyArray_SetBaseObject(reinterpret_cast<PyArrayObject*>(made), owner.release().ptr()) != 0) {
    throw nb::python_error();
  }
  return result;
}

}  // namespace stepstone::python
