"""Exceptions of the newer style; all others are in `stepstone.errors`."""

from __future__ import annotations

from stepstone.errors import (
    InvalidLayoutError,
    PartialSaveError,
    PartialSaveReplacementError,
    StepstoneError,
)

__all__ = [
    "DeletionInProgressError",
    "DeletionRecoveryError",
    "InvalidLayoutError",
    "PartialSaveError",
    "PartialSaveReplacementError",
]


class DeletionInProgressError(StepstoneError, RuntimeError):
    """Never raised: a deletion is atomic. For programs that catch it."""


class DeletionRecoveryError(StepstoneError, RuntimeError):
    """Never raised: a deletion is atomic. For programs that catch it."""
