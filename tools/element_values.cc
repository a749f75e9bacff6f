#include "tools/element_values.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "api/cast.h"

namespace stepstone::tool {
namespace {

template <typename Element>
void read_as(std::span<const std::byte> bytes, std::uint64_t first, std::span<double> values) {
  const std::byte* const data = bytes.data() + first * sizeof(Element);
  for (std::size_t i = 0; i < values.size(); ++i) {
    Element element;
    std::memcpy(&element, data + i * sizeof(Element), sizeof(Element));
    values[i] = static_cast<double>(element);
  }
}

template <typename Part>
void read_magnitudes(std::span<const std::byte> bytes, std::uint64_t first,
                     std::span<double> values) {
  const std::byte* const data = bytes.data() + first * 2 * sizeof(Part);
  for (std::size_t i = 0; i < values.size(); ++i) {
    Part parts[2];
    std::memcpy(parts, data + i * sizeof(parts), sizeof(parts));
    // hypot() lets an infinity hide a NaN.
    values[i] = std::isnan(parts[0]) || std::isnan(parts[1])
                    ? std::numeric_limits<double>::quiet_NaN()
                    : std::hypot(static_cast<double>(parts[0]), static_cast<double>(parts[1]));
  }
}

void read_bfloat16(std::span<const std::byte> bytes, std::uint64_t first,
                   std::span<double> values) {
  const std::byte* const data = bytes.data() + first * 2;
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, data + 2 * i, 2);
    values[i] = static_cast<double>(std::bit_cast<float>(std::uint32_t{bits} << 16));
  }
}

// Every pattern of bits, in order, cast at once.
std::vector<double> values_of_all_patterns(DType dtype) {
  const unsigned bits = info(dtype).bits;
  const std::size_t count = std::size_t{1} << bits;
  std::vector<std::byte> patterns((count * bits + 7) / 8);
  for (std::size_t i = 0; i < count; ++i) {
    if (bits == 16) {
      patterns[2 * i] = static_cast<std::byte>(i & 0xFF);
      patterns[2 * i + 1] = static_cast<std::byte>(i >> 8);
    } else {
      patterns[i * bits / 8] |= static_cast<std::byte>(i << (i * bits % 8));
    }
  }
  std::vector<double> values(count);
  const auto array = Array::borrow(dtype, {count}, patterns);
  const auto doubles = array ? cast(*array, DType::kFloat64) : tl::unexpected<Error>(array.error());
  // Every real dtype casts to float64; bool would not, and has no table.
  if (doubles) std::memcpy(values.data(), doubles->data(), count * sizeof(double));
  return values;
}

bool needs_table(DType dtype) {
  const DTypeInfo& type = info(dtype);
  if (type.bits < 8) return true;
  return type.kind == DTypeKind::kFloat && type.bits <= 16 && dtype != DType::kBfloat16;
}

}  // namespace

ElementValues::ElementValues(DType dtype) : dtype_(dtype) {
  if (needs_table(dtype)) table_ = values_of_all_patterns(dtype);
}

void ElementValues::read(std::span<const std::byte> bytes, std::uint64_t first,
                         std::span<double> values) const {
  switch (dtype_) {
    case DType::kBool:
      for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = bytes[static_cast<std::size_t>(first) + i] != std::byte{0} ? 1.0 : 0.0;
      }
      return;
    case DType::kInt8:
      return read_as<std::int8_t>(bytes, first, values);
    case DType::kInt16:
      return read_as<std::int16_t>(bytes, first, values);
    case DType::kInt32:
      return read_as<std::int32_t>(bytes, first, values);
    case DType::kInt64:
      return read_as<std::int64_t>(bytes, first, values);
    case DType::kUint8:
      return read_as<std::uint8_t>(bytes, first, values);
    case DType::kUint16:
      return read_as<std::uint16_t>(bytes, first, values);
    case DType::kUint32:
      return read_as<std::uint32_t>(bytes, first, values);
    case DType::kUint64:
      return read_as<std::uint64_t>(bytes, first, values);
    case DType::kFloat32:
      return read_as<float>(bytes, first, values);
    case DType::kFloat64:
      return read_as<double>(bytes, first, values);
    case DType::kComplex64:
      return read_magnitudes<float>(bytes, first, values);
    case DType::kComplex128:
      return read_magnitudes<double>(bytes, first, values);
    case DType::kBfloat16:
      return read_bfloat16(bytes, first, values);
    default:
      break;
  }
  const unsigned bits = info(dtype_).bits;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto index = static_cast<std::size_t>(first) + i;
    std::uint16_t pattern = 0;
    if (bits == 16) {
      std::memcpy(&pattern, bytes.data() + 2 * index, 2);
    } else {
      const auto byte = std::to_integer<unsigned>(bytes[index * bits / 8]);
      pattern = static_cast<std::uint16_t>(byte >> (index * bits % 8) & ((1U << bits) - 1));
    }
    values[i] = table_[pattern];
  }
}

std::optional<DType> numeric_dtype(const LeafRecord& record) {
  switch (record.kind) {
    case LeafKind::kArray:
      return record.dtype;
    case LeafKind::kBool:
      return DType::kBool;
    case LeafKind::kInt64:
      return DType::kInt64;
    case LeafKind::kFloat64:
      return DType::kFloat64;
    case LeafKind::kComplex128:
      return DType::kComplex128;
    case LeafKind::kNone:
    case LeafKind::kBigInteger:
    case LeafKind::kString:
    case LeafKind::kBytes:
      return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace stepstone::tool
