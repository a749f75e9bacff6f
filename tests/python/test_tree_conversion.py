"""Python's containers and leaves: what is saved comes back, and what cannot be saved is named."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import pathlib
import time
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from stepstone import _native
from stepstone._tree import (
    CustomNode,
    flatten_with_paths,
    from_native,
    leaf_label_paths,
    map_structure,
    to_native,
)

Restore = Callable[..., Any]


@pytest.fixture
def stored(tmp_path: pathlib.Path) -> Callable[[Any], Restore]:
    """Saves a tree; what it returns restores it, into a target or as it was saved."""

    def save(value: Any) -> Restore:
        path = str(tmp_path / str(len(list(tmp_path.iterdir()))))
        tree = to_native(value)
        items: Any = [("default", "tree", lambda: (tree, [], None))]
        _native.save_checkpoint(path, items, is_single=True)
        step, _ = _native.open_checkpoint(path)

        def restore(*target: Any, **options: Any) -> Any:
            if not target:
                return from_native(step.restore("default").tree)
            like = to_native(target[0], target=True)
            restored = step.restore("default", _native.RestoreOptions(target=like, **options))
            return from_native(restored.tree, like)

        return restore

    return save


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Layer:
    weight: Any
    name: str = "layer"


@dataclasses.dataclass(frozen=True)
class Frozen:
    value: Any
    derived: Any = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        raise AssertionError("no constructor is run by a restore")


@dataclasses.dataclass
class Slotted:
    __slots__ = ("a", "b")
    a: Any
    b: Any


class Names(list):  # type: ignore[type-arg]
    pass


class Level(enum.IntEnum):
    LOW = 1


class Colour(str, enum.Enum):
    RED = "red"


class Mode(enum.Enum):
    FAST = 1


def frozen(value: Any) -> Frozen:
    made = object.__new__(Frozen)
    object.__setattr__(made, "value", value)
    object.__setattr__(made, "derived", 2)
    return made


# Containers.


@pytest.mark.parametrize(
    "value",
    [
        Point(1, [2.5]),
        Layer({"a": 1}),
        frozen("x"),
        Slotted(1, (2,)),
        {"deep": (Point(Layer(1), None), [])},
        {1: "one", "1": "text", -5: None},
        (),
        {},
        [],
    ],
    ids=repr,
)
def test_containers_come_back_as_saved_and_in_a_target(value: Any, stored: Any) -> None:
    restore = stored(value)
    for restored in (restore(), restore(value)):
        assert restored == value
        assert type(restored) is type(value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (collections.OrderedDict([("b", 1), ("a", 2)]), {"b": 1, "a": 2}),
        (collections.defaultdict(list, {"a": [1]}), {"a": [1]}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.UserDict({"a": 1}), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (Names([1, 2]), [1, 2]),
        (time.gmtime(0), tuple(time.gmtime(0))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_containers_are_plain_as_saved_and_of_their_type_in_a_target(
    value: Any, plain: Any, stored: Any
) -> None:
    restore = stored(value)
    as_saved = restore()
    assert as_saved == plain and type(as_saved) is type(plain)
    assert list(as_saved) == list(plain)  # In the same order.
    in_target = restore(value)
    assert in_target == value and type(in_target) is type(value)


def test_what_is_not_among_the_items_comes_from_the_target(stored: Any) -> None:
    names = Names([1])
    names.owner = "me"  # type: ignore[attr-defined]
    counts: Any = collections.defaultdict(list, {"a": 1})
    ordered: Any = collections.OrderedDict(a=1)
    ordered.version = 7
    restored = stored([names, counts, ordered])([names, counts, ordered])
    assert restored[0].owner == "me"
    assert restored[1].default_factory is list
    assert restored[2].version == 7


def test_a_class_that_is_gone_becomes_a_node_with_its_fields(stored: Any) -> None:
    gone = dataclasses.make_dataclass("Gone", ["step", "params"])
    tuple_gone = collections.namedtuple("tuple_gone", ["a", "b"])
    restore = stored({"state": gone(3, {"w": 1}), "pair": tuple_gone(1, 2)})
    restored = restore()
    node, pair = restored["state"], restored["pair"]
    assert isinstance(node, CustomNode)
    assert node.step == node["step"] == 3
    assert list(node) == ["step", "params"] and len(node) == 2 and "step" in node
    assert dict(node.items()) == {"step": 3, "params": {"w": 1}}
    assert "Gone" in repr(node) and "step=3" in repr(node)
    assert pair._fields == ("a", "b") and pair == (1, 2) and type(pair).__name__ == "tuple_gone"
    with pytest.raises(AttributeError, match="was saved without 'loss'"):
        node.loss  # noqa: B018
    with pytest.raises(KeyError, match="loss"):
        node["loss"]
    with pytest.raises(AttributeError):
        node.step = 4
    # It is saved again as what it was.
    again = stored(restored)
    assert again(restore()).keys() == restored.keys()
    target = {"state": gone(0, {"w": 0}), "pair": tuple_gone(0, 0)}
    assert again(target)["state"] == gone(3, {"w": 1})


def test_a_class_with_other_fields_is_not_made(stored: Any, monkeypatch: Any) -> None:
    restore = stored([Layer(1), Point(1, 2)])
    other = dataclasses.make_dataclass("Layer", ["weight", "bias"])
    monkeypatch.setitem(globals(), "Layer", other)
    monkeypatch.setitem(globals(), "Point", collections.namedtuple("Point", ["x", "z"]))
    layer, point = restore()
    assert isinstance(layer, CustomNode) and layer.weight == 1
    assert point._fields == ("x", "y")


def test_nothing_is_imported_or_looked_up_by_a_recorded_name(stored: Any, monkeypatch: Any) -> None:
    asked = []
    module = types.ModuleType("asked_module")
    module.__getattr__ = asked.append  # type: ignore[method-assign]
    monkeypatch.setitem(__import__("sys").modules, "asked_module", module)
    for name in ("asked_module.Thing", "this_module.is_not.Imported", "os.system", "builtins.exec"):
        node = stored(CustomNode(name, "attribute", ["a"], [1]))()
        assert isinstance(node, CustomNode) and node.type_name == name
    assert not asked


@pytest.mark.parametrize(
    "key", [1.5, (1, 2), None, True, b"k", 2**63], ids=lambda key: type(key).__name__
)
def test_other_keys_are_refused_by_their_place(key: Any) -> None:
    with pytest.raises(ValueError, match="leaf 'outer'.*key"):
        to_native({"outer": {key: 1}})


# Leaves.


@pytest.mark.parametrize(
    "value",
    [
        np.array(["2020-01-01", "NaT"], "M8[ns]"),
        np.array(["2020", "2021"], "M8[25Y]"),
        np.timedelta64(3, "s"),
        np.datetime64("2020-02-02T02:02"),
        np.array([["ab", "c"], ["", "größer💾"]]),
        np.array([b"x", b"yyy"]),
        np.array("one"),
        np.zeros((0, 3), "U4"),
        np.zeros((2, 0), "S3"),
        np.array(["a", "b", "c"])[::-1],
        np.str_("hé"),
        np.bytes_(b"x"),
        np.bool_(True),
        np.float16(1.5),
        np.array(3.0),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(5)[::-1],
        np.arange(3, dtype=">i4"),
        np.array(["ab"], dtype=">U2"),
        np.zeros((0, 2), np.float32),
        np.broadcast_to(np.float32(7), (3, 2)),
    ],
    ids=lambda value: f"{value.dtype}-{value.shape}",
)
def test_values_of_numpy_come_back_equal(value: Any, stored: Any) -> None:
    restore = stored({"v": value})
    as_saved = np.asarray(restore()["v"])
    in_target = restore({"v": value})["v"]
    assert type(in_target) is type(value) and in_target.dtype == value.dtype
    for restored in (as_saved, np.asarray(in_target)):
        assert restored.shape == value.shape
        assert restored.dtype.newbyteorder("=") == value.dtype.newbyteorder("=")
        assert restored.tobytes() == value.astype(restored.dtype).tobytes(order="C")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Level.LOW, 1),
        (Colour.RED, "red"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (np.str_("x"), "x"),
    ],
    ids=repr,
)
def test_relatives_of_plain_values_are_plain_as_saved(value: Any, plain: Any, stored: Any) -> None:
    restore = stored([value])
    as_saved, in_target = restore()[0], restore([value])[0]
    assert as_saved == plain and type(as_saved) is type(plain)
    assert in_target == value and type(in_target) is type(value)


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_subclasses_of_arrays_and_objects_with_arrays_are_arrays(
    stored: Any, tmp_path: pathlib.Path
) -> None:
    class Wrapped:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.arange(3)

    mapped = np.memmap(tmp_path / "mapped", np.float32, "w+", shape=(2,))
    value = [Wrapped(), np.asmatrix(np.eye(2)), mapped, array.array("d", [1, 2])]
    restore = stored(value)
    assert [item.tolist() for item in restore()] == [[0, 1, 2], [[1, 0], [0, 1]], [0, 0], [1, 2]]
    in_target = restore(value)
    assert type(in_target[1]) is np.matrix
    assert type(in_target[2]) is np.ndarray


@pytest.mark.parametrize(
    "generator",
    [
        np.random.default_rng(1),
        np.random.Generator(np.random.Philox(2)),
        np.random.Generator(np.random.SFC64(3)),
        np.random.Generator(np.random.MT19937(4)),
        np.random.RandomState(5),
    ],
    ids=repr,
)
def test_generators_of_numpy_go_on_with_the_same_numbers(generator: Any, stored: Any) -> None:
    draw = "normal"
    getattr(generator, draw)(size=3)
    restore = stored({"rng": generator})
    expected = getattr(generator, draw)(size=5)
    for restored in (restore()["rng"], restore({"rng": generator})["rng"]):
        assert type(restored) is type(generator)
        assert getattr(restored, draw)(size=5).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (pathlib.Path("/x"), "str"),
        (Mode.FAST, "value or name"),
        ({1, 2}, "sorted"),
        (len, "code"),
        (int, "its name"),
        (datetime.date(2020, 1, 1), "isoformat"),
        (decimal.Decimal(1), "str"),
        (collections.deque(), "list"),
        (object(), "CheckpointHandler"),
        (np.array([None]), "Python objects"),
        (np.zeros(2, [("a", "i4")]), "fields"),
        (np.longdouble(1), "float64"),
        (np.zeros(2, np.clongdouble), "complex128"),
        (np.ma.array([1]), "mask"),
        (np.array(["a"], np.dtypes.StringDType()), "astype"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_stored_is_refused_by_its_path_with_advice(value: Any, advice: str) -> None:
    with pytest.raises(ValueError, match=advice) as refused:
        to_native({"a": [0, {"b.c": value}]})
    assert "'a[1]/b.c'" in str(refused.value)


# Targets.


class Described:
    shape = (2,)
    dtype = np.dtype(np.float32)


def test_anything_with_shape_and_dtype_stands_for_an_array(stored: Any) -> None:
    restore = stored({"w": np.arange(2.0)})
    restored = restore({"w": Described()})["w"]
    assert restored.dtype == np.float32 and restored.tolist() == [0, 1]
    with pytest.raises(ValueError, match="leaf 'w'"):
        to_native({"w": Described()})


def test_types_stand_for_values(stored: Any) -> None:
    value = {"b": True, "i": 7, "f": 0.5, "c": 1j, "s": "x", "y": b"z"}
    target = {"b": bool, "i": int, "f": float, "c": complex, "s": str, "y": bytes}
    assert stored(value)(target) == value


def test_leaves_that_are_not_asked_for_are_not_read(stored: Any) -> None:
    assert stored({"a": 1, "b": np.ones(2)})({"a": 1, "b": ...}) == {"a": 1, "b": ...}


def test_leaves_that_are_kept_are_the_targets_own(stored: Any) -> None:
    own = np.arange(3)
    target = {"a": 0, "new": own, "text": np.array(["x"]), "number": np.float32(2)}
    restored = stored({"a": 5})(target, keep_missing=True)
    assert restored["a"] == 5 and restored["new"] is own
    assert restored["text"] == np.array(["x"])
    assert restored["number"] == 2 and type(restored["number"]) is np.float32


# Walks.


def test_paths_are_in_the_order_in_which_leaves_are_stored() -> None:
    tree = {"b": Point(1, [2]), "a": None, "empty": {}, 3: Layer((4,))}
    expected = [
        (("b", "x"), 1), (("b", "y", 0), 2), (("a",), None), ((3, "weight", 0), 4),
        ((3, "name"), "layer"),
    ]
    assert flatten_with_paths(tree) == expected
    assert leaf_label_paths(tree) == [path for path, _ in expected]
    assert to_native(tree).leaf_paths() == ["b/.x", "b/.y[0]", "a", "{3}/.weight[0]", "{3}/.name"]


def test_descriptions_of_leaves_are_no_trees() -> None:
    @dataclasses.dataclass
    class SaveArgs:
        dtype: Any = None

    @dataclasses.dataclass
    class Abstract:
        shape: tuple[int, ...]
        dtype: Any

    leaves = [SaveArgs(), Abstract((2,), np.float32), Abstract((2,), "bfloat16"), Described()]
    assert [leaf for _, leaf in flatten_with_paths(leaves)] == leaves


def test_structures_are_mapped_together() -> None:
    tree = {"a": Point(1, 2), "b": [3]}
    other = {"b": [30], "a": Point(10, {"whole": 20})}
    mapped = map_structure(lambda leaf, more: (leaf, more), tree, other)
    assert mapped == {"a": Point((1, 10), (2, {"whole": 20})), "b": [(3, 30)]}
    assert list(mapped) == ["a", "b"]
    with pytest.raises(ValueError, match="differ"):
        map_structure(lambda leaf, more: leaf, tree, {"a": 1, "b": [1]})
    assert map_structure(lambda leaf: leaf, tree, is_leaf=lambda v: isinstance(v, Point)) == tree


def test_a_hook_is_asked_once_for_an_array_that_it_has_made() -> None:
    memory = np.arange(3.0)
    asked: list[object] = []

    class Tensor:
        """Something of another library."""

    def array() -> _native.Array:
        return _native.Array("float64", (3,), memory.ctypes.data, None, memory, False)

    for value in (array(), _native.AbstractArray("float64", (3,))):

        def hook(asked_for: object, value: Any = value) -> object:
            asked.append(asked_for)
            return _native.Leaf(value, lambda restored: restored)

        asked.clear()
        tree = _native.Tree.from_python({"w": Tensor()}, hook)
        assert tree.leaf_paths() == ["w"] and [type(each) for each in asked] == [Tensor]
