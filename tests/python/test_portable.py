"""Portable files: saved, exported from runs, loaded, and mapped."""

from __future__ import annotations

import gc
import pathlib
import sys
from typing import Any

import numpy as np
import pytest

import stepstone as ocp
from stepstone import v1


def state(step: int = 0) -> dict[str, Any]:
    return {
        "params": {"w": np.arange(30_000, dtype=np.float32).reshape(100, 300) + step, "b": np.ones(3)},
        "layers": [{"k": np.full((4, 4), step, np.int32)}],
        "step": step,
        "name": "run",
    }


@pytest.fixture
def run(tmp_path: pathlib.Path) -> pathlib.Path:
    """Steps 3, 5 and 8, each with the items `state` and `other`."""
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        for step in (3, 5, 8):
            items = {"state": state(step), "other": {"x": np.zeros(2, np.float64) + step}}
            args = {name: ocp.args.StandardSave(item) for name, item in items.items()}
            assert manager.save(step, args=ocp.args.Composite(**args))
    return tmp_path / "run"


def file_of(path: pathlib.Path) -> pathlib.Path:
    return path.parent / "x.stone"


def mapped_paths() -> str:
    return pathlib.Path("/proc/self/maps").read_text()


def test_a_path_that_ends_in_stone_becomes_one_file(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "x.stone"
    ocp.save(file, state())
    assert file.is_file()
    np.testing.assert_equal(ocp.load(file), state())
    with pytest.raises(ocp.StepAlreadyExistsError):
        ocp.save(file, state())
    ocp.save(file, state(1), overwrite=True)
    np.testing.assert_equal(ocp.load(file), state(1))
    with ocp.StandardCheckpointer() as checkpointer:
        np.testing.assert_equal(checkpointer.restore(file / "state"), state(1))


@pytest.mark.parametrize("mmap", [True, "unchecked"])
def test_mapped_arrays_are_views_of_the_file(tmp_path: pathlib.Path, mmap: Any) -> None:
    file = tmp_path / "x.stone"
    ocp.save(file, state())
    assert str(file) not in mapped_paths()
    found = ocp.load(file, mmap=mmap)
    np.testing.assert_equal(found, state())
    assert str(file) in mapped_paths()
    start = found["params"]["w"].ctypes.data
    ranges = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in mapped_paths().splitlines()
        if line.endswith(str(file))
    ]
    assert any(begin <= start < end for begin, end in ranges)
    for array in (found["params"]["w"], found["params"]["b"], found["layers"][0]["k"]):
        assert not array.flags.writeable and not array.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError):
            array.flags.writeable = True
    # The last view unmaps it; a view of a view holds it, too.
    row = found["params"]["w"][3]
    del found, array
    gc.collect()
    assert row[2] == 902 and str(file) in mapped_paths()
    del row
    gc.collect()
    assert str(file) not in mapped_paths()


def test_without_mmap_arrays_can_be_written(tmp_path: pathlib.Path) -> None:
    ocp.save(tmp_path / "x.stone", state())
    found = ocp.load(tmp_path / "x.stone")
    found["params"]["w"] += 1
    np.testing.assert_equal(ocp.load(tmp_path / "x.stone"), state())


def test_what_cannot_be_mapped_is_read_and_read_only_all_the_same(tmp_path: pathlib.Path) -> None:
    ocp.save(tmp_path / "store", state())
    found = ocp.load(tmp_path / "store", mmap=True)  # A store has no arrays in one piece.
    np.testing.assert_equal(found, state())
    assert not found["params"]["w"].flags.writeable
    ocp.save(tmp_path / "x.stone", state())
    target = {**state(), "params": {"w": np.zeros((100, 300), np.float64), "b": np.zeros(3)}}
    found = ocp.load(tmp_path / "x.stone", target, mmap=True)  # Nor does a cast leave them.
    np.testing.assert_equal(found["params"]["w"], state()["params"]["w"].astype(np.float64))
    assert found["params"]["w"].dtype == np.float64
    assert not found["params"]["w"].flags.writeable


def test_subbyte_empty_and_scalar_arrays_are_read_only_too(tmp_path: pathlib.Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is absent: no narrow dtypes")
    tree = {
        "narrow": np.arange(-8, 8).astype(ml_dtypes.int4),
        "half": np.arange(6).astype(ml_dtypes.bfloat16),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.float32(2.5),
    }
    ocp.save(tmp_path / "x.stone", tree)
    found = ocp.load(tmp_path / "x.stone", mmap=True)
    for name, value in tree.items():
        np.testing.assert_array_equal(found[name].astype(np.float64), value.astype(np.float64))
        assert found[name].dtype == value.dtype and not found[name].flags.writeable


def test_a_context_says_how_arrays_are_loaded(tmp_path: pathlib.Path) -> None:
    ocp.save(tmp_path / "x.stone", state())
    context = v1.Context()
    context.array.loading.mmap = True
    with context:
        assert not ocp.load(tmp_path / "x.stone")["params"]["w"].flags.writeable
        assert ocp.load(tmp_path / "x.stone", mmap=False)["params"]["w"].flags.writeable
        items = ocp.load_checkpointables(tmp_path / "x.stone")
        assert not items["state"]["params"]["w"].flags.writeable
    with pytest.raises(ValueError, match="unchecked"):
        ocp.load(tmp_path / "x.stone", mmap="maybe")  # type: ignore[arg-type]
    assert ocp.load_async(tmp_path / "x.stone", mmap=True).result()["step"] == 0


def test_damage_is_found_where_arrays_are_checked(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "x.stone"
    ocp.save(file, state())
    content = bytearray(file.read_bytes())
    where = content.find(state()["params"]["w"].tobytes())
    assert where > 0
    content[where + 1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="params/w"):
        ocp.load(file)
    with pytest.raises(ValueError, match="params/w"):
        ocp.load(file, mmap=True)
    found = ocp.load(file, mmap="unchecked")
    assert not np.array_equal(found["params"]["w"], state()["params"]["w"])


def test_torch_gets_a_copy_that_it_may_write_to(tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is absent: mapped tensors are not tested")
    ocp.save(tmp_path / "x.stone", {"w": np.ones(1000, np.float32)})
    target = {"w": torch.zeros(1000)}
    found = ocp.load(tmp_path / "x.stone", target, mmap=True)
    found["w"] += 1
    assert found["w"].sum() == 2000
    assert ocp.load(tmp_path / "x.stone")["w"].sum() == 1000


def test_jax_may_donate_a_mapped_array(tmp_path: pathlib.Path) -> None:
    jax = pytest.importorskip("jax", reason="jax is absent: mapped jax.Arrays are not tested")
    ocp.save(tmp_path / "x.stone", {"w": np.ones(4096, np.float32)})
    target = {"w": jax.ShapeDtypeStruct((4096,), np.float32)}
    found = ocp.load(tmp_path / "x.stone", target, mmap=True)
    result = jax.jit(lambda x: x + 1, donate_argnums=0)(found["w"])
    assert float(result.sum()) == 8192
    del found, result
    assert ocp.load(tmp_path / "x.stone")["w"].sum() == 4096


def test_a_manager_exports_its_steps_with_those_on_their_way(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "x.stone"
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        for step in (1, 2):
            manager.save(step, args=ocp.args.StandardSave(state(step)))
        report = manager.export(file)
    assert (report.step_count, report.leaf_count) == (2, 10)
    assert report.file_size_bytes == file.stat().st_size
    assert report.size_bytes > 2 * state()["params"]["w"].nbytes > report.file_size_bytes / 2
    options = ocp.CheckpointManagerOptions(read_only=True)
    with ocp.CheckpointManager(file, options=options) as reader:
        assert reader.all_steps() == [1, 2]
        np.testing.assert_equal(reader.restore(1), state(1))
        assert reader.export(tmp_path / "again.stone", steps=2).step_count == 1
    np.testing.assert_equal(ocp.load(tmp_path / "again.stone"), state(2))
    with pytest.raises(FileExistsError):
        ocp.export(tmp_path / "run", file)
    assert ocp.export(tmp_path / "run", file, steps=[2], overwrite=True).step_count == 1
    np.testing.assert_equal(ocp.load(file / "2", mmap=True), state(2))


def test_steps_items_and_branches_are_chosen(run: pathlib.Path) -> None:
    file = file_of(run)
    assert ocp.export(run, file, steps=(3, 8)).step_count == 2
    assert sorted(ocp.load_checkpointables(file / "8")) == ["other", "state"]
    ocp.export(run, file, steps=np.int64(5), items="other", overwrite=True)
    np.testing.assert_equal(ocp.load_checkpointables(file), {"other": {"x": np.full(2, 5.0)}})
    ocp.export(run / "8" / "state", file, overwrite=True)
    np.testing.assert_equal(ocp.load(file), state(8))
    ocp.export(run / "8", file, subtree="params", overwrite=True)
    np.testing.assert_equal(ocp.load_checkpointables(file), {"state": {"params": state(8)["params"]}})
    with ocp.StandardCheckpointer() as checkpointer:
        report = checkpointer.export(run / "3", file, items=["state"], subtree="layers[0]/k",
                                     overwrite=True)
    assert report.leaf_count == 1
    np.testing.assert_equal(ocp.load(file), {"layers": state(3)["layers"]})


def test_floats_are_cast_on_the_way(run: pathlib.Path) -> None:
    ocp.export(run / "3" / "state", file_of(run), cast_floats=np.float16)
    found = ocp.load(file_of(run), mmap=True)
    assert found["params"]["w"].dtype == np.float16 and found["layers"][0]["k"].dtype == np.int32
    np.testing.assert_equal(found["params"]["w"], state(3)["params"]["w"].astype(np.float16))
    with pytest.raises(ValueError, match="int8"):
        ocp.export(run, file_of(run), cast_floats=np.int8, overwrite=True)


def test_a_refused_export_leaves_what_was_there(run: pathlib.Path) -> None:
    file = file_of(run)
    ocp.export(run / "3", file)
    before = file.read_bytes()
    for error, arguments in (
        (FileNotFoundError, {"steps": [4]}),
        (FileNotFoundError, {"items": ["nothing"]}),
        (ValueError, {"subtree": "nothing"}),
        (ValueError, {"steps": []}),
        (TypeError, {"steps": [1.5]}),
        (ValueError, {"subtree": "layers[0"}),
    ):
        with pytest.raises(error):
            ocp.export(run, file, overwrite=True, **arguments)
        assert file.read_bytes() == before
    with pytest.raises(ValueError, match="steps"):
        ocp.export(run / "3", file, steps=[3], overwrite=True)
    with pytest.raises(FileNotFoundError):
        ocp.export(run.parent / "nothing", file, overwrite=True)
    assert sorted(path.name for path in run.parent.iterdir()) == ["run", "x.stone"]


def test_progress_is_told_in_bytes(
    run: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    report = ocp.export(run, file_of(run), progress=lambda done, total: seen.append((done, total)))
    assert seen and seen[-1][0] == seen[-1][1] == report.size_bytes
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    raised: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)

    def fail(done: int, total: int) -> None:
        raise KeyError("progress")

    assert ocp.export(run, file_of(run), progress=fail, overwrite=True).step_count == 3
    assert raised and isinstance(raised[0].exc_value, KeyError)


def test_training_checkpointers_export(tmp_path: pathlib.Path) -> None:
    with v1.training.Checkpointer(tmp_path / "run") as checkpointer:
        checkpointer.save_async(4, state(4), force=True)
        assert checkpointer.export(tmp_path / "x.stone").step_count == 1
    np.testing.assert_equal(v1.load(tmp_path / "x.stone", mmap=True), state(4))


def test_a_compressed_export_is_read_instead_of_mapped(run: pathlib.Path) -> None:
    ocp.export(run / "3" / "state", file_of(run), compress=True)
    assert file_of(run).stat().st_size < state()["params"]["w"].nbytes
    found = ocp.load(file_of(run), mmap=True)
    np.testing.assert_equal(found, state(3))
    assert not found["params"]["w"].flags.writeable


def test_a_portable_file_is_deleted_as_a_whole(run: pathlib.Path) -> None:
    file = file_of(run)
    ocp.export(run, file)
    with pytest.raises(ValueError, match="RUN/STEP|step"):
        ocp.delete(file)  # A run of steps.
    with pytest.raises(ValueError, match="export"):
        ocp.delete(file / "3")
    ocp.export(run / "3", file, overwrite=True)
    with pytest.raises(ValueError, match="export"):
        ocp.delete(file, checkpointable_name="other")
    mapped = ocp.load(file, mmap=True)["params"]["w"]
    assert ocp.delete(file) and not file.exists()
    np.testing.assert_equal(mapped, state(3)["params"]["w"])  # The mapping holds the file.
    assert not ocp.delete(file, missing_ok=True)


def test_deleting_one_object_writes_nothing_of_the_others(tmp_path: pathlib.Path) -> None:
    def written_bytes() -> int:
        lines = pathlib.Path("/proc/self/io").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("wchar:")))

    big = {"w": np.random.default_rng(1).standard_normal(1_000_000)}
    ocp.save_checkpointables(tmp_path / "a", {"big": big, "small": {"x": 1}, "gone": {"x": 2}})
    before = written_bytes()
    assert ocp.delete(tmp_path / "a", checkpointable_name="gone")
    assert written_bytes() - before < big["w"].nbytes / 10
    np.testing.assert_equal(
        ocp.load_checkpointables(tmp_path / "a"), {"big": big, "small": {"x": 1}}
    )
