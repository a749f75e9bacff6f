"""Each handler of the package, and handlers that users have written."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest
import stepstone as ocp
import trees


def there_and_back(path: pathlib.Path, handler: Any, save: Any, restore: Any = None) -> Any:
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(path, args=save)
        return checkpointer.restore(path, **({} if restore is None else {"args": restore}))


@pytest.mark.parametrize("value", [np.arange(6.0).reshape(2, 3), np.float16(1.5), 7, 2.5, 1 + 2j])
def test_an_array_or_a_number_comes_back(tmp_path: pathlib.Path, value: Any) -> None:
    restored = there_and_back(
        tmp_path / "a", ocp.ArrayCheckpointHandler(), ocp.args.ArraySave(value)
    )
    np.testing.assert_array_equal(restored, value)
    assert np.asarray(restored).dtype == np.asarray(value).dtype


def test_an_array_is_cast_on_the_way_in_and_out(tmp_path: pathlib.Path) -> None:
    restored = there_and_back(
        tmp_path / "a",
        ocp.ArrayCheckpointHandler(),
        ocp.args.ArraySave(np.float64([1.5]), ocp.SaveArgs(dtype=np.float32)),
        ocp.args.ArrayRestore(restore_args=ocp.RestoreArgs(dtype=np.float16)),
    )
    assert restored.dtype == np.float16
    assert ocp.Checkpointer(ocp.ArrayCheckpointHandler()).restore(tmp_path / "a").dtype == (
        np.float32
    )


def test_json_comes_back_with_numbers_of_any_size(tmp_path: pathlib.Path) -> None:
    value = {
        "list": [1, 2.5, None, True, "ü"], "huge": 2**100, "lowest": float("-inf"), "empty": {},
        "nested": {"tuple": (1, 2)},
    }
    restored = there_and_back(
        tmp_path / "a", ocp.JsonCheckpointHandler(), ocp.args.JsonSave(value)
    )
    assert restored == value | {"nested": {"tuple": [1, 2]}}


def test_what_json_cannot_hold_is_refused(tmp_path: pathlib.Path) -> None:
    checkpointer = ocp.Checkpointer(ocp.JsonCheckpointHandler())
    for value in ({"a": b"bytes"}, {"a": np.zeros(2)}, {"a": object()}):
        with pytest.raises(TypeError):
            checkpointer.save(tmp_path / "a", args=ocp.args.JsonSave(value))
    endless: dict[str, Any] = {}
    endless["self"] = endless
    with pytest.raises(ValueError):
        checkpointer.save(tmp_path / "a", args=ocp.args.JsonSave(endless))
    assert not (tmp_path / "a").exists()


def test_a_message_comes_back_as_its_type(tmp_path: pathlib.Path) -> None:
    timestamp_pb2: Any = pytest.importorskip(
        "google.protobuf.timestamp_pb2", reason="protobuf is absent"
    )
    duration_pb2: Any = pytest.importorskip("google.protobuf.duration_pb2")
    message = timestamp_pb2.Timestamp(seconds=3, nanos=4)
    path = tmp_path / "a"
    checkpointer = ocp.Checkpointer(ocp.ProtoCheckpointHandler())
    checkpointer.save(path, args=ocp.args.ProtoSave(message))
    restore = ocp.args.ProtoRestore(timestamp_pb2.Timestamp)
    assert checkpointer.restore(path, args=restore) == message
    assert checkpointer.restore(path) == message
    with pytest.raises(ValueError, match="google.protobuf.Timestamp"):
        checkpointer.restore(path, args=ocp.args.ProtoRestore(duration_pb2.Duration))
    with pytest.raises(TypeError):
        checkpointer.save(tmp_path / "b", args=ocp.args.ProtoSave({"seconds": 3}))


def test_states_of_numpy_generators_go_on_where_they_were(tmp_path: pathlib.Path) -> None:
    legacy = np.random.RandomState(7)
    legacy.normal()
    generator = np.random.default_rng(7)
    generator.integers(10, size=3)
    handler = ocp.NumpyRandomKeyCheckpointHandler
    state = there_and_back(
        tmp_path / "a", handler(), ocp.args.NumpyRandomKeySave(legacy.get_state())
    )
    other_legacy = np.random.RandomState()
    other_legacy.set_state(state)
    assert other_legacy.normal() == legacy.normal()

    state = there_and_back(
        tmp_path / "b", handler(), ocp.args.NumpyRandomKeySave(generator.bit_generator.state),
        ocp.args.NumpyRandomKeyRestore(),
    )
    other = np.random.default_rng()
    other.bit_generator.state = state
    assert (other.integers(1000, size=5) == generator.integers(1000, size=5)).all()


def test_random_keys_of_jax_come_back_typed_or_not(tmp_path: pathlib.Path) -> None:
    jax: Any = pytest.importorskip("jax", reason="jax is absent")
    keys = {
        "typed": jax.random.key(3),
        "other": jax.random.key(3, impl="rbg"),
        "many": jax.random.split(jax.random.key(3), 4),
        "untyped": jax.random.PRNGKey(3),
    }
    for name, key in keys.items():
        restored = there_and_back(
            tmp_path / name, ocp.JaxRandomKeyCheckpointHandler(), ocp.args.JaxRandomKeySave(key),
            ocp.args.JaxRandomKeyRestore(),
        )
        assert restored.dtype == key.dtype and restored.shape == key.shape
        assert (jax.random.key_data(restored) == jax.random.key_data(key)).all()
    with pytest.raises(TypeError):
        there_and_back(
            tmp_path / "x", ocp.JaxRandomKeyCheckpointHandler(), ocp.args.JaxRandomKeySave([1, 2])
        )
    with pytest.raises(TypeError):
        there_and_back(
            tmp_path / "x", ocp.NumpyRandomKeyCheckpointHandler(),
            ocp.args.NumpyRandomKeySave([1, 2]),
        )


def test_trees_saved_by_one_handler_are_restored_by_the_others(tmp_path: pathlib.Path) -> None:
    state = {"a": np.arange(3), "b": [1, "text"]}
    ocp.Checkpointer(ocp.StandardCheckpointHandler()).save(tmp_path / "a", state)
    trees.assert_same(ocp.PyTreeCheckpointer().restore(tmp_path / "a"), state)
    trees.assert_same(ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).restore(tmp_path / "a"), state)
    with pytest.raises(ValueError, match="standard"):
        ocp.Checkpointer(ocp.CompositeCheckpointHandler()).restore(
            tmp_path / "a", args=ocp.args.JsonRestore()
        )


def test_compression_can_be_turned_off(tmp_path: pathlib.Path) -> None:
    zeros = {"w": np.zeros(1 << 20, np.uint8)}
    stored = {}
    for use_compression in (True, False):
        checkpointer = ocp.PyTreeCheckpointer(use_compression=use_compression)
        checkpointer.save(tmp_path / str(use_compression), zeros)
        stored[use_compression] = sum(
            file.stat().st_size
            for file in (tmp_path / str(use_compression)).rglob("*")
            if file.is_file()
        )
        trees.assert_same(checkpointer.restore(tmp_path / str(use_compression)), zeros)
    assert stored[False] > stored[True]


# Handlers that users have written.


@dataclasses.dataclass
class Iterator:
    """What a handler of a user stores."""

    position: int
    names: list[str]


class IteratorHandler(ocp.CheckpointHandler):
    """Two files, one of them in a directory."""

    directories: list[Any] = []
    finalized = 0
    closed = 0

    def save(self, directory: Any, args: Any) -> None:
        self.directories.append(directory)
        assert directory.is_dir() and not list(directory.iterdir())
        (directory / "position.txt").write_text(str(args.item.position))
        (directory / "more").mkdir()
        (directory / "more" / "names.txt").write_text("\n".join(args.item.names))

    def restore(self, directory: Any, args: Any = None) -> Iterator:
        position = int((directory / "position.txt").read_text()) + getattr(args, "offset", 0)
        return Iterator(position, (directory / "more" / "names.txt").read_text().split("\n"))

    def finalize(self, directory: Any) -> None:
        assert (directory / "position.txt").exists()
        IteratorHandler.finalized += 1

    def metadata(self, directory: Any) -> Any:
        return {"position": int((directory / "position.txt").read_text())}

    def close(self) -> None:
        IteratorHandler.closed += 1


@ocp.args.register_with_handler(IteratorHandler, for_save=True)
@dataclasses.dataclass
class IteratorSave(ocp.args.CheckpointArgs):
    item: Iterator


@ocp.args.register_with_handler(IteratorHandler, for_restore=True)
@dataclasses.dataclass
class IteratorRestore(ocp.args.CheckpointArgs):
    offset: int = 0


ITERATOR = Iterator(17, ["a", "ü"])


def test_a_handler_of_a_user_writes_files_and_finds_them_again(tmp_path: pathlib.Path) -> None:
    finalized, closed = IteratorHandler.finalized, IteratorHandler.closed
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        path = tmp_path / "both"
        checkpointer.save(
            path,
            args=ocp.args.Composite(
                iterator=IteratorSave(ITERATOR), state=ocp.args.StandardSave({"a": 1})
            ),
        )
        assert IteratorHandler.finalized == finalized + 1
        restored = checkpointer.restore(path)
        assert restored.iterator == ITERATOR and restored.state == {"a": 1}
        only = checkpointer.restore(path, args=ocp.args.Composite(iterator=IteratorRestore(100)))
        assert dict(only) == {"iterator": Iterator(117, ITERATOR.names)}
        metadata = checkpointer.metadata(path)
        assert metadata.item_metadata.iterator == {"position": 17}
        assert metadata.item_handlers["iterator"] == IteratorHandler.typestr()
    assert IteratorHandler.closed > closed
    assert isinstance(IteratorHandler.directories[-1], pathlib.PurePath)
    assert not IteratorHandler.directories[-1].exists()


def test_a_handler_for_one_object_needs_no_arguments_spelled_out(tmp_path: pathlib.Path) -> None:
    with ocp.Checkpointer(IteratorHandler()) as checkpointer:
        checkpointer.save(tmp_path / "a", ITERATOR)
        assert checkpointer.restore(tmp_path / "a") == ITERATOR
        assert checkpointer.restore(tmp_path / "a", offset=1).position == 18


class LegacyHandler:
    """Of no base class, with an item and not with arguments, as handlers once were."""

    def save(self, directory: Any, item: Any, suffix: str = "") -> None:
        (directory / "text").write_text(item + suffix)

    def restore(self, directory: Any, item: Any = None) -> Any:
        return (directory / "text").read_text() + (item or "")


def test_a_handler_without_arguments_is_called_with_what_the_call_was_given(
    tmp_path: pathlib.Path,
) -> None:
    with ocp.Checkpointer(LegacyHandler()) as checkpointer:
        checkpointer.save(tmp_path / "a", "item", suffix="!")
        assert checkpointer.restore(tmp_path / "a") == "item!"
        assert checkpointer.restore(tmp_path / "a", item="?") == "item!?"


class BackgroundHandler(ocp.AsyncCheckpointHandler):
    """Gives futures, one of them among others that are None."""

    def save(self, directory: Any, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("async_save is there")

    async def async_save(self, directory: Any, item: Any = None, args: Any = None) -> Any:
        async def write() -> None:
            (directory / "text").write_text(args.item)

        future = ocp.future.CommitFutureAwaitingContractedSignals(write(), name="write")
        return [None, [future], ocp.future.NoopFuture()]

    def restore(self, directory: Any, item: Any = None, args: Any = None) -> Any:
        return (directory / "text").read_text()


@ocp.args.register_with_handler(BackgroundHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class BackgroundArgs(ocp.args.CheckpointArgs):
    item: Any = None


def test_what_a_handler_does_in_the_background_is_awaited(tmp_path: pathlib.Path) -> None:
    with ocp.AsyncCheckpointer(BackgroundHandler()) as checkpointer:
        checkpointer.save(tmp_path / "a", args=BackgroundArgs("text"))
        assert checkpointer.restore(tmp_path / "a") == "text"


def test_a_handler_works_where_an_event_loop_runs_as_in_a_notebook(tmp_path: pathlib.Path) -> None:
    import asyncio

    async def cell() -> Any:
        with ocp.AsyncCheckpointer(BackgroundHandler()) as checkpointer:
            checkpointer.save(tmp_path / "a", args=BackgroundArgs("text"))
            return checkpointer.restore(tmp_path / "a")

    assert asyncio.run(cell()) == "text"


class Overridden(ocp.PyTreeCheckpointHandler):
    """Adds a file to what the package's handler writes."""

    def save(self, directory: Any, *args: Any, **kwargs: Any) -> None:
        (directory / "note.txt").write_text("note")
        super().save(directory / "tree", *args, **kwargs)

    async def async_save(self, directory: Any, *args: Any, **kwargs: Any) -> Any:
        self.save(directory, *args, **kwargs)

    def restore(self, directory: Any, *args: Any, **kwargs: Any) -> Any:
        tree = super().restore(directory / "tree", *args, **kwargs)
        return tree, (directory / "note.txt").read_text()


@ocp.args.register_with_handler(Overridden, for_save=True)
class OverriddenSave(ocp.args.PyTreeSave):
    pass


@ocp.args.register_with_handler(Overridden, for_restore=True)
class OverriddenRestore(ocp.args.PyTreeRestore):
    pass


def test_a_class_derived_from_one_of_the_package_may_call_it(tmp_path: pathlib.Path) -> None:
    with ocp.Checkpointer(Overridden()) as checkpointer:
        checkpointer.save(tmp_path / "a", {"w": np.arange(3)})
        tree, note = checkpointer.restore(tmp_path / "a")
    trees.assert_same(tree, {"w": np.arange(3)})
    assert note == "note"


def test_a_failing_handler_leaves_nothing_behind(tmp_path: pathlib.Path) -> None:
    class Failing(LegacyHandler):
        def save(self, directory: Any, item: Any, suffix: str = "") -> None:
            (directory / "half").write_text("half")
            raise KeyError("the handler's own error")

    with pytest.raises(KeyError, match="the handler's own error"):
        ocp.Checkpointer(Failing()).save(tmp_path / "a", "item")
    assert not (tmp_path / "a").exists()


def test_a_handler_gets_a_path_of_etils_where_that_is_used(tmp_path: pathlib.Path) -> None:
    epath: Any = pytest.importorskip("etils.epath", reason="etils is absent")
    with ocp.Checkpointer(IteratorHandler()) as checkpointer:
        checkpointer.save(epath.Path(tmp_path) / "a", ITERATOR)
    assert isinstance(IteratorHandler.directories[-1], epath.Path)


def test_handlers_written_for_orbax_work_as_they_are(tmp_path: pathlib.Path) -> None:
    orbax: Any = pytest.importorskip("orbax.checkpoint", reason="Orbax is absent")

    class Notes(orbax.AsyncCheckpointHandler):  # type: ignore[misc]
        async def async_save(self, directory: Any, args: Any) -> Any:
            async def write() -> None:
                (directory / "notes.txt").write_text(args.text)

            return [orbax.future.CommitFutureAwaitingContractedSignals(write())]

        def save(self, directory: Any, args: Any) -> None:
            raise AssertionError("async_save is there")

        def restore(self, directory: Any, args: Any) -> Any:
            return (directory / "notes.txt").read_text()

    @orbax.args.register_with_handler(Notes, for_save=True, for_restore=True)
    @dataclasses.dataclass
    class NotesArgs(orbax.args.CheckpointArgs):  # type: ignore[misc]
        text: str = ""

    state = {"w": np.arange(3)}
    both = orbax.args.Composite(notes=NotesArgs("a"), state=orbax.args.StandardSave(state))
    for number, handler in enumerate(
        [
            ocp.CompositeCheckpointHandler(),
            orbax.CompositeCheckpointHandler(),
            orbax.CompositeCheckpointHandler("notes", "state"),
            orbax.CompositeCheckpointHandler(notes=Notes(), state=None),
        ]
    ):
        with ocp.AsyncCheckpointer(handler) as checkpointer:
            checkpointer.save(tmp_path / str(number), args=both)
            restored = checkpointer.restore(tmp_path / str(number))
            assert restored.notes == "a"
            trees.assert_same(restored.state, state)
    with ocp.CheckpointManager(tmp_path / "run", item_handlers={"notes": Notes()}) as manager:
        manager.save(0, args=ocp.args.Composite(notes=NotesArgs("b")))
        assert manager.restore(0).notes == "b"
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        assert manager.restore(0).notes == "b"
    with ocp.Checkpointer(orbax.JsonCheckpointHandler()) as checkpointer:
        checkpointer.save(tmp_path / "json", {"a": 1})
        assert checkpointer.restore(tmp_path / "json") == {"a": 1}


def test_an_item_may_be_a_composite_itself(tmp_path: pathlib.Path) -> None:
    inner = ocp.args.Composite(a=ocp.args.StandardSave({"n": 1}), b=ocp.args.JsonSave([2]))
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(tmp_path / "a", ocp.args.Composite(inner=inner))
        assert dict(checkpointer.restore(tmp_path / "a").inner) == {"a": {"n": 1}, "b": [2]}


def test_a_store_that_another_process_wrote_needs_only_the_handlers_module(
    tmp_path: pathlib.Path, run_python: Any
) -> None:
    program = """
import sys
import stepstone as ocp
with ocp.CheckpointManager(sys.argv[1]) as manager:
    try:
        manager.restore(0)
    except ValueError as error:
        assert "test_handlers.IteratorHandler" in str(error) and "'iterator'" in str(error), error
    else:
        raise SystemExit("no error")
    assert manager.restore(0, args=ocp.args.Composite(state=None)).state == {"a": 1}
    assert manager.item_metadata(0).iterator is None
"""
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        manager.save(
            0,
            args=ocp.args.Composite(
                iterator=IteratorSave(ITERATOR), state=ocp.args.StandardSave({"a": 1})
            ),
        )
    run_python(program, tmp_path / "run")
