#pragma once
// The head of numpy's .npy file format; the array's bytes follow it as they are.

#include <string>

#include "format/dtype.h"
#include "format/error.h"

namespace stepstone::tool {

// Everything before the data of a C-contiguous array, byte for byte as numpy.save of numpy 2 writes
// it. kUnsupported: numpy itself has no such dtype (bfloat16, the float8s, packed elements).
// kLimit: rank or size of the shape.
Result<std::string> npy_header(DType dtype, Shape shape);

}  // namespace stepstone::tool
