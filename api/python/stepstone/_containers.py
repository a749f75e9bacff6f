"""Python's containers as nodes of a tree, and walks over them.

Exact dicts, lists and tuples are what they are; here is what else has children: named tuples,
mappings, subclasses of lists and tuples, dataclasses, the pytrees that are registered with jax, and
the `CustomNode` that a restore without a target makes. `flatten_with_paths` and `map_structure`
walk over all of them in the order in which they are stored.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from stepstone import _jax, _leaves
from stepstone._nodes import CustomNode, make_node, type_name

Label = str | int
Labels = tuple[Label, ...]


class Container(NamedTuple):
    """A container that is taken apart.

    `kind`, `type_name` and `label_kind` are those of `_native.Node`; `rebuild` makes a container of
    the same kind, with all that is not among the children, from others in the same order.
    """

    kind: str
    type_name: str
    label_kind: str
    labels: list[Label]
    children: list[Any]
    rebuild: Callable[[list[Any]], Any]


Describer = Callable[[Any], Container]

# How instances of types that are always containers are taken apart.
_describers: dict[type, Describer] = {}
# Types whose instances never are containers.
_leaf_types: set[type] = {type(None), bool, int, float, complex, str, bytes, type(...)}
# Options and descriptions of leaves, ours and Orbax's: they may be dataclasses, and are no trees.
_LEAF_CLASS_NAMES = frozenset(
    {"ArrayMetadata", "BytesMetadata", "RestoreArgs", "SaveArgs", "StringMetadata", "Transform"}
)


def describe(value: Any) -> Container | None:
    """Takes a container apart; None: it is a leaf."""
    cls = type(value)
    if cls in _leaf_types:
        return None
    describer = _describers.get(cls) or describer_of(value)
    if describer is None or (describer is describe_dataclass and is_leaf_description(value)):
        return None
    return describer(value)


def is_leaf_description(value: Any) -> bool:
    """Whether a dataclass is something about a leaf, such as its metadata, instead of a tree."""
    if any(base.__name__ in _LEAF_CLASS_NAMES for base in type(value).__mro__):
        return True
    return _leaves.is_abstract_array(value)


def describer_of(value: Any) -> Describer | None:
    """What takes containers like this one apart; None: it is a leaf."""
    cls = type(value)
    known = _describers.get(cls)
    if known is not None:
        return known
    found = _find_describer(cls, value)
    # Other classes may still be registered with jax, and are then taken apart in another way.
    if found in (_describe_named_tuple, _describe_pytree, _describe_custom):
        _describers[cls] = found
    return found


def is_settled(cls: type) -> bool:
    """Whether containers of a class are taken apart in the same way for ever."""
    return cls in _describers


def _find_describer(cls: type, value: Any) -> Describer | None:
    if isinstance(value, type):
        return None
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _describe_named_tuple
    if cls is CustomNode:
        return _describe_custom
    if _jax.is_node(value):
        return _describe_pytree
    if issubclass(cls, Mapping):
        return _describe_mapping
    if issubclass(cls, list):
        return _describe_list
    if issubclass(cls, tuple):
        return _describe_tuple
    if dataclasses.is_dataclass(cls):
        return describe_dataclass
    return None


def _describe_exact_dict(value: dict[Any, Any]) -> Container:
    labels = list(value)
    return Container(
        "dict", "", "key", labels, list(value.values()), lambda new: dict(zip(labels, new))
    )


def _describe_exact_list(value: list[Any]) -> Container:
    return Container("list", "", "index", list(range(len(value))), value, list)


def _describe_exact_tuple(value: tuple[Any, ...]) -> Container:
    return Container("tuple", "", "index", list(range(len(value))), list(value), tuple)



def _describe_mapping(value: Mapping[Any, Any]) -> Container:
    labels = list(value)
    children = [value[label] for label in labels]
    return Container("dict", "", "key", labels, children, partial(_rebuild_mapping, value, labels))


def _rebuild_mapping(old: Mapping[Any, Any], labels: list[Any], children: list[Any]) -> Any:
    cls = type(old)
    pairs = dict(zip(labels, children))
    if cls is OrderedDict:
        ordered = OrderedDict(pairs)
        vars(ordered).update(vars(old))  # torch keeps the versions of modules there.
        return ordered
    if hasattr(old, "clear") and hasattr(old, "update"):
        import copy

        # A copy has what is not among the items: the default factory of a defaultdict.
        new = copy.copy(old)
        new.clear()
        new.update(pairs)
        return new
    return cls(pairs)  # type: ignore[call-arg]


_describers.update(
    {
        dict: _describe_exact_dict,
        list: _describe_exact_list,
        tuple: _describe_exact_tuple,
        OrderedDict: _describe_mapping,
    }
)


def _describe_list(value: list[Any]) -> Container:
    return Container(
        "list", "", "index", list(range(len(value))), list(value), partial(_rebuild_list, value)
    )


def _rebuild_list(old: list[Any], children: list[Any]) -> Any:
    new = type(old).__new__(type(old))
    list.extend(new, children)
    _copy_attributes(old, new)
    return new


def _describe_tuple(value: tuple[Any, ...]) -> Container:
    return Container(
        "tuple", "", "index", list(range(len(value))), list(value), partial(_rebuild_tuple, value)
    )


def _rebuild_tuple(old: tuple[Any, ...], children: list[Any]) -> Any:
    cls = type(old)
    try:
        new = tuple.__new__(cls, children)
    except TypeError:  # A type of C, such as torch.Size or time.struct_time.
        new = cls(children)
    _copy_attributes(old, new)
    return new


def _copy_attributes(old: Any, new: Any) -> None:
    attributes = getattr(old, "__dict__", None)
    if attributes:
        new.__dict__.update(attributes)


def _describe_named_tuple(value: Any) -> Container:
    cls = type(value)
    return Container(
        "named_tuple",
        type_name(cls),
        "attribute",
        list(cls._fields),
        list(value),
        partial(_rebuild_tuple, value),
    )


def describe_dataclass(value: Any) -> Container:
    cls = type(value)
    # A field that was never set is no part of the state.
    names = [
        field.name for field in dataclasses.fields(value) if hasattr(value, field.name)
    ]
    children = [getattr(value, name) for name in names]
    return Container(
        "custom",
        type_name(cls),
        "attribute",
        list(names),
        children,
        partial(_rebuild_dataclass, value, names),
    )


def _rebuild_dataclass(old: Any, names: list[str], children: list[Any]) -> Any:
    new = object.__new__(type(old))
    _copy_attributes(old, new)
    for name, child in zip(names, children):
        object.__setattr__(new, name, child)  # Also where it is frozen.
    return new


def _describe_custom(value: CustomNode) -> Container:
    labels = list(value.keys())
    return Container(
        "custom",
        value.type_name,
        value.label_kind,
        labels,
        list(value.values()),
        partial(make_node, "custom", value.type_name, value.label_kind, labels),
    )


def _describe_pytree(value: Any) -> Container:
    """A node that is registered with jax.

    Functions, such as the activations of equinox, are no state: they stay where they are.
    """
    entries, rebuild_all = _jax.flatten_one_level(value)
    all_children = [child for _, _, child in entries]
    stored = [
        place for place, child in enumerate(all_children) if not _jax.is_function(child)
    ]
    kinds = {entries[place][0] for place in stored}
    label_kind = kinds.pop() if len(kinds) == 1 else "key"
    labels = [entries[place][1] for place in stored]
    is_mapping = isinstance(value, Mapping) and label_kind == "key"

    def rebuild(children: list[Any]) -> Any:
        for place, child in zip(stored, children):
            all_children[place] = child
        return rebuild_all(all_children)

    return Container(
        "dict" if is_mapping else "custom",
        "" if is_mapping else type_name(type(value)),
        label_kind,
        labels,
        [all_children[place] for place in stored],
        rebuild,
    )


# A path in a tree with the kinds of its labels: "key", "index" or "attribute".
KindedPath = tuple[tuple[str, Label], ...]


def flatten_nodes(
    tree: Any,
    *,
    keep_empty_nodes: bool = False,
    is_leaf: Callable[[Any], bool] | None = None,
) -> list[tuple[KindedPath, Any]]:
    """Pairs of a path and a leaf, in the order in which they are stored.

    None and containers without children are leaves if `keep_empty_nodes`, and left out if not.
    """
    found: list[tuple[KindedPath, Any]] = []

    def visit(value: Any, path: KindedPath) -> None:
        if is_leaf is not None and is_leaf(value):
            found.append((path, value))
            return
        container = describe(value)
        if container is None or not container.children:
            if keep_empty_nodes or (container is None and value is not None):
                found.append((path, value))
            return
        kind = container.label_kind
        for label, child in zip(container.labels, container.children):
            visit(child, (*path, (kind, label)))

    visit(tree, ())
    return found


def path_key(path: KindedPath) -> tuple[str, ...]:
    """A path's labels as strings."""
    return tuple(str(label) for _, label in path)


def _is_none(value: Any) -> bool:
    return value is None


def flatten_with_paths(
    tree: Any, is_leaf: Callable[[Any], bool] | None = None
) -> list[tuple[Labels, Any]]:
    """The leaves of a tree with their key paths, in the order in which they are stored.

    Parameters
    ----------
    tree : object
        Containers of any kind that can be saved. Their leaves may be anything.
    is_leaf : callable, optional
        What it is true for is a leaf, container or not.

    Returns
    -------
    list of (tuple of str or int, object)
        None is a leaf, and an empty container has none.

    Examples
    --------
    >>> flatten_with_paths({"a": [1, {}], "b": None})
    [(('a', 0), 1), (('b',), None)]
    """
    is_any_leaf = _is_none if is_leaf is None else lambda value: value is None or is_leaf(value)
    return [
        (tuple(label for _, label in path), leaf)
        for path, leaf in flatten_nodes(tree, is_leaf=is_any_leaf)
    ]


def leaf_label_paths(
    value: Any, is_leaf: Callable[[Any], bool] | None = None
) -> list[tuple[Label, ...]]:
    """The key paths of a tree's leaves alone; see `flatten_with_paths`."""
    return [path for path, _ in flatten_with_paths(value, is_leaf)]


def map_structure(
    fn: Callable[..., Any],
    tree: Any,
    *rest: Any,
    is_leaf: Callable[[Any], bool] | None = None,
) -> Any:
    """The same tree with `fn(leaf, *leaves of the others at the same place)` for its leaves.

    Parameters
    ----------
    fn : callable
        Called in the order of `flatten_with_paths`.
    tree : object
        Gives the structure, and the kinds of the containers in the result.
    *rest : object
        Trees that have at least the containers of `tree`, with the same labels; what stands there
        where `tree` has a leaf is given to `fn` whole.
    is_leaf : callable, optional
        As for `flatten_with_paths`; asked about `tree` alone.

    Raises
    ------
    ValueError
        One of the others has a leaf, or other labels, where `tree` has a container.

    Examples
    --------
    >>> map_structure(lambda a, b: a + b, {"x": 1, "y": (2, 3)}, {"x": 10, "y": (20, 30)})
    {'x': 11, 'y': (22, 33)}
    """
    container = None if is_leaf is not None and is_leaf(tree) else describe(tree)
    if container is None:
        return fn(tree, *rest)
    others: list[dict[str, Any]] = []
    for other in rest:
        parts = describe(other)
        labels = [] if parts is None else [str(label) for label in parts.labels]
        if parts is None or set(labels) != {str(label) for label in container.labels}:
            raise ValueError(
                f"the trees differ: one has {shortened(tree)} where another has {shortened(other)}"
            )
        others.append(dict(zip(labels, parts.children)))
    return container.rebuild(
        [
            map_structure(fn, child, *(other[str(label)] for other in others), is_leaf=is_leaf)
            for label, child in zip(container.labels, container.children)
        ]
    )


def shortened(value: object) -> str:
    """A `repr` that fits into a message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def path_text(path: KindedPath) -> str:
    """A path as it is shown everywhere, and as patterns match it.

    >>> path_text((("key", "params"), ("index", 0), ("attribute", "w"), ("key", 7)))
    'params[0]/.w/{7}'
    """
    text = ""
    for kind, label in path:
        if kind == "index":
            text += f"[{label}]"
            continue
        if text:
            text += "/"
        if isinstance(label, int):
            text += f"{{{label}}}"
        elif kind == "attribute":
            text += "." + _name_text(label, is_at_start=False)
        else:
            text += _name_text(label, is_at_start=True)
    return text


def _name_text(name: str, is_at_start: bool) -> str:
    if not name:
        return r"\e"
    text = ""
    for place, character in enumerate(name):
        code = ord(character)
        if code < 0x20 or 0x7F <= code < 0xA0:
            text += "".join(f"\\x{byte:02x}" for byte in character.encode())
            continue
        is_special = character in "/[\\" or (is_at_start and place == 0 and character in ".{")
        text += "\\" + character if is_special else character
    return text
