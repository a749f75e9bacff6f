"""The saves of a run: their order, their responses, and what a logger is told of them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

from stepstone import _native
from stepstone._background import BackgroundWork, in_background
from stepstone._policies import Guard
from stepstone._step_statistics import CommitStepStatistics
from stepstone.errors import BusyError, StepstoneError


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


class Saves:
    """The saves of a run, one at a time.

    Parameters
    ----------
    manager : _native.Manager
    guard : Guard
        Where exceptions of policies are kept.
    """

    def __init__(self, manager: _native.Manager, guard: Guard) -> None:
        self._manager = manager
        self._guard = guard
        self.last: StepSave | None = None  # It may be under way.

    def begin(
        self, step: int, items: list[_native.SaveItem], force: bool, options: dict[str, Any]
    ) -> StepSave | None:
        """Begins a save, if it is forced or the policy wants it; None: it does not.

        Parameters
        ----------
        options : dict
            Of `_native.Manager.save`.

        Raises
        ------
        Exception
            What the policy raises, what is wrong with this save, or what the one before has failed
            with, if nobody has been told. In the latter case this one has not begun.
        """
        if force or self._is_wanted(step):
            self.wait()
            self._manager.save(step, items, force=True, **options)
        elif not self._save_after_all(step, items, options):
            return None
        self.last = StepSave(self._manager, step, self._guard)
        return self.last

    def wait(self) -> None:
        """Waits for the save under way, and raises an error that nobody has seen."""
        if self.last is not None:
            self.last.raise_unseen_error()

    def has(self, step: int) -> bool:
        """Whether a step is saved, or on its way."""
        last = self.last
        is_under_way = last is not None and last.step == step and not last.done()
        return is_under_way or step in self._manager.all_steps()

    def _is_wanted(self, step: int) -> bool:
        """What the policy says, or the exception that it raises.

        It is asked before the save that is under way is waited for, since some policies say no
        while one is.
        """
        if self.last is not None and self.last.done():
            self.wait()
        self._guard.take()
        is_wanted = self._manager.should_save(step)
        error = self._guard.take()
        if error is not None:
            raise error
        return is_wanted

    def _save_after_all(
        self, step: int, items: list[_native.SaveItem], options: dict[str, Any]
    ) -> bool:
        """Offers the manager a step that the policy did not want; whether it wants it by now.

        The manager has to know that there was an occasion to save, for `reached_preemption`. Where
        the save that was under way has ended since, what fails here is that one, or the policy's
        answer is another.
        """
        try:
            is_saved = self._manager.save(step, items, force=False, **options)
        except StepstoneError as error:
            if self.last is not None:
                self.last.settle(error)
                self.wait()
            raise
        if is_saved and self.last is not None:
            self.last.settle(None)
        return is_saved


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
