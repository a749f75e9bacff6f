"""Threads, signals, forks and other processes: a save disturbs none of them, and none of them a save."""

from __future__ import annotations

import pathlib
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import trees

import stepstone as ocp

# Large enough for a save that takes a while, small enough for a disk that is busy.
LEAF_COUNT, LEAF_SIZE = 16, 1_000_000


def large_state(value: float = 0.0) -> dict[str, Any]:
    return {str(leaf): np.full(LEAF_SIZE, value + leaf, np.float32) for leaf in range(LEAF_COUNT)}


class Counter:
    """Counts in a Python loop on a thread of its own, which stands still while the GIL is held."""

    def __init__(self) -> None:
        self.count = 0
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._is_stopping:
            self.count += 1

    def __enter__(self) -> Counter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping = True
        self._thread.join()


@pytest.fixture
def manager(tmp_path: pathlib.Path) -> Any:
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        yield manager


def test_a_python_loop_goes_on_during_a_save_a_wait_and_a_restore(manager: Any) -> None:
    state = large_state()
    with Counter() as counter:
        before = counter.count
        manager.save(0, args=ocp.args.StandardSave(state))
        after_save = counter.count
        manager.wait_until_finished()
        after_wait = counter.count
        manager.restore(0)
        after_restore = counter.count
    # Had the GIL been held, the counts would stand still: threads take turns every 5 ms otherwise.
    assert before < after_save < after_wait < after_restore


def test_a_save_by_a_checkpointer_lets_a_python_loop_go_on(tmp_path: pathlib.Path) -> None:
    state = large_state()
    with Counter() as counter, ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        before = counter.count
        checkpointer.save(tmp_path / "one", args=ocp.args.StandardSave(state))
        after_save = counter.count
        checkpointer.restore(tmp_path / "one")
        after_restore = counter.count
    assert before < after_save < after_restore


def test_many_threads_save_and_restore_through_one_manager(manager: Any) -> None:
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for round_ in range(5):
                step = 5 * thread + round_
                tree = {"step": step, "a": np.full(1000, step)}
                manager.save(step, args=ocp.args.StandardSave(tree), force=True)
                trees.assert_same(manager.restore(step), tree)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(manager.all_steps()) == list(range(20))


INTERRUPTED = """
import os, signal, sys, threading
import stepstone as ocp

may_end = threading.Event()  # A save is over when its callback is, so that a wait for it lasts.
callback = ocp.AsyncOptions(post_finalization_callback=may_end.wait)
options = ocp.CheckpointManagerOptions(async_options=callback)
manager = ocp.CheckpointManager(sys.argv[1], options=options)
manager.save(0, args=ocp.args.StandardSave({"a": 1}))
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    manager.wait_until_finished()
except KeyboardInterrupt:
    print("interrupted", flush=True)
may_end.set()
manager.wait_until_finished()  # The save itself was not disturbed.
print(manager.restore(0)["a"])
manager.close()
"""


def test_a_keyboard_interrupt_ends_a_wait_and_not_the_save(
    run_python: Callable[..., str], tmp_path: pathlib.Path
) -> None:
    assert run_python(INTERRUPTED, tmp_path / "run").split() == ["interrupted", "1"]


FORKED = """
import os, sys
import numpy as np
import stepstone as ocp

manager = ocp.CheckpointManager(sys.argv[1])
manager.save(0, args=ocp.args.StandardSave({"a": np.arange(3)}))
manager.wait_until_finished()
child = os.fork()
if child == 0:
    status = 1
    try:
        manager.save(1, args=ocp.args.StandardSave({"a": np.arange(3)}))
    except RuntimeError as error:
        print(error, flush=True)
        status = 0 if "fork" in str(error) else 2
    # Another store, or a manager of its own once the parent has closed, is no problem.
    ocp.save(sys.argv[2], {"child": os.getpid()})
    os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
# The parent goes on as before.
manager.save(2, args=ocp.args.StandardSave({"a": np.arange(3)}))
manager.close()
assert ocp.CheckpointManager(sys.argv[1]).all_steps() == [0, 2]
"""


def test_an_open_manager_is_refused_in_a_fork_with_a_message_that_says_so(
    run_python: Callable[..., str], tmp_path: pathlib.Path
) -> None:
    assert "fork" in run_python(FORKED, tmp_path / "run", tmp_path / "child")
    assert set(ocp.load(tmp_path / "child")) == {"child"}


FORKED_AT_EXIT = """
import os, sys
import stepstone as ocp

manager = ocp.CheckpointManager(sys.argv[1])
manager.save(0, args=ocp.args.StandardSave({"a": 1}))
child = os.fork()
if child == 0:
    sys.exit(0)  # Ends as programs do, with all that runs then.
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
manager.save(1, args=ocp.args.StandardSave({"a": 2}))
manager.close()
assert ocp.CheckpointManager(sys.argv[1]).all_steps() == [0, 1]
"""


def test_a_forked_child_that_exits_leaves_the_parents_manager_alone(
    run_python: Callable[..., str], tmp_path: pathlib.Path
) -> None:
    run_python(FORKED_AT_EXIT, tmp_path / "run", timeout_s=30)


EXITING = """
import sys
import numpy as np
import stepstone as ocp

manager = ocp.CheckpointManager(sys.argv[1])
state = {str(leaf): np.full(1_000_000, leaf, np.float32) for leaf in range(16)}
manager.save(0, args=ocp.args.StandardSave(state))
if sys.argv[2] == "exception":
    raise SystemExit(3)
"""


@pytest.mark.parametrize("ending, status", [("end", 0), ("exception", 3)])
def test_a_save_in_flight_at_the_end_of_the_program_is_finished(
    run_python: Callable[..., str], tmp_path: pathlib.Path, ending: str, status: int
) -> None:
    run_python(EXITING, tmp_path / "run", ending, status=status)
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        assert list(manager.all_steps()) == [0]
        trees.assert_same(manager.restore(0), large_state())


TRAINER = """
import sys
import numpy as np
import stepstone as ocp

options = ocp.CheckpointManagerOptions(max_to_keep=2)
with ocp.CheckpointManager(sys.argv[1], options=options) as manager:
    for step in range(int(sys.argv[2])):
        manager.save(step, args=ocp.args.StandardSave({"step": step, "a": np.full(1000, step)}))
        manager.wait_until_finished()
        sys.stdin.readline() if step == 0 else None
"""


def test_an_evaluator_follows_a_trainer_to_its_last_step(
    start_python: Callable[..., subprocess.Popen[str]], tmp_path: pathlib.Path
) -> None:
    last = 40
    trainer = start_python(TRAINER, tmp_path / "run", last + 1)
    seen = []
    for step in ocp.checkpoint_utils.checkpoints_iterator(tmp_path / "run", timeout=60):
        with ocp.CheckpointManager(
            tmp_path / "run", options=ocp.CheckpointManagerOptions(read_only=True)
        ) as reader:
            # Held by the iterator: the trainer may retire it meanwhile, and it stays readable.
            found = reader.restore(step) if step in reader.all_steps() else None
        if found is not None:
            trees.assert_same(found, {"step": step, "a": np.full(1000, step)})
        seen.append(step)
        if step == last:
            break
    assert seen == sorted(set(seen)) and seen[-1] == last
    _, errors = trainer.communicate(timeout=60)
    assert trainer.returncode == 0, errors


SECOND_WRITER = """
import sys
import stepstone as ocp

try:
    ocp.CheckpointManager(sys.argv[1]).save(5, args=ocp.args.StandardSave({"a": 1}))
except TimeoutError as error:
    print(error)
reader = ocp.CheckpointManager(sys.argv[1], options=ocp.CheckpointManagerOptions(read_only=True))
print(list(reader.all_steps()))
"""


def test_a_second_process_may_read_and_is_told_that_it_may_not_write(
    manager: Any, run_python: Callable[..., str], tmp_path: pathlib.Path
) -> None:
    manager.save(3, args=ocp.args.StandardSave({"a": 1}))
    manager.wait_until_finished()
    *message, steps = run_python(SECOND_WRITER, tmp_path / "run").splitlines()
    assert steps == "[3]"
    assert "process" in " ".join(message)


def test_a_manager_that_is_forgotten_is_closed_and_its_save_finished(tmp_path: pathlib.Path) -> None:
    manager = ocp.CheckpointManager(tmp_path / "run")
    manager.save(0, args=ocp.args.StandardSave({"a": np.arange(10)}))
    del manager
    with ocp.CheckpointManager(tmp_path / "run") as again:
        trees.assert_same(again.restore(0), {"a": np.arange(10)})
