"""`training.Checkpointer`: which steps it saves and keeps, and who is told of errors."""

from __future__ import annotations

import pathlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import stepstone
from stepstone import training
from stepstone import v1 as ocp


@pytest.fixture
def checkpointer(tmp_path: pathlib.Path) -> Iterator[training.Checkpointer]:
    with training.Checkpointer(tmp_path / "run") as opened:
        yield opened


class Unwritable:
    """Fails while its files are written."""

    def save(self, directory: Any) -> None:
        raise OSError("no")

    def load(self, directory: Any) -> None: ...


def steps(checkpointer: training.Checkpointer) -> list[int]:
    return [found.step for found in checkpointer.checkpoints]


def test_pathways_names_say_what_to_use_instead() -> None:
    with pytest.raises(ValueError, match="save_async"):
        training.pathways.Snapshotter()


def test_a_run_goes_on_where_it_ended(tmp_path: pathlib.Path) -> None:
    with training.Checkpointer(tmp_path, custom_metadata={"seed": 1}) as checkpointer:
        assert checkpointer.latest is None
        assert checkpointer.save(0, {"w": np.arange(3)}, metrics={"loss": np.float32(0.5)})
        assert checkpointer.save(1, {"w": np.arange(4)}, custom_metadata={"note": "x"})
    with training.Checkpointer(tmp_path, custom_metadata={"seed": 2}) as checkpointer:
        assert checkpointer.latest is not None
        assert checkpointer.latest.step == 1
        assert checkpointer.latest.custom_metadata == {"note": "x"}
        assert [found.metrics for found in checkpointer.checkpoints] == [{"loss": 0.5}, None]
        assert checkpointer.latest.time is not None
        assert checkpointer.latest.path == tmp_path / "1"
        np.testing.assert_equal(checkpointer.load(), {"w": np.arange(4)})
        np.testing.assert_equal(checkpointer.load(0), {"w": np.arange(3)})
        np.testing.assert_equal(checkpointer.load(checkpointer.latest), {"w": np.arange(4)})
        assert checkpointer.root_metadata().custom_metadata == {"seed": 1}
        assert checkpointer.root_metadata().directory == tmp_path
        assert checkpointer.directory == tmp_path


def test_the_policies_decide_what_is_saved_and_kept(tmp_path: pathlib.Path) -> None:
    with training.Checkpointer(
        tmp_path,
        save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(2),
        preservation_policy=training.preservation_policies.LatestN(2),
    ) as checkpointer:
        assert [checkpointer.should_save(step) for step in range(3)] == [True, False, True]
        assert [checkpointer.save(step, {"a": step}) for step in range(7)] == [
            True, False, True, False, True, False, True,
        ]
        assert steps(checkpointer) == [4, 6]
        assert checkpointer.save_async(7, {"a": 7}) is None
        assert checkpointer.save(7, {"a": 7}, force=True)
        assert steps(checkpointer) == [6, 7]


def test_by_default_saves_as_often_as_it_can_and_keeps_all(
    checkpointer: training.Checkpointer,
) -> None:
    saved = [step for step in range(5) if checkpointer.save(step, {"a": step})]
    assert saved == steps(checkpointer) == list(range(5))


def test_a_save_that_is_skipped_leaves_the_one_under_way_to_be_waited_for(
    checkpointer: training.Checkpointer,
) -> None:
    responses = [checkpointer.save_async(step, {"w": np.ones(1 << 18)}) for step in range(20)]
    saved = [step for step, response in enumerate(responses) if response is not None]
    assert saved[0] == 0
    checkpointer.wait()
    assert steps(checkpointer) == saved


def test_a_policy_in_python_is_asked_and_its_error_raised(tmp_path: pathlib.Path) -> None:
    class Odd:
        def should_save(self, step: Any, previous_steps: Any, *, context: Any) -> bool:
            if step.step == 4:
                raise ZeroDivisionError("four")
            return bool(step.step % 2)

    with training.Checkpointer(tmp_path, save_decision_policy=Odd()) as checkpointer:
        assert [checkpointer.save(step, {"a": step}) for step in range(4)] == [
            False, True, False, True,
        ]
        with pytest.raises(Exception, match="four"):
            checkpointer.save(4, {"a": 4})
        assert steps(checkpointer) == [1, 3]


def test_an_existing_step_is_replaced_only_when_asked(checkpointer: training.Checkpointer) -> None:
    checkpointer.save(1, {"a": 1}, metrics={"loss": 1.0})
    with pytest.raises(FileExistsError) as raised:
        checkpointer.save(1, {"a": 2})
    assert isinstance(raised.value, ValueError)
    assert isinstance(raised.value, training.errors.StepAlreadyExistsError)
    response = checkpointer.save_async(2, {"a": 2}, force=True)
    with pytest.raises(training.errors.StepAlreadyExistsError):
        checkpointer.save_async(2, {"a": 3})
    assert response is not None and response.result()
    assert checkpointer.save(1, {"a": 5}, overwrite=True, force=True, metrics={"loss": 5.0})
    assert checkpointer.load(1) == {"a": 5}
    assert [found.metrics for found in checkpointer.checkpoints] == [{"loss": 5.0}, None]


def test_earlier_steps_can_be_filled_in(checkpointer: training.Checkpointer) -> None:
    checkpointer.save(5, {"a": 5}, force=True)
    checkpointer.save(3, {"a": 3}, force=True)
    assert steps(checkpointer) == [3, 5]
    assert checkpointer.latest is not None and checkpointer.latest.step == 5


def test_a_missing_step_is_a_missing_file(checkpointer: training.Checkpointer) -> None:
    for call in (checkpointer.load, checkpointer.load_checkpointables, checkpointer.metadata):
        with pytest.raises(training.errors.StepNotFoundError):
            call()
        with pytest.raises(FileNotFoundError):
            call(3)
    checkpointer.save(1, {"a": 1})
    with pytest.raises(FileNotFoundError, match="3"):
        checkpointer.load(3)
    with pytest.raises(KeyError):
        checkpointer.load(1, checkpointable_name="other")
    with pytest.raises(KeyError):
        checkpointer.load_checkpointables(1, {"other": None})


@pytest.mark.parametrize("step", [True, 1.5, "1", None])
def test_a_step_is_an_int(checkpointer: training.Checkpointer, step: Any) -> None:
    with pytest.raises(TypeError):
        checkpointer.save(step, {"a": 1})


def test_a_negative_step_is_refused(checkpointer: training.Checkpointer) -> None:
    with pytest.raises(ValueError):
        checkpointer.save(-1, {"a": 1})


def test_several_objects(checkpointer: training.Checkpointer) -> None:
    response = checkpointer.save_checkpointables_async(0, {"model": {"w": 1}, "data": {"at": 2}})
    assert response is not None and response.result(60)
    assert checkpointer.load_checkpointables() == {"model": {"w": 1}, "data": {"at": 2}}
    assert checkpointer.load_checkpointables(0, {"data": None}) == {"data": {"at": 2}}
    assert checkpointer.load(0, {"at": int}, checkpointable_name="data") == {"at": 2}
    assert checkpointer.checkpointables_metadata(0).metadata.keys() == {"model", "data"}
    assert checkpointer.metadata(0).metadata.keys() == {"at"}  # The first by name.


def test_loads_in_the_background(checkpointer: training.Checkpointer) -> None:
    checkpointer.save(0, {"w": np.arange(4)})
    np.testing.assert_equal(checkpointer.load_async().result(), {"w": np.arange(4)})
    np.testing.assert_equal(
        checkpointer.load_checkpointables_async(0).result(60), {"state": {"w": np.arange(4)}}
    )
    with pytest.raises(FileNotFoundError):
        checkpointer.load_async(7).result()


def test_a_response_knows_its_own_save(checkpointer: training.Checkpointer) -> None:
    done = threading.Event()
    first = checkpointer.save_async(1, {"w": np.ones(1 << 16)}, force=True)
    second = checkpointer.save_async(2, {"w": np.ones(1 << 16)}, force=True)
    assert first is not None and second is not None
    second.on_complete(lambda saved: done.set() if saved else None)
    assert second.result(60) and first.result()
    assert done.wait(60)
    assert steps(checkpointer) == [1, 2]
    assert not checkpointer.is_saving_in_progress()


def test_an_error_in_the_call_leaves_everything_as_it_was(
    checkpointer: training.Checkpointer,
) -> None:
    checkpointer.save(0, {"a": 0})
    with pytest.raises(OSError):
        checkpointer.save_checkpointables(1, {"it": Unwritable()})
    with pytest.raises((TypeError, ValueError)):
        checkpointer.save(1, {"a": 1}, metrics={"loss": object()})
    assert steps(checkpointer) == [0]
    assert checkpointer.save(1, {"a": 1})


def test_an_error_in_the_background_reaches_who_asks_first(tmp_path: pathlib.Path) -> None:
    class Picky:
        def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
            if any(found.step in (1, 2) for found in checkpoints):
                raise ZeroDivisionError("I never liked that step")
            return [True] * len(checkpoints)

    with training.Checkpointer(tmp_path, preservation_policy=Picky()) as checkpointer:
        checkpointer.save(0, {"a": 0})
        # The response tells every time; the next save need not.
        response = checkpointer.save_async(1, {"a": 1}, force=True)
        assert response is not None
        for timeout in (60, None):
            with pytest.raises(ZeroDivisionError):
                response.result(timeout)
        assert checkpointer.save(3, {"a": 3}, force=True)
        # Where nobody has asked the response, the next save tells, and has not begun.
        checkpointer.save_async(2, {"a": 2}, force=True)
        assert checkpointer.load() == {"a": 3}
        with pytest.raises(ZeroDivisionError):
            checkpointer.save(4, {"a": 4}, force=True)
        assert checkpointer.save(4, {"a": 4}, force=True)
        assert steps(checkpointer) == [0, 3, 4]


def test_a_signal_makes_it_save_and_tells_the_loop_to_end(tmp_path: pathlib.Path) -> None:
    with training.Checkpointer(
        tmp_path,
        save_decision_policy=training.save_decision_policies.AnySavePolicy(
            [
                training.save_decision_policies.SpecificStepsPolicy([0]),
                training.save_decision_policies.PreemptionCheckpointingPolicy(),
            ]
        ),
        preemption_signals=[signal.SIGUSR1],
    ) as checkpointer:
        for step in range(10):
            checkpointer.save_async(step, {"a": step})
            if step == 4:
                signal.raise_signal(signal.SIGUSR1)
            if checkpointer.reached_preemption(step):
                break
        assert steps(checkpointer) == [0, 5]


def test_options_of_its_context_hold_unless_another_is_entered(tmp_path: pathlib.Path) -> None:
    context = ocp.Context()
    context.array.saving.storage_options.dtype = np.float16
    with training.Checkpointer(tmp_path, context=context) as checkpointer:
        checkpointer.save(0, {"w": np.ones(2)})
        with ocp.Context():
            checkpointer.save(1, {"w": np.ones(2)}, force=True)
        dtypes = [checkpointer.load(step)["w"].dtype for step in (0, 1)]
    assert dtypes == [np.float16, np.float64]


def test_deleting_a_step_or_one_object_of_it(checkpointer: training.Checkpointer) -> None:
    for step in (1, 2, 3):
        checkpointer.save_checkpointables(
            step, {"a": {"x": step}, "b": {"y": step}}, force=True, metrics={"loss": step},
            custom_metadata={"step": step},
        )
    assert checkpointer.delete(1)
    assert checkpointer.delete_async(checkpointer.checkpoints[0]).result()
    assert steps(checkpointer) == [3]
    assert checkpointer.delete(3, checkpointable_name="b")
    assert checkpointer.load_checkpointables(3) == {"a": {"x": 3}}
    assert checkpointer.latest is not None
    assert checkpointer.latest.metrics == {"loss": 3}
    assert checkpointer.latest.custom_metadata == {"step": 3}
    with pytest.raises(training.errors.StepNotFoundError):
        checkpointer.delete(9)
    with pytest.raises(FileNotFoundError):
        checkpointer.delete(3, checkpointable_name="b")
    with pytest.raises(ValueError):
        checkpointer.delete(3, checkpointable_name="a")
    with pytest.raises(TypeError):
        checkpointer.delete("3")  # type: ignore[arg-type]
    assert not checkpointer.delete(9, missing_ok=True)
    assert not checkpointer.delete(3, checkpointable_name="b", missing_ok=True)


def test_cancelling_takes_a_save_back(checkpointer: training.Checkpointer) -> None:
    checkpointer.save(1, {"a": 1})
    checkpointer.save_async(2, {"w": np.ones(1 << 20)}, force=True)
    checkpointer.cancel(2)
    checkpointer.cancel()
    assert steps(checkpointer) == [1]


def test_after_close_nothing_is_done(tmp_path: pathlib.Path) -> None:
    checkpointer = training.Checkpointer(tmp_path)
    checkpointer.save_async(0, {"w": np.ones(1 << 16)})
    checkpointer.close()
    checkpointer.close()
    with pytest.raises(RuntimeError):
        checkpointer.save(1, {"a": 1})
    assert ocp.is_stepstone_checkpoint(tmp_path / "0")


def test_its_directory_can_be_erased_while_it_is_open(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run"
    training.Checkpointer(path).save(7, {"a": 1})
    stepstone.test_utils.erase_and_create_empty(path)
    with training.Checkpointer(path) as checkpointer:
        assert checkpointer.latest is None
        assert checkpointer.save(0, {"a": 0})


def test_a_manager_of_the_other_style_shares_the_run(tmp_path: pathlib.Path) -> None:
    with training.Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(0, {"w": np.arange(2)}, metrics={"loss": 1.0})
    with stepstone.CheckpointManager(tmp_path, item_names=("state",)) as manager:
        assert manager.all_steps() == [0]
        np.testing.assert_equal(manager.restore(0)["state"], {"w": np.arange(2)})
        assert manager.metrics(0) == {"loss": 1.0}
    with stepstone.CheckpointManager(tmp_path / "single") as manager:
        manager.save(3, args=stepstone.args.StandardSave({"w": np.arange(3)}))
    with training.Checkpointer(tmp_path / "single") as checkpointer:
        np.testing.assert_equal(checkpointer.load(), {"w": np.arange(3)})


def test_a_logger_is_told_of_saves_and_loads(tmp_path: pathlib.Path) -> None:
    entries: list[dict[str, Any]] = []

    class Collector(stepstone.logging.AbstractLogger):
        def log_entry(self, msg: Any, *args: Any, **kwargs: Any) -> None:
            entries.append(msg)

    with training.Checkpointer(tmp_path, logger=Collector()) as checkpointer:
        checkpointer.save(4, {"a": 1})
        checkpointer.load()
    assert [(entry["event_type"], entry["step"]) for entry in entries] == [
        ("commit", 4),
        ("restore", 4),
    ]
