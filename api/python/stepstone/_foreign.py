"""What the converters of jax's, torch's and numpy's objects share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stepstone import _native

# Elements of fewer than 8 bits: the native module packs them, which makes a copy of an array.
PACKED_DTYPES = frozenset({"int2", "int4", "uint2", "uint4", "float4_e2m1fn"})


class RefusedLeaf(Exception):
    """A leaf cannot be stored. Raised where only the leaf is known; `_tree` adds its path."""

    def __init__(self, value: Any, why: str) -> None:
        super().__init__(why)
        self.value = value
        self.why = why


_memory = np.zeros(16, np.uint8)  # As large as any element.
_pointer: int = _memory.__array_interface__["data"][0]


def stand_in(dtype: str, shape: Sequence[int]) -> _native.Array:
    """In a target, what stands for an array with elements, without fetching them from a device.

    A target's elements are never read: a leaf that keeps its value gets the target's own object.
    Not for PACKED_DTYPES.
    """
    return _native.Array(dtype, shape, _pointer, [0] * len(shape), _memory, False)
