"""Checkpointers: one checkpoint at one path.

A checkpoint is a store with one step. A save replaces nothing before the new checkpoint is durable;
a crash at any instant leaves the path with what it held, or with all of the new checkpoint.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from stepstone import _exit, _held, _native
from stepstone._items import item_handler_names, open_and_restore, path_metadata
from stepstone._items import build_items, item_metadata, one_item_metadata
from stepstone._json import custom_metadata as custom_metadata_text
from stepstone._paths import check_timeout
from stepstone._saving import Saving
from stepstone.args import Composite, StandardRestore, StandardSave, arguments_of
from stepstone.errors import (
    ClosedError,
    InvalidArgumentError,
    StepAlreadyExistsError,
    StepstoneError,
)
from stepstone.handlers import (
    CompositeCheckpointHandler,
    PyTreeCheckpointHandler,
    StandardCheckpointHandler,
    adopt_handler,
)
from stepstone.registry import HandlerRegistry, is_checkpoint_args

if TYPE_CHECKING:
    from stepstone.portable import ExportReport

__all__ = [
    "AbstractCheckpointer",
    "AsyncCheckpointer",
    "Checkpointer",
    "PyTreeCheckpointer",
    "StandardCheckpointer",
]

_DEFAULT_TIMEOUT_S = 1200


def construct_checkpoint_args(handler: Any, for_save: bool, *args: Any, **kwargs: Any) -> Any:
    """The `CheckpointArgs` among the arguments, or those of `handler` made of all of them."""
    return arguments_of(handler, for_save, args, kwargs)


class AbstractCheckpointer(abc.ABC):
    """What saves one object to a path, and restores it from there."""

    @abc.abstractmethod
    def save(self, directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Saves to `directory`."""

    @abc.abstractmethod
    def restore(self, directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Restores from `directory`."""

    def structure(self, directory: Any) -> Any:
        """Deprecated in Orbax: what `metadata` has."""
        return None

    def metadata(self, directory: Any) -> Any:
        """Metadata of what is at `directory`."""
        return None

    def close(self) -> None:
        """Lets go of all that is held."""


class Checkpointer(AbstractCheckpointer):
    """Saves one checkpoint to a path, and restores it.

    Parameters
    ----------
    handler : CheckpointHandler
        For one object, or `CompositeCheckpointHandler` for several. Ours, Orbax's, or yours.
    multiprocessing_options, file_options, atomicity_options, checkpoint_metadata_store, \
temporary_path_class
        No effect: a checkpoint is written by one process, and appears in one commit.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, stepstone as ocp
    >>> path = tempfile.mkdtemp() + "/checkpoint"
    >>> with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
    ...     checkpointer.save(path, args=ocp.args.StandardSave({"w": np.arange(3)}))
    ...     checkpointer.restore(path)
    {'w': array([0, 1, 2])}
    """

    def __init__(
        self,
        handler: Any,
        *,
        multiprocessing_options: Any = None,
        file_options: Any = None,
        atomicity_options: Any = None,
        checkpoint_metadata_store: Any = None,
        temporary_path_class: Any = None,
    ) -> None:
        self._handler = adopt_handler(handler)
        self._is_closed = False
        if isinstance(self._handler, CompositeCheckpointHandler):
            self._registry = self._handler.registry
        else:
            self._registry = HandlerRegistry(item_handlers=self._handler)

    @property
    def handler(self) -> Any:
        """What it was constructed with."""
        return self._handler

    def save(
        self,
        directory: Any,
        *args: Any,
        force: bool = False,
        custom_metadata: dict[str, Any] | None = None,
        save_context: Any = None,
        progress: Callable[[int, int], object] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Saves, and returns when the checkpoint survives a power failure.

        Parameters
        ----------
        directory : path
            Where to.
        *args, **kwargs
            `CheckpointArgs`, or what those of the handler are made of.
        force : bool
            Replace the checkpoint that is there, in one commit.
        custom_metadata : dict, optional
            Of JSON's types; stored with the checkpoint.
        save_context : object, optional
            No effect: Orbax's own manager measures time with it.
        progress : callable, optional
            Not in Orbax. Called as `progress(done_bytes, total_bytes)` while the checkpoint is
            written, from threads of the library's, never twice at once. What it raises is reported
            as unraisable.

        Raises
        ------
        ValueError
            Something is at the path already and `force` is not set, or it is no checkpoint; the
            object cannot be saved.
        OSError
            The disk failed, or is full.
        RuntimeError
            The checkpointer was closed.
        """
        path, items, is_single = self._items(directory, args, kwargs, force)
        _native.save_checkpoint(
            path,
            items,
            is_single=is_single,
            force=force,
            custom_metadata=custom_metadata_text(custom_metadata, path),
            progress=progress,
        )

    def restore(self, directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Restores.

        Parameters
        ----------
        directory : path
            Of a checkpoint, of a step of a run (`run/40`), or of an item of either
            (`run/40/state`).
        *args, **kwargs
            `CheckpointArgs`, or what those of the handler are made of; none: as it was saved.

        Returns
        -------
        object
            A `Composite` where the checkpoint has several items.

        Raises
        ------
        FileNotFoundError
            There is no checkpoint.
        KeyError
            It has no such item.
        ValueError
            It does not fit the target; its bytes are damaged; the handler is not for it.
        """
        self._check_open()
        given = arguments_of(self._handler, False, args, kwargs) if args or kwargs else None
        return open_and_restore(directory, given, self._registry)

    def metadata(self, directory: Any) -> Any:
        """Metadata of the checkpoint, without its arrays being read.

        Returns
        -------
        StepMetadata
            Its `item_metadata` is that of the object, or of all items.

        Raises
        ------
        FileNotFoundError
            There is no checkpoint.
        """
        from stepstone.metadata import step_metadata

        with _held.opened(directory) as (step, item):
            found = (
                item_metadata(step, self._registry)
                if item is None
                else one_item_metadata(step, item, self._registry)
            )
            return step_metadata(step, item_handler_names(step), found)

    def export(self, directory: Any, file: Any, **options: Any) -> ExportReport:
        """Writes the checkpoint at `directory` into a portable file.

        Parameters, result and errors are those of `stepstone.export`.
        """
        from stepstone.portable import export

        self._check_open()
        return export(directory, file, **options)

    def structure(self, directory: Any) -> Any:
        """Deprecated in Orbax: `metadata(directory).item_metadata`."""
        return path_metadata(directory, self._registry)

    def close(self) -> None:
        """Closes the handlers; saves and restores fail afterwards. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._registry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self._handler).__name__})"

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError(f"{self!r} was closed: make another one")

    def _items(
        self, directory: Any, args: tuple[Any, ...], kwargs: dict[str, Any], force: bool
    ) -> tuple[str, list[_native.SaveItem], bool]:
        self._check_open()
        path = os.fspath(directory)
        if not force and _is_taken(path):
            raise StepAlreadyExistsError(
                f"Destination {path} already exists: set `force` to replace the checkpoint there"
            )
        given = arguments_of(self._handler, True, args, kwargs)
        is_composite = isinstance(self._handler, CompositeCheckpointHandler)
        if isinstance(given, Composite) != is_composite:
            raise InvalidArgumentError(
                f"{self!r} saves "
                f"{'several items, and needs a Composite' if is_composite else 'one object'}, "
                f"and was given {type(given).__name__}"
            )
        items, is_single = build_items(given, self._registry)
        return path, items, is_single


def _is_taken(path: str) -> bool:
    """Whether there is something; a store that a save has left without a checkpoint is nothing."""
    if not os.path.lexists(path):
        return False
    try:
        return bool(_native.list_steps(path))
    except StepstoneError:
        return True


class AsyncCheckpointer(Checkpointer):
    """Saves one checkpoint to a path in the background, and restores it.

    One save at a time: the next call of anything but `is_saving_in_progress`, `check_for_errors`
    and `cancel` waits for it. An error is raised once, by the first call that learns of it. Not
    thread-safe. At the end of the program, a save that is still going on is waited for.

    Parameters
    ----------
    handler : CheckpointHandler
        As of `Checkpointer`.
    timeout_secs : float, optional
        How long to wait for a save at most, from its beginning. None: what `async_options` say.
    async_options : AsyncOptions, optional
        Ours or Orbax's: `timeout_secs`, and `post_finalization_callback`, which is called on some
        thread when a checkpoint is durable. The rest has no effect.
    multiprocessing_options, file_options, atomicity_options, checkpoint_metadata_store, \
temporary_path_class
        As of `Checkpointer`.

    Raises
    ------
    ValueError
        `timeout_secs` is not positive.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, stepstone as ocp
    >>> weights = np.zeros(2)
    >>> with ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler()) as checkpointer:
    ...     path = tempfile.mkdtemp() + "/checkpoint"
    ...     checkpointer.save(path, args=ocp.args.StandardSave({"w": weights}))
    ...     weights += 1  # What is saved has been copied.
    ...     checkpointer.wait_until_finished()
    ...     checkpointer.restore(path)
    {'w': array([0., 0.])}
    """

    def __init__(
        self,
        handler: Any,
        timeout_secs: float | None = None,
        *,
        async_options: Any = None,
        multiprocessing_options: Any = None,
        file_options: Any = None,
        atomicity_options: Any = None,
        checkpoint_metadata_store: Any = None,
        temporary_path_class: Any = None,
    ) -> None:
        super().__init__(handler)
        if not timeout_secs:
            timeout_secs = getattr(async_options, "timeout_secs", None) or _DEFAULT_TIMEOUT_S
        if timeout_secs <= 0:
            raise InvalidArgumentError(f"timeout_secs has to be positive, not {timeout_secs}")
        self._timeout_s = float(timeout_secs)
        self._callback = getattr(async_options, "post_finalization_callback", None)
        self._saving: Saving | None = None
        _exit.close_at_exit(self)

    def save(
        self,
        directory: Any,
        *args: Any,
        force: bool = False,
        custom_metadata: dict[str, Any] | None = None,
        save_context: Any = None,
        progress: Callable[[int, int], object] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Saves, and returns when what the caller may change has been copied.

        Waits for the save before it, and raises its error if nobody has seen it; then nothing was
        begun. Otherwise as `Checkpointer.save`.
        """
        self.wait_until_finished()
        path, items, is_single = self._items(directory, args, kwargs, force)
        pending = _native.save_checkpoint_async(
            path,
            items,
            is_single=is_single,
            force=force,
            custom_metadata=custom_metadata_text(custom_metadata, path),
            progress=progress,
        )
        self._saving = Saving(path, pending, self._timeout_s, self._callback)

    def restore(self, directory: Any, *args: Any, **kwargs: Any) -> Any:
        """As `Checkpointer.restore`, when the save in the background has ended."""
        self.wait_until_finished()
        return super().restore(directory, *args, **kwargs)

    def metadata(self, directory: Any) -> Any:
        """As `Checkpointer.metadata`, when the save in the background has ended."""
        self.wait_until_finished()
        return super().metadata(directory)

    def export(self, directory: Any, file: Any, **options: Any) -> ExportReport:
        """As `Checkpointer.export`, when the save in the background has ended."""
        self.wait_until_finished()
        return super().export(directory, file, **options)

    def is_saving_in_progress(self) -> bool:
        """Whether a save is going on."""
        return self._saving is not None and not self._saving.is_done()

    def wait_until_finished(self, timeout: float | None = None) -> None:
        """Waits for the save in the background.

        Parameters
        ----------
        timeout : float, optional
            For how many seconds at most. None: until it has taken `timeout_secs` in all.

        Raises
        ------
        TimeoutError
            It takes longer; it goes on.
        Exception
            What went wrong, once. The path holds what it held before.
        """
        check_timeout(timeout)
        saving = self._saving
        if saving is None:
            return
        try:
            saving.wait(timeout)
        except Exception:
            if not (saving.is_cancelled and saving.is_done()):
                raise
        finally:
            if saving.is_done():
                self._saving = None

    def check_for_errors(self) -> None:
        """Raises what went wrong with a save that has ended, once; does not wait."""
        if self._saving is not None and self._saving.is_done():
            self.wait_until_finished()

    def cancel(self) -> bool:
        """Gives up the save in the background, and waits for nothing.

        What has been written of it is thrown away in the background.

        Returns
        -------
        bool
            True: the path goes on to hold what it held, which may be nothing, and no error of this
            save is raised. False: it was too late, or there is no save; what became of it is told
            as ever.
        """
        return self._saving is not None and self._saving.cancel()

    def close(self) -> None:
        """Waits, raises an error that nobody has seen, and closes the handlers. Idempotent."""
        _exit.forget(self)
        try:
            self.wait_until_finished()
        finally:
            super().close()


class StandardCheckpointer(AsyncCheckpointer):
    """`AsyncCheckpointer(StandardCheckpointHandler())`, without arguments to be constructed.

    Parameters
    ----------
    async_options, multiprocessing_options, file_options, atomicity_options, \
checkpoint_metadata_store, temporary_path_class
        As of `AsyncCheckpointer`.
    **kwargs
        As of `StandardCheckpointHandler`.

    Examples
    --------
    >>> import tempfile
    >>> import stepstone as ocp
    >>> path = tempfile.mkdtemp() + "/checkpoint"
    >>> with ocp.StandardCheckpointer() as checkpointer:
    ...     checkpointer.save(path, {"step": 3})
    ...     checkpointer.restore(path, {"step": float})
    {'step': 3.0}
    """

    def __init__(
        self,
        *,
        async_options: Any = None,
        multiprocessing_options: Any = None,
        file_options: Any = None,
        atomicity_options: Any = None,
        checkpoint_metadata_store: Any = None,
        temporary_path_class: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(StandardCheckpointHandler(**kwargs), async_options=async_options)

    def save(  # type: ignore[override]
        self,
        directory: Any,
        state: Any,
        *,
        save_args: Any = None,
        force: bool = False,
        custom_metadata: dict[str, Any] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Any:
        """Saves a tree in the background; see `AsyncCheckpointer.save` and `StandardSave`."""
        args = state if is_checkpoint_args(state) else StandardSave(state, save_args)
        super().save(
            directory,
            args=args,
            force=force,
            custom_metadata=custom_metadata,
            progress=progress,
        )

    def restore(
        self, directory: Any, target: Any = None, *, strict: bool = True
    ) -> Any:
        """Restores a tree; see `Checkpointer.restore` and `StandardRestore`."""
        return super().restore(directory, args=StandardRestore(target, strict=strict))


class PyTreeCheckpointer(Checkpointer):
    """`Checkpointer(PyTreeCheckpointHandler())`.

    Parameters
    ----------
    primary_host, use_ocdbt, use_zarr3
        No effect: they are about several hosts, and about Orbax's format.
    use_compression : bool
        As of `PyTreeCheckpointHandler`.

    Examples
    --------
    >>> import tempfile
    >>> import stepstone as ocp
    >>> path = tempfile.mkdtemp() + "/checkpoint"
    >>> ocp.PyTreeCheckpointer().save(path, {"a": {"b": 1, "c": 2}})
    >>> ocp.PyTreeCheckpointer().restore(
    ...     path, args=ocp.args.PyTreeRestore({"a": {"c": 0}}, partial_restore=True))
    {'a': {'c': 2}}
    """

    def __init__(
        self,
        primary_host: int | None = 0,
        use_ocdbt: bool = True,
        use_zarr3: bool = False,
        use_compression: bool = True,
    ) -> None:
        super().__init__(PyTreeCheckpointHandler(use_compression=use_compression))
