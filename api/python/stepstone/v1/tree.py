"""Trees of the newer style.

| a leaf | restored with a target of | has |
|---|---|---|
| `jax.Array` | `jax.ShapeDtypeStruct` | shape, dtype, sharding |
| `numpy.ndarray`, `torch.Tensor` | an array, or anything with shape and dtype | shape, dtype |
| bool, int, float, complex, str, bytes | a value, or the type | |
"""

from __future__ import annotations

from typing import Any

from stepstone.tree import merge_trees as merge

__all__ = [
    "AbstractLeaf",
    "JsonType",
    "Leaf",
    "PyTree",
    "PyTreeKey",
    "PyTreeKeyPath",
    "PyTreeOf",
    "merge",
]

# For annotations; no type checker can tell a tree from another object.
PyTree = PyTreeOf = Leaf = AbstractLeaf = JsonType = PyTreeKey = Any
PyTreeKeyPath = tuple[Any, ...]
