"""What goes on in the background: waits with a timeout, saves that are given up, handlers' own parts."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import stepstone as ocp
from stepstone import v1

TOO_LONG_S = 60


class Gate:
    """Stops who passes it until it is opened, and knows on which thread that was."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def open(self) -> None:
        self.opened.set()

    def passed(self) -> None:
        self.thread = threading.current_thread()
        assert self.opened.wait(TOO_LONG_S), "nobody has opened the gate"
        if self.error is not None:
            raise self.error


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()  # So that nothing waits for a test that has failed.


class SlowHandler(ocp.AsyncCheckpointHandler):
    """Writes its file when the gate of its arguments opens."""

    def save(self, directory: Any, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("async_save is there")

    async def async_save(self, directory: Any, *given: Any, args: Any = None) -> Any:
        text = args.text  # What may change is copied here.

        def write() -> None:
            args.gate.passed()
            (directory / "text").write_text(text)

        executor = concurrent.futures.ThreadPoolExecutor(1)
        future = executor.submit(write)
        executor.shutdown(wait=False)
        return [None, future]

    def finalize(self, directory: Any) -> None:
        assert (directory / "text").exists()
        (directory / "final").write_text("yes")

    def restore(self, directory: Any, *args: Any, **kwargs: Any) -> Any:
        assert (directory / "final").read_text() == "yes"
        return (directory / "text").read_text()


@ocp.args.register_with_handler(SlowHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class SlowArgs(ocp.args.CheckpointArgs):
    text: str = ""
    gate: Any = None


def test_futures_of_a_handler_are_waited_for_in_the_background(
    tmp_path: pathlib.Path, gate: Gate
) -> None:
    args = SlowArgs("before", gate)
    with ocp.AsyncCheckpointer(SlowHandler()) as checkpointer:
        checkpointer.save(tmp_path / "a", args=args)
        args.text = "after"
        assert checkpointer.is_saving_in_progress()
        with pytest.raises(TimeoutError, match="0.01"):
            checkpointer.wait_until_finished(timeout=0.01)
        with pytest.raises(ValueError, match="timeout"):
            checkpointer.wait_until_finished(timeout=-1)
        gate.open()
        checkpointer.wait_until_finished(timeout=TOO_LONG_S)
        assert checkpointer.restore(tmp_path / "a") == "before"
        assert gate.thread is not threading.main_thread()
    gate.opened.clear()
    with ocp.Checkpointer(SlowHandler()) as blocking:
        threading.Timer(0.05, gate.open).start()
        blocking.save(tmp_path / "b", args=args)  # Nobody is told before it is there.
        assert gate.opened.is_set() and blocking.restore(tmp_path / "b") == "after"


def test_a_manager_waits_for_them_too_for_as_long_as_it_is_told(
    tmp_path: pathlib.Path, gate: Gate
) -> None:
    with ocp.CheckpointManager(tmp_path) as manager:
        items = {"slow": SlowArgs("text", gate), "state": ocp.args.StandardSave({"n": np.ones(3)})}
        assert manager.save(3, args=ocp.args.Composite(**items))
        assert manager.is_saving_in_progress()
        with pytest.raises(TimeoutError):
            manager.wait_until_finished(timeout=0.01)
        with pytest.raises(ValueError, match="timeout"):
            manager.wait_until_finished(timeout=float("nan"))
        gate.open()
        manager.wait_until_finished(timeout=TOO_LONG_S)
        restored = manager.restore(3)
        assert restored.slow == "text" and restored.state["n"].sum() == 3


@pytest.mark.parametrize(
    "raised, expected",
    [
        (OSError(5, "no disk"), OSError),
        (PermissionError(13, "not yours"), PermissionError),
        (KeyError("what"), ValueError),
    ],
)
def test_an_error_in_the_background_is_that_of_the_save(
    tmp_path: pathlib.Path, gate: Gate, raised: Exception, expected: type[Exception]
) -> None:
    gate.error = raised
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        manager.save(3, args=SlowArgs("text", gate))
        gate.open()
        with pytest.raises(expected, match=f"step 3 item 'default'.*{type(raised).__name__}"):
            manager.wait_until_finished()
        assert manager.all_steps(read=True) == []
        gate.error = None
        manager.save(4, args=SlowArgs("text", gate))  # Only that save has failed.
        assert manager.restore(4) == "text"
    gate.error = raised
    with ocp.Checkpointer(SlowHandler()) as checkpointer:
        with pytest.raises(type(raised)) as caught:
            checkpointer.save(tmp_path / "a", args=SlowArgs("text", gate))
        assert caught.value is raised  # Who waits gets the exception itself.
    assert not (tmp_path / "a").exists()


def test_a_save_that_is_given_up_in_time_changes_nothing(
    tmp_path: pathlib.Path, gate: Gate
) -> None:
    open_gate = Gate()
    open_gate.open()
    called: list[int] = []
    options = ocp.AsyncOptions(post_finalization_callback=lambda: called.append(1))
    with ocp.AsyncCheckpointer(SlowHandler(), async_options=options) as checkpointer:
        assert not checkpointer.cancel()  # There is no save.
        checkpointer.save(tmp_path / "a", args=SlowArgs("first", open_gate))
        checkpointer.wait_until_finished()
        assert called == [1] and not checkpointer.cancel()
        checkpointer.save(tmp_path / "a", args=SlowArgs("second", gate), force=True)
        checkpointer_new = tmp_path / "b"
        assert checkpointer.cancel() and checkpointer.cancel()
        gate.open()
        checkpointer.wait_until_finished()  # Its error is not told.
        assert checkpointer.restore(tmp_path / "a") == "first"
        gate.opened.clear()
        checkpointer.save(checkpointer_new, args=SlowArgs("third", gate))
        assert checkpointer.cancel()
        gate.open()
        checkpointer.wait_until_finished()
        with pytest.raises(FileNotFoundError):
            checkpointer.restore(checkpointer_new)
        checkpointer.save(checkpointer_new, args=SlowArgs("fourth", open_gate))
        assert checkpointer.restore(checkpointer_new) == "fourth"
    assert called == [1, 1]


class TwoParts:
    """Saves itself in two parts, as the newer style has it."""

    def __init__(self, gate: Gate, text: str = "") -> None:
        self.gate = gate
        self.text = text

    async def save(self, directory: Any) -> Any:
        path = await directory.await_creation()
        text = self.text

        async def write() -> None:
            await asyncio.sleep(0)
            self.gate.passed()
            (path / "text").write_text(text)

        return write()

    async def load(self, directory: Any) -> Any:
        self.text = (directory / "text").read_text()


def test_the_second_coroutine_of_a_stateful_object_runs_in_the_background(
    tmp_path: pathlib.Path, gate: Gate
) -> None:
    saved = TwoParts(gate, "before")
    response = ocp.save_checkpointables_async(tmp_path / "a", {"two": saved})
    saved.text = "after"
    with pytest.raises(TimeoutError):
        response.result(timeout=0.01)
    gate.open()
    response.result()
    assert gate.thread is not threading.main_thread()
    loaded = TwoParts(gate)
    ocp.load_checkpointables(tmp_path / "a", {"two": loaded})
    assert loaded.text == "before"
    with v1.training.Checkpointer(tmp_path / "run") as checkpointer:
        gate.opened.clear()
        later = checkpointer.save_checkpointables_async(1, {"two": saved}, force=True)
        assert later is not None and checkpointer.is_saving_in_progress()
        gate.open()
        later.result()
        checkpointer.load_checkpointables(1, {"two": loaded})
    assert loaded.text == "after"


def test_tasks_of_the_first_part_are_waited_for_in_their_own_loop(tmp_path: pathlib.Path) -> None:
    class WithTask(TwoParts):
        async def save(self, directory: Any) -> Any:
            async def write() -> None:
                await asyncio.sleep(0)
                (directory / "text").write_text(self.text)

            task = asyncio.create_task(write())

            async def rest() -> None:
                await task

            return rest()

    ocp.save_checkpointables_async(tmp_path / "a", {"two": WithTask(Gate(), "text")}).result()
    loaded = TwoParts(Gate())
    ocp.load_checkpointables(tmp_path / "a", {"two": loaded})
    assert loaded.text == "text"


@pytest.mark.parametrize("name", ["store", "file.stone"])
def test_progress_is_told_in_bytes_while_a_checkpoint_is_written(
    tmp_path: pathlib.Path, name: str
) -> None:
    state = {f"w{i}": np.arange(300_000, dtype=np.float64) + i for i in range(8)}
    size_bytes = sum(array.nbytes for array in state.values())
    told: list[tuple[int, int]] = []
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(
            tmp_path / name, state, progress=lambda done, total: told.append((done, total))
        )
    assert {total for _, total in told} == {size_bytes}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == size_bytes and len(told) > 2


def test_a_manager_tells_of_the_bytes_on_their_way(tmp_path: pathlib.Path) -> None:
    state = {f"w{i}": np.arange(300_000, dtype=np.float64) + i for i in range(8)}
    size_bytes = sum(array.nbytes for array in state.values())
    told: list[tuple[int, int]] = []
    options = ocp.CheckpointManagerOptions(progress=lambda *now: told.append(now))
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        manager.save(0, args=ocp.args.StandardSave(state))
        manager.wait_until_finished()
    assert told[0] == (0, size_bytes) and told[-1] == (size_bytes, size_bytes)
    assert told == sorted(told) and len(told) > 3
    assert told.count((size_bytes, size_bytes)) == 1
