"""Programs that go on using Orbax's own objects, and only have their checkpoints saved by ours."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import trees

import stepstone

orbax = pytest.importorskip(
    "orbax.checkpoint", reason="Orbax is absent: that its objects are taken is not tested"
)

STATE = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": 3}
ZEROS = {"w": np.zeros((2, 3), np.float32), "n": 0}


def test_orbaxs_own_manager_can_be_replaced_in_one_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import orbax.checkpoint as ocp

    monkeypatch.setattr(ocp, "CheckpointManager", stepstone.CheckpointManager)

    options = ocp.CheckpointManagerOptions(
        max_to_keep=2, save_interval_steps=2, best_fn=lambda metrics: metrics["accuracy"],
        async_options=ocp.AsyncOptions(timeout_secs=60),
    )
    with ocp.CheckpointManager(
        tmp_path / "run", options=options, item_names=("state", "extra"), metadata={"model": "small"}
    ) as manager:
        for step in range(7):
            manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave({**STATE, "n": step}),
                    extra=ocp.args.JsonSave({"step": step}),
                ),
                metrics={"accuracy": -abs(step - 2)},
            )
        manager.wait_until_finished()
        assert isinstance(manager, stepstone.CheckpointManager)
        assert manager.best_step() == 2
        # The best two, and the newest, which a trainer needs to go on.
        assert {2, 6} <= set(manager.all_steps())
        assert 0 not in manager.all_steps() or 4 not in manager.all_steps()

        restored = manager.restore(
            6,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(ZEROS), extra=ocp.args.JsonRestore()
            ),
        )
        trees.assert_same(restored.state, {**STATE, "n": 6})
        assert restored["extra"] == {"step": 6}
        assert manager.metadata().custom_metadata == {"model": "small"}


POLICIES: dict[str, Any] = {
    "interval": (lambda: orbax.checkpoint_managers.FixedIntervalPolicy(3), [0, 3, 6]),
    "steps": (lambda: orbax.checkpoint_managers.SpecificStepsPolicy([1, 5]), [1, 5]),
    "initial": (lambda: orbax.checkpoint_managers.InitialSavePolicy(), [0]),
    "any": (
        lambda: orbax.checkpoint_managers.AnySavePolicy(
            [
                orbax.checkpoint_managers.FixedIntervalPolicy(4),
                orbax.checkpoint_managers.SpecificStepsPolicy([5]),
            ]
        ),
        [0, 4, 5],
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_orbaxs_policies_decide_what_is_saved(tmp_path: pathlib.Path, name: str) -> None:
    policy, steps = POLICIES[name]
    options = orbax.CheckpointManagerOptions(save_decision_policy=policy())
    with stepstone.CheckpointManager(tmp_path / "run", options=options) as manager:
        for step in range(8):
            assert manager.save(step, args=orbax.args.StandardSave(STATE)) == (step in steps)
        manager.wait_until_finished()
        assert list(manager.all_steps()) == steps


KEEPERS: dict[str, Any] = {
    "all": (lambda: orbax.checkpoint_managers.preservation_policy.PreserveAll(), list(range(8))),
    "latest": (lambda: orbax.checkpoint_managers.LatestN(2), [6, 7]),
    "every third": (lambda: orbax.checkpoint_managers.EveryNSteps(3), [0, 3, 6, 7]),
    "these": (lambda: orbax.checkpoint_managers.CustomSteps([1, 4]), [1, 4, 7]),
    "any": (
        lambda: orbax.checkpoint_managers.AnyPreservationPolicy(
            [orbax.checkpoint_managers.LatestN(1), orbax.checkpoint_managers.EveryNSteps(4)]
        ),
        [0, 4, 7],
    ),
    "best": (
        lambda: orbax.checkpoint_managers.BestN(get_metric_fn=lambda metrics: metrics["m"], n=2),
        [2, 5, 7],
    ),
}


@pytest.mark.parametrize("name", KEEPERS)
def test_orbaxs_policies_decide_what_is_kept(tmp_path: pathlib.Path, name: str) -> None:
    policy, steps = KEEPERS[name]
    options = orbax.CheckpointManagerOptions(
        preservation_policy=policy(), enable_async_checkpointing=False
    )
    with stepstone.CheckpointManager(tmp_path / "run", options=options) as manager:
        for step in range(8):
            metrics = {"m": 1.0 if step in (2, 5) else 0.1 - step / 100}
            manager.save(step, args=orbax.args.StandardSave(STATE), metrics=metrics)
        # The newest step is always kept.
        assert list(manager.all_steps()) == steps


def test_a_policy_written_for_orbax_is_asked(tmp_path: pathlib.Path) -> None:
    class Odd(orbax.checkpoint_managers.SaveDecisionPolicy):  # type: ignore[misc]
        def should_save(self, step: Any, previous_steps: Any, *, context: Any) -> bool:
            assert not context.is_saving_in_progress or previous_steps
            return bool(step.step % 2)

    class NotThree(orbax.checkpoint_managers.PreservationPolicy):  # type: ignore[misc]
        def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
            return [checkpoint.step != 3 for checkpoint in checkpoints]

    options = orbax.CheckpointManagerOptions(
        save_decision_policy=Odd(), preservation_policy=NotThree()
    )
    with stepstone.CheckpointManager(tmp_path / "run", options=options) as manager:
        for step in range(6):
            manager.save(step, args=orbax.args.StandardSave(STATE))
        manager.wait_until_finished()
        assert list(manager.all_steps()) == [1, 5]


def test_orbaxs_options_name_the_steps(tmp_path: pathlib.Path) -> None:
    options = orbax.CheckpointManagerOptions(step_prefix="step", step_format_fixed_length=5)
    with stepstone.CheckpointManager(tmp_path / "run", options=options) as manager:
        manager.save(7, args=orbax.args.StandardSave(STATE))
        manager.wait_until_finished()
        assert "step_00007" in repr(manager)


ITEMS: dict[str, Any] = {
    "standard": (lambda: orbax.args.StandardSave(STATE), lambda: orbax.args.StandardRestore(ZEROS), STATE),
    "pytree": (lambda: orbax.args.PyTreeSave(STATE), lambda: orbax.args.PyTreeRestore(ZEROS), STATE),
    "array": (
        lambda: orbax.args.ArraySave(STATE["w"]), lambda: orbax.args.ArrayRestore(), STATE["w"],
    ),
    "json": (
        lambda: orbax.args.JsonSave({"a": [1, None]}), lambda: orbax.args.JsonRestore(), {"a": [1, None]},
    ),
}


@pytest.mark.parametrize("name", ITEMS)
def test_orbaxs_arguments_are_taken_for_one_object_and_in_a_composite(
    tmp_path: pathlib.Path, name: str
) -> None:
    save, restore, expected = ITEMS[name]
    with stepstone.CheckpointManager(tmp_path / "single") as manager:
        manager.save(0, args=save())
        trees.assert_same(manager.restore(0, args=restore()), expected)
        trees.assert_same(manager.restore(0), expected)
    with stepstone.CheckpointManager(tmp_path / "several") as manager:
        manager.save(0, args=orbax.args.Composite(item=save(), other=orbax.args.JsonSave({})))
        restored = manager.restore(0, args=orbax.args.Composite(item=restore()))
        trees.assert_same(restored["item"], expected)


def test_orbaxs_arguments_of_leaves_are_taken(tmp_path: pathlib.Path) -> None:
    with stepstone.CheckpointManager(tmp_path / "run") as manager:
        save_args = {"w": orbax.SaveArgs(dtype=np.dtype(np.float16)), "n": orbax.SaveArgs()}
        manager.save(0, args=orbax.args.PyTreeSave(STATE, save_args=save_args))
        restore_args = {
            "w": orbax.RestoreArgs(restore_type=np.ndarray, dtype=np.float64),
            "n": orbax.RestoreArgs(),
        }
        restored = manager.restore(0, args=orbax.args.PyTreeRestore(restore_args=restore_args))
        trees.assert_same(restored, {"w": STATE["w"].astype(np.float64), "n": 3})


def test_orbaxs_placeholders_and_abstract_leaves_are_taken(tmp_path: pathlib.Path) -> None:
    import jax

    with stepstone.CheckpointManager(tmp_path / "run") as manager:
        manager.save(0, args=orbax.args.StandardSave(STATE))
        target = {"w": jax.ShapeDtypeStruct((2, 3), np.float32), "n": orbax.PLACEHOLDER}
        restored = manager.restore(0, args=orbax.args.PyTreeRestore(target))
        assert restored["n"] is orbax.PLACEHOLDER
        assert isinstance(restored["w"], jax.Array)
        np.testing.assert_array_equal(np.asarray(restored["w"]), STATE["w"])


@pytest.fixture
def handler() -> Iterator[Any]:
    """A handler as users of Orbax write them, with its arguments, and the class of its objects."""

    class Text:
        def __init__(self, text: str):
            self.text = text

    class TextHandler(orbax.CheckpointHandler):  # type: ignore[misc]
        def save(self, directory: Any, args: Any) -> None:
            (directory / "text.txt").write_text(args.item.text)
            (directory / "below").mkdir()
            (directory / "below" / "bytes").write_bytes(bytes(range(256)))

        def restore(self, directory: Any, args: Any = None) -> Any:
            assert (directory / "below" / "bytes").read_bytes() == bytes(range(256))
            return Text((directory / "text.txt").read_text())

    @orbax.args.register_with_handler(TextHandler, for_save=True)
    class TextSave(orbax.args.CheckpointArgs):  # type: ignore[misc]
        def __init__(self, item: Text):
            self.item = item

    @orbax.args.register_with_handler(TextHandler, for_restore=True)
    class TextRestore(orbax.args.CheckpointArgs):  # type: ignore[misc]
        pass

    class Names:
        pass

    names: Any = Names()
    names.Text, names.Handler, names.Save, names.Restore = Text, TextHandler, TextSave, TextRestore
    yield names


def test_a_handler_written_for_orbax_has_its_files_stored(tmp_path: pathlib.Path, handler: Any) -> None:
    with stepstone.CheckpointManager(tmp_path / "run") as manager:
        manager.save(
            0,
            args=orbax.args.Composite(
                note=handler.Save(handler.Text("grüße")), state=orbax.args.StandardSave(STATE)
            ),
        )
        manager.wait_until_finished()
        restored = manager.restore(0, args=orbax.args.Composite(note=handler.Restore(), state=None))
        assert restored["note"].text == "grüße"
        trees.assert_same(restored["state"], STATE)


def test_orbaxs_handlers_and_registry_can_be_given_to_the_manager(
    tmp_path: pathlib.Path, handler: Any
) -> None:
    with stepstone.CheckpointManager(
        tmp_path / "handlers",
        item_handlers={"state": orbax.StandardCheckpointHandler(), "note": handler.Handler()},
    ) as manager:
        manager.save(
            0,
            args=orbax.args.Composite(
                state=orbax.args.StandardSave(STATE), note=handler.Save(handler.Text("a"))
            ),
        )
        restored = manager.restore(0)
        trees.assert_same(restored["state"], STATE)
        assert restored["note"].text == "a"

    registry = orbax.DefaultCheckpointHandlerRegistry()
    registry.add("note", handler.Save, handler.Handler())
    registry.add("note", handler.Restore, handler.Handler())
    with stepstone.CheckpointManager(tmp_path / "registry", handler_registry=registry) as manager:
        manager.save(0, args=orbax.args.Composite(note=handler.Save(handler.Text("b"))))
        assert manager.restore(0, args=orbax.args.Composite(note=handler.Restore()))["note"].text == "b"


def test_orbaxs_metadata_questions_have_answers(tmp_path: pathlib.Path) -> None:
    with stepstone.CheckpointManager(tmp_path / "run") as manager:
        manager.save(0, args=orbax.args.StandardSave(STATE), custom_metadata={"by": "test"})
        manager.wait_until_finished()
        metadata = manager.metadata(0)
        assert metadata.custom_metadata == {"by": "test"}
        item = manager.item_metadata(0)
        assert item["w"].shape == (2, 3) and item["w"].dtype == np.float32
        # The metadata of a step is a target for it.
        trees.assert_same(manager.restore(0, args=orbax.args.StandardRestore(item.tree)), STATE)
