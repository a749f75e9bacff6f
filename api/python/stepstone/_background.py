"""Work that goes on while its caller does something else."""

from __future__ import annotations

import concurrent.futures
import contextvars
import logging
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from stepstone import _exit, _native
from stepstone.errors import BusyError

_logger = logging.getLogger("stepstone")

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


class AsyncResponse(Protocol[_T_co]):
    """The outcome, later, of a save, a load or a deletion in the background."""

    def result(self, timeout: float | None = None) -> _T_co:
        """Waits for the outcome, as often as it is called.

        Parameters
        ----------
        timeout : float, optional
            For how many seconds at most.

        Raises
        ------
        TimeoutError
            It is not there yet; the work goes on.
        Exception
            What went wrong in the background.
        """
        ...

    def on_complete(self, callback: Callable[[_T_co], object]) -> None:
        """Calls `callback` with the outcome, on some thread, when the work has succeeded."""
        ...


class BackgroundWork(Generic[_T]):
    """The `AsyncResponse` of a function that runs on a thread of its own."""

    def __init__(self, future: concurrent.futures.Future[_T], what: str) -> None:
        self._future = future
        self._what = what

    def result(self, timeout: float | None = None) -> _T:
        """See `AsyncResponse`."""
        if timeout is None or self._future.done():
            return self._future.result()
        concurrent.futures.wait([self._future], timeout)
        if not self._future.done():
            raise BusyError(f"{self._what} has not ended after {timeout} s; it goes on")
        return self._future.result()

    def on_complete(self, callback: Callable[[_T], object]) -> None:
        """See `AsyncResponse`."""

        def call(future: concurrent.futures.Future[_T]) -> None:
            if future.exception() is None:
                callback(future.result())

        self._future.add_done_callback(call)

    def done(self) -> bool:
        """Whether there is an outcome."""
        return self._future.done()


def in_background(work: Callable[[], _T], what: str) -> BackgroundWork[_T]:
    """Starts `work`, in the caller's context; `what` names it in messages.

    The interpreter does not end before the thread has.
    """
    future: concurrent.futures.Future[_T] = concurrent.futures.Future()

    def run() -> None:
        try:
            outcome = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(outcome)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name=what)
    thread.start()
    return BackgroundWork(future, what)


class PendingSave:
    """The `AsyncResponse` of a save that the native library does in the background.

    Parameters
    ----------
    pending : _native.PendingSave
    timeout_s : float
        For how long `result` waits that is given no timeout.
    """

    def __init__(self, pending: _native.PendingSave, timeout_s: float) -> None:
        self._pending = pending
        self._timeout_s = timeout_s
        # Whoever drops the response still wants the checkpoint: it is kept until it is seen to have
        # ended, and waited for when the interpreter ends.
        for save in [save for save in _in_flight if save.done()]:
            save._report_unasked()
        _in_flight.add(self)
        _exit.close_at_exit(self)

    def result(self, timeout: float | None = None) -> None:
        """See `AsyncResponse`."""
        try:
            self._pending.wait(self._timeout_s if timeout is None else timeout)
        finally:
            if self.done():
                self._let_go()

    def on_complete(self, callback: Callable[[None], object]) -> None:
        """See `AsyncResponse`."""
        in_background(lambda: self._pending.wait(None), "the save").on_complete(callback)

    def done(self) -> bool:
        """Whether it has ended."""
        return self._pending.is_done

    def close(self) -> None:
        """Waits for the save, however long it takes, and raises its error."""
        try:
            self._pending.wait(None)
        finally:
            self._let_go()

    def _report_unasked(self) -> None:
        try:
            self.close()
        except Exception as error:
            _logger.error("a save in the background, whose result nobody asked for: %s", error)

    def _let_go(self) -> None:
        _in_flight.discard(self)
        _exit.forget(self)


_in_flight: set[PendingSave] = set()
