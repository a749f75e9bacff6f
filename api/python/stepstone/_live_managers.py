"""The managers of this process that are open, for those that erase their directories.

Notebooks run a cell again that erases a directory and makes a manager for it, while the manager of
the first time is still open. A store stays locked as long as it is open, and so that manager is
closed.
"""

from __future__ import annotations

import logging
import os
import weakref
from typing import Protocol

from stepstone._paths import PathLike

_logger = logging.getLogger("stepstone")


class _Manager(Protocol):
    @property
    def directory(self) -> os.PathLike[str]: ...
    def close(self) -> None: ...


# By identity: a manager need not be hashable.
_live: dict[int, weakref.ref[_Manager]] = {}


def add(manager: _Manager) -> None:
    """A manager has been opened."""
    key = id(manager)
    _live[key] = weakref.ref(manager, lambda _: _live.pop(key, None))


def discard(manager: _Manager) -> None:
    """A manager has been closed."""
    _live.pop(id(manager), None)


def _directories() -> list[tuple[str, _Manager]]:
    managers = [reference() for reference in list(_live.values())]
    return [(os.path.realpath(each.directory), each) for each in managers if each is not None]


def _close(manager: _Manager, why: str) -> None:
    _logger.info("%s: closing the manager that is open there, as %s", manager.directory, why)
    try:
        manager.close()
    except Exception as error:
        _logger.warning("%s: %s", manager.directory, error)
    discard(manager)


def close_below(directory: PathLike) -> None:
    """Closes the managers of stores in a directory that is about to be erased."""
    erased = os.path.realpath(directory)
    for path, manager in _directories():
        if os.path.commonpath([erased, path]) == erased:
            _close(manager, "it is erased")


def close_erased(directory: PathLike) -> None:
    """Closes the managers of a store that is not there any more, before one is made there."""
    opened = os.path.realpath(directory)
    for path, manager in _directories():
        if path == opened and not os.path.exists(os.path.join(path, "HEAD")):
            _close(manager, "it was erased")
