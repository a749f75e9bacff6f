"""Arrays of the newer style."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepstone.arrays import Shape, to_shape_dtype_struct

__all__ = [
    "AbstractArray",
    "AbstractScalar",
    "AbstractShardedArray",
    "ArrayLike",
    "DType",
    "Scalar",
    "Shape",
    "to_shape_dtype_struct",
]

DType = np.dtype[Any]
Scalar = AbstractScalar = int | float | complex | np.number[Any] | bytes | bool
# Anything with a shape and a dtype and, the second, with a sharding.
AbstractArray = AbstractShardedArray = ArrayLike = Any
