"""The response of a step's save in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable

from stepstone import _native
from stepstone._background import BackgroundWork, in_background
from stepstone.errors import BusyError


class StepSave:
    """The `AsyncResponse` of the one save of a manager that is under way.

    The manager gives an error of the background once, to whoever waits first; this one keeps it.

    Parameters
    ----------
    manager : _native.Manager
    step : int
    on_saved : callable
        Called once when the step is durable, on whatever thread has waited for it.
    """

    def __init__(
        self, manager: _native.Manager, step: int, on_saved: Callable[[], object]
    ) -> None:
        self.step = step
        self._manager = manager
        self._on_saved = on_saved
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
                self._error = error
            self._is_settled = True
        if self._error is None:
            self._on_saved()

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
