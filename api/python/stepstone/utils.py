"""Names that Orbax has in `utils`: of other modules, where they belong, and a few of its own.

Those that read its files (`pytree_structure`, placeholders of aggregated files) are not there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from stepstone.multihost import (
    broadcast_one_to_all,
    is_primary_host,
    reached_preemption,
    sync_global_processes,
)
from stepstone.step import all_temporary_paths as tmp_checkpoints
from stepstone.step import (
    any_checkpoint_step,
    checkpoint_steps,
    checkpoint_steps_paths,
    get_save_directory,
    step_from_checkpoint_name,
)
from stepstone.step import is_path_finalized as is_checkpoint_finalized
from stepstone.step import is_path_temporary as is_tmp_checkpoint
from stepstone.tree import (
    deserialize_tree,
    from_flat_dict,
    is_empty_node,
    is_empty_or_leaf,
    serialize_tree,
    to_flat_dict,
    to_shape_dtype_struct,
)
from stepstone.tree import key_name as get_key_name
from stepstone.tree import str_keypath as tuple_path_from_keypath

__all__ = [
    "any_checkpoint_step",
    "broadcast_one_to_all",
    "checkpoint_steps",
    "checkpoint_steps_paths",
    "deserialize_tree",
    "from_flat_dict",
    "from_flattened_with_keypath",
    "get_key_name",
    "get_save_directory",
    "is_checkpoint_finalized",
    "is_dict_key",
    "is_empty_node",
    "is_empty_or_leaf",
    "is_gcs_path",
    "is_primary_host",
    "is_scalar",
    "is_sequence_key",
    "is_tmp_checkpoint",
    "reached_preemption",
    "serialize_tree",
    "step_from_checkpoint_name",
    "sync_global_devices",
    "sync_global_processes",
    "tmp_checkpoints",
    "to_flat_dict",
    "to_shape_dtype_struct",
    "tuple_path_from_keypath",
]

sync_global_devices = sync_global_processes


def is_gcs_path(path: str | os.PathLike[str]) -> bool:
    """Whether a path is one of Google's cloud storage, where no store can be.

    >>> is_gcs_path("gs://bucket/run"), is_gcs_path("/tmp/run")
    (True, False)
    """
    return os.fspath(path).startswith(("gs://", "/gcs/"))


def is_scalar(x: object) -> bool:
    """Whether it is a number, of Python or numpy, and no array.

    >>> is_scalar(1.5), is_scalar(np.zeros(()))
    (True, False)
    """
    return isinstance(x, (int, float, np.number))


def is_dict_key(key: object) -> bool:
    """Whether a key of one of jax's key paths is a dict's key or an attribute."""
    return type(key).__name__ in ("DictKey", "GetAttrKey")


def is_sequence_key(key: object) -> bool:
    """Whether a key of one of jax's key paths is a position."""
    return type(key).__name__ in ("SequenceKey", "FlattenedIndexKey")


def from_flattened_with_keypath(flat_with_keys: Sequence[tuple[tuple[Any, ...], Any]]) -> Any:
    """A tree of dicts and lists from what `jax.tree_util.tree_flatten_with_path` gives.

    Raises
    ------
    ValueError
        There is no leaf, or the paths are not those of one tree.
    """
    if not flat_with_keys:
        raise ValueError("there is no leaf: it cannot be told whether it was {} or []")
    if not flat_with_keys[0][0]:
        return flat_with_keys[0][1]
    by_key: dict[Any, list[tuple[tuple[Any, ...], Any]]] = {}
    kinds = set()
    for path, leaf in flat_with_keys:
        if not path:
            raise ValueError("a leaf at the root has no others beside it")
        if not is_dict_key(path[0]) and not is_sequence_key(path[0]):
            raise ValueError(f"{path[0]!r} is no key of a path in a tree")
        kinds.add(is_sequence_key(path[0]))
        by_key.setdefault(get_key_name(path[0]), []).append((path[1:], leaf))
    if len(kinds) > 1:
        raise ValueError(f"one container has both positions and keys: {list(by_key)}")
    if kinds == {True}:
        return [from_flattened_with_keypath(by_key[place]) for place in sorted(by_key)]
    return {name: from_flattened_with_keypath(below) for name, below in by_key.items()}
