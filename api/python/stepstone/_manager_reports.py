"""What a manager tells others while it works: its logger, and the callbacks among its options."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from stepstone import _native
from stepstone._step_statistics import (
    CommitStepStatistics,
    RestoreStepStatistics,
    SaveStepStatistics,
)
from stepstone.options import CheckpointManagerOptions

_logger = logging.getLogger("stepstone")


class Reporter:
    """Tells about the saves and restores of one manager.

    The library holds it, and so it must not refer to the manager: such a circle is never collected.

    Parameters
    ----------
    directory : str
        The store.
    options : CheckpointManagerOptions
        With the callbacks.
    logger : AbstractLogger or None
        Who is given entries; None: Python's `logging`, if anybody listens there.
    """

    def __init__(self, directory: str, options: CheckpointManagerOptions, logger: Any) -> None:
        self._directory = directory
        self._on_save = options.on_save
        self._progress = options.progress
        self._logger = logger
        self._last_save_end: float | None = None

    def _log(self, make_entry: Callable[[], Any]) -> None:
        if self._logger is not None:
            self._logger.log_entry(dataclasses.asdict(make_entry()))
        elif _logger.isEnabledFor(logging.INFO):
            _logger.info("%s", dataclasses.asdict(make_entry()))

    def begin_save(self, step: int, *, is_synchronous: bool) -> Callable[[bool], None]:
        """A call of `save` begins; what is returned is to be called when it has begun a save."""
        begin = time.time()
        previous = self._last_save_end

        def report(reached_preemption: bool) -> None:
            end = time.time()
            since_previous = None if previous is None else begin - previous
            self._last_save_end = end
            self._log(
                lambda: SaveStepStatistics(
                    step=step,
                    directory=self._directory,
                    reached_preemption=reached_preemption,
                    preemption_received_at=begin if reached_preemption else None,
                    synchronous=is_synchronous,
                    wait_for_prev_start_time=begin if is_synchronous else None,
                    wait_for_prev_duration_secs=0.0 if is_synchronous else None,
                    time_between_consecutive_saves_sec=since_previous,
                    checkpointer_blocking_start_time=begin,
                    checkpointer_blocking_duration_secs=end - begin,
                    checkpoint_manager_blocking_start_time=begin,
                    checkpoint_manager_blocking_duration_secs=end - begin,
                )
            )

        return report

    def counted(self, items: list[_native.SaveItem]) -> list[_native.SaveItem]:
        """The items of a save; when the last of them has been made, the save's size is known."""
        if self._progress is None:
            return items
        progress, count = self._progress, len(items)
        sizes_bytes: list[int] = []

        def counting(make: Callable[[], Any]) -> Callable[[], Any]:
            def made() -> Any:
                item = make()
                # One that is made in the background is known then.
                sizes_bytes.append(0 if callable(item) else item[0].size_bytes)
                if len(sizes_bytes) == count:
                    progress(0, sum(sizes_bytes))
                return item

            return made

        return [(name, handler, counting(make)) for name, handler, make in items]

    def writing(self) -> Callable[[int, int], object] | None:
        """What the library is to call while it writes a step; None: nobody wants to know."""
        progress = self._progress
        if progress is None:
            return None

        def report(done_bytes: int, total_bytes: int) -> None:
            if done_bytes < total_bytes:  # The end is told when the step is durable.
                progress(done_bytes, total_bytes)

        return report

    def on_save(self, statistics: _native.SaveStatistics) -> None:
        """A step is durable; called by the library, mostly in the background."""
        try:
            self._log(
                lambda: CommitStepStatistics(
                    step=statistics.step,
                    directory=self._directory,
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
            if self._progress is not None:
                self._progress(statistics.size_bytes, statistics.size_bytes)
            if self._on_save is not None:
                self._on_save(statistics)
        except Exception:
            _logger.exception("step %d was saved; a callback about it failed", statistics.step)

    @contextlib.contextmanager
    def restoring(self, held: _native.Step, begin: float) -> Iterator[None]:
        """Around the part of a restore that reads; `begin` is when it was called."""
        begin_read = time.time()
        progress = self._progress
        size_bytes = 0 if progress is None else held.metadata().size_bytes
        if progress is not None:
            progress(0, size_bytes)
        yield
        if progress is not None:
            progress(size_bytes, size_bytes)
        end = time.time()
        self._log(
            lambda: RestoreStepStatistics(
                step=held.step,
                directory=self._directory,
                checkpointer_start_time=begin_read,
                checkpointer_duration_secs=end - begin_read,
                checkpoint_manager_start_time=begin,
                checkpoint_manager_duration_secs=end - begin,
            )
        )
