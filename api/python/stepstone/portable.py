"""Portable files: steps of a run, or a checkpoint, in one file that can be copied and mapped.

`save` and the checkpointers write one where the path ends in `.stone`, and everything that loads
takes one as a path: `x.stone`, `x.stone/STEP`, `x.stone/STEP/ITEM`. `export` makes one of what is
there already:

>>> import numpy as np, tempfile
>>> import stepstone as ocp
>>> run = tempfile.mkdtemp()
>>> with ocp.CheckpointManager(run) as manager:
...     _ = manager.save(7, args=ocp.args.StandardSave({"w": np.ones(4), "step": 7}))
...     report = manager.export(run + ".stone")
>>> report.step_count, report.leaf_count
(1, 2)
>>> weights = ocp.load(run + ".stone", mmap=True)["w"]  # Mapped, not copied.
>>> weights, weights.flags.writeable
(array([1., 1., 1., 1.]), False)
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from typing import Any, SupportsIndex

from stepstone import _native
from stepstone._leaves import dtype_name
from stepstone._paths import PathLike, check_step
from stepstone.errors import InvalidArgumentError

__all__ = ["ExportReport", "export"]

# (bytes written so far, bytes in all)
Progress = Callable[[int, int], object]


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What an export has written.

    Attributes
    ----------
    step_count, leaf_count : int
    size_bytes : int
        Of the leaves, as they are in the file.
    file_size_bytes : int
        Of the file: less, where steps share what they have in common, or it is compressed.
    """

    step_count: int
    leaf_count: int
    size_bytes: int
    file_size_bytes: int


def export(
    path: PathLike,
    file: PathLike,
    *,
    steps: SupportsIndex | Iterable[SupportsIndex] | None = None,
    items: str | Iterable[str] | None = None,
    subtree: str = "",
    cast_floats: Any = None,
    overwrite: bool = False,
    compress: bool = False,
    share: bool = True,
    progress: Progress | None = None,
) -> ExportReport:
    """Writes a checkpoint, or steps of a run, into a portable file; durable when it returns.

    The file is written in one pass, with little memory, and appears when it is whole; after an
    error there is none, or the one that was there. A run goes on meanwhile, also in this process.

    Parameters
    ----------
    path : path-like
        A checkpoint, a run, another portable file, or what is in one of these: `RUN/STEP`,
        `RUN/STEP/ITEM`.
    file : path-like
        Where to. It is opened as a portable file by its name where that ends in `.stone`.
    steps : int or iterable of int, optional
        Of a run. Without it, all.
    items : str or iterable of str, optional
        Of each step. Without it, all.
    subtree : str
        Only what stands at or below this path, written as `stepstone show` and messages write
        paths: "params/layers[3]/w", or ".params" for an attribute. Items without it are left out,
        and paths stay what they are. Of a list or tuple, only children at its end can be left out.
    cast_floats : dtype-like, optional
        Arrays of other floating-point dtypes are cast to it; everything else stays.
    overwrite : bool
        Replace a file that is there, in one instant.
    compress : bool
        Compress what gets shorter. Such arrays are read by `load(mmap=True)`, not mapped.
    share : bool
        Store chunks that several steps have in common once. Arrays that share some of their chunks
        are read, too, instead of mapped.
    progress : callable, optional
        Called now and then as `progress(done_bytes, total_bytes)`, on some thread.

    Returns
    -------
    ExportReport

    Raises
    ------
    FileNotFoundError
        There is no checkpoint, step or item of that name.
    FileExistsError
        `file` is there, and `overwrite` is False.
    ValueError
        Nothing is selected, or a part of a list; a number does not fit `cast_floats` (the message
        names the leaf); stored bytes are damaged; `path` names a step, and so do `steps`.
    OSError
        The disk is full, or fails.
    """
    source = os.fspath(path)
    counts = _native.export_checkpoint(
        source,
        os.fspath(file),
        steps=_numbers(source, steps),
        items=[items] if isinstance(items, str) else None if items is None else list(items),
        subtree=subtree,
        cast_floats=None if cast_floats is None else dtype_name(cast_floats),
        force=overwrite,
        compress=compress,
        share=share,
        progress=progress,
    )
    return ExportReport(*counts)


def _numbers(
    path: str, steps: SupportsIndex | Iterable[SupportsIndex] | None
) -> list[int] | None:
    if steps is None:
        return None
    numbers = [check_step(step) for step in steps] if isinstance(steps, Iterable) else [
        check_step(steps)
    ]
    if not numbers:
        raise InvalidArgumentError(f"{path}: there are no steps to export: `steps` is empty")
    return numbers
