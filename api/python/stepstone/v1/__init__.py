"""The newer style: functions, contexts and `training.Checkpointer`.

`from stepstone import v1 as ocp`, or `import stepstone.experimental.v1 as ocp`, takes the place of
`from orbax.checkpoint import v1 as ocp`.

>>> import numpy as np, tempfile
>>> from stepstone import v1 as ocp
>>> path = tempfile.mkdtemp() + "/checkpoint"
>>> ocp.save(path, {"w": np.arange(3)})
>>> ocp.load(path)
{'w': array([0, 1, 2])}
"""

from __future__ import annotations

from stepstone import partial, training
from stepstone.checkpoint_metadata import CheckpointMetadata, PyTreeMetadata
from stepstone.context import Context
from stepstone.functions import (
    AsyncResponse,
    checkpointables_metadata,
    delete,
    delete_async,
    is_orbax_checkpoint,
    is_stepstone_checkpoint,
    load,
    load_async,
    load_checkpointables,
    load_checkpointables_async,
    load_pytree,
    load_pytree_async,
    metadata,
    pytree_metadata,
    save,
    save_async,
    save_checkpointables,
    save_checkpointables_async,
    save_pytree,
    save_pytree_async,
)
from stepstone.portable import export
from stepstone.stateful import (
    AbstractCheckpointable,
    Checkpointable,
    CheckpointableHandler,
    StatefulCheckpointable,
)
from stepstone.type_handlers import PLACEHOLDER
from stepstone.v1 import arrays, errors, handlers, multihost, options, path, tree

__all__ = [
    "PLACEHOLDER",
    "AbstractCheckpointable",
    "AsyncResponse",
    "CheckpointMetadata",
    "Checkpointable",
    "CheckpointableHandler",
    "Context",
    "PyTreeMetadata",
    "StatefulCheckpointable",
    "arrays",
    "checkpointables_metadata",
    "delete",
    "delete_async",
    "errors",
    "export",
    "handlers",
    "is_orbax_checkpoint",
    "is_stepstone_checkpoint",
    "load",
    "load_async",
    "load_checkpointables",
    "load_checkpointables_async",
    "load_pytree",
    "load_pytree_async",
    "metadata",
    "multihost",
    "options",
    "partial",
    "path",
    "pytree_metadata",
    "save",
    "save_async",
    "save_checkpointables",
    "save_checkpointables_async",
    "save_pytree",
    "save_pytree_async",
    "training",
    "tree",
]
