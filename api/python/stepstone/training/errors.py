"""Exceptions of `training.Checkpointer`, under the names that the newer style has for them."""

from __future__ import annotations

from stepstone.errors import StepAlreadyExistsError, StepNotFoundError

__all__ = ["StepAlreadyExistsError", "StepNotFoundError"]
