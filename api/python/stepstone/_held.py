"""Steps that an evaluator of this process holds: they stay readable although the trainer retires
them.

`checkpoint_utils` holds the step that it yields. Who reads that step finds it here when the store,
which another process writes, does not list it any more.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from stepstone import _native
from stepstone._paths import PathLike
from stepstone.errors import NotFoundError

_lock = threading.Lock()
# By the directory of the store and the step; the newest last.
_held: dict[tuple[str, int], list[_native.Step]] = {}


def _key(store: PathLike, step: int) -> tuple[str, int]:
    return os.path.realpath(os.fspath(store)), step


@contextlib.contextmanager
def holding(store: PathLike, step: _native.Step) -> Iterator[None]:
    """Lets `find` find an open step until the block ends, and then lets it go."""
    key = _key(store, step.step)
    with _lock:
        _held.setdefault(key, []).append(step)
    try:
        yield
    finally:
        with _lock:
            _held[key].remove(step)
            if not _held[key]:
                del _held[key]
        step.release()


def find(store: PathLike, step: int) -> _native.Step | None:
    """A share in a step that is held now, to be released: who holds it may let it go meanwhile."""
    with _lock:
        steps = _held.get(_key(store, step))
        return steps[-1].share() if steps else None


@contextlib.contextmanager
def opened(path: PathLike) -> Iterator[tuple[_native.Step, str | None]]:
    """As `_native.open_checkpoint`, also of a held step, and let go when the block ends.

    Yields
    ------
    step : _native.Step
        What can be read.
    item : str or None
        The item that the path names.

    Raises
    ------
    FileNotFoundError
        There is no checkpoint.
    """
    try:
        step, item = _native.open_checkpoint(os.fspath(path))
    except FileNotFoundError:
        found = _find_path(os.fspath(path))
        if found is None:
            raise
        step, item = found
    try:
        yield step, item
    finally:
        step.release()


def _find_path(path: str) -> tuple[_native.Step, str | None] | None:
    """A share in the held step that STORE/STEP or STORE/STEP/ITEM names."""
    from stepstone.step import step_from_checkpoint_name

    if not _held:
        return None
    parent, name = os.path.split(os.path.normpath(path))
    for store, step_name, item in ((parent, name, None), (*os.path.split(parent), name)):
        try:
            step = find(store, step_from_checkpoint_name(step_name))
        except ValueError:
            continue
        if step is not None:
            return step, item
    return None


def open_step(directory: PathLike, step: int | None) -> _native.Step:
    """A step of a store; None: the newest. FileNotFoundError if it is not there."""
    store = os.fspath(directory)
    if step is None:
        steps = _native.list_steps(store)
        if not steps:
            raise NotFoundError(f"{store} has no checkpoint yet")
        step = steps[-1]
    return _native.open_checkpoint(os.path.join(store, str(step)))[0]


@contextlib.contextmanager
def opened_step(directory: PathLike, step: int | None) -> Iterator[_native.Step]:
    """As `open_step`, and let go when the block ends."""
    opened = open_step(directory, step)
    try:
        yield opened
    finally:
        opened.release()
