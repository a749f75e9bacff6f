"""What is saved comes back: the same types, shapes and bits, for any tree; what fails in Orbax too."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import trees
from trees import ML_DTYPES, NUMPY_DTYPES, assert_same, dtype_of, elements, map_leaves

import stepstone as ocp

SETTINGS = hypothesis.settings(max_examples=150)


class Store:
    """A manager that is kept open, as opening one for each example would take most of the time."""

    def __init__(self, directory: pathlib.Path):
        options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False, max_to_keep=3)
        self.manager = ocp.CheckpointManager(directory, options=options)
        self.steps = itertools.count()

    def save(self, tree: Any) -> int:
        """As a standard item; a single leaf, which that refuses as Orbax does, as a pytree."""
        step = next(self.steps)
        save = ocp.args.PyTreeSave if trees.is_leaf(tree) else ocp.args.StandardSave
        assert self.manager.save(step, args=save(tree))
        return step

    def restore(self, tree: Any, target: Any = None) -> Any:
        restore = ocp.args.PyTreeRestore if trees.is_leaf(tree) else ocp.args.StandardRestore
        return self.manager.restore(self.save(tree), args=restore(target))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(tmp_path_factory.mktemp("store"))
    yield store
    store.manager.close()


def abstract(leaf: Any) -> Any:
    """What says only the kind of a leaf: the shape and dtype of an array, the type of a number."""
    if isinstance(leaf, np.ndarray):
        return Abstract(leaf.shape, leaf.dtype)
    if type(leaf) in (bool, int, float, str):
        return type(leaf)
    return leaf


@dataclasses.dataclass(frozen=True)
class Abstract:
    """As jax.ShapeDtypeStruct: shape and dtype are all that is asked of such an object."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def other_value(leaf: Any) -> Any:
    """A leaf of the same kind with nothing of the value in it."""
    if isinstance(leaf, (np.ndarray, np.generic)):
        zeros = np.zeros(leaf.shape, leaf.dtype)
        return zeros if isinstance(leaf, np.ndarray) else zeros[()]
    return leaf if leaf is None else type(leaf)()


@SETTINGS
@hypothesis.given(tree=trees.trees(with_types=True))
def test_any_tree_comes_back_as_it_was_saved(store: Store, tree: Any) -> None:
    # A numpy scalar comes back as what numpy makes of it: an array without axes, of its dtype.
    expected = map_leaves(lambda leaf: np.asarray(leaf) if isinstance(leaf, np.generic) else leaf, tree)
    assert_same(store.restore(tree), expected)


@SETTINGS
@hypothesis.given(tree=trees.trees(with_types=True))
def test_any_tree_comes_back_into_a_target_of_its_own_kind(store: Store, tree: Any) -> None:
    assert_same(store.restore(tree, map_leaves(other_value, tree)), tree)


@SETTINGS
@hypothesis.given(tree=trees.trees(with_types=True))
def test_any_tree_comes_back_into_a_target_that_only_says_kinds(store: Store, tree: Any) -> None:
    assert_same(store.restore(tree, map_leaves(abstract, tree)), tree)


@SETTINGS
@hypothesis.given(tree=trees.trees(with_types=True), data=st.data())
def test_leaves_with_a_placeholder_are_not_restored_and_all_others_are(
    store: Store, tree: Any, data: st.DataObject
) -> None:
    chosen = []

    def choose(leaf: Any) -> Any:
        chosen.append(data.draw(st.booleans()))
        return leaf if chosen[-1] else ocp.PLACEHOLDER

    target = map_leaves(choose, tree)
    left = iter(chosen)
    expected = map_leaves(lambda leaf: leaf if next(left) else ocp.PLACEHOLDER, tree)
    assert_same(store.restore(tree, target), expected)


@SETTINGS
@hypothesis.given(
    tree=st.dictionaries(trees.KEYS, trees.trees(max_leaves=3), max_size=6), data=st.data()
)
def test_a_partial_restore_gives_the_named_part_and_nothing_else(
    store: Store, tree: dict[Any, Any], data: st.DataObject
) -> None:
    part = {key: value for key, value in tree.items() if data.draw(st.booleans())}
    step = store.save(tree)
    args = ocp.args.PyTreeRestore(item=part, partial_restore=True)
    assert_same(store.manager.restore(step, args=args), part)


@SETTINGS
@hypothesis.given(array=trees.arrays())
def test_an_array_in_a_tree_is_numpys_own_with_its_own_memory(store: Store, array: Any) -> None:
    saved = array.copy()
    found = store.restore({"a": array})["a"]
    assert type(found) is np.ndarray
    assert found.flags.c_contiguous and found.flags.writeable
    assert found.size == 0 or not np.shares_memory(found, array)
    assert_same(found, np.ascontiguousarray(saved).reshape(saved.shape))


@hypothesis.settings(max_examples=25)
@hypothesis.given(tree=trees.trees())
def test_the_function_and_the_checkpointer_give_the_same(
    tmp_path_factory: pytest.TempPathFactory, tree: Any
) -> None:
    hypothesis.assume(tree is not None)  # Nothing to save, for both of them as for Orbax.
    directory = tmp_path_factory.mktemp("checkpoint")
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(directory / "one", args=ocp.args.PyTreeSave(tree))
        ocp.save(directory / "two", tree)
        assert_same(ocp.load(directory / "two"), checkpointer.restore(directory / "one"))


def test_names_that_collide_when_they_are_joined_stay_apart(store: Store) -> None:
    tree = {"a.b": np.full(2, 1.0), "a": {"b": np.full(2, 2.0)}, "a/b": 3, "a\\.b": {"": 4}}
    assert_same(store.restore(tree), tree)


def test_keys_that_read_the_same_stay_apart(store: Store) -> None:
    tree = {"0": "string", 0: "integer", "list": ["zero"], "dict": {0: "zero"}}
    assert_same(store.restore(tree), tree)


@pytest.mark.parametrize("name", NUMPY_DTYPES + ML_DTYPES)
def test_every_dtype_comes_back(store: Store, name: str) -> None:
    random_bytes = np.random.default_rng(7).bytes(24 * dtype_of(name).itemsize)
    array = elements(name, 24, random_bytes)
    tree = {"c": array.reshape(2, 3, 4), "f": np.asfortranarray(array.reshape(4, 6)),
            "scalar": array[3], "none": array[:0].reshape(0, 5), "rank 0": array[1].reshape(())}
    target = {**tree, "scalar": array[0]}
    assert_same(store.restore(tree, target), tree)


# What Orbax refuses, or gives back as something else.
HARD_LEAVES: dict[str, Any] = {
    "complex": 1.5 - 2j,
    "bytes": b"\x00bytes that are no text\xff",
    "no bytes": b"",
    "a string": "grüße",
    "no string": "",
    "numpy's bool": np.bool_(True),
    "a big integer": 2**200 + 1,
    "a negative big integer": -(2**64),
    "the largest unsigned": 2**64 - 1,
    "no elements": np.zeros((0,), np.float32),
    "no rows": np.zeros((0, 3), np.int8),
    "no columns": np.zeros((3, 0, 2)),
    "a float32 number": np.float32(2),
    "a uint8 number": np.uint8(200),
    "a complex64 number": np.complex64(1 + 2j),
    "not a number": float("nan"),
    "negative zero": -0.0,
    "None": None,
    "fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big-endian": np.arange(4, dtype=">i4"),
    "dates": np.array(["2024-02-29", "NaT"], "datetime64[D]"),
    "a date": np.datetime64("2024-02-29T12:00", "us"),
    "durations": np.array([1, -5], "timedelta64[ms]"),
    "text in an array": np.array(["a", "bcd", "ü"]),
    "bytes in an array": np.array([b"a", b"bcd"]),
}


@pytest.mark.parametrize("name", HARD_LEAVES)
def test_leaves_that_fail_elsewhere_come_back_into_a_target(store: Store, name: str) -> None:
    leaf = HARD_LEAVES[name]
    assert_same(store.restore({"leaf": leaf}, {"leaf": leaf})["leaf"], leaf)


@pytest.mark.parametrize("name", HARD_LEAVES)
def test_leaves_that_fail_elsewhere_come_back_without_a_target(store: Store, name: str) -> None:
    leaf = HARD_LEAVES[name]
    found = store.restore({"leaf": leaf})["leaf"]
    expected = np.asarray(leaf) if isinstance(leaf, np.generic) else leaf
    if isinstance(expected, np.ndarray) and not expected.dtype.isnative:
        # The same numbers, in the usual order.
        expected = expected.astype(expected.dtype.newbyteorder("="))
    assert_same(found, expected)


@pytest.mark.parametrize("name", ["uint4", "int2", "float4_e2m1fn", "float8_e4m3"])
def test_narrow_numbers_of_ml_dtypes_come_back(store: Store, name: str) -> None:
    if name not in ML_DTYPES:
        pytest.skip("ml_dtypes is absent")
    array = elements(name, 9, bytes(range(40, 49)))
    assert_same(store.restore({"leaf": array})["leaf"], array)


@pytest.mark.parametrize(
    "leaf",
    [
        object(), np.array([object(), None]), datetime.date(2024, 1, 1), {1, 2}, print,
        np.ones(2, np.longdouble), np.zeros(2, [("n", "i4"), ("x", "f8")]),
    ],
    ids=["object", "array of objects", "date", "set", "function", "long doubles", "structured array"],
)
def test_what_cannot_be_stored_is_refused_by_name_and_nothing_is_saved(
    store: Store, leaf: Any
) -> None:
    steps = store.manager.all_steps()
    with pytest.raises((TypeError, ValueError), match="layer.*weird|weird"):
        store.save({"layer": {"weird": leaf, "good": 1}})
    assert store.manager.all_steps() == steps


@pytest.mark.parametrize("root", [3, "text", np.arange(3), None, [], (), {}, [None], ({},)],
                         ids=repr)
def test_a_root_of_any_kind_comes_back(store: Store, root: Any) -> None:
    assert_same(store.restore(root), root)


@dataclasses.dataclass
class Settings:
    rate: float
    name: str
    sizes: list[int]


def test_dataclasses_and_named_tuples_come_back_into_targets(store: Store) -> None:
    tree = {"settings": Settings(0.5, "small", [1, 2]), "pair": trees.Pair(np.arange(3), trees.Empty())}
    target = {"settings": Settings(0.0, "", [0, 0]), "pair": trees.Pair(np.zeros(3, int), trees.Empty())}
    found = store.restore(tree, target)
    assert_same(found["pair"], tree["pair"])
    assert found["settings"] == tree["settings"]


def test_an_array_that_changes_after_a_save_in_the_background_began_is_saved_as_it_was(
    tmp_path: pathlib.Path,
) -> None:
    array = np.arange(1_000_000, dtype=np.float32)
    saved = array.copy()
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        manager.save(0, args=ocp.args.StandardSave({"a": array}))
        array[:] = -1
        manager.wait_until_finished()
        assert_same(manager.restore(0)["a"], saved)


def test_a_shape_that_differs_is_an_error_that_names_the_leaf(store: Store) -> None:
    with pytest.raises(ValueError, match="layer/weight") as caught:
        store.restore({"layer": {"weight": np.zeros((2, 3))}}, {"layer": {"weight": np.zeros((3, 3))}})
    assert "3" in str(caught.value)


def test_names_that_differ_are_an_error_that_names_them(store: Store) -> None:
    with pytest.raises(ValueError, match="more"):
        store.restore({"a": 1}, {"a": 0, "more": 0})
    with pytest.raises(ValueError, match="extra"):
        store.restore({"a": 1, "extra": 2}, {"a": 0})
