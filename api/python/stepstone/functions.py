"""Checkpoints without objects: one call saves to a path, one loads from it.

>>> import numpy as np, tempfile
>>> from stepstone import v1 as ocp
>>> path = tempfile.mkdtemp() + "/checkpoint"
>>> ocp.save(path, {"w": np.arange(3), "step": 7})
>>> ocp.load(path)
{'w': array([0, 1, 2]), 'step': 7}
>>> ocp.load(path, {"w": np.zeros(3), "step": int})
{'w': array([0., 1., 2.]), 'step': 7}

Every call has a twin that returns at once and gives its result later; here the loads have, too.
What is given as `path` may be a checkpoint that was saved by one of these or by a checkpointer, and
for loading also a step of a run (`RUN/STEP`) or an item of either (`RUN/STEP/ITEM`, `PATH/ITEM`).
Options are those of the current `Context`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from stepstone import _held, _json, _native
from stepstone._background import AsyncResponse, PendingSave, in_background
from stepstone._deletion import delete, delete_async
from stepstone._files import as_path
from stepstone.checkpoint_metadata import CheckpointMetadata, PyTreeMetadata
from stepstone.checkpointables import (
    AUTO_NAME,
    RESERVED_NAMES,
    STATE_NAME,
    build_items,
    check_names,
    describe_item,
    is_tree_item,
    load_item,
)
from stepstone.context import Context, get_context
from stepstone.context_options import Mmap
from stepstone.errors import (
    InvalidArgumentError,
    InvalidLayoutError,
    NotFoundError,
    StepAlreadyExistsError,
)
from stepstone.registry import DEFAULT_ITEM

__all__ = [
    "AsyncResponse",
    "checkpointables_metadata",
    "delete",
    "delete_async",
    "is_checkpoint",
    "is_orbax_checkpoint",
    "is_stepstone_checkpoint",
    "load",
    "load_async",
    "load_checkpointables",
    "load_checkpointables_async",
    "load_pytree",
    "load_pytree_async",
    "metadata",
    "pytree_metadata",
    "save",
    "save_async",
    "save_checkpointables",
    "save_checkpointables_async",
    "save_pytree",
    "save_pytree_async",
]

PathLike = str | os.PathLike[str]


class MissingTreeError(InvalidLayoutError, KeyError):
    """A checkpoint has no tree of the name that was asked for."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # KeyError would show the message in quotes.


def save(
    path: PathLike,
    state: Any,
    *,
    checkpointable_name: str = STATE_NAME,
    overwrite: bool = False,
    custom_metadata: Mapping[str, Any] | None = None,
) -> None:
    """Saves a tree; when it returns, the checkpoint survives a power failure.

    Parameters
    ----------
    path : path-like
        A local path that is not inside a store. Directories above it are made.
    state : tree
        Arrays, scalars, strings and bytes in containers; see `stepstone.tree`.
    checkpointable_name : str
        The name of the tree in the checkpoint.
    overwrite : bool
        Replace the checkpoint at `path`, atomically: whatever happens, one of the two is there.
    custom_metadata : dict, optional
        Whatever JSON can hold; `metadata` gives it back.

    Raises
    ------
    ValueError
        A checkpoint is there (a StepAlreadyExistsError, which is a FileExistsError too), or
        something else is; `state` has a leaf that cannot be stored, which the message names.
    TypeError
        `custom_metadata` is no dict that JSON can hold.
    OSError
        The disk is full, or fails; what was at `path` is still there.
    """
    save_checkpointables(
        path,
        {checkpointable_name: state},
        overwrite=overwrite,
        custom_metadata=custom_metadata,
    )


def save_async(
    path: PathLike,
    state: Any,
    *,
    checkpointable_name: str = STATE_NAME,
    overwrite: bool = False,
    custom_metadata: Mapping[str, Any] | None = None,
) -> AsyncResponse[None]:
    """As `save`, but writes in the background.

    Returns when what the caller may change has been copied. Errors that are found until then are
    raised, later ones by the response's `result()`. The interpreter does not end before the save.

    Returns
    -------
    AsyncResponse
    """
    return save_checkpointables_async(
        path,
        {checkpointable_name: state},
        overwrite=overwrite,
        custom_metadata=custom_metadata,
    )


def save_checkpointables(
    path: PathLike,
    checkpointables: Mapping[str, Any],
    *,
    overwrite: bool = False,
    custom_metadata: Mapping[str, Any] | None = None,
) -> None:
    """Saves several objects, which can be loaded one by one.

    Parameters
    ----------
    checkpointables : dict of str to object
        Trees, protocol buffers' messages, objects with `save(directory)` and `load(directory)`, and
        whatever a registered `CheckpointableHandler` can save.

    Others are those of `save`.

    Raises
    ------
    NoEntryError
        No handler can save an object. A KeyError.
    ValueError
        As `save`; a name is reserved; an object is None.
    """
    with _naming_overwrite(path):
        _native.save_checkpoint(
            os.fspath(path),
            build_items(checkpointables),
            is_single=False,
            force=overwrite,
            **_save_options(path, custom_metadata),
        )


def save_checkpointables_async(
    path: PathLike,
    checkpointables: Mapping[str, Any],
    *,
    overwrite: bool = False,
    custom_metadata: Mapping[str, Any] | None = None,
) -> AsyncResponse[None]:
    """As `save_checkpointables`, but writes in the background, as `save_async`."""
    return begin_save(
        path, build_items(checkpointables), overwrite=overwrite, custom_metadata=custom_metadata
    )


def load(
    path: PathLike,
    abstract_state: Any = None,
    *,
    checkpointable_name: str | None = AUTO_NAME,
    mmap: Mmap | None = None,
) -> Any:
    """Loads a tree.

    Parameters
    ----------
    path : path-like
        See the module.
    abstract_state : tree or CheckpointMetadata, optional
        The target: its containers are those of the result, and its leaves say what each becomes.
        An array, or anything with a shape and a dtype, an array of the same shape, cast to the
        dtype; `jax.ShapeDtypeStruct` a `jax.Array` with its sharding; int, float, str and so on, as
        types or values, that type; `...` is not read, and comes back. Without a target: as it was
        saved.
    checkpointable_name : str or None
        Which tree. "AUTO": "state" if there is one, else the first by name. None: that of a
        checkpoint that was saved as one object, or that `path` names.
    mmap : bool or "unchecked", optional
        True: arrays of a portable file (`*.stone`) stay in it, mapped, and cost no memory of their
        own; each is compared with its hash now, and so read once. "unchecked": not even that, and
        damage is not noticed. All arrays of the result are read-only then, also those that have to
        be read as ever: from a store, compressed, cast, of less than 8 bits an element. Tensors of
        torch are copies, since they cannot be read-only. None: what the Context says
        (`array.loading.mmap`), which is False by default.

    Raises
    ------
    InvalidLayoutError
        There is no checkpoint, or no such tree in it. A FileNotFoundError and a ValueError.
    ValueError
        It does not fit the target: the message lists the leaves. Stored bytes are damaged.
    TypeError
        The target has a leaf that nothing can be restored into.
    """
    check_loadable_name(checkpointable_name)
    with _mapping(mmap), opened(path) as (step, item):
        return load_item(
            step, tree_name(step, item, checkpointable_name), target_of(abstract_state)
        )


def load_async(
    path: PathLike,
    abstract_state: Any = None,
    *,
    checkpointable_name: str | None = AUTO_NAME,
    mmap: Mmap | None = None,
) -> AsyncResponse[Any]:
    """As `load`, on a thread of its own. Every error is raised by the response's `result()`."""
    return in_background(
        lambda: load(path, abstract_state, checkpointable_name=checkpointable_name, mmap=mmap),
        f"loading {os.fspath(path)}",
    )


def load_checkpointables(path: PathLike, abstract_checkpointables: Any = None) -> dict[str, Any]:
    """Loads several objects.

    Parameters
    ----------
    path : path-like
        See the module.
    abstract_checkpointables : dict of str to object, or CheckpointMetadata, optional
        The names of those to load, each with what it is loaded into: a target of a tree, the class
        of a message, the object that loads itself; None: as it was saved. Without it, all.

    Returns
    -------
    dict of str to object

    Raises
    ------
    ItemNotFoundError
        The checkpoint has no object of a name. A KeyError.
    NoEntryError
        No handler can load an object. A KeyError.
    InvalidLayoutError, ValueError
        As `load`.
    """
    with opened(path) as (step, item):
        if item is not None:
            raise InvalidLayoutError(
                f"{os.fspath(path)} is one item of a checkpoint: load the checkpoint above it, or "
                "use `load`"
            )
        return load_items(step, target_of(abstract_checkpointables))


def load_checkpointables_async(
    path: PathLike, abstract_checkpointables: Any = None
) -> AsyncResponse[dict[str, Any]]:
    """As `load_checkpointables`, on a thread of its own; see `load_async`."""
    return in_background(
        lambda: load_checkpointables(path, abstract_checkpointables),
        f"loading {os.fspath(path)}",
    )


def metadata(
    path: PathLike, checkpointable_name: str | None = AUTO_NAME
) -> CheckpointMetadata[PyTreeMetadata]:
    """What is known of a tree: shapes, dtypes, when it was saved. Reads no arrays.

    Parameters
    ----------
    path, checkpointable_name
        As `load`.

    Returns
    -------
    CheckpointMetadata
        Its `metadata` is the tree with the metadata of a leaf in each leaf's place.
    """
    check_loadable_name(checkpointable_name)
    with opened(path) as (step, item):
        found = describe_item(step, tree_name(step, item, checkpointable_name))
        return CheckpointMetadata(as_path(os.fspath(path)), metadata=found, **step_facts(step))


def checkpointables_metadata(path: PathLike) -> CheckpointMetadata[dict[str, Any]]:
    """As `metadata`, of all objects by name. Those that nothing is known of have None."""
    with opened(path) as (step, item):
        names = step.item_handlers() if item is None else [item]
        found = {name: describe_item(step, name) for name in names}
        return CheckpointMetadata(as_path(os.fspath(path)), metadata=found, **step_facts(step))


def is_checkpoint(path: PathLike) -> bool:
    """Whether there is a checkpoint of Stepstone: saved to this path, or a step of a run.

    An empty directory is none, and neither is one in which a first save was interrupted.
    """
    try:
        step, item = _native.open_checkpoint(os.fspath(path))
    except (NotFoundError, InvalidArgumentError):
        return False
    step.release()
    return item is None


is_stepstone_checkpoint = is_checkpoint
# Programs written for Orbax ask for its name; of its files this says False.
is_orbax_checkpoint = is_checkpoint


def begin_save(
    path: PathLike,
    items: list[_native.SaveItem],
    *,
    overwrite: bool = False,
    custom_metadata: Mapping[str, Any] | None = None,
) -> PendingSave:
    """Saves items in the background, as the current Context says."""
    with _naming_overwrite(path):
        pending = _native.save_checkpoint_async(
            os.fspath(path),
            items,
            is_single=False,
            force=overwrite,
            **_save_options(path, custom_metadata),
        )
    asynchronous = get_context().asynchronous
    response = PendingSave(pending, asynchronous.timeout_secs)
    if (callback := asynchronous.post_finalization_callback) is not None:
        response.on_complete(lambda _: callback())
    return response


@contextlib.contextmanager
def _naming_overwrite(path: PathLike) -> Iterator[None]:
    """Gives the error for a path that is taken the words of these functions."""
    try:
        yield
    except StepAlreadyExistsError as error:
        raise StepAlreadyExistsError(
            f"{os.fspath(path)} holds a checkpoint already: choose another path, or set overwrite"
        ) from error


def _save_options(path: PathLike, custom_metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    context = get_context()
    context.check_layout()
    return {
        "custom_metadata": _json.custom_metadata(custom_metadata, os.fspath(path)),
        "storage": context.storage(),
    }


@contextlib.contextmanager
def _mapping(mmap: Mmap | None) -> Iterator[None]:
    """The current Context, with another `array.loading.mmap` unless that is None."""
    if mmap is None:
        yield
        return
    context = Context(get_context())
    context.array.loading.mmap = mmap
    with context:
        yield


@contextlib.contextmanager
def opened(path: PathLike) -> Iterator[tuple[_native.Step, str | None]]:
    """The checkpoint at a path, and the item that the path names."""
    get_context().check_layout()
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(_held.opened(path))
        except (NotFoundError, InvalidArgumentError) as error:
            raise InvalidLayoutError(str(error)) from error
        yield found


def check_loadable_name(name: str | None) -> None:
    """ValueError unless a tree can have this name, or it is one of those with a meaning."""
    if name is not None and name != AUTO_NAME:
        check_names({name: None})


def tree_name(step: _native.Step, item: str | None, wanted: str | None) -> str:
    """The item that `load` loads, where the path names `item` and the caller wants `wanted`.

    Raises
    ------
    InvalidLayoutError
        There is none.
    """
    names = step.item_handlers()
    if item is None and step.is_single and wanted in (None, AUTO_NAME, STATE_NAME):
        item = DEFAULT_ITEM
    if item is not None and wanted in (None, AUTO_NAME, item, STATE_NAME) and item in names:
        return item
    if item is None and wanted == AUTO_NAME:
        trees = sorted(name for name, recorded in names.items() if is_tree_item(recorded))
        if trees:
            return STATE_NAME if STATE_NAME in trees else trees[0]
    if item is None and wanted in names:
        return wanted
    if item is None and wanted is None:
        found = f"was not saved as one object: it has {sorted(names)}"
    elif wanted == AUTO_NAME:
        found = f"has no tree, only {names}"
    else:
        found = f"has no {wanted!r} there, only {[item] if item else sorted(names)}"
    raise MissingTreeError(f"the checkpoint {found}; say which with checkpointable_name")


def target_of(abstract: Any) -> Any:
    """The target in what a caller gave as one."""
    return abstract.metadata if isinstance(abstract, CheckpointMetadata) else abstract


def load_items(step: _native.Step, abstract: Any) -> dict[str, Any]:
    """What `load_checkpointables` returns."""
    if abstract is None:
        abstract = dict.fromkeys(
            name for name in sorted(step.item_handlers()) if name not in RESERVED_NAMES
        )
    elif not isinstance(abstract, Mapping):
        raise InvalidArgumentError(
            f"abstract_checkpointables have to be a dict, not {type(abstract).__name__}"
        )
    check_names(abstract)
    return {name: load_item(step, name, target) for name, target in abstract.items()}


def step_facts(step: _native.Step) -> dict[str, Any]:
    """What a CheckpointMetadata says besides `metadata`."""
    found = step.metadata()
    return {
        "init_timestamp_nsecs": found.init_timestamp_ns,
        "commit_timestamp_nsecs": found.commit_timestamp_ns,
        "custom_metadata": _json.loads(found.custom_metadata) if found.custom_metadata else {},
    }


def save_pytree(*args: Any, **kwargs: Any) -> None:
    """Deprecated: `save`."""
    _warn("save_pytree", "save")
    save(*args, **kwargs)


def save_pytree_async(*args: Any, **kwargs: Any) -> AsyncResponse[None]:
    """Deprecated: `save_async`."""
    _warn("save_pytree_async", "save_async")
    return save_async(*args, **kwargs)


def load_pytree(*args: Any, **kwargs: Any) -> Any:
    """Deprecated: `load`."""
    _warn("load_pytree", "load")
    return load(*args, **kwargs)


def load_pytree_async(*args: Any, **kwargs: Any) -> AsyncResponse[Any]:
    """Deprecated: `load_async`."""
    _warn("load_pytree_async", "load_async")
    return load_async(*args, **kwargs)


def pytree_metadata(*args: Any, **kwargs: Any) -> CheckpointMetadata[PyTreeMetadata]:
    """Deprecated: `metadata`."""
    _warn("pytree_metadata", "metadata")
    return metadata(*args, **kwargs)


def _warn(old: str, new: str) -> None:
    import warnings

    warnings.warn(f"{old} is deprecated: use {new}", DeprecationWarning, stacklevel=3)
