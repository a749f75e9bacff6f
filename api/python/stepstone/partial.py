"""Saving one checkpoint in parts, which are made durable one by one and read as one in the end.

>>> import numpy as np, tempfile
>>> import stepstone.v1 as ocp
>>> path = tempfile.mkdtemp() + "/checkpoint"
>>> ocp.partial.save(path, {"layers": {"first": np.arange(2)}})
>>> ocp.partial.save(path, {"layers": {"second": np.arange(3)}, "step": 7})
>>> ocp.is_orbax_checkpoint(path)
False
>>> ocp.partial.finalize(path)
>>> ocp.load(path)
{'layers': {'first': array([0, 1]), 'second': array([0, 1, 2])}, 'step': 7}

Parts are collected in `PATH.partial_save`, each a checkpoint of its own. `finalize` saves their
union beside them, removes them, and renames the union to `PATH`; interrupted anywhere, it is
finished by the next `finalize`. It holds the whole state in memory once.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from typing import Any

from stepstone import _json, _native
from stepstone._background import AsyncResponse
from stepstone._deletion import sync_directory
from stepstone.checkpointable_handlers import PyTreeHandler
from stepstone.checkpointables import STATE_NAME
from stepstone.errors import (
    NotFoundError,
    PartialSaveError,
    PartialSaveReplacementError,
    StepAlreadyExistsError,
)
from stepstone.functions import PathLike, begin_save, is_checkpoint

__all__ = ["PartialSaveError", "PartialSaveReplacementError", "finalize", "save", "save_async"]

_SUFFIX = ".partial_save"
_UNION = "union"

# The last part that this process has begun to save, by the path of the checkpoint: the next one has
# to see what is in it.
_last_part: dict[str, AsyncResponse[None]] = {}


def save(
    path: PathLike, state: Any, *, custom_metadata: Mapping[str, Any] | None = None
) -> None:
    """Adds to the checkpoint that will be at `path`; durable when it returns.

    Parameters
    ----------
    path : path-like
        Nothing may be there yet.
    state : tree
        What to add: a tree with dicts where it meets what was added before. See `stepstone.save`.
    custom_metadata : dict, optional
        Added to that of earlier parts; its values replace theirs.

    Raises
    ------
    PartialSaveReplacementError
        Both it and an earlier part have something at one place, other than dicts.
    PartialSaveError
        `finalize` has begun.
    FileExistsError
        There is something at `path`.
    ValueError, OSError
        As `stepstone.save`. Earlier parts are as they were.
    """
    save_async(path, state, custom_metadata=custom_metadata).result()


def save_async(
    path: PathLike, state: Any, *, custom_metadata: Mapping[str, Any] | None = None
) -> AsyncResponse[None]:
    """As `save`, but writes in the background; see `stepstone.save_async`.

    Waits for the part before, if that is still being saved. One process at a time may add parts.
    """
    session = _Session(path)
    session.check_target_is_free()
    if session.is_being_finalized():
        raise PartialSaveError(
            f"{session.path} is being finalized: call finalize again, nothing can be added any more"
        )
    session.wait_for_last_part()
    tree, leaf_args, _ = PyTreeHandler().to_tree(state)
    known = [_stored_tree(part, read=False) for part in session.parts()]
    _union([*known, tree.to_python(_Stored)], session.path)
    number = max((int(os.path.basename(part)) for part in session.numbered()), default=-1) + 1
    response = begin_save(
        os.path.join(session.directory, str(number)),
        [(STATE_NAME, PyTreeHandler.recorded, lambda: (tree, leaf_args, None))],
        custom_metadata=custom_metadata,
    )
    _last_part[session.path] = response
    return response


def finalize(path: PathLike) -> None:
    """Makes the checkpoint at `path` of all parts that were saved; atomic and durable.

    Parameters
    ----------
    path : path-like
        What was given to `save`, or the same with `.partial_save` behind it.

    Raises
    ------
    FileExistsError
        There is something at `path`.
    FileNotFoundError
        Nothing was saved for it.
    """
    session = _Session(path)
    session.wait_for_last_part()
    session.check_target_is_free()
    if not session.is_being_finalized():
        parts = session.parts()
        if not parts:
            raise NotFoundError(f"{session.directory}: no part of {session.path} was saved")
        _save_union(session.union, parts)
    for part in session.numbered():
        shutil.rmtree(part)
    os.rename(session.union, session.path)
    sync_directory(os.path.dirname(session.path))
    shutil.rmtree(session.directory)


class _Session:
    """The parts of a checkpoint that is not there yet."""

    def __init__(self, path: PathLike) -> None:
        self.path = os.path.abspath(path).removesuffix(_SUFFIX)
        self.directory = self.path + _SUFFIX
        self.union = os.path.join(self.directory, _UNION)

    def check_target_is_free(self) -> None:
        if os.path.lexists(self.path):
            raise StepAlreadyExistsError(
                f"{self.path} is there already: delete it, or choose another path"
            )

    def wait_for_last_part(self) -> None:
        last = _last_part.pop(self.path, None)
        if last is not None:
            last.result()

    def is_being_finalized(self) -> bool:
        """Whether the union is complete, which is all that counts from then on."""
        return is_checkpoint(self.union)

    def numbered(self) -> list[str]:
        """The directories of all parts, in their order, also of one whose save was interrupted."""
        try:
            names = [name for name in os.listdir(self.directory) if name.isdecimal()]
        except FileNotFoundError:
            return []
        return [os.path.join(self.directory, name) for name in sorted(names, key=int)]

    def parts(self) -> list[str]:
        """The directories of the parts that were saved."""
        return [part for part in self.numbered() if is_checkpoint(part)]


@dataclasses.dataclass
class _Stored:
    """A container other than a dict, list or tuple, taken apart."""

    kind: str
    type_name: str
    label_kind: str
    labels: list[_native.Label]
    children: list[object]

    def to_node(self) -> _native.Node:
        return _native.Node(
            self.kind, self.type_name, self.label_kind, self.labels, self.children
        )


def _stored_tree(part: str, *, read: bool) -> object:
    """The tree of a part, as Python objects; unless `read`, with metadata in place of arrays."""
    step, _ = _native.open_checkpoint(part)
    try:
        tree = step.restore(STATE_NAME).tree if read else step.item_metadata(STATE_NAME).tree
        return tree.to_python(_Stored)
    finally:
        step.release()


def _custom_metadata(part: str) -> dict[str, Any]:
    step, _ = _native.open_checkpoint(part)
    try:
        found = step.metadata().custom_metadata
        return dict(_json.loads(found)) if found else {}
    finally:
        step.release()


def _save_union(path: str, parts: list[str]) -> None:
    custom_metadata: dict[str, Any] = {}
    for part in parts:
        custom_metadata.update(_custom_metadata(part))
    union = _union([_stored_tree(part, read=True) for part in parts], path)
    tree = _native.Tree.from_python(union, _Stored.to_node)  # type: ignore[arg-type]
    begin_save(
        path,
        [(STATE_NAME, PyTreeHandler.recorded, lambda: (tree, (), None))],
        overwrite=True,
        custom_metadata=custom_metadata or None,
    ).close()


def _union(trees: list[object], path: str) -> object:
    """The trees as one; PartialSaveReplacementError where they meet in anything but dicts."""

    def merged(first: object, second: object, labels: tuple[object, ...]) -> object:
        if not isinstance(first, dict) or not isinstance(second, dict):
            place = "/".join(map(str, labels)) or "the root of the tree"
            raise PartialSaveReplacementError(
                f"{path}: an earlier part has something at {place!r} already, and a part can only "
                "add to dicts"
            )
        shared = [key for key in second if key in first]
        return {
            **first,
            **second,
            **{key: merged(first[key], second[key], (*labels, key)) for key in shared},
        }

    union = trees[0]
    for tree in trees[1:]:
        union = merged(union, tree, ())
    return union
