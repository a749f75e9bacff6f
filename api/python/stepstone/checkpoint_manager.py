"""`CheckpointManager`: the checkpoints of a run.

It saves in the background those steps that policies choose, keeps those that policies keep, and brings
them back. `checkpoint_managers` has the policies, `options` the options.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, SupportsIndex, overload

from stepstone import _exit, _held, _json, _live_managers, _native
from stepstone._items import build_items, item_metadata, restore_step
from stepstone._manager_arguments import (
    check_exclusive,
    given_args,
    handlers_of,
    is_on_device,
    metrics_text,
    older_args,
)
from stepstone._manager_reports import Reporter
from stepstone._paths import PathLike, as_path, check_step
from stepstone._policies import Guard
from stepstone._shown_steps import ShownSteps
from stepstone.abstract_checkpoint_manager import AbstractCheckpointManager
from stepstone.args import Composite
from stepstone.errors import (
    BusyError,
    ClosedError,
    InvalidArgumentError,
    NotFoundError,
    ReadOnlyError,
    StepAlreadyExistsError,
)
from stepstone.metadata import RootMetadata, StepMetadata, step_metadata
from stepstone.options import AsyncOptions, CheckpointManagerOptions, adopt_options
from stepstone.registry import DEFAULT_ITEM, HandlerRegistry
from stepstone.step import standard_name_format

__all__ = [
    "AbstractCheckpointManager",
    "AsyncOptions",
    "CheckpointManager",
    "CheckpointManagerOptions",
    "RootMetadata",
    "StepAlreadyExistsError",
    "StepMetadata",
]

DEFAULT_ITEM_NAME = DEFAULT_ITEM
METRIC_ITEM_NAME = "metrics"

_logger = logging.getLogger("stepstone")


class CheckpointManager(AbstractCheckpointManager):
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

    def __init__(
        self,
        directory: PathLike,
        checkpointers: Any = None,
        options: Any = None,
        metadata: Mapping[str, Any] | None = None,
        item_names: Sequence[str] | None = None,
        item_handlers: Any = None,
        logger: Any = None,
        handler_registry: Any = None,
    ) -> None:
        self._manager: _native.Manager | None = None
        self._is_closed = False
        check_exclusive(checkpointers, item_names, item_handlers, handler_registry)
        self._options = adopt_options(options)
        self._is_async = self._options.enable_async_checkpointing
        self._is_single: bool | None = None
        if checkpointers is not None:
            item_handlers, self._is_async = handlers_of(checkpointers)
        if item_names is not None or item_handlers is not None:
            self._is_single = item_handlers is not None and not isinstance(item_handlers, Mapping)
        asynchronous = self._options.async_options
        if not self._is_async and asynchronous and asynchronous.post_finalization_callback:
            raise InvalidArgumentError(
                "async_options.post_finalization_callback needs saves in the background: "
                "options.on_save is called for every save"
            )
        self._item_handlers = {} if item_handlers is None else item_handlers
        self._registry = HandlerRegistry(item_names, item_handlers, handler_registry)
        self._directory = as_path(directory)
        self._metadata = dict(metadata or {})
        self._metadata_text = _json.custom_metadata(metadata, "metadata of the run")
        self._guard = Guard()
        self._reporter = Reporter(os.fspath(directory), self._options, logger)
        self._open_lock = threading.Lock()
        self._shown = ShownSteps(self._options)
        self._name_format = self._options.step_name_format or standard_name_format(
            step_prefix=self._options.step_prefix,
            step_format_fixed_length=self._options.step_format_fixed_length,
        )
        try:
            self._open()
        except NotFoundError:
            # An evaluator may come before its trainer. Who may not create the store learns it from
            # the first save.
            if not self._options.read_only and self._options.create:
                raise
        _exit.close_at_exit(self)

    def _open(self) -> _native.Manager:
        """The open store; NotFoundError if it is not there and must not be created."""
        with self._open_lock:
            if self._is_closed:
                raise ClosedError(f"the manager of {self._directory} is closed")
            if self._manager is None:
                path = os.fspath(self._directory)
                _live_managers.close_erased(path)
                is_writable = not self._options.read_only
                native_options = self._options.to_native(
                    guard=self._guard,
                    create=is_writable and (self._options.create or os.path.isdir(path)),
                    is_async=self._is_async,
                    on_save=self._reporter.on_save,
                )
                self._manager = _native.Manager(path, native_options, self._metadata_text)
                _live_managers.add(self)
            return self._manager

    @property
    def directory(self) -> pathlib.Path:
        """The store."""
        return self._directory

    @contextlib.contextmanager
    def _policy_errors(self) -> Iterator[None]:
        """Raises what a policy raised, instead of the library's error that tells of it."""
        try:
            yield
        except InvalidArgumentError as error:
            raised = self._guard.take() if " threw: " in str(error) else None
            if raised is None:
                raise
            raise raised from error

    # What is there.

    def all_steps(self, read: bool = False) -> list[int]:
        """All steps, ascending.

        Parameters
        ----------
        read : bool
            Look at the disk first, as `reload`.
        """
        if read:
            self.reload()
        return self._shown.steps(self._manager)

    def latest_step(self) -> int | None:
        """The newest step; None if there is none."""
        return self._shown.latest(self._manager)

    def best_step(self) -> int | None:
        """The step that `best_fn` ranks first, the later of two equals; without it, the newest.

        None if there is no step or, with `best_fn`, none with metrics.
        """
        return self._shown.best(self._manager)

    def reload(self) -> None:
        """Looks at what other processes have committed: only a read-only manager needs it."""
        try:
            self._open().reload()
        except NotFoundError:
            if self._manager is not None:
                raise

    def metrics(self, step: SupportsIndex) -> Any:
        """The metrics of a step; None if it was saved without, or is not there."""
        number = check_step(step)
        if self._manager is not None:
            return self._shown.metrics(self._manager, number)
        try:
            with self._holding(number) as held:
                text = held.metadata().metrics
        except NotFoundError:
            return None
        return None if text is None else _json.loads(text)

    def item_metadata(self, step: SupportsIndex) -> Any:
        """Metadata of a step's items, as `metadata(step).item_metadata`; ValueError for None."""
        if step is None:
            raise InvalidArgumentError("item_metadata needs a step: a run as a whole has no items")
        return self.metadata(step).item_metadata

    @overload
    def metadata(self, step: None = None) -> RootMetadata: ...
    @overload
    def metadata(self, step: SupportsIndex) -> StepMetadata: ...

    def metadata(self, step: SupportsIndex | None = None) -> RootMetadata | StepMetadata:
        """What is known of a step, without arrays being read, or of the run.

        Parameters
        ----------
        step : int, optional
            The step. None: the run.

        Raises
        ------
        FileNotFoundError
            The step is not there.
        """
        if step is None:
            text = None if self._manager is None else self._manager.root_metadata()
            return RootMetadata(
                custom_metadata=dict(self._metadata) if text is None else _json.loads(text)
            )
        with self._holding(check_step(step), is_for_metadata=True) as held:
            found = step_metadata(
                held, dict(held.item_handlers()), item_metadata(held, self._registry)
            )
            self._settle(held.is_single)
        if not found.metrics:
            found.metrics = self.metrics(step) or {}
        return found

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
        metrics : mapping, optional
            What `best_fn` and policies rank by: numbers by name, also of numpy, jax or torch.
            Always stored with the step.
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
            if is_on_device(metrics):
                # To look at these metrics waits for the device: not for a step that is not saved.
                if not self._ask_policy(manager, number):
                    return False
                is_forced = True
        if self._options.best_fn is not None and metrics is None:
            _logger.warning("step %d is saved without metrics: best_fn cannot rank it", number)
        metrics_json = metrics_text(metrics, number)
        native_items, is_single = build_items(args, self._registry)
        with self._policy_errors():
            is_saved = manager.save(
                number,
                self._reporter.counted(number, native_items),
                is_single=is_single,
                metrics=metrics_json,
                custom_metadata=_json.custom_metadata(custom_metadata, f"step {number}"),
                force=is_forced,
            )
        if is_saved:
            self._settle(is_single)
            if self._is_async:
                self._shown.add_pending(number, metrics_json)
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

    def _check_kind(self, args: Any) -> None:
        is_single = not isinstance(args, Composite)
        if self._is_single is None or self._is_single == is_single:
            return
        if self._is_single:
            raise InvalidArgumentError(
                "this manager is for one object: give its arguments, such as args.StandardSave, "
                "instead of a Composite"
            )
        raise InvalidArgumentError(
            f"this manager is for named items: give them as args.Composite, not as "
            f"{type(args).__name__}"
        )

    def _settle(self, is_single: bool) -> None:
        """A call has succeeded with steps of this kind."""
        if self._is_single is None:
            self._is_single = is_single

    # Restoring.

    @contextlib.contextmanager
    def _holding(
        self, step: int | None, *, is_for_metadata: bool = False
    ) -> Iterator[_native.Step]:
        """An open step; None: the newest. Waits for it if it is being saved."""
        held = None
        try:
            opened = self._hold(step, is_for_metadata)
        except NotFoundError:
            # The trainer, another process, may have retired what is held here.
            held = None if step is None else _held.find(self._directory, step)
            if held is None:
                raise
        if held is not None:
            yield held
            return
        try:
            yield opened
        finally:
            opened.release()

    def _hold(self, step: int | None, is_for_metadata: bool) -> _native.Step:
        manager = self._manager
        if manager is None:  # Closed, or not there yet. Reading works all the same.
            return _held.open_step(self._directory, step)
        if is_for_metadata and not self._shown.is_pending(step):
            return manager.hold_committed(step)
        try:
            return manager.hold(step)
        except NotFoundError:
            with self._policy_errors():
                manager.check_for_errors()  # Why it is not there, if it was to be saved.
            if self._options.read_only and step is not None:
                # It may be newer than what the manager shows.
                return _held.open_step(self._directory, step)
            raise

    def restore(
        self,
        step: SupportsIndex | None,
        items: Any = None,
        restore_kwargs: Any = None,
        directory: PathLike | None = None,
        args: Any = None,
    ) -> Any:
        """Restores a step.

        Parameters
        ----------
        step : int or None
            None: the newest.
        items, restore_kwargs
            Older style: a target for the object, or a dict of them by item, and further arguments
            for their handlers.
        directory : path, optional
            Another store to restore from.
        args : CheckpointArgs, optional
            Of the one object, or a `Composite` of the items that are wanted, each with arguments or
            None: as it was saved. Without it everything is restored as it was saved.

        Returns
        -------
        object or Composite
            The object, or the items by name; with `best_fn` also the item "metrics".

        Raises
        ------
        FileNotFoundError
            There is no such step, or no step at all.
        KeyError
            The step has no item of this name.
        ValueError
            `args` are of the other kind, one object or named items, than the step; a target does
            not fit (the message names the leaf); stored bytes are damaged.
        """
        number = None if step is None else check_step(step)
        args = given_args(items, args)
        begin = time.time()
        source = self._holding(number) if directory is None else _held.opened_step(directory, number)
        with source as held, self._reporter.restoring(held, begin):
            if args is None and (items is not None or restore_kwargs is not None):
                handlers = self._item_handlers or self._handlers_of(held)
                args = older_args(handlers, items, restore_kwargs, for_save=False)
            if args is not None:
                self._check_kind(args)
            return self._restore(held, args)

    def _handlers_of(self, held: _native.Step) -> Any:
        """The handlers for what is in a step, as `older_args` takes them."""
        handlers = {
            name: self._registry.handler_for(name, recorded)
            for name, recorded in held.item_handlers().items()
        }
        return handlers[DEFAULT_ITEM] if held.is_single else handlers

    def _restore(self, held: _native.Step, args: Any) -> Any:
        if self._is_single is not None and self._is_single != held.is_single:
            kinds = {True: "one object", False: "named items"}
            raise InvalidArgumentError(
                f"step {held.step} was saved as {kinds[held.is_single]}, and this manager is for "
                f"{kinds[self._is_single]}"
            )
        # As in Orbax, where they are an item: for who asks for it, and for who ranks by it.
        extra = {}
        is_everything = args is None or (isinstance(args, Composite) and not args)
        is_asked = isinstance(args, Composite) and METRIC_ITEM_NAME in args
        if not held.is_single and METRIC_ITEM_NAME not in held.item_handlers():
            if is_asked or (is_everything and self._options.best_fn is not None):
                text = held.metadata().metrics
                extra = {} if text is None else {METRIC_ITEM_NAME: _json.loads(text)}
        if extra and is_asked:
            args = Composite(**{name: args[name] for name in args if name != METRIC_ITEM_NAME})
            restored = restore_step(held, args, self._registry) if args else Composite()
        else:
            restored = restore_step(held, args, self._registry)
        self._settle(held.is_single)
        return restored | extra if extra else restored

    # The end of saves, of steps, and of the manager.

    def wait_until_finished(self) -> None:
        """Waits until all saves in the background are durable. Can be interrupted.

        Raises
        ------
        Exception
            The error of the first save that failed, once; its step does not exist.
        TimeoutError
            It took longer than `async_options.timeout_secs`; the saves go on.
        """
        if self._manager is not None:
            with self._policy_errors():
                self._manager.wait_until_finished()

    def check_for_errors(self) -> None:
        """Raises what `wait_until_finished` would, without waiting."""
        if self._manager is not None:
            with self._policy_errors():
                self._manager.check_for_errors()

    def is_saving_in_progress(self) -> bool:
        """Whether a save in the background is not durable yet."""
        return self._manager is not None and self._manager.is_saving_in_progress()

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

    # What it shows of itself.

    def _remarks(self) -> list[str]:
        remarks = {
            "read-only": self._options.read_only,
            "closed": self._is_closed,
            "saving": self.is_saving_in_progress(),
        }
        return [remark for remark, holds in remarks.items() if holds]

    def __repr__(self) -> str:
        from stepstone import _display

        directory = os.fspath(self._directory)
        try:
            names = [self._name_format.build_name(step) for step in self.all_steps()]
            return _display.manager_text(directory, names, self._remarks())
        except ClosedError:  # In a forked child.
            return f"<CheckpointManager {directory!r} of another process>"

    def _repr_html_(self) -> str:
        from stepstone import _display

        steps = self.all_steps()
        rows: list[_display.StepRow] = []
        described: Any = None
        for step in steps[-_display.STEPS_MAX :]:
            try:
                with self._holding(step, is_for_metadata=True) as held:
                    found = held.metadata()
                    if step == steps[-1]:
                        described = item_metadata(held, self._registry)
            except NotFoundError:
                continue  # Retired meanwhile.
            metrics = None if found.metrics is None else _json.loads(found.metrics)
            name = self._name_format.build_name(step)
            rows.append(
                _display.StepRow(name, found.commit_timestamp_ns, found.size_bytes, metrics)
            )
        items = described if isinstance(described, Composite) else {DEFAULT_ITEM: described}
        return _display.manager_html(
            os.fspath(self._directory), len(steps), rows, self._remarks(), items if rows else {}
        )
