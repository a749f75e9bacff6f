"""`training.Checkpointer`: the steps of one run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from stepstone import _exit, _json, _live_managers, _native
from stepstone._background import AsyncResponse, BackgroundWork, in_background
from stepstone._deletion import check_deletable_name, items_without, replace_step
from stepstone._files import as_path
from stepstone._policies import Guard, plain_metrics
from stepstone.checkpoint_metadata import PyTreeMetadata
from stepstone.checkpointables import AUTO_NAME, STATE_NAME, build_items, describe_item, load_item
from stepstone.context import Context, get_context
from stepstone.errors import (
    NotFoundError,
    StepAlreadyExistsError,
    StepNotFoundError,
)
from stepstone.functions import (
    PathLike,
    check_loadable_name,
    load_items,
    target_of,
    tree_name,
)
from stepstone.logging import StandardLogger
from stepstone.options import AsyncOptions, CheckpointManagerOptions, StorageOptions
from stepstone.portable import ExportReport, export
from stepstone.step import standard_name_format
from stepstone.training import save_decision_policies
from stepstone.training._older_names import OlderNames
from stepstone.training._save import Saves, commit_entry
from stepstone.training._steps import Step, Steps, step_number
from stepstone.training.metadata import CheckpointMetadata, RootMetadata


class Checkpointer(OlderNames):
    """Saves and loads the steps of a run, and decides which to save and which to keep.

    Use it in a `with` statement, which waits for saves in the background and raises their errors.
    One save is under way at a time. Methods may be called from any thread.

    Parameters
    ----------
    directory : path-like
        Where the run is; made if it is not there. `CheckpointManager` reads and writes the same
        runs, also at the same time in the same process.
    context : Context, optional
        Options for all calls that are not made inside another `Context`. Without it: those of the
        context in which the Checkpointer is made.
    save_decision_policy : SaveDecisionPolicy, optional
        Which steps `save` saves. Without it: the first, then whenever none is being saved, and when
        a preemption has been noticed.
    preservation_policy : PreservationPolicy, optional
        Which steps stay when another one is saved; the one that is saved always does. Without it:
        all.
    step_name_format : NameFormat, optional
        How a step is shown in paths; in the store it is a number.
    custom_metadata : dict, optional
        Whatever JSON can hold, stored with the run; only the first Checkpointer of a run stores it.
    cleanup_tmp_directories : bool
        No effect: an interrupted save leaves no directory.
    lightweight_initialize : bool
        No effect: opening reads one small record per step.
    logger : AbstractLogger, optional
        Its `log_entry` is called with a dict after each load and save.
    preemption_signals : iterable of int, optional
        Not in Orbax, which leaves this to jax's distributed runtime: signals, such as
        `signal.SIGTERM`, that tell of a preemption instead of ending the process. The step that is
        saved then is waited for; see `reached_preemption`.
    """

    def __init__(
        self,
        directory: PathLike,
        *,
        context: Context | None = None,
        save_decision_policy: Any = None,
        preservation_policy: Any = None,
        step_name_format: Any = None,
        custom_metadata: Mapping[str, Any] | None = None,
        cleanup_tmp_directories: bool = False,
        lightweight_initialize: bool = False,
        logger: Any = None,
        preemption_signals: Iterable[int] = (),
    ) -> None:
        self._context = Context(context or get_context())
        self._logger = StandardLogger() if logger is None else logger
        guard = Guard()
        path = os.fspath(directory)
        if save_decision_policy is None:
            save_decision_policy = save_decision_policies.AnySavePolicy(
                [
                    save_decision_policies.InitialSavePolicy(),
                    save_decision_policies.ContinuousCheckpointingPolicy(),
                    save_decision_policies.PreemptionCheckpointingPolicy(),
                ]
            )
        asynchronous = self._context.asynchronous
        is_compressed = self._context.array.saving.use_compression
        options = CheckpointManagerOptions(
            save_decision_policy=save_decision_policy,
            preservation_policy=preservation_policy,
            step_name_format=step_name_format,
            async_options=AsyncOptions(
                timeout_secs=asynchronous.timeout_secs,
                post_finalization_callback=asynchronous.post_finalization_callback,
            ),
            storage=StorageOptions(compression="auto" if is_compressed else "none"),
            preemption_signals=preemption_signals,
            on_save=lambda found: self._logger.log_entry(commit_entry(found, path)),
        )
        _live_managers.close_erased(path)
        self._manager = _native.Manager(
            path,
            options.to_native(guard=guard),
            _json.custom_metadata(custom_metadata, path),
        )
        name_format = step_name_format or standard_name_format()
        self._steps = Steps(self._manager, name_format, self._logger)
        self._saves = Saves(self._manager, guard)
        self._deletion: BackgroundWork[bool] | None = None
        _exit.close_at_exit(self)
        _live_managers.add(self)

    @property
    def directory(self) -> Any:
        """The run's directory."""
        return as_path(self._manager.directory)

    @property
    def latest(self) -> CheckpointMetadata[None] | None:
        """The newest step that is durable, or None."""
        while (step := self._manager.latest_step()) is not None:
            found = self._steps.describe(step)
            if found is not None:
                return found
        return None

    @property
    def checkpoints(self) -> Sequence[CheckpointMetadata[None]]:
        """The steps that are durable, ascending, with their times and metrics."""
        found = [self._steps.describe(step) for step in self._manager.all_steps()]
        return [checkpoint for checkpoint in found if checkpoint is not None]

    def should_save(self, step: int) -> bool:
        """Whether `save` would save the step, by the save decision policy."""
        return self._manager.should_save(step_number(step))

    def save(
        self,
        step: int,
        state: Any,
        *,
        checkpointable_name: str = STATE_NAME,
        force: bool = False,
        overwrite: bool = False,
        metrics: Mapping[str, Any] | None = None,
        custom_metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        """Saves a tree, if the policy says so; durable when it returns True.

        Parameters
        ----------
        step : int
        state, checkpointable_name
            As `stepstone.save`.
        force : bool
            Save whatever the policy says.
        overwrite : bool
            Replace the step if it is there, atomically.
        metrics, custom_metadata : dict, optional
            Whatever JSON can hold, stored with the step; policies see the metrics.

        Returns
        -------
        bool
            Whether it was saved.

        Raises
        ------
        StepAlreadyExistsError
            The step is there, and `overwrite` is False. A FileExistsError and a ValueError.
        ValueError, OSError
            As `stepstone.save`; the steps are as they were. Or the error of a save in the
            background before, whose response nobody has asked; then this one has not begun.
        """
        return self.save_checkpointables(
            step,
            {checkpointable_name: state},
            force=force,
            overwrite=overwrite,
            metrics=metrics,
            custom_metadata=custom_metadata,
        )

    def save_async(
        self,
        step: int,
        state: Any,
        *,
        checkpointable_name: str = STATE_NAME,
        force: bool = False,
        overwrite: bool = False,
        metrics: Mapping[str, Any] | None = None,
        custom_metadata: Mapping[str, Any] | None = None,
    ) -> AsyncResponse[bool] | None:
        """As `save`, but writes in the background; see `stepstone.save_async`.

        Returns
        -------
        AsyncResponse or None
            None: the policy said no.
        """
        return self.save_checkpointables_async(
            step,
            {checkpointable_name: state},
            force=force,
            overwrite=overwrite,
            metrics=metrics,
            custom_metadata=custom_metadata,
        )

    def save_checkpointables(
        self,
        step: int,
        checkpointables: Mapping[str, Any],
        *,
        force: bool = False,
        overwrite: bool = False,
        metrics: Mapping[str, Any] | None = None,
        custom_metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        """As `save`, of several objects; see `stepstone.save_checkpointables`."""
        response = self.save_checkpointables_async(
            step,
            checkpointables,
            force=force,
            overwrite=overwrite,
            metrics=metrics,
            custom_metadata=custom_metadata,
        )
        return response is not None and response.result()

    def save_checkpointables_async(
        self,
        step: int,
        checkpointables: Mapping[str, Any],
        *,
        force: bool = False,
        overwrite: bool = False,
        metrics: Mapping[str, Any] | None = None,
        custom_metadata: Mapping[str, Any] | None = None,
    ) -> AsyncResponse[bool] | None:
        """As `save_checkpointables`, but writes in the background; see `save_async`."""
        with get_context(self._context):
            get_context().check_layout()
            step = step_number(step)
            items = build_items(checkpointables)
            self._wait_for_deletion()
            if not overwrite and self._saves.has(step):
                raise StepAlreadyExistsError(
                    f"step {step} is in {self._manager.directory} already: set overwrite, or save "
                    "another step"
                )
            options: dict[str, Any] = {
                "is_single": False,
                "metrics": None if metrics is None else _json.dumps(plain_metrics(metrics)),
                "custom_metadata": _json.custom_metadata(custom_metadata, f"step {step}"),
                "overwrite": overwrite,
            }
            return self._saves.begin(step, items, force, options)

    def load(
        self,
        step: Step | None = None,
        abstract_state: Any = None,
        *,
        checkpointable_name: str = STATE_NAME,
    ) -> Any:
        """Loads a tree.

        Parameters
        ----------
        step : int or CheckpointMetadata, optional
            Without it: the newest. Saves in the background are waited for.
        abstract_state, checkpointable_name
            As `stepstone.load`.

        Raises
        ------
        StepNotFoundError
            There is no such step, or none at all. A FileNotFoundError.
        KeyError
            The step has no tree of this name.
        ValueError
            As `stepstone.load`.
        """
        check_loadable_name(checkpointable_name)
        with get_context(self._context), self._loading(step) as opened:
            name = tree_name(opened, None, checkpointable_name)
            return load_item(opened, name, target_of(abstract_state))

    def load_async(
        self,
        step: Step | None = None,
        abstract_state: Any = None,
        *,
        checkpointable_name: str = STATE_NAME,
    ) -> AsyncResponse[Any]:
        """As `load`, on a thread of its own. Every error is raised by the response's `result()`."""
        return in_background(
            lambda: self.load(step, abstract_state, checkpointable_name=checkpointable_name),
            f"loading from {self._manager.directory}",
        )

    def load_checkpointables(
        self, step: Step | None = None, abstract_checkpointables: Any = None
    ) -> dict[str, Any]:
        """As `load`, of several objects; see `stepstone.load_checkpointables`."""
        with get_context(self._context), self._loading(step) as opened:
            return load_items(opened, target_of(abstract_checkpointables))

    def load_checkpointables_async(
        self, step: Step | None = None, abstract_checkpointables: Any = None
    ) -> AsyncResponse[dict[str, Any]]:
        """As `load_checkpointables`, on a thread of its own; see `load_async`."""
        return in_background(
            lambda: self.load_checkpointables(step, abstract_checkpointables),
            f"loading from {self._manager.directory}",
        )

    def metadata(self, step: Step | None = None) -> CheckpointMetadata[PyTreeMetadata]:
        """What is known of a step's tree; reads no arrays. See `stepstone.v1.metadata`."""
        with get_context(self._context), self._steps.held(step) as held:
            return self._steps.facts(held, describe_item(held, tree_name(held, None, AUTO_NAME)))

    def checkpointables_metadata(
        self, step: Step | None = None
    ) -> CheckpointMetadata[dict[str, Any]]:
        """As `metadata`, of all objects by name."""
        with get_context(self._context), self._steps.held(step) as held:
            return self._steps.facts(
                held, {name: describe_item(held, name) for name in held.item_handlers()}
            )

    def root_metadata(self) -> RootMetadata:
        """What is stored with the run."""
        found = self._manager.root_metadata()
        return RootMetadata(
            directory=self.directory, custom_metadata=_json.loads(found) if found else {}
        )

    def export(self, file: PathLike, **options: Any) -> ExportReport:
        """Writes steps into a portable file, when the save or deletion under way has ended.

        Parameters, result and errors are those of `stepstone.export`.
        """
        self.wait()
        return export(self.directory, file, **options)

    def delete(
        self,
        step: Step,
        *,
        checkpointable_name: str | None = None,
        missing_ok: bool = False,
    ) -> bool:
        """Deletes a step, or one object of it, whatever the preservation policy says. Atomic.

        Without an object it is one small commit; with one, the others are saved again: see
        `stepstone.delete`. Waits for the save or deletion under way.

        Parameters
        ----------
        step : int or CheckpointMetadata
        checkpointable_name : str, optional
            The object.
        missing_ok : bool
            Whether the step, or the object, need not be there.

        Returns
        -------
        bool
            Whether something was deleted.

        Raises
        ------
        StepNotFoundError, FileNotFoundError
            It is not there, and `missing_ok` is False.
        ValueError
            The name cannot be one, or is that of the only object.
        """
        response = self.delete_async(
            step, checkpointable_name=checkpointable_name, missing_ok=missing_ok
        )
        self._wait_for_deletion()
        return response.result()

    def delete_async(
        self,
        step: Step,
        *,
        checkpointable_name: str | None = None,
        missing_ok: bool = False,
    ) -> AsyncResponse[bool]:
        """As `delete`, on a thread of its own; later saves and deletions wait for it."""
        number = step_number(step)
        if checkpointable_name is not None:
            check_deletable_name(checkpointable_name)
        self.wait()
        if not missing_ok and number not in self._manager.all_steps():
            raise StepNotFoundError(f"there is no step {number} in {self._manager.directory}")
        self._deletion = in_background(
            lambda: self._delete(number, checkpointable_name, missing_ok),
            f"deleting step {number}",
        )
        return self._deletion

    def cancel(self, step: Step | None = None) -> None:
        """Takes back the save that is under way, and `step` if given.

        A save is over in the time of one write: it is waited for, and then its step is deleted. A
        step that it was to replace is gone, too.
        """
        save = self._saves.last
        doomed = {step_number(step)} if step is not None else set()
        if save is not None and not save.done():
            doomed.add(save.step)
            with contextlib.suppress(Exception):  # Of a save that nobody wants any more.
                save.result()
        for number in doomed:
            self.delete(number, missing_ok=True)

    def reload(self) -> None:
        """Looks for steps that another process has saved or deleted."""
        self._wait_for_deletion()
        self._manager.reload()

    def reached_preemption(self, step: int) -> bool:
        """Whether the process has been told to end, and `save` had the occasion to save since."""
        return self._manager.reached_preemption(step_number(step))

    def is_saving_in_progress(self) -> bool:
        """Whether a save is under way."""
        return self._manager.is_saving_in_progress()

    def wait(self) -> None:
        """Waits for the save and the deletion under way, and raises errors nobody has seen."""
        self._wait_for_deletion()
        self._saves.wait()

    def close(self) -> None:
        """As `wait`; every later call is a ClosedError. May be called again."""
        _exit.forget(self)
        _live_managers.discard(self)
        try:
            self.wait()
        finally:
            self._manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"training.Checkpointer({self._manager.directory!r})"

    def _delete(self, step: int, name: str | None, missing_ok: bool) -> bool:
        try:
            if name is None:
                self._manager.delete_step(step)
                return True
            held = self._manager.hold_committed(step)
        except NotFoundError as error:
            if missing_ok:
                return False
            raise StepNotFoundError(str(error)) from error
        try:
            items = items_without(held, name, missing_ok)
            if items:
                replace_step(self._manager, held.metadata(), items)
                self._manager.wait_until_finished()
            return bool(items)
        finally:
            held.release()

    def _wait_for_deletion(self) -> None:
        deletion, self._deletion = self._deletion, None
        if deletion is not None:
            deletion.result()

    @contextlib.contextmanager
    def _loading(self, step: Step | None) -> Iterator[_native.Step]:
        self._wait_for_deletion()
        if self._saves.last is not None:
            self._saves.last.finish()  # Its error is for the next save, or wait().
        with self._steps.loading(step) as loading:
            yield loading
