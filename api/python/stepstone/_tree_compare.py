"""How trees differ, and what they have in common; public in `tree`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from stepstone._containers import (
    Container,
    describe,
    flatten_nodes,
    map_structure,
    path_key,
    shortened,
)

IsLeaf = Callable[[Any], bool]


class Diff(NamedTuple):
    """Where two trees differ, in the result of `tree_difference`."""

    lhs: Any
    rhs: Any


def tree_difference(
    a: Any,
    b: Any,
    *,
    is_leaf: IsLeaf | None = None,
    leaves_equal: Callable[[Any, Any], bool] | None = None,
) -> Any:
    """Where two trees differ: a tree of `Diff` objects, or None.

    Parameters
    ----------
    a, b : object
        The trees.
    is_leaf : callable, optional
        What it is true for is a leaf, container or not.
    leaves_equal : callable, optional
        Whether two leaves count as equal. By default, if they are of the same type.

    Returns
    -------
    object
        Mappings without the entries that do not differ; sequences, named tuples and registered
        nodes with None in their place. Sequences of different lengths are one `Diff` of their types
        and lengths; an entry that only one of the mappings has is a `Diff` with None.

    Examples
    --------
    >>> tree_difference({"x": [1, 2], "y": 3, "z": 4}, {"x": [1, "2"], "y": 3, "w": 5})
    {'x': [None, Diff(lhs=2, rhs='2')], 'z': Diff(lhs=4, rhs=None), 'w': Diff(lhs=None, rhs=5)}
    >>> tree_difference((1, 2), (1, 2, 3))
    Diff(lhs=(<class 'tuple'>, 2), rhs=(<class 'tuple'>, 3))
    """
    parts_a = None if is_leaf is not None and is_leaf(a) else describe(a)
    parts_b = None if is_leaf is not None and is_leaf(b) else describe(b)
    if parts_a is None and parts_b is None:
        is_equal = leaves_equal(a, b) if leaves_equal is not None else type(a) is type(b)
        return None if is_equal else Diff(a, b)
    if parts_a is None or parts_b is None or type(a) is not type(b):
        return Diff(type(a), type(b))
    if parts_a.label_kind == "index" and len(parts_a.labels) != len(parts_b.labels):
        return Diff((type(a), len(parts_a.labels)), (type(b), len(parts_b.labels)))
    in_a = dict(zip(parts_a.labels, parts_a.children))
    in_b = dict(zip(parts_b.labels, parts_b.children))
    found: dict[Any, Any] = {}
    for label, child in in_a.items():
        if label not in in_b:
            found[label] = Diff(child, None)
            continue
        difference = tree_difference(
            child, in_b[label], is_leaf=is_leaf, leaves_equal=leaves_equal
        )
        if difference is not None:
            found[label] = difference
    found.update((label, Diff(None, child)) for label, child in in_b.items() if label not in in_a)
    if not found:
        return None
    if isinstance(a, Mapping) or in_a.keys() != in_b.keys():
        return found
    return parts_a.rebuild([found.get(label) for label in parts_a.labels])


def tree_trim(
    template: Any,
    structure: Any,
    *,
    trimmed_structure_callback: Callable[[tuple[Any, ...], Any], None] | None = None,
    strict: bool = True,
    allow_sequence_mapping_alignment: bool = False,
) -> Any:
    """Leaves out of a tree what another one has not.

    Parameters
    ----------
    template : object
        Which entries stay, and the kinds of the containers in the result.
    structure : object
        Gives the leaves. Only entries of mappings and attributes can be left out: sequences must
        have the length of those in `template`.
    trimmed_structure_callback : callable, optional
        Called with the path and the value of all that is left out.
    strict : bool
        Whether everything in `template` must be in `structure`. If not, `...` stands where leaves
        are missing; that is the tree itself, where Orbax returns it wrapped.
    allow_sequence_mapping_alignment : bool
        Whether a sequence in `structure` may be meant by a mapping in `template`, its positions
        being the mapping's keys.

    Raises
    ------
    TypeError
        There is a leaf on one side and a container on the other, or kinds that do not fit.
    ValueError
        Something in `template` is missing, or a sequence has another length.

    Examples
    --------
    >>> tree_trim({"a": 0, "b": [0, 0]}, {"a": 1, "b": [2, 3], "c": 4})
    {'a': 1, 'b': [2, 3]}
    >>> tree_trim({"a": 0, "d": {"e": 0}}, {"a": 1}, strict=False)
    {'a': 1, 'd': {'e': Ellipsis}}
    """

    def drop(path: tuple[Any, ...], value: Any) -> None:
        if trimmed_structure_callback is not None:
            trimmed_structure_callback(path, value)

    def visit(path: tuple[Any, ...], wanted: Any, given: Any) -> Any:
        parts = describe(wanted)
        given_parts = describe(given)
        if wanted is None:
            # None fits whatever is there, and leaves all of it out.
            for label, child in zip(*_labels_and_children(given_parts)):
                drop((*path, label), child)
            if given_parts is None and given is not None:
                drop(path, given)
            return None
        if parts is None:
            if given_parts is not None:
                raise TypeError(_type_mismatch(path, wanted, given))
            return given
        if given is None:
            given_parts = parts._replace(labels=[], children=[])
        if given_parts is None:
            raise TypeError(_type_mismatch(path, wanted, given))
        if parts.label_kind == "index":
            if given_parts.label_kind != "index":
                raise TypeError(_type_mismatch(path, wanted, given))
            if len(parts.labels) != len(given_parts.labels):
                raise ValueError(
                    f"length mismatch at {path}: the template has {len(parts.labels)} elements, the"
                    f" structure {len(given_parts.labels)}"
                )
        elif given_parts.label_kind == "index" and not (
            allow_sequence_mapping_alignment or parts.kind == "named_tuple"
        ):
            raise TypeError(_type_mismatch(path, wanted, given))
        if parts.kind == "named_tuple" and given_parts.kind in ("list", "tuple"):
            # The fields of a named tuple by their positions.
            if len(parts.labels) != len(given_parts.labels):
                raise ValueError(
                    f"length mismatch at {path}: the template has {len(parts.labels)} fields, the"
                    f" structure {len(given_parts.labels)} elements"
                )
            by_name = dict(zip(map(str, parts.labels), given_parts.children))
        else:
            by_name = dict(zip(map(str, given_parts.labels), given_parts.children))
            for label, child in zip(given_parts.labels, given_parts.children):
                if str(label) not in set(map(str, parts.labels)):
                    drop((*path, label), child)
        missing = [label for label in parts.labels if str(label) not in by_name]
        if missing and strict:
            raise ValueError(
                f"{len(missing)} entries of the template are missing in the structure at {path},"
                f" among them {missing[:10]}"
            )
        return parts.rebuild(
            [
                visit((*path, label), child, by_name[str(label)])
                if str(label) in by_name
                else map_structure(lambda _: ..., child)
                for label, child in zip(parts.labels, parts.children)
            ]
        )

    return visit((), template, structure)


def _labels_and_children(parts: Container | None) -> tuple[list[Any], list[Any]]:
    return ([], []) if parts is None else (parts.labels, parts.children)


def _type_mismatch(path: tuple[Any, ...], template: Any, structure: Any) -> str:
    return (
        f"type mismatch at {path}: the template has a {type(template).__name__}, the structure a"
        f" {type(structure).__name__}"
    )


def merge_trees(*trees: Any, overwrite: bool = False, is_leaf: IsLeaf | None = None) -> Any:
    """One tree with the leaves of several.

    Parameters
    ----------
    *trees : object
        The trees. Mappings are merged by their keys, dataclasses and named tuples by their fields,
        and sequences, which must be of one length, by position. None gives way to anything.
    overwrite : bool
        Whether later trees replace leaves of earlier ones. Otherwise no two may have the same leaf.
    is_leaf : callable, optional
        What it is true for is a leaf, container or not.

    Raises
    ------
    ValueError
        `overwrite` is False, and two trees have the same leaf, or containers of different types at
        the same place; or sequences differ in their lengths.

    Examples
    --------
    >>> merge_trees({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}})
    {'a': 1, 'b': {'c': 2, 'd': 3}}
    >>> merge_trees({"a": 1}, {"a": 2}, overwrite=True)
    {'a': 2}
    """
    if not trees:
        return {}
    if not overwrite:
        seen: set[tuple[str, ...]] = set()
        for tree in trees:
            paths = {path_key(path) for path, _ in flatten_nodes(tree, is_leaf=is_leaf)}
            common = sorted(seen & paths)
            if common:
                raise ValueError(f"several trees have the leaves {common}, and overwrite is False")
            seen |= paths
    merged = trees[0]
    for tree in trees[1:]:
        merged = _merge(merged, tree, overwrite, is_leaf)
    return merged


def _merge(old: Any, new: Any, overwrite: bool, is_leaf: IsLeaf | None) -> Any:
    if old is None or new is None:
        return old if new is None else new
    if type(old) is not type(new) and not overwrite:
        raise ValueError(
            f"a {type(old).__name__} and a {type(new).__name__} stand at the same place:"
            f" {shortened(old)} and {shortened(new)}"
        )
    parts_old = None if is_leaf is not None and is_leaf(old) else describe(old)
    parts_new = None if is_leaf is not None and is_leaf(new) else describe(new)
    if parts_old is None or parts_new is None:
        return new
    if parts_new.label_kind == "index" and len(parts_old.labels) != len(parts_new.labels):
        raise ValueError(
            f"sequences of {len(parts_old.labels)} and {len(parts_new.labels)} elements stand at"
            " the same place"
        )
    merged = dict(zip(parts_old.labels, parts_old.children))
    for label, child in zip(parts_new.labels, parts_new.children):
        merged[label] = (
            _merge(merged[label], child, overwrite, is_leaf) if label in merged else child
        )
    if set(merged) == set(parts_new.labels):
        return parts_new.rebuild([merged[label] for label in parts_new.labels])
    if isinstance(new, Mapping):
        try:
            return type(new)(merged)  # type: ignore[call-arg]
        except (TypeError, ValueError):
            return merged
    return merged
