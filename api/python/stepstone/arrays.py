"""Helpers for arrays, as Orbax has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from stepstone.tree import to_shape_dtype_struct

__all__ = ["Index", "Shape", "construct_maximal_shardings", "to_shape_dtype_struct"]

Shape = tuple[int, ...]
Index = tuple[slice, ...]


def construct_maximal_shardings(abstract_state: Any, devices: Sequence[Any] | None = None) -> Any:
    """Shardings that cut each array into as many parts as there are devices, as far as it goes.

    Parameters
    ----------
    abstract_state : tree of jax.ShapeDtypeStruct or jax.Array
        What is to be sharded.
    devices : sequence of jax.Device, optional
        All devices of jax without it.

    Returns
    -------
    tree of jax.sharding.NamedSharding
        An axis is cut where its extent is at least the number of devices that are left over, and
        has a divisor in common with it. Where devices are left over in the end, each part is on
        several of them.
    """
    import jax

    found = np.asarray(jax.devices() if devices is None else devices, dtype=object)
    return jax.tree.map(lambda leaf: _maximal_sharding(tuple(leaf.shape), found), abstract_state)


def _maximal_sharding(shape: Shape, devices: np.ndarray[Any, Any]) -> Any:
    import jax

    sharding: Any = jax.sharding
    left = devices.size
    counts: list[int] = []
    cut: list[str | None] = []
    for extent in shape:
        parts = math.gcd(extent, left) if extent >= left else 1
        if parts == 1:
            cut.append(None)
            continue
        left //= parts
        cut.append(f"axis_{len(counts)}")
        counts.append(parts)
    names = [f"axis_{number}" for number in range(len(counts))]
    mesh = sharding.Mesh(devices.reshape([*counts, left]), (*names, "copies"))
    return sharding.NamedSharding(mesh, sharding.PartitionSpec(*cut))
