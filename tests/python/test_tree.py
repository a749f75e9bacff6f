"""The public helpers for trees, without jax and, where it is there, as Orbax's behave with it."""

from __future__ import annotations

import collections
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest

from stepstone import tree as trees


class Pair(NamedTuple):
    left: Any
    right: Any


NESTED = {"b": [1, {"c": 2}], "a": Pair(3, None), "e": {}}


def test_flat_dicts_have_paths_of_strings() -> None:
    assert trees.to_flat_dict(NESTED) == {("b", "0"): 1, ("b", "1", "c"): 2, ("a", "left"): 3}
    assert trees.to_flat_dict(NESTED, sep=".") == {"b.0": 1, "b.1.c": 2, "a.left": 3}
    kept = trees.to_flat_dict(NESTED, keep_empty_nodes=True)
    assert kept[("a", "right")] is None and kept[("e",)] == {}
    pairs = trees.to_flat_dict(NESTED, is_leaf=lambda value: isinstance(value, Pair))
    assert pairs[("a",)] == Pair(3, None)
    assert trees.to_flat_dict(5) == {(): 5}


def test_two_leaves_with_one_path_are_an_error_and_not_one_leaf() -> None:
    with pytest.raises(ValueError, match="two leaves"):
        trees.to_flat_dict({"a/b": 1, "a": {"b": 2}}, sep="/")
    with pytest.raises(ValueError, match="two leaves"):
        trees.to_flat_dict({1: "x", "1": "y"})


def test_flat_dicts_become_trees_again() -> None:
    flat = trees.to_flat_dict(NESTED)
    assert trees.from_flat_dict(flat, target=NESTED) == NESTED
    assert trees.from_flat_dict(flat) == {"b": {"0": 1, "1": {"c": 2}}, "a": {"left": 3}}
    assert trees.from_flat_dict({(): 5}) == 5
    copy = dict(flat)
    trees.from_flat_dict(copy, inplace=True)
    assert copy == {}
    with pytest.raises(KeyError):
        trees.from_flat_dict({}, target=NESTED)
    for bad in ({"a": 1, "a/b": 2}, {"a/b": 2, "a": 1}):
        with pytest.raises(ValueError, match="below"):
            trees.from_flat_dict(bad, sep="/")
    # A leaf that is a dict is a leaf.
    with pytest.raises(ValueError, match="below"):
        trees.from_flat_dict({"a": {}, "a/b": 2}, sep="/")


def test_serialized_trees_are_dicts_and_lists() -> None:
    assert trees.serialize_tree(NESTED) == {"b": [1, {"c": 2}], "a": {"left": 3}}
    kept = trees.serialize_tree(NESTED, keep_empty_nodes=True)
    assert kept == {"b": [1, {"c": 2}], "a": {"left": 3, "right": None}, "e": {}}
    assert trees.deserialize_tree(trees.serialize_tree(NESTED), NESTED) == NESTED
    assert trees.deserialize_tree(kept, NESTED, keep_empty_nodes=True) == NESTED
    with pytest.raises(ValueError, match="without leaves"):
        trees.serialize_tree({})
    with pytest.raises(KeyError, match="b/0"):
        trees.deserialize_tree({"b": []}, NESTED)


def test_parameters_have_names() -> None:
    assert trees.get_param_names(NESTED) == {
        "b": ["b.0", {"c": "b.1.c"}], "a": Pair("a.left", "a.right"), "e": "e"
    }
    named = trees.get_param_names(NESTED, include_empty_nodes=False)
    assert named["e"] == {} and named["a"].right is None


def test_differences_are_a_tree() -> None:
    first = {"x": [1, 2, 3], "y": "same", "z": {"p": {}, "q": 4, "r": 6}}
    second = {"x": [1, 3], "y": "same", "z": {"p": {}, "q": 5, "s": 6}}
    assert trees.tree_difference(first, second) == {
        "x": trees.Diff((list, 3), (list, 2)),
        "z": {"r": trees.Diff(6, None), "s": trees.Diff(None, 6)},
    }
    assert trees.tree_difference(first, first) is None
    by_value = trees.tree_difference({"q": 4}, {"q": 5}, leaves_equal=lambda a, b: a == b)
    assert by_value == {"q": trees.Diff(4, 5)}
    assert trees.tree_difference(Pair(1, 2), Pair(1, "2")) == Pair(None, trees.Diff(2, "2"))
    assert trees.tree_difference([1], (1,)) == trees.Diff(list, tuple)


def test_trees_are_trimmed() -> None:
    dropped: list[Any] = []

    def drop(path: Any, value: Any) -> None:
        dropped.append((path, value))

    template = {"a": 0, "b": [{"c": 0}], "n": None}
    structure = {"a": 1, "b": [{"c": 2, "d": 3}], "e": 4, "n": {"m": 5}}
    trimmed = trees.tree_trim(template, structure, trimmed_structure_callback=drop)
    assert trimmed == {"a": 1, "b": [{"c": 2}], "n": None}
    assert sorted(dropped) == [(("b", 0, "d"), 3), (("e",), 4), (("n", "m"), 5)]
    with pytest.raises(ValueError, match="missing"):
        trees.tree_trim({"x": 0}, {})
    assert trees.tree_trim({"x": [0, 0]}, {}, strict=False) == {"x": [..., ...]}
    assert trees.tree_trim(Pair(0, 0), {"left": 1, "right": 2}) == Pair(1, 2)
    assert trees.tree_trim(Pair(0, 0), (1, 2)) == Pair(1, 2)
    for template, structure, error in [
        ([0], [1, 2], ValueError),
        ({"a": 0}, {"a": [1]}, TypeError),
        ({"a": [0]}, {"a": 1}, TypeError),
        ({"0": 0}, [1], TypeError),
        ([0], {"0": 1}, TypeError),
    ]:
        with pytest.raises(error):
            trees.tree_trim(template, structure)
    aligned = trees.tree_trim({"0": 0}, [1, 2], allow_sequence_mapping_alignment=True)
    assert aligned == {"0": 1}


def test_trees_are_merged() -> None:
    assert trees.merge_trees({"a": 1, "b": {"c": 2}}, {"d": 3, "b": {"e": 4}}) == {
        "a": 1, "b": {"c": 2, "e": 4}, "d": 3
    }
    assert trees.merge_trees(Pair(1, None), Pair(None, 2)) == Pair(1, 2)
    assert trees.merge_trees([1, None], [None, 2]) == [1, 2]
    assert trees.merge_trees({"a": 1}, {"a": [2]}, overwrite=True) == {"a": [2]}
    assert trees.merge_trees() == {}
    ordered = trees.merge_trees(collections.OrderedDict(a=1), collections.OrderedDict(b=2))
    assert type(ordered) is collections.OrderedDict
    for bad in [({"a": 1}, {"a": 2}), ({"a": [1]}, {"a": {"b": 1}}), ([1], [2, 3])]:
        with pytest.raises(ValueError):
            trees.merge_trees(*bad)


def test_shapes_and_dtypes_stand_for_arrays() -> None:
    target = trees.to_shape_dtype_struct(np.zeros((2, 3), np.int8))
    assert target.shape == (2, 3) and target.dtype == np.int8
    assert trees.to_shape_dtype_struct(np.zeros(2), dtype=np.float32).dtype == np.float32
    assert trees.to_shape_dtype_struct(5) == 5
    assert trees.to_shape_dtype_struct(5, scalar_dtype=float) == 5.0
    with pytest.raises(ValueError, match="shape"):
        trees.to_shape_dtype_struct("text")


def test_none_of_it_imports_jax() -> None:
    program = (
        "import sys, numpy as np; from stepstone import tree, transform, utils;"
        "tree.to_shape_dtype_struct(np.zeros(2)); tree.to_flat_dict({'a': [1]});"
        "assert 'jax' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_helpers_agree_with_those_of_orbax() -> None:
    ocp = pytest.importorskip("orbax.checkpoint", reason="compares with Orbax")
    plain = {"b": [1, {"c": 2}], "a": Pair(3, 4)}
    empty = {"b": [1, {"c": 2}], "a": Pair(3, None), "e": {}}
    for tree in (plain, empty):
        assert trees.to_flat_dict(tree) == ocp.tree.to_flat_dict(tree)
        assert trees.to_flat_dict(tree, sep="/") == ocp.tree.to_flat_dict(tree, sep="/")
        assert trees.to_flat_dict(tree, keep_empty_nodes=True) == ocp.tree.to_flat_dict(
            tree, keep_empty_nodes=True
        )
        flat = ocp.tree.to_flat_dict(tree)
        assert trees.from_flat_dict(flat) == ocp.tree.from_flat_dict(flat)
        assert trees.from_flat_dict(flat, target=tree) == ocp.tree.from_flat_dict(flat, target=tree)
        assert trees.serialize_tree(tree) == ocp.tree.serialize_tree(tree)
        assert trees.serialize_tree(tree, True) == ocp.tree.serialize_tree(tree, True)
        assert trees.get_param_names(tree) == ocp.tree.get_param_names(tree)
    other = {"b": [1, {"d": 2}], "a": Pair("3", 4), "z": 0}
    difference = ocp.tree.tree_difference(plain, other)
    assert trees.to_flat_dict(trees.tree_difference(plain, other)) == trees.to_flat_dict(difference)
    template = {"b": [0, {"c": 0}]}
    assert trees.tree_trim(template, plain) == ocp.tree.tree_trim(template, plain)
    more = {"q": 1, "n": {"z": 5}}
    assert trees.merge_trees(plain, more) == ocp.tree.merge_trees(plain, more)
