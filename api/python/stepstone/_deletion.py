"""Deleting a checkpoint, or one item of it.

A whole checkpoint is a portable file, which is simply removed, or a directory. That is renamed
first, which takes the checkpoint away at once, and its files are removed under the other name; a
deletion that was interrupted is finished by the next one of the same path. A step of a run is
retired by a commit. An item goes when the checkpoint is replaced, atomically, by one without it.
"""

from __future__ import annotations

import os
import shutil

from stepstone import _native
from stepstone._background import AsyncResponse, in_background
from stepstone.checkpointables import RESERVED_NAMES
from stepstone.errors import InvalidArgumentError, InvalidLayoutError, NotFoundError

_DOOMED_SUFFIX = ".being_deleted"


def delete(
    path: str | os.PathLike[str],
    *,
    checkpointable_name: str | None = None,
    missing_ok: bool = False,
) -> bool:
    """Deletes a checkpoint, or one object of it.

    Either is atomic. Deleting one object reads the others and commits a checkpoint of these, whose
    bytes stay where they are: it takes the memory of the others and the time to read them, and next
    to nothing is written; the time of its commit becomes that of the checkpoint. Nobody else may be
    writing there. A portable file can only be deleted as a whole.

    Parameters
    ----------
    path : path-like
        Where the checkpoint was saved, or a step of a run (`RUN/STEP`).
    checkpointable_name : str, optional
        The object. Without it: the whole checkpoint.
    missing_ok : bool
        Whether it need not be there.

    Returns
    -------
    bool
        Whether something was deleted.

    Raises
    ------
    FileNotFoundError
        It is not there, and `missing_ok` is False.
    InvalidLayoutError
        `path` is no checkpoint: a whole run, an item of a checkpoint, or something else. A
        ValueError, and a FileNotFoundError too.
    ValueError
        The name cannot be one, or is that of the only object.
    """
    if checkpointable_name is not None:
        check_deletable_name(checkpointable_name)
    path = os.path.abspath(path)
    has_finished = checkpointable_name is None and _remove_doomed(path)
    try:
        step, item = _native.open_checkpoint(path)
    except NotFoundError as error:
        if missing_ok or has_finished:
            return has_finished
        raise NotFoundError(f"{path}: there is no checkpoint to delete") from error
    except InvalidArgumentError as error:
        raise InvalidLayoutError(str(error)) from error
    try:
        if item is not None:
            raise InvalidLayoutError(
                f"{path} is an item of a checkpoint: delete {os.path.dirname(path)} with "
                f"checkpointable_name='{item}'"
            )
        if (file := _portable_file(path)) is not None:
            return _delete_file(path, file, checkpointable_name)
        if checkpointable_name is not None:
            return _delete_item(path, step, checkpointable_name, missing_ok)
        number = step.step
    finally:
        step.release()
    if os.path.isdir(path):
        os.rename(path, path + _DOOMED_SUFFIX)
        sync_directory(os.path.dirname(path))
        _remove_doomed(path)
    else:
        manager = _manager_of_run(path)
        try:
            manager.delete_step(number)
        finally:
            manager.close()
    return True


def delete_async(
    path: str | os.PathLike[str],
    *,
    checkpointable_name: str | None = None,
    missing_ok: bool = False,
) -> AsyncResponse[bool]:
    """As `delete`, on a thread of its own. Every error is raised by the response's `result()`."""
    return in_background(
        lambda: delete(path, checkpointable_name=checkpointable_name, missing_ok=missing_ok),
        f"deleting {os.fspath(path)}",
    )


def check_deletable_name(name: object) -> None:
    """Raises unless an object can have this name.

    Raises
    ------
    TypeError
        It is no string.
    ValueError
        It is empty, reserved, or more than one name.
    """
    if not isinstance(name, str):
        raise TypeError(f"checkpointable_name has to be a string, not {name!r}")
    if not name or name in RESERVED_NAMES or name in (".", "..") or "/" in name:
        raise InvalidArgumentError(f"{name!r} cannot be the name of a checkpointable")


def items_without(step: _native.Step, name: str, missing_ok: bool) -> list[_native.SaveItem]:
    """All items of a step but one, read and ready to be saved again; none: there was nothing to do.

    Raises
    ------
    FileNotFoundError
        The step has no item `name`, and `missing_ok` is False.
    ValueError
        It has no other.
    """
    handlers = step.item_handlers()
    if name not in handlers:
        if missing_ok:
            return []
        raise NotFoundError(f"the checkpoint has no checkpointable '{name}', only {list(handlers)}")
    if len(handlers) == 1:
        raise InvalidArgumentError(
            f"'{name}' is the only checkpointable there: delete the whole checkpoint"
        )
    return [_read_item(step, other) for other in handlers if other != name]


def _portable_file(path: str) -> str | None:
    """The portable file that the path is, or that a step of it is in."""
    for candidate in (path, os.path.dirname(path)):
        if os.path.isfile(candidate):
            return candidate
    return None


def _delete_file(path: str, file: str, name: str | None) -> bool:
    if path != file or name is not None:
        what = "a step" if path != file else f"'{name}'"
        raise InvalidArgumentError(
            f"{file} is a portable file, which never changes: export what is to stay into another "
            f"one, to be without {what}"
        )
    os.unlink(file)
    sync_directory(os.path.dirname(file))
    return True


def _read_item(step: _native.Step, name: str) -> _native.SaveItem:
    tree = step.restore(name).tree
    custom_metadata = step.item_metadata(name).custom_metadata
    return name, step.item_handlers()[name], lambda: (tree, (), custom_metadata)


def _delete_item(path: str, step: _native.Step, name: str, missing_ok: bool) -> bool:
    items = items_without(step, name, missing_ok)
    if not items:
        return False
    found = step.metadata()
    if os.path.isdir(path):
        step.release()  # So that the store can be opened for writing.
        _native.save_checkpoint(
            path, items, is_single=False, force=True, custom_metadata=found.custom_metadata
        )
        return True
    manager = _manager_of_run(path)
    try:
        replace_step(manager, found, items)
        manager.wait_until_finished()
    finally:
        manager.close()
    return True


def replace_step(
    manager: _native.Manager, found: _native.StepMetadata, items: list[_native.SaveItem]
) -> None:
    """Saves a step again with these items, and all else as it was found."""
    manager.save(
        found.step,
        items,
        is_single=False,
        metrics=found.metrics,
        custom_metadata=found.custom_metadata,
        force=True,
        overwrite=True,
    )


def _manager_of_run(step_path: str) -> _native.Manager:
    options = _native.ManagerOptions(create=False, is_async=False)
    return _native.Manager(os.path.dirname(step_path), options, None)


def _remove_doomed(path: str) -> bool:
    """Removes what is left of a checkpoint that was renamed; whether there was something."""
    doomed = path + _DOOMED_SUFFIX
    if not os.path.isdir(doomed):
        return False
    shutil.rmtree(doomed)
    return True


def sync_directory(directory: str) -> None:
    """Makes a rename in it survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
