"""Which handler saves and restores an item.

`register_with_handler` ties a class of arguments to a class of handlers, for the whole process.
`DefaultCheckpointHandlerRegistry` does it for single items, or for one manager. `HandlerRegistry`
is what managers and checkpointers ask; it combines both with what they were constructed with.
Handlers and arguments that were registered with Orbax are found as well, where Orbax is imported.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, Protocol, TypeVar

from stepstone.errors import AlreadyExistsError, InvalidArgumentError, MismatchError, NoEntryError
from stepstone.errors import UnsupportedError

__all__ = [
    "AlreadyExistsError",
    "CheckpointArgs",
    "CheckpointHandlerRegistry",
    "DefaultCheckpointHandlerRegistry",
    "HandlerRegistry",
    "NoEntryError",
    "create_default_handler_registry",
    "get_registered_args_cls",
    "get_registered_handler_cls",
    "has_registered_args",
    "register_with_handler",
]

# The item of a checkpoint that was saved as one object.
DEFAULT_ITEM = "default"


@dataclasses.dataclass
class CheckpointArgs:
    """Base of all classes that say what to save, or how to restore it.

    Derive a dataclass from it for a handler of your own, and register it:

    >>> import dataclasses
    >>> import stepstone as ocp
    >>> class WordsHandler(ocp.CheckpointHandler):
    ...     def save(self, directory, args):
    ...         (directory / "words.txt").write_text(" ".join(args.words))
    ...     def restore(self, directory, args):
    ...         return (directory / "words.txt").read_text().split()
    >>> @ocp.args.register_with_handler(WordsHandler, for_save=True)
    ... @dataclasses.dataclass
    ... class WordsSave(ocp.args.CheckpointArgs):
    ...     words: list[str]
    >>> @ocp.args.register_with_handler(WordsHandler, for_restore=True)
    ... @dataclasses.dataclass
    ... class WordsRestore(ocp.args.CheckpointArgs):
    ...     pass
    """


Args = TypeVar("Args", bound=type)

_handler_of_save: dict[type, type] = {}
_handler_of_restore: dict[type, type] = {}
# By what is recorded with each item.
_handler_by_name: dict[str, type] = {}


def is_checkpoint_args(value: object) -> bool:
    """Whether `value`, or a class, is a `CheckpointArgs`, ours or Orbax's."""
    cls = value if isinstance(value, type) else type(value)
    return any(base.__name__ == "CheckpointArgs" for base in cls.__mro__)


def handler_name(handler: object) -> str:
    """What is recorded with an item that `handler`, an instance or a class, has saved."""
    typestr = getattr(handler, "typestr", None)
    if callable(typestr):
        return str(typestr())
    cls = handler if isinstance(handler, type) else type(handler)
    return f"{cls.__module__}.{cls.__qualname__}"


def _orbax(module: str) -> Any:
    """A module of Orbax, if the program uses it."""
    return sys.modules.get(f"orbax.checkpoint.{module}")


def register_with_handler(
    handler_cls: type, for_save: bool = False, for_restore: bool = False
) -> Callable[[Args], Args]:
    """Decorator that registers a class of arguments for a class of handlers.

    Parameters
    ----------
    handler_cls : type
        The handler; an instance is made, without arguments, when one is needed.
    for_save, for_restore : bool
        What the arguments are for; at least one has to be true.

    Raises
    ------
    ValueError
        Both are false, or another class is registered under this handler's `typestr()`.
    TypeError
        The decorated class does not derive from `CheckpointArgs`.
    """
    if not for_save and not for_restore:
        raise InvalidArgumentError("one of `for_save` and `for_restore` has to be True")

    def decorate(cls: Args) -> Args:
        if not is_checkpoint_args(cls):
            raise TypeError(f"{cls} has to derive from CheckpointArgs to be registered")
        name = handler_name(handler_cls)
        known = _handler_by_name.setdefault(name, handler_cls)
        if known is not handler_cls:
            _replace_handler(name, known, handler_cls)
        if for_save:
            _handler_of_save[cls] = handler_cls
        if for_restore:
            _handler_of_restore[cls] = handler_cls
        return cls

    return decorate


def _replace_handler(name: str, known: type, new: type) -> None:
    # Those that store in one form share its name: a class and what derives from it, or both of the
    # handlers for random keys.
    if issubclass(new, known) or getattr(new, "recorded_name", None) == name:
        return
    # A module that is loaded again, or a cell that is run again, defines its class again.
    if (known.__module__, known.__qualname__) != (new.__module__, new.__qualname__):
        raise InvalidArgumentError(
            f"{new} cannot be registered: {known} has the same typestr, '{name}'"
        )
    _handler_by_name[name] = new


def read_also_as(name: str, handler_cls: type) -> None:
    """Has what another handler of this name has saved restored by `handler_cls`."""
    _handler_by_name[name] = handler_cls


def get_registered_handler_cls(arg: type | object) -> type:
    """The class of handlers for arguments, which may be an instance or a class.

    Raises
    ------
    TypeError
        It does not derive from `CheckpointArgs`.
    ValueError
        It is not registered.
    """
    cls = arg if isinstance(arg, type) else type(arg)
    if not is_checkpoint_args(cls):
        raise TypeError(f"{cls} has to derive from CheckpointArgs")
    found = _handler_of_save.get(cls) or _handler_of_restore.get(cls)
    if found is None and (foreign := _orbax("checkpoint_args")) is not None:
        try:
            found = foreign.get_registered_handler_cls(cls)
        except (TypeError, ValueError):
            pass
    if found is None:
        raise UnsupportedError(
            f"no CheckpointHandler is registered for {cls}: use `register_with_handler`"
        )
    return found


def get_registered_args_cls(handler: object) -> tuple[type, type]:
    """The classes of arguments, for saving and for restoring, of a handler or its class.

    Raises
    ------
    ValueError
        One of the two is not registered.
    """
    cls = handler if isinstance(handler, type) else type(handler)
    found = []
    for purpose, handlers in (("save", _handler_of_save), ("restore", _handler_of_restore)):
        args = next((args for args, known in handlers.items() if known is cls), None)
        if args is None and (foreign := _orbax("checkpoint_args")) is not None:
            try:
                args = foreign.get_registered_args_cls(cls)[purpose == "restore"]
            except ValueError:
                pass
        if args is None:
            raise UnsupportedError(
                f"no CheckpointArgs are registered to {purpose} with {cls}: "
                "use `register_with_handler`"
            )
        found.append(args)
    return found[0], found[1]


def has_registered_args(handler: object) -> bool:
    """Whether `get_registered_args_cls` finds both classes."""
    try:
        get_registered_args_cls(handler)
    except ValueError:
        return False
    return True


def handler_cls_of_name(name: str) -> type | None:
    """The class of handlers that is recorded as `name`; None if this process has none."""
    found = _handler_by_name.get(name)
    if found is None:
        foreign = _orbax("_src.handlers.handler_type_registry")
        if foreign is not None:
            try:
                found = foreign.get_handler_type(name)
            except KeyError:
                pass
    return found


class CheckpointHandlerRegistry(Protocol):
    """What a registry of one manager or checkpointer can do."""

    def add(self, item: str | None, args: Any, handler: Any = None) -> None: ...

    def get(self, item: str | None, args: Any) -> Any: ...

    def has(self, item: str | None, args: Any) -> bool: ...

    def get_all_entries(self) -> MutableMapping[tuple[str | None, type], Any]: ...


class DefaultCheckpointHandlerRegistry(CheckpointHandlerRegistry):
    """Handlers by the name of an item (None: any) and the class of its arguments.

    Parameters
    ----------
    other_registry : CheckpointHandlerRegistry, optional
        Whose entries to start with.

    Examples
    --------
    >>> import stepstone as ocp
    >>> registry = DefaultCheckpointHandlerRegistry()
    >>> registry.add("state", ocp.args.StandardSave, ocp.StandardCheckpointHandler)
    >>> registry.has("state", ocp.args.StandardSave), registry.has(None, ocp.args.StandardSave)
    (True, False)
    """

    def __init__(self, other_registry: CheckpointHandlerRegistry | None = None) -> None:
        self._entries: MutableMapping[tuple[str | None, type], Any] = {}
        if other_registry is not None:
            for (item, args), handler in other_registry.get_all_entries().items():
                self.add(item, args, handler)

    def add(self, item: str | None, args: Any, handler: Any = None) -> None:
        """Adds an entry.

        Parameters
        ----------
        item : str or None
            The item; None for all items that have no entry of their own.
        args : CheckpointArgs or type
            The class of arguments, or an instance of it.
        handler : CheckpointHandler or type, optional
            Without it, the one that is registered for `args`. Of a class an instance is made.

        Raises
        ------
        AlreadyExistsError
            There is an entry for both.
        ValueError
            No handler is registered for `args`, or it cannot be made without arguments.
        """
        cls = args if isinstance(args, type) else type(args)
        if self.has(item, cls):
            raise AlreadyExistsError(f"item {item!r} has a handler for {cls} already")
        if handler is None:
            handler = get_registered_handler_cls(cls)
        self._entries[(item, cls)] = make_handler(handler)

    def get(self, item: str | None, args: Any) -> Any:
        """The handler of an entry.

        Raises
        ------
        NoEntryError
            There is none.
        """
        cls = args if isinstance(args, type) else type(args)
        if not self.has(item, cls):
            raise NoEntryError(f"item {item!r} has no handler for {cls}")
        return self._entries[(item, cls)]

    def has(self, item: str | None, args: Any) -> bool:
        """Whether there is an entry."""
        return (item, args if isinstance(args, type) else type(args)) in self._entries

    def get_all_entries(self) -> MutableMapping[tuple[str | None, type], Any]:
        """All entries: {(item, class of arguments): handler}."""
        return self._entries

    def __repr__(self) -> str:
        return f"DefaultCheckpointHandlerRegistry({dict(self._entries)!r})"


def create_default_handler_registry(**items_to_handlers: Any) -> DefaultCheckpointHandlerRegistry:
    """A registry with these handlers, for the arguments that are registered for their classes."""
    registry = DefaultCheckpointHandlerRegistry()
    for item, handler in items_to_handlers.items():
        for args in dict.fromkeys(get_registered_args_cls(handler)):
            registry.add(item, args, handler)
    return registry


def make_handler(handler: Any) -> Any:
    """An instance, of the package where the class is one of Orbax that the package has, too.

    Raises
    ------
    ValueError
        The class cannot be made without arguments.
    """
    from stepstone.handlers import adopt_handler

    if isinstance(handler, type):
        try:
            handler = handler()
        except TypeError as error:
            raise InvalidArgumentError(
                f"{handler} cannot be made without arguments ({error}): give an instance"
            ) from error
    return adopt_handler(handler)


class HandlerRegistry:
    """The handlers of one manager or checkpointer. Thread-safe.

    Parameters
    ----------
    item_names : iterable of str, optional
        The only items there are; without it, or with `handler_registry`, any name is one.
    item_handlers : CheckpointHandler or mapping of str to CheckpointHandler, optional
        The handlers of items, or the one for the single object that is saved. A value of None
        leaves the choice to the arguments.
    handler_registry : CheckpointHandlerRegistry, optional
        Ours or Orbax's; excludes the other two.
    """

    def __init__(
        self,
        item_names: Iterable[str] | None = None,
        item_handlers: Any = None,
        handler_registry: Any = None,
    ) -> None:
        if item_handlers is not None and not isinstance(item_handlers, Mapping):
            item_handlers = {DEFAULT_ITEM: item_handlers}
        given = dict(item_handlers or {})
        names = [*(item_names or ()), *given]
        self.item_names: tuple[str, ...] = tuple(dict.fromkeys(names))
        self._handlers: dict[str, Any] = {
            item: make_handler(handler) for item, handler in given.items() if handler is not None
        }
        self._entries: dict[tuple[str | None, type], Any] = {}
        if handler_registry is not None:
            from stepstone.args import adopt_type

            for (item, args), handler in handler_registry.get_all_entries().items():
                self._entries[(item, adopt_type(args))] = make_handler(handler)
        self._made: dict[type, Any] = {}

    def resolve_for_save(self, item: str, args: Any) -> Any:
        """The handler that saves `item` with `args`.

        Raises
        ------
        ValueError
            There is none: `args` are not registered, are for another handler than the item's, or
            the item is none of `item_names`.
        """
        entry = self._entry(item, args)
        if entry is not None:
            return entry
        configured = self._handlers.get(item)
        if configured is None:
            if self.item_names and item not in self.item_names:
                raise InvalidArgumentError(
                    f"item '{item}' is none of those that were named: {list(self.item_names)}"
                )
            return self._make(get_registered_handler_cls(args))
        if self._takes(configured, args, for_save=True):
            return configured
        raise InvalidArgumentError(
            f"item '{item}' is saved by {type(configured).__name__}, which does not take "
            f"{type(args).__name__}"
        )

    def resolve_for_restore(self, item: str, args: Any, recorded: str) -> Any:
        """The handler that restores `item`, which `recorded` has saved; `args` may be None.

        Raises
        ------
        ValueError
            No handler is registered for `args` or, without them, under `recorded`; or it cannot
            restore what `recorded` has saved.
        """
        handler = self._find_for_restore(item, args, recorded)
        restores = getattr(handler, "can_restore", None)
        fits = restores(recorded) if restores is not None else handler_name(handler) == recorded
        if args is not None and not fits and self._handlers.get(item) is not handler:
            raise MismatchError(
                f"item '{item}' was saved by the handler '{recorded}', which "
                f"{type(args).__name__} is not for"
            )
        return handler

    def _find_for_restore(self, item: str, args: Any, recorded: str) -> Any:
        configured = self._handlers.get(item)
        if args is not None:
            entry = self._entry(item, args)
            if entry is not None:
                return entry
            if configured is not None and self._takes(configured, args, for_save=False):
                return configured
            return self._make(get_registered_handler_cls(args))
        if configured is not None:
            return configured
        for (name, _), handler in self._entries.items():
            if name == item or (name is None and handler_name(handler) == recorded):
                return handler
        cls = handler_cls_of_name(recorded)
        if cls is None:
            raise UnsupportedError(
                f"item '{item}' was saved by the handler '{recorded}', which is not registered in "
                "this process: import its module, or restore with its CheckpointArgs or a registry"
            )
        return self._make(cls)

    def handler_for(self, item: str, recorded: str) -> Any | None:
        """As `resolve_for_restore` without arguments, but None where there is no handler."""
        try:
            return self.resolve_for_restore(item, None, recorded)
        except ValueError:
            return None

    def all_handlers(self) -> list[Any]:
        """Every handler that was given or made, once."""
        found = [*self._handlers.values(), *self._entries.values(), *self._made.values()]
        return list({id(handler): handler for handler in found}.values())

    def close(self) -> None:
        """Closes the handlers."""
        for handler in self.all_handlers():
            close = getattr(handler, "close", None)
            if close is not None:
                close()

    def _entry(self, item: str, args: Any) -> Any | None:
        for key in ((item, type(args)), (None, type(args))):
            if key in self._entries:
                return self._entries[key]
        if any(name == item for name, _ in self._entries):
            raise InvalidArgumentError(
                f"item '{item}' has no handler for {type(args).__name__} in the handler registry"
            )
        return None

    @staticmethod
    def _takes(handler: Any, args: Any, for_save: bool) -> bool:
        from stepstone.args import CallArgs, adopt_type

        try:
            classes = get_registered_args_cls(handler)
        except ValueError:
            return isinstance(args, CallArgs)  # A handler without arguments is called as it is.
        return issubclass(type(args), adopt_type(classes[0 if for_save else 1]))

    def _make(self, cls: type) -> Any:
        if cls not in self._made:
            self._made[cls] = make_handler(cls)
        return self._made[cls]
