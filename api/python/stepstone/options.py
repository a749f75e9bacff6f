"""Options of managers and checkpointers.

Orbax's own objects of the same names are taken wherever these are. Options that have no meaning
here are accepted, and their documentation says why they change nothing.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from stepstone import _native
from stepstone._policies import Guard, ranks_like
from stepstone.errors import InvalidArgumentError
from stepstone.preservation_policy import (
    AnyPreservationPolicy,
    BestN,
    EveryNSeconds,
    EveryNSteps,
    LatestN,
    Newest,
    PreservationPolicy,
    is_decided_natively,
    preservation_policy_to_native,
)
from stepstone.save_decision_policy import SaveDecisionPolicy, save_policy_to_native
from stepstone.step import NameFormat

__all__ = [
    "AsyncOptions",
    "AtomicityMode",
    "AtomicityOptions",
    "CheckpointManagerOptions",
    "FileOptions",
    "MemoryLimitOptions",
    "MultiprocessingOptions",
    "StorageOptions",
]

_logger = logging.getLogger("stepstone")


@dataclasses.dataclass
class AsyncOptions:
    """How saves in the background behave.

    Parameters
    ----------
    timeout_secs : float or None
        How long a call waits at most for saves in the background, in seconds; then it raises
        TimeoutError, and the saves go on. None: as long as it takes.
    barrier_sync_fn : callable, optional
        No effect: one process writes, and there is nobody to wait for.
    post_finalization_callback : callable, optional
        Called without arguments, by a thread in the background, when a step has become durable.
    create_directories_asynchronously : bool
        No effect: a step is no directory.
    """

    timeout_secs: float | None = 1200
    barrier_sync_fn: Callable[..., Any] | None = None
    post_finalization_callback: Callable[[], Any] | None = None
    create_directories_asynchronously: bool = True


@dataclasses.dataclass
class MultiprocessingOptions:
    """Which of several processes does what. No effect: one process writes, any others only read.

    Parameters
    ----------
    primary_host : int, optional
        No effect.
    active_processes : set of int, optional
        No effect.
    barrier_sync_key_prefix : str, optional
        No effect.
    """

    primary_host: int | None = 0
    active_processes: set[int] | None = None
    barrier_sync_key_prefix: str | None = None


class AtomicityMode(str, enum.Enum):
    """How Orbax makes a step appear at once. No effect: a commit is one synced batch, always."""

    AUTO = "auto"
    COMMIT_FILE = "commit_file"
    ATOMIC_RENAME = "atomic_rename"


@dataclasses.dataclass(frozen=True)
class AtomicityOptions:
    """How Orbax makes a step appear at once. No effect: a commit is one synced batch, always."""

    mode: AtomicityMode = AtomicityMode.AUTO
    allow_legacy_atomic_rename: bool = False


@dataclasses.dataclass(frozen=True)
class FileOptions:
    """How files are created.

    Parameters
    ----------
    path_permission_mode : int, optional
        No effect: files have the permissions that the process's umask leaves. Set that, or the
        permissions of the directory.
    skip_sync_file_validations : bool
        No effect: nothing is looked for in the file system before a save.
    """

    path_permission_mode: int | None = None
    skip_sync_file_validations: bool = False


@dataclasses.dataclass
class MemoryLimitOptions:
    """How much memory Orbax's transfers may take.

    Parameters
    ----------
    max_transfer_concurrent_gb : int, optional
        No effect: a save holds at most one copy of what it has to copy;
        `CheckpointManagerOptions.async_queue_size_bytes` bounds several saves together.
    """

    max_transfer_concurrent_gb: int | None = None


@dataclasses.dataclass(frozen=True)
class StorageOptions:
    """How leaves are stored. Restores need no options: each part says how it was stored.

    Parameters
    ----------
    compression : str
        "auto": where it makes the save shorter; "none"; "always"; "delta": what hardly changes from
        step to step is stored as its difference.
    compression_rules : mapping of str to str, or sequence of pairs
        From patterns of the leaves' paths ("opt_state/*") to another compression; the first that
        matches holds.
    share : bool
        Whether a save refers to what is stored already, by the step before or as another leaf,
        instead of storing it again.
    recompress_older_than : int, optional
        Compresses in the background all but the so many newest steps.
    """

    compression: str = "auto"
    compression_rules: Mapping[str, str] | Sequence[tuple[str, str]] = ()
    share: bool = True
    recompress_older_than: int | None = None

    def to_native(self) -> _native.StorageOptions:
        """The library's form."""
        rules = self.compression_rules
        return _native.StorageOptions(
            compression=self.compression,
            compression_rules=list(rules.items() if isinstance(rules, Mapping) else rules),
            share=self.share,
            recompress_older_than=self.recompress_older_than,
        )


@dataclasses.dataclass
class CheckpointManagerOptions:
    """Options of a `CheckpointManager`.

    Those up to `lightweight_initialize` are Orbax's; "same" means that they do what they do there.
    The rest have to be given by name.

    Parameters
    ----------
    save_interval_steps : int
        Save the multiples of it. Same, but 0 is refused at once.
    max_to_keep : int, optional
        Keep the newest so many; None: all. Better: the step that is being saved always survives its
        own commit, older steps go in that same commit, and 0, which would keep nothing, is refused.
    keep_time_interval : datetime.timedelta, optional
        Besides, keep the first checkpoint, and each that began so much later than the last one kept
        by this rule. Same.
    keep_period : int, optional
        Besides, keep the multiples of it. Same.
    best_fn : callable, optional
        From a checkpoint's metrics to the number that ranks it: `max_to_keep` keeps the best
        instead of the newest. Better: the newest is kept on top of them, so that a run can be
        resumed; NaN ranks last; it may return None for metrics that do not say, and one that
        raises counts as such, with a warning.
    best_mode : str
        "max" or "min": which number is the best. Same.
    keep_checkpoints_without_metrics : bool
        False: with `best_fn`, checkpoints without metrics go first. Same.
    step_prefix, step_format_fixed_length, step_name_format
        What steps are called: "step_00023". Better: names are for showing, and for the paths that
        `ocp.step` makes; in the store a step is a number, so that changing them loses nothing.
    create : bool
        Create the directory, and those above it, if it is missing. Better: False never does.
    cleanup_tmp_directories : bool
        No effect: a save that was interrupted never existed, and leaves nothing to clean up.
    save_on_steps : iterable of int, optional
        Save these as well. Same.
    single_host_load_and_broadcast : bool
        No effect: one process. It has to agree with `step_name_format`'s, as in Orbax.
    todelete_subdir, todelete_full_path : str, optional
        No effect: a step goes with a record of some bytes in the commit; there is no directory to
        move. Both together are refused, as in Orbax.
    enable_background_delete, num_deletion_threads
        No effect: space is always freed in the background.
    read_only : bool
        Write nothing: `save` returns False and `delete` does nothing, with a warning. Better:
        `save(force=True)` raises instead of saving. What says when to save and what to keep is
        reset, as in Orbax.
    enable_async_checkpointing : bool
        False: `save` returns when the step is durable. Same.
    async_options : AsyncOptions, optional
        See there. `post_finalization_callback` needs `enable_async_checkpointing`. Same.
    multiprocessing_options : MultiprocessingOptions
        No effect: one process writes. Policies are given it.
    should_save_fn : callable, optional
        (step, newest step or None) -> whether to save: instead of the interval and the list. Same.
    file_options : FileOptions
        No effect, see there.
    atomicity_options, temporary_path_class
        No effect: a commit is one synced batch; nothing is written elsewhere first and renamed.
    save_root_metadata : bool
        False: `metadata` of the manager is not stored. Same.
    save_decision_policy : SaveDecisionPolicy, optional
        Instead of all that says when to save, see `checkpoint_managers`. Same.
    preservation_policy : PreservationPolicy, optional
        Instead of all that says what to keep; does not go with max_to_keep, keep_time_interval and
        keep_period. Better: what it lets go goes in the same commit as the new step appears.
    prevent_write_metrics : bool
        True: metrics are not stored, and only this manager knows them. Better: otherwise they are
        always stored with the step, with or without `best_fn`.
    enable_should_save_is_saving_in_progress_check : bool
        False: policies are always told that no save is in progress. Same.
    enable_per_process_directory_creation : bool
        No effect: a step is no directory. As in Orbax, needs a `primary_host` of None.
    lightweight_initialize : bool
        No effect: opening reads one record per step, and no file of any.
    storage : StorageOptions, optional
        Compression and sharing.
    async_queue_size_bytes : int
        How many bytes of leaves the saves in the background may hold together. 0: one save at a
        time, so that there is at most one copy of the state.
    staging_reserve_bytes : int
        So much memory for copies is obtained when the manager is constructed, instead of during
        the first save.
    preemption_signals : iterable of int
        Signals, such as `signal.SIGTERM`, that mean that the process is to end: the next step is
        saved whatever the interval, waited for, and `reached_preemption` says so.
    on_save : callable, optional
        Called with the `SaveStatistics` of each save when its step is durable, by a thread in the
        background. It must not wait for the manager.
    progress : callable, optional
        `progress(done_bytes, total_bytes)` for a progress bar: of each save and restore, when its
        size is known and when it is done; and now and then while a save writes. From threads of the
        library's, but for the beginning, and never twice at once for one save. It must not wait for
        the manager. With tqdm:
        ``lambda done, total: (bar.reset(total), bar.update(done))``, with rich
        ``lambda done, total: bar.update(task, completed=done, total=total)``.

    Raises
    ------
    ValueError
        An option, or a pair of them, is impossible. Some pairs are found by the manager only.

    Examples
    --------
    >>> options = CheckpointManagerOptions(save_interval_steps=100, max_to_keep=3)
    >>> CheckpointManagerOptions(best_mode="middle")
    Traceback (most recent call last):
    stepstone.errors.InvalidArgumentError: best_mode is 'middle': it has to be 'max' or 'min'
    """

    save_interval_steps: int = 1
    max_to_keep: int | None = None
    keep_time_interval: datetime.timedelta | None = None
    keep_period: int | None = None
    best_fn: Callable[[Any], float | None] | None = None
    best_mode: str = "max"
    keep_checkpoints_without_metrics: bool = True
    step_prefix: str | None = None
    step_format_fixed_length: int | None = None
    step_name_format: NameFormat | None = None
    create: bool = True
    cleanup_tmp_directories: bool = False
    save_on_steps: Iterable[int] | None = None
    single_host_load_and_broadcast: bool = False
    todelete_subdir: str | None = None
    todelete_full_path: str | None = None
    enable_background_delete: bool = False
    num_deletion_threads: int | None = None
    read_only: bool = False
    enable_async_checkpointing: bool = True
    async_options: AsyncOptions | None = None
    multiprocessing_options: MultiprocessingOptions = dataclasses.field(
        default_factory=MultiprocessingOptions
    )
    should_save_fn: Callable[[int, int | None], bool] | None = None
    file_options: FileOptions = dataclasses.field(default_factory=FileOptions)
    atomicity_options: AtomicityOptions | None = None
    save_root_metadata: bool = True
    temporary_path_class: type | None = None
    save_decision_policy: SaveDecisionPolicy | None = None
    preservation_policy: PreservationPolicy | None = None
    prevent_write_metrics: bool = False
    enable_should_save_is_saving_in_progress_check: bool = True
    enable_per_process_directory_creation: bool = False
    lightweight_initialize: bool = False
    _: dataclasses.KW_ONLY
    storage: StorageOptions | None = None
    async_queue_size_bytes: int = 0
    staging_reserve_bytes: int = 0
    preemption_signals: Iterable[int] = ()
    on_save: Callable[[_native.SaveStatistics], Any] | None = None
    progress: Callable[[int, int], Any] | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_pairs()
        if self.read_only:
            self._reset_what_writes()
        self.save_on_steps = frozenset(self.save_on_steps or ())

    def _check_numbers(self) -> None:
        if self.best_mode not in ("max", "min"):
            raise InvalidArgumentError(
                f"best_mode is {self.best_mode!r}: it has to be 'max' or 'min'"
            )
        if self.preservation_policy is None and self.max_to_keep is not None:
            if self.max_to_keep < 1:
                raise InvalidArgumentError(
                    f"max_to_keep is {self.max_to_keep}: it has to be at least 1, or None to keep "
                    "all"
                )
        if self.save_interval_steps < 1 and not self.read_only:
            raise InvalidArgumentError(
                f"save_interval_steps is {self.save_interval_steps}: it has to be at least 1"
            )
        if self.keep_period is not None and self.keep_period < 1:
            raise InvalidArgumentError(
                f"keep_period is {self.keep_period}: it has to be at least 1, or None"
            )

    def _check_pairs(self) -> None:
        format_broadcasts = bool(
            getattr(self.step_name_format, "single_host_load_and_broadcast", False)
        )
        if self.step_name_format and self.single_host_load_and_broadcast != format_broadcasts:
            raise InvalidArgumentError(
                "single_host_load_and_broadcast has to be the same in the options and in "
                "step_name_format"
            )
        if self.todelete_subdir is not None and self.todelete_full_path is not None:
            raise InvalidArgumentError("todelete_subdir and todelete_full_path do not go together")
        if (
            self.enable_per_process_directory_creation
            and self.multiprocessing_options.primary_host is not None
        ):
            raise InvalidArgumentError(
                "enable_per_process_directory_creation needs a primary_host of None"
            )

    def _reset_what_writes(self) -> None:
        """As in Orbax, so that who looks at the options sees what holds."""
        values: dict[str, Any] = {
            "max_to_keep": None,
            "keep_time_interval": None,
            "keep_period": None,
            "save_on_steps": None,
            "should_save_fn": None,
            "cleanup_tmp_directories": False,
            "todelete_subdir": None,
            "todelete_full_path": None,
        }
        lost = [name for name, value in values.items() if getattr(self, name) != value]
        if lost:
            _logger.warning("read_only: %s without effect", ", ".join(lost))
        for name, value in values.items():
            setattr(self, name, value)
        self.save_interval_steps = 0
        self.create = False

    def to_native(
        self,
        *,
        guard: Guard | None = None,
        create: bool | None = None,
        is_async: bool | None = None,
        on_save: Callable[[_native.SaveStatistics], Any] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> _native.ManagerOptions:
        """The library's form.

        Parameters
        ----------
        guard : Guard, optional
            Where exceptions of policies are kept.
        create, is_async : bool, optional
            Instead of the options `create` and `enable_async_checkpointing`.
        on_save, progress : callable, optional
            Instead of the options.

        Raises
        ------
        ValueError
            Options that do not go together.
        """
        guard = Guard() if guard is None else guard
        asynchronous = self.async_options or AsyncOptions()
        should_save = self.should_save_fn
        policy = self.save_decision_policy
        limits = (self.max_to_keep, self.keep_time_interval, self.keep_period)
        if self.preservation_policy is not None and any(limit is not None for limit in limits):
            raise InvalidArgumentError(
                "preservation_policy takes the place of max_to_keep, keep_time_interval and "
                "keep_period: give one or the others"
            )
        return _native.ManagerOptions(
            save_interval_steps=max(self.save_interval_steps, 1),
            save_on_steps=[step for step in self.save_on_steps or () if step >= 0],
            should_save_fn=None if should_save is None else guard.wrap(should_save),
            save_policy=None
            if policy is None
            else save_policy_to_native(policy, guard, self.multiprocessing_options),
            preservation_policy=self.preservation_to_native(guard),
            best_fn=self.ranking_fn(),
            best_mode=self.best_mode,
            prevent_write_metrics=self.prevent_write_metrics,
            step_prefix=self.step_prefix or "",
            step_format_fixed_length=self.step_format_fixed_length or 0,
            create=self.create if create is None else create,
            read_only=self.read_only,
            is_async=self.enable_async_checkpointing if is_async is None else is_async,
            timeout_s=asynchronous.timeout_secs,
            post_finalization_callback=asynchronous.post_finalization_callback,
            on_save=self.on_save if on_save is None else on_save,
            check_is_saving_in_progress=self.enable_should_save_is_saving_in_progress_check,
            save_root_metadata=self.save_root_metadata,
            async_queue_size_bytes=self.async_queue_size_bytes,
            staging_reserve_bytes=self.staging_reserve_bytes,
            preemption_signals=[int(signal) for signal in self.preemption_signals],
            storage=None if self.storage is None else self.storage.to_native(),
            progress=self.progress if progress is None else progress,
        )

    def effective_preservation_policy(self) -> PreservationPolicy | None:
        """What is kept, as one policy; None: everything."""
        if self.preservation_policy is not None:
            return self.preservation_policy
        if self.max_to_keep is None:
            return None
        policies: list[PreservationPolicy] = []
        if self.keep_period is not None:
            policies.append(EveryNSteps(self.keep_period))
        if self.keep_time_interval is not None:
            policies.append(EveryNSeconds(self.keep_time_interval.total_seconds()))
        best_fn = self.ranking_fn()
        if best_fn is None:
            policies += [LatestN(self.max_to_keep), Newest()]
        else:
            policies.append(
                BestN(
                    get_metric_fn=best_fn,
                    reverse=self.best_mode == "min",
                    n=self.max_to_keep,
                    keep_checkpoints_without_metrics=self.keep_checkpoints_without_metrics,
                )
            )
        return AnyPreservationPolicy(policies)

    def preservation_to_native(
        self, guard: Guard, *, if_native: bool = False
    ) -> _native.PreservationPolicy | None:
        """The library's form of `effective_preservation_policy`.

        Parameters
        ----------
        guard : Guard
            Where exceptions of policies are kept.
        if_native : bool
            None as well if a policy is written in Python, which may count how often it is asked.
        """
        policy = self.effective_preservation_policy()
        if policy is None or (if_native and not is_decided_natively(policy)):
            return None
        return preservation_policy_to_native(policy, guard)

    def ranking_fn(self) -> Callable[[Any], float | None] | None:
        """`best_fn`, with a warning and None where it raises; None: there is no `best_fn`."""
        best_fn = self.best_fn
        if best_fn is None:
            return None

        @ranks_like(best_fn)
        def rank(metrics: Any) -> float | None:
            try:
                return best_fn(metrics)
            except Exception as error:
                _logger.warning(
                    "best_fn does not rank the metrics %r: %s: %s",
                    metrics,
                    type(error).__name__,
                    error,
                )
                return None

        return rank


def adopt_options(options: Any) -> CheckpointManagerOptions:
    """Options of the package for ours, Orbax's, or None: the defaults.

    Raises
    ------
    TypeError
        It is something else.
    """
    if options is None:
        return CheckpointManagerOptions()
    if isinstance(options, CheckpointManagerOptions):
        return options
    names = [field.name for field in dataclasses.fields(CheckpointManagerOptions)]
    values = {name: getattr(options, name) for name in names if hasattr(options, name)}
    if "save_interval_steps" not in values:
        raise TypeError(
            f"options have to be CheckpointManagerOptions, not {type(options).__name__}"
        )
    return CheckpointManagerOptions(**values)
