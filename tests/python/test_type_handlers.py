"""Options of single leaves, and leaves of types that only their users know."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import stepstone as ocp
import trees
from stepstone._tree import map_structure

STATE = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": [1, 2.5, (np.array([1, 2], np.int8),)],
    "s": "text",
    "n": None,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("leaves") / "checkpoint"
    ocp.PyTreeCheckpointer().save(path, STATE)
    return path


def everywhere(args: Any, **at: Any) -> Any:
    return map_structure(lambda _: args, STATE) | at


def restore(path: pathlib.Path, **args: Any) -> Any:
    return ocp.PyTreeCheckpointer().restore(path, args=ocp.args.PyTreeRestore(**args))


def test_shapes_given_twice_have_to_agree() -> None:
    assert ocp.ArrayRestoreArgs(shape=(2,)).global_shape == (2,)
    assert ocp.ArrayRestoreArgs(global_shape=(2,)).shape == (2,)
    with pytest.raises(ValueError):
        ocp.ArrayRestoreArgs(shape=(2,), global_shape=(3,))


def test_options_that_say_nothing_change_nothing(checkpoint: pathlib.Path) -> None:
    trees.assert_same(restore(checkpoint, restore_args=everywhere(ocp.RestoreArgs())), STATE)


def test_leaves_become_the_types_that_are_asked_for(checkpoint: pathlib.Path) -> None:
    restored = restore(
        checkpoint, restore_args=everywhere(ocp.RestoreArgs(np.ndarray, np.float64))
    )
    assert restored["a"].dtype == np.float64
    assert isinstance(restored["b"][0], np.ndarray) and restored["b"][0].dtype == np.float64
    assert restored["s"] == "text" and restored["n"] is None
    restored = restore(
        checkpoint,
        restore_args=everywhere(
            ocp.RestoreArgs(),
            b=[ocp.RestoreArgs(float), ocp.RestoreArgs(np.float32), (ocp.RestoreArgs(),)],
        ),
    )
    assert type(restored["b"][0]) is float and type(restored["b"][1]) is np.float32


def test_where_there_are_options_a_target_gives_the_structure_alone(
    checkpoint: pathlib.Path,
) -> None:
    target = map_structure(lambda _: 0, STATE)
    trees.assert_same(
        restore(checkpoint, item=target, restore_args=everywhere(ocp.RestoreArgs())), STATE
    )


def test_other_shapes_are_cut_and_filled_where_that_is_asked_for(
    checkpoint: pathlib.Path,
) -> None:
    for item in (None, STATE):
        loose = ocp.ArrayRestoreArgs(np.ndarray, global_shape=(3, 2), strict=False)
        restored = restore(
            checkpoint, item=item, restore_args=everywhere(ocp.RestoreArgs(), a=loose)
        )
        np.testing.assert_array_equal(restored["a"], [[0, 1], [3, 4], [0, 0]])
        strict = ocp.ArrayRestoreArgs(np.ndarray, global_shape=(3, 2))
        with pytest.raises(ValueError, match=r"'a'.*\(2, 3\).*\(3, 2\)"):
            restore(checkpoint, item=item, restore_args=everywhere(ocp.RestoreArgs(), a=strict))
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(
            checkpoint, STATE | {"a": np.zeros((1, 4))}, strict=False
        )
    np.testing.assert_array_equal(restored["a"], [[0, 1, 2, 0]])


def test_a_cast_that_loses_something_has_to_be_allowed(checkpoint: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="'a'.*float32 to int32"):
        restore(
            checkpoint, restore_args=everywhere(ocp.RestoreArgs(), a=ocp.RestoreArgs(dtype=np.int32))
        )
    lossy = ocp.RestoreArgs(dtype=np.int32, allow_lossy_cast=True)
    restored = restore(checkpoint, restore_args=everywhere(ocp.RestoreArgs(), a=lossy))
    assert restored["a"].dtype == np.int32


def test_parts_of_a_tree(checkpoint: pathlib.Path) -> None:
    part = {"a": np.zeros((2, 3), np.float32)}
    trees.assert_same(restore(checkpoint, item=part, partial_restore=True), {"a": STATE["a"]})
    trees.assert_same(restore(checkpoint, subtree="b[2]"), STATE["b"][2])
    args = [ocp.RestoreArgs(float), ocp.RestoreArgs(), (ocp.RestoreArgs(),)]
    assert type(restore(checkpoint, subtree="b", restore_args=args)[0]) is float
    skipped = restore(checkpoint, item=STATE | {"a": ocp.PLACEHOLDER})
    assert skipped["a"] is ocp.PLACEHOLDER
    with pytest.raises(ValueError, match="'z'"):
        restore(checkpoint, item=part | {"z": 1}, partial_restore=True)
    kept = restore(checkpoint, item=part | {"z": 1}, partial_restore=True, keep_missing=True)
    trees.assert_same(kept, {"a": STATE["a"], "z": 1})


def test_options_for_what_is_not_there_are_refused(
    checkpoint: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for args in ({"zz": ocp.RestoreArgs()}, {"a": 5}):
        with pytest.raises(ValueError):
            restore(checkpoint, restore_args=args)
    for args in ({"zz": ocp.SaveArgs()}, {"a": 5}):
        with pytest.raises(ValueError):
            ocp.PyTreeCheckpointer().save(tmp_path / "x", STATE, save_args=args)
    assert not (tmp_path / "x").exists()


def test_leaves_are_cast_when_they_are_saved(tmp_path: pathlib.Path) -> None:
    args = everywhere(None, a=ocp.SaveArgs(dtype=np.float16, chunk_byte_size=1))
    ocp.PyTreeCheckpointer().save(tmp_path / "a", STATE, save_args=args)
    restored = ocp.PyTreeCheckpointer().restore(tmp_path / "a")
    trees.assert_same(restored, STATE | {"a": STATE["a"].astype(np.float16)})
    with pytest.raises(ValueError, match="'a'"):
        ocp.PyTreeCheckpointer().save(
            tmp_path / "b", STATE, save_args=everywhere(None, a=ocp.SaveArgs(dtype=np.int8))
        )


def test_arrays_of_jax_go_where_their_sharding_says(checkpoint: pathlib.Path) -> None:
    jax: Any = pytest.importorskip("jax", reason="jax is absent")
    devices = np.array(jax.devices())
    mesh = jax.sharding.Mesh(devices[:2], ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    by_mesh = ocp.ArrayRestoreArgs(
        mesh=mesh, mesh_axes=jax.sharding.PartitionSpec("x"), dtype=jax.numpy.bfloat16
    )
    for item in (None, STATE):
        for args in (ocp.ArrayRestoreArgs(sharding=sharding), by_mesh):
            restored = restore(
                checkpoint, item=item, restore_args=everywhere(ocp.RestoreArgs(), a=args)
            )["a"]
            assert isinstance(restored, jax.Array) and restored.sharding == sharding
            np.testing.assert_array_equal(np.asarray(restored, np.float32), STATE["a"])
        plain = ocp.ArrayRestoreArgs()
        restored = restore(
            checkpoint, item=item, restore_args=everywhere(ocp.RestoreArgs(), a=plain)
        )
        assert isinstance(restored["a"], jax.Array)


def test_options_of_orbax_are_taken(checkpoint: pathlib.Path, tmp_path: pathlib.Path) -> None:
    orbax: Any = pytest.importorskip("orbax.checkpoint", reason="Orbax is absent")
    args = everywhere(orbax.RestoreArgs(), a=orbax.RestoreArgs(restore_type=np.ndarray, dtype="f8"))
    assert restore(checkpoint, restore_args=args)["a"].dtype == np.float64
    ocp.PyTreeCheckpointer().save(
        tmp_path / "a", STATE, save_args=everywhere(orbax.SaveArgs(dtype=np.float64))
    )
    assert ocp.PyTreeCheckpointer().restore(tmp_path / "a")["a"].dtype == np.float64


# Leaves of types that the package does not know.


class Ruler:
    def __init__(self, marks: list[int]):
        self.marks = marks


class LongRuler(Ruler):
    pass


@dataclasses.dataclass
class Tape:
    """Would be a container, were it not for its handler."""

    length: int


class RulerHandler(ocp.type_handlers.TypeHandler):
    def typestr(self) -> str:
        return "ruler"

    async def metadata(self, infos: Sequence[Any]) -> Sequence[Any]:
        raise NotImplementedError

    async def serialize(self, values: Any, infos: Any, args: Any = None) -> Any:
        for value, info in zip(values, infos):
            info.path.mkdir()
            (info.path / "marks.txt").write_text(" ".join(map(str, value.marks)))
        return [ocp.future.NoopFuture()]

    async def deserialize(self, infos: Any, args: Any = None) -> Any:
        return [
            Ruler([int(mark) for mark in (info.path / "marks.txt").read_text().split()])
            for info in infos
        ]


class TapeHandler(RulerHandler):
    def typestr(self) -> str:
        return "tape"

    async def serialize(self, values: Any, infos: Any, args: Any = None) -> Any:
        infos[0].path.write_text(str(values[0].length))
        return []

    async def deserialize(self, infos: Any, args: Any = None) -> Any:
        return [Tape(int(infos[0].path.read_text()))]


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    ocp.type_handlers.register_type_handler(Ruler, RulerHandler())
    ocp.type_handlers.register_type_handler(Tape, TapeHandler())


def test_leaves_of_a_registered_type_come_back_with_and_without_a_target(
    tmp_path: pathlib.Path,
) -> None:
    state = {"ruler": LongRuler([1, 22]), "rest": [Tape(3), np.arange(2)]}
    checkpointer = ocp.PyTreeCheckpointer()
    checkpointer.save(tmp_path / "a", state)
    target = {"ruler": Ruler([]), "rest": [Tape(0), np.zeros(2, np.int64)]}
    for restored in (
        checkpointer.restore(tmp_path / "a"),
        checkpointer.restore(tmp_path / "a", item=target),
    ):
        assert type(restored["ruler"]) is Ruler and restored["ruler"].marks == [1, 22]
        assert restored["rest"][0] == Tape(3)
    skipped = checkpointer.restore(tmp_path / "a", item=target | {"ruler": ocp.PLACEHOLDER})
    assert skipped["ruler"] is ocp.PLACEHOLDER
    checkpointer.metadata(tmp_path / "a")


def test_registrations_are_found_and_not_made_twice() -> None:
    handlers = ocp.type_handlers
    assert isinstance(handlers.get_type_handler(LongRuler), RulerHandler)
    assert isinstance(handlers.get_type_handler("tape"), TapeHandler)
    assert handlers.has_type_handler(int) and not handlers.has_type_handler(pathlib.Path)
    assert np.ndarray in handlers.supported_types()
    with pytest.raises(ValueError):
        handlers.register_type_handler(Ruler, RulerHandler())
    with pytest.raises(ValueError):
        handlers.register_type_handler(np.ndarray, handlers.NumpyHandler())
    handlers.register_type_handler(np.ndarray, handlers.NumpyHandler(), override=True)
    with pytest.raises(ValueError):
        handlers.get_type_handler(pathlib.Path)
    registry = handlers.create_type_handler_registry((Ruler, RulerHandler()))
    assert registry.has(LongRuler) and not registry.has(int)
