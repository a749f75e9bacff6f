"""Loggers: who is told about saves and restores.

The package logs through Python's `logging`, under the name "stepstone": warnings are shown unless
the program says otherwise, and what is done, step by step, at the level INFO:

>>> import logging
>>> logging.getLogger("stepstone").setLevel(logging.INFO)  # Tell me more.
>>> logging.getLogger("stepstone").setLevel(logging.NOTSET)  # As it was.

The `logger` of a `CheckpointManager` is given entries besides: dicts with the fields of the classes
in `step_statistics`. There is no logger for a cloud: derive one from `AbstractLogger`.
"""

from __future__ import annotations

import abc
import logging as _logging
from typing import Any

from stepstone import _step_statistics as step_statistics

__all__ = ["AbstractLogger", "CompositeLogger", "StandardLogger", "step_statistics"]

_logger = _logging.getLogger("stepstone")


class AbstractLogger(abc.ABC):
    """Base of loggers that take structured entries."""

    @abc.abstractmethod
    def log_entry(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Takes one entry, for a manager a dict; may be called by a thread in the background."""


class StandardLogger(AbstractLogger):
    """Passes entries on to Python's `logging`, under the name "stepstone", at the level INFO."""

    def log_entry(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Logs `msg`, formatted with `args` if there are any."""
        _logger.info(msg, *args, **kwargs)


class CompositeLogger(AbstractLogger):
    """Passes entries on to several loggers.

    Parameters
    ----------
    *loggers : AbstractLogger
        Ours or Orbax's. What is no logger, or is a CompositeLogger itself, is left out with a
        warning.

    Examples
    --------
    >>> class Printer(AbstractLogger):
    ...     def log_entry(self, msg, *args, **kwargs):
    ...         print(msg)
    >>> CompositeLogger(StandardLogger(), Printer()).log_entry({"step": 3})
    {'step': 3}
    """

    def __init__(self, *loggers: AbstractLogger) -> None:
        self._loggers: list[AbstractLogger] = []
        for logger in loggers:
            if callable(getattr(logger, "log_entry", None)) and not isinstance(
                logger, CompositeLogger
            ):
                self._loggers.append(logger)
            else:
                _logger.warning("CompositeLogger leaves out %r: it is no single logger", logger)

    def log_entry(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Gives the entry to each of the loggers, in their order."""
        for logger in self._loggers:
            logger.log_entry(msg, *args, **kwargs)
