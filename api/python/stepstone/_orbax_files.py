"""Reading Orbax's checkpoints as they lie on the disk, without Orbax: trees through tensorstore.

An item that is a tree is a directory with `_METADATA`, JSON that says which leaves there are, and
its arrays, in one OCDBT database or in a directory for each. Nothing here runs what it reads.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import pathlib
import re
from typing import Any

import numpy as np

from stepstone.errors import CorruptError, InvalidLayoutError, UnsupportedError

_TREE_FILE = "_METADATA"
_STEP_FILE = "_CHECKPOINT_METADATA"
_JSON_FILE = "metadata"  # Of an item that is JSON.
_METRICS = "metrics"  # The item, and its file.
_STEP_NAME = re.compile(r"(?:.*_)?(\d+)")
_UNFINISHED = ".orbax-checkpoint-tmp"
_SEQUENCE_KEY = 1  # In `_METADATA`: a place in a list or tuple. Others are keys.
_JSON_SIZE_BYTES_MAX = 256 << 20
_DEPTH_MAX = 128


@dataclasses.dataclass
class Tree:
    """An item that is a tree, with its own metadata."""

    item: Any
    custom_metadata: Any = None


@dataclasses.dataclass
class Json:
    item: Any


@dataclasses.dataclass
class Step:
    items: dict[str, Tree | Json]
    metrics: Any = None
    custom_metadata: dict[str, Any] | None = None


def find_steps(directory: pathlib.Path) -> dict[int, pathlib.Path]:
    """The committed steps in a run's directory, ascending; empty: it is none."""
    steps: dict[int, pathlib.Path] = {}
    for child in directory.iterdir():
        match = _STEP_NAME.fullmatch(child.name)
        if match is None or not child.is_dir() or not _is_step(child):
            continue
        step = int(match[1])
        if step in steps:
            raise InvalidLayoutError(f"{child} and {steps[step]} are both step {step}")
        steps[step] = child
    return dict(sorted(steps.items()))


def is_checkpoint(directory: pathlib.Path) -> bool:
    """Whether it is one checkpoint, of one tree or of several items."""
    return directory.is_dir() and ((directory / _TREE_FILE).is_file() or _is_step(directory))


def _is_step(directory: pathlib.Path) -> bool:
    if directory.name.endswith(_UNFINISHED):
        return False
    return (directory / _STEP_FILE).is_file() or any(_item_paths(directory))


def _item_paths(directory: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        child
        for child in directory.iterdir()
        if child.is_dir() and ((child / _TREE_FILE).is_file() or (child / _JSON_FILE).is_file())
    )


def read_root_metadata(directory: pathlib.Path) -> dict[str, Any]:
    """What a run was given as `metadata`; empty: nothing."""
    for name in ("_ROOT_METADATA", "metadata"):
        file = directory / "metadata" / name
        if file.is_file():
            found = _read_json(file).get("custom_metadata")
            return found if isinstance(found, dict) else {}
    return {}


def read_step(directory: pathlib.Path) -> Step:
    """A checkpoint with all its items.

    Raises
    ------
    UnsupportedError
        An item or a leaf is of a kind that is neither a tree of arrays and values nor JSON.
    CorruptError
        What its metadata says is there is not, or not so.
    """
    if (directory / _TREE_FILE).is_file():
        return Step({"default": read_tree(directory)}, *_step_metadata(directory))
    metrics, custom_metadata = _step_metadata(directory)
    items: dict[str, Tree | Json] = {}
    for child in sorted(directory.iterdir()):
        if not child.is_dir():
            continue
        if (child / _TREE_FILE).is_file():
            items[child.name] = read_tree(child)
        elif child.name == _METRICS and (child / _METRICS).is_file():
            metrics = _read_json(child / _METRICS)
        elif (child / _JSON_FILE).is_file():
            items[child.name] = Json(_read_json(child / _JSON_FILE))
        else:
            raise UnsupportedError(
                f"{child} is an item that is neither a tree nor JSON: restore it with Orbax, and save it here"
            )
    if not items:
        raise InvalidLayoutError(f"{directory} has no items of Orbax")
    return Step(items, metrics, custom_metadata)


def _step_metadata(directory: pathlib.Path) -> tuple[Any, dict[str, Any] | None]:
    file = directory / _STEP_FILE
    if not file.is_file():
        return None, None
    metadata = _read_json(file)
    return metadata.get("metrics") or None, metadata.get("custom_metadata") or None


def _read_json(file: pathlib.Path) -> Any:
    try:
        if file.stat().st_size > _JSON_SIZE_BYTES_MAX:
            raise UnsupportedError(f"{file} is larger than {_JSON_SIZE_BYTES_MAX} bytes")
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        raise CorruptError(f"{file} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptError(f"{file} is not JSON: {error}") from None


def read_tree(directory: pathlib.Path) -> Tree:
    """An item that is a tree: dicts and lists of numpy arrays, numbers, strings and None.

    Which of its lists were tuples, and what its dicts were, Orbax does not write down.
    """
    metadata = _read_json(directory / _TREE_FILE)
    try:
        described = metadata["tree_metadata"]
        leaves = [_Leaf.parse(entry) for entry in described.values()]
        arrays = _Arrays(directory, metadata)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{directory / _TREE_FILE} does not describe a tree: {error!r}") from None
    arrays.begin(leaf for leaf in leaves if leaf.is_array)
    root = _Node()
    for leaf in leaves:
        root.add(leaf, arrays.value_of(leaf), directory)
    return Tree(root.build(), metadata.get("custom_metadata"))


_EMPTY: dict[str, Any] = {"None": None, "Dict": {}, "List": [], "Tuple": (), "NamedTuple": ()}


@dataclasses.dataclass
class _Leaf:
    keys: list[tuple[int | str, bool]]  # And whether it is a place in a sequence.
    kind: str

    @staticmethod
    def parse(entry: Any) -> _Leaf:
        keys: list[tuple[int | str, bool]] = []
        for key in entry["key_metadata"]:
            is_place = key["key_type"] == _SEQUENCE_KEY
            keys.append((int(key["key"]) if is_place else str(key["key"]), is_place))
        if not 0 < len(keys) <= _DEPTH_MAX:
            raise ValueError(f"a leaf at a depth of {len(keys)}")
        return _Leaf(keys, str(entry["value_metadata"]["value_type"]))

    @property
    def name(self) -> str:
        return ".".join(str(key) for key, _ in self.keys)

    @property
    def is_array(self) -> bool:
        return self.kind not in _EMPTY and self.kind != "string"


class _Node:
    """A dict or list while its leaves come in."""

    def __init__(self) -> None:
        self._children: dict[int | str, Any] = {}
        self._is_sequence = False

    def add(self, leaf: _Leaf, value: Any, directory: pathlib.Path) -> None:
        node = self
        for i, (key, is_place) in enumerate(leaf.keys):
            if node._children and node._is_sequence != is_place:
                raise CorruptError(f"{directory}: '{leaf.name}' stands in a list that is a dict")
            node._is_sequence = is_place
            is_last = i + 1 == len(leaf.keys)
            child = node._children.setdefault(key, value if is_last else _Node())
            if is_last != (child is value) or (not is_last and not isinstance(child, _Node)):
                raise CorruptError(f"{directory}: '{leaf.name}' is there twice")
            if not is_last:
                node = child

    def build(self) -> Any:
        children = {
            key: child.build() if isinstance(child, _Node) else child
            for key, child in self._children.items()
        }
        if not self._is_sequence:
            return children
        if sorted(children, key=int) != list(range(len(children))):
            raise CorruptError("a list lacks some of its elements")
        return [children[i] for i in range(len(children))]


class _Arrays:
    """The arrays of one item, read side by side."""

    def __init__(self, directory: pathlib.Path, metadata: Any) -> None:
        self._directory = directory
        self._is_ocdbt = bool(metadata.get("use_ocdbt", (directory / "manifest.ocdbt").is_file()))
        self._driver = "zarr3" if metadata.get("use_zarr3", False) else "zarr"
        # Otherwise a chunk that was lost would read as zeros.
        self._is_complete = bool(metadata.get("store_array_data_equal_to_fill_value", False))
        self._reads: dict[str, Any] = {}
        self._strings: Any = None
        self._random_keys = _random_keys(directory)

    def begin(self, leaves: Any) -> None:
        try:
            tensorstore = importlib.import_module("tensorstore")
        except ImportError:
            raise UnsupportedError(
                "tensorstore is not installed: Orbax's arrays are read through it (pip install tensorstore)"
            ) from None
        opened = {leaf.name: tensorstore.open(self._spec(leaf.name), read=True) for leaf in leaves}
        for name, array in opened.items():
            try:
                self._reads[name] = array.result().read()
            except ValueError as error:
                raise CorruptError(f"{self._directory}: '{name}' cannot be read: {error}") from None

    def _spec(self, name: str) -> dict[str, Any]:
        base = f"{self._directory.resolve()}/"
        store: dict[str, Any]
        if self._is_ocdbt:
            store = {"driver": "ocdbt", "base": {"driver": "file", "path": base}, "path": f"{name}/"}
        else:
            if "/" in name or name in ("", ".", ".."):
                raise CorruptError(f"{self._directory}: '{name}' cannot be the name of an array")
            store = {"driver": "file", "path": f"{base}{name}/"}
        spec: dict[str, Any] = {"driver": self._driver, "kvstore": store}
        if self._is_complete:
            spec["fill_missing_data_reads"] = False
        return spec

    def value_of(self, leaf: _Leaf) -> Any:
        if leaf.kind in _EMPTY:
            empty = _EMPTY[leaf.kind]
            return type(empty)() if empty is not None else None
        if leaf.kind == "string":
            return self._string(leaf)
        try:
            array = np.asarray(self._reads.pop(leaf.name).result())
        except ValueError as error:
            raise CorruptError(f"{self._directory}: '{leaf.name}' cannot be read: {error}") from None
        if leaf.name in self._random_keys:
            jax = importlib.import_module("jax")
            return jax.random.wrap_key_data(array, impl=self._random_keys[leaf.name])
        return array.item() if leaf.kind == "scalar" and array.shape == () else array

    def _string(self, leaf: _Leaf) -> str:
        if self._strings is None:
            self._strings = _read_json(self._directory / "_strings.json")
        try:
            return str(self._strings[leaf.name])
        except (KeyError, TypeError):
            raise CorruptError(f"{self._directory}: the string '{leaf.name}' is missing") from None


def _random_keys(directory: pathlib.Path) -> dict[str, str]:
    """By name, the leaves that are jax's typed keys, and their kind."""
    found: dict[str, str] = {}
    for file in sorted((directory / "array_metadatas").glob("process_*")):
        for entry in _read_json(file).get("array_metadatas", []):
            described = entry.get("array_metadata", {})
            kind = (described.get("ext_metadata") or {}).get("random_key_impl")
            if kind is not None:
                found[described["param_name"]] = kind
    return found


def size_bytes(step: Step) -> int:
    """Of all arrays of a step."""
    total = 0
    stack: list[Any] = [item.item for item in step.items.values() if isinstance(item, Tree)]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            stack.extend(node.values())
        elif isinstance(node, list | tuple):
            stack.extend(node)
        else:
            total += math.prod(getattr(node, "shape", ())) * getattr(
                getattr(node, "dtype", None), "itemsize", 0
            )
    return total
