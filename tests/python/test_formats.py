"""The tool's files of other formats, read and written by the libraries that own the formats."""

from __future__ import annotations

import collections
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import trees

import stepstone as ocp
from test_tool import tool as tool  # The fixture.

Tool = Callable[..., Any]

ARRAYS = {
    "c": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "fortran": np.asfortranarray(np.arange(24, dtype=np.int16).reshape(4, 6)),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 4), np.uint8),
    "bools": np.array([True, False, True]),
    "complex": np.arange(3) * (1 + 2j),
    "wide": np.arange(70_000, dtype=np.int64),
}


def same_arrays(found: Any, wanted: dict[str, np.ndarray[Any, Any]]) -> None:
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_of_numpy_come_in_and_go_out(save: Callable[..., None], tool: Tool, tmp_path: pathlib.Path) -> None:
    save(tmp_path / "in.npz", **ARRAYS, big=np.arange(3, dtype=">f8"))
    tool("import", tmp_path / "in.npz", tmp_path / "run", "--step", 1)
    wanted = {**ARRAYS, "big": np.arange(3, dtype="<f8")}
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        found = manager.restore(1)
        same_arrays(found["default"] if isinstance(found, ocp.args.Composite) else found, wanted)
    for more in ((), ("--deflate",)):
        tool("export", tmp_path / "run", 1, "-o", tmp_path / "out.npz", "--force", *more)
        with np.load(tmp_path / "out.npz", allow_pickle=False) as archive:
            same_arrays(dict(archive), wanted)
        assert zipfile.ZipFile(tmp_path / "out.npz").testzip() is None


def test_files_of_the_safetensors_library_come_back_byte_for_byte_and_in_shards(
    tool: Tool, tmp_path: pathlib.Path
) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is absent")
    arrays = {name: np.ascontiguousarray(array).reshape(array.shape)
              for name, array in ARRAYS.items() if name != "complex"}  # fmt: skip
    library.save_file(arrays, tmp_path / "m.safetensors", metadata={"format": "np"})
    tool("import", tmp_path / "m.safetensors", tmp_path / "run", "--step", 0)
    tool("export", tmp_path / "run", 0, "-o", tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()
    tool("export", tmp_path / "run", 0, "-o", tmp_path / "s.safetensors", "--shard-size", "200B")
    shards = sorted(tmp_path.glob("s-*-of-*.safetensors"))
    assert len(shards) > 1
    found: dict[str, Any] = {}
    for shard in shards:
        found.update(library.load_file(shard))
    same_arrays(found, arrays)
    tool("import", tmp_path / "s.safetensors.index.json", tmp_path / "run", "--step", 1)
    tool("export", tmp_path / "run", 1, "-o", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def torch_state(torch: Any) -> dict[Any, Any]:
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    base = torch.randn(4, 5, 6)
    dtypes = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
              "complex64", "complex128", "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2",
              "float8_e4m3fnuz", "float8_e5m2fnuz"]  # fmt: skip
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "dtypes": {name: torch.arange(1, 6).to(getattr(torch, name)) for name in dtypes},
        "views": [base, base.permute(2, 0, 1), base[1:, ::2, 3], base[0, 0].expand(7, 6), base[:0], base[1, 2, 3]],
        "ordered": collections.OrderedDict(b=1, a=(2, [], {})),
        "values": [True, None, -1, 2**40, -(2**80), 0.1, float("inf"), "é\n", b"\x00\xff", 1 - 2j],
        3: "integer key",
    }  # fmt: skip


def assert_same_state(torch: Any, found: Any, wanted: Any) -> None:
    if isinstance(wanted, torch.Tensor):
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        assert bytes(found.contiguous().reshape(-1).view(torch.uint8)) == bytes(
            wanted.detach().contiguous().reshape(-1).view(torch.uint8)
        )
    elif isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key in wanted:
            assert_same_state(torch, found[key], wanted[key])
    elif isinstance(wanted, list | tuple):
        assert type(found) is type(wanted) and len(found) == len(wanted)
        for found_child, wanted_child in zip(found, wanted, strict=True):
            assert_same_state(torch, found_child, wanted_child)
    else:
        assert type(found) is type(wanted) and found == wanted


def test_files_of_torch_come_in_and_go_out_as_torch_reads_them_without_pickle(
    tool: Tool, tmp_path: pathlib.Path
) -> None:
    torch = pytest.importorskip("torch", reason="torch is absent")
    state = torch_state(torch)
    torch.save(state, tmp_path / "in.pt")
    tool("import", tmp_path / "in.pt", tmp_path / "run", "--step", 0)
    tool("export", tmp_path / "run", 0, "-o", tmp_path / "out.pt")
    for mmap in (False, True):
        found = torch.load(tmp_path / "out.pt", weights_only=True, mmap=mmap)
        assert_same_state(torch, found, state)
    archive = zipfile.ZipFile(tmp_path / "out.pt")
    assert archive.testzip() is None
    raw = (tmp_path / "out.pt").read_bytes()
    for entry in archive.infolist():
        extra = int.from_bytes(raw[entry.header_offset + 28 : entry.header_offset + 30], "little")
        assert (entry.header_offset + 30 + len(entry.filename) + extra) % 64 == 0, entry.filename


def test_what_torch_pickles_besides_is_refused_by_name(tool: Tool, tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is absent")
    for value, name in (
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (torch.device("cpu"), "torch.device"),
        ({1, 2}, "set"),
        (np.float64(1), "numpy"),
        (torch.zeros(2, dtype=torch.complex64).conj(), "conjugated"),
        (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "_rebuild_qtensor"),
    ):
        torch.save({"x": value}, tmp_path / "x.pt")
        with pytest.raises(AssertionError, match=name):
            tool("import", tmp_path / "x.pt", tmp_path / "run", "--step", 0)
    assert not (tmp_path / "run").exists()


def test_trees_of_python_go_to_torch_and_numpy(tool: Tool, tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is absent")
    tree = {"pair": trees.Pair(np.ones(2, np.float32), (1, "x")), "list": [np.arange(3)]}
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        manager.save(0, args=ocp.args.StandardSave(tree))
    tool("export", tmp_path / "run", 0, "-o", tmp_path / "out.pt")
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    assert list(found["pair"]) == ["first", "second"] and found["pair"]["second"] == (1, "x")
    assert found["list"][0].tolist() == [0, 1, 2]
