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
// all but zero is true.
Result<Array> cast(const Array& array, DType to, bool allow_lossy = false);

// The same without the loops that the common pairs have, to hold those against.
Result<Array> cast_one_by_one(const Array& array, DType to);

}  // namespace stepstone
