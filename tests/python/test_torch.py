"""`stepstone.torch`, and tensors in ordinary trees."""

from __future__ import annotations

import copy
import pathlib
from collections import Counter, OrderedDict
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

import stepstone  # noqa: E402
import stepstone.torch  # noqa: E402
from stepstone._tree import from_native, to_native  # noqa: E402


def bits(tensor: Any) -> Any:
    return tensor.detach().resolve_conj().contiguous().view(-1).view(torch.uint8)


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """The same types, dtypes, strides and bits."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape, a.requires_grad) == (b.dtype, b.shape, b.requires_grad), where
        assert torch.equal(bits(a), bits(b)), where
    elif isinstance(a, torch.Generator):
        assert torch.equal(a.get_state(), b.get_state()), where
    elif isinstance(a, (np.ndarray, np.generic)):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for place, (x, y) in enumerate(zip(a, b)):
            assert_same(x, y, f"{where}[{place}]")
    else:
        assert a == b, where


def round_trip(value: Any, path: pathlib.Path, **options: Any) -> Any:
    stepstone.torch.save(value, path)
    return stepstone.torch.load(path, **options)


DTYPES = [
    "float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2",
    "float8_e4m3fnuz", "float8_e5m2fnuz", "int8", "int16", "int32", "int64", "uint8", "uint16",
    "uint32", "uint64", "bool", "complex64", "complex128",
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_every_dtype_come_back(dtype: str, tmp_path: pathlib.Path) -> None:
    kind = getattr(torch, dtype)
    value = {
        "w": torch.arange(6).reshape(2, 3).to(kind),
        "scalar": torch.ones(()).to(kind),
        "empty": torch.empty(0, dtype=kind),
        "strided": torch.arange(6).to(kind).reshape(2, 3).t(),
    }
    assert_same(value, round_trip(value, tmp_path / "c"))


def test_containers_and_other_leaves_come_back(tmp_path: pathlib.Path) -> None:
    value = {
        "plain": [None, True, 3, 10**30, 0.5, 1j, "x", b"y", (), {}, {7: (1,)}],
        "arrays": (np.arange(3.0), np.float32(2), np.array(2.5), np.array(["a"]), np.bool_(True)),
        "ordered": OrderedDict([("b", torch.ones(1)), ("a", 2)]),
        "counter": Counter({3: 1, 5: 2}),
        "size": torch.Size([2, 3]),
        "generator": torch.Generator().manual_seed(5),
        "rng": torch.get_rng_state(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "gradient": torch.ones(2, requires_grad=True),
        "conjugated": torch.tensor([1 + 2j]).conj(),
        "expanded": torch.ones(1, 3).expand(4, 3),
    }
    assert_same(value, round_trip(value, tmp_path / "c"))
    assert_same(torch.ones(2), round_trip(torch.ones(2), tmp_path / "bare"))


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 3)
        self.norm = torch.nn.BatchNorm1d(3)
        self.head = torch.nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Any) -> Any:
        return self.head(self.norm(self.embedding(tokens)))


def train(model: Any, optimizer: Any, schedule: Any, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.tensor([1, 2, 3])).square().sum().backward()
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("schedule", ["MultiStepLR", "CosineAnnealingLR", "OneCycleLR"])
def test_training_goes_on_as_if_it_had_not_stopped(schedule: str, tmp_path: pathlib.Path) -> None:
    arguments: Any = {
        "MultiStepLR": {"milestones": [2, 4]},
        "CosineAnnealingLR": {"T_max": 10},
        "OneCycleLR": {"max_lr": 0.1, "total_steps": 20},
    }[schedule]

    def make() -> Any:
        torch.manual_seed(0)
        model = Tied()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, amsgrad=True)
        return model, optimizer, getattr(torch.optim.lr_scheduler, schedule)(optimizer, **arguments)

    first = make()
    train(*first, steps=3)
    state = {name: part.state_dict() for name, part in zip("mos", first)}
    loaded = round_trip(state, tmp_path / "c")
    assert_same(state, loaded)
    assert loaded["m"]._metadata == state["m"]._metadata
    second = make()
    for name, part in zip("mos", second):
        part.load_state_dict(loaded[name])
    train(*first, steps=3)
    train(*second, steps=3)
    assert_same(first[0].state_dict(), second[0].state_dict())
    assert first[2].get_last_lr() == second[2].get_last_lr()


def test_tensors_that_shared_memory_share_it_again(tmp_path: pathlib.Path) -> None:
    base = torch.arange(12.0)
    same = torch.ones(2)
    value = {
        "tied": Tied().state_dict(),
        "left": base[2:6],
        "right": base[4:8].view(2, 2).t(),
        "apart": base[10:],
        "bits": base[4:6].view(torch.int32),
        "twice": [same, same],
        "layout": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    loaded = round_trip(value, tmp_path / "c")
    assert_same(value, loaded)
    tied = loaded["tied"]
    assert tied["embedding.weight"].data_ptr() == tied["head.weight"].data_ptr()
    assert loaded["twice"][0] is loaded["twice"][1]
    assert loaded["layout"].is_contiguous(memory_format=torch.channels_last)
    assert loaded["right"].stride() == (1, 2)
    loaded["left"][2] = 77
    assert loaded["right"][0, 0] == 77
    assert loaded["bits"].view(torch.float32)[0] == 77
    storages = {loaded[name].untyped_storage().data_ptr() for name in ("left", "apart")}
    assert len(storages) == 2


def test_the_checkpoint_is_an_ordinary_tree(tmp_path: pathlib.Path) -> None:
    stepstone.torch.save({"w": torch.arange(3), "a": np.ones(2), "n": 5}, tmp_path / "c")
    loaded = stepstone.load(tmp_path / "c")
    assert isinstance(loaded["w"], np.ndarray) and loaded["w"].tolist() == [0, 1, 2]
    assert loaded["n"] == 5
    stepstone.save(tmp_path / "d", {"w": np.arange(3), "x": [np.float32(1)]})
    tensors = stepstone.torch.load(tmp_path / "d")
    assert_same(tensors, {"w": torch.arange(3), "x": [torch.tensor(1.0)]})


def test_tensors_are_put_where_map_location_says(tmp_path: pathlib.Path) -> None:
    value = {"w": torch.ones(2, 2), "t": torch.rand(2, 3).t()}
    for location in ("meta", torch.device("meta"), {"cpu": "meta"}):
        loaded = round_trip(value, tmp_path / "c", map_location=location)
        assert all(tensor.is_meta for tensor in loaded.values())
    for location in ("cpu", None, {}, lambda storage, name: storage, lambda storage, name: None):
        assert_same(value, round_trip(value, tmp_path / "c", map_location=location))


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: torch.nn.Linear(1, 1), "state_dict"),
        (lambda: torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1), "state_dict"),
        (lambda: torch.device("cpu"), "str"),
        (lambda: torch.float32, "str"),
        (lambda: torch.ones(2).to_sparse(), "sparse.*to_dense"),
        (lambda: torch.ones(2, dtype=torch.complex32), "cast"),
        (lambda: torch.ones(2, device="meta"), "no elements"),
        (lambda: len, "code"),
        (lambda: {1, 2}, "sorted"),
        (lambda: {(1, 2): 3}, "keys"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_stored_is_refused_by_its_path(
    make: Any, advice: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ValueError, match=advice) as refused:
        stepstone.torch.save({"model": [torch.ones(1), {"x": make()}]}, tmp_path / "c")
    assert "'model[1]/x'" in str(refused.value)
    assert not (tmp_path / "c").exists()


def test_paths_are_checkpoints_and_nothing_else(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        stepstone.torch.load(tmp_path / "absent")
    torch.save(torch.ones(1), tmp_path / "file.pt")
    with pytest.raises(ValueError, match="torch.load reads"):
        stepstone.torch.load(tmp_path / "file.pt")
    with (tmp_path / "file.pt").open("rb") as file, pytest.raises(TypeError, match="path"):
        stepstone.torch.load(file)  # type: ignore[arg-type]
    stepstone.torch.save({"a": 1}, tmp_path / "c")
    with pytest.raises(ValueError):
        stepstone.torch.save({"a": 2}, tmp_path / "c", overwrite=False)
    assert stepstone.torch.load(tmp_path / "c") == {"a": 1}
    stepstone.torch.save({"a": 2}, tmp_path / "c")
    assert stepstone.torch.load(tmp_path / "c") == {"a": 2}


def test_tensors_in_a_target_come_back_as_tensors_of_its_kind(tmp_path: pathlib.Path) -> None:
    value = {
        "w": torch.arange(4.0),
        "parameter": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)),
        "layout": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "ordered": OrderedDict(a=torch.ones(1)),
        "generator": torch.Generator().manual_seed(3),
    }
    stepstone.save(tmp_path / "c", value)
    target = copy.deepcopy({key: value[key] for key in value if key != "generator"})
    target["generator"] = torch.Generator()
    restored = stepstone.load(tmp_path / "c", target)
    assert_same(value, restored)
    assert restored["layout"].stride() == value["layout"].stride()
    abstract = torch.empty(4, dtype=torch.float16, device="meta")
    half = stepstone.load(tmp_path / "c", {**value, "w": abstract})
    assert half["w"].dtype == torch.float16 and half["w"].tolist() == [0, 1, 2, 3]


def test_tensors_on_the_cpu_are_not_copied() -> None:
    tensor = torch.arange(3.0)
    tree = to_native({"w": tensor})
    tensor[0] = 7  # The tree refers to the tensor's memory, and so sees it.
    assert from_native(tree)["w"].tolist() == [7, 1, 2]
    assert tree.size_bytes == 12
