"""Helpers for arrays, as Orbax has them."""

from stepstone.tree import to_shape_dtype_struct

__all__ = ["to_shape_dtype_struct"]
