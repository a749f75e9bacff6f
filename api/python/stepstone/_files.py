"""Handlers that write files into a directory they are given.

Users write such handlers for Orbax, deriving from its classes or ours, or from neither: they have
`save(directory, args=...)` or the coroutine `async_save`, and `restore(directory, args=...)`. They
get a scratch directory; the files that they write become the leaves of their item, and are put into
another scratch directory for the restore.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections.abc import Coroutine, Iterator
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
    import contextvars
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

    def save_item(
        self, args: Any
    ) -> tuple[_native.Tree, list[tuple[_native.Selector, _native.LeafSaveArgs]], str | None]:
        with scratch_directory() as scratch:
            directory = as_path(scratch.path)
            save_into(self._handler, directory, args)
            return scratch.read(), [], None

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


def save_into(handler: Any, directory: Any, args: Any) -> None:
    """Has a user's handler write its files, and waits until it has."""
    positional: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {"args": args}
    if isinstance(args, CallArgs):
        positional, keywords = args.args, args.kwargs
    if hasattr(handler, "async_save"):
        saving = handler.async_save(directory, *positional, **keywords)
        wait_for(run_coroutine(saving) if hasattr(saving, "__await__") else saving)
    else:
        handler.save(directory, *positional, **keywords)
    finalize = getattr(handler, "finalize", None)
    if finalize is not None:
        finalize(directory)
