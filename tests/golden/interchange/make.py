"""Writes the files beside it: small models, as the libraries whose formats they have write them.

    python make.py        with numpy, ml_dtypes, safetensors and torch

`*.expected.safetensors` has what the file of that name without it means, as the safetensors library
writes it: what the tool must export, byte for byte, after it imported the file.
"""

from __future__ import annotations

import collections
import json
import pathlib

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

HERE = pathlib.Path(__file__).parent


def numbers(dtype: str, *shape: int) -> np.ndarray:
    count = int(np.prod(shape, dtype=np.int64))
    values = np.arange(count) * 7 % 23 - (0 if np.dtype(dtype).kind in "ub" else 9)
    return values.astype(dtype).reshape(shape)


def write_numpy() -> None:
    np.save(HERE / "c_order.npy", numbers("float64", 3, 4))
    np.save(HERE / "fortran_order.npy", np.asfortranarray(numbers("float32", 5, 3, 4)))
    np.save(HERE / "big_endian.npy", numbers(">i4", 2, 5))
    arrays = {
        "bias": numbers("float32", 7),
        "count": numbers("int64"),
        "empty": numbers("float16", 0, 3),
        "fortran": np.asfortranarray(numbers("int16", 4, 6)),
        "mask": numbers("bool", 9),
        "complex": (numbers("float32", 6) + 1j * numbers("float32", 6)).astype(np.complex64),
        "big_endian": numbers(">f8", 3, 3),
        "large": np.zeros((32, 65), np.uint8),
    }
    np.savez(HERE / "stored.npz", **arrays)
    np.savez_compressed(HERE / "deflated.npz", **arrays)
    plain = {name: np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))).reshape(array.shape) for name, array in arrays.items()}
    for name in ("stored.npz", "deflated.npz"):
        safetensors.numpy.save_file(plain, HERE / f"{name}.expected.safetensors")


def write_torch() -> None:
    torch.manual_seed(7)
    model = torch.nn.Sequential(collections.OrderedDict(first=torch.nn.Linear(3, 4), second=torch.nn.Linear(4, 2)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model(torch.ones(5, 3)).square().sum().backward()
    optimizer.step()
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "views": {
            "whole": base,
            "transposed": base.permute(2, 0, 1),
            "sliced": base[:, 1:, ::2],
            "expanded": torch.tensor([[1.5], [2.5]]).expand(2, 5),
            "scalar": base[1, 2, 3],
            "empty": base[:0],
        },
        "dtypes": {
            str(dtype).removeprefix("torch."): torch.arange(1, 5).to(dtype)
            for dtype in (
                torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
                torch.float16, torch.bfloat16, torch.float64, torch.complex64,
                torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2,
            )
        },
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "values": [1, -2, 70000, 2**40, 2**70, -(2**70), 0.1, None, True, False, "text é", b"\x00\xff", 1 - 2j, (1, ("a",), [])],
        "size": torch.Size([4, 5]),
        7: {"integer": "key"},
    }  # fmt: skip
    torch.save(state, HERE / "state.pt")
    # As PyTorch wrote files before 1.6; means the same.
    torch.save(state, HERE / "old_form.pt", _use_new_zipfile_serialization=False)
    flat: dict[str, torch.Tensor] = {}

    def add(path: str, node: object) -> None:
        if isinstance(node, torch.Tensor):
            flat[path] = node.detach().contiguous().clone()
        elif isinstance(node, dict):
            for key, child in node.items():
                add(f"{path}.{key}" if path else str(key), child)

    add("", state)
    safetensors.torch.save_file(flat, HERE / "state.pt.expected.safetensors")


def write_shards() -> None:
    tensors = {f"layer{i}.w": numbers("float32", 3 + i, 2) for i in range(4)}
    groups = [{name: tensors[name] for name in list(tensors)[part]} for part in (slice(0, 3), slice(3, 4))]
    weight_map = {}
    for i, group in enumerate(groups):
        name = f"model-{i + 1:05}-of-00002.safetensors"
        safetensors.numpy.save_file(group, HERE / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(group, name))
    index = {"metadata": {"total_size": sum(array.nbytes for array in tensors.values())}, "weight_map": weight_map}
    (HERE / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    safetensors.numpy.save_file(tensors, HERE / "model.safetensors.index.json.expected.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    write_numpy()
    write_torch()
    write_shards()
