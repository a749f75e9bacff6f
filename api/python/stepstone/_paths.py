"""Paths as callers give them and as they get them back, and the numbers of steps."""

from __future__ import annotations

import operator
import os
import pathlib
import sys
from typing import Any, SupportsIndex

from stepstone.errors import InvalidArgumentError, LimitError

# A path in any of the forms that are taken everywhere.
PathLike = str | os.PathLike[str]

_STEP_MAX = 2**63 - 1


def as_path(path: PathLike) -> pathlib.Path:
    """A path object: etils' where the program uses that, with the same methods, else pathlib's."""
    epath: Any = sys.modules.get("etils.epath")
    made: pathlib.Path = (pathlib if epath is None else epath).Path(path)
    return made


def check_timeout(timeout: float | None) -> float | None:
    """A number of seconds to wait, or None; ValueError for a negative one, or none at all."""
    if timeout is not None and not timeout >= 0:
        raise InvalidArgumentError(f"a timeout is a number of seconds from 0 on, not {timeout}")
    return timeout


def check_step(step: SupportsIndex) -> int:
    """The number of a step as an int.

    Parameters
    ----------
    step : int
        Or an integer of numpy or jax.

    Raises
    ------
    TypeError
        It is no integer: a bool, a float, or text.
    ValueError
        It is negative, or over 2**63 - 1.

    Examples
    --------
    >>> check_step(7)
    7
    >>> check_step(7.5)
    Traceback (most recent call last):
    TypeError: a step is an int, not float: 7.5
    """
    if isinstance(step, bool):
        raise TypeError(f"a step is an int, not bool: {step}")
    try:
        number = operator.index(step)
    except TypeError:
        raise TypeError(f"a step is an int, not {type(step).__name__}: {step!r}") from None
    if number < 0:
        raise InvalidArgumentError(f"step {number} is negative: the first step is 0")
    if number > _STEP_MAX:
        raise LimitError(f"step {number} is over the limit of {_STEP_MAX}")
    return number
