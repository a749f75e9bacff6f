"""Handlers of the newer style, and registries of them."""

from __future__ import annotations

from stepstone.checkpointable_handlers import JsonHandler, ProtoHandler, PyTreeHandler
from stepstone.checkpointables import (
    CheckpointableHandlerRegistry,
    global_registry,
    local_registry,
    register_handler,
)
from stepstone.stateful import (
    AbstractCheckpointable,
    Checkpointable,
    CheckpointableHandler,
    StatefulCheckpointable,
)

__all__ = [
    "AbstractCheckpointable",
    "Checkpointable",
    "CheckpointableHandler",
    "CheckpointableHandlerRegistry",
    "JsonHandler",
    "ProtoHandler",
    "PyTreeHandler",
    "StatefulCheckpointable",
    "global_registry",
    "local_registry",
    "register_handler",
]
