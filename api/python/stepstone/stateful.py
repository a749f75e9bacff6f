"""Objects and handlers that write files, as the newer style has them.

A `StatefulCheckpointable` saves itself into a directory and loads itself from one: a data iterator,
say. A `CheckpointableHandler` does it for objects of others. Both are given a scratch directory,
whose files become part of the checkpoint: they are committed with it, checked when they are read,
and the directory is gone afterwards.

Their methods may be coroutines, as in Orbax, or plain functions. A coroutine may return another
one, for the part that runs in the background: it is run by the thread that commits, in an event
loop of its own, after `save_*_async` has returned. What it needs of an object that may change, the
first part has to copy. Its error becomes that of the save.
"""

from __future__ import annotations

import inspect
import pathlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from stepstone import _native
from stepstone._files import as_path, begun_files, run_coroutine, scratch_directory

__all__ = [
    "CheckpointableHandler",
    "PathAwaitingCreation",
    "StatefulCheckpointable",
    "typestr",
]

# Any object, and what stands for one in a load: Orbax has names for the two.
Checkpointable = Any
AbstractCheckpointable = Any

_CheckpointableT = TypeVar("_CheckpointableT")
_AbstractT = TypeVar("_AbstractT")


@runtime_checkable
class PathAwaitingCreation(Protocol):
    """A directory that is there when `await_creation` has returned; here it always is."""

    def __truediv__(self, other: str) -> PathAwaitingCreation: ...

    @property
    def path(self) -> pathlib.Path: ...

    async def await_creation(self) -> pathlib.Path: ...


@runtime_checkable
class StatefulCheckpointable(Protocol):
    """An object that saves and loads itself.

    Both methods may be coroutines that return an awaitable, coroutines, or plain functions.
    `directory` is a path that exists, and has the methods of `PathAwaitingCreation` as well.

    >>> class Position:
    ...     at = 0
    ...     def save(self, directory):
    ...         (directory / "at").write_text(str(self.at))
    ...     def load(self, directory):
    ...         self.at = int((directory / "at").read_text())
    >>> isinstance(Position(), StatefulCheckpointable)
    True
    """

    def save(self, directory: Any) -> Any: ...

    def load(self, directory: Any) -> Any: ...


class CheckpointableHandler(Protocol[_CheckpointableT, _AbstractT]):
    """Saves and loads objects of a kind; see `StatefulCheckpointable` for what methods may be.

    Register a class of these, which can be constructed without arguments, with
    `handlers.register_handler`, or in a registry that a `Context` is given.
    """

    async def save(
        self, directory: Any, checkpointable: _CheckpointableT
    ) -> Awaitable[None]:
        """Writes files into `directory`."""
        ...

    async def load(
        self, directory: Any, abstract_checkpointable: _AbstractT | None = None
    ) -> Awaitable[_CheckpointableT]:
        """Makes the object from the files in `directory`, which is gone afterwards."""
        ...

    async def metadata(self, directory: Any) -> _AbstractT:
        """What is known of the object without loading it."""
        ...

    def is_handleable(self, checkpointable: Any) -> bool:
        """Whether it can save such an object."""
        ...

    def is_abstract_handleable(self, abstract_checkpointable: Any) -> bool | None:
        """Whether it can load with this. None: it cannot tell."""
        ...


def typestr(handler_cls: type) -> str:
    """The name under which a class of handlers is recorded in checkpoints.

    >>> typestr(pathlib.Path)
    'pathlib.Path'
    """
    return f"{handler_cls.__module__}.{handler_cls.__qualname__}"


if TYPE_CHECKING:
    _PathBase = pathlib.Path
else:
    _PathBase = type(pathlib.Path())


class CreatedDirectory(_PathBase):
    """A path that exists, and can be awaited like one that may not exist yet."""

    @property
    def path(self) -> Any:
        """The path, as an `epath.Path` where etils is imported."""
        return as_path(str(self))

    async def await_creation(self) -> Any:
        """The path, at once."""
        return self.path


def finish(result: Any) -> Any:
    """What a method has returned or, of a coroutine, what comes out of it in the end."""

    async def all_of_it() -> Any:
        awaited = result
        while hasattr(awaited, "__await__"):
            awaited = await awaited
        return awaited

    return run_coroutine(all_of_it()) if hasattr(result, "__await__") else result


def begin(result: Any) -> Callable[[], object] | None:
    """Runs the coroutine that a method has returned, and gives what runs the one that it gave.

    None: there is nothing left to run. What belongs to the event loop of the first part, a task or
    a future, is waited for right away, since another thread has another loop.
    """
    if not hasattr(result, "__await__"):
        return None
    import asyncio

    async def first_part() -> Any:
        awaited = await result
        while hasattr(awaited, "__await__"):
            has_tasks = len(asyncio.all_tasks()) > 1
            if inspect.iscoroutine(awaited) and not has_tasks:
                return awaited
            awaited = await awaited
        return None

    rest = run_coroutine(first_part())
    return None if rest is None else lambda: finish(rest)


def written_files(
    write: Callable[[CreatedDirectory], object],
) -> _native.ItemContent | Callable[[], _native.ItemContent]:
    """What a save takes of the files that `write` puts into a directory; see `begun_files`."""
    return begun_files(lambda path: begin(write(CreatedDirectory(path))))


def with_files(files: _native.Tree, use: Callable[[CreatedDirectory], Any]) -> Any:
    """What `use` returns, or its coroutine gives, of a directory with these files."""
    with scratch_directory() as scratch:
        scratch.write(files)
        return finish(use(CreatedDirectory(scratch.path)))
