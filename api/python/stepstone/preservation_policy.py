"""What a manager keeps: `should_preserve` is asked in the commit of every save.

`checkpoint_managers` tells how policies work, and has these, too.
"""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from stepstone import _native
from stepstone._policies import Guard, PolicyCheckpointInfo, adopted, from_native, metric_key
from stepstone._policies import moment_of, positive, time_ns, to_native

__all__ = [
    "AnyPreservationPolicy",
    "BestN",
    "CustomSteps",
    "EveryNSeconds",
    "EveryNSteps",
    "EveryNStepsClosest",
    "LatestDuration",
    "LatestN",
    "Newest",
    "PreservationContext",
    "PreservationPolicy",
    "PreserveAll",
]


@dataclasses.dataclass(kw_only=True)
class PreservationContext:
    """What else a policy for keeping is told.

    Parameters
    ----------
    now : datetime.datetime, optional
        The time of the commit; None: whatever time it is.
    saved_step : int, optional
        The step that is being saved, which is kept in any case.
    """

    now: datetime.datetime | None = None
    saved_step: int | None = None


@runtime_checkable
class PreservationPolicy(Protocol):
    """Decides what to keep; a policy of your own may, but need not, derive from it."""

    def should_preserve(
        self, checkpoints: Sequence[PolicyCheckpointInfo], *, context: PreservationContext
    ) -> Sequence[bool]:
        """For each of `checkpoints`, which are ascending by step, whether to keep it."""
        ...


class _NativePreservationPolicy(PreservationPolicy):
    """A policy that the library decides."""

    def to_native(self, guard: Guard) -> _native.PreservationPolicy:
        raise NotImplementedError

    def should_preserve(
        self, checkpoints: Sequence[PolicyCheckpointInfo], *, context: PreservationContext
    ) -> Sequence[bool]:
        guard = Guard()
        policy = self.to_native(guard)
        now = getattr(context, "now", None)
        try:
            return policy.should_preserve(
                [to_native(info) for info in checkpoints],
                time.time_ns() if now is None else time_ns(now),
                getattr(context, "saved_step", None),
            )
        except Exception:
            if (error := guard.take()) is not None:
                raise error from None
            raise


@dataclasses.dataclass
class PreserveAll(_NativePreservationPolicy):
    """Keeps all."""

    def to_native(self, guard: Guard) -> _native.PreservationPolicy:
        return _native.preserve_all()


@dataclasses.dataclass
class LatestN(_NativePreservationPolicy):
    """Keeps the highest steps.

    Parameters
    ----------
    n : int, optional
        How many; None: all.
    """

    n: int | None = None

    def to_native(self, guard: Guard) -> _native.PreservationPolicy:
        return _native.latest_n(self.n)


@dataclasses.dataclass
class Newest(_NativePreservationPolicy):
    """Keeps the highest step.

    A run is continued from there, and `LatestN` lets it go where only one may be kept and an
    earlier one is filled in. Not one of Orbax's.
    """

    def to_native(self, guard: Guard) -> _native.PreservationPolicy:
        return _native.newest()


@dataclasses.dataclass
class EveryNSeconds(_NativePreservationPolicy):
    """Keeps the first checkpoint, and each that is so much later than the last one kept.

    Parameters
    ----------
    interval_secs : float
        In seconds.
    """

    interval_secs: float

    def to_native(self, guard: Guard) -> _native.PreservationPolicy:
        return _native.every_n_seconds(self.interval_secs)


@dataclasses.dataclass
class EveryNSteps(_NativePreservationPolicy):
    """Keeps the multiples of an interval.

    Parameters
    ----------
    interval_steps : int
        In steps. ValueError, when the policy is used, if it is not positive.
    exact_interval : bool
        False: keeps the first, and each that is at least the interval after the last one kept.
    max_to_keep : int, optional
        Only the highest so many of them.
    """

    interval_steps: int
    exact_interval: bool = True
    max_to_keep: int | None = None

    def to_native(self, guard: Guard) -> _native.PreservationPolicy:
        interval = positive(self.interval_steps, "interval_steps")
        return _native.every_n_steps(interval, self.exact_interval, self.max_to_keep)


@dataclasses.dataclass
class EveryNStepsClosest(_NativePreservationPolicy):
    """Keeps, for each multiple of an interval, what is closest to it, and the highest step.

    Parameters
    ----------
    interval_steps : int
        In steps. ValueError, when the policy is used, if it is not positive.
    max_to_keep : int, optional
        Only the highest so many of them.
    """

    interval_steps: int
    max_to_keep: int | None = None

    def to_native(self, guard: Guard) -> _native.PreservationPolicy:
        interval = positive(self.interval_steps, "interval_steps")
        return _native.every_n_steps_closest(interval, self.max_to_keep)


@dataclasses.dataclass
class CustomSteps(_NativePreservationPolicy):
    """Keeps certain steps.

    Parameters
    ----------
    steps : iterable of int
        Which.
    """

    steps: Iterable[int]

    def __post_init__(self) -> None:
        self.steps = frozenset(self.steps)

    def to_native(self, guard: Guard) -> _native.PreservationPolicy:
        return _native.custom_steps([step for step in self.steps if step >= 0])


@dataclasses.dataclass
class LatestDuration(_NativePreservationPolicy):
    """Keeps what is not older than this.

    Parameters
    ----------
    duration : datetime.timedelta
        From the beginning of a checkpoint's save to the commit that decides.
    """

    duration: datetime.timedelta

    def to_native(self, guard: Guard) -> _native.PreservationPolicy:
        return _native.latest_duration(self.duration.total_seconds())


@dataclasses.dataclass(kw_only=True)
class BestN(_NativePreservationPolicy):
    """Keeps the checkpoints with the best metrics, the later of two equals.

    Parameters
    ----------
    get_metric_fn : callable
        From metrics to the number that ranks them, or to None if they do not say. NaN is worse than
        any number.
    reverse : bool
        Whether the lowest are the best.
    n : int, optional
        How many to keep; None: all.
    keep_checkpoints_without_metrics : bool
        On top of the n. False: they go once there are more than n checkpoints.
    keep_newest : bool
        The highest step, on top of the n, whatever its metrics: a run that is resumed goes on from
        there. False: only the best, as Orbax.
    """

    get_metric_fn: Callable[[Any], float | None]
    reverse: bool = False
    n: int | None = None
    keep_checkpoints_without_metrics: bool = True
    keep_newest: bool = True

    def to_native(self, guard: Guard) -> _native.PreservationPolicy:
        return _native.best_n(
            guard.wrap(self.get_metric_fn),
            self.reverse,
            self.n,
            self.keep_checkpoints_without_metrics,
            self.keep_newest,
            metric_key(self.get_metric_fn),
        )


@dataclasses.dataclass
class AnyPreservationPolicy(_NativePreservationPolicy):
    """Keeps what one of several policies keeps.

    Parameters
    ----------
    policies : sequence of PreservationPolicy
        All of them are asked.
    """

    policies: Sequence[PreservationPolicy]

    def to_native(self, guard: Guard) -> _native.PreservationPolicy:
        return _native.any_preservation_policy(
            [preservation_policy_to_native(each, guard) for each in self.policies]
        )


_PRESERVATION_POLICIES: dict[str, type[_NativePreservationPolicy]] = {
    cls.__name__: cls
    for cls in (
        PreserveAll,
        LatestN,
        Newest,
        EveryNSeconds,
        EveryNSteps,
        EveryNStepsClosest,
        CustomSteps,
        LatestDuration,
        BestN,
        AnyPreservationPolicy,
    )
}


def preservation_policy_to_native(policy: Any, guard: Guard) -> _native.PreservationPolicy:
    """The library's form of any policy for keeping.

    Raises
    ------
    TypeError
        It has no `should_preserve`.
    """
    ours = adopted(policy, _PRESERVATION_POLICIES)
    if ours is not None:
        return ours.to_native(guard)
    if not callable(getattr(policy, "should_preserve", None)):
        raise TypeError(f"{policy!r} is no policy for keeping: it has no method `should_preserve`")

    def preserve(
        checkpoints: Sequence[_native.CheckpointInfo], now_ns: int, saved_step: int | None
    ) -> Sequence[bool]:
        context = PreservationContext(now=moment_of(now_ns), saved_step=saved_step)
        kept = policy.should_preserve([from_native(each) for each in checkpoints], context=context)
        return [bool(each) for each in kept]

    return _native.python_preservation_policy(guard.wrap(preserve), type(policy).__name__)


def is_decided_natively(policy: Any) -> bool:
    """Whether a policy for keeping calls nothing of Python but `get_metric_fn` when it is asked."""
    ours = adopted(policy, _PRESERVATION_POLICIES)
    if isinstance(ours, AnyPreservationPolicy):
        return all(is_decided_natively(each) for each in ours.policies)
    return ours is not None
