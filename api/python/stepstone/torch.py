"""`save` and `load` in the place of `torch.save` and `torch.load`, for tensors and containers.

    import stepstone.torch
    stepstone.torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "run")
    checkpoint = stepstone.torch.load("run", map_location="cpu")

Nothing is pickled: what is not a tensor, an array, a plain value or a container of these is refused
when it is saved, by its path in the object, and loading runs no code of the checkpoint. A save is
atomic and durable, and everything that is read is checked against what was saved. The checkpoint is
a directory; its tree is an ordinary one, which `stepstone.load` reads as arrays of numpy.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from stepstone import _native
from stepstone._containers import leaf_label_paths, map_structure
from stepstone._nodes import CustomNode, special_nodes
from stepstone._tensors import Kinds, kinds_of, target_leaf
from stepstone._tree import from_native, to_native

__all__ = ["load", "save"]

PathLike = str | os.PathLike[str]

# In the custom metadata of the item.
_METADATA_KEY = "stepstone.torch"


def save(obj: object, f: PathLike, *, overwrite: bool = True) -> None:
    """Saves an object of tensors to a path.

    Parameters
    ----------
    obj : object
        Tensors (dense, of any device, dtype and strides), parameters, arrays and scalars of numpy,
        `torch.Generator`, None, bool, int, float, complex, str and bytes, in dicts with keys of str
        or int, lists, tuples, named tuples and dataclasses: what `state_dict()` gives of modules,
        optimizers and schedulers. Tensors on the CPU are not copied.
    f : path
        Where the checkpoint's directory is to be. Files and buffers are not taken.
    overwrite : bool
        Whether a checkpoint that is there is replaced, in one commit; else it is an error.

    Raises
    ------
    ValueError
        Something in `obj` cannot be stored. Names its path; nothing was written. Or
        (`StepAlreadyExistsError`) there is a checkpoint, or something else, at `f`.
    OSError
        Writing failed.

    Notes
    -----
    Tensors that share memory, such as tied weights and views, share it again when they are loaded,
    and an object that occurs twice is one object again, if it is a tensor. Each is stored with all
    of its elements, but equal ones take no more space than one. Strides are kept where a tensor is
    dense, that is where it has no element twice.
    """
    from stepstone.checkpointables import STATE_NAME

    path = _path_of(f)

    def content() -> tuple[_native.Tree, list[Any], str | None]:
        tree = to_native(obj)
        return tree, [], json.dumps({_METADATA_KEY: kinds_of(obj)})

    _native.save_checkpoint(
        path, [(STATE_NAME, "standard", content)], is_single=False, force=overwrite
    )


def load(
    f: PathLike, map_location: Any = None, *, weights_only: bool = True, mmap: bool | None = None
) -> Any:
    """Loads what `save` saved, or the tree of any other checkpoint.

    Parameters
    ----------
    f : path
        A checkpoint; also a step of a run (`RUN/STEP`) or an item of either (`RUN/STEP/ITEM`).
    map_location : str, torch.device, dict or callable, optional
        Where tensors are put, as in `torch.load`: a device; a dict from the device that they were
        on to another; or a function of a storage and the device's name, which returns a storage on
        the wanted device, or None. By default they come back where they were, or to the CPU if
        that device is not there.
    weights_only : bool
        No effect: no other objects than those of `save` are ever made.
    mmap : bool, optional
        No effect: elements are checked and, if need be, decompressed while they are read, by
        several threads, and land in the tensor's memory at once.

    Returns
    -------
    object
        Tensors are tensors and arrays of numpy are arrays, each in memory of its own unless it was
        shared when it was saved. In checkpoints that were not saved by `save`, all arrays become
        tensors. Containers are as `stepstone.load` makes them; an OrderedDict is one again.

    Raises
    ------
    FileNotFoundError
        There is no checkpoint.
    ValueError
        What is there is no checkpoint, is damaged, or has arrays of a dtype that torch has not.
    """
    from stepstone.checkpointables import AUTO_NAME
    from stepstone.functions import opened, tree_name

    path = _path_of(f)
    if os.path.isfile(path):
        raise ValueError(f"'{path}' is a file; what torch.save wrote, torch.load reads")
    with opened(path) as (step, item):
        name = tree_name(step, item, AUTO_NAME)
        metadata = step.item_metadata(name)
        kinds = Kinds(_recorded_kinds(metadata.custom_metadata), map_location)
        target = to_native(_target(metadata, kinds), target=True)
        restored = step.restore(name, _native.RestoreOptions(target=target))
        return from_native(restored.tree, target)


def _path_of(f: Any) -> str:
    if hasattr(f, "write") or hasattr(f, "read") or not isinstance(f, (str, os.PathLike)):
        raise TypeError(
            f"a checkpoint is a directory, and needs a path: str or os.PathLike, not a"
            f" {type(f).__name__}"
        )
    return os.fspath(f)


def _recorded_kinds(custom_metadata: str | None) -> list[Any] | None:
    if custom_metadata is None:
        return None
    with contextlib.suppress(ValueError, AttributeError):
        recorded = json.loads(custom_metadata).get(_METADATA_KEY)
        return recorded if isinstance(recorded, list) else None
    return None


def _target(metadata: _native.ItemMetadata, kinds: Kinds) -> Any:
    """The checkpoint's tree, with what is to become of its leaves."""
    leaves = iter(metadata.leaves)

    def target_of(value: Any) -> Any:
        if _is_special(value):
            for _ in leaf_label_paths(value):
                next(leaves)
            return value
        return target_leaf(next(leaves), value, kinds)

    skeleton = map_structure(target_of, from_native(metadata.tree), is_leaf=_is_special)
    return kinds.with_containers(skeleton)


def _is_special(value: Any) -> bool:
    """Whether it is a node with a meaning of its own, whose leaves are no tensors."""
    return isinstance(value, CustomNode) and value.type_name in special_nodes
