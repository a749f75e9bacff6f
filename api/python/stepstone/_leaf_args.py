"""From trees of `SaveArgs` and `RestoreArgs` to what the library takes, and what they ask for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from stepstone import _native
from stepstone._leaves import dtype_name as dtype_name
from stepstone._tree import (
    flatten_with_paths,
    from_native,
    leaf_label_paths,
    map_structure,
    to_native,
)
from stepstone.args import ArrayRestore, PyTreeRestore, StandardRestore
from stepstone.errors import InvalidArgumentError, UnsupportedError

_logger = logging.getLogger("stepstone")

# What the library takes as the size of a chunk.
_CHUNK_SIZE_MIN = 4 << 10
_CHUNK_SIZE_MAX = 16 << 20

LeafSaveArgs: TypeAlias = "list[tuple[_native.Selector, _native.LeafSaveArgs]]"
Labels = tuple[str | int, ...]


def is_save_args(value: object) -> bool:
    """Whether it is a `SaveArgs`, ours or Orbax's."""
    return any(base.__name__ == "SaveArgs" for base in type(value).__mro__)


def is_restore_args(value: object) -> bool:
    """Whether it is a `RestoreArgs` of any kind, ours or Orbax's."""
    return any(base.__name__ == "RestoreArgs" for base in type(value).__mro__)


def leaf_save_args(item: Any, save_args: Any, compression: str | None = None) -> LeafSaveArgs:
    """Options of leaves, in the form that a save takes.

    Parameters
    ----------
    item : tree
        What is saved.
    save_args : tree of SaveArgs, or None
        Of the structure of `item`; None at leaves without any.
    compression : str, optional
        For all leaves that say nothing about it.

    Raises
    ------
    ValueError
        There is something else among `save_args`, or they have a leaf that `item` has not.
    """
    found: LeafSaveArgs = []
    known: set[Labels] = set() if save_args is None else set(_nodes_of(leaf_label_paths(item)))
    for labels, args in flatten_with_paths(save_args, is_leaf=is_save_args):
        if args is None:
            continue
        if labels not in known:
            raise InvalidArgumentError(
                f"save_args have the leaf '{shown(labels)}', which the item has not"
            )
        if not is_save_args(args):
            raise InvalidArgumentError(
                f"leaf '{shown(labels)}': save_args have a {type(args).__name__}, not SaveArgs"
            )
        found.append((labels, _leaf_save_args(args, compression)))
    if compression is not None:
        found.append(("*", _native.LeafSaveArgs(compression=compression)))
    return found


def _leaf_save_args(args: Any, compression: str | None) -> _native.LeafSaveArgs:
    chunk_size = args.chunk_byte_size
    if chunk_size is not None:
        chunk_size = min(max(int(chunk_size), _CHUNK_SIZE_MIN), _CHUNK_SIZE_MAX)
    return _native.LeafSaveArgs(
        dtype=None if args.dtype is None else dtype_name(args.dtype),
        allow_lossy_cast=getattr(args, "allow_lossy_cast", False),
        chunk_size_bytes=chunk_size,
        compression=getattr(args, "compression", None) or compression,
        share=getattr(args, "share", None),
    )


def _nodes_of(paths: Iterable[Labels]) -> Iterator[Labels]:
    """The paths of leaves, and of all nodes above them."""
    for labels in paths:
        for depth in range(len(labels) + 1):
            yield labels[:depth]


def shown(labels: Labels) -> str:
    """A path for messages."""
    return "/".join(map(str, labels))


def restore_tree(step: _native.Step, item: str, args: Any) -> Any:
    """Restores a tree as `args` (or None) of one of the handlers for trees say."""
    if args is None:
        return from_native(step.restore(item).tree)
    if isinstance(args, StandardRestore):
        return _restore_standard(step, item, args)
    if isinstance(args, ArrayRestore):
        args = PyTreeRestore(args.item, args.restore_args)
    if not isinstance(args, PyTreeRestore):
        raise InvalidArgumentError(f"item '{item}' cannot be restored with {type(args).__name__}")
    return _PyTreeRestorer(step, item, args).restore()


def _restore_standard(step: _native.Step, item: str, args: StandardRestore) -> Any:
    if args.item is None:
        return from_native(step.restore(item).tree)
    target = args.item
    if args.fallback_sharding is not None:
        target = map_structure(lambda leaf: _with_sharding(leaf, args.fallback_sharding), target)
    native = to_native(target, target=True)
    options = _native.RestoreOptions(
        target=native, any_container=True, pad_or_truncate=not args.strict
    )
    return from_native(step.restore(item, options).tree, native)


def _with_sharding(leaf: Any, sharding: Any) -> Any:
    jax = sys.modules.get("jax")
    if jax is None or not isinstance(leaf, jax.ShapeDtypeStruct) or leaf.sharding is not None:
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


class _PyTreeRestorer:
    """One restore with `PyTreeRestore`.

    What the library can do (dtypes, shapes, partial restores) it is asked for; the kinds of objects
    that `restore_type` and `sharding` ask for are made of what it gives.
    """

    def __init__(self, step: _native.Step, item: str, args: PyTreeRestore) -> None:
        if args.legacy_transform_fn is not None:
            raise UnsupportedError(
                f"item '{item}': legacy_transform_fn works on Orbax's files; use `transforms`"
            )
        self._step = step
        self._item = item
        self._args = args
        # By path: options of leaves.
        self._leaf_args: dict[Labels, Any] = {}
        for labels, each in flatten_with_paths(args.restore_args, is_leaf=is_restore_args):
            if is_restore_args(each):
                self._leaf_args[_as_text(labels)] = each
            elif each is not None and each is not ...:
                raise InvalidArgumentError(
                    f"leaf '{shown(labels)}': restore_args have a {type(each).__name__}, "
                    "not RestoreArgs"
                )

    def restore(self) -> Any:
        args = self._args
        target = None
        if args.item is not None:
            target = to_native(self._target(), target=True)
        restored = self._step.restore(
            self._item,
            _native.RestoreOptions(
                target=target,
                restore_args=[
                    (labels, _leaf_restore_args(each)) for labels, each in self._given()
                ],
                subtree=args.subtree,
                partial_restore=args.partial_restore,
                keep_missing=args.keep_missing,
                transforms=self._transforms(),
                transforms_default_to_original=args.transforms_default_to_original,
                any_container=True,
            ),
        )
        if restored.kept:
            _logger.info("item '%s': kept, not in the checkpoint: %s", self._item, restored.kept)
        return self._finish(from_native(restored.tree, target))

    def _given(self) -> list[tuple[Labels, Any]]:
        """Options with paths as the library knows them: those of the target or the checkpoint."""
        if not self._leaf_args:
            return []
        if self._args.item is not None:
            paths = leaf_label_paths(self._args.item)
        else:
            paths = list(self._stored)
        # Options may stand at a node, such as a random key's, and are then for all leaves below it.
        known = {_as_text(labels): labels for labels in _nodes_of(paths)}
        for labels in self._leaf_args:
            if labels not in known:
                raise InvalidArgumentError(
                    f"step {self._step.step} item '{self._item}': restore_args have the leaf "
                    f"'{shown(labels)}', which the "
                    f"{'checkpoint' if self._args.item is None else 'target'} has not"
                )
        return [(known[labels], each) for labels, each in self._leaf_args.items()]

    @cached_property
    def _metadata(self) -> _native.ItemMetadata:
        return self._step.item_metadata(self._item)

    @cached_property
    def _stored(self) -> dict[Labels, _native.LeafMetadata]:
        """The leaves of the checkpoint below `subtree`, by their paths from there."""
        leaves = self._metadata.leaves
        if not self._args.subtree:
            return {leaf.labels: leaf for leaf in leaves}
        top = self._args.subtree
        depth = _depth_of(top)
        return {
            leaf.labels[depth:]: leaf
            for leaf in leaves
            if leaf.path == top or leaf.path.startswith((top + "/", top + "["))
        }

    def _transforms(self) -> list[_native.Transform]:
        if self._args.transforms is None:
            return []
        if self._args.item is None:
            raise InvalidArgumentError(
                f"item '{self._item}': transforms need an item, of the structure of the result"
            )
        from stepstone.transform import to_native_transforms

        return to_native_transforms(
            self._args.transforms,
            self._args.item,
            self._step.item_metadata(self._item),
            default_to_original=self._args.transforms_default_to_original,
            restore_args=self._args.restore_args,
        )

    def _target(self) -> Any:
        """The target, with arrays of numpy where options say what is made of them."""
        # Where leaves come from other places, each may be one whose own value is kept.
        if not self._leaf_args or self._args.transforms is not None:
            return self._args.item
        stored = {_as_text(labels): leaf for labels, leaf in self._stored.items()}
        paths = iter(flatten_with_paths(self._args.item))

        def target_of(leaf: Any) -> Any:
            labels = _as_text(next(paths)[0])
            args = self._leaf_args.get(labels)
            return leaf if args is None else _target_leaf(leaf, args, stored.get(labels))

        return map_structure(target_of, self._args.item)

    def _finish(self, value: Any) -> Any:
        if not self._leaf_args:
            return value
        paths = iter(flatten_with_paths(value))

        def finish(leaf: Any) -> Any:
            args = self._leaf_args.get(_as_text(next(paths)[0]))
            return leaf if args is None else _finished(leaf, args)

        return map_structure(finish, value)


def _depth_of(path: str) -> int:
    r"""How many labels a path has that is given as it is shown.

    >>> _depth_of("params/layers[0]/w"), _depth_of("[1]"), _depth_of(r"a\/b")
    (4, 1, 1)
    """
    depth = 0 if path.startswith("[") else 1
    is_escaped = False
    for character in path:
        if not is_escaped and character in "/[":
            depth += 1
        is_escaped = character == "\\" and not is_escaped
    return depth


def _as_text(labels: Labels) -> Labels:
    """Labels as they are compared: a list's position 0 and a key "0" are the same."""
    return tuple(map(str, labels))


def _sharding_of(args: Any) -> Any:
    sharding = getattr(args, "sharding", None)
    if sharding is not None:
        # Metadata of a sharding can be made into one.
        return sharding.to_jax_sharding() if hasattr(sharding, "to_jax_sharding") else sharding
    mesh, axes = getattr(args, "mesh", None), getattr(args, "mesh_axes", None)
    if mesh is None or axes is None:
        return None
    import jax

    return jax.sharding.NamedSharding(mesh, axes)


def _is_for_jax(args: Any) -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and args.restore_type is jax.Array


def _is_of_keys(dtype: Any) -> bool:
    """Whether it is a dtype of jax's random keys, which are restored as they were saved."""
    jax = sys.modules.get("jax")
    return jax is not None and bool(jax.dtypes.issubdtype(dtype, jax.dtypes.extended))


def _says_nothing(args: Any) -> bool:
    return args.restore_type is None and args.dtype is None and not hasattr(args, "global_shape")


def _leaf_restore_args(args: Any) -> _native.LeafRestoreArgs:
    is_strict = getattr(args, "strict", True)
    shape = getattr(args, "global_shape", None)
    return _native.LeafRestoreArgs(
        dtype=None if args.dtype is None or _is_of_keys(args.dtype) else dtype_name(args.dtype),
        allow_lossy_cast=getattr(args, "allow_lossy_cast", False),
        shape=None if shape is None else tuple(shape),
        pad=not is_strict,
        truncate=not is_strict,
    )


# In a target, for what is stored of each kind.
_STAND_INS: dict[str, Any] = {
    "none": None,
    "bool": bool,
    "int": int,
    "big_int": int,
    "float": float,
    "complex": complex,
    "string": str,
    "bytes": bytes,
}


def _target_leaf(leaf: Any, args: Any, stored: _native.LeafMetadata | None) -> Any:
    """What stands in the target for a leaf with options."""
    if leaf is ... or stored is None:
        return leaf
    if args.restore_type in (int, float, bool, str, complex, bytes):
        return args.restore_type
    source: Any = leaf
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
        # Where there are options, the leaf itself means nothing in Orbax, and may be any number.
        if stored.dtype is None:
            return _STAND_INS.get(stored.kind, leaf)
        source = stored
    elif _says_nothing(args):
        return leaf
    if _is_of_keys(source.dtype):
        return leaf
    shape = getattr(args, "global_shape", None)
    dtype = source.dtype if args.dtype is None else args.dtype
    shape = tuple(source.shape if shape is None else shape)
    return _native.AbstractArray(dtype_name(dtype), shape)


def _finished(leaf: Any, args: Any) -> Any:
    """The kind of object that options ask for."""
    kind = args.restore_type
    if leaf is ... or leaf is None or isinstance(leaf, (str, bytes)):
        return leaf
    if isinstance(leaf, (int, float, complex)) and args.dtype is not None:
        # The library casts arrays; a number becomes one of the dtype's values.
        cast = np.asarray(leaf).astype(numpy_dtype(args.dtype))
        leaf = cast if kind is not None and kind not in _NUMBERS else cast.item()
    if _is_for_jax(args):
        return _on_device(leaf, _sharding_of(args))
    if kind is np.ndarray:
        return np.asarray(leaf)
    if kind in _NUMBERS or (isinstance(kind, type) and issubclass(kind, np.generic)):
        return kind(leaf)
    return leaf


_NUMBERS = (int, float, bool, complex)


def numpy_dtype(dtype: Any) -> np.dtype[Any]:
    """A dtype of numpy from one of jax or torch, or from a name."""
    name = dtype_name(dtype)
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return found


def _on_device(value: Any, sharding: Any) -> Any:
    import jax

    if sharding is None:
        return value if isinstance(value, jax.Array) else jax.numpy.asarray(value)
    return jax.device_put(value, sharding)
