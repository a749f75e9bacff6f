r"""Trees that have changed since they were saved: renamed, new, merged and computed leaves.

A transformation maps patterns of the new tree's paths to a `Transform` each, which says where the
leaf comes from. Patterns are regular expressions of Python for whole paths, with "/" between their
labels; the transformations may be nested like the trees. `apply_transformations` works on trees
in memory; `PyTreeRestore(item, transforms=...)` applies the same while it restores, and reads only
the leaves that are used.

>>> old = {"dense": {"w": 1, "b": 2}, "scale": 3}
>>> new = {"layer": {"w": 0, "b": 0}, "double": 0, "seed": 5}
>>> transforms = {
...     r"layer/(.*)": Transform(original_key=r"dense/\1"),
...     "double": Transform(multi_value_fn=lambda key, tree: tree["scale"] * 2),
... }
>>> apply_transformations(old, transforms, new)
{'layer': {'w': 1, 'b': 2}, 'double': 6, 'seed': 5}
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from stepstone import _native
from stepstone._containers import (
    flatten_nodes,
    map_structure,
    path_key,
    path_text,
)
from stepstone.tree import from_flat_dict, is_empty_node, to_flat_dict
from stepstone.type_handlers import RestoreArgs

__all__ = [
    "RestoreArgs",
    "RestoreTransform",
    "Transform",
    "apply_transformations",
    "intersect_trees",
    "merge_trees",
]

_logger = logging.getLogger("stepstone")


@dataclasses.dataclass
class Transform:
    r"""Where a leaf of the new tree comes from; with nothing set, from the same path.

    Parameters
    ----------
    original_key : str or tuple of str, optional
        Its path in the original tree, with "/" between labels. \1 and \g<name> stand for the groups
        of the pattern.
    use_fallback : bool
        Whether it comes from the other tree than leaves that no pattern matches: from the new tree
        itself, or, with `default_to_original=False`, from the original.
    value_fn : callable, optional
        Makes the value out of the original one.
    multi_value_fn : callable, optional
        Makes the value out of several: called with the leaf's path in the new tree and the original
        tree.

    Raises
    ------
    ValueError
        Two of them exclude each other: all pairs but `original_key` with `value_fn`.
    """

    original_key: str | tuple[str, ...] | None = None
    use_fallback: bool = False
    value_fn: Callable[..., Any] | None = None
    multi_value_fn: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        given = [
            name
            for name in ("original_key", "use_fallback", "value_fn", "multi_value_fn")
            if getattr(self, name) not in (None, False)
        ]
        if len(given) > 1 and given != ["original_key", "value_fn"]:
            raise ValueError(f"a Transform cannot have both {given[0]} and {given[1]}")


@dataclasses.dataclass
class RestoreTransform(Transform):
    """A Transform for restores, where functions of several values say what they need.

    Parameters
    ----------
    multi_value_fn : callable, optional
        Called with the leaf's path, the original tree, with `...` for leaves that were not read,
        and the `RestoreArgs` of the leaf.
    multi_value_fn_input_args : dict, optional
        Its keys are patterns of the paths that `multi_value_fn` needs; it must say. Its values are
        `RestoreArgs` in Orbax; here leaves are given as they were saved, with arrays of numpy.
    """

    multi_value_fn_input_args: Mapping[str, RestoreArgs | None] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.multi_value_fn_input_args is not None and self.multi_value_fn is None:
            raise ValueError("multi_value_fn_input_args are of no use without multi_value_fn")


# What makes more than the text itself of a regular expression.
_SPECIAL = re.compile(r"[\\^$.*+?()\[\]{}|]")


class _Rules:
    """Transforms by patterns of paths. Thousands that name one path each are looked up at once.

    Parameters
    ----------
    transformations : dict
        Nested or not.
    """

    def __init__(self, transformations: Any) -> None:
        self._by_path: dict[str, tuple[int, Any]] = {}
        self._patterns: list[tuple[int, re.Pattern[str], Any]] = []  # The last comes first.
        rules = to_flat_dict(transformations, sep="/")
        for number, (pattern, transform) in enumerate(rules.items()):
            if _SPECIAL.search(pattern) is None:
                self._by_path[pattern] = number, transform
            else:
                self._patterns.append((number, re.compile(pattern), transform))
        self._patterns.reverse()

    def find(self, key: str) -> tuple[Any, str]:
        """The last transform whose pattern matches, or None, and the path that it takes."""
        lowest, transform = self._by_path.get(key, (-1, None))
        match = None
        for number, pattern, each in self._patterns:
            if number < lowest:
                break
            match = pattern.fullmatch(key)
            if match is not None:
                transform = each
                break
        if transform is None or transform.original_key is None:
            return transform, key
        name = transform.original_key
        name = name if isinstance(name, str) else "/".join(name)
        if match is None and "\\" in name:
            match = re.fullmatch(re.escape(key), key)  # For the groups, of which there are none.
        return transform, name if match is None else match.expand(name)


def _not_found(original: str, key: str) -> ValueError:
    from stepstone.errors import MismatchError

    return MismatchError(
        f"leaf '{key}': its transform takes '{original}', which is not in the original tree"
    )


def apply_transformations(
    original_tree: Any,
    transformations: Any,
    new_tree: Any,
    default_to_original: bool | None = True,
) -> Any:
    """Makes a tree of the structure of `new_tree` out of the leaves of `original_tree`.

    Parameters
    ----------
    original_tree : object
        The tree to be transformed.
    transformations : dict
        From patterns of paths to `Transform` objects, nested or not. Where several match, the last
        decides.
    new_tree : object
        The structure of the result, and the values of leaves that come from nowhere else.
    default_to_original : bool
        Whether leaves that no pattern matches are taken from the original tree if they are there.
        If not, they are those of `new_tree`.

    Returns
    -------
    object
        {} if `new_tree` is empty.

    Raises
    ------
    ValueError
        The original tree has not what a transform takes.
    """
    if is_empty_node(new_tree):
        return {}
    original = to_flat_dict(original_tree, sep="/")
    new = to_flat_dict(new_tree, sep="/")
    rules = _Rules(transformations)
    kept = []
    for key in new:
        rule, original_key = rules.find(key)
        if rule is None:
            if default_to_original and key in original:
                new[key] = original[key]
            elif key not in original:
                kept.append(key)
        elif rule.multi_value_fn is not None:
            new[key] = rule.multi_value_fn(key, original_tree)
        elif rule.use_fallback and default_to_original:
            continue
        else:
            if original_key not in original:
                raise _not_found(original_key, key)
            value = original[original_key]
            new[key] = value if rule.value_fn is None else rule.value_fn(value)
    if kept:
        _logger.info("not in the original tree, and taken from the new one: %s", ", ".join(kept))
    return from_flat_dict(new, target=new_tree, sep="/")


def merge_trees(*trees: Any, target: Any = None) -> Any:
    """The leaves of all trees; of those with the same path, the last tree's.

    Parameters
    ----------
    *trees : object
        The trees.
    target : object, optional
        A tree whose structure the result has. Without it, the result is made of dicts.

    Examples
    --------
    >>> merge_trees({"a": 1, "b": [2]}, {"a": 3})
    {'a': 3, 'b': {'0': 2}}
    """
    merged: dict[tuple[str, ...], Any] = {}
    for tree in trees:
        merged.update(to_flat_dict(tree))
    return from_flat_dict(merged, target=target)


def intersect_trees(*trees: Any, target: Any = None) -> Any:
    """The last tree's leaves with paths that all trees have.

    Parameters
    ----------
    *trees : object
        The trees, at least one.
    target : object, optional
        A tree whose structure the result has. Without it, the result is made of dicts.

    Examples
    --------
    >>> intersect_trees({"a": 1, "b": 2}, {"b": 3, "c": 4})
    {'b': 3}
    """
    flat = [to_flat_dict(tree) for tree in trees]
    return from_flat_dict(
        {key: leaf for key, leaf in flat[-1].items() if all(key in other for other in flat)},
        target=target,
    )


# While a tree is restored.


def to_native_transforms(
    transforms: Mapping[str, Any],
    item: Any,
    stored: _native.ItemMetadata,
    *,
    default_to_original: bool = True,
    restore_args: Any = None,
) -> list[_native.Transform]:
    """What a restore has to be told so that it gives what `apply_transformations` would.

    Patterns are matched here, since regular expressions of Python are more than the library's.

    Parameters
    ----------
    transforms : dict
        From patterns of paths to `Transform` objects, ours or Orbax's; nested or not.
    item : object
        The target.
    stored : _native.ItemMetadata
        What is in the checkpoint.
    default_to_original : bool
        As in `apply_transformations`; the restore must be told the same.
    restore_args : tree of RestoreArgs, optional
        Given to functions of several values.

    Raises
    ------
    ValueError
        The checkpoint has not what a transform takes, or a function does not say what it needs.
    """
    rules = _Rules(transforms)
    source = _Source(stored)
    args_of_leaves = _args_by_key(restore_args)
    result = []
    for path, _ in flatten_nodes(item):
        key = "/".join(path_key(path))
        rule, original_key = rules.find(key)
        here = _Place(path_text(path))
        if rule is None:
            if default_to_original and key not in source.texts:
                result.append(here.fallback())
            elif default_to_original and source.texts[key] != here.text:
                result.append(here.taken_from(source.texts[key], None))
        elif rule.multi_value_fn is not None:
            result.append(source.computed(here, key, rule, args_of_leaves.get(key)))
        elif rule.use_fallback and default_to_original:
            result.append(here.fallback())
        else:
            if original_key not in source.texts:
                raise _not_found(original_key, key)
            result.append(here.taken_from(source.texts[original_key], rule.value_fn))
    return result


def _args_by_key(restore_args: Any) -> dict[str, Any]:
    def is_leaf(value: Any) -> bool:
        return any(base.__name__ == "RestoreArgs" for base in type(value).__mro__)

    return {
        "/".join(path_key(path)): leaf
        for path, leaf in flatten_nodes(restore_args, is_leaf=is_leaf)
    }


class _Place:
    """A leaf of the target, and all below it: a typed random key is stored as a node."""

    def __init__(self, text: str) -> None:
        self.text = text

    def fallback(self) -> _native.Transform:
        return _native.Transform(self.text, is_path=True, use_fallback=True)

    def taken_from(
        self, text: str, value_fn: Callable[[Any], Any] | None
    ) -> _native.Transform:
        return _native.Transform(
            self.text, is_path=True, original_path=text, value_fn=value_fn
        )

    def computed(
        self, inputs: Sequence[str], compute: Callable[[list[Any]], Any]
    ) -> _native.Transform:
        return _native.Transform(self.text, is_path=True, inputs=inputs, compute=compute)


class _Source:
    """The checkpoint's tree."""

    def __init__(self, stored: _native.ItemMetadata) -> None:
        self._stored = stored
        # From paths as transforms have them to paths as they are shown: of leaves and of nodes.
        self.texts: dict[str, str] = {}
        for leaf in stored.leaves:
            self.texts.update(_shown_prefixes(leaf.labels, leaf.path))
        self._keys = ["/".join(map(str, leaf.labels)) for leaf in stored.leaves]
        self._skeleton: Any = None

    def computed(
        self, here: _Place, key: str, rule: Any, restore_args: Any
    ) -> _native.Transform:
        wanted = getattr(rule, "multi_value_fn_input_args", None)
        if wanted is None:
            raise ValueError(
                f"leaf '{key}': its transform has a multi_value_fn, and must say in"
                " RestoreTransform(multi_value_fn_input_args=...) which leaves that needs"
            )
        places = [
            place
            for place, name in enumerate(self._keys)
            if any(re.fullmatch(pattern, name) for pattern in wanted)
        ]
        takes_args = any(base.__name__ == "RestoreTransform" for base in type(rule).__mro__)

        def compute(values: list[Any]) -> Any:
            tree = self._tree_of(dict(zip(places, values)))
            if takes_args:
                return rule.multi_value_fn(key, tree, restore_args)
            return rule.multi_value_fn(key, tree)

        return here.computed([self._stored.leaves[place].path for place in places], compute)

    def _tree_of(self, values: dict[int, Any]) -> Any:
        """The checkpoint's tree with these leaves, by their places, and `...` for all others."""
        from stepstone._tree import from_native

        if self._skeleton is None:
            self._skeleton = from_native(self._stored.tree)
        places: Iterator[int] = iter(range(len(self._keys)))
        return map_structure(lambda _: values.get(next(places), ...), self._skeleton)


def _shown_prefixes(labels: Sequence[str | int], shown: str) -> Iterator[tuple[str, str]]:
    """Every node on a path: its labels joined by "/", and how it is shown."""
    # A label ends where another begins, with "/" or "[", or where the path does.
    ends = [mark.start() for mark in re.finditer(r"\\.|[/\[]", shown) if mark[0] in "/["]
    for depth, end in enumerate([end for end in ends if end > 0] + [len(shown)], start=1):
        yield "/".join(map(str, labels[:depth])), shown[:end]
