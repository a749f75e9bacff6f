"""`stepstone.training`, under the newer style's name."""

from __future__ import annotations

from stepstone.training import (
    CheckpointMetadata,
    Checkpointer,
    RootMetadata,
    errors,
    preservation_policies,
    save_decision_policies,
)

__all__ = [
    "CheckpointMetadata",
    "Checkpointer",
    "RootMetadata",
    "errors",
    "preservation_policies",
    "save_decision_policies",
]
