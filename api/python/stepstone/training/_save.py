"""A step's save in the background: its response, and what a logger is told of it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

from stepstone import _native
from stepstone._background import BackgroundWork, in_background
from stepstone._policies import Guard
from stepstone._step_statistics import CommitStepStatistics
from stepstone.errors import BusyError


class StepSave:
    """The `AsyncResponse` of the one save of a manager that is under way.

    The manager gives an error of the background once, to whoever waits first; this one keeps it.

    Parameters
    ----------
    manager : _native.Manager
    step : int
    guard : Guard
        Where exceptions of policies are kept.
    """

    def __init__(self, manager: _native.Manager, step: int, guard: Guard) -> None:
        self.step = step
        self._manager = manager
        self._guard = guard
        self._lock = threading.Lock()
        self._is_settled = False
        self._error: Exception | None = None
        self._is_error_seen = False
        self._watcher: BackgroundWork[None] | None = None

    def result(self, timeout: float | None = None) -> bool:
        """See `AsyncResponse`."""
        if timeout is None:
            self.finish()
        else:
            self._watch().result(timeout)
        if self._error is not None:
            self._is_error_seen = True
            raise self._error
        return True

    def on_complete(self, callback: Callable[[bool], object]) -> None:
        """See `AsyncResponse`."""
        self._watch().on_complete(lambda _: callback(True) if self._error is None else None)

    def done(self) -> bool:
        """Whether it has ended."""
        return self._is_settled or not self._manager.is_saving_in_progress()

    def finish(self) -> None:
        """Waits for the save; its error is kept for `result`.

        Raises
        ------
        BusyError
            It takes longer than the manager's timeout; it goes on.
        """
        with self._lock:
            if self._is_settled:
                return
            try:
                self._manager.wait_until_finished()
            except BusyError:
                raise
            except Exception as error:
                self._error = self._guard.take() or error
            self._is_settled = True

    def settle(self, error: Exception | None) -> None:
        """Takes an outcome that the manager has told somebody else."""
        with self._lock:
            if not self._is_settled:
                self._error = error and (self._guard.take() or error)
                self._is_settled = True

    def raise_unseen_error(self) -> None:
        """Waits for the save, and raises its error if nobody has been given it."""
        self.finish()
        if self._error is not None and not self._is_error_seen:
            self._is_error_seen = True
            raise self._error

    def _watch(self) -> BackgroundWork[None]:
        """A thread that waits, since the native wait has no timeout of its own."""

        def wait() -> None:
            while not self._is_settled:
                try:
                    self.finish()
                except BusyError:
                    pass

        if self._watcher is None:
            self._watcher = in_background(wait, f"the save of step {self.step}")
        return self._watcher


def commit_entry(statistics: _native.SaveStatistics, directory: str) -> dict[str, Any]:
    """What a logger is told when a step is durable."""
    return dataclasses.asdict(
        CommitStepStatistics(
            step=statistics.step,
            directory=directory,
            synchronous=not statistics.is_async,
            leaf_count=statistics.leaf_count,
            thread_count=statistics.thread_count,
            size_bytes=statistics.size_bytes,
            stored_bytes=statistics.stored_bytes,
            shared_bytes=statistics.shared_bytes,
            wait_duration_secs=statistics.wait_s,
            stall_duration_secs=statistics.stall_s,
            write_duration_secs=statistics.write_s,
            commit_duration_secs=statistics.commit_s,
            total_duration_secs=statistics.total_s,
        )
    )
