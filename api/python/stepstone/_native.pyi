"""What the C++ library gives to the package; nothing here is public.

Every call releases the GIL while it works. Every error is raised as the exception that the error
factory makes of it. Objects that hold an open store refuse to be used in a forked child.
"""

from collections.abc import Callable, Iterable, Sequence

Label = str | int
# A path from the root of an item ("params", 0, "w"), or a pattern of fnmatch(3) over paths as they
# are shown ("params/*/w").
Selector = tuple[Label, ...] | str

def set_error_factory(factory: Callable[[str, str], BaseException]) -> None:
    """`factory(code, message)`: code is "not_found", "already_exists", "mismatch", "invalid_argument",
    "limit", "corrupt", "io", "no_space", "permission_denied", "read_only", "busy", "closed", "unsupported"."""

def dtype_names() -> list[str]: ...

class Array:
    """Foreign memory with an array in it: what a hook returns for arrays that are not numpy's.

    `dtype` is numpy's or ml_dtypes' name; strides in bytes (None: C-contiguous). `owner` keeps the
    memory alive. `is_immutable`: nobody will ever write to it, so that a save in the background refers
    to it instead of copying it. Elements of 2 and 4 bits take one byte each here."""
    def __init__(self, dtype: str, shape: Sequence[int], pointer: int, strides: Sequence[int] | None,
                 owner: object, is_immutable: bool) -> None: ...

class AbstractArray:
    """In a target: an array of this dtype and shape goes here. In metadata: one is there."""
    def __init__(self, dtype: str, shape: Sequence[int]) -> None: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...

class Node:
    """What a hook returns for a container that is no dict, list or tuple.

    kind: "dict", "list", "tuple", "named_tuple" or "custom"; label_kind: "key" (dict), "index" (list,
    tuple), "attribute" (named_tuple), any of them for custom. `rebuild` makes the container from
    restored children in the order of `children`; only needed in targets."""
    def __init__(self, kind: str, type_name: str, label_kind: str, labels: Sequence[Label],
                 children: Sequence[object], rebuild: Callable[[list[object]], object] | None = None) -> None: ...

class Leaf:
    """What a hook returns for a leaf that needs finishing: `value` is anything that from_python takes as a
    leaf; `finish` makes the caller's kind of object of the restored value (a numpy array for arrays)."""
    def __init__(self, value: object, finish: Callable[[object], object]) -> None: ...

class Tree:
    @staticmethod
    def from_python(value: object, hook: Callable[[object], object]) -> Tree:
        """Takes None, bool, int (any size), float, complex, str, bytes, Ellipsis (placeholder), dict with str
        and int keys, list, tuple (exact types only), numpy.ndarray (exact type, native byte order, dtypes of
        dtype_names()) and numpy scalars of these dtypes (as arrays of rank 0) itself, and asks `hook(value)` about everything
        else: it returns Node, Leaf, Array, AbstractArray or any other value to be taken in its place, or
        raises. Errors of dict keys: ValueError naming the path."""
    def to_python(self, make_node: Callable[[str, str, str, list[Label], list[object]], object],
                  like: Tree | None = None) -> object:
        """With `like`, the target's Tree that this was restored into: containers and leaves of the kinds that
        the target had (numpy scalars, finish() and rebuild() of the hook's answers); leaves that were kept are the
        target's own objects. Without: dict, list, tuple, numpy.ndarray, Python scalars, AbstractArray,
        Ellipsis for leaves that were not read, and `make_node(kind, type_name, label_kind, labels, children)`
        for named tuples and custom nodes."""
    def leaf_paths(self) -> list[str]: ...
    @property
    def size_bytes(self) -> int: ...

class LeafSaveArgs:
    def __init__(self, *, dtype: str | None = None, allow_lossy_cast: bool = False, chunk_size_bytes: int | None = None,
                 compression: str | None = None, share: bool | None = None) -> None: ...

class LeafRestoreArgs:
    """`destination`: a writable, C-contiguous buffer of exactly the right size."""
    def __init__(self, *, skip: bool = False, slice: Sequence[tuple[int, int]] = (), dtype: str | None = None,
                 allow_lossy_cast: bool = False, shape: Sequence[int] | None = None, pad: bool = False,
                 truncate: bool = False, destination: object | None = None) -> None: ...

class Transform:
    """Values passed to value_fn and compute, and returned by them, are leaves as to_python gives them."""
    def __init__(self, pattern: str, *, original_path: str | None = None, use_fallback: bool = False,
                 value_fn: Callable[[object], object] | None = None, inputs: Sequence[str] = (),
                 compute: Callable[[list[object]], object] | None = None, is_path: bool = False) -> None: ...

class RestoreOptions:
    """As args::PyTreeRestore in C++. any_container: containers of another kind or type name fit a target's
    when their labels read the same (a list's position 0, a key "0" and an attribute "0"). pad_or_truncate:
    arrays whose shape differs are filled with zeros or cut at the end of each axis. lossy: every cast is
    allowed. map: "no", or "checked" or "unchecked": arrays of a portable file stay in it, and all arrays are
    read-only, whether they can be mapped or not."""
    def __init__(self, *, target: Tree | None = None, restore_args: Sequence[tuple[Selector, LeafRestoreArgs]] = (),
                 subtree: str = "", partial_restore: bool = False, keep_missing: bool = False,
                 transforms: Sequence[Transform] = (), transforms_default_to_original: bool = True,
                 any_container: bool = False, pad_or_truncate: bool = False, lossy: bool = False, map: str = "no") -> None: ...

class RestoreStatistics:
    step: int; leaf_count: int; size_bytes: int; thread_count: int
    read_s: float; cast_s: float; total_s: float

class SaveStatistics:
    step: int; leaf_count: int; size_bytes: int; staged_bytes: int; stored_bytes: int; shared_bytes: int
    staging_capacity_bytes: int; thread_count: int; is_async: bool
    wait_s: float; stage_s: float; stall_s: float; queue_s: float; write_s: float; commit_s: float; total_s: float

class Restored:
    tree: Tree
    kept: list[str]      # Paths whose target's own values were kept.
    dropped: list[str]   # Paths of the checkpoint that were not restored.
    statistics: RestoreStatistics

class LeafMetadata:
    path: str            # As it is shown: "params/dense/w".
    labels: tuple[Label, ...]
    kind: str            # "array", "none", "bool", "int", "big_int", "float", "complex", "string", "bytes"
    dtype: str | None
    shape: tuple[int, ...]
    size_bytes: int; stored_bytes: int; chunk_size_bytes: int

class ItemMetadata:
    handler: str
    custom_metadata: str | None  # JSON text.
    tree: Tree           # AbstractArray for arrays, empty values (0, 0.0, "") for other leaves; a target as it is.
    leaves: list[LeafMetadata]
    size_bytes: int; stored_bytes: int

class StepMetadata:
    step: int
    metrics: str | None; custom_metadata: str | None  # JSON text.
    init_timestamp_ns: int; commit_timestamp_ns: int; size_bytes: int

class Step:
    """A step that stays readable as long as this lives, whatever becomes of it. Thread-safe."""
    @property
    def step(self) -> int: ...
    @property
    def is_single(self) -> bool: ...   # Saved as one object: its only item is "default".
    def item_handlers(self) -> dict[str, str]: ...  # Item name -> the handler's name recorded with it.
    def restore(self, item: str, options: RestoreOptions | None = None) -> Restored: ...
    def item_metadata(self, item: str) -> ItemMetadata: ...
    def metadata(self) -> StepMetadata: ...
    def share(self) -> Step: ...  # Another one of the same step, to be released by itself.
    def release(self) -> None: ...      # Lets go now; every other call fails then ("closed"). Idempotent.

# One item of a save: its name, the handler's name to record, and a function that is called, on the thread
# that saves, if the save takes place at all; it returns the tree, options per leaf, and custom metadata of the item as JSON text.
# What it raises, save() raises.
# Instead of that it may return another function that returns it, which is then called by the thread that commits, when a save in the
# background is not waited for any more. What that one raises becomes the error of the save: an OSError "io" ("no_space", "permission_denied"),
# MemoryError "limit", all others "invalid_argument"; a save that is waited for raises the exception itself.
ItemContent = tuple[Tree, Sequence[tuple[Selector, LeafSaveArgs]], str | None]
SaveItem = tuple[str, str, Callable[[], ItemContent | Callable[[], ItemContent]]]

class StorageOptions:
    """compression: "auto", "none", "always" or "delta"; compression_rules: (pattern of paths, compression), the first that matches."""
    def __init__(self, *, compression: str = "auto", compression_rules: Sequence[tuple[str, str]] = (),
                 share: bool = True, recompress_older_than: int | None = None) -> None: ...

class CheckpointInfo:
    def __init__(self, step: int, time_ns: int, metrics: dict[str, object] | None) -> None: ...
    step: int; time_ns: int; metrics: dict[str, object] | None

class SavePolicy:
    def should_save(self, step: CheckpointInfo, previous_steps: Sequence[CheckpointInfo], is_saving_in_progress: bool,
                    reached_preemption: bool) -> bool: ...
def fixed_interval_policy(interval: int) -> SavePolicy: ...   # ValueError-like ("invalid_argument") for 0.
def specific_steps_policy(steps: Iterable[int]) -> SavePolicy: ...
def continuous_policy(minimum_interval_s: float | None) -> SavePolicy: ...
def preemption_policy() -> SavePolicy: ...
def initial_save_policy() -> SavePolicy: ...
def any_save_policy(policies: Sequence[SavePolicy]) -> SavePolicy: ...
def python_save_policy(decide: Callable[[CheckpointInfo, list[CheckpointInfo], bool, bool], bool]) -> SavePolicy: ...

class PreservationPolicy:
    def should_preserve(self, checkpoints: Sequence[CheckpointInfo], now_ns: int, saved_step: int | None) -> list[bool]: ...
def preserve_all() -> PreservationPolicy: ...
def latest_n(n: int | None) -> PreservationPolicy: ...
def newest() -> PreservationPolicy: ...
def every_n_seconds(interval_s: float) -> PreservationPolicy: ...
def every_n_steps(interval_steps: int, exact_interval: bool, max_to_keep: int | None) -> PreservationPolicy: ...
def every_n_steps_closest(interval_steps: int, max_to_keep: int | None) -> PreservationPolicy: ...
def custom_steps(steps: Iterable[int]) -> PreservationPolicy: ...
def latest_duration(duration_s: float) -> PreservationPolicy: ...
def best_n(get_metric: Callable[[dict[str, object]], float | None], reverse: bool, n: int | None, keep_checkpoints_without_metrics: bool,
           keep_newest: bool, metric_key: str | None) -> PreservationPolicy: ...
def any_preservation_policy(policies: Sequence[PreservationPolicy]) -> PreservationPolicy: ...
def python_preservation_policy(preserve: Callable[[list[CheckpointInfo], int, int | None], Sequence[bool]],
                               name: str) -> PreservationPolicy:
    """preserve(checkpoints, now_ns, saved_step). What it raises makes the save fail."""

class ManagerOptions:
    """As CheckpointManagerOptions in C++; every argument has its default."""
    def __init__(self, *, save_interval_steps: int = 1, save_on_steps: Iterable[int] = (),
                 should_save_fn: Callable[[int, int | None], bool] | None = None, save_policy: SavePolicy | None = None,
                 max_to_keep: int | None = None, keep_period: int | None = None, keep_time_interval_s: float | None = None,
                 best_fn: Callable[[dict[str, object]], float | None] | None = None, best_mode: str = "max",
                 keep_checkpoints_without_metrics: bool = True, preservation_policy: PreservationPolicy | None = None,
                 prevent_write_metrics: bool = False, step_prefix: str = "", step_format_fixed_length: int = 0,
                 create: bool = True, read_only: bool = False, is_async: bool = True, timeout_s: float | None = 1200.0,
                 post_finalization_callback: Callable[[], object] | None = None,
                 on_save: Callable[[SaveStatistics], object] | None = None, clock_ns: Callable[[], int] | None = None,
                 check_is_saving_in_progress: bool = True, save_root_metadata: bool = True, async_queue_size_bytes: int = 0,
                 staging_reserve_bytes: int = 0, preemption_signals: Sequence[int] = (), storage: StorageOptions | None = None,
                 progress: Callable[[int, int], object] | None = None) -> None: ...

class Manager:
    """Thread-safe. Waits can be interrupted by a signal's handler that raises (KeyboardInterrupt)."""
    def __init__(self, directory: str, options: ManagerOptions, metadata: str | None) -> None: ...
    @property
    def directory(self) -> str: ...
    def save(self, step: int, items: Sequence[SaveItem], *, is_single: bool, metrics: str | None = None, custom_metadata: str | None = None,
             force: bool = False, overwrite: bool = False) -> bool: ...
    def should_save(self, step: int) -> bool: ...
    def hold(self, step: int | None) -> Step: ...   # None: the newest. Waits for saves in the background.
    def hold_committed(self, step: int | None) -> Step: ...  # The same without waiting: for metadata.
    def latest_step(self) -> int | None: ...
    def best_step(self) -> int | None: ...
    def all_steps(self) -> list[int]: ...
    def step_name(self, step: int) -> str: ...
    def root_metadata(self) -> str | None: ...
    def metrics(self, step: int) -> str | None: ...
    def reload(self) -> None: ...
    def delete_step(self, step: int) -> None: ...
    def request_preemption(self) -> None: ...
    def reached_preemption(self, step: int) -> bool: ...
    def wait_until_finished(self, timeout_s: float | None = None) -> None: ...  # None: the options'.
    def check_for_errors(self) -> None: ...
    def is_saving_in_progress(self) -> bool: ...
    def saves_in_progress(self) -> list[CheckpointInfo]: ...
    def last_save_statistics(self) -> SaveStatistics | None: ...
    def close(self) -> None: ...

class PendingSave:
    @property
    def is_done(self) -> bool: ...
    def cancel(self) -> bool:
        """The path is to hold what it held before. False: too late, it is committed, or has failed. Else wait() raises "closed"."""
    def wait(self, timeout_s: float | None = None) -> None: ...  # Its error, every time; "busy": not done yet.

def save_checkpoint(path: str, items: Sequence[SaveItem], *, is_single: bool, force: bool = False, custom_metadata: str | None = None,
                    storage: StorageOptions | None = None, progress: Callable[[int, int], object] | None = None) -> None:
    """A single checkpoint at a path, atomic and durable when it returns."""
def save_checkpoint_async(path: str, items: Sequence[SaveItem], *, is_single: bool, force: bool = False, custom_metadata: str | None = None,
                          storage: StorageOptions | None = None, progress: Callable[[int, int], object] | None = None) -> PendingSave: ...
def open_checkpoint(path: str) -> tuple[Step, str | None]:
    """STORE, STORE/STEP, STORE/STEP/ITEM, STORE/ITEM; the second value is the item that the path names."""
def export_checkpoint(path: str, file: str, *, steps: Sequence[int] | None = None, items: Sequence[str] | None = None, subtree: str = "",
                      cast_floats: str | None = None, force: bool = False, compress: bool = False, share: bool = True,
                      progress: Callable[[int, int], object] | None = None) -> tuple[int, int, int, int]:
    """As export_checkpoint() in C++: counts of steps and leaves, bytes of the leaves, bytes of the file. progress(done, total) is called on
    some thread; what it raises is reported as unraisable."""
def list_steps(path: str) -> list[int]:
    """Of the store there, opened read-only (or shared, where this process has it open). "not_found": no store there."""

class Follower:
    """Looks for steps that another process, or this one, commits. Never waits."""
    def __init__(self, directory: str) -> None: ...
    def poll(self, lowest_step: int) -> Step | None: ...  # The newest step if it is at least this one.

class ScratchDirectory:
    """A directory of its own for a handler that writes files; gone with all that is in it when this is closed. `read` gives its files as
    a tree, which stays valid afterwards; `write` puts such a tree into it."""
    def __init__(self, parent: str | None = None) -> None: ...
    @property
    def path(self) -> str: ...
    def read(self) -> Tree: ...
    def write(self, tree: Tree) -> None: ...
    def close(self) -> None: ...
