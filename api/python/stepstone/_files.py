"""Handlers that write files into a directory they are given.

Users write such handlers for Orbax, deriving from its classes or ours, or from neither: they have
`save(directory, args=...)` or the coroutine `async_save`, and `restore(directory, args=...)`. They
get a scratch directory; the files that they write become the leaves of their item, and are put into
another scratch directory for the restore. What `async_save` gives futures for is waited for by the
thread that commits, when the caller of a save in the background has gone on.
"""

from __future__ import annotations

import contextlib
import contextvars
import pathlib
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from stepstone import _native
from stepstone.args import CallArgs
from stepstone.errors import InvalidArgumentError
from stepstone.registry import get_registered_args_cls, handler_name


def as_path(path: str) -> Any:
    """A path of the kind that the program uses: of etils where it is loaded, else of pathlib."""
    epath = sys.modules.get("etils.epath")
    return pathlib.Path(path) if epath is None else epath.Path(path)


def run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs it to its end, also where an event loop runs already, as in a notebook."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    from concurrent.futures import ThreadPoolExecutor

    context = contextvars.copy_context()
    with ThreadPoolExecutor(1, thread_name_prefix="stepstone") as executor:
        return executor.submit(context.run, asyncio.run, coroutine).result()


def wait_for(futures: Any) -> None:
    """Waits for futures in lists of lists, with None among them."""
    if isinstance(futures, (list, tuple)):
        for future in futures:
            wait_for(future)
    elif futures is not None:
        futures.result()


def has_futures(futures: Any) -> bool:
    """Whether there is something in lists of lists to be waited for."""
    if isinstance(futures, (list, tuple)):
        return any(has_futures(future) for future in futures)
    return futures is not None


@contextlib.contextmanager
def scratch_directory() -> Iterator[_native.ScratchDirectory]:
    """A directory that is gone afterwards; files of it that are mapped stay readable."""
    scratch = _native.ScratchDirectory()
    try:
        yield scratch
    finally:
        scratch.close()


def overrides(handler: Any, method: str) -> bool:
    """Whether the handler's class has a `method` of its own, and not that of an abstract base."""
    for cls in type(handler).__mro__:
        if method in vars(cls):
            return cls.__name__ not in ("CheckpointHandler", "AsyncCheckpointHandler")
    return False


class FileItemHandler:
    """Makes an item of a handler that writes files.

    Parameters
    ----------
    handler : object
        The user's.
    """

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    @property
    def recorded_name(self) -> str:
        return handler_name(self._handler)

    def save_item(self, args: Any) -> _native.ItemContent | Callable[[], _native.ItemContent]:
        return begun_files(lambda path: begin_save_into(self._handler, as_path(path), args))

    def restore_item(self, step: _native.Step, item: str, args: Any) -> Any:
        with self._files(step, item) as directory:
            if args is None:
                args = self._default_args(item)
            if isinstance(args, CallArgs):
                return self._handler.restore(directory, *args.args, **args.kwargs)
            return self._handler.restore(directory, args=args)

    def item_metadata(self, step: _native.Step, item: str) -> Any:
        if not overrides(self._handler, "metadata"):
            return None
        with self._files(step, item) as directory:
            try:
                return self._handler.metadata(directory)
            except NotImplementedError:
                return None

    @contextlib.contextmanager
    def _files(self, step: _native.Step, item: str) -> Iterator[Any]:
        with scratch_directory() as scratch:
            scratch.write(step.restore(item).tree)
            yield as_path(scratch.path)

    def _default_args(self, item: str) -> Any:
        try:
            cls = get_registered_args_cls(self._handler)[1]
        except ValueError:
            return CallArgs()
        try:
            return cls()
        except TypeError as error:
            raise InvalidArgumentError(
                f"item '{item}' has to be restored with {cls.__name__}, which cannot be made "
                f"without arguments: {error}"
            ) from None


def begun_files(
    begin: Callable[[str], Callable[[], object] | None],
) -> _native.ItemContent | Callable[[], _native.ItemContent]:
    """What a save takes of an item that consists of files.

    Parameters
    ----------
    begin : callable
        Is given a directory, and begins to write into it. Returns None when all is written, else
        what has to be called in the background for the rest.

    Returns
    -------
    tuple, or callable that returns it
    """
    scratch = _native.ScratchDirectory()  # Gone with the last reference, if it is not closed.
    try:
        rest = begin(scratch.path)
        if rest is None:
            content = scratch.read(), (), None
            scratch.close()
            return content
    except BaseException:
        scratch.close()
        raise
    context = contextvars.copy_context()

    def finish() -> _native.ItemContent:
        try:
            context.run(rest)
            return scratch.read(), (), None
        finally:
            scratch.close()

    return finish


def begin_save_into(handler: Any, directory: Any, args: Any) -> Callable[[], object] | None:
    """Has a user's handler write its files; what is returned waits for those that it has begun."""
    positional: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {"args": args}
    if isinstance(args, CallArgs):
        positional, keywords = args.args, args.kwargs
    futures: Any = None
    if hasattr(handler, "async_save"):
        futures = handler.async_save(directory, *positional, **keywords)
        if hasattr(futures, "__await__"):
            futures = run_coroutine(futures)
    else:
        handler.save(directory, *positional, **keywords)

    def finish() -> None:
        wait_for(futures)
        finalize = getattr(handler, "finalize", None)
        if finalize is not None:
            finalize(directory)

    if has_futures(futures):
        return finish
    finish()
    return None
