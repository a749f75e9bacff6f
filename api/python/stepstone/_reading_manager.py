"""What a manager shows and restores; `checkpoint_manager` adds how it saves."""

from __future__ import annotations

import contextlib
import os
import pathlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from stepstone import _exit, _held, _json, _live_managers, _native
from stepstone._items import item_metadata, restore_step
from stepstone._manager_arguments import check_exclusive, given_args, handlers_of, older_args
from stepstone._manager_reports import Reporter
from stepstone._paths import PathLike, as_path, check_step
from stepstone._policies import Guard
from stepstone._shown_steps import ShownSteps
from stepstone.abstract_checkpoint_manager import AbstractCheckpointManager
from stepstone.args import Composite
from stepstone.errors import ClosedError, InvalidArgumentError, NotFoundError
from stepstone.metadata import RootMetadata, StepMetadata, step_metadata
from stepstone.options import adopt_options
from stepstone.registry import DEFAULT_ITEM, HandlerRegistry
from stepstone.step import standard_name_format

if TYPE_CHECKING:
    from stepstone.portable import ExportReport

METRIC_ITEM_NAME = "metrics"


class ReadingManager(AbstractCheckpointManager):
    """The part of a `CheckpointManager` that needs no writing; see there."""

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
                    progress=self._reporter.writing(),
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

    # Restoring.

    @contextlib.contextmanager
    def _holding(
        self, step: int | None, *, is_for_metadata: bool = False
    ) -> Iterator[_native.Step]:
        """An open step; None: the newest. Waits for it if it is being saved."""
        try:
            opened = self._hold(step, is_for_metadata)
        except NotFoundError:
            # The trainer, another process, may have retired what is held here.
            held = None if step is None else _held.find(self._directory, step)
            if held is None:
                raise
            opened = held
        try:
            yield opened
        finally:
            opened.release()

    def _hold(self, step: int | None, is_for_metadata: bool) -> _native.Step:
        manager = self._manager
        if manager is None:  # Closed, or not there yet. Reading works all the same.
            return _held.open_step(self._directory, step)
        if is_for_metadata and not self._shown.is_pending(manager, step):
            try:
                return manager.hold_committed(step)
            except NotFoundError:
                with self._policy_errors():
                    manager.check_for_errors()  # Why it is not there, if it was to be saved.
                raise
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
        if directory is None:
            source = self._holding(number)
        else:
            source = _held.opened_step(directory, number)
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

    def export(self, file: PathLike, **options: Any) -> ExportReport:
        """Writes steps into a portable file, which `stepstone.load` takes as a path.

        Steps that are being saved in the background are waited for, and come along.

        Parameters
        ----------
        file : path-like
            Where to; a name that ends in `.stone`.
        **options
            `steps`, `items`, `subtree`, `cast_floats` and so on, as of `stepstone.export`, which
            also says what is returned and raised.

        Raises
        ------
        Exception
            The error of a save in the background; then nothing was exported.
        """
        from stepstone.portable import export

        self.wait_until_finished()
        return export(self._directory, file, **options)

    def is_saving_in_progress(self) -> bool:
        """Whether a save in the background is not durable yet."""
        return self._manager is not None and self._manager.is_saving_in_progress()

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
