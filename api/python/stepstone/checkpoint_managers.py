"""Policies: when a manager saves, and which checkpoints it keeps.

A policy for saving answers `should_save` at every `CheckpointManager.save`; one for keeping answers
`should_preserve` in the commit of every save, and what it does not keep is retired in the same
instant as the new step appears. Whatever it says, the step that is being saved survives its own
commit.

The policies here are decided by the C++ library. One of your own is any object with that method:

>>> class PowersOfTwo:
...     def should_preserve(self, checkpoints, *, context):
...         return [info.step & (info.step - 1) == 0 for info in checkpoints]
>>> AnyPreservationPolicy([PowersOfTwo(), LatestN(2)]).should_preserve(
...     [CheckpointInfo(step) for step in range(3, 8)], context=PreservationContext())
[False, True, False, True, True]

Policies of Orbax are taken as well. A policy must not call the manager; what it raises is raised by
the `save` or, where it was asked in the background, by the next wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepstone import preservation_policy, save_decision_policy
from stepstone._policies import CheckpointInfo, PolicyCheckpointInfo
from stepstone.preservation_policy import (
    AnyPreservationPolicy,
    BestN,
    CustomSteps,
    EveryNSeconds,
    EveryNSteps,
    EveryNStepsClosest,
    LatestDuration,
    LatestN,
    Newest,
    PreservationContext,
    PreservationPolicy,
    PreserveAll,
)
from stepstone.save_decision_policy import (
    AnySavePolicy,
    ContinuousCheckpointingPolicy,
    DecisionContext,
    FixedIntervalPolicy,
    InitialSavePolicy,
    PreemptionCheckpointingPolicy,
    SaveDecisionPolicy,
    SpecificStepsPolicy,
)

if TYPE_CHECKING:
    from stepstone.checkpoint_manager import AbstractCheckpointManager, CheckpointManager
    from stepstone.options import CheckpointManagerOptions

__all__ = [
    "AbstractCheckpointManager",
    "AnyPreservationPolicy",
    "AnySavePolicy",
    "BestN",
    "CheckpointInfo",
    "CheckpointManager",
    "CheckpointManagerOptions",
    "ContinuousCheckpointingPolicy",
    "CustomSteps",
    "DecisionContext",
    "EveryNSeconds",
    "EveryNSteps",
    "EveryNStepsClosest",
    "FixedIntervalPolicy",
    "InitialSavePolicy",
    "LatestDuration",
    "LatestN",
    "Newest",
    "PolicyCheckpointInfo",
    "PreemptionCheckpointingPolicy",
    "PreservationContext",
    "PreservationPolicy",
    "PreserveAll",
    "SaveDecisionPolicy",
    "SpecificStepsPolicy",
    "preservation_policy",
    "save_decision_policy",
]


# The manager uses the policies, and so comes after them.
def __getattr__(name: str) -> Any:
    if name in ("AbstractCheckpointManager", "CheckpointManager"):
        from stepstone import checkpoint_manager

        return getattr(checkpoint_manager, name)
    if name == "CheckpointManagerOptions":
        from stepstone.options import CheckpointManagerOptions

        return CheckpointManagerOptions
    raise AttributeError(f"module 'stepstone.checkpoint_managers' has no attribute '{name}'")
