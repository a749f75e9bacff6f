"""Python objects as trees that can be stored, and back.

The native module takes exact dicts, lists, tuples, arrays of numpy and plain values itself. About
everything else it asks the hooks here, which answer by the object's type and remember how: a state
of ten thousand leaves is converted in some milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from stepstone import _jax, _leaves, _native, _nodes, type_handlers
from stepstone._containers import (
    Container,
    describe_dataclass,
    describer_of,
    flatten_nodes,
    flatten_with_paths,
    is_leaf_description,
    is_settled,
    leaf_label_paths,
    map_structure,
    path_text,
)
from stepstone._foreign import RefusedLeaf
from stepstone._nodes import CustomNode

__all__ = [
    "CustomNode",
    "flatten_with_paths",
    "from_native",
    "leaf_label_paths",
    "map_structure",
    "to_native",
]

Converter = Callable[[Any], object]


def to_native(value: object, *, target: bool = False) -> _native.Tree:
    """Makes a tree of Python objects one that can be saved, or restored into.

    Parameters
    ----------
    value : object
        A leaf, or containers of leaves. Its arrays are not copied: the result refers to them.
    target : bool
        False: every leaf must have a value. True: also abstract arrays (anything with a shape and
        a dtype), the types bool, int, float, complex, str and bytes, and `...` for leaves that are
        not to be read.

    Raises
    ------
    ValueError
        A leaf cannot be stored, or a key of a dict is neither str nor int. Names its path.
    """
    hook = _target_hook
    if not target:
        hook = _save_hook
        _jax.start_transfers(value)
    try:
        return _native.Tree.from_python(value, hook)
    except RefusedLeaf as refused:
        error = refused
    from stepstone.errors import UnsupportedError

    raise UnsupportedError(f"{_where(value, error.value)}: {error.why}")


def from_native(tree: _native.Tree, like: _native.Tree | None = None) -> Any:
    """The Python objects of a restored tree.

    Parameters
    ----------
    tree : _native.Tree
        What a restore gave.
    like : _native.Tree, optional
        The target that it was restored into, made by `to_native(..., target=True)`: containers and
        leaves then are of the target's kinds. Without it they are as they were saved, with arrays
        of numpy; see `_nodes` about classes.
    """
    return tree.to_python(cast("Callable[..., object]", _nodes.make_node), like)


def _where(root: object, refused: object) -> str:
    for path, leaf in flatten_nodes(root):
        if leaf is refused:
            return f"leaf '{path_text(path)}'" if path else "the object"
    return "a leaf"


def _itself(value: object) -> object:
    return value


# By type: what a hook answers.
_save_converters: dict[type, Converter] = {_native.Array: _itself}
_target_converters: dict[type, Converter] = {
    _native.Array: _itself,
    _native.AbstractArray: _itself,
}


def register_target(cls: type, converter: Converter) -> None:
    """Says what objects of a class, made for targets only, ask of a restore."""
    _target_converters[cls] = converter


def _save_hook(value: Any) -> object:
    convert = _save_converters.get(type(value))
    return (convert or _find_save_converter(value))(value)


def _target_hook(value: Any) -> object:
    convert = _target_converters.get(type(value))
    return (convert or _find_target_converter(value))(value)


def _find_save_converter(value: Any) -> Converter:
    registered = type_handlers.converter_of(type(value), is_target=False)
    if registered is not None:
        return registered
    describe = describer_of(value)
    if describe is not None:
        return _remember(_save_converters, value, describe)
    convert = _leaves.save_converter(type(value))
    # What is refused now may be registered with jax later.
    if convert is not _leaves.refuse:
        _save_converters[type(value)] = convert
    return convert


def _find_target_converter(value: Any) -> Converter:
    registered = type_handlers.converter_of(type(value), is_target=True)
    if registered is not None:
        return registered
    describe = describer_of(value)
    if describe is not None and not (
        describe is describe_dataclass and is_leaf_description(value)
    ):
        return _remember(_target_converters, value, describe)
    if type(value).__name__ == "TreeMetadata" and hasattr(value, "tree"):
        return lambda metadata: metadata.tree
    convert = _leaves.target_converter(type(value))
    if convert not in (_leaves.refuse, _leaves.abstract_array):
        _target_converters[type(value)] = convert
    return convert


def _remember(
    converters: dict[type, Converter], value: object, describe: Callable[[Any], Container]
) -> Converter:
    def convert(container: Any) -> _native.Node:
        return _native.Node(*describe(container))

    if is_settled(type(value)):
        converters[type(value)] = convert
    return convert
