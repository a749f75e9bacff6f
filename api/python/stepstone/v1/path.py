"""Paths of the newer style."""

from __future__ import annotations

import os
import pathlib

from stepstone.path import step
from stepstone.stateful import PathAwaitingCreation

__all__ = ["Path", "PathAwaitingCreation", "PathLike", "step"]

Path = pathlib.Path
PathLike = str | os.PathLike[str]
