"""Which steps a save keeps; the same policies as in `stepstone.checkpoint_managers`."""

from __future__ import annotations

from stepstone.checkpoint_managers import (
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
