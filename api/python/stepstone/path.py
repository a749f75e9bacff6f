"""Paths of checkpoints: `ocp.path.step` names steps.

Orbax has modules here for temporary paths, atomic renames and deletion; there is nothing of the
kind in a store.
"""

from __future__ import annotations

from stepstone import step

__all__ = ["step"]
