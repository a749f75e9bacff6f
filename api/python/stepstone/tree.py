"""Helpers for trees: containers of any kind that can be saved, around leaves of any kind.

They need no jax. Dicts, lists, tuples, named tuples, mappings and dataclasses are containers, and,
where jax is imported, so is every pytree that is registered with it. As in jax, None and containers
without children are *empty nodes*, which most of these functions leave out unless they are asked to
keep them.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stepstone._containers import describe, flatten_nodes, shortened
from stepstone._leaves import dtype_name
from stepstone._tree_compare import Diff, merge_trees, tree_difference, tree_trim

__all__ = [
    "Diff",
    "JsonType",
    "PyTree",
    "PyTreeKey",
    "PyTreeOf",
    "PyTreePath",
    "ShapeDtypeStruct",
    "deserialize_tree",
    "from_flat_dict",
    "get_param_names",
    "is_empty_node",
    "is_empty_or_leaf",
    "is_flat_dict",
    "merge_trees",
    "serialize_tree",
    "str_keypath",
    "to_flat_dict",
    "to_shape_dtype_struct",
    "tree_difference",
    "tree_trim",
]

# For annotations; no type checker can tell a tree from another object.
PyTree = PyTreeOf = PyTreeKey = JsonType = Any
PyTreePath = tuple[Any, ...]

IsLeaf = Callable[[Any], bool]


def is_empty_node(value: Any) -> bool:
    """Whether it is None, or a container without children.

    >>> is_empty_node({}), is_empty_node(None), is_empty_node(0)
    (True, True, False)
    """
    if value is None:
        return True
    container = describe(value)
    return container is not None and not container.children


def is_empty_or_leaf(value: Any) -> bool:
    """Whether it has no children."""
    container = describe(value)
    return container is None or not container.children


def str_keypath(keypath: Sequence[Any]) -> tuple[str, ...]:
    """A key path of jax, or a tuple of labels, as strings.

    >>> str_keypath(("layers", 0))
    ('layers', '0')
    """
    return tuple(str(key_name(key)) for key in keypath)


def key_name(key: Any) -> str | int:
    """The label in a key of one of jax's key paths; labels are returned as they are.

    Raises
    ------
    ValueError
        It is neither.
    """
    if isinstance(key, (str, int)):
        return key
    for attribute in ("idx", "name"):
        name = getattr(key, attribute, None)
        if isinstance(name, (str, int)):
            return name
    label = getattr(key, "key", None)
    if label is None:
        raise ValueError(f"{key!r} is no key of a path in a tree")
    # A FlattenedIndexKey keeps its number; a dict's key is shown.
    return label if type(key).__name__ == "FlattenedIndexKey" else str(label)


def to_flat_dict(
    tree: Any,
    sep: str | None = None,
    keep_empty_nodes: bool = False,
    is_leaf: IsLeaf | None = None,
) -> dict[Any, Any]:
    """A tree's leaves by their paths.

    Parameters
    ----------
    tree : object
        The tree.
    sep : str, optional
        Joins the path's labels to one string. Without it, paths are tuples of strings.
    keep_empty_nodes : bool
        Whether None and empty containers are among the leaves.
    is_leaf : callable, optional
        What it is true for is a leaf. Then `keep_empty_nodes` means nothing.

    Raises
    ------
    ValueError
        Two leaves have the same path when it is written so: {"a/b": 1, "a": {"b": 2}} with "/".

    Examples
    --------
    >>> to_flat_dict({"foo": 1, "bar": {"a": [2, 3], "b": {}}}, sep="/")
    {'foo': 1, 'bar/a/0': 2, 'bar/a/1': 3}
    """
    keep = keep_empty_nodes and is_leaf is None
    flat: dict[Any, Any] = {}
    for path, leaf in flatten_nodes(tree, keep_empty_nodes=keep, is_leaf=is_leaf):
        labels = tuple(str(label) for _, label in path)
        key = labels if sep is None else sep.join(labels)
        if key in flat:
            raise ValueError(f"two leaves of the tree have the path {key!r}")
        flat[key] = leaf
    return flat


def from_flat_dict(
    flat_dict: dict[Any, Any],
    target: Any = None,
    sep: str | None = None,
    *,
    inplace: bool = False,
) -> Any:
    """The inverse of `to_flat_dict`.

    Parameters
    ----------
    flat_dict : dict
        Leaves by their paths.
    target : object, optional
        A tree whose structure, and kinds of containers, the result has. Without it, the result is
        made of dicts with strings as keys.
    sep : str, optional
        What joins the labels of a path. None: paths are tuples.
    inplace : bool
        Whether the leaves are taken out of `flat_dict`.

    Raises
    ------
    KeyError
        A leaf of `target` is not in `flat_dict`.
    ValueError
        A path goes on below a leaf.

    Examples
    --------
    >>> from_flat_dict({"a/0": 1, "a/1": 2, "b": 3}, sep="/")
    {'a': {'0': 1, '1': 2}, 'b': 3}
    >>> from_flat_dict({("a", "0"): 1, ("a", "1"): 2}, target={"a": (..., ...)})
    {'a': (1, 2)}
    """
    if inplace and not isinstance(flat_dict, dict):
        raise ValueError("only the leaves of a dict can be taken out of it")
    take = flat_dict.pop if inplace else flat_dict.__getitem__
    if target is not None:
        return _map_with_labels(
            lambda labels, _: take(labels if sep is None else sep.join(labels)), target
        )
    if sep is None and () in flat_dict:
        if len(flat_dict) != 1:
            raise ValueError(f"a leaf at the root has no others beside it: {list(flat_dict)}")
        return take(())
    result: dict[str, Any] = {}
    # The dicts that are containers of the result: a leaf may be a dict as well.
    containers: dict[tuple[str, ...], dict[str, Any]] = {(): result}
    for key in list(flat_dict):
        labels = tuple(key) if sep is None else tuple(key.split(sep))
        for depth in range(1, len(labels)):
            if labels[:depth] not in containers:
                if labels[depth - 1] in containers[labels[: depth - 1]]:
                    raise ValueError(f"the path {key!r} goes on below the leaf {labels[:depth]!r}")
                containers[labels[:depth]] = {}
                containers[labels[: depth - 1]][labels[depth - 1]] = containers[labels[:depth]]
        if labels in containers:
            raise ValueError(f"there are other paths below the leaf {key!r}")
        containers[labels[:-1]][labels[-1]] = take(key)
    return result


def _map_with_labels(
    fn: Callable[[tuple[str, ...], Any], Any], tree: Any, *, keep_empty_nodes: bool = False
) -> Any:
    def visit(value: Any, labels: tuple[str, ...]) -> Any:
        container = describe(value)
        if container is None or not container.children:
            is_empty = container is not None or value is None
            return value if is_empty and not keep_empty_nodes else fn(labels, value)
        return container.rebuild(
            [
                visit(child, (*labels, str(label)))
                for label, child in zip(container.labels, container.children)
            ]
        )

    return visit(tree, ())


def is_flat_dict(tree: Any) -> bool:
    """Whether it is a dict of leaves only."""
    return isinstance(tree, dict) and all(
        value is not None and describe(value) is None for value in tree.values()
    )


def get_param_names(item: Any, *, include_empty_nodes: bool = True) -> Any:
    """The same tree with each leaf's path, joined by dots, in the place of the leaf.

    >>> get_param_names({"a": [1, 2], "b": {}})
    {'a': ['a.0', 'a.1'], 'b': 'b'}
    """
    return _map_with_labels(
        lambda labels, _: ".".join(labels), item, keep_empty_nodes=include_empty_nodes
    )


def serialize_tree(tree: Any, keep_empty_nodes: bool = False) -> Any:
    """The same tree of dicts, with strings as keys, and lists only.

    Parameters
    ----------
    tree : object
        The tree.
    keep_empty_nodes : bool
        Whether None and empty containers stay, as they are. Otherwise they are left out of dicts,
        and are None in lists.

    Raises
    ------
    ValueError
        The tree is empty, and would be left out itself.

    Examples
    --------
    >>> serialize_tree({"a": (1, {2: 3}), "b": None})
    {'a': [1, {'2': 3}]}
    """
    if is_empty_node(tree):
        if keep_empty_nodes:
            return tree
        raise ValueError("a tree without leaves cannot be told from another one; keep empty nodes")

    def has_leaves(value: Any) -> bool:
        return bool(flatten_nodes(value, keep_empty_nodes=keep_empty_nodes))

    def visit(value: Any) -> Any:
        container = describe(value)
        if container is None or not container.children:
            return value
        kept = [keep_empty_nodes or has_leaves(child) for child in container.children]
        if container.label_kind == "index":
            return [
                visit(child) if keep else None for child, keep in zip(container.children, kept)
            ]
        return {
            str(label): visit(child)
            for label, child, keep in zip(container.labels, container.children, kept)
            if keep
        }

    return visit(tree)


def deserialize_tree(serialized: Any, target: Any, keep_empty_nodes: bool = False) -> Any:
    """The leaves of a tree of dicts and lists in the structure of another tree.

    Parameters
    ----------
    serialized : object
        The result of `serialize_tree`, or any tree with the labels of `target`.
    target : object
        Gives the structure, and the kinds of the containers.
    keep_empty_nodes : bool
        Whether empty nodes are looked up as well. Otherwise they are those of `target`.

    Raises
    ------
    KeyError
        A leaf of `target` is not in `serialized`.

    Examples
    --------
    >>> deserialize_tree({"a": [1, {"2": 3}]}, {"a": (0, {2: 0}), "b": None})
    {'a': (1, {2: 3}), 'b': None}
    """

    def look_up(labels: tuple[str, ...], _: Any) -> Any:
        value = serialized
        for depth, label in enumerate(labels):
            children = _children_by_name(value)
            if label not in children:
                raise KeyError(f"{'/'.join(labels[: depth + 1])!r} is not in the serialized tree")
            value = children[label]
        return value

    return _map_with_labels(look_up, target, keep_empty_nodes=keep_empty_nodes)


def _children_by_name(value: Any) -> dict[str, Any]:
    container = describe(value)
    if container is None:
        return {}
    return {str(label): child for label, child in zip(container.labels, container.children)}


@dataclasses.dataclass(frozen=True)
class ShapeDtypeStruct:
    """An array without its elements, where jax is not imported: its `jax.ShapeDtypeStruct`."""

    shape: tuple[int, ...]
    dtype: Any


def to_shape_dtype_struct(
    arr: Any, dtype: Any = None, scalar_dtype: Any = None, support_format: bool = False
) -> Any:
    """What stands for an array in a target, so that a restore needs no second array.

    Parameters
    ----------
    arr : array or scalar
        Anything with a shape (or a global_shape), a dtype and perhaps a sharding; or a number.
    dtype : dtype, optional
        Instead of the array's.
    scalar_dtype : type, optional
        What numbers of Python and numpy are made into: int or float.
    support_format : bool
        No effect: layouts on a device are not stored, and jax chooses them.

    Returns
    -------
    jax.ShapeDtypeStruct, ShapeDtypeStruct or number
        The first where jax is imported. A random key stays one.

    Examples
    --------
    >>> target = to_shape_dtype_struct(np.zeros((2, 3)), np.float32)
    >>> target.shape, target.dtype
    ((2, 3), dtype('float32'))
    >>> to_shape_dtype_struct(3, scalar_dtype=float)
    3.0
    """
    if isinstance(arr, (bool, int, float, complex, np.number)):
        return arr if scalar_dtype is None else scalar_dtype(arr)
    shape = getattr(arr, "shape", None)
    if shape is None:
        shape = getattr(arr, "global_shape", None)
    if shape is None:
        raise ValueError(f"a {type(arr).__name__} has no shape: {shortened(arr)}")
    dtype = arr.dtype if dtype is None else dtype
    jax = sys.modules.get("jax")
    if type(dtype).__module__ == "torch":
        dtype = dtype_name(dtype)
    if jax is None:
        return ShapeDtypeStruct(tuple(shape), np.dtype(dtype))
    sharding: Any = getattr(arr, "sharding", None)
    if hasattr(sharding, "to_jax_sharding"):
        sharding = sharding.to_jax_sharding()
    return jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=sharding)
