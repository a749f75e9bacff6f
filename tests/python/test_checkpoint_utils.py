"""Evaluators that follow a run, and arguments for restoring."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import trees

import stepstone as ocp

utils = ocp.checkpoint_utils


def state(step: int) -> dict[str, Any]:
    return {"step": step, "a": np.full(100_000, step)}


@pytest.fixture
def manager(tmp_path: pathlib.Path) -> Any:
    options = ocp.CheckpointManagerOptions(max_to_keep=1)
    with ocp.CheckpointManager(tmp_path / "run", options=options) as manager:
        yield manager


def save(manager: Any, step: int) -> None:
    manager.save(step, args=ocp.args.StandardSave(state(step)))
    manager.wait_until_finished()


def test_a_wait_gives_the_newest_step_that_is_high_enough(manager: Any) -> None:
    save(manager, 3)
    with utils.wait_for_new_checkpoint(manager.directory) as step:
        assert step == 3
    with utils.wait_for_new_checkpoint(manager.directory, until_step=3, timeout=0) as step:
        assert step == 3
    with utils.wait_for_new_checkpoint(manager.directory, until_step=4, timeout=0) as step:
        assert step == -1


def test_a_wait_goes_on_until_the_step_is_there(manager: Any) -> None:
    looks = []

    def is_over() -> bool:
        looks.append(len(looks))
        save(manager, 10 * len(looks))
        return False

    with utils.wait_for_new_checkpoint(
        manager.directory, until_step=25, timeout=0, timeout_fn=is_over, seconds_to_sleep=0.001
    ) as step:
        assert step == 30 and len(looks) == 3


def test_a_wait_is_given_up_when_that_is_said(tmp_path: pathlib.Path) -> None:
    answers = iter([False, False, True])
    with utils.wait_for_new_checkpoint(
        tmp_path / "absent", timeout=0, timeout_fn=lambda: next(answers), seconds_to_sleep=0.001
    ) as step:
        assert step == -1
    assert next(answers, None) is None and not (tmp_path / "absent").exists()


def test_an_iterator_gives_what_is_newest_each_time_it_is_asked(manager: Any) -> None:
    save(manager, 0)
    seen = []
    for step in utils.checkpoints_iterator(manager.directory, timeout=0, seconds_to_sleep=0.001):
        seen.append(step)
        if step < 5:
            save(manager, step + 1)
            save(manager, step + 2)
    assert seen == [0, 2, 4, 6]
    assert list(utils.checkpoints_iterator(manager.directory, timeout=0)) == [6]


@pytest.mark.parametrize("ending", ["close", "error"])
def test_a_step_is_held_while_it_is_evaluated_and_let_go_afterwards(
    manager: Any, ending: str
) -> None:
    save(manager, 0)
    steps = utils.checkpoints_iterator(manager.directory)
    assert next(steps) == 0
    save(manager, 1)  # Retires step 0.
    assert manager.all_steps() == [1]
    trees.assert_same(manager.restore(0), state(0))
    path = manager.directory / "0"
    trees.assert_same(ocp.StandardCheckpointer().restore(path), state(0))
    trees.assert_same(ocp.load(path), state(0))
    if ending == "close":
        steps.close()
    else:
        with pytest.raises(RuntimeError):
            steps.throw(RuntimeError)
    with pytest.raises(FileNotFoundError):
        manager.restore(0)


TRAINER = """
import sys
import numpy as np
import stepstone as ocp

options = ocp.CheckpointManagerOptions(max_to_keep=1)
with ocp.CheckpointManager(sys.argv[1], options=options) as manager:
    for step in map(int, iter(sys.stdin.readline, "")):
        state = {"step": step, "a": np.full(100_000, step)}
        manager.save(step, args=ocp.args.StandardSave(state))
        manager.wait_until_finished()
        print(step, flush=True)
"""


def test_a_step_of_another_process_is_held_although_its_trainer_retires_it(
    environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    directory = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(directory)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, env=environment,
    ) as trainer:
        assert trainer.stdin is not None and trainer.stdout is not None

        def train(step: int) -> None:
            print(step, file=trainer.stdin, flush=True)
            assert trainer.stdout.readline() == f"{step}\n"

        train(0)
        reader = ocp.CheckpointManager(
            directory, options=ocp.CheckpointManagerOptions(read_only=True)
        )
        for step in utils.checkpoints_iterator(directory, timeout=0, seconds_to_sleep=0.001):
            if step == 3:
                break
            train(step + 1)
            # Whoever reads the step by its number or its path finds it, reloaded or not.
            trees.assert_same(reader.restore(step), state(step))
            reader.reload()
            assert reader.all_steps() == [step + 1]
            trees.assert_same(reader.restore(step), state(step))
            path = directory / str(step)
            trees.assert_same(ocp.StandardCheckpointer().restore(path), state(step))
            assert reader.metadata(step).item_metadata["a"].shape == (100_000,)
        reader.close()
        trainer.stdin.close()
        assert trainer.wait(60) == 0


def test_iterators_of_several_threads_hold_the_same_step(manager: Any) -> None:
    save(manager, 0)
    both_hold, may_end = threading.Barrier(3), threading.Event()
    failures: list[BaseException] = []

    def evaluate() -> None:
        try:
            with utils.wait_for_new_checkpoint(manager.directory) as step:
                both_hold.wait(30)
                may_end.wait(30)
                trees.assert_same(manager.restore(step), state(0))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=evaluate) for _ in range(2)]
    for thread in threads:
        thread.start()
    both_hold.wait(30)
    save(manager, 1)
    may_end.set()
    for thread in threads:
        thread.join()
    assert failures == []


# Arguments for restoring.


def test_restore_args_ask_for_the_kinds_of_leaves_that_the_target_has(
    tmp_path: pathlib.Path,
) -> None:
    tree = {"a": np.arange(3), "plain": [1, 2.5, True, "text", b"b", 1j], "none": None}
    target = {"a": np.zeros(3, np.float32), "plain": tree["plain"], "none": None}
    args = utils.construct_restore_args(target)
    assert args["a"].restore_type is np.ndarray and args["a"].dtype == np.float32
    assert [each.restore_type for each in args["plain"]] == [int, float, bool, str, bytes, complex]
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(0, args=ocp.args.PyTreeSave(tree))
        restored = manager.restore(0, args=ocp.args.PyTreeRestore(restore_args=args))
        trees.assert_same(restored, {**tree, "a": tree["a"].astype(np.float32)})
        # From metadata as well.
        metadata = manager.item_metadata(0)
        for made in (
            utils.construct_restore_args(metadata).tree,
            utils.construct_restore_args(metadata.tree),
        ):
            restored = manager.restore(0, args=ocp.args.PyTreeRestore(restore_args=made))
            trees.assert_same(restored, tree)


def test_placeholders_are_not_restored_and_other_leaves_refused(tmp_path: pathlib.Path) -> None:
    args = utils.construct_restore_args({"a": ocp.PLACEHOLDER, "b": np.zeros(2)})
    assert args["a"].restore_type is type(ocp.PLACEHOLDER)
    with pytest.raises(ValueError, match="object"):
        utils.construct_restore_args({"a": object()})


JAX_PROGRAM = """
import sys
import jax, jax.numpy as jnp, numpy as np
import stepstone as ocp

sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
target = {
    "array": jnp.zeros((2, 3), jnp.bfloat16),
    "abstract": jax.ShapeDtypeStruct((4,), jnp.float32),
    "placed": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=sharding),
    "key": jax.random.key(0),
}
args = ocp.checkpoint_utils.construct_restore_args(target)
assert isinstance(args["array"], ocp.ArrayRestoreArgs) and args["array"].global_shape == (2, 3)
assert args["array"].sharding == target["array"].sharding and args["array"].dtype == jnp.bfloat16
assert args["abstract"].restore_type is np.ndarray
assert args["placed"].restore_type is jax.Array and args["placed"].sharding == sharding
assert args["key"].dtype is None and args["key"].global_shape is None
shardings = jax.tree.map(lambda _: sharding, target)
args = ocp.checkpoint_utils.construct_restore_args(
    target, shardings, set_global_shape=False, strict=False
)
assert args["abstract"].sharding == sharding and args["abstract"].global_shape is None
assert not args["abstract"].strict
"""


def test_arrays_of_jax_go_where_the_target_says(run_python: Callable[..., str]) -> None:
    pytest.importorskip("jax", reason="jax is absent, and with it shardings")
    run_python(JAX_PROGRAM)
