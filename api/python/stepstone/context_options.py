"""The options objects of a `Context`; see `context`."""

from __future__ import annotations

import dataclasses
import enum
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from stepstone.checkpointables import CheckpointableHandlerRegistry

__all__ = [
    "ArrayOptions",
    "AsyncOptions",
    "AtomicityOptions",
    "CheckpointLayout",
    "CheckpointablesOptions",
    "DeletionOptions",
    "FileOptions",
    "MemoryOptions",
    "MultiprocessingOptions",
    "PathwaysOptions",
    "PyTreeOptions",
    "SafetensorsOptions",
]

# Whether arrays are mapped; see `ArrayLoadingOptions.mmap`.
Mmap: TypeAlias = bool | Literal["unchecked"]

# Contexts are entered and left by several threads.
entering = threading.Lock()


class Options:
    """An options object, which cannot be changed while a context that holds it is entered."""

    def __setattr__(self, name: str, value: object) -> None:
        if self.__dict__.get("_entered", 0):
            raise RuntimeError(
                f"{type(self).__qualname__}.{name} cannot be changed inside the context that it "
                "belongs to: set it before the `with`, or enter a Context made from this one"
            )
        object.__setattr__(self, name, value)

    def enter(self, count: int) -> None:
        """Counts the `with` blocks that it is in, up or, with -1, down; with `entering` held."""
        self.__dict__["_entered"] = self.__dict__.get("_entered", 0) + count
        for value in self.__dict__.values():
            if isinstance(value, Options):
                value.enter(count)


_OptionsT = TypeVar("_OptionsT", bound=Options)


def copy_options(cls: type[_OptionsT], source: object) -> _OptionsT:
    """Options of `cls` with the fields that `source` has, which may be Orbax's own object."""
    options = cls()
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        value = getattr(source, field.name, getattr(options, field.name))
        default = getattr(options, field.name)
        if isinstance(default, Options):
            value = copy_options(type(default), value)
        setattr(options, field.name, value)
    return options


@dataclasses.dataclass(kw_only=True)
class AsyncOptions(Options):
    """Saves in the background.

    Attributes
    ----------
    timeout_secs : float
        For how many seconds `result()` waits when it is given no timeout. The save goes on.
    post_finalization_callback : callable, optional
        Called without arguments when a save in the background has become durable.
    create_directories_asynchronously : bool
        No effect: no directory is made per checkpoint item.
    """

    timeout_secs: float = 1200
    post_finalization_callback: Callable[[], object] | None = None
    create_directories_asynchronously: bool = True


@dataclasses.dataclass(kw_only=True)
class MultiprocessingOptions(Options):
    """No effect: one process writes a store, and there is nobody to wait for."""

    primary_host: int | None = 0
    active_processes: set[int] | None = None
    barrier_sync_key_prefix: str | None = None


@dataclasses.dataclass(kw_only=True)
class FileOptions(Options):
    """No effect: files have the permissions that the process's umask leaves, paths are local, and
    what stands at a path is always checked, which costs one look."""

    path_permission_mode: int | None = None
    path_class: type | None = None
    skip_sync_file_validations: bool = False


@dataclasses.dataclass(kw_only=True)
class AtomicityOptions(Options):
    """No effect: every commit is atomic, and durable when it has returned."""

    mode: object = None
    allow_legacy_atomic_rename: bool = False


@dataclasses.dataclass(kw_only=True)
class PyTreeOptions(Options):
    """Trees.

    Attributes
    ----------
    saving, loading
        See there.
    """

    @dataclasses.dataclass(kw_only=True)
    class Saving(Options):
        """No effect: tuples, named tuples and other containers are always stored as what they are.
        """

        pytree_metadata_options: object = None

    @dataclasses.dataclass(kw_only=True)
    class Loading(Options):
        """Attributes
        ----------
        partial_load : bool
            Read only what the target has. Without it, a leaf of the checkpoint that the target has
            not is an error. A leaf of the target that the checkpoint has not is one in any case.
        """

        partial_load: bool = False

    saving: Saving = dataclasses.field(default_factory=Saving)
    loading: Loading = dataclasses.field(default_factory=Loading)


@dataclasses.dataclass(kw_only=True)
class ArrayStorageOptions(Options):
    """How arrays are stored.

    Attributes
    ----------
    dtype : dtype-like, optional
        Arrays are cast to it on the way to the store. A cast that loses what the dtype stands for
        (float to integer, complex to real) is refused.
    chunk_byte_size : int, optional
        What is read, checked and shared as one, in bytes. Values outside 4 KiB to 16 MiB are taken
        as the nearer of these. None: 256 KiB.
    shard_axes : tuple of int, optional
        No effect: an array is stored in chunks of bytes, whatever its shape.
    compression : str, optional
        Not in Orbax. "auto", "none", "always" or "delta", for these arrays. None: "auto", or "none"
        where `use_compression` is False.
    share : bool, optional
        Not in Orbax. False: these arrays are stored again although the step before has them.
    """

    dtype: object = None
    chunk_byte_size: int | None = None
    shard_axes: tuple[int, ...] | None = None
    compression: str | None = None
    share: bool | None = None


class StorageOptionsCreator(Protocol):
    """See `ArrayOptions.Saving`."""

    def __call__(self, key: tuple[Any, ...], value: Any) -> ArrayStorageOptions | None: ...


@dataclasses.dataclass(kw_only=True)
class ArraySavingOptions(Options):
    """Arrays on their way to the store.

    Attributes
    ----------
    storage_options : ArrayOptions.Saving.StorageOptions
        For all arrays.
    scoped_storage_options_creator : callable, optional
        Called as `creator(key_path, leaf)` for every leaf of a tree. What it returns decides about
        that leaf, except for fields that are None: there `storage_options` does. The key path is a
        tuple of jax's keys (`DictKey` and so on) where jax is imported, and of plain strings and
        integers elsewhere.
    use_compression : bool
        False: chunks are stored as they are. True: where it makes them shorter.
    use_ocdbt, use_zarr3, ocdbt_target_data_file_size, enable_write_sharding_file,
    array_metadata_store
        No effect: there is one format, and it has none of these files.
    enable_pinned_host_transfer, use_replica_parallel, min_slice_bytes_for_replica_parallel,
    max_replicas_for_replica_parallel, enable_replica_parallel_separate_folder
        No effect: one process writes, from its own memory.
    enable_post_merge_validation
        No effect: what is read is always checked.
    """

    StorageOptions = ArrayStorageOptions
    ScopedStorageOptionsCreator = StorageOptionsCreator

    storage_options: ArrayStorageOptions = dataclasses.field(default_factory=ArrayStorageOptions)
    use_ocdbt: bool = True
    use_zarr3: bool = True
    use_compression: bool = True
    ocdbt_target_data_file_size: int | None = None
    enable_pinned_host_transfer: bool | None = None
    enable_post_merge_validation: bool = True
    use_replica_parallel: bool | None = None
    min_slice_bytes_for_replica_parallel: int | None = None
    max_replicas_for_replica_parallel: int | None = None
    enable_replica_parallel_separate_folder: bool = False
    enable_write_sharding_file: bool = True
    array_metadata_store: object = None
    scoped_storage_options_creator: StorageOptionsCreator | None = None


@dataclasses.dataclass(kw_only=True)
class BroadcastOptions(Options):
    """No effect: one process reads what it needs."""

    replica_axis_index: int | None = 0
    primary_replica_id: int | None = 0
    broadcast_memory_limit_bytes: int | None = None
    broadcast_memory_scaling_factor: float | None = 0.75


@dataclasses.dataclass(kw_only=True)
class ArrayLoadingOptions(Options):
    """Arrays on their way from the store.

    Attributes
    ----------
    mmap : bool or "unchecked"
        Not in Orbax. Leave arrays of a portable file where they are; see `load`.
    enable_padding_and_truncation : bool
        Where the stored shape is not the target's, zeros are added or elements dropped at the end
        of each axis. Without it, another shape is an error.
    raise_array_data_missing_error
        No effect: a committed checkpoint has all of its data, and bytes that are not those that
        were saved are an error.
    use_load_and_broadcast, load_and_broadcast_options
        No effect: one process reads.
    """

    LoadAndBroadcastOptions = BroadcastOptions

    mmap: Mmap = False
    enable_padding_and_truncation: bool = False
    raise_array_data_missing_error: bool = True
    use_load_and_broadcast: bool = False
    load_and_broadcast_options: BroadcastOptions = dataclasses.field(
        default_factory=BroadcastOptions
    )


@dataclasses.dataclass(kw_only=True)
class ArrayOptions(Options):
    """Arrays, and what is like one.

    Attributes
    ----------
    saving : ArrayOptions.Saving
    loading : ArrayOptions.Loading
    """

    Saving = ArraySavingOptions
    Loading = ArrayLoadingOptions

    saving: ArraySavingOptions = dataclasses.field(default_factory=ArraySavingOptions)
    loading: ArrayLoadingOptions = dataclasses.field(default_factory=ArrayLoadingOptions)


def _global_registry() -> CheckpointableHandlerRegistry:
    from stepstone.checkpointables import ReadOnlyCheckpointableHandlerRegistry, global_registry

    return ReadOnlyCheckpointableHandlerRegistry(global_registry())


@dataclasses.dataclass(kw_only=True)
class CheckpointablesOptions(Options):
    """Objects of several kinds in one checkpoint.

    Attributes
    ----------
    registry : CheckpointableHandlerRegistry
        Decides which handler saves and loads which object. By default the global one.
    """

    registry: CheckpointableHandlerRegistry = dataclasses.field(default_factory=_global_registry)


@dataclasses.dataclass(kw_only=True)
class PathwaysOptions(Options):
    """No effect: there is no Pathways backend."""

    checkpointing_impl: object = None


@dataclasses.dataclass(kw_only=True)
class DeletionOptions(Options):
    """No effect: there is no object store that a deleted checkpoint could be moved within."""

    @dataclasses.dataclass(kw_only=True)
    class GcsDeletionOptions(Options):
        """No effect, as all of `DeletionOptions`."""

        todelete_full_path: str | None = None

    gcs_deletion_options: GcsDeletionOptions = dataclasses.field(
        default_factory=GcsDeletionOptions
    )


@dataclasses.dataclass(kw_only=True)
class MemoryOptions(Options):
    """No effect: a save needs one copy of what the caller may change, none of what nobody can, and
    buffers of a fixed size; a load reads into the memory of its result."""

    write_concurrent_bytes: int | None = None
    read_concurrent_bytes: int | None = None
    transfer_concurrent_bytes: int | None = None
    regulator_options: object = None
    expected_surge_bytes: float | None = None
    is_prioritized_key_fn: Callable[..., bool] | None = None
    serialization_status_callback: object = None
    deepcopy_host_arrays: bool = True


@dataclasses.dataclass(kw_only=True)
class SafetensorsOptions(Options):
    """No effect: see `CheckpointLayout.SAFETENSORS`."""

    max_over_read_ratio: float | None = None
    read_chunk_bytes: int | None = None


class CheckpointLayout(enum.Enum):
    """The format of what is loaded.

    ORBAX and AUTO both mean Stepstone's own. SAFETENSORS is known by name, and refused by every
    save and load that meets it: read such a file with safetensors itself, and save what it gives.
    """

    ORBAX = "orbax"
    SAFETENSORS = "safetensors"
    AUTO = "auto"
