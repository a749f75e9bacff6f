#pragma once
// Casts between element types, for restoring into a target of another dtype.

#include "api/array.h"
#include "format/error.h"

namespace stepstone {

// Why a cast from `from` to `to` would lose what the type stands for, whatever the values: empty if
// it would not. Refused: real from complex, integer from float, bool from anything else.
std::string_view refusal(DType from, DType to);

// A contiguous array of dtype `to` with the elements of `array`. Floats round to nearest, ties to
// even; what is too large becomes infinity, or NaN where the type has none, or the largest value
// where it has neither. kMismatch: see refusal(), or an integer that does not fit (the message says
// which element). With allow_lossy nothing is refused: the imaginary part is dropped, a fraction is
// cut off, what does not fit becomes the nearest value that does, NaN becomes the integer 0, and
// all but zero is true. `first_element` is what the message counts from: the place of `array` in
// what it is a piece of.
Result<Array> cast(const Array& array, DType to, bool allow_lossy = false,
                   std::uint64_t first_element = 0);

// The errors of cast(): for dtypes, and for an integer that does not fit.
tl::unexpected<Error> cannot_cast(DType from, DType to, std::string_view why);
tl::unexpected<Error> does_not_fit(DType from, DType to, std::uint64_t element);

// The same without the loops that the common pairs have, to hold those against.
Result<Array> cast_one_by_one(const Array& array, DType to);

}  // namespace stepstone
