"""What a restore without a target makes of named tuples, dataclasses and custom nodes.

A checkpoint says how the type of a node was called. That name is only looked up among modules that
are already imported, and only where its class is a named tuple or a dataclass with exactly the
recorded fields; nothing is imported because of it, and no constructor is run. Everything else
becomes a `CustomNode`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import namedtuple
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from functools import lru_cache
from typing import Any

Label = str | int


def type_name(cls: type) -> str:
    """What a class is called in a checkpoint: its module and its qualified name."""
    return f"{cls.__module__}.{cls.__qualname__}"


class CustomNode:
    """A restored node whose class this process does not have, or would have to construct.

    Its children are attributes and items at once. It can be saved again, and is then what it was.

    Parameters
    ----------
    type_name : str
        Module and qualified name of the class that was saved.
    label_kind : str
        "attribute", "key" or "index": what the labels were.
    labels, children : list
        As many of the one as of the other.

    Examples
    --------
    >>> node = CustomNode("flax.TrainState", "attribute", ["step", "params"], [3, {}])
    >>> node.step, node["step"], len(node), list(node)
    (3, 3, 2, ['step', 'params'])
    >>> node
    <flax.TrainState as saved: step=3, params={}>
    """

    __slots__ = ("__weakref__", "_children", "_label_kind", "_type_name")

    _children: dict[Label, Any]
    _label_kind: str
    _type_name: str

    def __init__(
        self, type_name: str, label_kind: str, labels: list[Label], children: list[Any]
    ) -> None:
        object.__setattr__(self, "_type_name", type_name)
        object.__setattr__(self, "_label_kind", label_kind)
        object.__setattr__(self, "_children", dict(zip(labels, children)))

    @property
    def type_name(self) -> str:
        """Module and qualified name of the class that was saved."""
        return self._type_name

    @property
    def label_kind(self) -> str:
        """What its labels were: "attribute", "key" or "index"."""
        return self._label_kind

    def keys(self) -> KeysView[Label]:
        """Its labels."""
        return self._children.keys()

    def values(self) -> ValuesView[Any]:
        """Its children."""
        return self._children.values()

    def items(self) -> ItemsView[Label, Any]:
        """Pairs of a label and a child."""
        return self._children.items()

    def __getattr__(self, name: str) -> Any:
        # Without the check, a copy that has no attributes yet would look for them for ever.
        if name not in CustomNode.__slots__ and name in self._children:
            return self._children[name]
        raise AttributeError(f"{self._type_name} was saved without '{name}': it has {list(self)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a restored node cannot be changed")

    def __getitem__(self, label: Label) -> Any:
        try:
            return self._children[label]
        except KeyError:
            raise KeyError(
                f"{self._type_name} was saved without {label!r}: it has {list(self)}"
            ) from None

    def __contains__(self, label: object) -> bool:
        return label in self._children

    def __iter__(self) -> Iterator[Label]:
        return iter(self._children)

    def __len__(self) -> int:
        return len(self._children)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in self._children if isinstance(name, str))]

    def __reduce__(self) -> tuple[Any, ...]:
        return CustomNode, (self._type_name, self._label_kind, [*self], [*self.values()])

    def __repr__(self) -> str:
        children = ", ".join(f"{label}={child!r}" for label, child in self._children.items())
        return f"<{self._type_name} as saved: {children}>"


# Nodes with a meaning of their own: what makes each of its fields, or None if they make no sense.
special_nodes: dict[str, Callable[[dict[Label, Any]], Any]] = {}


# Called before a `CustomNode` is made.
node_observers: list[Callable[[], None]] = []


def make_node(
    kind: str, recorded_name: str, label_kind: str, labels: list[Label], children: list[Any]
) -> object:
    """A named tuple or custom node as it was saved; see the module's documentation."""
    if kind == "named_tuple":
        return _named_tuple(recorded_name, [str(label) for label in labels], children)
    special = special_nodes.get(recorded_name)
    if special is not None:
        made = special(dict(zip(labels, children)))
        if made is not None:
            return made
    cls = _find_class(recorded_name)
    if cls is not None and dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls)]
        if set(names) == set(labels) and len(names) == len(labels):
            made = object.__new__(cls)
            for label, child in zip(labels, children):
                object.__setattr__(made, str(label), child)
            return made
    for prepare in node_observers:
        prepare()
    return CustomNode(recorded_name, label_kind, labels, children)


def _named_tuple(recorded_name: str, names: list[str], children: list[Any]) -> Any:
    cls = _find_class(recorded_name)
    if (
        cls is None
        or not issubclass(cls, tuple)
        or getattr(cls, "_fields", None) != tuple(names)
    ):
        cls = _substitute(recorded_name, tuple(names))
    return tuple.__new__(cls, children)


@lru_cache(maxsize=256)
def _substitute(recorded_name: str, names: tuple[str, ...]) -> type:
    """A named tuple for one whose class is not there; it is saved again under the same name."""
    module, _, name = recorded_name.rpartition(".")
    # Names that are none of Python's (`_1`, `class`) become positions.
    return namedtuple(
        name if name.isidentifier() else "NamedTuple", names, rename=True, module=module or None
    )


def _find_class(recorded_name: str) -> type | None:
    """The class of this name, if its module is imported already."""
    parts = recorded_name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:length]))
        if module is None:
            continue
        # vars() and not getattr(): modules may import others when they are asked for a name.
        found: Any = vars(module).get(parts[length])
        for part in parts[length + 1 :]:
            found = vars(found).get(part) if isinstance(found, type) else None
        return found if isinstance(found, type) else None
    return None
