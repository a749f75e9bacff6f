"""Tensors, generators and modules of torch; torch is never imported because of a save."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from stepstone import _native
from stepstone._foreign import PACKED_DTYPES, RefusedLeaf, stand_in
from stepstone._nodes import special_nodes

Label = str | int
Converter = Callable[[Any], object]

_GENERATOR_TYPE_NAME = "torch.Generator"


def torch_module() -> Any:
    """The module torch if it is imported, else None."""
    torch = sys.modules.get("torch")
    # While it is being imported it has no tensors yet.
    return torch if hasattr(torch, "Generator") and hasattr(torch, "nn") else None


def save_converter(cls: type) -> Converter | None:
    """How leaves of a class are saved; None: it is none of torch."""
    torch = torch_module()
    if torch is None:
        return None
    if issubclass(cls, torch.Tensor):
        return _save_tensor
    if issubclass(cls, torch.Generator):
        return _generator_node
    return _refuse_kind if issubclass(cls, _refused_types(torch)) else None


def target_converter(cls: type) -> Converter | None:
    """What leaves of a class ask of a restore; None: it is none of torch."""
    torch = torch_module()
    if torch is None:
        return None
    if issubclass(cls, torch.Tensor):
        return _target_tensor
    if issubclass(cls, torch.Generator):
        return _generator_node
    return _refuse_kind if issubclass(cls, _refused_types(torch)) else None


def _refused_types(torch: Any) -> tuple[type, ...]:
    return (torch.nn.Module, torch.optim.Optimizer, torch.device, torch.dtype)


def _refuse_kind(value: Any) -> object:
    torch = torch_module()
    advice = "save its state_dict()"
    if isinstance(value, (torch.device, torch.dtype)):
        advice = "save str() of it"
    raise RefusedLeaf(value, f"torch's {type(value).__name__} is no state; {advice}")


# Tensors.


def dtype_name(tensor: Any) -> str:
    """The name of a tensor's dtype, which is that of numpy or ml_dtypes."""
    return str(tensor.dtype).removeprefix("torch.")


def check_tensor(tensor: Any) -> None:
    """Raises RefusedLeaf for a tensor that cannot be stored."""
    torch = torch_module()
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        raise RefusedLeaf(
            tensor,
            f"a {type(tensor).__name__} is no plain tensor; save what it is made of (a distributed"
            " one: .full_tensor())",
        )
    if tensor.layout is not torch.strided:
        raise RefusedLeaf(
            tensor,
            f"the tensor is sparse ({tensor.layout}); save its indices and values, or .to_dense()",
        )
    if tensor.is_quantized:
        raise RefusedLeaf(
            tensor,
            "the tensor is quantized; save .int_repr() with its scale and zero point, or"
            " .dequantize()",
        )
    if dtype_name(tensor) not in _dtype_names():
        raise RefusedLeaf(
            tensor,
            f"tensors of {tensor.dtype} cannot be stored; cast it, or save .view(torch.uint8)",
        )


_known_dtype_names: frozenset[str] = frozenset()


def _dtype_names() -> frozenset[str]:
    global _known_dtype_names
    if not _known_dtype_names:
        _known_dtype_names = frozenset(_native.dtype_names())
    return _known_dtype_names


def _save_tensor(tensor: Any) -> object:
    check_tensor(tensor)
    if tensor.is_meta:
        raise RefusedLeaf(tensor, "a tensor on the device 'meta' has no elements to save")
    host = tensor.detach()
    is_copy = host.device.type != "cpu"
    if is_copy:
        host = host.cpu()
    if host.is_conj() or host.is_neg():
        # A view that conjugates or negates when it is read.
        host = host.resolve_conj().resolve_neg()
        is_copy = True
    return _array_of(host, is_immutable=is_copy)


def _array_of(tensor: Any, is_immutable: bool) -> _native.Array:
    item_size = tensor.element_size()
    strides = None
    if not tensor.is_contiguous():
        strides = [stride * item_size for stride in tensor.stride()]
    return _native.Array(
        dtype_name(tensor), tensor.shape, tensor.data_ptr(), strides, tensor, is_immutable
    )


def _target_tensor(tensor: Any) -> object:
    check_tensor(tensor)
    finish = partial(_like_tensor, tensor)
    dtype, shape = dtype_name(tensor), tensor.shape
    if tensor.is_meta:
        return _native.Leaf(_native.AbstractArray(dtype, shape), finish)
    return _native.Leaf(stand_in(dtype, shape), finish)


def _like_tensor(target: Any, value: np.ndarray[Any, Any]) -> Any:
    """A tensor of the target's kind: its device, layout in memory, and if it has a gradient."""
    torch = torch_module()
    tensor = from_numpy(value, target.dtype)
    with torch.no_grad():
        if not target.is_meta:
            tensor = tensor.to(target.device)
        # Strides say something only where the shape is the target's: arrays may have been padded.
        if tensor.shape == target.shape and tensor.stride() != target.stride():
            tensor = torch.empty_like(target.detach(), device=tensor.device).copy_(tensor)
    if isinstance(target, torch.nn.Parameter):
        return torch.nn.Parameter(tensor, requires_grad=target.requires_grad)
    return tensor.requires_grad_() if target.requires_grad else tensor


def from_numpy(array: np.ndarray[Any, Any], dtype: Any = None) -> Any:
    """A tensor that takes over the memory of an array, if that is not read-only.

    Parameters
    ----------
    array : numpy.ndarray
        Of a dtype that torch has.
    dtype : torch.dtype, optional
        That of the elements; where it is missing, the one of the array's dtype's name.

    Raises
    ------
    ValueError
        torch has no such dtype.
    """
    torch = torch_module()
    if not array.flags.writeable:
        array = array.copy()  # A tensor would be written to.
    if dtype is None:
        dtype = dtype_of(array.dtype.name)
    if array.size == 0:
        return torch.empty(array.shape, dtype=dtype)  # With torch's strides.
    if array.dtype.isbuiltin == 1:
        tensor = torch.from_numpy(array)
        return tensor if tensor.dtype == dtype else tensor.view(dtype)
    # numpy knows such elements through ml_dtypes, of which torch knows nothing.
    carrier = np.uint8 if array.dtype.itemsize == 1 else np.int16
    return torch.from_numpy(array.view(carrier)).view(dtype)


def dtype_of(name: str) -> Any:
    """torch's dtype of this name; ValueError if it has none."""
    dtype = getattr(torch_module(), name, None)
    # It has names for some of the narrow ones, but no tensors of them.
    if name in PACKED_DTYPES or not isinstance(dtype, torch_module().dtype):
        raise ValueError(f"torch has no tensors of {name}; load them with stepstone.load")
    return dtype


# Generators of random numbers.


def _generator_node(generator: Any) -> _native.Node:
    device = str(generator.device)

    def rebuild(children: list[Any]) -> Any:
        return _generator(device, children[1])

    return _native.Node(
        "custom",
        _GENERATOR_TYPE_NAME,
        "attribute",
        ["device", "state"],
        [device, generator.get_state().numpy()],
        rebuild,
    )


def _generator(device: str, state: np.ndarray[Any, Any]) -> Any:
    import torch

    generator = torch.Generator(device)
    generator.set_state(torch.from_numpy(state))
    return generator


def _generator_as_saved(fields: dict[Label, Any]) -> Any:
    device, state = fields.get("device"), fields.get("state")
    if not isinstance(device, str) or not isinstance(state, np.ndarray):
        return None
    try:
        return _generator(device, state)
    except (ImportError, RuntimeError, TypeError):
        return None  # No torch, no such device, or no state of a generator.


special_nodes[_GENERATOR_TYPE_NAME] = _generator_as_saved
