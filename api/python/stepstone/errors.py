"""The exceptions of the package.

All of them are a `StepstoneError`, and each is also the built-in exception, or derives from the
one, that programs written for Orbax catch in the same situation. `code` is the same short name that
the C++ and C interfaces use; the message names the step, the item and the leaf as far as they are
known.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import ClassVar

__all__ = [
    "AlreadyExistsError",
    "AlreadyRegisteredTypeError",
    "BusyError",
    "ClosedError",
    "CorruptError",
    "InvalidArgumentError",
    "InvalidLayoutError",
    "InvalidShardingError",
    "ItemNotFoundError",
    "LimitError",
    "MismatchError",
    "NoEntryError",
    "NoSpaceError",
    "NotFoundError",
    "PartialSaveError",
    "PartialSaveReplacementError",
    "PermissionDeniedError",
    "ReadOnlyError",
    "StepAlreadyExistsError",
    "StepNotFoundError",
    "StepstoneError",
    "StorageError",
    "UnregisteredTypeError",
    "UnsupportedError",
    "from_code",
]


class StepstoneError(Exception):
    """What all exceptions of the package have in common."""

    code: ClassVar[str] = "invalid_argument"


class NotFoundError(StepstoneError, FileNotFoundError):
    """There is no such store, step, checkpoint, or node of a checkpoint."""

    code: ClassVar[str] = "not_found"


# The name that the newer style has for it.
StepNotFoundError = NotFoundError


class InvalidLayoutError(NotFoundError, ValueError):
    """A path from which a checkpoint was to be loaded holds none."""


class ItemNotFoundError(StepstoneError, KeyError, AttributeError):
    """A checkpoint, or a `Composite`, has no item of this name.

    It is an AttributeError as well, so that `hasattr` works on a `Composite`.
    """

    code: ClassVar[str] = "not_found"

    def __str__(self) -> str:
        return Exception.__str__(self)  # KeyError would show the message in quotes.


class StepAlreadyExistsError(StepstoneError, ValueError, FileExistsError):
    """The step was saved before, or something stands at the path of a checkpoint."""

    code: ClassVar[str] = "already_exists"


class InvalidArgumentError(StepstoneError, ValueError):
    """The call makes no sense; nothing was changed."""


class MismatchError(StepstoneError, ValueError):
    """A checkpoint does not fit the target, or the arguments, of a restore."""

    code: ClassVar[str] = "mismatch"


class UnsupportedError(StepstoneError, ValueError):
    """What this version, or this process, cannot do: a handler may have to be registered."""

    code: ClassVar[str] = "unsupported"


class LimitError(StepstoneError, ValueError):
    """Something is larger, deeper, or more than can be stored."""

    code: ClassVar[str] = "limit"


class CorruptError(StepstoneError, ValueError):
    """Stored bytes are not those that were saved."""

    code: ClassVar[str] = "corrupt"


class ReadOnlyError(StepstoneError, ValueError):
    """A store that was opened read-only is never written to."""

    code: ClassVar[str] = "read_only"


class StorageError(StepstoneError, OSError):
    """The operating system failed to read or write."""

    code: ClassVar[str] = "io"


class NoSpaceError(StorageError):
    """The disk is full, or a quota is used up; `errno` is ENOSPC."""

    code: ClassVar[str] = "no_space"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.errno = errno.ENOSPC


class PermissionDeniedError(StorageError, PermissionError):
    """The process may not read or write there; `errno` is EACCES."""

    code: ClassVar[str] = "permission_denied"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.errno = errno.EACCES


class BusyError(StepstoneError, TimeoutError):
    """Another process has the store open for writing, or a wait took longer than allowed."""

    code: ClassVar[str] = "busy"


class ClosedError(StepstoneError, RuntimeError):
    """The object was closed, or opened in a process of which this one is a fork."""

    code: ClassVar[str] = "closed"


class AlreadyExistsError(StepstoneError, ValueError):
    """A handler is registered for this item and these arguments already."""

    code: ClassVar[str] = "already_exists"


class NoEntryError(StepstoneError, KeyError):
    """No handler is registered for this item and these arguments."""

    code: ClassVar[str] = "not_found"

    def __str__(self) -> str:
        return Exception.__str__(self)


class UnregisteredTypeError(StepstoneError, ValueError):
    """A leaf is of a type that cannot be stored."""

    code: ClassVar[str] = "invalid_argument"


class AlreadyRegisteredTypeError(StepstoneError, ValueError):
    """A type of leaf has a handler already."""

    code: ClassVar[str] = "already_exists"


class InvalidShardingError(StepstoneError, ValueError):
    """A sharding does not fit the array that it is for."""


class PartialSaveError(StepstoneError):
    """A save in parts cannot go on, or be finalized."""


class PartialSaveReplacementError(PartialSaveError):
    """A part of a save in parts would replace what an earlier part has saved."""

    code: ClassVar[str] = "already_exists"


_BY_CODE: dict[str, Callable[[str], StepstoneError]] = {
    "not_found": NotFoundError,
    "already_exists": StepAlreadyExistsError,
    "mismatch": MismatchError,
    "invalid_argument": InvalidArgumentError,
    "limit": LimitError,
    "corrupt": CorruptError,
    "io": StorageError,
    "no_space": NoSpaceError,
    "permission_denied": PermissionDeniedError,
    "read_only": ReadOnlyError,
    "busy": BusyError,
    "closed": ClosedError,
    "unsupported": UnsupportedError,
}


def from_code(code: str, message: str) -> StepstoneError:
    """The exception for an error of the C++ library.

    Parameters
    ----------
    code : str
        Its name in C++ ("not_found"); an unknown one becomes a plain `StepstoneError`.
    message : str
        What happened.

    Examples
    --------
    >>> isinstance(from_code("not_found", "there is no step 3"), FileNotFoundError)
    True
    """
    return _BY_CODE.get(code, StepstoneError)(message)
