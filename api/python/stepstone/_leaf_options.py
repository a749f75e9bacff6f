"""How single leaves are saved and restored; see `type_handlers`."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np

from stepstone.errors import InvalidArgumentError


@dataclasses.dataclass
class SaveArgs:
    """How one leaf is saved.

    Parameters
    ----------
    aggregate : bool
        No effect; it is deprecated in Orbax. `StandardSave` refuses it.
    dtype : dtype, optional
        To which an array is cast on the way to the store; of numpy, ml_dtypes, jax, or its name.
    chunk_byte_size : int, optional
        What is read, checked and shared as one, in bytes; brought into 4 KiB to 16 MiB. None: 256
        KiB.
    shard_axes : tuple of int
        No effect: slices of a leaf can be read along any axis.
    allow_lossy_cast : bool
        Without it, a cast that loses what the type stands for (float to integer, complex to real)
        is an error. With it, values are truncated towards zero and clamped.
    compression : str, optional
        "none", "auto", "always" or "delta"; None: what the store is set to.
    share : bool, optional
        Whether the leaf may refer to equal bytes that are stored already; None: what the store is
        set to.
    """

    aggregate: bool = False
    dtype: Any = None
    chunk_byte_size: int | None = None
    shard_axes: tuple[int, ...] = ()
    allow_lossy_cast: bool = dataclasses.field(default=False, kw_only=True)
    compression: str | None = dataclasses.field(default=None, kw_only=True)
    share: bool | None = dataclasses.field(default=None, kw_only=True)


@dataclasses.dataclass
class RestoreArgs:
    """How one leaf is restored.

    Parameters
    ----------
    restore_type : type, optional
        The kind of object: numpy.ndarray, jax.Array, int, float, bool, or a scalar type of numpy.
        None: what the target has, else as it was saved.
    dtype : dtype, optional
        To which an array is cast.
    allow_lossy_cast : bool
        As of `SaveArgs`, for `dtype`.
    """

    restore_type: Any = None
    dtype: Any = None
    allow_lossy_cast: bool = dataclasses.field(default=False, kw_only=True)


def _default_array_type() -> type:
    jax = sys.modules.get("jax")
    array_type: type = np.ndarray if jax is None else jax.Array
    return array_type


@dataclasses.dataclass
class ArrayRestoreArgs(RestoreArgs):
    """How one array is restored.

    Parameters
    ----------
    restore_type : type, optional
        As of `RestoreArgs`. By default jax.Array where jax is imported, else numpy.ndarray.
    dtype, allow_lossy_cast
        As of `RestoreArgs`.
    mesh, mesh_axes : jax.sharding.Mesh, jax.sharding.PartitionSpec, optional
        Together a sharding, if `sharding` is not given.
    sharding : jax.sharding.Sharding or ShardingMetadata, optional
        Where an array of jax goes. None: the default device.
    global_shape, shape : tuple of int, optional
        Two names for the shape that is wanted; None: as it was saved.
    strict : bool
        Whether another shape than the saved one is an error. False: zeros are added, or elements
        dropped, at the end of each axis.

    Raises
    ------
    ValueError
        `shape` and `global_shape` differ.
    """

    restore_type: Any = dataclasses.field(default_factory=_default_array_type)
    mesh: Any = None
    mesh_axes: Any = None
    sharding: Any = None
    global_shape: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None
    strict: bool = True

    def __post_init__(self) -> None:
        if self.shape is None:
            self.shape = self.global_shape
        elif self.global_shape is None:
            self.global_shape = self.shape
        elif tuple(self.shape) != tuple(self.global_shape):
            raise InvalidArgumentError(
                f"shape {self.shape} and global_shape {self.global_shape} differ: give one of them"
            )


@dataclasses.dataclass
class SingleReplicaArrayRestoreArgs(ArrayRestoreArgs):
    """As `ArrayRestoreArgs`.

    Parameters
    ----------
    single_replica_sharding : jax.sharding.NamedSharding, optional
        No effect: there is one process, which reads each array once.
    """

    single_replica_sharding: Any = None
