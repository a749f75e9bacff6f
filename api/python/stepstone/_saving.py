"""The save that an `AsyncCheckpointer` has in the background."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from stepstone import _native
from stepstone.errors import BusyError


class Saving:
    """A save in the background, and what has to be done when it has ended."""

    def __init__(
        self,
        path: str,
        pending: _native.PendingSave,
        timeout_s: float,
        callback: Callable[[], object] | None,
    ) -> None:
        self.is_cancelled = False
        self._path = path
        self._pending = pending
        self._timeout_s = timeout_s
        self._end = time.monotonic() + timeout_s
        self._callback = callback
        self._callback_error: BaseException | None = None
        self._thread: threading.Thread | None = None
        if callback is not None:
            self._thread = threading.Thread(target=self._call_back, name="stepstone-callback")
            self._thread.start()

    def _call_back(self) -> None:
        try:
            self._pending.wait()
        except Exception:
            return  # Whoever waits for the save is told.
        try:
            assert self._callback is not None
            self._callback()
        except BaseException as error:
            self._callback_error = error

    def is_done(self) -> bool:
        return self._pending.is_done and not (self._thread is not None and self._thread.is_alive())

    def cancel(self) -> bool:
        """Gives it up, unless it is too late."""
        self.is_cancelled = self.is_cancelled or self._pending.cancel()
        return self.is_cancelled

    def wait(self, timeout_s: float | None = None) -> None:
        """Waits, and raises what went wrong.

        Parameters
        ----------
        timeout_s : float, optional
            None: until the save has taken as long as it may.

        Raises
        ------
        TimeoutError
            It has taken too long; it goes on.
        """
        end = self._end if timeout_s is None else time.monotonic() + timeout_s
        try:
            self._pending.wait(max(0.0, end - time.monotonic()))
            if self._thread is not None:
                self._thread.join(max(0.0, end - time.monotonic()))
        except BusyError:
            pass
        except Exception:
            if self._thread is not None:
                self._thread.join()  # It learns of the error, too, and ends.
            raise
        if not self.is_done():
            waited_s = self._timeout_s if timeout_s is None else timeout_s
            raise BusyError(f"the save to {self._path} has not ended after {waited_s} s; it goes on")
        self.check()

    def check(self) -> None:
        """Raises what went wrong with a save that has ended."""
        self._pending.wait(0)
        if self._callback_error is not None:
            raise self._callback_error
