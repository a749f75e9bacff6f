"""Following a run from an evaluator, and arguments for restoring a tree.

An evaluator may be in the trainer's process or in another one. The step that it is given is held
while it works with it: it stays readable although the trainer retires it, and nothing is copied.

>>> import tempfile
>>> import stepstone as ocp
>>> directory = tempfile.mkdtemp()
>>> with ocp.CheckpointManager(directory) as trainer:
...     _ = trainer.save(3, args=ocp.args.StandardSave({"w": 1.5}))
>>> for step in checkpoints_iterator(directory, timeout=0):
...     print(step, ocp.StandardCheckpointer().restore(f"{directory}/{step}"))
3 {'w': 1.5}
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from stepstone import _held, _native
from stepstone._containers import map_structure
from stepstone._paths import PathLike
from stepstone.errors import InvalidArgumentError
from stepstone.metadata import TreeMetadata
from stepstone.step import NameFormat
from stepstone.type_handlers import PLACEHOLDER, ArrayRestoreArgs, RestoreArgs

__all__ = [
    "PLACEHOLDER",
    "checkpoints_iterator",
    "construct_restore_args",
    "wait_for_new_checkpoint",
]

_logger = logging.getLogger("stepstone")


def _wait(
    follower: _native.Follower,
    lowest_step: int,
    seconds_to_sleep: float,
    timeout: float | None,
    timeout_fn: Callable[[], bool] | None,
) -> _native.Step | None:
    """The newest step, once it is at least `lowest_step`; None: the wait was given up."""
    stop = None if timeout is None else time.monotonic() + timeout
    while True:
        step = follower.poll(lowest_step)
        if step is not None:
            return step
        if stop is not None and time.monotonic() + seconds_to_sleep > stop:
            if timeout_fn is None or timeout_fn():
                _logger.info("no checkpoint from step %d on within %s s", lowest_step, timeout)
                return None
        time.sleep(seconds_to_sleep)


@contextlib.contextmanager
def wait_for_new_checkpoint(
    checkpoint_dir: PathLike,
    *,
    until_step: int | None = None,
    seconds_to_sleep: float = 1,
    timeout: float | None = None,
    timeout_fn: Callable[[], bool] | None = None,
    step_prefix: str | None = None,
    step_format_fixed_length: int | None = None,
    step_name_format: NameFormat | None = None,
    snapshot_dir: PathLike | None = None,
    set_immutable: bool | None = None,
    ignore_snapshot_errors: bool | None = True,
) -> Iterator[int]:
    """Waits for a checkpoint, and holds it during the `with` block.

    Parameters
    ----------
    checkpoint_dir : path
        The store, which need not be there yet.
    until_step : int, optional
        The lowest step to wait for. None: any.
    seconds_to_sleep : float
        Between two looks.
    timeout : float, optional
        How long to wait at most, in seconds. None: for ever.
    timeout_fn : callable, optional
        Asked when that time is over, and again after each further look: whether to give up.
    step_prefix, step_format_fixed_length, step_name_format
        No effect: a step is found by its number, however it is called.
    snapshot_dir, set_immutable, ignore_snapshot_errors
        No effect: nothing is copied, and so nothing can be left behind.

    Yields
    ------
    int
        The newest step, or -1: the wait was given up.

    Raises
    ------
    OSError, ValueError
        The store cannot be read.
    """
    lowest_step = 0 if until_step is None else max(int(until_step), 0)
    follower = _native.Follower(os.fspath(checkpoint_dir))
    step = _wait(follower, lowest_step, seconds_to_sleep, timeout, timeout_fn)
    if step is None:
        yield -1
        return
    with _held.holding(checkpoint_dir, step):
        yield step.step


def checkpoints_iterator(
    checkpoint_dir: PathLike,
    *,
    min_interval_secs: float = 0,
    seconds_to_sleep: float = 1,
    timeout: float | None = None,
    timeout_fn: Callable[[], bool] | None = None,
    step_prefix: str | None = None,
    step_format_fixed_length: int | None = None,
    step_name_format: NameFormat | None = None,
    snapshot_dir: PathLike | None = None,
    set_immutable: bool | None = None,
    ignore_snapshot_errors: bool | None = True,
) -> Iterator[int]:
    """Checkpoints as they appear, the newest each time: those between are skipped.

    Parameters
    ----------
    checkpoint_dir : path
        The store, which need not be there yet.
    min_interval_secs : float
        At least so much time passes between two checkpoints, in seconds.
    seconds_to_sleep : float
        Between two looks.
    timeout : float, optional
        How long to wait for each checkpoint, in seconds. None: for ever.
    timeout_fn : callable, optional
        Asked when that time is over, and again after each further look: whether to end.
    step_prefix, step_format_fixed_length, step_name_format, snapshot_dir, set_immutable, \
ignore_snapshot_errors
        No effect, as in `wait_for_new_checkpoint`.

    Yields
    ------
    int
        A step, higher than the one before. It is held until the next one is asked for, or the
        iterator is closed.
    """
    follower = _native.Follower(os.fspath(checkpoint_dir))
    lowest_step = 0
    while True:
        step = _wait(follower, lowest_step, seconds_to_sleep, timeout, timeout_fn)
        if step is None:
            return
        begin = time.monotonic()
        lowest_step = step.step + 1
        with _held.holding(checkpoint_dir, step):
            yield step.step
        pause = begin + min_interval_secs - time.monotonic()
        if pause > 0:
            time.sleep(pause)


def construct_restore_args(
    target: Any,
    sharding_tree: Any = None,
    set_global_shape: bool = True,
    support_layout: bool = False,
    strict: bool = True,
) -> Any:
    """Arguments for restoring a tree into the kinds of leaves that another one has.

    Parameters
    ----------
    target : tree
        Of arrays, scalars, strings, `jax.ShapeDtypeStruct`, or metadata.
    sharding_tree : tree, optional
        Of the structure of `target`: where arrays of jax go. None: where those of `target` are.
    set_global_shape : bool
        Whether an array of jax has to have the target's shape.
    support_layout : bool
        Take the target's layouts along with its shardings.
    strict : bool
        False: an array of another shape is filled with zeros or cut.

    Returns
    -------
    tree of RestoreArgs
        Of the structure of `target`, for `args.PyTreeRestore(restore_args=...)`.

    Raises
    ------
    ValueError
        A leaf is of another kind.

    Examples
    --------
    >>> construct_restore_args({"w": np.zeros(2, np.float32)})["w"].dtype
    dtype('float32')
    """
    jax: Any = sys.modules.get("jax")

    def is_key(value: Any) -> bool:
        return jax is not None and bool(
            jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
        )

    def sharding_of(value: Any) -> Any:
        layout = getattr(value, "format", None) if support_layout else None
        if layout is not None and not callable(layout):
            return layout
        return getattr(value, "sharding", None)

    def array_args(value: Any, sharding: Any) -> RestoreArgs:
        return ArrayRestoreArgs(
            restore_type=None if jax is None else jax.Array,
            sharding=sharding,
            global_shape=tuple(value.shape) if set_global_shape and not is_key(value) else None,
            dtype=None if is_key(value) else value.dtype,
            strict=strict,
        )

    def args_of(value: Any, sharding: Any) -> RestoreArgs:
        if value is PLACEHOLDER:
            return RestoreArgs(restore_type=type(PLACEHOLDER))
        kinds = {base.__name__ for base in type(value).__mro__}
        for kind, restore_type in _RESTORED_AS.items():
            if kind in kinds:
                return RestoreArgs(restore_type=restore_type)
        if "ScalarMetadata" in kinds:
            return RestoreArgs(restore_type=_scalar_type(value.dtype))
        if jax is not None and isinstance(value, jax.Array):
            return array_args(value, sharding)
        if isinstance(value, np.ndarray):
            return RestoreArgs(restore_type=type(value), dtype=value.dtype)
        if isinstance(value, (bool, int, float, complex, str, bytes, np.generic, type(None))):
            return RestoreArgs(restore_type=None if value is None else type(value))
        if "ArrayMetadata" in kinds or "ShapeDtypeStruct" in kinds:
            if sharding is None:
                return RestoreArgs(restore_type=np.ndarray, dtype=value.dtype)
            return array_args(value, sharding)
        raise InvalidArgumentError(f"no leaf can be restored like a {type(value).__name__}")

    if isinstance(target, TreeMetadata):
        shardings = getattr(sharding_tree, "tree", sharding_tree)
        made = construct_restore_args(
            target.tree, shardings, set_global_shape, support_layout, strict
        )
        return TreeMetadata(made, target.custom_metadata)
    if sharding_tree is None:
        return map_structure(lambda value: args_of(value, sharding_of(value)), target)
    return map_structure(args_of, target, sharding_tree)


# Metadata by the names of its classes, which are those of Orbax's, too.
_RESTORED_AS: dict[str, type] = {"StringMetadata": str, "BytesMetadata": bytes}


def _scalar_type(dtype: Any) -> type | None:
    if dtype is None:
        return None
    return {"b": bool, "i": int, "u": int, "O": int, "f": float, "c": complex}.get(
        np.dtype(dtype).kind
    )
