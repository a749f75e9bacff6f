"""Trees that changed since they were saved, in memory and while they are restored."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from stepstone import _native
from stepstone._tree import from_native, to_native
from stepstone.transform import (
    RestoreTransform,
    Transform,
    apply_transformations,
    intersect_trees,
    merge_trees,
    to_native_transforms,
)

Apply = Callable[..., Any]

ORIGINAL = {
    "a": 1,
    "b": {"c": 5, "d": [0, 1, 2, 3]},
    "f": 2,
    "b1": {"c": 2},
    "b2": {"c": 3},
    "odd $.name*": np.arange(3),
    7: 4,
}


class Pair(NamedTuple):
    left: Any
    right: Any


def restored(
    original: Any, transforms: Any, new: Any, default: bool = True, path: Any = None
) -> Any:
    """The same through a checkpoint."""
    tree = to_native(original)
    _native.save_checkpoint(
        str(path), [("default", "tree", lambda: (tree, [], None))], is_single=True, force=True
    )
    step, _ = _native.open_checkpoint(str(path))
    target = to_native(new, target=True)
    options = _native.RestoreOptions(
        target=target,
        any_container=True,
        transforms=to_native_transforms(
            transforms, new, step.item_metadata("default"), default_to_original=default
        ),
        transforms_default_to_original=default,
    )
    return from_native(step.restore("default", options).tree, target)


@pytest.fixture(params=["in memory", "restored"])
def apply(request: Any, tmp_path: pathlib.Path) -> Apply:
    if request.param == "in memory":
        return lambda original, transforms, new, default=True: apply_transformations(
            original, transforms, new, default
        )
    return lambda original, transforms, new, default=True: restored(
        original, transforms, new, default, tmp_path / "checkpoint"
    )


def test_leaves_are_renamed_copied_and_dropped(apply: Apply) -> None:
    transforms = {
        "a1": Transform(original_key="a"),
        "copy": Transform(original_key="b/c"),
        "copy2": Transform(original_key=("b", "c")),
        "element": Transform(original_key="b/d/1"),
        "number": Transform(original_key="7"),
        r"x(\d.*)": Transform(original_key=r"b\1"),
        r"(?P<name>y)/(?=z)z": Transform(original_key=r"b1/c"),
    }
    new = {
        "a1": 0, "copy": 0, "copy2": 0, "element": 0, "number": 0, "x1": {"c": 0}, "x2": {"c": 0},
        "y": {"z": 0}, "f": 0,
    }
    assert apply(ORIGINAL, transforms, new) == {
        "a1": 1, "copy": 5, "copy2": 5, "element": 1, "number": 4, "x1": {"c": 2}, "x2": {"c": 3},
        "y": {"z": 2}, "f": 2,
    }


def test_new_leaves_keep_their_value(apply: Apply) -> None:
    new = {"f": 0, "g": 5, "forced": 6, "a": 7}
    transforms = {"forced": Transform(use_fallback=True), "a": Transform(use_fallback=True)}
    assert apply(ORIGINAL, transforms, new) == {"f": 2, "g": 5, "forced": 6, "a": 7}


def test_without_the_original_as_default_leaves_are_the_new_trees(apply: Apply) -> None:
    new = {"f": 10, "a": 11, "b1": {"c": 12}}
    transforms = {"f": Transform(use_fallback=True), "a": Transform()}
    assert apply(ORIGINAL, transforms, new, False) == {"f": 2, "a": 1, "b1": {"c": 12}}


def test_values_are_computed(apply: Apply) -> None:
    transforms = {
        "double": Transform(original_key="odd $.name*", value_fn=lambda value: value * 2),
        "f": Transform(value_fn=lambda value: value + 1),
    }
    result = apply(ORIGINAL, transforms, {"double": np.zeros(3, np.int64), "f": 0})
    assert result["double"].tolist() == [0, 2, 4] and result["f"] == 3


def test_a_source_that_is_absent_is_an_error_with_both_names(apply: Apply) -> None:
    with pytest.raises(ValueError, match="leaf 'm'.*'absent'"):
        apply(ORIGINAL, {"m": Transform(original_key="absent")}, {"m": 0})


def test_containers_are_those_of_the_new_tree(apply: Apply) -> None:
    new = {"pair": Pair(0, (0,))}
    transforms = {
        "pair/left": Transform(original_key="a"),
        "pair/right/0": Transform(original_key="f"),
    }
    assert apply(ORIGINAL, transforms, new) == {"pair": Pair(1, (2,))}


def test_nested_transforms_are_flattened(apply: Apply) -> None:
    transforms = {"n": {"m": Transform(original_key="a")}}
    assert apply(ORIGINAL, transforms, {"n": {"m": 0}}) == {"n": {"m": 1}}


def test_a_function_of_several_leaves_gets_only_those_that_it_asks_for(tmp_path: Any) -> None:
    seen = []

    def total(key: str, tree: Any, args: Any) -> Any:
        seen.append((key, tree, args))
        return tree["a"] * 2 + sum(tree["b"]["d"])

    needed = {"a": None, "b/d/.*": None}
    transforms = {"z": RestoreTransform(multi_value_fn=total, multi_value_fn_input_args=needed)}
    result = restored(ORIGINAL, transforms, {"z": 0}, path=tmp_path / "checkpoint")
    assert result == {"z": 8}
    ((key, tree, args),) = seen
    assert key == "z" and args is None
    assert tree["f"] is ... and tree["b"] == {"c": ..., "d": [0, 1, 2, 3]}


def test_a_function_must_say_what_it_needs(tmp_path: Any) -> None:
    transforms = {"z": Transform(multi_value_fn=lambda key, tree: 1)}
    with pytest.raises(ValueError, match="multi_value_fn_input_args"):
        restored(ORIGINAL, transforms, {"z": 0}, path=tmp_path / "checkpoint")
    assert apply_transformations(ORIGINAL, transforms, {"z": 0}) == {"z": 1}


def test_nothing_is_made_of_an_empty_tree() -> None:
    assert apply_transformations(ORIGINAL, {}, {}) == {}


@pytest.mark.parametrize(
    "arguments",
    [
        {"original_key": "a", "use_fallback": True},
        {"original_key": "a", "multi_value_fn": print},
        {"value_fn": print, "use_fallback": True},
        {"value_fn": print, "multi_value_fn": print},
    ],
    ids=str,
)
def test_parameters_that_exclude_each_other_are_refused(arguments: Any) -> None:
    with pytest.raises(ValueError, match="cannot have both"):
        Transform(**arguments)
    with pytest.raises(ValueError, match="cannot have both"):
        RestoreTransform(**arguments)


def test_trees_are_merged_and_intersected() -> None:
    first, second = {"a": 1, "b": Pair(2, 3)}, {"b": Pair(4, 5), "c": [6]}
    assert merge_trees(first, second) == {"a": 1, "b": {"left": 4, "right": 5}, "c": {"0": 6}}
    assert merge_trees(first, second, target={"b": Pair(0, 0)}) == {"b": Pair(4, 5)}
    assert intersect_trees(first, second) == {"b": {"left": 4, "right": 5}}
    assert merge_trees() == {}


def test_ten_thousand_renames_find_their_leaves(tmp_path: pathlib.Path) -> None:
    # With a look at every rename for every leaf, this takes minutes.
    count = 10_000
    original = {f"old{i}": i for i in range(count)}
    new = {f"new{i}": 0 for i in range(count)}
    renames = {f"new{i}": Transform(original_key=f"old{count - 1 - i}") for i in range(count)}
    expected = {f"new{i}": count - 1 - i for i in range(count)}
    assert apply_transformations(original, renames, new) == expected
    assert restored(original, renames, new, path=tmp_path / "stored") == expected
    # Labels that only read the same are found as quickly.
    texts = {str(i): 0 for i in range(count)}
    assert restored(dict(enumerate(range(count))), {}, texts, path=tmp_path / "stored") == {
        str(i): i for i in range(count)
    }


@pytest.mark.parametrize("is_restored", [False, True])
def test_the_last_of_several_transforms_decides_pattern_or_not(
    tmp_path: pathlib.Path, is_restored: bool
) -> None:
    original = {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 4}}
    new = {"a": {"x": 0, "y": 0}}

    def made(transforms: dict[str, Transform]) -> Any:
        if is_restored:
            return restored(original, transforms, new, path=tmp_path / "stored")
        return apply_transformations(original, transforms, new)

    exact = {"a/x": Transform(original_key="b/y")}
    pattern = {r"a/(.*)": Transform(original_key=r"b/\1")}
    assert made({**pattern, **exact}) == {"a": {"x": 4, "y": 4}}
    assert made({**exact, **pattern}) == {"a": {"x": 3, "y": 4}}
    assert made({"a/x": Transform(original_key=("b", "y")), "a/z": Transform()}) == {
        "a": {"x": 4, "y": 2}
    }
    with pytest.raises(ValueError, match="b/z"):
        made({"a/x": Transform(original_key="b/z")})
