"""Which handler of the newer style saves and loads which object.

A registry has classes of handlers. One that was added for a name is for the objects of that name;
the others are asked whether they can handle an object, the one that was added last first.
`register_handler` adds to the global registry, which is used unless a `Context` has another one:

>>> import dataclasses, tempfile
>>> import stepstone.v1 as ocp
>>> @dataclasses.dataclass
... class Words:
...     words: list[str]
>>> class WordsHandler(ocp.CheckpointableHandler[Words, None]):
...     async def save(self, directory, checkpointable):
...         (await directory.await_creation() / "words").write_text(" ".join(checkpointable.words))
...     async def load(self, directory, abstract_checkpointable=None):
...         return Words((directory / "words").read_text().split())
...     def is_handleable(self, checkpointable):
...         return isinstance(checkpointable, Words)
...     def is_abstract_handleable(self, abstract_checkpointable):
...         return abstract_checkpointable is None
>>> context = ocp.Context()
>>> context.checkpointables.registry = ocp.handlers.local_registry().add(WordsHandler)
>>> with context, tempfile.TemporaryDirectory() as directory:
...     ocp.save_checkpointables(directory + "/1", {"vocabulary": Words(["to", "be"])})
...     ocp.load_checkpointables(directory + "/1")
{'vocabulary': Words(words=['to', 'be'])}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from stepstone import _items, _native
from stepstone.args import Composite
from stepstone.checkpointable_handlers import (
    JsonHandler,
    ProtoHandler,
    PyTreeHandler,
    StatefulCheckpointableHandler,
    TreeHandler,
    as_tree_handler,
    recorded_name,
)
from stepstone.context import get_context
from stepstone.errors import AlreadyExistsError, InvalidArgumentError, ItemNotFoundError
from stepstone.errors import NoEntryError, UnsupportedError
from stepstone.registry import HandlerRegistry, is_checkpoint_args
from stepstone.stateful import StatefulCheckpointable, typestr

__all__ = [
    "CheckpointableHandlerRegistry",
    "ReadOnlyCheckpointableHandlerRegistry",
    "global_registry",
    "local_registry",
    "register_handler",
]

STATE_NAME = "state"  # The item of a checkpoint that has one tree.
AUTO_NAME = "AUTO"
RESERVED_NAMES = frozenset({"metrics", AUTO_NAME, "_CHECKPOINT_DELETION"})

_HandlerT = TypeVar("_HandlerT", bound=type)
_Entry = tuple[type, str | None]


class CheckpointableHandlerRegistry(Protocol):
    """Classes of handlers, in the order in which they were added."""

    def add(
        self,
        handler_type: type,
        *,
        checkpointable_name: str | None = None,
        secondary_typestrs: Sequence[str] | None = None,
    ) -> CheckpointableHandlerRegistry:
        """Adds a class, which can be constructed without arguments.

        Parameters
        ----------
        handler_type : type
            Of a `CheckpointableHandler`.
        checkpointable_name : str, optional
            It is for the objects of this name only, and the only one for them.
        secondary_typestrs : sequence of str, optional
            Other names under which what it can load was saved.

        Returns
        -------
        CheckpointableHandlerRegistry
            The registry itself.

        Raises
        ------
        AlreadyExistsError
            There is a handler of this name, or the class was added already.
        ValueError
            It is no class.
        """
        ...

    def get(self, checkpointable_name: str) -> type:
        """The class for a name.

        Raises
        ------
        NoEntryError
            There is none.
        """
        ...

    def has(self, checkpointable_name: str) -> bool:
        """Whether there is a class for a name."""
        ...

    def get_all_entries(self) -> Sequence[_Entry]:
        """The classes, each with its name or None."""
        ...

    def get_secondary_typestrs(self, handler_type: type) -> Sequence[str]:
        """The other names of a class."""
        ...


class _Registry(CheckpointableHandlerRegistry):
    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._secondary_typestrs: dict[type, tuple[str, ...]] = {}

    def add(
        self,
        handler_type: type,
        *,
        checkpointable_name: str | None = None,
        secondary_typestrs: Sequence[str] | None = None,
    ) -> CheckpointableHandlerRegistry:
        if not isinstance(handler_type, type):
            raise InvalidArgumentError(f"a registry has classes of handlers, not {handler_type!r}")
        if checkpointable_name is not None and self.has(checkpointable_name):
            raise AlreadyExistsError(f"there is a handler for '{checkpointable_name}' already")
        if checkpointable_name is None and handler_type in [cls for cls, _ in self._entries]:
            raise AlreadyExistsError(f"{handler_type} was added already")
        self._entries.append((handler_type, checkpointable_name))
        if secondary_typestrs is not None:
            self._secondary_typestrs[handler_type] = tuple(secondary_typestrs)
        return self

    def get(self, checkpointable_name: str) -> type:
        for handler_type, name in self._entries:
            if name == checkpointable_name:
                return handler_type
        raise NoEntryError(f"there is no handler for '{checkpointable_name}'")

    def has(self, checkpointable_name: str) -> bool:
        return any(name == checkpointable_name for _, name in self._entries)

    def get_all_entries(self) -> Sequence[_Entry]:
        return list(self._entries)

    def get_secondary_typestrs(self, handler_type: type) -> Sequence[str]:
        return self._secondary_typestrs.get(handler_type, ())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._entries})"


class ReadOnlyCheckpointableHandlerRegistry(CheckpointableHandlerRegistry):
    """A view of another registry, to which nothing can be added.

    Parameters
    ----------
    registry : CheckpointableHandlerRegistry
    """

    def __init__(self, registry: CheckpointableHandlerRegistry) -> None:
        self._registry = registry

    def add(
        self,
        handler_type: type,
        *,
        checkpointable_name: str | None = None,
        secondary_typestrs: Sequence[str] | None = None,
    ) -> CheckpointableHandlerRegistry:
        """NotImplementedError."""
        raise NotImplementedError(
            "this registry is read-only: add to a `local_registry()`, and give that to the Context"
        )

    def get(self, checkpointable_name: str) -> type:
        return self._registry.get(checkpointable_name)

    def has(self, checkpointable_name: str) -> bool:
        return self._registry.has(checkpointable_name)

    def get_all_entries(self) -> Sequence[_Entry]:
        return self._registry.get_all_entries()

    def get_secondary_typestrs(self, handler_type: type) -> Sequence[str]:
        return self._registry.get_secondary_typestrs(handler_type)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._registry!r})"


def _default_registry() -> _Registry:
    registry = _Registry()
    for handler_type in (JsonHandler, PyTreeHandler, ProtoHandler, StatefulCheckpointableHandler):
        registry.add(handler_type)
    registry.add(PyTreeHandler, checkpointable_name=STATE_NAME)
    return registry


# Handlers are registered for the whole process, by the module that defines them.
_GLOBAL = _default_registry()


def global_registry() -> CheckpointableHandlerRegistry:
    """The registry of the process.

    >>> global_registry().has("state")
    True
    """
    return _GLOBAL


def local_registry(
    other_registry: CheckpointableHandlerRegistry | None = None,
    *,
    include_global_registry: bool = True,
) -> CheckpointableHandlerRegistry:
    """A new registry.

    Parameters
    ----------
    other_registry : CheckpointableHandlerRegistry, optional
        Whose entries it starts with.
    include_global_registry : bool
        Whether those of the global registry come before them.
    """
    registry = _Registry()
    for source in (_GLOBAL if include_global_registry else None, other_registry):
        for handler_type, name in source.get_all_entries() if source is not None else ():
            assert source is not None
            registry.add(
                handler_type,
                checkpointable_name=name,
                secondary_typestrs=source.get_secondary_typestrs(handler_type),
            )
    return registry


def register_handler(
    cls: _HandlerT,
    *,
    checkpointable_name: str | None = None,
    secondary_typestrs: Sequence[str] | None = None,
) -> _HandlerT:
    """Adds a class to the global registry, and returns it: a decorator.

    Parameters are those of `CheckpointableHandlerRegistry.add`.
    """
    _GLOBAL.add(
        cls, checkpointable_name=checkpointable_name, secondary_typestrs=secondary_typestrs
    )
    return cls


def build_items(checkpointables: Mapping[str, Any]) -> list[_native.SaveItem]:
    """What a save of the native library takes.

    Raises
    ------
    ValueError
        The names are not such as a checkpoint can have, or an object is None.
    NoEntryError
        No handler can save an object.
    """
    if not isinstance(checkpointables, Mapping) or not checkpointables:
        raise InvalidArgumentError(
            "checkpointables have to be a dict of at least one name and object, not "
            f"{checkpointables if isinstance(checkpointables, Mapping) else type(checkpointables)}"
        )
    check_names(checkpointables)
    return [_save_item(name, value) for name, value in checkpointables.items()]


def check_names(names: Mapping[str, Any]) -> None:
    """ValueError unless all can be names of checkpointables."""
    for name in names:
        if not isinstance(name, str) or not name or name in RESERVED_NAMES:
            raise InvalidArgumentError(
                f"{name!r} cannot be the name of a checkpointable: it has to be a string that is "
                f"neither empty nor one of {sorted(RESERVED_NAMES)}"
            )


def _save_item(name: str, checkpointable: Any) -> _native.SaveItem:
    if is_checkpoint_args(checkpointable):
        items, _ = _items.build_items(Composite(**{name: checkpointable}), HandlerRegistry())
        return items[0]
    handler = _resolve_for_save(name, checkpointable)
    tree_handler = as_tree_handler(handler)
    return name, recorded_name(handler), lambda: tree_handler.to_tree(checkpointable)


def load_item(step: _native.Step, name: str, abstract: Any) -> Any:
    """Loads one item.

    Parameters
    ----------
    step : _native.Step
    name : str
    abstract : object
        What it is to be loaded into. None: as it was saved.

    Raises
    ------
    ItemNotFoundError
        The step has no such item.
    NoEntryError
        No handler can load it.
    """
    recorded = _recorded(step, name)
    if is_checkpoint_args(abstract):
        return _items.restore_item(step, name, abstract, HandlerRegistry())
    handler = _resolve_for_load(name, abstract, recorded)
    if handler is not None:
        return as_tree_handler(handler).from_step(step, name, abstract)
    try:
        return _items.restore_item(step, name, abstract, HandlerRegistry())
    except UnsupportedError as error:
        raise NoEntryError(
            f"item '{name}' was saved by the handler '{recorded}', which is not registered in this "
            "process: import its module, or add it to the registry of the Context"
        ) from error


def describe_item(step: _native.Step, name: str) -> Any:
    """What is known of an item without its arrays being read; None where nothing is.

    Raises
    ------
    ItemNotFoundError
        The step has no such item.
    """
    handler = _resolve_for_load(name, None, _recorded(step, name))
    if handler is not None:
        return as_tree_handler(handler).describe(step, name)
    return _items.one_item_metadata(step, name, HandlerRegistry())


def is_tree_item(recorded: str) -> bool:
    """Whether an item that this handler has saved is a tree, which `load` loads."""
    return recorded in PyTreeHandler.restores


def _recorded(step: _native.Step, name: str) -> str:
    handlers = step.item_handlers()
    if name not in handlers:
        raise ItemNotFoundError(
            f"the checkpoint has no checkpointable '{name}', only {list(handlers)}"
        )
    return handlers[name]


def _make(handler_type: type) -> Any:
    try:
        return handler_type()
    except TypeError as error:
        raise InvalidArgumentError(
            f"{handler_type} cannot be made without arguments ({error}), as every handler in a "
            "registry has to be"
        ) from error


def _resolve_for_save(name: str, checkpointable: Any) -> Any:
    if checkpointable is None:
        raise InvalidArgumentError(f"checkpointable '{name}' is None, which cannot be saved")
    registry = get_context().checkpointables.registry
    if registry.has(name) and not isinstance(checkpointable, StatefulCheckpointable):
        return _make(registry.get(name))
    for handler_type, entry_name in reversed(registry.get_all_entries()):
        if entry_name is None and (handler := _make(handler_type)).is_handleable(checkpointable):
            return handler
    if registry.has(name):
        return _make(registry.get(name))
    raise NoEntryError(
        f"no handler can save checkpointable '{name}', of type {type(checkpointable).__name__}: "
        "give it methods save(directory) and load(directory), or register a handler for it "
        f"(there are {[cls.__name__ for cls, _ in registry.get_all_entries()]})"
    )


def _resolve_for_load(name: str, abstract: Any, recorded: str) -> Any | None:
    """The handler that an item is loaded with: that of its name, that which has saved it, or one
    that takes `abstract`. None: there is none."""
    registry = get_context().checkpointables.registry
    entries = list(reversed(registry.get_all_entries()))
    named = [registry.get(name)] if registry.has(name) else []
    saved_by = [cls for cls, _ in entries if recorded in _loadable(cls, registry)][:1]
    # An object that loads itself knows better than a name.
    first = saved_by + named if isinstance(abstract, StatefulCheckpointable) else named + saved_by
    preferred = [_make(cls) for cls in first if _may_load(cls, recorded, registry)]
    for handler in preferred:
        # None: it cannot tell, and is taken at its record.
        if abstract is None or handler.is_abstract_handleable(abstract) is not False:
            return handler
    for cls, entry_name in entries if abstract is not None else ():
        if entry_name is None and _may_load(cls, recorded, registry):
            if (handler := _make(cls)).is_abstract_handleable(abstract):
                return handler
    return preferred[0] if preferred else None


def _loadable(handler_type: type, registry: CheckpointableHandlerRegistry) -> tuple[str, ...]:
    """The recorded names of what a class of handlers can load."""
    own = (
        handler_type.restores
        if issubclass(handler_type, TreeHandler)
        else (typestr(handler_type),)
    )
    return (*own, *registry.get_secondary_typestrs(handler_type))


def _may_load(
    handler_type: type, recorded: str, registry: CheckpointableHandlerRegistry
) -> bool:
    """Handlers of trees know their own items; those of files can try whatever is files."""
    if recorded in _loadable(handler_type, registry):
        return True
    is_of_files = "." in recorded or recorded == StatefulCheckpointableHandler.recorded
    return is_of_files and not issubclass(handler_type, TreeHandler)
