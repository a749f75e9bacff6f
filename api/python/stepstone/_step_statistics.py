"""How long saves and restores took, and how much they moved: the entries that loggers get.

Times are seconds; those that say when something began are seconds since 1970.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class SaveStepStatistics:
    """What is known when `CheckpointManager.save` returns; the entry of `event_type` "save".

    Parameters
    ----------
    step : int
        The step.
    event_type : str
        "save".
    directory : str
        The store's directory.
    reached_preemption : bool
        Whether the process has been told to end.
    preemption_received_at : float
        When `save` was called, if it has.
    synchronous : bool
        Whether the step is durable already.
    wait_for_prev_start_time, wait_for_prev_duration_secs : float
        The wait for earlier saves. The library waits within the save and tells it afterwards: as
        `wait_duration_secs` of the entry "commit", and here only of synchronous saves, which do not
        wait.
    time_between_consecutive_saves_sec : float
        From the end of the previous call that began a save to the beginning of this one; None for
        the first.
    checkpointer_blocking_start_time, checkpointer_blocking_duration_secs : float
        The part that is spent in the library: planning, waiting, copying.
    get_old_steps_start_time, get_old_steps_duration_secs : float
        None: steps to be retired are chosen within the commit.
    checkpoint_manager_blocking_start_time, checkpoint_manager_blocking_duration_secs : float
        The whole call.
    """

    step: int | None = None
    event_type: str | None = "save"
    directory: str | None = None
    reached_preemption: bool | None = False
    preemption_received_at: float | None = None
    synchronous: bool | None = False
    wait_for_prev_start_time: float | None = None
    wait_for_prev_duration_secs: float | None = None
    time_between_consecutive_saves_sec: float | None = None
    checkpointer_blocking_start_time: float | None = None
    checkpointer_blocking_duration_secs: float | None = None
    get_old_steps_start_time: float | None = None
    get_old_steps_duration_secs: float | None = None
    checkpoint_manager_blocking_start_time: float | None = None
    checkpoint_manager_blocking_duration_secs: float | None = None


@dataclasses.dataclass
class CommitStepStatistics:
    """What is known when a step has become durable; the entry of `event_type` "commit".

    Parameters
    ----------
    step : int
        The step.
    event_type : str
        "commit".
    directory : str
        The store's directory.
    synchronous : bool
        Whether `save` waited for it.
    leaf_count, thread_count : int
        Leaves in the step, and threads that wrote.
    size_bytes, stored_bytes, shared_bytes : int
        Of the leaves; of what was written for them, records included; and of the leaves that were
        stored already, by an earlier step or as another leaf.
    wait_duration_secs : float
        For earlier saves.
    stall_duration_secs : float
        All that the trainer waited for.
    write_duration_secs, commit_duration_secs : float
        Hashing and writing; making it visible, and older steps invisible.
    total_duration_secs : float
        From the call of `save` on.
    """

    step: int | None = None
    event_type: str = "commit"
    directory: str | None = None
    synchronous: bool = False
    leaf_count: int = 0
    thread_count: int = 0
    size_bytes: int = 0
    stored_bytes: int = 0
    shared_bytes: int = 0
    wait_duration_secs: float = 0.0
    stall_duration_secs: float = 0.0
    write_duration_secs: float = 0.0
    commit_duration_secs: float = 0.0
    total_duration_secs: float = 0.0


@dataclasses.dataclass
class RestoreStepStatistics:
    """What is known when `CheckpointManager.restore` returns; the entry of `event_type` "restore".

    Parameters
    ----------
    step : int
        The step.
    event_type : str
        "restore".
    directory : str
        The store's directory.
    checkpointer_start_time, checkpointer_duration_secs : float
        The part that reads.
    checkpoint_manager_start_time, checkpoint_manager_duration_secs : float
        The whole call, with any wait for saves in the background.
    """

    step: int | None = None
    event_type: str | None = "restore"
    directory: str | None = None
    checkpointer_start_time: float | None = None
    checkpointer_duration_secs: float | None = None
    checkpoint_manager_start_time: float | None = None
    checkpoint_manager_duration_secs: float | None = None
