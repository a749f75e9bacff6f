"""The manager: what it saves, shows, keeps, restores, and tells."""

from __future__ import annotations

import logging
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import trees

import stepstone as ocp

STATE = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": 3}


def standard(value: int = 0) -> Any:
    return ocp.args.StandardSave({**STATE, "n": value})


def open_manager(directory: pathlib.Path, **options: Any) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(directory, options=ocp.CheckpointManagerOptions(**options))


# Steps, before and after they are durable.


def test_a_step_is_shown_when_its_save_has_begun_and_what_it_retires_is_not(
    tmp_path: pathlib.Path,
) -> None:
    may_end = threading.Event()
    waiting = ocp.AsyncOptions(post_finalization_callback=lambda: may_end.wait(30))
    with open_manager(tmp_path, max_to_keep=2, async_options=waiting) as manager:
        try:
            manager.save(0, args=standard())
            assert manager.is_saving_in_progress()
            assert (manager.all_steps(), manager.latest_step()) == ([0], 0)
        finally:
            may_end.set()
        for step in (1, 2, 3):
            manager.save(step, args=standard(step))
            # Without a wait: whether the commit has taken place by now makes no difference.
            assert manager.all_steps() == list(range(max(0, step - 1), step + 1))
            assert manager.latest_step() == step
        trees.assert_same(manager.restore(3), {**STATE, "n": 3})
        assert manager.all_steps() == [2, 3]


def test_the_best_step_is_known_when_its_save_has_begun(tmp_path: pathlib.Path) -> None:
    losses = {0: 0.5, 1: 0.1, 2: float("nan"), 3: 0.1, 4: 0.7}
    with open_manager(tmp_path, best_fn=lambda found: found["loss"], best_mode="min") as manager:
        for step, loss in losses.items():
            manager.save(step, args=standard(), metrics={"loss": loss})
            known = {each: losses[each] for each in range(step + 1) if losses[each] == losses[each]}
            lowest = min(known.values())
            assert manager.best_step() == max(s for s, loss in known.items() if loss == lowest)
            assert manager.metrics(step) == pytest.approx({"loss": loss}, nan_ok=True)
        assert manager.best_step() == 3
    assert manager.best_step() == 3  # Also after it was closed,
    with open_manager(tmp_path, best_fn=lambda found: found["loss"], best_mode="min") as again:
        assert again.best_step() == 3  # and in another process.


def test_there_is_no_best_step_without_metrics(tmp_path: pathlib.Path) -> None:
    with open_manager(tmp_path, best_fn=lambda found: found["loss"]) as manager:
        assert manager.best_step() is None
        manager.save(0, args=standard())
        assert manager.best_step() is None
    with open_manager(tmp_path) as manager:
        assert manager.best_step() == 0


def test_an_earlier_step_is_filled_in_by_force_and_takes_its_place(tmp_path: pathlib.Path) -> None:
    with open_manager(tmp_path) as manager:
        assert manager.save(5, args=standard(5))
        assert not manager.should_save(3) and not manager.save(3, args=standard(3))
        assert not manager.should_save(5) and not manager.save(5, args=standard(6))
        assert manager.save(3, args=standard(3), force=True)
        assert (manager.all_steps(), manager.latest_step()) == ([3, 5], 5)
        with pytest.raises(ocp.StepAlreadyExistsError, match="5"):
            manager.save(5, args=standard(6), force=True)
        trees.assert_same(manager.restore(5), {**STATE, "n": 5})


@pytest.mark.parametrize("step", [np.int32(7), np.uint8(7), np.asarray(7)])
def test_a_step_may_be_an_integer_of_numpy(tmp_path: pathlib.Path, step: Any) -> None:
    with open_manager(tmp_path) as manager:
        assert manager.save(step, args=standard(7))
        trees.assert_same(manager.restore(step), {**STATE, "n": 7})
        assert [type(each) for each in manager.all_steps()] == [int]


@pytest.mark.parametrize(
    "step, error",
    [(True, TypeError), (1.0, TypeError), ("1", TypeError), (None, TypeError), (-1, ValueError),
     (2**63, ValueError)],
)
def test_what_is_no_step_is_refused(tmp_path: pathlib.Path, step: Any, error: type) -> None:
    with open_manager(tmp_path) as manager:
        for call in (manager.should_save, manager.delete, manager.metrics):
            with pytest.raises(error):
                call(step)
        with pytest.raises(error):
            manager.save(step, args=standard(), force=True)
        assert manager.all_steps() == []


# One object, or several.


def test_a_failed_first_call_does_not_decide_what_steps_are(tmp_path: pathlib.Path) -> None:
    with open_manager(tmp_path) as manager:
        with pytest.raises(FileNotFoundError):
            manager.restore(3, args=ocp.args.Composite(state=ocp.args.StandardRestore()))
        with pytest.raises(ValueError):
            manager.save(0, args=ocp.args.Composite(state=ocp.args.StandardSave({"a": object()})))
        assert manager.save(0, args=standard())
        with pytest.raises(ValueError, match="one object"):
            manager.save(1, args=ocp.args.Composite(state=standard()))
        with pytest.raises(ValueError, match="Composite"):
            manager.restore(0, args=ocp.args.Composite(state=None))
        trees.assert_same(manager.restore(0), STATE | {"n": 0})


def test_a_manager_for_items_says_so_where_a_step_is_one_object(tmp_path: pathlib.Path) -> None:
    with open_manager(tmp_path) as manager:
        manager.save(0, args=standard())
    with ocp.CheckpointManager(tmp_path, item_names=("state",)) as manager:
        with pytest.raises(ValueError, match="one object"):
            manager.restore(0)


def test_metrics_are_restored_as_an_item_where_they_rank(tmp_path: pathlib.Path) -> None:
    items = ocp.args.Composite(state=standard())
    with open_manager(tmp_path, best_fn=lambda found: found["loss"]) as manager:
        manager.save(0, args=items, metrics={"loss": np.float32(0.5), "rates": np.ones(2)})
        metrics = {"loss": 0.5, "rates": [1.0, 1.0]}
        assert set(manager.restore(0)) == {"state", "metrics"}
        assert manager.restore(0).metrics == metrics
        asked = manager.restore(0, args=ocp.args.Composite(metrics=ocp.args.JsonRestore()))
        assert dict(asked) == {"metrics": metrics}
        assert manager.metadata(0).metrics == metrics
    with open_manager(tmp_path) as manager:
        assert set(manager.restore(0)) == {"state"}
        assert manager.metrics(0) == metrics  # Kept without best_fn, too.


# The older style.


def test_the_older_style_saves_and_restores_one_object(tmp_path: pathlib.Path) -> None:
    with ocp.CheckpointManager(tmp_path, ocp.PyTreeCheckpointer()) as manager:
        half = {"w": ocp.SaveArgs(dtype=np.float16), "n": ocp.SaveArgs()}
        assert manager.save(0, STATE, save_kwargs={"save_args": half}, metrics={"loss": 1})
        restored = manager.restore(0)
        trees.assert_same(restored, {**STATE, "w": STATE["w"].astype(np.float16)})
        double = {"w": ocp.RestoreArgs(dtype=np.float64), "n": ocp.RestoreArgs()}
        restored = manager.restore(0, restore_kwargs={"restore_args": double})
        trees.assert_same(restored, {**STATE, "w": STATE["w"].astype(np.float64)})
        trees.assert_same(manager.restore(0, items=STATE), {**STATE, "w": STATE["w"]})
    with open_manager(tmp_path) as manager:  # Without handlers: those that the step was saved by.
        trees.assert_same(manager.restore(0, items=STATE), STATE)


def test_the_older_style_saves_and_restores_items(tmp_path: pathlib.Path) -> None:
    checkpointers = {
        "state": ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler()),
        "extra": ocp.Checkpointer(ocp.JsonCheckpointHandler()),
    }
    with ocp.CheckpointManager(tmp_path, checkpointers) as manager:
        assert manager.save(0, {"state": STATE, "extra": {"a": 1}})
        trees.assert_same(dict(manager.restore(0)), {"state": STATE, "extra": {"a": 1}})
        assert dict(manager.restore(0, items={"extra": None})) == {"extra": {"a": 1}}
        for call in (manager.save, manager.restore):
            with pytest.raises(ValueError, match="other"):
                call(1 if call == manager.save else 0, {"other": None})


def test_what_is_no_checkpointer_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="Checkpointers"):
        ocp.CheckpointManager(tmp_path, {"state": ocp.PyTreeCheckpointHandler()})


# Elsewhere, read-only, closed.


def test_a_step_is_restored_from_another_directory(tmp_path: pathlib.Path) -> None:
    with open_manager(tmp_path / "one") as one, open_manager(tmp_path / "other") as other:
        one.save(0, args=standard(1))
        for step in (0, 4):
            other.save(step, args=standard(10 + step))
        other.wait_until_finished()
        trees.assert_same(one.restore(0, directory=tmp_path / "other"), {**STATE, "n": 10})
        trees.assert_same(one.restore(None, directory=str(tmp_path / "other")), {**STATE, "n": 14})
        for step in (1, None):
            with pytest.raises(FileNotFoundError):
                one.restore(step, directory=tmp_path / "absent")


def test_a_read_only_manager_writes_nothing_and_says_so(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_manager(tmp_path / "run", read_only=True) as early:
        assert (early.all_steps(), early.latest_step(), early.best_step()) == ([], None, None)
        assert not (tmp_path / "run").exists()
        with pytest.raises(FileNotFoundError):
            early.restore(None)
        with open_manager(tmp_path / "run") as writer:
            writer.save(0, args=standard())
        early.reload()
        assert early.all_steps() == [0]
    with open_manager(tmp_path / "run", read_only=True) as reader:
        caplog.clear()
        assert not reader.should_save(1) and not reader.save(1, args=standard())
        reader.delete(0)
        assert len([record for record in caplog.records if "read-only" in record.message]) == 3
        with pytest.raises(ocp.errors.ReadOnlyError):
            reader.save(1, args=standard(), force=True)
        assert reader.all_steps() == [0]


def test_a_read_only_manager_restores_a_step_that_is_newer_than_what_it_shows(
    tmp_path: pathlib.Path,
) -> None:
    with open_manager(tmp_path) as writer:
        writer.save(0, args=standard(0))
        writer.wait_until_finished()
        with open_manager(tmp_path, read_only=True) as reader:
            writer.save(1, args=standard(1))
            writer.wait_until_finished()
            assert reader.all_steps() == [0]
            trees.assert_same(reader.restore(1), {**STATE, "n": 1})
            reader.reload()
            assert reader.all_steps(read=True) == [0, 1]


def test_a_directory_is_created_only_if_that_is_wanted(tmp_path: pathlib.Path) -> None:
    manager = open_manager(tmp_path / "absent", create=False)
    assert manager.all_steps() == []
    with pytest.raises(FileNotFoundError):
        manager.save(0, args=standard())
    assert not (tmp_path / "absent").exists()
    (tmp_path / "empty").mkdir()
    with open_manager(tmp_path / "empty", create=False) as manager:
        assert manager.save(0, args=standard())
    with open_manager(tmp_path / "above" / "below") as manager:
        assert manager.save(0, args=standard())


def test_a_closed_manager_shows_and_restores_what_there_was(tmp_path: pathlib.Path) -> None:
    with ocp.CheckpointManager(tmp_path, metadata={"model": "small"}) as manager:
        manager.save(3, args=standard(3), metrics={"loss": 1})
    manager.close()
    assert (manager.all_steps(), manager.latest_step(), manager.best_step()) == ([3], 3, 3)
    trees.assert_same(manager.restore(3), {**STATE, "n": 3})
    assert manager.metrics(3) == {"loss": 1} and manager.metrics(4) is None
    assert manager.metadata().custom_metadata == {"model": "small"}
    assert manager.metadata(3).metrics == {"loss": 1}
    assert not manager.is_saving_in_progress() and not manager.reached_preemption(3)
    manager.wait_until_finished()
    manager.check_for_errors()
    for call in (manager.delete, manager.should_save):
        with pytest.raises(RuntimeError, match="closed"):
            call(7 if call == manager.should_save else 3)


def test_a_directory_can_be_erased_and_used_again_while_a_manager_is_open(
    tmp_path: pathlib.Path,
) -> None:
    import shutil

    directory = tmp_path / "run"
    managers = []  # As a notebook whose cells are run again, none of which closes its manager.
    for value, erase in enumerate([lambda: None, shutil.rmtree, ocp.test_utils.empty_directory,
                                   ocp.test_utils.erase_and_create_empty]):
        if managers:
            erase(directory)
        managers.append(open_manager(directory))
        assert managers[-1].all_steps() == []
        managers[-1].save(value, args=standard(value))
        trees.assert_same(managers[-1].restore(value), {**STATE, "n": value})
        assert managers[-1].all_steps() == [value]
    managers[-1].close()


# Metadata, and what is told.


def test_metadata_of_the_run_is_stored_once(tmp_path: pathlib.Path) -> None:
    assert open_manager(tmp_path / "none").metadata() == ocp.metadata.RootMetadata()
    with ocp.CheckpointManager(tmp_path / "run", metadata={"a": [1, None]}) as manager:
        assert manager.metadata().custom_metadata == {"a": [1, None]}
    with ocp.CheckpointManager(tmp_path / "run", metadata={"b": 2}) as manager:
        assert manager.metadata().custom_metadata == {"a": [1, None]}
    reads = ocp.CheckpointManagerOptions(read_only=True)
    with ocp.CheckpointManager(tmp_path / "absent", options=reads, metadata={"b": 2}) as manager:
        assert manager.metadata().custom_metadata == {"b": 2}
    keeps = ocp.CheckpointManagerOptions(save_root_metadata=False)
    with ocp.CheckpointManager(tmp_path / "kept", options=keeps, metadata={"c": 3}):
        pass
    with open_manager(tmp_path / "kept") as manager:
        assert manager.metadata().custom_metadata == {}
    with pytest.raises(TypeError):
        ocp.CheckpointManager(tmp_path / "other", metadata={"a": object()})


def test_metadata_of_a_step_tells_what_was_saved(tmp_path: pathlib.Path) -> None:
    with open_manager(tmp_path) as manager:
        manager.save(2, args=standard(), metrics={"loss": 0.5}, custom_metadata={"by": "test"})
        found = manager.metadata(2)  # Waits for it.
        assert found.item_handlers == {"default": "standard"}
        assert found.metrics == {"loss": 0.5} and found.custom_metadata == {"by": "test"}
        assert 0 < found.init_timestamp_nsecs <= found.commit_timestamp_nsecs
        assert found.item_metadata == manager.item_metadata(2)
        assert found.item_metadata["w"].shape == (2, 3)


def test_metrics_that_are_not_written_are_known_as_long_as_the_manager_is_open(
    tmp_path: pathlib.Path,
) -> None:
    with open_manager(tmp_path, prevent_write_metrics=True) as manager:
        manager.save(0, args=standard(), metrics={"loss": 1})
        manager.wait_until_finished()
        assert manager.metrics(0) == {"loss": 1} == manager.metadata(0).metrics
    with open_manager(tmp_path) as manager:
        assert manager.metrics(0) is None and manager.metadata(0).metrics == {}


@pytest.mark.parametrize("metrics", [0.5, [0.5], {"loss": object()}, {1: object()}])
def test_metrics_that_are_no_numbers_by_name_are_refused(
    tmp_path: pathlib.Path, metrics: Any
) -> None:
    with open_manager(tmp_path) as manager:
        with pytest.raises(TypeError, match="step 0: metrics"):
            manager.save(0, args=standard(), metrics=metrics)
        assert manager.all_steps() == []


class OnDevice:
    """A metric that notices being looked at, as jax.Array waits for its device then."""

    looks = 0

    def __dlpack__(self) -> None:
        raise AssertionError

    def tolist(self) -> float:
        OnDevice.looks += 1
        return 0.25


def test_metrics_on_a_device_are_looked_at_only_for_a_step_that_is_saved(
    tmp_path: pathlib.Path,
) -> None:
    OnDevice.looks = 0
    with open_manager(tmp_path, save_interval_steps=4) as manager:
        for step in range(1, 5):
            manager.save(step, args=standard(), metrics={"train": {"loss": OnDevice()}})
        assert manager.all_steps() == [1, 4] and OnDevice.looks == 2
        assert manager.metrics(4) == {"train": {"loss": 0.25}}


class Entries(ocp.logging.AbstractLogger):
    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def log_entry(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        self.entries.append(msg)


def test_a_logger_is_given_an_entry_for_each_save_commit_and_restore(
    tmp_path: pathlib.Path,
) -> None:
    logger = Entries()
    with ocp.CheckpointManager(tmp_path, logger=logger) as manager:
        for step in (0, 1):
            manager.save(step, args=standard())
        manager.restore(1)
    by_type: dict[str, list[Any]] = {"save": [], "commit": [], "restore": []}
    for entry in logger.entries:
        assert entry["directory"] == str(tmp_path)
        by_type[entry["event_type"]].append(entry)
    assert [entry["step"] for entry in by_type["save"]] == [0, 1]
    assert [entry["step"] for entry in by_type["commit"]] == [0, 1]
    assert [entry["step"] for entry in by_type["restore"]] == [1]
    assert not by_type["save"][0]["synchronous"]
    assert by_type["save"][0]["time_between_consecutive_saves_sec"] is None
    assert by_type["save"][1]["time_between_consecutive_saves_sec"] >= 0
    assert by_type["commit"][1]["size_bytes"] == 24 + 8
    assert by_type["commit"][1]["leaf_count"] == 2


def test_the_package_logs_quietly_and_more_on_request(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_manager(tmp_path) as manager:
        manager.save(0, args=standard())
        manager.wait_until_finished()
        assert caplog.records == []
        with caplog.at_level(logging.INFO, logger="stepstone"):
            manager.save(1, args=standard())
            manager.wait_until_finished()
    assert {"save", "commit"} <= {
        kind for record in caplog.records for kind in ("save", "commit") if kind in record.message
    }


def test_progress_tells_the_bytes_of_each_save_and_restore(tmp_path: pathlib.Path) -> None:
    told: list[tuple[int, int]] = []
    saved: list[int] = []
    with open_manager(
        tmp_path,
        progress=lambda done, total: told.append((done, total)),
        on_save=lambda statistics: saved.append(statistics.step),
    ) as manager:
        manager.save(4, args=ocp.args.Composite(a=standard(), b=standard()))
        manager.wait_until_finished()
        # Of each item six numbers of 4 bytes, and one of 8.
        assert told[0] == (0, 64) and told[-1] == (64, 64) and told.count((64, 64)) == 1
        assert told == sorted(told) and {total for _, total in told} == {64} and saved == [4]
        told.clear()
        manager.restore(4)
        assert told == [(0, 64), (64, 64)]


def test_a_callback_that_fails_does_not_make_the_save_fail(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(statistics: Any) -> None:
        raise OSError("no bar to move")

    with open_manager(tmp_path, on_save=fail) as manager:
        manager.save(0, args=standard())
        manager.wait_until_finished()
        assert manager.all_steps() == [0]
    assert "no bar to move" in caplog.text


def test_a_manager_that_is_forgotten_is_collected_at_once(tmp_path: pathlib.Path) -> None:
    import weakref

    manager = ocp.CheckpointManager(
        tmp_path, logger=Entries(), options=ocp.CheckpointManagerOptions(max_to_keep=1)
    )
    manager.save(0, args=standard())
    alive = weakref.ref(manager)
    del manager
    assert alive() is None


# Preemption.


def test_a_request_saves_the_next_step_and_then_tells_the_trainer(tmp_path: pathlib.Path) -> None:
    with open_manager(tmp_path, save_interval_steps=1000) as manager:
        for step in range(5):
            if step == 3:
                manager.request_preemption()
                assert not manager.reached_preemption(step)  # Before save could save.
            manager.save(step, args=standard(step))
            if manager.reached_preemption(step):
                break
        assert step == 3 and manager.all_steps() == [0, 3]
        assert not manager.is_saving_in_progress()


def test_a_signal_is_such_a_request(tmp_path: pathlib.Path) -> None:
    import os
    import signal

    with open_manager(
        tmp_path, save_interval_steps=1000, preemption_signals=[signal.SIGUSR1]
    ) as manager:
        manager.save(1, args=standard())
        os.kill(os.getpid(), signal.SIGUSR1)
        assert manager.save(2, args=standard()) and manager.reached_preemption(2)


# What it shows of itself.


def test_repr_shows_the_directory_the_steps_and_the_size(tmp_path: pathlib.Path) -> None:
    with open_manager(tmp_path, step_prefix="step", step_format_fixed_length=3) as manager:
        assert "no steps" in repr(manager)
        for step in range(20):
            manager.save(step, args=standard())
        manager.wait_until_finished()
        shown = repr(manager)
        assert str(tmp_path) in shown and "20 steps: step_000, step_001" in shown
        assert "step_019" in shown and "on disk" in shown and len(shown) < 300
    assert "closed" in repr(manager)


def test_html_shows_a_table_of_steps_and_a_tree_of_leaves_with_names_escaped(
    tmp_path: pathlib.Path,
) -> None:
    with open_manager(tmp_path, step_prefix="<b>&") as manager:
        state = {"<script>": np.zeros((2, 3)), "list": [1, "text", {}]}
        for step in (0, 1):
            manager.save(step, args=ocp.args.StandardSave(state), metrics={"<i>": 0.5, "s": "<u>"})
        manager.wait_until_finished()
        shown = manager._repr_html_()
        for tag in ("<script>", "<i>", "<u>", "<b>&"):
            assert tag not in shown
        assert shown.count("<tr>") == 3 and "&lt;b&gt;&amp;_1" in shown and "0.5" in shown
        assert "&lt;script&gt;" in shown and "float64[2,3]" in shown and "(empty)" in shown
        assert shown.count("<ul>") == shown.count("</ul>")
        assert shown.count("<details") == shown.count("</details>")


def test_html_of_a_long_run_shows_its_newest_steps(tmp_path: pathlib.Path) -> None:
    with open_manager(tmp_path) as manager:
        assert "0 steps" in manager._repr_html_() and "<table>" not in manager._repr_html_()
        for step in range(120):
            manager.save(step, args=ocp.args.StandardSave({"n": step}))
        manager.wait_until_finished()
        shown = manager._repr_html_()
    assert shown.count("<tr>") == 52 and "120 steps" in shown and "70 earlier steps" in shown
    assert "<td>119</td>" in shown and "<td>69</td>" not in shown


def test_paths_are_of_the_kind_that_the_program_uses(
    run_python: Callable[..., str], tmp_path: pathlib.Path
) -> None:
    program = """
import sys
import stepstone as ocp
manager = ocp.CheckpointManager(sys.argv[1])
print(type(manager.directory).__module__.partition(".")[0])
manager.close()
try:
    from etils import epath
except ImportError:
    print("etils")
else:
    directory = epath.Path(sys.argv[1])
    with ocp.CheckpointManager(directory) as manager:
        assert manager.directory == directory
        print(type(manager.directory / "x").__module__.partition(".")[0])
"""
    assert run_python(program, tmp_path / "run").split() == ["pathlib", "etils"]


INTERRUPTED = """
import os, signal, sys, threading
import stepstone as ocp

may_end = threading.Event()
callback = ocp.AsyncOptions(post_finalization_callback=may_end.wait)
manager = ocp.CheckpointManager(
    sys.argv[1], options=ocp.CheckpointManagerOptions(async_options=callback)
)
manager.save(0, args=ocp.args.StandardSave({"a": 1}))
for call in (manager.wait_until_finished, manager.close):
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        call()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
may_end.set()
manager.close()
print(manager.all_steps())
"""


def test_a_keyboard_interrupt_ends_a_wait_and_not_the_manager(
    tmp_path: pathlib.Path, run_python: Callable[..., str]
) -> None:
    output = run_python(INTERRUPTED, tmp_path)
    assert output.splitlines() == ["interrupted", "interrupted", "[0]"]


def test_metrics_may_be_a_function_that_is_called_for_steps_that_are_saved(
    tmp_path: pathlib.Path,
) -> None:
    called: list[int] = []

    def metrics_of(step: int) -> Callable[[], dict[str, float]]:
        def metrics() -> dict[str, float]:
            called.append(step)
            return {"loss": 1.0 / (step + 1)}

        return metrics

    options: dict[str, Any] = {"save_interval_steps": 2, "best_fn": lambda found: -found["loss"]}
    with open_manager(tmp_path, **options) as manager:
        saved = [manager.save(step, args=standard(), metrics=metrics_of(step)) for step in range(4)]
        assert saved == [True, False, True, False] and called == [0, 2]
        assert manager.save(3, args=standard(), metrics=metrics_of(3), force=True)
        manager.wait_until_finished()
        assert called == [0, 2, 3] and manager.metrics(2) == {"loss": 1 / 3}
        assert manager.best_step() == 3
        with pytest.raises(TypeError, match="metrics"):
            manager.save(4, args=standard(), metrics=lambda: [1.0])
        assert manager.all_steps() == [0, 2, 3]


def test_items_come_in_the_order_of_their_names(tmp_path: pathlib.Path) -> None:
    names = ["zeta", "alpha", "mid"]
    with open_manager(tmp_path) as manager:
        manager.save(0, args=ocp.args.Composite(**{name: standard() for name in names}))
        assert list(manager.restore(0)) == sorted(names)
        wanted = ocp.args.Composite(**dict.fromkeys(["zeta", "mid"]))
        assert list(manager.restore(0, args=wanted)) == ["mid", "zeta"]
        assert list(manager.item_metadata(0)) == sorted(names)
    assert list(ocp.load_checkpointables(tmp_path / "0")) == sorted(names)
