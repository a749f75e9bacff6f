"""The steps of a run, as `training.Checkpointer` reads them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from typing import Any

from stepstone import _json, _native
from stepstone._files import as_path
from stepstone._step_statistics import RestoreStepStatistics
from stepstone.errors import InvalidArgumentError, NotFoundError
from stepstone.functions import step_facts
from stepstone.training.metadata import CheckpointMetadata

Step = int | CheckpointMetadata[Any]


def step_number(step: Step) -> int:
    """The number of a step.

    Raises
    ------
    TypeError
        It is none.
    ValueError
        It is negative.
    """
    number = step.step if isinstance(step, CheckpointMetadata) else step
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        raise TypeError(f"a step has to be an int, not {step!r}")
    if number < 0:
        raise InvalidArgumentError(f"step {number} is negative")
    return int(number)


class Steps:
    """Opens and describes steps.

    Parameters
    ----------
    manager : _native.Manager
    name_format : NameFormat
        How steps are shown in paths.
    logger : AbstractLogger
        Is told of each step that was loaded.
    """

    def __init__(self, manager: _native.Manager, name_format: Any, logger: Any) -> None:
        self._manager = manager
        self._name_format = name_format
        self._logger = logger

    @contextlib.contextmanager
    def held(self, step: Step | None) -> Iterator[_native.Step]:
        """A step, the newest if it is None, without waiting for saves."""
        number = None if step is None else step_number(step)
        held = self._manager.hold_committed(number)
        try:
            yield held
        finally:
            held.release()

    @contextlib.contextmanager
    def loading(self, step: Step | None) -> Iterator[_native.Step]:
        """As `held`, for a load: waits for saves, and tells the logger of the load."""
        number = None if step is None else step_number(step)
        begun = time.time()
        held = self._manager.hold(number)
        opened, found = time.time(), held.step
        try:
            yield held
        finally:
            held.release()
        ended = time.time()
        entry = RestoreStepStatistics(
            step=found,
            directory=self._manager.directory,
            checkpointer_start_time=opened,
            checkpointer_duration_secs=ended - opened,
            checkpoint_manager_start_time=begun,
            checkpoint_manager_duration_secs=ended - begun,
        )
        self._logger.log_entry(dataclasses.asdict(entry))

    def describe(self, step: int) -> CheckpointMetadata[None] | None:
        """What is known of a step without its items; None: it was retired since it was listed."""
        try:
            with self.held(step) as held:
                return self.facts(held, None)
        except NotFoundError:
            return None

    def facts(self, held: _native.Step, metadata: Any) -> CheckpointMetadata[Any]:
        """What is known of a step, with `metadata` of its items."""
        metrics = held.metadata().metrics
        name = self._name_format.build_name(held.step)
        return CheckpointMetadata(
            held.step,
            as_path(os.path.join(self._manager.directory, name)),
            metadata=metadata,
            metrics=_json.loads(metrics) if metrics else None,
            **step_facts(held),
        )
