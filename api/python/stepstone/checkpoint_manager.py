"""`CheckpointManager`: the checkpoints of a run.

It saves in the background those steps that policies choose, keeps those that policies keep, and
brings them back. `checkpoint_managers` has the policies, `options` the options.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Any, Self, SupportsIndex

from stepstone import _exit, _json, _live_managers, _native
from stepstone._items import build_items
from stepstone._manager_arguments import given_args, is_on_device, metrics_text, older_args
from stepstone._paths import check_step, check_timeout
from stepstone._reading_manager import METRIC_ITEM_NAME, ReadingManager
from stepstone.abstract_checkpoint_manager import AbstractCheckpointManager
from stepstone.errors import (
    BusyError,
    InvalidArgumentError,
    ReadOnlyError,
    StepAlreadyExistsError,
)
from stepstone.metadata import RootMetadata, StepMetadata
from stepstone.options import AsyncOptions, CheckpointManagerOptions
from stepstone.registry import DEFAULT_ITEM

__all__ = [
    "DEFAULT_ITEM_NAME",
    "METRIC_ITEM_NAME",
    "AbstractCheckpointManager",
    "AsyncOptions",
    "CheckpointManager",
    "CheckpointManagerOptions",
    "RootMetadata",
    "StepAlreadyExistsError",
    "StepMetadata",
]

DEFAULT_ITEM_NAME = DEFAULT_ITEM

_logger = logging.getLogger("stepstone")


class CheckpointManager(ReadingManager):
    """The checkpoints of a run, in one directory.

    Parameters
    ----------
    directory : path
        The store. It is created if it is missing.
    checkpointers : Checkpointer or mapping of str to Checkpointer, optional
        Older style: one for the object, or one for each item. Their handlers are used; saves are in
        the background if one of them saves so.
    options : CheckpointManagerOptions, optional
        Ours or Orbax's.
    metadata : mapping, optional
        About the run, of JSON's types. Stored once: a store that has some keeps it, and this is
        ignored.
    item_names : sequence of str, optional
        The items of each step, which are then given as `args.Composite`.
    item_handlers : CheckpointHandler or mapping of str to CheckpointHandler, optional
        The handler of the one object, or those of the items.
    logger : AbstractLogger, optional
        Is given an entry for each save, commit and restore; see `logging`. By default they go to
        Python's `logging` at the level INFO.
    handler_registry : CheckpointHandlerRegistry, optional
        Handlers by item and arguments.

    Raises
    ------
    ValueError
        Of `checkpointers`, `handler_registry`, and `item_names` with `item_handlers`, more than one
        is given; or options do not go together.
    TimeoutError
        Another process writes to the store.

    Notes
    -----
    Without names and handlers, the first call that succeeds decides whether steps are one object
    (`args.StandardSave(...)`) or named items (`args.Composite(...)`).

    All methods may be called from any thread. Several managers of a process may have one directory,
    and see each other's steps; other processes may read it, with `read_only`.

    A step that is being saved in the background is shown by `all_steps` and `latest_step`, and a
    restore waits for it. What it will retire is not shown any more.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, stepstone as ocp
    >>> options = ocp.CheckpointManagerOptions(save_interval_steps=2, max_to_keep=2)
    >>> with ocp.CheckpointManager(tempfile.mkdtemp(), options=options) as manager:
    ...     for step in range(7):
    ...         _ = manager.save(step, args=ocp.args.StandardSave({"w": np.full(2, step)}))
    ...     manager.wait_until_finished()
    ...     manager.all_steps(), manager.restore(6)
    ([4, 6], {'w': array([6, 6])})
    """

    # Saving.

    def should_save(self, step: SupportsIndex) -> bool:
        """Whether `save(step)` would save.

        False where the store is read-only, and for steps up to the newest: `save(force=True)` fills
        in an earlier one. Else the policy decides.
        """
        number = check_step(step)
        if self._options.read_only:
            _logger.warning("%s is read-only: step %d is not saved", self._directory, number)
            return False
        if self._is_old(number):
            return False
        return self._ask_policy(self._open(), number)

    def _is_old(self, step: int) -> bool:
        latest = self.latest_step()
        return latest is not None and step <= latest

    def _ask_policy(self, manager: _native.Manager, step: int) -> bool:
        decision = manager.should_save(step)
        raised = self._guard.take()
        if raised is not None:
            raise raised
        return decision

    def save(
        self,
        step: SupportsIndex,
        items: Any = None,
        save_kwargs: Any = None,
        metrics: Any = None,
        force: bool | None = False,
        args: Any = None,
        custom_metadata: dict[str, Any] | None = None,
    ) -> bool:
        """Begins to save a step.

        Parameters
        ----------
        step : int
            Not negative.
        items, save_kwargs
            Older style: the object, or a dict of items, and further arguments for their handlers,
            which the manager was constructed with.
        metrics : mapping, or callable that returns one, optional
            What `best_fn` and policies rank by: numbers by name, also of numpy, jax or torch.
            Always stored with the step. Where the step is not saved, a callable is not called, and
            numbers on a device are not waited for.
        force : bool
            Save whatever the policy says; also a step before the newest. A step that exists is not
            replaced.
        args : CheckpointArgs
            Of the one object, or a `Composite` of named items.
        custom_metadata : dict, optional
            Of JSON's types; given back by `metadata(step)`.

        Returns
        -------
        bool
            Whether the save has begun. Arrays that may change have been copied by then; the step is
            durable when `wait_until_finished` returns.

        Raises
        ------
        StepAlreadyExistsError
            The step exists, or is on its way, and `force` is set.
        ValueError
            There is nothing to save, or it cannot be saved (the message names the leaf), or it is
            of the other kind, one object or named items, than the steps before.
        TypeError
            `step` is no integer; metrics or metadata are not of JSON's types.
        ReadOnlyError
            The store is read-only and `force` is set.
        RuntimeError
            The manager was closed.
        Exception
            The error of an earlier save in the background; then this one has not begun.
        """
        number = check_step(step)
        args = self._save_args(items, save_kwargs, args)
        self._check_kind(args)
        is_forced = bool(force)
        if self._options.read_only:
            if is_forced:
                raise ReadOnlyError(f"step {number}: {self._directory} was opened read-only")
            return self.should_save(number)
        manager = self._open()
        report = self._reporter.begin_save(number, is_synchronous=not self._is_async)
        if not is_forced:
            if self._is_old(number):
                return False
            if callable(metrics) or is_on_device(metrics):
                # These metrics cost time: not for a step that is not saved.
                if not self._ask_policy(manager, number):
                    return False
                is_forced = True
        if callable(metrics):
            metrics = metrics()
        if self._options.best_fn is not None and metrics is None:
            _logger.warning("step %d is saved without metrics: best_fn cannot rank it", number)
        metrics_json = metrics_text(metrics, number)
        native_items, is_single = build_items(args, self._registry)
        with self._policy_errors():
            is_saved = manager.save(
                number,
                self._reporter.counted(native_items),
                is_single=is_single,
                metrics=metrics_json,
                custom_metadata=_json.custom_metadata(custom_metadata, f"step {number}"),
                force=is_forced,
            )
        if is_saved:
            self._settle(is_single)
            report(manager.reached_preemption(number))
        return is_saved

    def _save_args(self, items: Any, save_kwargs: Any, args: Any) -> Any:
        """What is to be saved, as arguments."""
        if args is None and items is None:
            raise InvalidArgumentError("there is nothing to save: give args=args.StandardSave(...)")
        args = given_args(items, args)
        if args is None:
            return older_args(self._item_handlers, items, save_kwargs, for_save=True)
        return args

    # The end of saves, of steps, and of the manager.

    def wait_until_finished(self, timeout: float | None = None) -> None:
        """Waits until all saves in the background are durable. Can be interrupted.

        Parameters
        ----------
        timeout : float, optional
            For how many seconds at most. None: `async_options.timeout_secs`.

        Raises
        ------
        Exception
            The error of the first save that failed, once; its step does not exist.
        TimeoutError
            It took longer than `timeout`; the saves go on.
        """
        if self._manager is not None:
            with self._policy_errors():
                self._manager.wait_until_finished(check_timeout(timeout))

    def check_for_errors(self) -> None:
        """Raises what `wait_until_finished` would, without waiting."""
        if self._manager is not None:
            with self._policy_errors():
                self._manager.check_for_errors()

    def reached_preemption(self, step: SupportsIndex) -> bool:
        """Whether the trainer should end: to be asked after `save(step)`.

        There was one of `options.preemption_signals`, or a call of `request_preemption`, and since
        then a `save` has had the occasion to save.
        """
        return self._manager is not None and self._manager.reached_preemption(check_step(step))

    def request_preemption(self) -> None:
        """The process is to end: the next `save` saves, and waits; see `reached_preemption`."""
        self._open().request_preemption()

    def delete(self, step: SupportsIndex) -> None:
        """Deletes a step, whatever policies say; waits for saves in the background first.

        Raises
        ------
        FileNotFoundError
            The step is not there.
        """
        number = check_step(step)
        if self._options.read_only:
            _logger.warning("%s is read-only: step %d is not deleted", self._directory, number)
            return
        self._open().delete_step(number)

    def close(self) -> None:
        """Waits for saves in the background, and lets go of the store and the handlers.

        Idempotent. Steps can be listed and restored afterwards, but not saved.

        Raises
        ------
        Exception
            As of `wait_until_finished`; the manager is closed all the same, unless it is
            TimeoutError.
        """
        manager, failure = self._manager, None
        if manager is not None:
            try:
                self.wait_until_finished()
            except BusyError:
                raise
            except Exception as error:
                failure = error
            self._shown.remember(manager)
            self._metadata = self.metadata().custom_metadata or {}
            try:
                manager.close()
            except BusyError:
                raise
            except Exception as error:
                failure = failure or error
        self._manager = None
        if not self._is_closed:
            self._is_closed = True
            self._registry.close()
            _exit.forget(self)
            _live_managers.discard(self)
        if failure is not None:
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
