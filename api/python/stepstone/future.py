"""Futures that handlers written by users give back from `async_save`.

Whatever has a `result()` will do; these are the ones that programs written for Orbax construct.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, runtime_checkable

__all__ = [
    "ChainedFuture",
    "CommitFuture",
    "CommitFutureAwaitingContractedSignals",
    "Future",
    "NoopFuture",
]


@runtime_checkable
class Future(Protocol):
    """Something that is going on, and can be waited for."""

    def result(self, timeout: float | None = None) -> Any:
        """Waits, for `timeout` seconds at most, and raises what went wrong.

        Raises
        ------
        TimeoutError
            It is not done yet.
        """
        ...

    def cancel(self) -> bool | None:
        """Asks it to stop; it need not."""
        ...


class NoopFuture:
    """Nothing, which is done already."""

    def result(self, timeout: float | None = None) -> Any:
        return None

    def cancel(self) -> bool | None:
        return None


class ChainedFuture:
    """Several futures, and what to do when all of them are done.

    Parameters
    ----------
    futures : sequence of Future
        Waited for in their order.
    cb : callable
        Called, without arguments, by the `result` that has waited for all of them.
    """

    def __init__(self, futures: Sequence[Future], cb: Callable[[], None]) -> None:
        self._futures = futures
        self._callback = cb

    def result(self, timeout: float | None = None) -> Any:
        end = None if timeout is None else time.monotonic() + timeout
        for future in self._futures:
            future.result(None if end is None else max(0.0, end - time.monotonic()))
        self._callback()

    def cancel(self) -> bool | None:
        for future in self._futures:
            future.cancel()
        return None


class CommitFuture:
    """Runs a coroutine in a thread of its own, from now on.

    Parameters
    ----------
    coro : coroutine
        What to run.
    name : str, optional
        Of the thread.
    """

    def __init__(self, coro: Coroutine[Any, Any, Any], *, name: str | None = None) -> None:
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(coro,), name=name)
        self._thread.start()

    def _run(self, coro: Coroutine[Any, Any, Any]) -> None:
        import asyncio

        try:
            self._value = asyncio.run(coro)
        except BaseException as error:
            self._error = error

    def result(self, timeout: float | None = None) -> Any:
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"{self._thread.name} is not done after {timeout} s")
        if self._error is not None:
            raise self._error
        return self._value

    def cancel(self) -> bool | None:
        return False  # A thread cannot be stopped from outside.


class CommitFutureAwaitingContractedSignals(CommitFuture):
    """As `CommitFuture`.

    Parameters
    ----------
    coro, name
        As of `CommitFuture`.
    send_signals, timeout_secs, operation_id
        No effect: the directory is there before a handler is called, so that nobody has to signal
        that it is, or to wait for that.
    """

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        send_signals: Sequence[Any] | None = None,
        timeout_secs: float | None = None,
        operation_id: str | None = None,
    ) -> None:
        super().__init__(coro, name=name)
