"""The checkpoints of a training run, in the newer style.

>>> import numpy as np, tempfile
>>> from stepstone import training
>>> policy = training.save_decision_policies.FixedIntervalPolicy(2)
>>> run = tempfile.mkdtemp()
>>> with training.Checkpointer(run, save_decision_policy=policy) as checkpointer:
...     [checkpointer.save(step, {"w": np.full(2, step)}) for step in range(4)]
...     checkpointer.latest.step
...     checkpointer.load()
[True, False, True, False]
2
{'w': array([2, 2])}
"""

from __future__ import annotations

from stepstone.training import errors, pathways, preservation_policies, save_decision_policies
from stepstone.training.checkpointer import Checkpointer
from stepstone.training.metadata import CheckpointMetadata, RootMetadata

__all__ = [
    "CheckpointMetadata",
    "Checkpointer",
    "RootMetadata",
    "errors",
    "pathways",
    "preservation_policies",
    "save_decision_policies",
]
