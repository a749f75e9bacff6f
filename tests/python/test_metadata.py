"""Metadata: what a checkpoint tells without its arrays being read, and restores into."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import trees

import stepstone as ocp
from stepstone.metadata import (
    ArrayMetadata,
    BytesMetadata,
    ScalarMetadata,
    StringMetadata,
    TreeMetadata,
)

Pair = collections.namedtuple("Pair", "first second")

TREE = {
    "array": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.zeros(3, np.float16),
    "empty": np.zeros((0, 4), np.int8),
    "rank 0": np.asarray(1.5),
    "scalar": np.float32(2),
    "plain": {"bool": True, "int": 3, "big": 2**70, "float": 0.5, "complex": 1j},
    "text": ["text", b"bytes", None],
    "nothing": {"dict": {}, "list": [], "tuple": ()},
    "pair": Pair(1, np.ones(2)),
    "a/b.c": (1, {7: 2}),
}


def metadata_of(directory: pathlib.Path, tree: Any, **more: Any) -> Any:
    with ocp.CheckpointManager(directory) as manager:
        manager.save(0, args=ocp.args.PyTreeSave(tree, **more))
        return manager.item_metadata(0)


def test_each_leaf_is_described_in_its_place(tmp_path: pathlib.Path) -> None:
    found = metadata_of(tmp_path, TREE, custom_metadata={"by": "test"})
    assert isinstance(found, TreeMetadata) and found.custom_metadata == {"by": "test"}
    assert not found.use_zarr3
    array = found["array"]
    assert type(array) is ArrayMetadata
    assert (array.name, array.shape, array.dtype, array.sharding) == (
        "array", (2, 3), np.float32, None,
    )
    assert array.storage.chunk_shape == (2, 3) and array.storage.chunk_size_bytes > 0
    assert array.ndim == 2 and array.directory is None
    assert (found["empty"].shape, found["half"].dtype) == ((0, 4), np.float16)
    for name in ("rank 0", "scalar"):
        assert type(found[name]) is ArrayMetadata and found[name].shape == ()
    plain = found["plain"]
    assert {type(leaf) for leaf in plain.values()} == {ScalarMetadata}
    assert [plain[name].dtype for name in ("bool", "int", "big", "float", "complex")] == [
        np.bool_, np.int64, np.object_, np.float64, np.complex128,
    ]
    assert [type(leaf) for leaf in found["text"]] == [StringMetadata, BytesMetadata, type(None)]
    assert found["nothing"] == {"dict": {}, "list": [], "tuple": ()}
    assert found["pair"].second.shape == (2,)
    assert found["a/b.c"][1][7].dtype == np.int64


def test_metadata_is_a_target_that_restores_all_as_it_was(tmp_path: pathlib.Path) -> None:
    found = metadata_of(tmp_path, TREE)
    with ocp.CheckpointManager(tmp_path) as manager:
        as_saved = manager.restore(0)
        for target in (found, found.tree):
            trees.assert_same(manager.restore(0, args=ocp.args.StandardRestore(target)), as_saved)
            trees.assert_same(manager.restore(0, args=ocp.args.PyTreeRestore(target)), as_saved)


def test_metadata_is_read_without_the_arrays_and_cannot_be_saved(tmp_path: pathlib.Path) -> None:
    found = metadata_of(tmp_path, TREE)
    for save in (ocp.args.StandardSave, ocp.args.PyTreeSave):
        with pytest.raises(ValueError, match="TreeMetadata"):
            save(found)


def test_tree_metadata_is_indexed_as_the_tree_is(tmp_path: pathlib.Path) -> None:
    found = metadata_of(tmp_path / "dict", TREE)
    assert list(found) == list(TREE) and len(found) == len(TREE) and "pair" in found
    assert found.get("other") is None and found.get("text") is found["text"]
    with pytest.raises(KeyError):
        found["other"]
    sequence = metadata_of(tmp_path / "list", [1, 2.5])
    assert sequence[1].dtype == np.float64 and len(sequence) == 2 and sequence.get(5) is None
    single = metadata_of(tmp_path / "leaf", np.zeros(3))
    assert single.tree.shape == (3,)


def test_metadata_compares_by_what_it_says_of_the_values(tmp_path: pathlib.Path) -> None:
    one, other = metadata_of(tmp_path / "one", TREE), metadata_of(tmp_path / "other", TREE)
    assert one == other and one["array"] == other["array"]
    assert one["array"] != one["half"] and one["text"][0] != one["text"][1]
    assert ScalarMetadata("a", None, dtype=np.dtype(int)) == ScalarMetadata(
        "b", None, dtype=np.dtype(int)
    )
    assert one != TREE and one["array"] != 3


def test_metadata_shows_a_tree_with_one_line_for_each_leaf(tmp_path: pathlib.Path) -> None:
    found = metadata_of(tmp_path, {"params": {"w": np.zeros((2, 3), np.float32)}, "n": 1, "e": []})
    assert repr(found) == (
        "TreeMetadata\n├── params\n│   └── w  float32[2,3]  24 B\n├── n  int\n└── e  (empty)"
    )
    assert "float32[2,3]" in found._repr_html_() and "<summary>" in found._repr_html_()
    many = metadata_of(tmp_path / "many", {str(number): number for number in range(2000)})
    assert repr(many).endswith("...") and repr(many).count("\n") < 600


def test_items_without_metadata_are_none(tmp_path: pathlib.Path) -> None:
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(
            0,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave({"a": 1}), extra=ocp.args.JsonSave({"b": 2})
            ),
        )
        found = manager.item_metadata(0)
        assert isinstance(found, ocp.args.Composite)
        assert found.state["a"].dtype == np.int64 and found.extra is None
        assert manager.metadata(0).item_handlers == {"state": "standard", "extra": "json"}


def test_metadata_of_a_path_is_that_of_the_step(tmp_path: pathlib.Path) -> None:
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(3, args=ocp.args.StandardSave(TREE), metrics={"m": 1})
        manager.wait_until_finished()
        by_path = ocp.metadata.get_step_metadata(tmp_path / "3")
        assert by_path.metrics == {"m": 1}
        assert by_path.item_metadata == manager.item_metadata(3)
        with pytest.raises(FileNotFoundError):
            ocp.metadata.get_step_metadata(tmp_path / "4")


def test_dtypes_of_ml_dtypes_are_described(tmp_path: pathlib.Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is absent, and its dtypes")
    found = metadata_of(tmp_path, {"a": np.zeros(2, ml_dtypes.bfloat16)})
    assert found["a"].dtype == ml_dtypes.bfloat16


def test_the_namespaces_of_orbax_are_there() -> None:
    assert ocp.metadata.value.ArrayMetadata is ArrayMetadata
    assert ocp.metadata.tree.TreeMetadata is TreeMetadata


JAX_PROGRAM = """
import sys
import numpy as np
import stepstone as ocp

with ocp.CheckpointManager(sys.argv[1]) as manager:
    state = {"a": [np.zeros((2, 3)), 1]}
    manager.save(0, args=ocp.args.StandardSave(state, custom_metadata={"x": [1]}))
    import jax
    found = manager.item_metadata(0)
    shapes = jax.tree.map(lambda leaf: leaf.shape, found)
    assert isinstance(shapes, ocp.metadata.TreeMetadata) and shapes.custom_metadata == {"x": [1]}
    assert shapes.tree == {"a": [(2, 3), ()]}, shapes.tree
    assert len(jax.tree.leaves(found)) == 2
    assert jax.tree.structure(found) == jax.tree.structure(manager.item_metadata(0))
    hash(jax.tree.structure(found))
    ((path, _), _), _ = jax.tree_util.tree_flatten_with_path(found)
    assert jax.tree_util.keystr(path) == ".tree['a'][0]", path
"""


def test_tree_metadata_is_a_pytree_where_jax_is(
    tmp_path: pathlib.Path, run_python: Callable[..., str]
) -> None:
    pytest.importorskip("jax", reason="jax is absent, and with it pytrees")
    run_python(JAX_PROGRAM, tmp_path)
