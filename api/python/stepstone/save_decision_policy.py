"""When a manager saves: `should_save` is asked at every `CheckpointManager.save`.

`checkpoint_managers` tells how policies work, and has these, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from stepstone import _native
from stepstone._policies import Guard, PolicyCheckpointInfo, adopted, from_native, positive
from stepstone._policies import to_native

__all__ = [
    "AnySavePolicy",
    "ContinuousCheckpointingPolicy",
    "DecisionContext",
    "FixedIntervalPolicy",
    "InitialSavePolicy",
    "PreemptionCheckpointingPolicy",
    "SaveDecisionPolicy",
    "SpecificStepsPolicy",
]


@dataclasses.dataclass(kw_only=True)
class DecisionContext:
    """What else a policy for saving is told.

    Parameters
    ----------
    is_saving_in_progress : bool
        Whether an earlier save is still being written in the background.
    reached_preemption : bool
        Whether the process has been told to end.
    multiprocessing_options : MultiprocessingOptions, optional
        Those of the manager's options.
    """

    is_saving_in_progress: bool = False
    reached_preemption: bool = False
    multiprocessing_options: Any = None


@runtime_checkable
class SaveDecisionPolicy(Protocol):
    """Decides when to save; a policy of your own may, but need not, derive from it."""

    def should_save(
        self,
        step: PolicyCheckpointInfo,
        previous_steps: Sequence[PolicyCheckpointInfo],
        *,
        context: DecisionContext,
    ) -> bool:
        """Whether to save a step.

        Parameters
        ----------
        step : CheckpointInfo
            The step, and what time it is. It has no metrics.
        previous_steps : sequence of CheckpointInfo
            Ascending, with those that are being saved.
        context : DecisionContext
            What else there is to know.
        """
        ...


class _NativeSavePolicy(SaveDecisionPolicy):
    """A policy that the library decides."""

    def to_native(self, guard: Guard, multiprocessing_options: Any = None) -> _native.SavePolicy:
        raise NotImplementedError

    def should_save(
        self,
        step: PolicyCheckpointInfo,
        previous_steps: Sequence[PolicyCheckpointInfo],
        *,
        context: DecisionContext,
    ) -> bool:
        guard = Guard()
        policy = self.to_native(guard, getattr(context, "multiprocessing_options", None))
        try:
            return policy.should_save(
                to_native(step),
                [to_native(info) for info in previous_steps],
                bool(getattr(context, "is_saving_in_progress", False)),
                bool(getattr(context, "reached_preemption", False)),
            )
        except Exception:
            if (error := guard.take()) is not None:
                raise error from None
            raise


@dataclasses.dataclass
class FixedIntervalPolicy(_NativeSavePolicy):
    """Saves the multiples of an interval.

    Parameters
    ----------
    interval : int
        In steps. ValueError, when the policy is used, if it is not positive.
    """

    interval: int

    def to_native(self, guard: Guard, multiprocessing_options: Any = None) -> _native.SavePolicy:
        return _native.fixed_interval_policy(positive(self.interval, "interval"))


@dataclasses.dataclass
class SpecificStepsPolicy(_NativeSavePolicy):
    """Saves certain steps.

    Parameters
    ----------
    steps : container of int
        Which; also one that cannot be iterated over.
    """

    steps: Container[int]

    def to_native(self, guard: Guard, multiprocessing_options: Any = None) -> _native.SavePolicy:
        if isinstance(self.steps, Iterable):
            return _native.specific_steps_policy([step for step in self.steps if step >= 0])
        return _native.python_save_policy(
            guard.wrap(lambda step, *_: step.step in self.steps)
        )


@dataclasses.dataclass(kw_only=True)
class ContinuousCheckpointingPolicy(_NativeSavePolicy):
    """Saves whenever no save is in progress.

    Parameters
    ----------
    minimum_interval_secs : float, optional
        The least time between the beginnings of two saves, in seconds.
    """

    minimum_interval_secs: float | None = None

    def to_native(self, guard: Guard, multiprocessing_options: Any = None) -> _native.SavePolicy:
        return _native.continuous_policy(self.minimum_interval_secs)


@dataclasses.dataclass
class PreemptionCheckpointingPolicy(_NativeSavePolicy):
    """Saves once the process has been told to end."""

    def to_native(self, guard: Guard, multiprocessing_options: Any = None) -> _native.SavePolicy:
        return _native.preemption_policy()


@dataclasses.dataclass
class InitialSavePolicy(_NativeSavePolicy):
    """Saves the first step of all."""

    def to_native(self, guard: Guard, multiprocessing_options: Any = None) -> _native.SavePolicy:
        return _native.initial_save_policy()


@dataclasses.dataclass
class AnySavePolicy(_NativeSavePolicy):
    """Saves what one of several policies saves; the first that says so is the last to be asked.

    Parameters
    ----------
    policies : sequence of SaveDecisionPolicy
        In the order in which they are asked.
    """

    policies: Sequence[SaveDecisionPolicy]

    def to_native(self, guard: Guard, multiprocessing_options: Any = None) -> _native.SavePolicy:
        return _native.any_save_policy(
            [save_policy_to_native(each, guard, multiprocessing_options) for each in self.policies]
        )


_SAVE_POLICIES: dict[str, type[_NativeSavePolicy]] = {
    cls.__name__: cls
    for cls in (
        FixedIntervalPolicy,
        SpecificStepsPolicy,
        ContinuousCheckpointingPolicy,
        PreemptionCheckpointingPolicy,
        InitialSavePolicy,
        AnySavePolicy,
    )
}


def save_policy_to_native(
    policy: Any, guard: Guard, multiprocessing_options: Any = None
) -> _native.SavePolicy:
    """The library's form of any policy for saving.

    Raises
    ------
    TypeError
        It has no `should_save`.
    """
    ours = adopted(policy, _SAVE_POLICIES)
    if ours is not None:
        return ours.to_native(guard, multiprocessing_options)
    if not callable(getattr(policy, "should_save", None)):
        raise TypeError(f"{policy!r} is no policy for saving: it has no method `should_save`")

    def decide(
        step: _native.CheckpointInfo,
        previous: Sequence[_native.CheckpointInfo],
        is_saving_in_progress: bool,
        reached_preemption: bool,
    ) -> bool:
        context = DecisionContext(
            is_saving_in_progress=is_saving_in_progress,
            reached_preemption=reached_preemption,
            multiprocessing_options=multiprocessing_options,
        )
        infos = [from_native(info) for info in previous]
        return bool(policy.should_save(from_native(step), infos, context=context))

    return _native.python_save_policy(guard.wrap(decide))
