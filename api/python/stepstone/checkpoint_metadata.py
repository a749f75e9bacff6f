"""What the functions and classes of the newer style tell about checkpoints."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
from typing import Any, Generic, TypeVar

__all__ = ["CheckpointMetadata", "PyTreeMetadata"]

_MetadataT = TypeVar("_MetadataT")

# A tree of what is known of each leaf, which can be a load's target.
PyTreeMetadata = Any


def _time(nanoseconds: int | None) -> datetime.datetime | None:
    if nanoseconds is None:
        return None
    return datetime.datetime.fromtimestamp(nanoseconds / 1e9, tz=datetime.timezone.utc)


@dataclasses.dataclass(frozen=True)
class CheckpointMetadata(Generic[_MetadataT]):
    """What is known of a checkpoint without its arrays being read.

    Attributes
    ----------
    path : Path
        Where it is.
    metadata
        Of `metadata`: a tree of the leaves' metadata, which can be a load's target. Of
        `checkpointables_metadata`: such by name.
    init_timestamp_nsecs, commit_timestamp_nsecs : int or None
        When the save began and when it became durable, in nanoseconds since 1970.
    custom_metadata : dict or None
        What was given to the save.
    """

    path: pathlib.Path
    _: dataclasses.KW_ONLY
    metadata: _MetadataT
    init_timestamp_nsecs: int | None = None
    commit_timestamp_nsecs: int | None = None
    custom_metadata: Any = None

    @property
    def init_timestamp(self) -> datetime.datetime | None:
        """When the save began, in UTC."""
        return _time(self.init_timestamp_nsecs)

    @property
    def commit_timestamp(self) -> datetime.datetime | None:
        """When it became durable, in UTC."""
        return _time(self.commit_timestamp_nsecs)
