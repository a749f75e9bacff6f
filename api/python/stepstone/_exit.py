"""What is still open when the interpreter ends.

A save in the background that is in flight then is waited for, while callbacks and logging still
work; if it fails, the log says so. In a forked child nothing is done: what is open there belongs to
the parent.
"""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from typing import Protocol

_logger = logging.getLogger("stepstone")


class _Closable(Protocol):
    def close(self) -> object: ...


# By identity, since a manager need not be hashable. The number tells forked children apart.
_live: dict[int, tuple[weakref.ref[_Closable], int]] = {}


def close_at_exit(owner: _Closable) -> None:
    """Has `owner.close()` called when the interpreter ends, if it is still alive then."""
    key = id(owner)
    _live[key] = (weakref.ref(owner, lambda _: _live.pop(key, None)), os.getpid())


def forget(owner: _Closable) -> None:
    """Undoes `close_at_exit`; for an owner that has been closed."""
    _live.pop(id(owner), None)


def _close_all() -> None:
    for reference, process in list(_live.values()):
        owner = reference()
        if owner is None or process != os.getpid():
            continue
        try:
            owner.close()
        except Exception as error:
            _logger.error("%r: closing it at the end of the program failed: %s", owner, error)
    _live.clear()


atexit.register(_close_all)
