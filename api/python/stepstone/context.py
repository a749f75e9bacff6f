"""Options of the newer style, set for a block of code instead of call by call.

A `Context` holds one options object per subject. Set what differs from the defaults, then enter it:

>>> context = Context()
>>> context.array.saving.storage_options.dtype = "bfloat16"
>>> with context:
...     get_context().array.saving.storage_options.dtype
'bfloat16'

Inside the block nothing of it can be changed, so that a save never sees half of a change. A context
belongs to the thread, or the asyncio task, that entered it; the threads of the package's own
`*_async` functions run in the context of their caller.

Every option of Orbax's newer style is here. Those about hosts that share one checkpoint, about
Orbax's file formats, and about memory that is bounded here by design have no effect; each says so.
"""

from __future__ import annotations

import contextvars
import dataclasses
import enum
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from stepstone import _native

if TYPE_CHECKING:
    from stepstone.checkpointables import CheckpointableHandlerRegistry

__all__ = [
    "ArrayOptions",
    "AsyncOptions",
    "AtomicityOptions",
    "CheckpointLayout",
    "CheckpointablesOptions",
    "Context",
    "DeletionOptions",
    "FileOptions",
    "MemoryOptions",
    "MultiprocessingOptions",
    "PathwaysOptions",
    "PyTreeOptions",
    "SafetensorsOptions",
    "get_context",
]


class _Options:
    """An options object, which cannot be changed while a context that holds it is entered."""

    def __setattr__(self, name: str, value: object) -> None:
        if self.__dict__.get("_entered", 0):
            raise RuntimeError(
                f"{type(self).__qualname__}.{name} cannot be changed inside the context that it "
                "belongs to: set it before the `with`, or enter a Context made from this one"
            )
        object.__setattr__(self, name, value)

    def _enter(self, count: int) -> None:
        self.__dict__["_entered"] = self.__dict__.get("_entered", 0) + count
        for value in self.__dict__.values():
            if isinstance(value, _Options):
                value._enter(count)


_OptionsT = TypeVar("_OptionsT", bound=_Options)


def _copy(cls: type[_OptionsT], source: object) -> _OptionsT:
    """Options of `cls` with the fields that `source` has, which may be Orbax's own object."""
    options = cls()
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        value = getattr(source, field.name, getattr(options, field.name))
        default = getattr(options, field.name)
        if isinstance(default, _Options):
            value = _copy(type(default), value)
        setattr(options, field.name, value)
    return options


@dataclasses.dataclass(kw_only=True)
class AsyncOptions(_Options):
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
class MultiprocessingOptions(_Options):
    """No effect: one process writes a store, and there is nobody to wait for."""

    primary_host: int | None = 0
    active_processes: set[int] | None = None
    barrier_sync_key_prefix: str | None = None


@dataclasses.dataclass(kw_only=True)
class FileOptions(_Options):
    """No effect: files have the permissions that the process's umask leaves, paths are local, and
    what stands at a path is always checked, which costs one look."""

    path_permission_mode: int | None = None
    path_class: type | None = None
    skip_sync_file_validations: bool = False


@dataclasses.dataclass(kw_only=True)
class AtomicityOptions(_Options):
    """No effect: every commit is atomic, and durable when it has returned."""

    mode: object = None
    allow_legacy_atomic_rename: bool = False


@dataclasses.dataclass(kw_only=True)
class PyTreeOptions(_Options):
    """Trees.

    Attributes
    ----------
    saving, loading
        See there.
    """

    @dataclasses.dataclass(kw_only=True)
    class Saving(_Options):
        """No effect: tuples, named tuples and other containers are always stored as what they are.
        """

        pytree_metadata_options: object = None

    @dataclasses.dataclass(kw_only=True)
    class Loading(_Options):
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
class ArrayStorageOptions(_Options):
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
class ArraySavingOptions(_Options):
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
class BroadcastOptions(_Options):
    """No effect: one process reads what it needs."""

    replica_axis_index: int | None = 0
    primary_replica_id: int | None = 0
    broadcast_memory_limit_bytes: int | None = None
    broadcast_memory_scaling_factor: float | None = 0.75


@dataclasses.dataclass(kw_only=True)
class ArrayLoadingOptions(_Options):
    """Arrays on their way from the store.

    Attributes
    ----------
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

    enable_padding_and_truncation: bool = False
    raise_array_data_missing_error: bool = True
    use_load_and_broadcast: bool = False
    load_and_broadcast_options: BroadcastOptions = dataclasses.field(
        default_factory=BroadcastOptions
    )


@dataclasses.dataclass(kw_only=True)
class ArrayOptions(_Options):
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
class CheckpointablesOptions(_Options):
    """Objects of several kinds in one checkpoint.

    Attributes
    ----------
    registry : CheckpointableHandlerRegistry
        Decides which handler saves and loads which object. By default the global one.
    """

    registry: CheckpointableHandlerRegistry = dataclasses.field(default_factory=_global_registry)


@dataclasses.dataclass(kw_only=True)
class PathwaysOptions(_Options):
    """No effect: there is no Pathways backend."""

    checkpointing_impl: object = None


@dataclasses.dataclass(kw_only=True)
class DeletionOptions(_Options):
    """No effect: there is no object store that a deleted checkpoint could be moved within."""

    @dataclasses.dataclass(kw_only=True)
    class GcsDeletionOptions(_Options):
        """No effect, as all of `DeletionOptions`."""

        todelete_full_path: str | None = None

    gcs_deletion_options: GcsDeletionOptions = dataclasses.field(
        default_factory=GcsDeletionOptions
    )


@dataclasses.dataclass(kw_only=True)
class MemoryOptions(_Options):
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
class SafetensorsOptions(_Options):
    """No effect: see `CheckpointLayout.SAFETENSORS`."""

    max_over_read_ratio: float | None = None
    read_chunk_bytes: int | None = None


class CheckpointLayout(enum.Enum):
    """The format of what is loaded.

    ORBAX and AUTO both mean Stepstone's own. SAFETENSORS is known by name, and refused by every save
    and load that meets it: read such a file with safetensors itself, and save what it gives.
    """

    ORBAX = "orbax"
    SAFETENSORS = "safetensors"
    AUTO = "auto"


# The names that Context's arguments have besides those of its attributes.
_SUBJECTS: dict[str, type[_Options]] = {
    "pytree": PyTreeOptions,
    "array": ArrayOptions,
    "asynchronous": AsyncOptions,
    "multiprocessing": MultiprocessingOptions,
    "file": FileOptions,
    "checkpointables": CheckpointablesOptions,
    "pathways": PathwaysOptions,
    "deletion": DeletionOptions,
    "memory": MemoryOptions,
    "safetensors": SafetensorsOptions,
    "atomicity": AtomicityOptions,
}


class Context(_Options):
    """All options, as a context manager.

    Parameters
    ----------
    context : Context, optional
        Where the options come from that are not given; they are copied. Without it every option has
        its default, also inside another context.
    pytree_options, array_options, async_options, multiprocessing_options, file_options, \
checkpointables_options, pathways_options, deletion_options, memory_options, safetensors_options, \
atomicity_options
        Options objects to copy; Orbax's own will do.
    checkpoint_layout : CheckpointLayout or str, optional

    Attributes
    ----------
    pytree, array, asynchronous, multiprocessing, file, checkpointables, pathways, deletion, memory, \
safetensors, atomicity
        The options objects. Setting one of their fields inside `with` is a RuntimeError.
    checkpoint_layout : CheckpointLayout
    """

    pytree: PyTreeOptions
    array: ArrayOptions
    asynchronous: AsyncOptions
    multiprocessing: MultiprocessingOptions
    file: FileOptions
    checkpointables: CheckpointablesOptions
    pathways: PathwaysOptions
    deletion: DeletionOptions
    memory: MemoryOptions
    safetensors: SafetensorsOptions
    atomicity: AtomicityOptions
    checkpoint_layout: CheckpointLayout

    def __init__(
        self,
        context: Context | None = None,
        *,
        pytree_options: object = None,
        array_options: object = None,
        async_options: object = None,
        multiprocessing_options: object = None,
        file_options: object = None,
        checkpointables_options: object = None,
        pathways_options: object = None,
        checkpoint_layout: CheckpointLayout | str | None = None,
        deletion_options: object = None,
        memory_options: object = None,
        safetensors_options: object = None,
        atomicity_options: object = None,
    ) -> None:
        given = {
            "pytree": pytree_options,
            "array": array_options,
            "asynchronous": async_options,
            "multiprocessing": multiprocessing_options,
            "file": file_options,
            "checkpointables": checkpointables_options,
            "pathways": pathways_options,
            "deletion": deletion_options,
            "memory": memory_options,
            "safetensors": safetensors_options,
            "atomicity": atomicity_options,
        }
        for name, cls in _SUBJECTS.items():
            source = given[name]
            if source is None and context is not None:
                source = getattr(context, name)
            super().__setattr__(name, cls() if source is None else _copy(cls, source))
        if checkpoint_layout is None and context is not None:
            checkpoint_layout = context.checkpoint_layout
        self.checkpoint_layout = checkpoint_layout or CheckpointLayout.ORBAX  # type: ignore[assignment]
        self.__dict__["_tokens"] = []

    def __setattr__(self, name: str, value: object) -> None:
        if name == "checkpoint_layout":
            # A string, or Orbax's own constant, will do.
            value = CheckpointLayout(getattr(value, "value", value))
        elif name in _SUBJECTS:
            raise AttributeError(f"set the fields of Context.{name}, not {name} itself")
        super().__setattr__(name, value)

    def __enter__(self) -> Self:
        self._tokens.append(_CURRENT.set(self))
        self._enter(1)
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._enter(-1)
        _CURRENT.reset(self._tokens.pop())

    def __repr__(self) -> str:
        changed = [
            f"{name}={getattr(self, name)!r}"
            for name, cls in _SUBJECTS.items()
            if name != "checkpointables" and getattr(self, name) != cls()
        ]
        if self.checkpoint_layout != CheckpointLayout.ORBAX:
            changed.append(f"checkpoint_layout={self.checkpoint_layout}")
        return f"Context({', '.join(changed)})"

    _tokens: list[contextvars.Token[Context | None]]

    def storage(self) -> _native.StorageOptions | None:
        """What the native module is told about storing whole checkpoints; None: the defaults."""
        return None if self.array.saving.use_compression else _native.StorageOptions(compression="none")

    def check_layout(self) -> None:
        """ValueError where a foreign format is asked for."""
        if self.checkpoint_layout == CheckpointLayout.SAFETENSORS:
            raise ValueError(
                "checkpoint_layout is SAFETENSORS, which Stepstone neither reads nor writes: load the "
                "file with safetensors.numpy.load_file, and save what it gives"
            )


_CURRENT: contextvars.ContextVar[Context | None] = contextvars.ContextVar(
    "stepstone_context", default=None
)


def get_context(default: Context | None = None) -> Context:
    """The context that was entered last.

    Parameters
    ----------
    default : Context, optional
        What is returned outside of all contexts. Without it: one with the defaults.
    """
    return _CURRENT.get() or default or Context()
