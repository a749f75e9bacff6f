"""What `stepstone.torch` knows of an object besides its tree of values: which leaf was what kind of
object, and which tensors shared memory. It is recorded with the item, and used by `load`.

A record is a pair of a path's labels and a dict with some of: "kind" ("array" and "scalar" of
numpy, "OrderedDict", "Counter", "Size"), "modules" (what torch keeps at the dict of a module's
state), "parameter" and "requires_grad" (bool), "device", "same" (labels of the place where the same
tensor was met first), "storage" (a number, the size in bytes of the memory that all tensors with
that number share, and where in it this one begins) and "strides" (in elements).
"""

from __future__ import annotations

import json
import logging
from collections import Counter, OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from stepstone import _native, _torch
from stepstone._containers import describe
from stepstone._leaves import numpy_dtype
from stepstone._tree import register_target

Labels = tuple[str | int, ...]
Record = dict[str, Any]

_logger = logging.getLogger("stepstone")

# Memory begins where any element can.
_ALIGNMENT = 16


def kinds_of(obj: object) -> list[tuple[Labels, Record]]:
    """The records of an object that is saved. Leaves without one are tensors on the CPU."""
    return _Recorder().record(obj)


class _Recorder:
    def __init__(self) -> None:
        self._records: dict[Labels, Record] = {}
        self._tensors: list[tuple[Labels, Any]] = []

    def record(self, obj: object) -> list[tuple[Labels, Record]]:
        self._visit(obj, ())
        self._record_tensors()
        return [(labels, record) for labels, record in self._records.items() if record]

    def _visit(self, value: Any, labels: Labels) -> None:
        torch = _torch.torch_module()
        if torch is not None and isinstance(value, torch.Tensor):
            self._tensors.append((labels, value))
            return
        if isinstance(value, np.generic):
            self._records[labels] = {"kind": "scalar"}
            return
        container = describe(value)
        if container is None:
            if hasattr(value, "__array__"):
                self._records[labels] = {"kind": "array"}
            return
        if type(value) is OrderedDict:
            self._records[labels] = {"kind": "OrderedDict", **_modules_of(value)}
        elif type(value) is Counter:  # Schedulers have one.
            self._records[labels] = {"kind": "Counter"}
        elif torch is not None and isinstance(value, torch.Size):
            self._records[labels] = {"kind": "Size"}
        for label, child in zip(container.labels, container.children):
            self._visit(child, (*labels, label))

    def _record_tensors(self) -> None:
        torch = _torch.torch_module()
        first: dict[int, Labels] = {}
        in_storages: dict[tuple[str, int], list[tuple[int, int, Labels, Any]]] = {}
        for labels, tensor in self._tensors:
            if id(tensor) in first:
                self._records[labels] = {"same": first[id(tensor)]}
                continue
            first[id(tensor)] = labels
            record = self._records.setdefault(labels, {})
            if isinstance(tensor, torch.nn.Parameter):
                record["parameter"] = tensor.requires_grad
            elif tensor.requires_grad:
                record["requires_grad"] = True
            if tensor.device.type != "cpu":
                record["device"] = str(tensor.device)
            if (extent := _extent_of(tensor)) is not None:
                where = (str(tensor.device), tensor.untyped_storage().data_ptr())
                in_storages.setdefault(where, []).append((*extent, labels, tensor))
        count = 0
        for members in in_storages.values():
            for group in _overlapping(members):
                if len(group) > 1 or not group[0][3].is_contiguous():
                    self._record_storage(count, group)
                    count += 1

    def _record_storage(self, number: int, group: list[tuple[int, int, Labels, Any]]) -> None:
        begin = min(member[0] for member in group) // _ALIGNMENT * _ALIGNMENT
        size_bytes = max(member[1] for member in group) - begin
        for start, _, labels, tensor in group:
            self._records[labels]["storage"] = [number, size_bytes, start - begin]
            self._records[labels]["strides"] = list(tensor.stride())


def _modules_of(value: OrderedDict[Any, Any]) -> Record:
    modules = getattr(value, "_metadata", None)
    try:
        return {} if modules is None else {"modules": json.loads(json.dumps(modules))}
    except (TypeError, ValueError):
        return {}


def _extent_of(tensor: Any) -> tuple[int, int] | None:
    """Where a tensor begins and ends in its storage, in bytes; None: its layout is not kept."""
    torch = _torch.torch_module()
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        return None
    if tensor.numel() == 0 or tensor.is_conj() or tensor.is_neg():
        return None
    # An element that is there twice, as after expand(), cannot be written as two.
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape)):
        if size > 1 and stride <= reach:
            return None
        reach += (size - 1) * stride
    item_size = tensor.element_size()
    start = tensor.storage_offset() * item_size
    return start, start + (reach + 1) * item_size


def _overlapping(
    members: list[tuple[int, int, Labels, Any]],
) -> list[list[tuple[int, int, Labels, Any]]]:
    """The members of one storage in groups that have no byte in common."""
    groups: list[list[tuple[int, int, Labels, Any]]] = []
    end = -1
    for member in sorted(members, key=lambda member: member[:2]):
        if member[0] >= end:
            groups.append([])
        groups[-1].append(member)
        end = max(end, member[1])
    return groups


class _TensorTarget:
    """In a target: a tensor is to be made of this leaf."""

    def __init__(self, dtype: str, shape: Sequence[int], kinds: Kinds, labels: Labels) -> None:
        self.array = _native.AbstractArray(dtype, shape)
        self.finish = partial(kinds.make_tensor, labels, dtype)


register_target(_TensorTarget, lambda target: _native.Leaf(target.array, target.finish))


class Kinds:
    """The records of an object that is loaded.

    Parameters
    ----------
    records : list, optional
        Of `kinds_of`.
    map_location : object
        As for `torch.load`.
    """

    def __init__(self, records: list[Any] | None, map_location: Any) -> None:
        self._records: dict[Labels, Record] = {
            tuple(labels): record for labels, record in records or ()
        }
        self._map_location = map_location
        self._made: dict[Labels, Any] = {}
        self._storages: dict[int, Any] = {}

    def kind_of(self, labels: Labels) -> str | None:
        """"array", "scalar", or None for tensors."""
        kind: str | None = self._records.get(labels, {}).get("kind")
        return kind

    def with_containers(self, tree: Any) -> Any:
        """The same tree with the recorded kinds of containers."""
        import torch

        containers = {
            labels: record
            for labels, record in self._records.items()
            if record.get("kind") in ("OrderedDict", "Counter", "Size")
        }

        def visit(value: Any, labels: Labels) -> Any:
            container = describe(value)
            if container is None:
                return value
            children = [
                visit(child, (*labels, label))
                for label, child in zip(container.labels, container.children)
            ]
            record = containers.get(labels)
            if record is None:
                return container.rebuild(children)
            if record["kind"] == "Size":
                return torch.Size(children)
            if record["kind"] == "Counter":
                return Counter(dict(zip(container.labels, children)))
            ordered: Any = OrderedDict(zip(container.labels, children))
            if "modules" in record:
                ordered._metadata = OrderedDict(record["modules"])
            return ordered

        return visit(tree, ()) if containers else tree

    def make_tensor(self, labels: Labels, dtype: str, value: np.ndarray[Any, Any]) -> Any:
        """The tensor at a place, of its restored elements."""
        import torch

        record = self._records.get(labels, {})
        if "same" in record:
            made = self._made.get(tuple(record["same"]))
            if made is not None:
                return made
        tensor = _torch.from_numpy(value, _torch.dtype_of(dtype))
        device = self._device_of(record.get("device", "cpu"))
        if "storage" in record:
            tensor = self._view(record, device, tensor)
        elif device != tensor.device:
            tensor = tensor.to(device)
        if "parameter" in record:
            tensor = torch.nn.Parameter(tensor, requires_grad=record["parameter"])
        elif record.get("requires_grad"):
            tensor.requires_grad_()
        self._made[labels] = tensor
        return tensor

    def _view(self, record: Record, device: Any, elements: Any) -> Any:
        """A view of shared memory with these elements in it."""
        import torch

        number, size_bytes, offset = record["storage"]
        memory = self._storages.get(number)
        if memory is None:
            rounded = -(-size_bytes // _ALIGNMENT) * _ALIGNMENT
            memory = torch.empty(rounded, dtype=torch.uint8, device=device)
            self._storages[number] = memory
        view = memory.view(elements.dtype).as_strided(
            elements.shape, record["strides"], offset // elements.element_size()
        )
        return view.copy_(elements)

    def _device_of(self, location: str) -> Any:
        import torch

        wanted = self._map_location
        if isinstance(wanted, dict):
            wanted = wanted.get(location, location)
        elif callable(wanted):
            storage = wanted(torch.empty(0).untyped_storage(), location)
            wanted = location if storage is None else storage.device
        if wanted is not None:
            return torch.device(wanted)
        if location.startswith("cuda") and not torch.cuda.is_available():
            _logger.warning("there is no %s: its tensors are loaded to the CPU", location)
            return torch.device("cpu")
        return torch.device(location)


def target_leaf(leaf: _native.LeafMetadata, value: Any, kinds: Kinds) -> Any:
    """What stands in the target for a leaf; `value` is the one that its metadata has."""
    if leaf.kind == "big_int":
        return 1 << 64  # Of the same kind; an empty value would be a small one.
    if leaf.kind != "array" or leaf.dtype is None:
        return value
    kind = kinds.kind_of(leaf.labels)
    if kind == "array":
        return value
    if kind == "scalar":
        return numpy_dtype(leaf.dtype).type(0)
    return _TensorTarget(leaf.dtype, leaf.shape, kinds, leaf.labels)
