"""Random trees for the tests, and a comparison that is satisfied by nothing less than the same bits."""

from __future__ import annotations

import dataclasses
import math
import struct
from typing import Any, NamedTuple

import hypothesis.strategies as st
import numpy as np

try:
    import ml_dtypes
except ImportError:  # Then its dtypes are not tested.
    ml_dtypes = None  # type: ignore[assignment]


class Pair(NamedTuple):
    first: Any
    second: Any


class Empty(NamedTuple):
    """As optax has them: a state without anything in it."""


@dataclasses.dataclass
class Record:
    name: Any
    values: Any


NUMPY_DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
]
ML_DTYPES = [] if ml_dtypes is None else [
    "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn", "int2",
    "int4", "uint2", "uint4",
]
# How many bits of its byte an element of these takes; the others mean nothing.
NARROW = {"float4_e2m1fn": 4, "int4": 4, "uint4": 4, "int2": 2, "uint2": 2}

# Names that a store of files, or one that joins names, gets wrong.
HARD_NAMES = [
    "", ".", "..", "/", "a", "b", "a.b", "a/b", "/a", "a/", "0", "1", "-1", "[0]", "{0}", "*", "?",
    "\\", "\0", "\n", " ", "'", '"', "ü", "\u200d", "💾", "default", "__class__", "_METADATA",
    "commit_success.txt", "x.orbax-checkpoint-tmp", "a" * 300,
]


def dtype_of(name: str) -> np.dtype[Any]:
    if name in NUMPY_DTYPES:
        return np.dtype(name)
    return np.dtype(getattr(ml_dtypes, name))


def elements(name: str, count: int, random_bytes: bytes) -> np.ndarray[Any, Any]:
    """`count` elements of any bit pattern that the dtype has: infinities and every not-a-number too."""
    dtype = dtype_of(name)
    raw = np.frombuffer(random_bytes, np.uint8)[: count * dtype.itemsize]
    if name == "bool":
        return (raw & 1).astype(bool)
    if name in ("int2", "int4"):
        low = (raw & (2 ** NARROW[name] - 1)).astype(np.int8)
        return (low - np.int8(2 ** (NARROW[name] - 1))).astype(dtype)
    if name in NARROW:
        return (raw & (2 ** NARROW[name] - 1)).view(dtype)
    return raw.copy().view(dtype)


def laid_out(array: np.ndarray[Any, Any], layout: str) -> np.ndarray[Any, Any]:
    """The same values at other places in memory."""
    if layout == "fortran":
        return np.asfortranarray(array)
    if layout == "backwards" and array.ndim:
        return np.ascontiguousarray(array[::-1])[::-1]
    if layout == "spread" and array.ndim:
        spread = np.zeros((*array.shape[:-1], array.shape[-1] * 2), array.dtype)
        spread[..., ::2] = array
        return spread[..., ::2]
    if layout == "read-only":
        array = array.copy()
        array.flags.writeable = False
    return array


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    name = draw(st.sampled_from(NUMPY_DTYPES + ML_DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    count = math.prod(shape)
    size = count * dtype_of(name).itemsize
    random_bytes = draw(st.binary(min_size=size, max_size=size))
    array = elements(name, count, random_bytes).reshape(shape)
    return laid_out(array, draw(st.sampled_from(["c", "fortran", "backwards", "spread", "read-only"])))


@st.composite
def numpy_scalars(draw: st.DrawFn) -> np.generic:
    name = draw(st.sampled_from(NUMPY_DTYPES + ML_DTYPES))
    size = dtype_of(name).itemsize
    scalar: np.generic = elements(name, 1, draw(st.binary(min_size=size, max_size=size)))[0]
    return scalar


NAMES = st.sampled_from(HARD_NAMES) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=8
)
KEYS = NAMES | st.integers(-(2**63), 2**63 - 1)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**300), 2**300), st.floats(),
    st.complex_numbers(), st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.binary(max_size=20),
)
LEAVES = arrays() | SCALARS | numpy_scalars()


def containers(children: st.SearchStrategy[Any], with_types: bool) -> st.SearchStrategy[Any]:
    plain = st.one_of(
        st.dictionaries(KEYS, children, max_size=4),
        st.lists(children, max_size=3),
        st.lists(children, max_size=3).map(tuple),
    )
    if not with_types:
        return plain
    return st.one_of(
        plain,
        st.builds(Pair, children, children),
        st.builds(Empty),
        st.builds(Record, children, children),
    )


def trees(with_types: bool = False, max_leaves: int = 10) -> st.SearchStrategy[Any]:
    """Dicts, lists and tuples of leaves; `with_types`: named tuples and dataclasses too."""
    root = st.dictionaries(KEYS, LEAVES, max_size=4)
    return root | st.recursive(
        LEAVES, lambda children: containers(children, with_types), max_leaves=max_leaves
    )


def is_leaf(value: object) -> bool:
    return not isinstance(value, (dict, list, tuple, Record))


def children_of(value: Any) -> list[tuple[Any, Any]]:
    """The children of a container with their labels."""
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, Record):
        return [("name", value.name), ("values", value.values)]
    return list(enumerate(value))


def rebuilt(value: Any, children: list[Any]) -> Any:
    """A container like `value` with other children."""
    if isinstance(value, dict):
        return dict(zip(value, children, strict=True))
    if isinstance(value, (Record, Pair, Empty)):
        return type(value)(*children)
    return type(value)(children)


def map_leaves(function: Any, value: Any) -> Any:
    if is_leaf(value):
        return function(value)
    return rebuilt(value, [map_leaves(function, child) for _, child in children_of(value)])


def bits_of(array: np.ndarray[Any, Any] | np.generic) -> bytes:
    raw = array.tobytes()
    if array.dtype.name not in NARROW:
        return raw
    return (np.frombuffer(raw, np.uint8) & (2 ** NARROW[array.dtype.name] - 1)).tobytes()


def assert_same(found: Any, expected: Any, path: str = "root") -> None:
    """The same types, shapes and bits, all the way down."""
    assert type(found) is type(expected), f"{path}: {type(found)} for {type(expected)}"
    if isinstance(expected, dict):
        assert set(found) == set(expected), path
        for key, value in expected.items():
            assert type(next(each for each in found if each == key)) is type(key), path
            assert_same(found[key], value, f"{path}/{key!r}")
    elif not is_leaf(expected):
        ours, theirs = children_of(found), children_of(expected)
        assert len(ours) == len(theirs), path
        for (label, ours_child), (_, theirs_child) in zip(ours, theirs, strict=True):
            assert_same(ours_child, theirs_child, f"{path}/{label}")
    elif isinstance(expected, (np.ndarray, np.generic)):
        assert found.dtype == expected.dtype, f"{path}: {found.dtype} for {expected.dtype}"
        assert found.shape == expected.shape, f"{path}: {found.shape} for {expected.shape}"
        assert bits_of(found) == bits_of(expected), f"{path}: {found} for {expected}"
    elif isinstance(expected, float):
        assert struct.pack("<d", found) == struct.pack("<d", expected), path
    elif isinstance(expected, complex):
        pack = struct.Struct("<dd").pack
        assert pack(found.real, found.imag) == pack(expected.real, expected.imag), path
    else:
        assert found == expected, f"{path}: {found!r} for {expected!r}"
