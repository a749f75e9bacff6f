"""Which exception each mistake gives: those that programs written for Orbax catch, and nothing changed.

One table for Stepstone and, where it is installed, for Orbax itself, so that it stays true. Where Orbax does
something else (it saves a step -1, or restores another shape than was asked for), the row says so.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import trees

STATE = {"layer": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, "n": 3}


class Place:
    """Two stores with the steps 0 and 1, and a checkpoint, which no mistake may change."""

    def __init__(self, ocp: types.ModuleType, directory: pathlib.Path):
        self.ocp, self.args, self.directory = ocp, ocp.args, directory
        self.names = (f"new-{number}" for number in itertools.count())
        self.single = ocp.CheckpointManager(directory / "single")
        self.several = ocp.CheckpointManager(directory / "several", item_names=("state", "extra"))
        for step in (0, 1):
            self.single.save(step, args=self.args.StandardSave(STATE))
            self.several.save(step, args=self.both(step))
        self.single.wait_until_finished()
        self.several.wait_until_finished()
        self.checkpoint = directory / "checkpoint"
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            checkpointer.save(self.checkpoint, args=self.args.StandardSave(STATE))

    def both(self, step: int) -> Any:
        return self.args.Composite(
            state=self.args.StandardSave(STATE), extra=self.args.JsonSave({"step": step})
        )

    def new(self) -> pathlib.Path:
        return self.directory / next(self.names)

    def manager(self, **options: Any) -> Any:
        """Of a new directory."""
        return self.ocp.CheckpointManager(
            self.new(), options=self.ocp.CheckpointManagerOptions(**options)
        )

    def content(self) -> Any:
        """All that is in the stores and the checkpoint, for a comparison."""
        several = [dict(self.several.restore(step)) for step in self.several.all_steps()]
        return {
            "single steps": list(self.single.all_steps()),
            "several steps": list(self.several.all_steps()),
            "single": [self.single.restore(step) for step in self.single.all_steps()],
            "several": several,
            "checkpoint": self.ocp.StandardCheckpointer().restore(self.checkpoint),
        }


@dataclasses.dataclass(frozen=True)
class Mistake:
    make: Callable[[Place], object]
    exception: type[Exception] | Callable[[types.ModuleType], type[Exception]]
    orbax: str  # What Orbax does instead, if anything.

    @property
    def name(self) -> str:
        return self.make.__name__


MISTAKES: list[Mistake] = []


def raises(exception: Any, orbax: str = "") -> Callable[[Any], Any]:
    def add(make: Callable[[Place], object]) -> Callable[[Place], object]:
        MISTAKES.append(Mistake(make, exception, orbax))
        return make

    return add


def step_already_exists(ocp: types.ModuleType) -> type[Exception]:
    found: type[Exception] = ocp.checkpoint_manager.StepAlreadyExistsError
    return found


# The manager's constructor and options.


@raises(ValueError)
def max_to_keep_below_zero(place: Place) -> object:
    return place.manager(max_to_keep=-1)


@raises(ValueError)
def best_mode_that_is_neither(place: Place) -> object:
    return place.manager(best_fn=lambda metrics: 0.0, best_mode="middle")


@raises(ValueError)
def preservation_policy_with_max_to_keep(place: Place) -> object:
    policy = place.ocp.checkpoint_managers.LatestN(2)
    return place.manager(preservation_policy=policy, max_to_keep=2)


@raises(ValueError)
def preservation_policy_with_keep_period(place: Place) -> object:
    policy = place.ocp.checkpoint_managers.LatestN(2)
    return place.manager(preservation_policy=policy, keep_period=2)


@raises(ValueError)
def callback_after_saves_in_the_background_without_any(place: Place) -> object:
    callback = place.ocp.AsyncOptions(post_finalization_callback=lambda: None)
    return place.manager(enable_async_checkpointing=False, async_options=callback)


@raises(ValueError)
def two_places_for_what_is_deleted(place: Place) -> object:
    return place.manager(todelete_subdir="trash", todelete_full_path="trash")


@raises(ValueError)
def a_handler_for_one_item_and_names_of_several(place: Place) -> object:
    return place.ocp.CheckpointManager(
        place.new(), item_names=("a", "b"), item_handlers=place.ocp.StandardCheckpointHandler()
    )


@raises(ValueError)
def a_registry_and_names(place: Place) -> object:
    return place.ocp.CheckpointManager(
        place.new(), item_names=("a",),
        handler_registry=place.ocp.DefaultCheckpointHandlerRegistry(),
    )


@raises(ValueError)
def a_registry_and_handlers(place: Place) -> object:
    return place.ocp.CheckpointManager(
        place.new(), item_handlers={"a": place.ocp.StandardCheckpointHandler()},
        handler_registry=place.ocp.DefaultCheckpointHandlerRegistry(),
    )


@raises(ValueError)
def checkpointers_and_names(place: Place) -> object:
    return place.ocp.CheckpointManager(
        place.new(), place.ocp.PyTreeCheckpointer(), item_names=("a",)
    )


@raises(ValueError)
def checkpointers_and_handlers(place: Place) -> object:
    return place.ocp.CheckpointManager(
        place.new(), place.ocp.PyTreeCheckpointer(),
        item_handlers={"a": place.ocp.StandardCheckpointHandler()},
    )


@raises(ValueError, orbax="divides by zero at the first save")
def an_interval_of_no_steps(place: Place) -> object:
    return place.manager(save_interval_steps=0)


@raises(ValueError)
def steps_kept_every_no_steps(place: Place) -> object:
    policy = place.ocp.checkpoint_managers.EveryNSteps(0)
    return policy.should_preserve([], context=None)


# Names of steps.


@raises(ValueError)
def a_name_that_is_written_and_not_read(place: Place) -> object:
    step = place.ocp.path.step
    return step.composite_name_format(
        step.standard_name_format(step_prefix="a"), [step.standard_name_format(step_prefix="b")]
    )


@raises(ValueError)
def a_step_that_no_name_stands_for(place: Place) -> object:
    return place.ocp.path.step.standard_name_format().find_step(place.directory / "single", 7)


# Saves with a manager.


@raises(ValueError)
def save_of_nothing(place: Place) -> object:
    return place.single.save(2)


@raises(ValueError)
def save_with_arguments_in_the_place_of_items(place: Place) -> object:
    return place.single.save(2, place.args.StandardSave(STATE))


@raises(ValueError)
def save_of_what_are_no_arguments(place: Place) -> object:
    return place.single.save(2, args=STATE)


@raises(step_already_exists)
def save_of_a_step_that_exists_by_force(place: Place) -> object:
    return place.single.save(1, args=place.args.StandardSave(STATE), force=True)


@raises(ValueError)
def save_of_several_items_where_there_is_one(place: Place) -> object:
    return place.single.save(2, args=place.both(2))


@raises(ValueError)
def save_of_one_item_where_there_are_several(place: Place) -> object:
    return place.several.save(2, args=place.args.StandardSave(STATE))


@raises((TypeError, ValueError), orbax="fails in the background")
def save_with_metadata_that_is_no_json(place: Place) -> object:
    return place.single.save(
        2, args=place.args.StandardSave(STATE), custom_metadata={"a": object()}
    )


@raises((TypeError, ValueError), orbax="saves it, and cannot find it afterwards")
def save_of_a_negative_step(place: Place) -> object:
    return place.single.save(-1, args=place.args.StandardSave(STATE), force=True)


@raises((TypeError, ValueError), orbax="saves it, and cannot find it afterwards")
def save_of_half_a_step(place: Place) -> object:
    return place.single.save(7.5, args=place.args.StandardSave(STATE), force=True)


@raises((TypeError, ValueError), orbax="saves it")
def save_of_a_step_that_is_text(place: Place) -> object:
    return place.single.save("9", args=place.args.StandardSave(STATE), force=True)


@raises(RuntimeError, orbax="saves it")
def save_after_close(place: Place) -> object:
    manager = place.manager()
    manager.close()
    return manager.save(0, args=place.args.StandardSave(STATE))


@raises(ValueError, orbax="saves it")
def save_by_force_where_it_is_read_only(place: Place) -> object:
    options = place.ocp.CheckpointManagerOptions(read_only=True)
    manager = place.ocp.CheckpointManager(place.directory / "single", options=options)
    return manager.save(2, args=place.args.StandardSave(STATE), force=True)


@raises(ValueError)
def save_of_a_number_as_a_tree(place: Place) -> object:
    return place.manager(enable_async_checkpointing=False).save(0, args=place.args.StandardSave(3))


@raises(ValueError)
def save_of_none_as_a_tree(place: Place) -> object:
    return place.manager(enable_async_checkpointing=False).save(
        0, args=place.args.StandardSave(None)
    )


@raises(ValueError)
def save_of_a_leaf_that_cannot_be_stored(place: Place) -> object:
    return place.single.save(2, args=place.args.StandardSave({"a": object()}))


@raises(TypeError)
def save_of_a_tree_as_an_array(place: Place) -> object:
    return place.manager(enable_async_checkpointing=False).save(
        0, args=place.args.ArraySave({"a": 1})
    )


@raises(TypeError)
def save_of_what_is_no_json(place: Place) -> object:
    return place.manager(enable_async_checkpointing=False).save(
        0, args=place.args.JsonSave({"a": object()})
    )


@raises(TypeError)
def save_of_what_is_no_random_key_of_numpy(place: Place) -> object:
    return place.manager(enable_async_checkpointing=False).save(
        0, args=place.args.NumpyRandomKeySave([1, 2, 3])
    )


# Restores, metadata and deletes with a manager.


@raises(FileNotFoundError)
def restore_where_there_is_nothing(place: Place) -> object:
    return place.manager().restore(None)


@raises(FileNotFoundError)
def restore_of_a_step_that_is_absent(place: Place) -> object:
    return place.single.restore(7, args=place.args.StandardRestore())


@raises(FileNotFoundError)
def restore_from_a_directory_that_is_absent(place: Place) -> object:
    return place.single.restore(
        0, args=place.args.StandardRestore(), directory=place.directory / "absent"
    )


@raises(KeyError)
def restore_of_an_item_that_is_absent(place: Place) -> object:
    return place.several.restore(
        0, args=place.args.Composite(other=place.args.StandardRestore())
    )


@raises(ValueError)
def restore_of_several_items_where_there_is_one(place: Place) -> object:
    return place.single.restore(
        0, args=place.args.Composite(state=place.args.StandardRestore())
    )


@raises(ValueError)
def restore_of_one_item_where_there_are_several(place: Place) -> object:
    return place.several.restore(0, args=place.args.StandardRestore())


@raises(ValueError)
def restore_into_other_names(place: Place) -> object:
    target = {"layer": {"v": np.zeros((2, 3), np.float32)}, "n": 0}
    return place.single.restore(0, args=place.args.StandardRestore(target))


@raises(ValueError)
def restore_into_fewer_names(place: Place) -> object:
    return place.single.restore(0, args=place.args.StandardRestore({"n": 0}))


@raises(ValueError, orbax="returns the shape that was saved")
def restore_into_another_shape(place: Place) -> object:
    target = {"layer": {"w": np.zeros((3, 3), np.float32)}, "n": 0}
    return place.single.restore(0, args=place.args.StandardRestore(target))


@raises(ValueError, orbax="casts it, whatever becomes of the values")
def restore_into_a_dtype_that_cannot_hold_the_values(place: Place) -> object:
    target = {"layer": {"w": np.zeros((2, 3), np.int8)}, "n": 0}
    return place.single.restore(0, args=place.args.StandardRestore(target))


@raises(ValueError)
def transforms_without_a_target(place: Place) -> object:
    return place.single.restore(
        0, args=place.args.PyTreeRestore(transforms={"n": place.ocp.Transform()})
    )


@raises(ValueError)
def a_transform_from_a_name_that_is_absent(place: Place) -> object:
    transforms = {"m": place.ocp.Transform(original_key="absent")}
    return place.ocp.apply_transformations({"n": 1}, transforms, {"m": 0})


@raises(FileNotFoundError)
def delete_of_a_step_that_is_absent(place: Place) -> object:
    return place.single.delete(7)


@raises(FileNotFoundError)
def metadata_of_a_step_that_is_absent(place: Place) -> object:
    return place.single.metadata(7)


@raises(ValueError)
def metadata_of_items_of_no_step(place: Place) -> object:
    return place.single.item_metadata(None)


# Checkpointers.


@raises(ValueError)
def save_where_something_stands(place: Place) -> object:
    return place.ocp.Checkpointer(place.ocp.StandardCheckpointHandler()).save(
        place.checkpoint, args=place.args.StandardSave(STATE)
    )


@raises(FileNotFoundError)
def restore_of_a_path_that_is_absent(place: Place) -> object:
    return place.ocp.Checkpointer(place.ocp.StandardCheckpointHandler()).restore(place.new())


@raises(ValueError)
def restore_of_a_path_into_other_names(place: Place) -> object:
    return place.ocp.StandardCheckpointer().restore(place.checkpoint, {"other": 0})


@raises(ValueError)
def restore_of_an_array_into_another_shape(place: Place) -> object:
    jax = pytest.importorskip("jax", reason="jax is absent, and with it shardings")
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    one = place.ocp.ArrayRestoreArgs(global_shape=(4, 4), sharding=sharding)
    return place.ocp.PyTreeCheckpointer().restore(
        place.checkpoint, args=place.args.PyTreeRestore(
            restore_args={"layer": {"w": one}, "n": place.ocp.RestoreArgs()}
        )
    )


# Arguments, handlers and registries.


@raises(ValueError)
def an_item_whose_name_starts_with_two_underscores(place: Place) -> object:
    return place.args.Composite(__state=place.args.StandardSave(STATE))


@raises(KeyError)
def an_item_of_a_composite_that_is_absent(place: Place) -> object:
    return place.args.Composite(state=1)["other"]


@raises(ValueError)
def a_handler_registered_for_nothing(place: Place) -> object:
    return place.args.register_with_handler(place.ocp.StandardCheckpointHandler)(
        type("Args", (place.args.CheckpointArgs,), {})
    )


@raises(ValueError)
def a_handler_registered_twice(place: Place) -> object:
    registry = place.ocp.DefaultCheckpointHandlerRegistry()
    for _ in range(2):
        registry.add("state", place.args.StandardSave, place.ocp.StandardCheckpointHandler())
    return registry


@raises(KeyError)
def a_handler_that_is_not_registered(place: Place) -> object:
    return place.ocp.DefaultCheckpointHandlerRegistry().get("state", place.args.StandardSave)


@raises(ValueError)
def arguments_that_no_handler_has(place: Place) -> object:
    unknown = type("Unknown", (place.args.CheckpointArgs,), {})
    return place.single.save(2, args=unknown())


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    import stepstone

    place = Place(stepstone, tmp_path_factory.mktemp("place"))
    yield place
    place.single.close()
    place.several.close()


def exceptions_of(mistake: Mistake, ocp: types.ModuleType) -> Any:
    is_function = isinstance(mistake.exception, types.FunctionType)
    return mistake.exception(ocp) if is_function else mistake.exception  # type: ignore[arg-type]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_raises_what_the_table_says_and_changes_nothing(
    ours: Place, mistake: Mistake
) -> None:
    before = ours.content()
    with pytest.raises(exceptions_of(mistake, ours.ocp)) as caught:
        mistake.make(ours)
    assert str(caught.value).strip()
    trees.assert_same(ours.content(), before)


@pytest.mark.parametrize(
    "mistake", [each for each in MISTAKES if not each.orbax], ids=lambda mistake: mistake.name
)
def test_the_table_is_true_of_orbax(tmp_path: pathlib.Path, mistake: Mistake) -> None:
    ocp = pytest.importorskip("orbax.checkpoint", reason="Orbax is absent: nothing to compare with")
    # Anew for each mistake, as some leave something behind there.
    place = Place(ocp, tmp_path)
    with pytest.raises(exceptions_of(mistake, ocp)):
        mistake.make(place)


def test_a_save_in_the_background_that_fails_raises_once_and_its_step_does_not_exist(
    tmp_path: pathlib.Path,
) -> None:
    import stepstone as ocp

    class Broken(ocp.CheckpointHandler):
        def save(self, directory: Any, item: Any) -> None:
            raise OSError("the disk is gone")

        def restore(self, directory: Any, item: Any = None) -> Any:
            return None

    with ocp.CheckpointManager(tmp_path / "run", item_handlers=Broken()) as manager:
        with pytest.raises(OSError, match="the disk is gone"):
            manager.save(0, {"a": 1})
            manager.wait_until_finished()
        manager.check_for_errors()
        assert manager.all_steps() == []


def test_the_newer_style_raises_what_it_raises_in_orbax(tmp_path: pathlib.Path) -> None:
    import stepstone as ocp

    path = tmp_path / "one"
    ocp.save(path, STATE)
    with pytest.raises(ValueError):
        ocp.save(path, STATE)
    with pytest.raises((ValueError, FileNotFoundError)):
        ocp.load(tmp_path / "absent")
    with pytest.raises(KeyError):
        ocp.load_checkpointables(path, {"other": None})
    with pytest.raises(ValueError):
        ocp.save_checkpointables(tmp_path / "two", {"": STATE})
    with pytest.raises(FileNotFoundError):
        ocp.delete(tmp_path / "absent")
    ocp.delete(tmp_path / "absent", missing_ok=True)
    trees.assert_same(ocp.load(path), STATE)

    with ocp.training.Checkpointer(tmp_path / "run") as checkpointer:
        checkpointer.save(0, STATE)
        with pytest.raises(FileExistsError):
            checkpointer.save(0, STATE)
        with pytest.raises(FileNotFoundError):
            checkpointer.load(7)
        trees.assert_same(checkpointer.load(0), STATE)


def test_an_error_of_the_engine_names_the_step_and_the_leaf(tmp_path: pathlib.Path) -> None:
    import stepstone as ocp

    with ocp.CheckpointManager(tmp_path / "run") as manager:
        manager.save(40, args=ocp.args.StandardSave(STATE))
        target = {"layer": {"w": np.zeros((3, 3), np.float32)}, "n": 0}
        with pytest.raises(ValueError, match="layer/w") as caught:
            manager.restore(40, args=ocp.args.StandardRestore(target))
        assert "40" in str(caught.value)
