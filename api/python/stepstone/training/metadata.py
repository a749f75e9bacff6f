"""What `training.Checkpointer` tells about checkpoints and runs."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
from typing import Any, Generic, TypeVar

from stepstone import checkpoint_metadata

__all__ = ["CheckpointMetadata", "RootMetadata"]

_MetadataT = TypeVar("_MetadataT")


@dataclasses.dataclass(frozen=True, init=False)
class CheckpointMetadata(checkpoint_metadata.CheckpointMetadata[_MetadataT], Generic[_MetadataT]):
    """What is known of a step, as `stepstone.checkpoint_metadata.CheckpointMetadata`, and

    Attributes
    ----------
    step : int
    metrics : dict or None
        What was given to the save.
    """

    step: int
    metrics: Any = None

    def __init__(
        self,
        step: int,
        path: pathlib.Path,
        *,
        metadata: _MetadataT,
        init_timestamp_nsecs: int | None = None,
        commit_timestamp_nsecs: int | None = None,
        custom_metadata: Any = None,
        metrics: Any = None,
    ) -> None:
        super().__init__(
            path,
            metadata=metadata,
            init_timestamp_nsecs=init_timestamp_nsecs,
            commit_timestamp_nsecs=commit_timestamp_nsecs,
            custom_metadata=custom_metadata,
        )
        object.__setattr__(self, "step", step)
        object.__setattr__(self, "metrics", metrics)

    @property
    def time(self) -> datetime.datetime | None:
        """When it became durable, in UTC."""
        return self.commit_timestamp


@dataclasses.dataclass(frozen=True, kw_only=True)
class RootMetadata:
    """What is known of a run.

    Attributes
    ----------
    directory : Path
    custom_metadata : dict or None
        What was given to the first `Checkpointer` there.
    """

    directory: pathlib.Path
    custom_metadata: Any = None
