"""Options: their defaults, what they refuse, and what they do."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import pathlib
from typing import Any

import pytest

import stepstone as ocp
from stepstone import options as options_module

ARGS = ocp.args.StandardSave({"a": 1})


def steps_of(directory: pathlib.Path, count: int = 8, **options: Any) -> list[int]:
    """The steps that are left of `count`, with metrics that are best at steps 2 and 5."""
    made = ocp.CheckpointManagerOptions(**options)
    with ocp.CheckpointManager(directory, options=made) as manager:
        for step in range(count):
            manager.save(step, args=ARGS, metrics={"m": abs(step - 2) * abs(step - 5)})
            assert manager.all_steps()[-1:] != [step] or manager.latest_step() == step
        shown = manager.all_steps()
        manager.wait_until_finished()
        assert shown == manager.all_steps()
        return shown


@pytest.mark.parametrize(
    "options, steps",
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"save_interval_steps": 3}, [0, 3, 6]),
        ({"save_interval_steps": 3, "save_on_steps": [1, 5]}, [0, 1, 3, 5, 6]),
        ({"save_interval_steps": 5, "max_to_keep": 1}, [5]),
        ({"max_to_keep": 2}, [6, 7]),
        ({"max_to_keep": 1, "keep_period": 4}, [0, 4, 7]),
        ({"keep_period": 4}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"max_to_keep": 1, "keep_time_interval": datetime.timedelta(hours=1)}, [0, 7]),
        ({"should_save_fn": lambda step, latest: step in (2, 3), "save_on_steps": [7]}, [2, 3]),
        (
            {"should_save_fn": lambda step, latest: latest is None or step - latest >= 3},
            [0, 3, 6],
        ),
        (
            {"max_to_keep": 2, "best_fn": lambda found: found["m"], "best_mode": "min"},
            [2, 5, 7],
        ),
        ({"max_to_keep": 2, "best_fn": lambda found: found["m"], "best_mode": "max"}, [0, 7]),
    ],
)
@pytest.mark.parametrize("is_async", [True, False])
def test_options_choose_what_is_saved_and_kept(
    tmp_path: pathlib.Path, options: dict[str, Any], steps: list[int], is_async: bool
) -> None:
    assert steps_of(tmp_path, **options, enable_async_checkpointing=is_async) == steps


NO_EFFECT: list[dict[str, Any]] = [
    {"cleanup_tmp_directories": True},
    {"todelete_subdir": "trash"},
    {"todelete_full_path": "trash"},
    {"enable_background_delete": True, "num_deletion_threads": 3},
    {"single_host_load_and_broadcast": True},
    {"multiprocessing_options": options_module.MultiprocessingOptions(active_processes={0})},
    {
        "multiprocessing_options": options_module.MultiprocessingOptions(primary_host=None),
        "enable_per_process_directory_creation": True,
    },
    {"file_options": options_module.FileOptions(path_permission_mode=0o750)},
    {"atomicity_options": options_module.AtomicityOptions(allow_legacy_atomic_rename=True)},
    {"temporary_path_class": object},
    {"lightweight_initialize": True},
    {"enable_should_save_is_saving_in_progress_check": False},
    {"save_root_metadata": False},
    {"async_options": ocp.AsyncOptions(timeout_secs=60, create_directories_asynchronously=False)},
    {"step_prefix": "step", "step_format_fixed_length": 5},
    {"storage": options_module.StorageOptions(compression="none", share=False)},
    {"storage": options_module.StorageOptions(compression_rules={"a": "always"})},
    {"async_queue_size_bytes": 1 << 20, "staging_reserve_bytes": 1 << 20},
]


@pytest.mark.parametrize("options", NO_EFFECT, ids=lambda options: " ".join(options))
def test_other_options_change_nothing_about_that(
    tmp_path: pathlib.Path, options: dict[str, Any]
) -> None:
    assert steps_of(tmp_path, max_to_keep=2, count=4, **options) == [2, 3]


IMPOSSIBLE: list[dict[str, Any]] = [
    {"best_mode": "middle"},
    {"max_to_keep": -1},
    {"max_to_keep": 0},
    {"save_interval_steps": 0},
    {"keep_period": 0},
    {"todelete_subdir": "a", "todelete_full_path": "b"},
    {"enable_per_process_directory_creation": True},
    {
        "single_host_load_and_broadcast": True,
        "step_name_format": ocp.path.step.standard_name_format(),
    },
    {
        "step_name_format": ocp.path.step.standard_name_format(
            single_host_load_and_broadcast=True
        )
    },
]


@pytest.mark.parametrize("options", IMPOSSIBLE, ids=lambda options: " ".join(options))
def test_impossible_options_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options)).split("_")[0]):
        ocp.CheckpointManagerOptions(**options)


UNFIT: list[dict[str, Any]] = [
    {"preservation_policy": ocp.checkpoint_managers.LatestN(2), "max_to_keep": 2},
    {"preservation_policy": ocp.checkpoint_managers.LatestN(2), "keep_period": 2},
    {
        "preservation_policy": ocp.checkpoint_managers.LatestN(2),
        "keep_time_interval": datetime.timedelta(seconds=1),
    },
    {
        "enable_async_checkpointing": False,
        "async_options": ocp.AsyncOptions(post_finalization_callback=print),
    },
    {"storage": options_module.StorageOptions(compression="some")},
    {"async_options": ocp.AsyncOptions(timeout_secs=-1)},
]


@pytest.mark.parametrize("options", UNFIT, ids=lambda options: " ".join(options))
def test_options_that_do_not_go_together_are_refused_by_the_manager(
    tmp_path: pathlib.Path, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError):
        ocp.CheckpointManager(tmp_path / "run", options=ocp.CheckpointManagerOptions(**options))
    assert not (tmp_path / "run").exists()


def test_read_only_resets_what_says_when_to_save_and_what_to_keep(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = ocp.CheckpointManagerOptions(read_only=True)
    assert caplog.records == []
    options = ocp.CheckpointManagerOptions(
        read_only=True, max_to_keep=2, keep_period=3, save_on_steps=[1], todelete_subdir="trash",
        cleanup_tmp_directories=True, should_save_fn=lambda step, latest: True,
        keep_time_interval=datetime.timedelta(seconds=1),
    )
    assert options == plain
    assert not options.create and options.save_interval_steps == 0
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "max_to_keep" in record.message


def test_post_finalization_callback_is_called_for_each_save_in_the_background(
    tmp_path: pathlib.Path,
) -> None:
    calls: list[int] = []
    callback = ocp.AsyncOptions(post_finalization_callback=lambda: calls.append(1))
    assert steps_of(tmp_path, count=3, async_options=callback) == [0, 1, 2]
    assert len(calls) == 3


def test_a_wait_that_takes_too_long_is_a_timeout_and_the_save_goes_on(
    tmp_path: pathlib.Path,
) -> None:
    import threading

    may_end = threading.Event()
    asynchronous = ocp.AsyncOptions(
        timeout_secs=0.05, post_finalization_callback=lambda: may_end.wait(30)
    )
    made = ocp.CheckpointManagerOptions(async_options=asynchronous)
    manager = ocp.CheckpointManager(tmp_path, options=made)
    manager.save(0, args=ARGS)
    for call in (manager.wait_until_finished, manager.close):
        with pytest.raises(TimeoutError):
            call()
    may_end.set()
    manager.wait_until_finished()
    manager.close()
    assert manager.all_steps() == [0]


def test_custom_names_of_steps_are_shown(tmp_path: pathlib.Path) -> None:
    class Epochs:
        def build_name(self, step: int) -> str:
            return f"epoch-{step}"

        def find_all(self, base_path: Any) -> Any:
            raise NotImplementedError

        def find_step(self, base_path: Any, step: int) -> Any:
            raise NotImplementedError

    made = ocp.CheckpointManagerOptions(step_name_format=Epochs())
    with ocp.CheckpointManager(tmp_path, options=made) as manager:
        manager.save(3, args=ARGS)
        assert "epoch-3" in repr(manager)
        assert manager.restore(3) == {"a": 1}


def test_defaults_and_order_are_those_of_orbax() -> None:
    orbax = pytest.importorskip("orbax.checkpoint", reason="Orbax is absent: nothing to compare")
    theirs = dataclasses.fields(orbax.CheckpointManagerOptions)
    ours = dataclasses.fields(ocp.CheckpointManagerOptions)
    assert [field.name for field in ours][: len(theirs)] == [field.name for field in theirs]
    assert all(field.kw_only for field in ours[len(theirs) :])
    default = ocp.CheckpointManagerOptions()
    for field, other in zip(ours, theirs):
        assert field.default == other.default, field.name
        if dataclasses.is_dataclass(getattr(default, field.name)):
            values = [getattr(default, field.name)]
            values.append(getattr(orbax.CheckpointManagerOptions(), field.name))
            assert dataclasses.asdict(values[0]) == dataclasses.asdict(values[1])
    assert dataclasses.asdict(ocp.AsyncOptions()) == dataclasses.asdict(orbax.AsyncOptions())


def test_what_are_no_options_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TypeError, match="CheckpointManagerOptions"):
        ocp.CheckpointManager(tmp_path, options={"max_to_keep": 2})
