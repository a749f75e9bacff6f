#include "api/leaf_form.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "api/array_region.h"
#include "api/cast.h"
#include "api/leaf_bytes.h"

namespace stepstone {
namespace {

// A number as an array, or an array; nullopt for anything else.
std::optional<Array> as_array(const Leaf& leaf) {
  const auto scalar = [](DType dtype, const std::string& bytes) {
    // A scalar of 16 bytes at most is always within the limits.
    return *Array::copy_bytes(dtype, {}, std::as_bytes(std::span(bytes)));
  };
  if (const auto* array = std::get_if<Array>(&leaf)) return *array;
  if (const auto* value = std::get_if<bool>(&leaf)) return scalar(DType::kBool, bytes_of(*value));
  if (const auto* value = std::get_if<std::int64_t>(&leaf)) {
    return scalar(DType::kInt64, bytes_of(*value));
  }
  if (const auto* value = std::get_if<double>(&leaf)) {
    return scalar(DType::kFloat64, bytes_of(*value));
  }
  if (const auto* value = std::get_if<std::complex<double>>(&leaf)) {
    return scalar(DType::kComplex128, bytes_of(*value));
  }
  return std::nullopt;
}

// Element type and shape of what is, or can stand for, an array.
std::optional<AbstractArray> array_form(const Leaf& leaf) {
  if (const auto* array = std::get_if<Array>(&leaf)) {
    return AbstractArray{array->dtype(), array->shape()};
  }
  if (const auto* array = std::get_if<AbstractArray>(&leaf)) return *array;
  if (std::holds_alternative<bool>(leaf)) return AbstractArray{DType::kBool, {}};
  if (std::holds_alternative<std::int64_t>(leaf)) return AbstractArray{DType::kInt64, {}};
  if (std::holds_alternative<double>(leaf)) return AbstractArray{DType::kFloat64, {}};
  if (std::holds_alternative<std::complex<double>>(leaf)) {
    return AbstractArray{DType::kComplex128, {}};
  }
  return std::nullopt;
}

bool is_array(const Leaf& leaf) {
  return std::holds_alternative<Array>(leaf) || std::holds_alternative<AbstractArray>(leaf);
}

bool may_become(const std::vector<std::uint64_t>& from, const std::vector<std::uint64_t>& to,
                const RestoreArgs& args) {
  if (from.size() != to.size()) return false;
  for (std::size_t axis = 0; axis < from.size(); ++axis) {
    if (from[axis] < to[axis] && !args.pad) return false;
    if (from[axis] > to[axis] && !args.truncate) return false;
  }
  return true;
}

Result<void> check_destination(const AbstractArray& array, const RestoreArgs& args) {
  if (args.destination.empty()) return {};
  const std::uint64_t size = STEPSTONE_TRY(array_size_bytes(array.dtype, array.shape));
  if (args.destination.size() == size) return {};
  return fail(ErrorCode::kInvalidArgument,
              fmt::format("{} needs a destination of {} bytes, not {}", describe(Leaf(array)), size,
                          args.destination.size()));
}

// Of the one element of `array`.
Leaf scalar_of(const Array& array) {
  const std::byte* const data = array.data();
  double parts[2] = {};
  std::int64_t integer = 0;
  switch (array.dtype()) {
    case DType::kBool:
      return Leaf(data[0] != std::byte{0});
    case DType::kInt64:
      std::memcpy(&integer, data, sizeof(integer));
      return Leaf(integer);
    case DType::kFloat64:
      std::memcpy(parts, data, sizeof(double));
      return Leaf(parts[0]);
    default:
      std::memcpy(parts, data, sizeof(parts));
      return Leaf(std::complex<double>(parts[0], parts[1]));
  }
}

}  // namespace

std::string describe(const Leaf& leaf) {
  struct Describer {
    std::string operator()(const Array& array) const {
      return fmt::format("an array {} {}", to_string(array.dtype()), to_string(array.shape()));
    }
    std::string operator()(const AbstractArray& array) const {
      return fmt::format("an array {} {}", to_string(array.dtype), to_string(array.shape));
    }
    std::string operator()(const None& /*none*/) const { return "None"; }
    std::string operator()(const Placeholder& /*leaf*/) const { return "a placeholder"; }
    std::string operator()(bool /*value*/) const { return "a bool"; }
    std::string operator()(std::int64_t /*value*/) const { return "an int"; }
    std::string operator()(const BigInteger& /*value*/) const { return "a big int"; }
    std::string operator()(double /*value*/) const { return "a float"; }
    std::string operator()(const std::complex<double>& /*value*/) const { return "a complex"; }
    std::string operator()(const std::string& /*value*/) const { return "a string"; }
    std::string operator()(const Bytes& /*value*/) const { return "bytes"; }
  };
  return std::visit(Describer{}, leaf);
}

Result<LeafForm> form_of(const Leaf& stored, const Leaf* target, const RestoreArgs& args) {
  const auto mismatch = [&](const Leaf& asked, std::string_view hint = {}) {
    return fail(ErrorCode::kMismatch, fmt::format("the checkpoint has {}, the target asks for {}{}",
                                                  describe(stored), describe(asked), hint));
  };
  const Leaf& wanted = target == nullptr ? stored : *target;
  std::optional<AbstractArray> form = array_form(wanted);
  const bool wants_array = is_array(wanted);
  if (!form || (target == nullptr && !wants_array)) {
    if (stored.index() != wanted.index()) return mismatch(wanted);
    if (args.destination.empty()) return LeafForm();
    return fail(ErrorCode::kMismatch, describe(stored) + " has no place in a destination");
  }
  const std::optional<AbstractArray> from = array_form(stored);
  if (!from) return mismatch(wanted);
  if (wants_array) {
    if (args.dtype) form->dtype = *args.dtype;
    if (args.shape) form->shape = *args.shape;
    STEPSTONE_TRY(check_destination(*form, args));
  } else if (!args.destination.empty()) {
    return fail(ErrorCode::kMismatch, describe(wanted) + " has no place in a destination");
  }
  if (from->shape != form->shape && !may_become(from->shape, form->shape, args)) {
    const bool has_rank = from->shape.size() == form->shape.size();
    return mismatch(wants_array ? Leaf(*form) : wanted,
                    has_rank ? "; set pad or truncate if that is meant" : "");
  }
  if (const std::string_view why = refusal(from->dtype, form->dtype);
      !why.empty() && !args.allow_lossy_cast) {
    return fail(ErrorCode::kMismatch,
                fmt::format("cannot cast {} to {}: {}", to_string(from->dtype),
                            to_string(form->dtype), why));
  }
  return LeafForm{std::move(form), !wants_array};
}

Result<Leaf> into_form(Leaf leaf, const LeafForm& form, const RestoreArgs& args) {
  if (!form.array) return Result<Leaf>(std::move(leaf));
  const std::optional<Array> source = as_array(leaf);
  if (!source) return fail(ErrorCode::kMismatch, describe(leaf) + " is no array");
  Array array = STEPSTONE_TRY(cast(*source, form.array->dtype, args.allow_lossy_cast));
  if (array.shape() != form.array->shape) {
    array = STEPSTONE_TRY(resized(array, form.array->shape));
  }
  if (form.is_scalar) return scalar_of(array);
  if (args.destination.empty()) return Leaf(std::move(array));
  if (array.data() != args.destination.data()) {
    std::memcpy(args.destination.data(), array.data(), args.destination.size());
  }
  return Leaf(STEPSTONE_TRY(
      Array::borrow(form.array->dtype, form.array->shape, std::span(args.destination))));
}

}  // namespace stepstone
