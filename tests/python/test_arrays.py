"""`ocp.arrays`."""

from __future__ import annotations

import pytest

from stepstone import arrays


def test_maximal_shardings_cut_arrays_as_far_as_devices_go() -> None:
    jax = pytest.importorskip("jax", reason="shardings are jax's")
    devices = jax.devices()
    if len(devices) < 4:
        pytest.skip("needs four devices")
    target = {
        name: jax.ShapeDtypeStruct(shape, "float32")
        for name, shape in {"w": (8, 3), "b": (2,), "one": (), "two": (6, 4), "odd": (5, 7)}.items()
    }
    shardings = arrays.construct_maximal_shardings(target, devices[:4])
    parts = {name: shardings[name].shard_shape(target[name].shape) for name in target}
    assert parts == {"w": (2, 3), "b": (2,), "one": (), "two": (3, 2), "odd": (5, 7)}
    for sharding in shardings.values():
        assert len(sharding.device_set) == 4
