"""Converts checkpoints of Orbax, HDF5 files and models of Keras into stores, and back.

    python -m stepstone.convert ORBAX_RUN STORE          all steps of a run; goes on where it ended
    python -m stepstone.convert ORBAX_CHECKPOINT STORE --step 100
    python -m stepstone.convert weights.h5 STORE --step 0
    python -m stepstone.convert model.keras STORE --step 0
    python -m stepstone.convert STORE ORBAX_RUN          with Orbax
    python -m stepstone.convert STORE weights.h5 --step 100

Orbax's files are read through tensorstore, HDF5 through h5py; Orbax's are written by Orbax itself.
A step is read whole into memory, saved in one commit, and then the next one is read: what was
interrupted has whole steps, and the same command skips them and goes on.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

from stepstone import _hdf5_files, _keras_files, _orbax_files, args
from stepstone.checkpoint_manager import CheckpointManager
from stepstone.errors import InvalidArgumentError, InvalidLayoutError, StepstoneError, UnsupportedError
from stepstone.options import CheckpointManagerOptions

__all__ = ["from_hdf5", "from_orbax", "main", "to_hdf5", "to_orbax"]

PathLike = str | os.PathLike[str]
Report = Callable[[str], None]

_HDF5_SUFFIXES = (".h5", ".hdf5", ".keras.h5")
_DEFAULT_ITEM = "default"
_EXIT_INTERRUPTED = 128 + signal.SIGINT


def _silent(_: str) -> None:
    pass


def _manager(store: PathLike, *, metadata: dict[str, Any] | None = None) -> CheckpointManager:
    options = CheckpointManagerOptions(create=True, enable_async_checkpointing=False)
    return CheckpointManager(os.fspath(store), options=options, metadata=metadata or None)


def _chosen(there: Iterable[int], wanted: Iterable[int] | None, where: PathLike) -> list[int]:
    steps = list(there)
    if wanted is None:
        return steps
    if missing := sorted(set(wanted) - set(steps)):
        raise InvalidArgumentError(f"{os.fspath(where)} has no step {missing[0]}; it has {steps}")
    return sorted(set(wanted))


def from_orbax(
    source: PathLike,
    store: PathLike,
    *,
    steps: Iterable[int] | None = None,
    step: int | None = None,
    report: Report = _silent,
) -> list[int]:
    """Saves Orbax's steps in a store, with items, metrics and metadata.

    Parameters
    ----------
    source
        The directory of a run, or of one checkpoint.
    store
        The directory of the store; made if it is missing.
    steps
        Of a run, those to take; None: all.
    step
        Of one checkpoint, the number to save it under; None: the number in its name.
    report
        Is given a line of text for each step.

    Returns
    -------
    list of int
        The steps that were saved now. Those that the store had already were left as they are.

    Raises
    ------
    InvalidLayoutError
        `source` is nothing of Orbax.
    UnsupportedError
        tensorstore is absent, or an item is neither a tree nor JSON. The steps before are saved.
    CorruptError
        A step's files are not what its metadata says.

    Notes
    -----
    Orbax does not write down which of its sequences were tuples: they come as lists, and integer
    keys as strings, as `restore` without a target gives them.
    """
    directory = pathlib.Path(source)
    if not directory.is_dir():
        raise InvalidLayoutError(f"{directory} is not a directory")
    paths = {} if _orbax_files.is_checkpoint(directory) else _orbax_files.find_steps(directory)
    root_metadata: dict[str, Any] = {}
    if paths:
        if step is not None:
            raise InvalidArgumentError("`step` is for one checkpoint; `steps` chooses those of a run")
        root_metadata = _orbax_files.read_root_metadata(directory)
    elif _orbax_files.is_checkpoint(directory):
        paths = {_number_of(directory, step): directory}
    else:
        raise InvalidLayoutError(f"{directory} has no checkpoints of Orbax")

    saved: list[int] = []
    wanted = _chosen(paths, steps, directory)
    with _manager(store, metadata=root_metadata) as manager:
        there = set(manager.all_steps())
        for number in wanted:
            if number in there:
                report(f"step {number}: there already")
                continue
            read = _orbax_files.read_step(paths[number])
            _save(manager, number, read)
            saved.append(number)
            report(
                f"step {number}: {', '.join(read.items)}; {_orbax_files.size_bytes(read):,} bytes"
            )
    return saved


def _number_of(directory: pathlib.Path, step: int | None) -> int:
    if step is not None:
        return step
    digits = directory.name.rpartition("_")[2]
    if not digits.isdecimal():
        raise InvalidArgumentError(f"{directory} has no step's number in its name: give one as `step`")
    return int(digits)


def _save(manager: CheckpointManager, step: int, read: _orbax_files.Step) -> None:
    items: dict[str, Any] = {}
    for name, item in read.items.items():
        if isinstance(item, _orbax_files.Json):
            items[name] = args.JsonSave(item.item)
        else:
            items[name] = args.StandardSave(item.item, custom_metadata=item.custom_metadata)
    is_single = list(items) == [_DEFAULT_ITEM]
    manager.save(
        step,
        args=items[_DEFAULT_ITEM] if is_single else args.Composite(**items),
        metrics=read.metrics,
        custom_metadata=read.custom_metadata,
        force=True,
    )
    manager.wait_until_finished()


def to_orbax(
    store: PathLike,
    destination: PathLike,
    *,
    steps: Iterable[int] | None = None,
    report: Report = _silent,
) -> list[int]:
    """Saves a store's steps as a run of Orbax, by Orbax; those that are there are left as they are.

    Raises
    ------
    UnsupportedError
        Orbax is absent.

    What Orbax itself refuses, such as complex numbers and bytes, is its error; the steps before are
    saved.
    """
    try:
        orbax = importlib.import_module("orbax.checkpoint")
    except ImportError:
        raise UnsupportedError(
            "Orbax is not installed: its checkpoints are written by it (pip install orbax-checkpoint)"
        ) from None
    directory = pathlib.Path(destination).resolve()
    saved: list[int] = []
    with CheckpointManager(os.fspath(store), options=CheckpointManagerOptions(read_only=True)) as manager:
        wanted = _chosen(manager.all_steps(), steps, store)
        described = {step: manager.metadata(step) for step in wanted}
        has_metrics = any(metadata.metrics for metadata in described.values())
        options = orbax.CheckpointManagerOptions(
            create=True,
            enable_async_checkpointing=False,
            # Without it Orbax would drop the metrics.
            best_fn=(lambda _: 0.0) if has_metrics else None,
        )
        root = manager.metadata()
        with orbax.CheckpointManager(
            directory, options=options, metadata=root.custom_metadata or None
        ) as target:
            there = set(target.all_steps())
            for step in wanted:
                if step in there:
                    report(f"step {step}: there already")
                    continue
                target.save(
                    step,
                    args=_orbax_items(orbax, manager, step, described[step].item_handlers),
                    metrics=described[step].metrics or None,
                    custom_metadata=described[step].custom_metadata or None,
                    force=True,
                )
                target.wait_until_finished()
                saved.append(step)
                report(f"step {step}: saved")
    return saved


def _orbax_items(orbax: Any, manager: CheckpointManager, step: int, handlers: Any) -> Any:
    restored = manager.restore(step)
    if not isinstance(restored, args.Composite):
        restored = {_DEFAULT_ITEM: restored}
    items = {}
    for name, item in dict(restored).items():
        is_json = isinstance(handlers, dict) and "json" in str(handlers.get(name, "")).lower()
        items[name] = orbax.args.JsonSave(item) if is_json else orbax.args.StandardSave(item)
    if list(items) == [_DEFAULT_ITEM]:
        return items[_DEFAULT_ITEM]
    return orbax.args.Composite(**items)


def from_hdf5(source: PathLike, store: PathLike, *, step: int, item: str = _DEFAULT_ITEM) -> bool:
    """Saves an HDF5 file, such as Keras's weights, as a step; False: the step was there already.

    Groups become dicts and data sets arrays; the groups' attributes that JSON can hold are kept in
    the item's metadata under "hdf5". Of a model of Keras (`.keras`) the weights are read, and its
    configuration is kept there under "keras".
    """
    file = pathlib.Path(source)
    metadata: dict[str, Any] = {}
    if _keras_files.is_keras(file):
        with _keras_files.opened(file) as (weights, described):
            tree, attributes = _hdf5_files.read(file, weights)
        metadata = {"keras": described} if described else {}
    else:
        tree, attributes = _hdf5_files.read(file)
    if attributes:
        metadata["hdf5"] = attributes
    saving = args.StandardSave(tree, custom_metadata=metadata or None)
    with _manager(store) as manager:
        if step in manager.all_steps():
            return False
        manager.save(
            step,
            args=saving if item == _DEFAULT_ITEM else args.Composite(**{item: saving}),
            force=True,
        )
        manager.wait_until_finished()
    return True


def to_hdf5(
    store: PathLike, destination: PathLike, *, step: int | None = None, item: str | None = None
) -> None:
    """Writes an item of a step (None: the newest) as an HDF5 file, which it replaces.

    Keys and places of lists become the names of groups and data sets.
    """
    with CheckpointManager(os.fspath(store), options=CheckpointManagerOptions(read_only=True)) as manager:
        number = manager.latest_step() if step is None else step
        if number is None:
            raise InvalidArgumentError(f"{os.fspath(store)} has no steps")
        restored = manager.restore(number)
    if isinstance(restored, args.Composite):
        items = dict(restored)
        if item is None and len(items) == 1:
            item = next(iter(items))
        if item not in items:
            raise InvalidArgumentError(f"step {number} has the items {sorted(items)}: choose one")
        restored = items[item]
    _hdf5_files.write(pathlib.Path(destination), restored)


def _is_store(path: pathlib.Path) -> bool:
    return path.is_dir() and (path / "CURRENT").is_file() and (path / "HEAD").is_file()


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m stepstone.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SRC", type=pathlib.Path)
    parser.add_argument("destination", metavar="DST", type=pathlib.Path)
    parser.add_argument("--steps", metavar="N,N", help="of several, those to convert; else all")
    parser.add_argument("--step", metavar="N", type=int, help="the one step to save or to write")
    parser.add_argument("--item", metavar="NAME", help="the item of an HDF5 file")
    given = parser.parse_args(arguments)
    try:
        steps = None if given.steps is None else [int(step) for step in given.steps.split(",")]
        _convert(given.source, given.destination, steps, given.step, given.item)
    except (StepstoneError, ValueError, OSError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "convert: interrupted; what was converted is whole, and the same command goes on",
            file=sys.stderr,
        )
        return _EXIT_INTERRUPTED
    return 0


def _convert(
    source: pathlib.Path,
    destination: pathlib.Path,
    steps: list[int] | None,
    step: int | None,
    item: str | None,
) -> None:
    def report(line: str) -> None:
        print(line, flush=True)

    if _hdf5_files.is_hdf5(source) or _keras_files.is_keras(source):
        if step is None:
            raise InvalidArgumentError("--step says which step an HDF5 file is saved as")
        is_new = from_hdf5(source, destination, step=step, item=item or _DEFAULT_ITEM)
        report(f"step {step}: {'saved' if is_new else 'there already'}")
    elif not _is_store(source):
        from_orbax(source, destination, steps=steps, step=step, report=report)
    elif destination.name.endswith(_HDF5_SUFFIXES):
        to_hdf5(source, destination, step=step, item=item)
        report(f"{destination}: written")
    else:
        to_orbax(source, destination, steps=[step] if step is not None else steps, report=report)


if __name__ == "__main__":
    sys.exit(main())
