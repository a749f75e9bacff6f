"""Checkpoints of training runs: saved atomically and durably, restored bit for bit.

`import stepstone as ocp` takes the place of `import orbax.checkpoint as ocp`.

>>> import numpy as np, tempfile
>>> import stepstone as ocp
>>> with ocp.CheckpointManager(tempfile.mkdtemp()) as manager:
...     for step in range(3):
...         _ = manager.save(step, args=ocp.args.StandardSave({"w": np.full(2, step)}))
...     manager.wait_until_finished()
...     manager.restore(manager.latest_step())
{'w': array([2, 2])}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepstone import _native, args, errors, handlers, type_handlers
from stepstone.checkpointers import (
    AbstractCheckpointer,
    AsyncCheckpointer,
    Checkpointer,
    PyTreeCheckpointer,
    StandardCheckpointer,
)
from stepstone.errors import StepAlreadyExistsError, StepstoneError
from stepstone.handlers import (
    ArrayCheckpointHandler,
    AsyncCheckpointHandler,
    BasePyTreeCheckpointHandler,
    CheckpointHandler,
    CompositeCheckpointHandler,
    CompositeOptions,
    JaxRandomKeyCheckpointHandler,
    JsonCheckpointHandler,
    NumpyRandomKeyCheckpointHandler,
    ProtoCheckpointHandler,
    PyTreeCheckpointHandler,
    StandardCheckpointHandler,
)
from stepstone.registry import CheckpointHandlerRegistry, DefaultCheckpointHandlerRegistry
from stepstone.type_handlers import PLACEHOLDER, ArrayRestoreArgs, RestoreArgs, SaveArgs

if TYPE_CHECKING:
    from stepstone import abstract_checkpoint_manager as abstract_checkpoint_manager
    from stepstone import arrays as arrays
    from stepstone import checkpoint_args as checkpoint_args
    from stepstone import checkpoint_manager as checkpoint_manager
    from stepstone import checkpoint_managers as checkpoint_managers
    from stepstone import checkpoint_utils as checkpoint_utils
    from stepstone import checkpointers as checkpointers
    from stepstone import context as context
    from stepstone import experimental as experimental
    from stepstone import future as future
    from stepstone import logging as logging
    from stepstone import metadata as metadata
    from stepstone import multihost as multihost
    from stepstone import options as options
    from stepstone import partial as partial
    from stepstone import path as path
    from stepstone import portable as portable
    from stepstone import registry as registry
    from stepstone import step as step
    from stepstone import test_utils as test_utils
    from stepstone import torch as torch
    from stepstone import training as training
    from stepstone import transform as transform
    from stepstone import tree as tree
    from stepstone import utils as utils
    from stepstone import v1 as v1
    from stepstone.checkpoint_manager import AbstractCheckpointManager as AbstractCheckpointManager
    from stepstone.checkpoint_manager import CheckpointManager as CheckpointManager
    from stepstone.context import Context as Context
    from stepstone.functions import checkpointables_metadata as checkpointables_metadata
    from stepstone.functions import delete as delete
    from stepstone.functions import delete_async as delete_async
    from stepstone.functions import is_checkpoint as is_checkpoint
    from stepstone.functions import is_orbax_checkpoint as is_orbax_checkpoint
    from stepstone.functions import is_stepstone_checkpoint as is_stepstone_checkpoint
    from stepstone.functions import load as load
    from stepstone.functions import load_async as load_async
    from stepstone.functions import load_checkpointables as load_checkpointables
    from stepstone.functions import load_checkpointables_async as load_checkpointables_async
    from stepstone.functions import save as save
    from stepstone.functions import save_async as save_async
    from stepstone.functions import save_checkpointables as save_checkpointables
    from stepstone.functions import save_checkpointables_async as save_checkpointables_async
    from stepstone.future import Future as Future
    from stepstone.options import AsyncOptions as AsyncOptions
    from stepstone.options import CheckpointManagerOptions as CheckpointManagerOptions
    from stepstone.portable import export as export
    from stepstone.transform import RestoreTransform as RestoreTransform
    from stepstone.transform import Transform as Transform
    from stepstone.transform import apply_transformations as apply_transformations
    from stepstone.transform import merge_trees as merge_trees

__version__ = "0.1.0"

_native.set_error_factory(errors.from_code)

# What is loaded when it is asked for: an attribute's module, and its name there.
_MODULES = (
    "abstract_checkpoint_manager arrays checkpoint_args checkpoint_manager checkpoint_managers "
    "checkpoint_utils checkpointers context experimental future logging metadata multihost options "
    "partial path portable registry step test_utils torch training transform tree utils v1"
).split()
_ATTRIBUTES = {
    name: module
    for module, names in {
        "checkpoint_manager": "AbstractCheckpointManager CheckpointManager",
        "context": "Context",
        "functions": (
            "checkpointables_metadata delete delete_async is_checkpoint is_orbax_checkpoint "
            "is_stepstone_checkpoint load load_async load_checkpointables "
            "load_checkpointables_async save save_async save_checkpointables "
            "save_checkpointables_async"
        ),
        "future": "Future",
        "options": "AsyncOptions CheckpointManagerOptions",
        "portable": "export",
        "transform": "RestoreTransform Transform apply_transformations merge_trees",
    }.items()
    for name in names.split()
}
# Modules that Orbax has under another name.
_ALIASES = {"transform_utils": "transform"}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _MODULES:
        return importlib.import_module(f"stepstone.{name}")
    if name in _ALIASES:
        return importlib.import_module(f"stepstone.{_ALIASES[name]}")
    if name in _ATTRIBUTES:
        value = getattr(importlib.import_module(f"stepstone.{_ATTRIBUTES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'stepstone' has no attribute '{name}'")


__all__ = [
    "PLACEHOLDER",
    "AbstractCheckpointer",
    "ArrayCheckpointHandler",
    "ArrayRestoreArgs",
    "AsyncCheckpointHandler",
    "AsyncCheckpointer",
    "BasePyTreeCheckpointHandler",
    "CheckpointHandler",
    "CheckpointHandlerRegistry",
    "Checkpointer",
    "CompositeCheckpointHandler",
    "CompositeOptions",
    "DefaultCheckpointHandlerRegistry",
    "JaxRandomKeyCheckpointHandler",
    "JsonCheckpointHandler",
    "NumpyRandomKeyCheckpointHandler",
    "ProtoCheckpointHandler",
    "PyTreeCheckpointHandler",
    "PyTreeCheckpointer",
    "RestoreArgs",
    "SaveArgs",
    "StandardCheckpointHandler",
    "StandardCheckpointer",
    "StepAlreadyExistsError",
    "StepstoneError",
    "args",
    "errors",
    "handlers",
    "type_handlers",
    *_ALIASES,
    *_ATTRIBUTES,
    *_MODULES,
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
