"""Orbax's runs and HDF5 files become stores, and stores become them, with the same bits."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import sys
import zipfile
from typing import Any

import numpy as np
import pytest
import trees

import stepstone as ocp
from stepstone import convert

ml_dtypes = pytest.importorskip("ml_dtypes")

STATE = {
    "params": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, ml_dtypes.bfloat16)},
    "list": [np.arange(3), None, {}],
    "step": 7,
    "lr": 0.125,
    "s.d": {"x": np.zeros((2, 0, 3)), "half": np.arange(4, dtype=np.float16)},
}  # fmt: skip


def orbax() -> Any:
    return pytest.importorskip("orbax.checkpoint", reason="Orbax is absent")


def without_empty(state: dict[str, Any]) -> dict[str, Any]:
    """Orbax refuses arrays without elements."""
    return {**state, "s.d": {"half": state["s.d"]["half"]}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run of three steps, by Orbax."""
    library = orbax()
    directory = tmp_path_factory.mktemp("orbax") / "run"
    options = library.CheckpointManagerOptions(best_fn=lambda metrics: metrics["loss"])
    with library.CheckpointManager(
        directory, options=options, item_names=("state", "extra"), metadata={"who": "tests"}
    ) as manager:
        for step in (1, 20, 300):
            manager.save(
                step,
                args=library.args.Composite(
                    state=library.args.StandardSave({**without_empty(STATE), "step": step}),
                    extra=library.args.JsonSave({"position": [step, "a"]}),
                ),
                metrics={"loss": step / 2},
                custom_metadata={"note": f"step {step}"},
            )
    return directory


def test_a_run_of_orbax_becomes_a_store_with_all_that_is_known_of_it(
    run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert convert.from_orbax(run, tmp_path / "store") == [1, 20, 300]
    with ocp.CheckpointManager(tmp_path / "store") as manager:
        assert list(manager.all_steps()) == [1, 20, 300]
        assert manager.metadata().custom_metadata == {"who": "tests"}
        for step in (1, 20, 300):
            restored = manager.restore(step)
            trees.assert_same(restored.state, {**without_empty(STATE), "step": step})
            assert restored.extra == {"position": [step, "a"]}
            metadata = manager.metadata(step)
            assert metadata.metrics == {"loss": step / 2}
            assert metadata.custom_metadata == {"note": f"step {step}"}


@pytest.mark.parametrize(("use_ocdbt", "use_zarr3"), [(True, False), (True, True), (False, False), (False, True)])
def test_a_checkpoint_in_each_of_orbaxs_layouts_keeps_every_bit(
    use_ocdbt: bool, use_zarr3: bool, tmp_path: pathlib.Path
) -> None:
    library = orbax()
    tree = {**without_empty(STATE), "text": "hello", "zeros": np.zeros((3, 3), np.int16)}
    library.PyTreeCheckpointer(use_ocdbt=use_ocdbt, use_zarr3=use_zarr3).save(tmp_path / "one", tree)
    assert convert.from_orbax(tmp_path / "one", tmp_path / "store", step=5) == [5]
    with ocp.CheckpointManager(tmp_path / "store") as manager:
        trees.assert_same(manager.restore(5), tree)


def test_every_dtype_comes_back_from_orbax_and_goes_there(tmp_path: pathlib.Path) -> None:
    library = orbax()
    names = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
             "float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2"]  # fmt: skip
    tree = {name: np.arange(5).astype(trees.dtype_of(name)) for name in names}
    library.PyTreeCheckpointer().save(tmp_path / "one", tree)
    convert.from_orbax(tmp_path / "one", tmp_path / "store", step=0)
    with ocp.CheckpointManager(tmp_path / "store") as manager:
        trees.assert_same(manager.restore(0), tree)
    convert.to_orbax(tmp_path / "store", tmp_path / "back")
    convert.from_orbax(tmp_path / "back", tmp_path / "again")
    with ocp.CheckpointManager(tmp_path / "again") as manager:
        trees.assert_same(manager.restore(0), tree)


def test_what_was_interrupted_goes_on_and_changes_nothing_that_is_there(
    run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    metadata = broken / "20" / "state" / "_METADATA"
    sound = metadata.read_bytes()
    metadata.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(ocp.errors.CorruptError, match="_METADATA"):
        convert.from_orbax(broken, tmp_path / "store")
    with ocp.CheckpointManager(tmp_path / "store") as manager:
        assert list(manager.all_steps()) == [1]
        committed = manager.metadata(1).commit_timestamp_nsecs
    metadata.write_bytes(sound)
    lines: list[str] = []
    assert convert.from_orbax(broken, tmp_path / "store", report=lines.append) == [20, 300]
    assert lines[0] == "step 1: there already" and len(lines) == 3
    with ocp.CheckpointManager(tmp_path / "store") as manager:
        assert list(manager.all_steps()) == [1, 20, 300]
        assert manager.metadata(1).commit_timestamp_nsecs == committed
    assert convert.from_orbax(broken, tmp_path / "store") == []


def test_a_store_becomes_a_run_that_orbax_restores(tmp_path: pathlib.Path) -> None:
    library = orbax()
    with ocp.CheckpointManager(
        tmp_path / "store", item_names=("state", "extra"), metadata={"who": "me"}
    ) as manager:
        for step in (2, 4):
            manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(without_empty(STATE)),
                    extra=ocp.args.JsonSave({"n": step}),
                ),
                metrics={"loss": 0.5},
                custom_metadata={"c": step},
            )
    assert convert.to_orbax(tmp_path / "store", tmp_path / "run", steps=[4]) == [4]
    assert convert.to_orbax(tmp_path / "store", tmp_path / "run") == [2]
    items = library.args.Composite(
        state=library.args.StandardRestore(without_empty(STATE)), extra=library.args.JsonRestore()
    )
    with library.CheckpointManager(tmp_path / "run", item_names=("state", "extra")) as manager:
        assert sorted(manager.all_steps()) == [2, 4]
        restored = manager.restore(4, args=items)
        assert restored.extra == {"n": 4}
        trees.assert_same(
            {"w": np.asarray(restored.state["params"]["w"])}, {"w": STATE["params"]["w"]}  # type: ignore[call-overload]
        )
    convert.from_orbax(tmp_path / "run", tmp_path / "again")
    with ocp.CheckpointManager(tmp_path / "again") as manager:
        trees.assert_same(manager.restore(2).state, without_empty(STATE))
        assert manager.metadata(2).metrics == {"loss": 0.5}
        assert manager.metadata(2).custom_metadata == {"c": 2}


def test_chunks_that_are_lost_are_an_error_and_not_zeros(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    library = orbax()
    library.PyTreeCheckpointer(use_ocdbt=False).save(tmp_path / "one", {"w": np.ones(4), "v": np.ones(3)})
    (chunk,) = [file for file in (tmp_path / "one" / "w").iterdir() if not file.name.startswith(".")]
    chunk.unlink()
    with pytest.raises(ocp.errors.CorruptError, match="'w'"):
        convert.from_orbax(tmp_path / "one", tmp_path / "store", step=0)
    (tmp_path / "one" / "v" / ".zarray").unlink()
    with pytest.raises(ocp.errors.CorruptError):
        convert.from_orbax(tmp_path / "one", tmp_path / "store", step=0)


def test_metadata_that_lies_is_refused(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("tensorstore", reason="tensorstore is absent")

    def entry(*keys: Any, kind: str = "None") -> dict[str, Any]:
        return {
            "key_metadata": [{"key": key, "key_type": kind_of} for key, kind_of in keys],
            "value_metadata": {"value_type": kind},
        }

    lies: list[Any] = [
        [], 7, None, "text", {}, {"tree_metadata": 1}, {"tree_metadata": {"a": 1}},
        {"tree_metadata": {"a": {}}}, {"tree_metadata": {"a": entry()}},
        {"tree_metadata": {"a": entry(("x", 1))}},
        {"tree_metadata": {"a": entry(("0", 1)), "b": entry(("a", 2))}},
        {"tree_metadata": {"a": entry(("a", 2)), "b": entry(("a", 2), ("b", 2))}},
        {"tree_metadata": {"a": entry(("a", 2), ("b", 2)), "b": entry(("a", 2))}},
        {"tree_metadata": {"a": entry(("1000000000000", 1))}},
        {"tree_metadata": {"a": entry(*[("k", 2)] * 500)}},
        {"tree_metadata": {"a": entry(("a", 2), kind="string")}},
        {"tree_metadata": {"a": entry(("a", 2), kind="np.ndarray")}},
        {"tree_metadata": {"a": entry(("../../etc", 2), kind="np.ndarray")}, "use_ocdbt": False},
        {"tree_metadata": {"a": entry(("..", 2), kind="np.ndarray")}, "use_ocdbt": False},
    ]  # fmt: skip
    directory = tmp_path / "one"
    directory.mkdir()
    for lie in lies:
        (directory / "_METADATA").write_text(json.dumps(lie))
        with pytest.raises(ocp.StepstoneError):
            convert.from_orbax(directory, tmp_path / "store", step=0)
    for text in ("", "{", "[" * 100_000, "\0"):
        (directory / "_METADATA").write_text(text)
        with pytest.raises(ocp.errors.CorruptError):
            convert.from_orbax(directory, tmp_path / "store", step=0)


def test_what_is_no_checkpoint_is_said_so(tmp_path: pathlib.Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ocp.errors.InvalidLayoutError, match="no checkpoints"):
        convert.from_orbax(tmp_path / "photos", tmp_path / "store")
    with pytest.raises(ocp.errors.InvalidLayoutError, match="not a directory"):
        convert.from_orbax(tmp_path / "nothing", tmp_path / "store")
    item = tmp_path / "run" / "3" / "state"
    item.mkdir(parents=True)
    (item.parent / "_CHECKPOINT_METADATA").write_text("{}")
    (item / "data.pickle").write_bytes(b"x")
    with pytest.raises(ocp.errors.UnsupportedError, match="state"):
        convert.from_orbax(tmp_path / "run", tmp_path / "store")


def test_hdf5_files_become_steps_and_steps_hdf5_files(tmp_path: pathlib.Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is absent")
    weights = {"dense": {"kernel:0": np.arange(6, dtype=np.float32).reshape(2, 3), "bias:0": np.zeros(3)},
               "count": np.array(7, np.int64), "mask": np.array([True, False]),
               "big": np.arange(4, dtype=np.int16)}  # fmt: skip
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["dense/kernel:0"] = weights["dense"]["kernel:0"]  # type: ignore[call-overload]
        file["dense"].create_dataset("bias:0", data=np.zeros(3), chunks=(2,), compression="gzip")
        file["count"], file["mask"] = 7, weights["mask"]
        file["big"] = np.arange(4, dtype=">i2")
        file["name"] = "model"
        file.create_group("empty")
        file.attrs["keras_version"] = "3.0"
        file["dense"].attrs["weight_names"] = [b"kernel:0", b"bias:0"]
    assert convert.from_hdf5(tmp_path / "w.h5", tmp_path / "store", step=3)
    assert not convert.from_hdf5(tmp_path / "w.h5", tmp_path / "store", step=3)
    with ocp.CheckpointManager(tmp_path / "store") as manager:
        restored = manager.restore(3)
        np.testing.assert_equal(restored, {**weights, "name": "model", "empty": {}})
        assert restored["dense"]["kernel:0"].dtype == np.float32
        attributes = manager.item_metadata(3).custom_metadata["hdf5"]
        assert attributes == {"/": {"keras_version": "3.0"}, "/dense": {"weight_names": ["kernel:0", "bias:0"]}}
    convert.to_hdf5(tmp_path / "store", tmp_path / "back.h5")
    assert convert.from_hdf5(tmp_path / "back.h5", tmp_path / "store", step=4, item="weights")
    with ocp.CheckpointManager(tmp_path / "store", item_names=("weights",)) as manager:
        np.testing.assert_equal(manager.restore(4).weights, restored)


def keras_file(file: pathlib.Path, **changed: Any) -> dict[str, Any]:
    """A model's file as Keras writes it; its weights."""
    h5py = pytest.importorskip("h5py", reason="h5py is absent")
    weights = {"layers": {"dense": {"vars": {"0": np.arange(6, dtype=np.float32).reshape(2, 3),
                                             "1": np.ones(3, np.float32)}}}, "vars": {}}  # fmt: skip
    with h5py.File(file.with_suffix(".h5"), "w") as opened:
        for name, array in weights["layers"]["dense"]["vars"].items():
            opened[f"layers/dense/vars/{name}"] = array
        opened.create_group("vars")
    members = {
        "metadata.json": json.dumps({"keras_version": "3.12.0"}),
        "config.json": json.dumps({"class_name": "Sequential", "config": {"layers": []}}),
        "model.weights.h5": file.with_suffix(".h5").read_bytes(),
        **changed,
    }
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)
    return weights


def test_models_of_keras_become_steps_with_their_configuration(tmp_path: pathlib.Path) -> None:
    weights = keras_file(tmp_path / "model.keras")
    assert convert.main([str(tmp_path / "model.keras"), str(tmp_path / "store"), "--step", "3"]) == 0
    with ocp.CheckpointManager(tmp_path / "store") as manager:
        np.testing.assert_equal(manager.restore(3), weights)
        assert manager.item_metadata(3).custom_metadata["keras"] == {
            "metadata": {"keras_version": "3.12.0"},
            "config": {"class_name": "Sequential", "config": {"layers": []}},
        }
    keras_file(tmp_path / "bare.keras", **{"config.json": None, "metadata.json": None})
    assert convert.from_hdf5(tmp_path / "bare.keras", tmp_path / "store", step=4, item="default")


def test_a_model_that_keras_itself_saved_has_the_same_weights(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="Keras is absent")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    assert convert.from_hdf5(tmp_path / "model.keras", tmp_path / "store", step=0)
    with ocp.CheckpointManager(tmp_path / "store") as manager:
        restored = manager.restore(0)
    found = [array for _, array in ocp.tree.to_flat_dict(restored).items()]
    for weight in model.get_weights():
        assert any(np.array_equal(weight, array) for array in found)


def test_archives_that_lie_are_refused(tmp_path: pathlib.Path) -> None:
    file, store = tmp_path / "x.keras", tmp_path / "store"

    def refused() -> None:
        with pytest.raises(ocp.StepstoneError):
            convert.from_hdf5(file, store, step=0)

    keras_file(file, **{"config.json": "{"})
    refused()
    keras_file(file, **{"config.json": "[" * 100_000})
    refused()
    keras_file(file, **{"config.json": '"' + "x" * (17 << 20) + '"'})
    refused()
    keras_file(file, **{"model.weights.h5": b"\x89HDF\r\n\x1a\n"})
    refused()
    keras_file(file)
    sound = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        at = archive.getinfo("model.weights.h5").header_offset
    for place in range(at + 46, len(sound) - 400, 211):
        damaged = bytearray(sound)
        damaged[place] ^= 0x40
        file.write_bytes(damaged)
        refused()
    for size in range(at, len(sound) - 1, 997):
        file.write_bytes(sound[:size])
        refused()
    # Of the directory at the end, and of a compressed description, every byte.
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", json.dumps({"text": "words " * 40}))
    sound = file.read_bytes()
    for place in range(len(sound) - 500, len(sound)):
        damaged = bytearray(sound)
        damaged[place] ^= 0x40
        file.write_bytes(damaged)
        # What does not matter to the weights may pass.
        with contextlib.suppress(ocp.StepstoneError):
            convert.from_hdf5(file, tmp_path / f"other{place}", step=0)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(10_000_000))
    with pytest.raises(ocp.errors.UnsupportedError, match="unpack it"):
        convert.from_hdf5(file, store, step=0)
    assert not store.exists()


def test_hdf5_files_that_point_elsewhere_or_lie_are_refused(tmp_path: pathlib.Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is absent")
    store = tmp_path / "store"

    def refused(fill: Any) -> None:
        with h5py.File(tmp_path / "x.h5", "w") as file:
            fill(file)
        with pytest.raises(ocp.StepstoneError):
            convert.from_hdf5(tmp_path / "x.h5", store, step=0)

    refused(lambda file: file.__setitem__("a", h5py.ExternalLink("/etc/passwd", "/")))
    refused(lambda file: file.__setitem__("a", h5py.SoftLink("/nowhere")))
    refused(lambda file: file.create_group("a").__setitem__("b", file["/"]))
    refused(lambda file: file.create_dataset("a", (4,), "u1", external=[("/etc/passwd", 0, 4)]))
    refused(lambda file: file.create_dataset("a", data=np.array([(1, 2.0)], "i4,f4")))
    refused(lambda file: file.create_dataset("a", data=h5py.Empty("f4")))
    refused(lambda file: file.__setitem__("a", np.dtype("f4")))
    refused(lambda file: file.create_dataset("a", data=["x", "y"]))
    refused(lambda file: file.create_dataset("a", (1 << 40,), "f4", chunks=(1 << 20,)))

    def link_many_times(file: Any) -> None:
        file.create_dataset("a", data=np.zeros(1 << 20, "u1"), compression="gzip")
        for i in range(100):
            file[f"link{i}"] = file["a"]

    refused(link_many_times)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = np.arange(1000)
    sound = (tmp_path / "x.h5").read_bytes()
    for size in range(8, len(sound) - 8000, 97):
        (tmp_path / "x.h5").write_bytes(sound[:size])
        with pytest.raises(ocp.StepstoneError):
            convert.from_hdf5(tmp_path / "x.h5", store, step=0)
    assert not store.exists()

    with ocp.CheckpointManager(store) as manager:
        manager.save(0, args=ocp.args.StandardSave({"a/b": np.ones(1)}))
        manager.save(1, args=ocp.args.StandardSave({"a": np.ones(1, ml_dtypes.bfloat16)}))
    for step in (0, 1):
        with pytest.raises(ocp.errors.UnsupportedError):
            convert.to_hdf5(store, tmp_path / "out.h5", step=step)
    assert not list(tmp_path.glob("out.h5*"))


def test_the_command_line_tells_what_it_is_given(
    run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store")
    assert convert.main([str(run), store, "--steps", "20"]) == 0
    assert capsys.readouterr().out.startswith("step 20: extra, state")
    assert convert.main([str(run), store]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "step 20: there already"
    assert convert.main([store, str(tmp_path / "back"), "--step", "1"]) == 0
    assert (tmp_path / "back" / "1" / "state" / "_METADATA").is_file()
    assert convert.main([str(run), store, "--steps", "7"]) == 1
    assert "no step 7" in capsys.readouterr().err
    assert convert.main([str(tmp_path), store]) == 1


def test_an_interruption_leaves_whole_steps_and_no_file(
    run: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = tmp_path / "store"
    read_step = convert._orbax_files.read_step

    def read_first(directory: pathlib.Path) -> Any:
        if directory.name != "1":
            raise KeyboardInterrupt
        return read_step(directory)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(convert._orbax_files, "read_step", read_first)
        assert convert.main([str(run), str(store)]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    with ocp.CheckpointManager(store) as manager:
        assert list(manager.all_steps()) == [1]
        manager.save(2, args=ocp.args.StandardSave({"a": np.ones(3)}))
    with monkeypatch.context() as interrupted:
        interrupted.setattr(os, "fsync", interrupt)
        assert convert.main([str(store), str(tmp_path / "out.h5"), "--step", "2"]) == 130
    assert not list(tmp_path.glob("out.h5*"))
    with monkeypatch.context() as noted:
        noted.setattr(os, "fsync", note)
        assert convert.main([str(store), str(tmp_path / "out.h5"), "--step", "2"]) == 0
    assert synced == [str(tmp_path / f"out.h5.partial-{os.getpid()}"), str(tmp_path)]
    assert convert.main([str(run), str(store)]) == 0


def test_libraries_that_are_absent_are_named(
    run: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorstore", "h5py", "orbax.checkpoint"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ocp.errors.UnsupportedError, match="pip install tensorstore"):
        convert.from_orbax(run, tmp_path / "store")
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ocp.errors.UnsupportedError, match="pip install h5py"):
        convert.from_hdf5(tmp_path / "x.h5", tmp_path / "store", step=0)
    with pytest.raises(ocp.errors.UnsupportedError, match="pip install orbax"):
        convert.to_orbax(tmp_path / "store", tmp_path / "back")
