"""`save`, `load` and their kin: what comes back, and what each mistake raises."""

from __future__ import annotations

import os
import pathlib
import threading
from typing import Any

import numpy as np
import pytest

import stepstone
from stepstone import v1 as ocp


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "checkpoint"


def state() -> dict[str, Any]:
    return {"params": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, "step": 3, "name": "run"}


def same(found: Any, expected: Any) -> bool:
    np.testing.assert_equal(found, expected)
    return True


def test_load_gives_what_save_was_given(path: pathlib.Path) -> None:
    assert ocp.save(path, state()) is None  # type: ignore[func-returns-value]
    assert same(ocp.load(path), state())
    assert same(ocp.load(str(path) + "/state"), state())


def test_the_functions_are_at_the_top_of_the_package(path: pathlib.Path) -> None:
    stepstone.save(path, state())
    assert same(stepstone.load(path), state())


def test_a_target_decides_types_and_may_leave_out_values(path: pathlib.Path) -> None:
    ocp.save(path, state())
    target = {"params": {"w": np.zeros((2, 3), np.float64)}, "step": ..., "name": str}
    found = ocp.load(path, target)
    assert found["params"]["w"].dtype == np.float64
    assert found["step"] is ... and found["name"] == "run"


def test_a_target_has_to_fit_unless_a_context_says_otherwise(path: pathlib.Path) -> None:
    ocp.save(path, state())
    for target in (
        {"params": {"w": np.zeros((2, 3))}},  # Leaves missing in the target,
        {**state(), "more": 1},  # and in the checkpoint;
        {**state(), "params": {"w": np.zeros((3, 3))}},  # another shape;
        {**state(), "params": {"w": np.zeros((2, 3), np.int8)}},  # a cast that loses.
    ):
        with pytest.raises(ValueError):
            ocp.load(path, target)
    with pytest.raises(TypeError, match="name"):
        ocp.load(path, {**state(), "name": object()})
    partial = ocp.Context()
    partial.pytree.loading.partial_load = True
    with partial:
        assert same(ocp.load(path, {"step": int}), {"step": 3})
        with pytest.raises(ValueError):
            ocp.load(path, {"more": 1})
    padded = ocp.Context()
    padded.array.loading.enable_padding_and_truncation = True
    with padded:
        found = ocp.load(path, {**state(), "params": {"w": np.zeros((1, 4), np.float32)}})
    assert same(found["params"]["w"], np.array([[0, 1, 2, 0]], np.float32))


def test_storage_options_decide_how_arrays_are_stored(path: pathlib.Path) -> None:
    context = ocp.Context()
    context.array.saving.storage_options.dtype = np.float16

    def keep_small(key_path: tuple[Any, ...], leaf: Any) -> Any:
        if "small" in str(key_path):
            return ocp.options.ArrayOptions.Saving.StorageOptions(dtype=np.float64)
        return None

    context.array.saving.scoped_storage_options_creator = keep_small
    with context:
        ocp.save(path, {"small": np.ones(2, np.float32), "w": np.ones(2, np.float32), "n": 3})
    found = ocp.load(path)
    assert (found["small"].dtype, found["w"].dtype, found["n"]) == (np.float64, np.float16, 3)


def test_a_lossy_cast_on_save_is_refused(path: pathlib.Path) -> None:
    context = ocp.Context()
    context.array.saving.storage_options.dtype = np.int8
    with context, pytest.raises(ValueError, match="w"):
        ocp.save(path, {"w": np.ones(2)})
    assert not ocp.is_stepstone_checkpoint(path)


def test_a_checkpoint_is_replaced_only_when_asked(path: pathlib.Path) -> None:
    ocp.save(path, {"a": 1})
    with pytest.raises(ValueError, match="overwrite") as raised:
        ocp.save(path, {"a": 2})
    assert isinstance(raised.value, FileExistsError)
    assert ocp.load(path) == {"a": 1}
    ocp.save(path, {"a": 2}, overwrite=True)
    assert ocp.load(path) == {"a": 2}


def test_a_failed_overwrite_leaves_the_old_checkpoint(path: pathlib.Path) -> None:
    ocp.save(path, {"a": 1})
    with pytest.raises((ValueError, TypeError)):
        ocp.save(path, {"a": object()}, overwrite=True)
    assert ocp.load(path) == {"a": 1}


def test_where_nothing_is_load_says_so_in_both_of_pythons_ways(path: pathlib.Path) -> None:
    for call in (ocp.load, ocp.load_checkpointables, ocp.metadata, ocp.checkpointables_metadata):
        with pytest.raises(FileNotFoundError) as raised:
            call(path)  # type: ignore[operator]
        assert isinstance(raised.value, ValueError)
        assert isinstance(raised.value, ocp.errors.InvalidLayoutError)
        assert str(path) in str(raised.value)


def test_several_objects_are_loaded_together_or_one_by_one(path: pathlib.Path) -> None:
    ocp.save_checkpointables(path, {"model": {"w": np.ones(2)}, "optimizer": {"m": np.zeros(2)}})
    both = {"model": {"w": np.ones(2)}, "optimizer": {"m": np.zeros(2)}}
    assert same(ocp.load_checkpointables(path), both)
    found = ocp.load_checkpointables(path, {"optimizer": None})
    assert same(found, {"optimizer": {"m": np.zeros(2)}})
    assert same(ocp.load(path, checkpointable_name="optimizer"), {"m": np.zeros(2)})
    assert same(ocp.load(path / "optimizer"), {"m": np.zeros(2)})
    # Without a name: `state`, else the first.
    assert same(ocp.load(path), {"w": np.ones(2)})
    with pytest.raises(KeyError):
        ocp.load_checkpointables(path, {"other": None})
    with pytest.raises(ocp.errors.InvalidLayoutError):
        ocp.load(path, checkpointable_name="other")
    with pytest.raises(ocp.errors.InvalidLayoutError):
        ocp.load(path, checkpointable_name=None)


def test_names_are_checked_before_anything_is_written(path: pathlib.Path) -> None:
    for name in ("", "metrics", "AUTO", "_CHECKPOINT_DELETION"):
        with pytest.raises(ValueError):
            ocp.save_checkpointables(path, {name: 1})
    for checkpointables in ({}, {"a": None}, [1]):
        with pytest.raises(ValueError):
            ocp.save_checkpointables(path, checkpointables)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        ocp.load(path, checkpointable_name="")
    assert not path.exists()


def test_what_nobody_can_save_is_refused_by_name(path: pathlib.Path) -> None:
    with pytest.raises(KeyError, match="thing"):
        ocp.save_checkpointables(path, {"thing": object()})
    with pytest.raises((ValueError, TypeError), match="b"):
        ocp.save(path, {"b": object()})
    assert not ocp.is_stepstone_checkpoint(path)


def test_custom_metadata_comes_back_and_has_to_be_json(path: pathlib.Path) -> None:
    ocp.save(path, {"a": 1}, custom_metadata={"note": [1, None]})
    assert ocp.metadata(path).custom_metadata == {"note": [1, None]}
    for bad in ({"a": np.ones(1)}, [1]):
        with pytest.raises((TypeError, ValueError)):
            ocp.save(path, {"a": 1}, overwrite=True, custom_metadata=bad)  # type: ignore[arg-type]


def test_metadata_tells_shapes_and_is_a_target(path: pathlib.Path) -> None:
    ocp.save(path, state())
    found = ocp.metadata(path)
    assert found.metadata["params"]["w"].shape == (2, 3)
    assert found.metadata["params"]["w"].dtype == np.float32
    assert found.commit_timestamp is not None and found.init_timestamp is not None
    assert found.init_timestamp <= found.commit_timestamp
    assert found.path == path
    assert same(ocp.load(path, found), state())
    everything = ocp.checkpointables_metadata(path)
    assert list(everything.metadata) == ["state"]
    assert same(ocp.load_checkpointables(path, everything), {"state": state()})


def test_a_save_in_the_background_has_the_values_of_the_call(path: pathlib.Path) -> None:
    w = np.ones(1 << 16)
    finished = threading.Event()
    response = ocp.save_async(path, {"w": w})
    w[:] = 0
    response.on_complete(lambda _: finished.set())
    assert response.result() is None  # type: ignore[func-returns-value]
    assert response.result(timeout=1) is None  # type: ignore[func-returns-value]
    assert finished.wait(60)
    assert ocp.load(path)["w"].all()


def test_what_a_save_in_the_background_finds_at_once_it_raises_at_once(path: pathlib.Path) -> None:
    ocp.save(path, {"a": 1})
    with pytest.raises(ValueError):
        ocp.save_async(path, {"a": 2})
    with pytest.raises((ValueError, TypeError)):
        ocp.save_async(path, {"a": object()}, overwrite=True)


def test_the_callback_of_a_context_is_called_when_a_save_is_durable(path: pathlib.Path) -> None:
    called = threading.Event()
    context = ocp.Context()
    context.asynchronous.post_finalization_callback = called.set
    with context:
        ocp.save_async(path, {"a": 1}).result()
    assert called.wait(60)


def test_a_dropped_response_loses_no_checkpoint(path: pathlib.Path) -> None:
    ocp.save_async(path, {"a": 1})
    ocp.save_async(path.with_name("other"), {"a": 2}).result()
    for _ in range(1000):
        if ocp.is_stepstone_checkpoint(path):
            break
        ocp.save(path.with_name("other"), {"a": 2}, overwrite=True)
    assert ocp.load(path) == {"a": 1}


def test_loads_in_the_background_run_in_the_context_of_the_call(path: pathlib.Path) -> None:
    ocp.save(path, state())
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        response = ocp.load_async(path, {"step": int})
    assert response.result() == {"step": 3}
    assert same(ocp.load_checkpointables_async(path).result(60), {"state": state()})
    with pytest.raises(FileNotFoundError):
        ocp.load_async(path.with_name("other")).result()


def test_what_the_other_style_has_saved_is_loaded(tmp_path: pathlib.Path) -> None:
    with stepstone.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "single", state())
    assert same(ocp.load(tmp_path / "single"), state())
    assert same(ocp.load(tmp_path / "single", checkpointable_name=None), state())
    with stepstone.CheckpointManager(tmp_path / "run") as manager:
        manager.save(
            4,
            args=stepstone.args.Composite(
                state=stepstone.args.StandardSave(state()),
                notes=stepstone.args.JsonSave({"a": [1]}),
            ),
        )
        manager.wait_until_finished()
    assert same(ocp.load(tmp_path / "run/4"), state())
    assert ocp.load_checkpointables(tmp_path / "run/4", {"notes": None}) == {"notes": {"a": [1]}}
    with pytest.raises(ocp.errors.InvalidLayoutError, match="4"):
        ocp.load(tmp_path / "run/5")


def test_what_functions_have_saved_the_other_style_restores(path: pathlib.Path) -> None:
    ocp.save(path, state())
    found = stepstone.Checkpointer(stepstone.CompositeCheckpointHandler()).restore(path)
    assert same(found["state"], state())


def test_only_checkpoints_are_said_to_be_some(tmp_path: pathlib.Path) -> None:
    ocp.save(tmp_path / "saved", {"a": 1})
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert ocp.is_orbax_checkpoint(tmp_path / "saved")
    for name in ("empty", "file", "absent", "saved/state"):
        assert not ocp.is_stepstone_checkpoint(tmp_path / name)


def test_deleting_takes_the_whole_checkpoint(path: pathlib.Path) -> None:
    ocp.save(path, {"a": 1})
    assert ocp.delete(path)
    assert os.listdir(path.parent) == []
    with pytest.raises(FileNotFoundError):
        ocp.delete(path)
    assert not ocp.delete(path, missing_ok=True)
    ocp.save(path, {"a": 2})
    assert ocp.delete_async(path).result()


def test_an_interrupted_deletion_is_finished_by_the_next(path: pathlib.Path) -> None:
    ocp.save(path, {"a": 1})
    path.rename(f"{path}.being_deleted")
    assert not ocp.is_stepstone_checkpoint(path)
    assert ocp.delete(path)
    assert os.listdir(path.parent) == []


def test_deleting_one_object_leaves_the_others(path: pathlib.Path) -> None:
    ocp.save_checkpointables(
        path,
        {"model": {"w": (np.ones(2), None)}, "optimizer": {"m": np.zeros(2)}},
        custom_metadata={"note": 1},
    )
    assert ocp.delete(path, checkpointable_name="optimizer")
    assert same(ocp.load_checkpointables(path), {"model": {"w": (np.ones(2), None)}})
    assert ocp.metadata(path).custom_metadata == {"note": 1}
    with pytest.raises(FileNotFoundError):
        ocp.delete(path, checkpointable_name="optimizer")
    assert not ocp.delete(path, checkpointable_name="optimizer", missing_ok=True)
    for name in ("model", "", "metrics", "a/b"):
        with pytest.raises(ValueError):
            ocp.delete(path, checkpointable_name=name)
    with pytest.raises(TypeError):
        ocp.delete(path, checkpointable_name=3)  # type: ignore[arg-type]
    with pytest.raises(ocp.errors.InvalidLayoutError):
        ocp.delete(path / "model")
    assert same(ocp.load(path), {"w": (np.ones(2), None)})


def test_deleting_a_step_of_a_run_leaves_the_run(tmp_path: pathlib.Path) -> None:
    with ocp.training.Checkpointer(tmp_path / "run") as checkpointer:
        for step in (1, 2):
            checkpointer.save_checkpointables(
                step, {"a": {"x": step}, "b": {"y": step}}, force=True, metrics={"loss": step}
            )
    with pytest.raises(ValueError):
        ocp.delete(tmp_path / "run")
    assert ocp.delete(tmp_path / "run/1")
    assert ocp.delete(tmp_path / "run/2", checkpointable_name="b")
    with ocp.training.Checkpointer(tmp_path / "run") as checkpointer:
        assert [(found.step, found.metrics) for found in checkpointer.checkpoints] == [
            (2, {"loss": 2})
        ]
        assert checkpointer.load_checkpointables() == {"a": {"x": 2}}


def test_deprecated_names_warn_and_work(path: pathlib.Path) -> None:
    with pytest.warns(DeprecationWarning, match="save_pytree"):
        ocp.save_pytree(path, {"a": 1})
    with pytest.warns(DeprecationWarning):
        assert ocp.load_pytree(path) == {"a": 1}
    with pytest.warns(DeprecationWarning):
        assert list(ocp.pytree_metadata(path).metadata) == ["a"]


def test_foreign_formats_are_refused_by_name(path: pathlib.Path) -> None:
    with ocp.Context(checkpoint_layout="safetensors"):
        with pytest.raises(ValueError, match="safetensors"):
            ocp.load(path)
        with pytest.raises(ValueError, match="safetensors"):
            ocp.save(path, {"a": 1})


def test_the_newer_style_has_orbaxs_names() -> None:
    import stepstone.experimental.v1 as experimental
    import stepstone.experimental.v1.training as training

    assert experimental.save is ocp.save
    assert training.Checkpointer is ocp.training.Checkpointer is stepstone.training.Checkpointer
    orbax = pytest.importorskip("orbax.checkpoint.experimental.v1", reason="compares with Orbax")
    for theirs, ours in (
        (orbax, ocp),
        (orbax.training, ocp.training),
        (orbax.handlers, ocp.handlers),
        (orbax.options, ocp.options),
        (orbax.partial, ocp.partial),
        (orbax.errors, ocp.errors),
        (orbax.arrays, ocp.arrays),
        (orbax.tree, ocp.tree),
        (orbax.multihost, ocp.multihost),
        (orbax.path, ocp.path),
    ):
        names = {name for name in dir(theirs) if not name.startswith("_")}
        missing = names - set(dir(ours)) - {"pathways", "orbax"}
        assert not missing, f"{theirs.__name__} has {sorted(missing)}"
