"""Names and paths of steps.

A store has no directories for its steps: a step is a number in a database. It has a path all the
same, STORE/STEP, or under any name that a `NameFormat` gives it ("STORE/step_00023"), which works
wherever a checkpoint is read: `Checkpointer.restore(path)`, `ocp.load(path)`. Nothing can be listed
or opened there with other tools; `checkpoint_steps` and the formats' `find_all` list the steps of a
store.

>>> standard_name_format(step_prefix="step", step_format_fixed_length=5).build_name(23)
'step_00023'
>>> step_from_checkpoint_name("step_00023")
23
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from stepstone import _native
from stepstone._paths import PathLike, as_path, check_step
from stepstone.errors import InvalidArgumentError, NotFoundError

__all__ = [
    "Metadata",
    "NameFormat",
    "all_temporary_paths",
    "any_checkpoint_step",
    "build_step_metadatas",
    "build_step_path",
    "checkpoint_steps",
    "checkpoint_steps_paths",
    "composite_name_format",
    "find_step_path",
    "get_save_directory",
    "is_path_finalized",
    "is_path_temporary",
    "is_standard_name_format",
    "latest_step_metadata",
    "maybe_find_step_metadata",
    "single_host_load_and_broadcast_name_format",
    "standard_name_format",
    "step_from_checkpoint_name",
    "step_metadata_of_checkpoint_path",
    "step_prefix_with_underscore",
]

# Names of steps with a prefix; and of what Orbax has not committed, of which there is none here.
ALLOWED_STEP_NAME_PATTERN = r"(.+)_(\d+)"
TMP_DIR_SUFFIX = ".orbax-checkpoint-tmp"
TMP_DIR_STEP_PATTERN = r".*?_*?(\d+)\.orbax-checkpoint-tmp"

_M = TypeVar("_M")


def step_metadata_at(path: PathLike) -> _native.StepMetadata:
    """What is recorded of the step that `path` names.

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    step, _ = _native.open_checkpoint(os.fspath(path))
    try:
        return step.metadata()
    finally:
        step.release()


def _steps(store: PathLike) -> list[int]:
    """The steps of a store, ascending; none where there is no store."""
    try:
        return _native.list_steps(os.fspath(store))
    except NotFoundError:
        return []


@dataclasses.dataclass(frozen=True)
class Metadata:
    """A step that was found.

    Parameters
    ----------
    step : int
        The step.
    path : pathlib.Path
        Where it can be read from; no directory (see the module).
    """

    step: int
    path: pathlib.Path

    @functools.cached_property
    def _recorded(self) -> _native.StepMetadata:
        return step_metadata_at(self.path)

    @property
    def init_timestamp_nsecs(self) -> int | None:
        """When its save began, in nanoseconds since 1970."""
        return self._recorded.init_timestamp_ns

    @property
    def commit_timestamp_nsecs(self) -> int | None:
        """When it became durable, in nanoseconds since 1970."""
        return self._recorded.commit_timestamp_ns

    @property
    def commit_timestamp(self) -> datetime.datetime:
        """When it became durable, in UTC."""
        seconds = self._recorded.commit_timestamp_ns / 1e9
        return datetime.datetime.fromtimestamp(seconds, tz=datetime.timezone.utc)


@runtime_checkable
class NameFormat(Protocol):
    """How steps are called."""

    def build_name(self, step: int) -> str:
        """The name of a step."""
        ...

    def find_all(self, base_path: PathLike) -> Iterator[Metadata]:
        """All steps of the store at `base_path`, ascending; none where there is no store."""
        ...

    def find_step(self, base_path: PathLike, step: int) -> Metadata:
        """One step of the store at `base_path`; ValueError if it is not there."""
        ...


@dataclasses.dataclass(frozen=True)
class _StandardNameFormat(NameFormat):
    step_prefix: str | None = None
    step_format_fixed_length: int | None = None
    single_host_load_and_broadcast: bool = False
    temporary_path_cls: type | None = None
    atomicity_options: Any = None

    def __str__(self) -> str:
        return f'StandardNameFormat("{self.build_name(1234)}")'

    def build_name(self, step: int) -> str:
        digits = f"{step:0{self.step_format_fixed_length or 0}d}"
        return step_prefix_with_underscore(self.step_prefix) + digits

    def find_all(self, base_path: PathLike) -> Iterator[Metadata]:
        for step in _steps(base_path):
            yield Metadata(step, build_step_path(base_path, self, step))

    def find_step(self, base_path: PathLike, step: int) -> Metadata:
        if step not in _steps(base_path):
            raise InvalidArgumentError(
                f"the store {os.fspath(base_path)} has no step {step} ({self.build_name(step)}), "
                f"only {_steps(base_path)}"
            )
        return Metadata(step, build_step_path(base_path, self, step))


def standard_name_format(
    *,
    step_prefix: str | None = None,
    step_format_fixed_length: int | None = None,
    single_host_load_and_broadcast: bool = False,
    temporary_path_cls: type | None = None,
    atomicity_options: Any = None,
) -> NameFormat:
    """The usual names: "23", "0023", "step_23", "step_0023".

    Parameters
    ----------
    step_prefix : str, optional
        Stands before the number, with an underscore between.
    step_format_fixed_length : int, optional
        How many digits there are at least, zeros in front.
    single_host_load_and_broadcast, temporary_path_cls, atomicity_options
        No effect: one process, and no temporary paths.

    Returns
    -------
    NameFormat
        It finds all steps of a store, whatever they were called when they were saved: names are not
        stored.
    """
    return _StandardNameFormat(
        step_prefix,
        step_format_fixed_length,
        single_host_load_and_broadcast,
        temporary_path_cls,
        atomicity_options,
    )


@dataclasses.dataclass(frozen=True)
class _CompositeNameFormat(NameFormat):
    write_name_format: NameFormat
    read_name_formats: Sequence[NameFormat]

    def __str__(self) -> str:
        return f"Composite([{','.join(map(str, self.read_name_formats))}])"

    def build_name(self, step: int) -> str:
        return self.write_name_format.build_name(step)

    def find_all(self, base_path: PathLike) -> Iterator[Metadata]:
        found: set[int] = set()
        for each in self.read_name_formats:
            for metadata in each.find_all(base_path):
                if metadata.step not in found:
                    found.add(metadata.step)
                    yield metadata

    def find_step(self, base_path: PathLike, step: int) -> Metadata:
        errors = []
        for each in self.read_name_formats:
            try:
                return each.find_step(base_path, step)
            except Exception as error:
                errors.append(str(error))
        raise InvalidArgumentError("\n".join(errors))


def composite_name_format(
    write_name_format: NameFormat, read_name_formats: Sequence[NameFormat]
) -> NameFormat:
    """One name to show, and several formats that find steps; the first that does so counts.

    Raises
    ------
    ValueError
        `write_name_format` is none of `read_name_formats`.
    """
    if write_name_format not in read_name_formats:
        raise InvalidArgumentError(
            f"write_name_format {write_name_format} has to be one of read_name_formats "
            f"[{', '.join(map(str, read_name_formats))}]"
        )
    return _CompositeNameFormat(write_name_format, read_name_formats)


def is_standard_name_format(name_format: NameFormat) -> bool:
    """Whether `standard_name_format` has made it."""
    return isinstance(name_format, _StandardNameFormat)


def single_host_load_and_broadcast_name_format(name_format: NameFormat) -> NameFormat:
    """The format with `single_host_load_and_broadcast` set; ValueError if it is no standard one."""
    if not isinstance(name_format, _StandardNameFormat):
        raise InvalidArgumentError(f"{name_format} is no standard name format")
    return dataclasses.replace(name_format, single_host_load_and_broadcast=True)


def step_prefix_with_underscore(step_prefix: str | None) -> str:
    """"step_" for "step", and "" for None."""
    return "" if step_prefix is None else f"{step_prefix}_"


def step_from_checkpoint_name(name: str) -> int:
    """The step that a name stands for; ValueError if it stands for none."""
    match = re.fullmatch(r"(?:.+_)?(\d+)(?:\.orbax-checkpoint-tmp.*)?", name)
    if match is None:
        raise InvalidArgumentError(f"'{name}' is no name of a step, such as '23' or 'step_0023'")
    return int(match[1])


def build_step_path(base_path: PathLike, name_format: NameFormat, step: int) -> pathlib.Path:
    """The path of a step, which need not exist."""
    return as_path(base_path) / name_format.build_name(step)


def build_step_metadatas(
    step_paths: Iterable[pathlib.Path], build_metadata: Callable[[pathlib.Path], _M | None]
) -> Iterator[_M]:
    """What `build_metadata` makes of paths, without the None."""
    for path in step_paths:
        metadata = build_metadata(path)
        if metadata is not None:
            yield metadata


def get_save_directory(
    step: int,
    directory: PathLike,
    name: str | None = None,
    step_prefix: str | None = None,
    override_directory: PathLike | None = None,
    step_format_fixed_length: int | None = None,
    step_name_format: NameFormat | None = None,
) -> pathlib.Path:
    """The path of a step, or of one of its items.

    Parameters
    ----------
    step : int
        The step.
    directory : path
        The store. ValueError if it is None.
    name : str, optional
        An item.
    step_prefix, step_format_fixed_length, step_name_format
        How the step is called.
    override_directory : path, optional
        The path of the step, whatever the rest says.
    """
    if directory is None:
        raise InvalidArgumentError("directory cannot be None")
    name_format = step_name_format or standard_name_format(
        step_prefix=step_prefix, step_format_fixed_length=step_format_fixed_length
    )
    if override_directory is not None:
        path = as_path(override_directory)
    else:
        path = build_step_path(directory, name_format, step)
    return path if name is None else path / name


def latest_step_metadata(root_path: PathLike, name_format: NameFormat) -> Metadata | None:
    """The newest step of a store; None if there is none."""
    return max(name_format.find_all(root_path), key=lambda found: found.step, default=None)


def step_metadata_of_checkpoint_path(
    checkpoint_path: PathLike, name_format: NameFormat
) -> Metadata:
    """The step that a path stands for; ValueError if there is none of this name."""
    path = as_path(checkpoint_path)
    for found in name_format.find_all(path.parent):
        if found.path.name == path.name:
            return found
    raise InvalidArgumentError(f"{path} is no path of a step: {path.parent} has none so called")


def find_step_path(
    base_path: PathLike,
    name_format: NameFormat,
    *,
    step: int,
    include_uncommitted: bool = False,
) -> pathlib.Path:
    """The path of a step of a store.

    Parameters
    ----------
    base_path : path
        The store.
    name_format : NameFormat
        How the step is called.
    step : int
        The step.
    include_uncommitted : bool
        No effect: a step that is not committed does not exist.

    Raises
    ------
    ValueError
        The step is not there.
    """
    return name_format.find_step(base_path, check_step(step)).path


def maybe_find_step_metadata(
    base_path: PathLike, name_format: NameFormat, *, step: int
) -> Metadata | None:
    """A step of a store; None if it is not there."""
    try:
        return name_format.find_step(base_path, step)
    except ValueError:
        return None


def checkpoint_steps_paths(checkpoint_dir: PathLike) -> list[pathlib.Path]:
    """The paths of all steps of a store, ascending by step; none where there is no store."""
    return [as_path(checkpoint_dir) / str(step) for step in _steps(checkpoint_dir)]


def checkpoint_steps(checkpoint_dir: PathLike) -> list[int]:
    """The steps of a store, ascending; none where there is no store."""
    return _steps(checkpoint_dir)


def any_checkpoint_step(checkpoint_dir: PathLike) -> int | None:
    """A step of a store, the newest; None if it has none."""
    return max(_steps(checkpoint_dir), default=None)


def is_path_finalized(path: PathLike, **_: Any) -> bool:
    """Whether there is a checkpoint at a path: a step, or a store."""
    try:
        step_metadata_at(path)
    except NotFoundError:
        return False
    except InvalidArgumentError:
        return bool(_steps(path))  # A store with several steps.
    return True


def is_path_temporary(path: PathLike, **_: Any) -> bool:
    """False: there are no temporary paths. A checkpoint that was not committed does not exist."""
    return False


def all_temporary_paths(base_path: PathLike, **_: Any) -> list[pathlib.Path]:
    """None: see `is_path_temporary`."""
    return []


# Orbax's older names.
is_checkpoint_finalized = is_path_finalized
is_tmp_checkpoint = is_path_temporary
tmp_checkpoints = all_temporary_paths
