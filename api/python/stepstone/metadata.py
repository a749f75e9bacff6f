"""What a checkpoint says without its arrays being read.

`CheckpointManager.metadata(step)` and `Checkpointer.metadata(path)` give a `StepMetadata`. A tree
that was saved is described by a `TreeMetadata`: the same tree, with an `ArrayMetadata`,
`ScalarMetadata`, `StringMetadata` or `BytesMetadata` in the place of each leaf. It can be the
target of a restore.

Shardings are not stored: an array is whole in a checkpoint, and goes wherever a target says.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from stepstone import _held, _json, _native
from stepstone._paths import PathLike
from stepstone._step_statistics import SaveStepStatistics
from stepstone._tree import flatten_with_paths, from_native, map_structure

__all__ = [
    "ArrayMetadata",
    "BytesMetadata",
    "Metadata",
    "RootMetadata",
    "ScalarMetadata",
    "StepMetadata",
    "StorageMetadata",
    "StringMetadata",
    "TreeMetadata",
    "get_step_metadata",
    "tree_metadata",
]


def __getattr__(name: str) -> Any:
    # Orbax has the classes in two modules of these names, too.
    if name in ("tree", "value"):
        return sys.modules[__name__]
    raise AttributeError(f"module 'stepstone.metadata' has no attribute '{name}'")


@dataclasses.dataclass
class StepMetadata:
    """What is known of a step, or of a checkpoint at a path.

    Parameters
    ----------
    item_handlers : dict of str to str, or str
        By item, the handler that saved it. Of a checkpoint of one object at a path, its own.
    item_metadata : Composite or object
        By item, what its handler tells of it: of trees, TreeMetadata. Of one object, its own.
    metrics : dict
        What was given to the save; empty: nothing was.
    performance_metrics : SaveStepStatistics
        Empty: a manager's `logger` is told how long a save took.
    init_timestamp_nsecs, commit_timestamp_nsecs : int
        When its save began and when it became durable, in nanoseconds since 1970.
    custom_metadata : dict
        What was given to the save.
    """

    item_handlers: dict[str, str] | str | None = None
    item_metadata: Any = None
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    performance_metrics: SaveStepStatistics = dataclasses.field(default_factory=SaveStepStatistics)
    init_timestamp_nsecs: int | None = None
    commit_timestamp_nsecs: int | None = None
    custom_metadata: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class RootMetadata:
    """What is known of a run.

    Parameters
    ----------
    internal_metadata : dict
        Empty.
    custom_metadata : dict
        What was given to the first `CheckpointManager` of the directory as `metadata`.
    """

    internal_metadata: dict[str, Any] | None = dataclasses.field(default_factory=dict)
    custom_metadata: dict[str, Any] | None = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class StorageMetadata:
    """How an array is stored.

    Parameters
    ----------
    chunk_shape : tuple of int
        The array's own shape: chunks are ranges of its bytes, and do not follow its axes.
    write_shape : tuple of int, optional
        None: an array is written whole.
    chunk_size_bytes : int
        How much is hashed, compressed and read at a time.
    stored_bytes : int
        What the array takes on disk, without what it shares with other steps or leaves.
    """

    chunk_shape: tuple[int, ...] | None
    write_shape: tuple[int, ...] | None = None
    chunk_size_bytes: int | None = dataclasses.field(default=None, compare=False)
    stored_bytes: int | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(eq=False)
class Metadata:
    """What is known of a leaf; equal to another of its class that says the same of the value.

    Parameters
    ----------
    name : str
        The leaf's path, as it is shown: "params/dense/w".
    directory : pathlib.Path, optional
        None: a leaf has no directory.
    """

    name: str
    directory: pathlib.Path | None

    def _compared(self) -> tuple[object, ...]:
        return ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Metadata):
            return NotImplemented
        return type(self) is type(other) and self._compared() == other._compared()

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass(eq=False)
class ArrayMetadata(Metadata):
    """What is known of an array.

    Parameters
    ----------
    shape : tuple of int
        Its shape.
    sharding : None
        Not stored, see the module.
    dtype : numpy.dtype
        Also one of ml_dtypes.
    storage : StorageMetadata, optional
        How it is stored.
    """

    shape: tuple[int, ...]
    sharding: Any
    dtype: np.dtype[Any] | None
    storage: StorageMetadata | None = None

    @classmethod
    def from_shape_dtype_struct(
        cls, s: Any, name: str | None = None, directory: pathlib.Path | None = None
    ) -> Self:
        """Of anything with a shape, a dtype and perhaps a sharding, such as an abstract array."""
        return cls(
            name=name or "",
            directory=directory,
            shape=tuple(s.shape),
            sharding=getattr(s, "sharding", None),
            dtype=np.dtype(s.dtype),
        )

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def _compared(self) -> tuple[object, ...]:
        return (self.shape, self.sharding, self.dtype, self.storage)


@dataclasses.dataclass(eq=False)
class ScalarMetadata(ArrayMetadata):
    """What is known of a bool, int, float or complex of Python.

    Parameters
    ----------
    dtype : numpy.dtype
        bool, int64, float64 or complex128; object for an int that has more than 64 bits.
    """

    shape: tuple[int, ...] = ()
    sharding: Any = None
    dtype: np.dtype[Any] | None = None

    def _compared(self) -> tuple[object, ...]:
        return (self.dtype,)


@dataclasses.dataclass(eq=False)
class StringMetadata(Metadata):
    """What is known of a string: that it is one."""


@dataclasses.dataclass(eq=False)
class BytesMetadata(Metadata):
    """What is known of a leaf of bytes: that it is one."""


class TreeMetadata:
    """What is known of a tree, without its arrays having been read.

    It is indexed as the tree is, and a pytree for jax. As the target of a restore it stands for
    `tree`.

    Parameters
    ----------
    tree : tree of Metadata
        The containers as they were saved, with metadata for leaves; None stays None.
    custom_metadata : dict, optional
        What was given to the save of the item.
    use_zarr3 : bool
        False: the format is the store's own.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, stepstone as ocp
    >>> with ocp.CheckpointManager(tempfile.mkdtemp()) as manager:
    ...     _ = manager.save(0, args=ocp.args.StandardSave({"a": [np.zeros((2, 3)), 7]}))
    ...     metadata = manager.item_metadata(0)
    >>> metadata["a"][0].shape, metadata["a"][1].dtype
    ((2, 3), dtype('int64'))
    >>> metadata
    TreeMetadata
    └── a
        ├── 0  float64[2,3]  48 B
        └── 1  int
    """

    def __init__(
        self, tree: Any, custom_metadata: dict[str, Any] | None = None, use_zarr3: bool = False
    ) -> None:
        _register_with_jax()
        self._tree = tree
        self._custom_metadata = custom_metadata
        self._use_zarr3 = use_zarr3

    @property
    def tree(self) -> Any:
        """The tree of metadata alone."""
        return self._tree

    @property
    def custom_metadata(self) -> dict[str, Any] | None:
        """What was given to the save of the item."""
        return self._custom_metadata

    @property
    def use_zarr3(self) -> bool:
        """False: the format is the store's own."""
        return self._use_zarr3

    def __getitem__(self, key: Any) -> Any:
        return self._tree[key]

    def get(self, key: Any, default: Any = None) -> Any:
        """What stands under a key, or `default`."""
        try:
            return self._tree[key]
        except (KeyError, IndexError):
            return default

    def __contains__(self, key: object) -> bool:
        return key in self._tree

    def __iter__(self) -> Iterator[Any]:
        return iter(self._tree)

    def __len__(self) -> int:
        return len(self._tree)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TreeMetadata):
            return NotImplemented
        return bool(self._tree == other._tree) and self._custom_metadata == other._custom_metadata

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        from stepstone._display import tree_text

        return tree_text("TreeMetadata", self._tree)

    def _repr_html_(self) -> str:
        from stepstone._display import tree_html

        return tree_html("TreeMetadata", self._tree)

    def tree_flatten(self) -> tuple[tuple[Any, ...], Any]:
        """As jax's pytrees: the tree, and what is not part of it."""
        # As text, which can be compared and hashed.
        return (self._tree,), (json.dumps(self._custom_metadata), self._use_zarr3)

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, ...], Any]:
        """As `tree_flatten`, with the path to the tree."""
        from jax.tree_util import GetAttrKey

        children, rest = self.tree_flatten()
        return tuple((GetAttrKey("tree"), child) for child in children), rest

    @classmethod
    def tree_unflatten(cls, aux_data: Any, flat_tree: Any) -> TreeMetadata:
        """The inverse of `tree_flatten`."""
        custom_metadata, use_zarr3 = aux_data
        (tree,) = flat_tree
        return cls(tree, json.loads(custom_metadata), use_zarr3)


_is_registered_with_jax = False


def _register_with_jax() -> None:
    """Once jax is there: it is not imported because of this."""
    global _is_registered_with_jax
    tree_util: Any = sys.modules.get("jax.tree_util")
    if _is_registered_with_jax or tree_util is None:
        return
    _is_registered_with_jax = True
    tree_util.register_pytree_with_keys_class(TreeMetadata)


_SCALAR_DTYPES: dict[str, Any] = {
    "bool": np.bool_,
    "int": np.int64,
    "big_int": np.object_,
    "float": np.float64,
    "complex": np.complex128,
}


def _dtype(name: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except TypeError:  # One of ml_dtypes, which a restore needs as well.
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return found


def _leaf_metadata(leaf: _native.LeafMetadata) -> Metadata | None:
    if leaf.kind == "array" and leaf.dtype is not None:
        storage = StorageMetadata(
            chunk_shape=leaf.shape,
            chunk_size_bytes=leaf.chunk_size_bytes,
            stored_bytes=leaf.stored_bytes,
        )
        return ArrayMetadata(leaf.path, None, leaf.shape, None, _dtype(leaf.dtype), storage)
    if leaf.kind in _SCALAR_DTYPES:
        return ScalarMetadata(leaf.path, None, dtype=np.dtype(_SCALAR_DTYPES[leaf.kind]))
    if leaf.kind == "string":
        return StringMetadata(leaf.path, None)
    if leaf.kind == "bytes":
        return BytesMetadata(leaf.path, None)
    return None


def tree_metadata(item: _native.ItemMetadata) -> TreeMetadata:
    """The metadata of an item that is a tree.

    Parameters
    ----------
    item : _native.ItemMetadata
        What the library tells.
    """
    by_labels = {leaf.labels: _leaf_metadata(leaf) for leaf in item.leaves}
    tree = from_native(item.tree)
    paths = iter([labels for labels, _ in flatten_with_paths(tree)])
    described = map_structure(lambda _: by_labels[next(paths)], tree)
    custom = None if item.custom_metadata is None else _json.loads(item.custom_metadata)
    return TreeMetadata(described, custom)


def get_step_metadata(path: PathLike) -> StepMetadata:
    """The metadata of a checkpoint at a path: STORE/STEP, or a single checkpoint.

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    from stepstone._items import item_handler_names, item_metadata
    from stepstone.registry import HandlerRegistry

    with _held.opened(path) as (step, _):
        return step_metadata(step, item_handler_names(step), item_metadata(step, HandlerRegistry()))


def step_metadata(
    step: _native.Step, item_handlers: dict[str, str] | str, item_metadata: Any
) -> StepMetadata:
    """What is known of an open step.

    Parameters
    ----------
    step : _native.Step
        The step.
    item_handlers, item_metadata
        As of `StepMetadata`.
    """
    found = step.metadata()
    return StepMetadata(
        item_handlers=item_handlers,
        item_metadata=item_metadata,
        metrics=_json.loads(found.metrics or "{}"),
        init_timestamp_nsecs=found.init_timestamp_ns,
        commit_timestamp_nsecs=found.commit_timestamp_ns,
        custom_metadata=_json.loads(found.custom_metadata or "{}"),
    )
