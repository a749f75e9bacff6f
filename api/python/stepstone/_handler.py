"""What all handlers have in common; see `handlers`."""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Iterator
from typing import Any, ClassVar, TypeAlias

from stepstone import _native
from stepstone._files import FileItemHandler
from stepstone.args import arguments_of
from stepstone.errors import CorruptError
from stepstone.registry import DEFAULT_ITEM

ItemContent: TypeAlias = "_native.ItemContent"


class CheckpointHandler(abc.ABC):
    """Saves and restores objects of a kind, as files in a directory.

    Derive from it, and register a class of arguments for saving and one for restoring with
    `args.register_with_handler`. The directory exists, is empty before a save, has what was saved
    in it before a restore, and is gone after either. A class with `save` and `restore` need not
    derive from this one to be used.
    """

    @abc.abstractmethod
    def save(self, directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Writes the object that `args` has into `directory`."""

    @abc.abstractmethod
    def restore(self, directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Makes the object from what is in `directory`, as `args` say."""

    def metadata(self, directory: Any) -> Any:
        """What can be said about the object cheaply; None: nothing."""
        return None

    def finalize(self, directory: Any) -> None:
        """Called when all files are written, before they are stored."""

    def close(self) -> None:
        """Called when the manager or checkpointer is closed."""

    @classmethod
    def typestr(cls) -> str:
        """The name that is recorded with each item, and finds the handler again: keep it."""
        return f"{cls.__module__}.{cls.__qualname__}"


class AsyncCheckpointHandler(CheckpointHandler):
    """A handler that writes in the background of its own.

    `async_save` copies what the caller may change, and returns futures for the rest. They are
    waited for in the background, and then `finalize` is called, before the files are stored. An
    error of theirs becomes that of the save: of the same kind if it is an OSError, else a
    ValueError that names it.
    """

    @abc.abstractmethod
    async def async_save(self, directory: Any, *args: Any, **kwargs: Any) -> list[Any] | None:
        """Begins to write the object that `args` has into `directory`.

        Returns
        -------
        list of Future, or None
            What has to be waited for.
        """


class ItemHandler(AsyncCheckpointHandler):
    """Base of the handlers of the package, which store a tree instead of files."""

    recorded_name: ClassVar[str]
    # Of the items that it can restore.
    restores: ClassVar[frozenset[str]]

    @abc.abstractmethod
    def save_item(self, args: Any) -> ItemContent:
        """The tree, options of its leaves, and custom metadata of the item as JSON text."""

    @abc.abstractmethod
    def restore_item(self, step: _native.Step, item: str, args: Any) -> Any:
        """The object; `args` may be None: as it was saved."""

    def item_metadata(self, step: _native.Step, item: str) -> Any:
        """Metadata of the item; None: it has none to give."""
        return None

    def can_restore(self, recorded: str) -> bool:
        """Whether it restores what the handler of this name has saved."""
        return recorded in self.restores

    # Called by handlers that use this one in a directory of theirs, and by classes derived from it.

    def save(self, directory: Any, *given: Any, **kwargs: Any) -> Any:
        args = arguments_of(self, True, given, kwargs)
        item = (DEFAULT_ITEM, self.recorded_name, lambda: self.save_item(args))
        _native.save_checkpoint(os.fspath(directory), [item], is_single=True, force=True)

    async def async_save(self, directory: Any, *given: Any, **kwargs: Any) -> list[Any] | None:
        args = arguments_of(self, True, given, kwargs)
        item = (DEFAULT_ITEM, self.recorded_name, lambda: self.save_item(args))
        _native.save_checkpoint(os.fspath(directory), [item], is_single=True, force=True)
        return None

    def restore(self, directory: Any, *given: Any, **kwargs: Any) -> Any:
        args = arguments_of(self, False, given, kwargs)
        with self._opened(directory) as (step, item):
            return self.restore_item(step, item, args)

    def metadata(self, directory: Any) -> Any:
        with self._opened(directory) as (step, item):
            return self.item_metadata(step, item)

    @contextlib.contextmanager
    def _opened(self, directory: Any) -> Iterator[tuple[_native.Step, str]]:
        step, item = _native.open_checkpoint(os.fspath(directory))
        try:
            yield step, item or DEFAULT_ITEM
        finally:
            step.release()

    @classmethod
    def typestr(cls) -> str:
        return cls.recorded_name if cls.is_as_it_was() else super().typestr()

    @classmethod
    def is_as_it_was(cls) -> bool:
        """Whether a subclass has left alone how objects are saved and restored.

        If not, it works on files, like any handler of a user.
        """
        return all(
            getattr(cls, method) is getattr(ItemHandler, method)
            for method in ("save", "async_save", "restore")
        )


def as_item_handler(handler: Any) -> ItemHandler | FileItemHandler:
    """How `handler` makes an item, and an object of it again."""
    if isinstance(handler, ItemHandler) and handler.is_as_it_was():
        return handler
    return FileItemHandler(handler)


def read_content(step: _native.Step, item: str) -> Any:
    """What a handler has stored for an item, as Python objects."""
    from stepstone._tree import from_native

    return from_native(step.restore(item).tree)


def field_of(content: Any, name: str, kind: type, step: _native.Step, item: str) -> Any:
    """The value at `name` in what a handler has stored.

    Raises
    ------
    ValueError
        Something else stored the item: there is no such value.
    """
    value = content.get(name) if isinstance(content, dict) else None
    if not isinstance(value, kind):
        raise CorruptError(
            f"step {step.step} item '{item}': what its handler has stored has no '{name}'"
        )
    return value
