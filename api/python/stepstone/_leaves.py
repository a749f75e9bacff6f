"""Leaves that the native module does not know by itself: what is stored for them, and back.

Arrays of text, of dates and of durations are custom nodes named "numpy.ndarray" with the fields
`dtype` (as numpy writes it: "<U5", "|S3", "<M8[ns]") and `data`: the characters' code points, the
bytes or the numbers, with one more axis for text and bytes.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from stepstone import _generators, _jax, _native, _torch
from stepstone._foreign import RefusedLeaf
from stepstone._nodes import special_nodes

Label = str | int
Converter = Callable[[Any], object]

_ARRAY_TYPE_NAME = "numpy.ndarray"

_dtype_names: frozenset[str] = frozenset()


def is_storable_dtype(name: str) -> bool:
    """Whether arrays of the dtype of this name can be stored as they are."""
    global _dtype_names
    if not _dtype_names:
        _dtype_names = frozenset(_native.dtype_names())
    return name in _dtype_names


def dtype_name(dtype: Any) -> str:
    """The name of a dtype of numpy, ml_dtypes, jax or torch; or the name itself.

    >>> dtype_name(np.float32), dtype_name("bfloat16"), dtype_name(int)
    ('float32', 'bfloat16', 'int64')
    """
    if isinstance(dtype, str) and is_storable_dtype(dtype):
        return dtype
    if type(dtype).__module__ == "torch":
        return str(dtype).removeprefix("torch.")
    inner = getattr(dtype, "dtype", None)  # jax.numpy.float32 has one.
    return (inner if isinstance(inner, np.dtype) else np.dtype(dtype)).name


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The dtype of this name, of numpy or of ml_dtypes."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # It makes its names known to numpy.

        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return dtype


def save_converter(cls: type) -> Converter:
    """What is stored for leaves of a class; it raises RefusedLeaf for what cannot be."""
    return (
        _jax.save_converter(cls) or _torch.save_converter(cls) or _common_converter(cls, _Save())
    )


def target_converter(cls: type) -> Converter:
    """What leaves of a class ask of a restore; it raises RefusedLeaf for what makes no sense."""
    return (
        _jax.target_converter(cls)
        or _torch.target_converter(cls)
        or _metadata_converter(cls)
        or _common_converter(cls, _Target())
    )


class _Save:
    """A leaf is replaced by its value."""

    is_target = False

    @staticmethod
    def leaf(value: object, finish: Callable[[Any], Any]) -> object:
        return value


class _Target:
    """And what is restored is made into the same kind of object."""

    is_target = True

    @staticmethod
    def leaf(value: object, finish: Callable[[Any], Any]) -> object:
        return _native.Leaf(value, finish)


_Mode = _Save | _Target


def _common_converter(cls: type, mode: _Mode) -> Converter:
    if issubclass(cls, np.ndarray):
        return partial(_ndarray, mode)
    if issubclass(cls, np.generic):
        return partial(_numpy_scalar, mode)
    if _generators.is_generator_type(cls):
        return _generators.generator_node
    if issubclass(cls, enum.Enum):
        return partial(_enum_member, mode)
    for base, plain in _PLAIN:
        if issubclass(cls, base):
            return plain
    if issubclass(cls, bytearray):
        return lambda value: mode.leaf(bytes(value), bytearray)
    if issubclass(cls, memoryview):
        return lambda value: mode.leaf(value.tobytes(), memoryview)
    if cls is type and mode.is_target:
        return _target_type
    if not issubclass(cls, type):
        if hasattr(cls, "__array__") or cls.__module__ == "array":  # array.array
            return _array_like
        if mode.is_target:
            return abstract_array
    return refuse


# Subclasses of plain values become plain.
_PLAIN: tuple[tuple[type, Converter], ...] = (
    (str, str.__str__),
    (int, int),
    (float, float),
    (complex, complex),
    (bytes, bytes),
)


def _enum_member(mode: _Mode, value: enum.Enum) -> object:
    for base, plain in _PLAIN:
        if isinstance(value, base):  # An IntEnum, a StrEnum.
            return mode.leaf(plain(value.value), type(value))
    raise RefusedLeaf(
        value, f"{value!r} is a member of an enumeration that is no IntEnum; save its value or name"
    )


# Arrays and scalars of numpy.


def _ndarray(mode: _Mode, value: np.ndarray[Any, Any]) -> object:
    """Of a subclass, or of a dtype that is not stored as it is."""
    if isinstance(value, np.ma.MaskedArray):
        raise RefusedLeaf(value, "it is a masked array; save its data and its mask")
    array = np.asarray(value)
    dtype = array.dtype
    if not dtype.isnative:
        array = array.astype(dtype.newbyteorder("="))
    if dtype.kind in "mMUS":
        return _encoded(array, lambda restored: restored.astype(dtype, copy=False))
    if not dtype.isnative:
        return mode.leaf(array, lambda restored: restored.astype(dtype))
    if not is_storable_dtype(dtype.name):
        raise RefusedLeaf(value, _why_not_stored(dtype))
    cls = type(value)
    if cls is np.ndarray or isinstance(value, np.memmap):
        return array
    return mode.leaf(array, lambda restored: restored.view(cls))


def _why_not_stored(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "O":
        return "it is an array of Python objects; save a list of them, or an array of numbers"
    if dtype.kind == "V":
        return f"it is a structured array ({dtype}); save its fields as a dict of arrays"
    if dtype.kind in "fc":
        return (
            f"the elements, {dtype.name}, differ from machine to machine; cast them to "
            f"{'float64' if dtype.kind == 'f' else 'complex128'}"
        )
    if dtype.kind == "T":
        return "its strings are of any length; cast it with .astype(str)"
    return f"arrays of {dtype.name} cannot be stored; cast it"


def _numpy_scalar(mode: _Mode, value: np.generic) -> object:
    """Of a dtype whose arrays are not stored as they are."""
    if isinstance(value, np.str_):
        return mode.leaf(str.__str__(value), np.str_)
    if isinstance(value, np.bytes_):
        return mode.leaf(bytes(value), np.bytes_)
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return _encoded(np.asarray(value), lambda restored: restored[()])
    raise RefusedLeaf(value, _why_not_stored(value.dtype))


def _encoded(array: np.ndarray[Any, Any], finish: Callable[[Any], Any]) -> _native.Node:
    dtype = array.dtype
    if dtype.kind in "mM":
        data = array.view(np.int64)
    else:
        unit = np.dtype(np.uint32 if dtype.kind == "U" else np.uint8)
        shape = (*array.shape, dtype.itemsize // unit.itemsize)
        if array.size == 0 or dtype.itemsize == 0:
            data = np.zeros(shape, unit)
        else:
            data = np.ndarray(shape, unit, buffer=array.copy(order="C"))

    def rebuild(children: list[Any]) -> Any:
        restored = _decode(children[0], children[1])
        if restored is None:
            raise ValueError(f"the checkpoint has no array of {dtype} for one in the target")
        return finish(restored)

    return _native.Node(
        "custom", _ARRAY_TYPE_NAME, "attribute", ["dtype", "data"], [dtype.str, data], rebuild
    )


def _decode(name: Any, data: Any) -> np.ndarray[Any, Any] | None:
    """The inverse of `_encoded`; None for what it cannot have made."""
    if not isinstance(name, str) or not isinstance(data, np.ndarray):
        return None
    try:
        dtype = np.dtype(name)
    except TypeError:
        return None
    if dtype.kind in "mM":
        return data.view(dtype) if data.dtype == np.int64 else None
    if dtype.kind not in "US" or data.ndim == 0:
        return None
    unit = np.dtype(np.uint32 if dtype.kind == "U" else np.uint8)
    if data.dtype != unit or data.shape[-1] * unit.itemsize != dtype.itemsize:
        return None
    shape = data.shape[:-1]
    if data.size == 0:
        return np.zeros(shape, dtype)
    return np.ndarray(shape, dtype, buffer=np.ascontiguousarray(data))


special_nodes[_ARRAY_TYPE_NAME] = lambda fields: _decode(fields.get("dtype"), fields.get("data"))


def _array_like(value: Any) -> object:
    array = np.asarray(value)
    if type(array) is not np.ndarray or array.dtype.kind == "O":
        return refuse(value)
    return array


# What is only in targets.

_EMPTY_VALUES: dict[Any, object] = {
    bool: False,
    int: 0,
    float: 0.0,
    complex: 0j,
    str: "",
    bytes: b"",
}


def _target_type(value: type) -> object:
    if value in _EMPTY_VALUES:
        return _EMPTY_VALUES[value]
    return refuse(value)


def abstract_array(value: Any) -> object:
    """Anything with a shape and a dtype stands for an array of numpy."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return refuse(value)
    try:
        return _native.AbstractArray(dtype_name(dtype), tuple(int(extent) for extent in shape))
    except TypeError:
        return refuse(value)


def is_abstract_array(value: Any) -> bool:
    """Whether it has the shape and the dtype of an array, but no elements."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if not isinstance(shape, (tuple, list)) or dtype is None or hasattr(value, "__array__"):
        return False
    try:
        return is_storable_dtype(dtype_name(dtype))
    except TypeError:
        return False


def _metadata_converter(cls: type) -> Converter | None:
    """The leaves of metadata, ours and Orbax's, which a restore takes as a target."""
    names = {base.__name__ for base in cls.__mro__}
    if "StringMetadata" in names:
        return lambda value: ""
    if "BytesMetadata" in names:
        return lambda value: b""
    if "ScalarMetadata" in names:
        return _scalar_of_metadata
    return None


def _scalar_of_metadata(value: Any) -> object:
    dtype = value.dtype
    kind = np.dtype(dtype).kind if dtype is not None else "f"
    return {"b": False, "i": 0, "u": 0, "O": 2**64, "c": 0j}.get(kind, 0.0)


# What is refused.

_ADVICE: tuple[tuple[str, str, str], ...] = (
    ("pathlib", "PurePath", "save str(path)"),
    ("datetime", "date", "save .isoformat(), or a numpy.datetime64"),
    ("datetime", "time", "save .isoformat()"),
    ("datetime", "timedelta", "save .total_seconds(), or a numpy.timedelta64"),
    ("decimal", "Decimal", "save str(number)"),
    ("fractions", "Fraction", "save str(number)"),
    ("uuid", "UUID", "save str(uuid)"),
    ("collections", "deque", "save list(queue)"),
    ("argparse", "Namespace", "save vars(namespace)"),
    ("random", "Random", "save .getstate() as lists"),
    ("numpy", "dtype", "save its name"),
)


def refuse(value: Any) -> object:
    """Raises RefusedLeaf with what to do instead."""
    cls = type(value)
    name = cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"
    for module_name, base_name, advice in _ADVICE:
        base = getattr(sys.modules.get(module_name), base_name, None)
        if base is not None and isinstance(value, base):
            raise RefusedLeaf(value, f"a value of type {name} cannot be stored; {advice}")
    if isinstance(value, (set, frozenset)):
        advice = "save sorted(values)"
    elif isinstance(value, type):
        name = f"{cls.__name__} ({value.__qualname__})"
        advice = "save its name"
    elif callable(value):
        advice = "leave code out of the state, or make it a static field of its container"
    elif hasattr(value, "state_dict"):
        advice = "save its state_dict()"
    else:
        advice = (
            "save dicts, lists, tuples, dataclasses, or pytrees that are registered with jax, of"
            " arrays and plain values; or write a CheckpointHandler for it"
        )
    raise RefusedLeaf(value, f"a value of type {name} cannot be stored; {advice}")
