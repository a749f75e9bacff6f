"""Which steps a manager shows: those that are durable, and those that are on their way.

A step that is being saved in the background counts as there from the moment `save` returns, and
what its commit will retire as gone. So programs see what they see with Orbax, without waiting.
"""

from __future__ import annotations

import math
import time
from typing import Any

from stepstone import _json, _native
from stepstone._policies import Guard
from stepstone.errors import NotFoundError
from stepstone.options import CheckpointManagerOptions


class ShownSteps:
    """The steps of one manager. Thread-safe.

    Parameters
    ----------
    options : CheckpointManagerOptions
        The manager's.
    """

    def __init__(self, options: CheckpointManagerOptions) -> None:
        self._options = options
        self._policy = options.preservation_to_native(Guard(), if_native=True)
        self._infos: dict[int, _native.CheckpointInfo] = {}
        self._last: list[int] = []
        self._last_best: int | None = None

    def is_pending(self, manager: _native.Manager, step: int | None) -> bool:
        """Whether the step may be on its way."""
        return any(info.step == step for info in manager.saves_in_progress())

    def remember(self, manager: _native.Manager) -> None:
        """What to show from now on, as the manager is about to be closed."""
        self._last, self._last_best = self.steps(manager), self.best(manager)

    def steps(self, manager: _native.Manager | None) -> list[int]:
        """All steps, ascending."""
        if manager is None:
            return list(self._last)
        awaited, committed = self._awaited_and_committed(manager)
        if not awaited:
            return committed
        if self._policy is None:
            return sorted({*committed, *awaited})
        return self._after_commits(manager, committed, awaited, self._policy)

    def latest(self, manager: _native.Manager | None) -> int | None:
        """The newest step."""
        if manager is None:
            return max(self._last, default=None)
        awaited = [info.step for info in manager.saves_in_progress()]
        latest = manager.latest_step()
        return max(awaited, default=None) if latest is None else max(latest, *awaited, latest)

    def best(self, manager: _native.Manager | None) -> int | None:
        """The step that `best_fn` ranks first; without it, the newest."""
        if manager is None:
            return self._last_best
        rank = self._options.ranking_fn()
        if rank is None:
            return self.latest(manager)
        candidates = {info.step: info.metrics for info in manager.saves_in_progress()}
        best = manager.best_step()
        if best is not None:
            candidates.setdefault(best, self.metrics(manager, best))
        ranked = []
        for step, metrics in candidates.items():
            value = None if metrics is None else rank(metrics)
            if value is not None:
                sign = -1 if self._options.best_mode == "min" else 1
                is_number = not math.isnan(value)
                ranked.append((is_number, sign * value if is_number else 0, step))
        return max(ranked)[-1] if ranked else None

    def metrics(self, manager: _native.Manager, step: int) -> Any:
        """The metrics of a step; None: it has none, or is not there."""
        for info in reversed(manager.saves_in_progress()):
            if info.step == step:
                return info.metrics
        try:
            text = manager.metrics(step)
        except NotFoundError:
            return None
        return None if text is None else _json.loads(text)

    def _awaited_and_committed(
        self, manager: _native.Manager
    ) -> tuple[dict[int, _native.CheckpointInfo], list[int]]:
        """What is on its way, in the order of the saves, and what is durable, at one time."""
        saves = manager.saves_in_progress()
        while True:
            committed = manager.all_steps()
            later = manager.saves_in_progress()
            # All but the first were not durable while none of them left: they end one by one.
            if [(info.step, info.time_ns) for info in saves] == [
                (info.step, info.time_ns) for info in later
            ]:
                return {info.step: info for info in saves if info.step not in committed}, committed
            saves = later

    def _after_commits(
        self,
        manager: _native.Manager,
        committed: list[int],
        awaited: dict[int, _native.CheckpointInfo],
        policy: _native.PreservationPolicy,
    ) -> list[int]:
        """What will be left, as the policy will say in each commit."""
        infos = {}
        for step in committed:
            info = self._infos.get(step) or self._read_info(manager, step)
            if info is not None:
                infos[step] = info
        self._infos = dict(infos)
        for step, awaited_info in awaited.items():
            infos[step] = awaited_info
            steps = sorted(infos)
            kept = policy.should_preserve([infos[each] for each in steps], time.time_ns(), step)
            for each, is_kept in zip(steps, kept):
                if not is_kept and each != step:
                    del infos[each]
        return sorted(infos)

    def _read_info(self, manager: _native.Manager, step: int) -> _native.CheckpointInfo | None:
        try:
            held = manager.hold_committed(step)
        except NotFoundError:
            return None  # Another thread's commit has retired it just now.
        try:
            found = held.metadata()
        finally:
            held.release()
        text = found.metrics
        if text is None and self._options.prevent_write_metrics:
            text = manager.metrics(step)
        metrics = None if text is None else _json.loads(text)
        return _native.CheckpointInfo(step, found.init_timestamp_ns, metrics)
