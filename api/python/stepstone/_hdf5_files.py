"""HDF5 files, such as Keras's weights, as trees: groups are dicts, data sets arrays."""

from __future__ import annotations

import importlib
import os
import pathlib
from typing import Any, BinaryIO

import numpy as np

from stepstone._deletion import sync_directory
from stepstone.errors import InvalidLayoutError, UnsupportedError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_DEPTH_MAX = 128
_KINDS = "biufc"  # numpy's kinds of numbers.
# What data sets may take together: what deflate can have made of the file's bytes, and some.
_EXPANSION_MAX = 1032
_EXPANSION_SLACK_BYTES = 1 << 20


def is_hdf5(file: pathlib.Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(len(_SIGNATURE)) == _SIGNATURE


def _h5py() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError:
        raise UnsupportedError(
            "h5py is not installed: HDF5 files are read and written through it (pip install h5py)"
        ) from None


def read(
    file: pathlib.Path, opened_file: BinaryIO | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tree, and the attributes of all groups that JSON can hold, by the group's path.

    Reads `opened_file`, if it is given, and `file` is what errors name. Links to other files are
    refused, as what a stranger's file names is not to be opened; so are data sets that take more
    together than the file can hold, compressed, as those of which nothing was ever written.
    """
    h5py = _h5py()
    attributes: dict[str, Any] = {}
    size_bytes = 0

    def read_data_set(data: Any, place: str) -> Any:
        nonlocal size_bytes
        size_bytes += data.nbytes if data.shape is not None else 0
        file_size_bytes = data.file.id.get_filesize()
        if size_bytes > file_size_bytes * _EXPANSION_MAX + _EXPANSION_SLACK_BYTES:
            raise InvalidLayoutError(
                f"{place}: with it, all data sets together take {size_bytes} bytes, more than a "
                f"file of {file_size_bytes} can hold"
            )
        return _read_data_set(h5py, data, place)

    def read_group(group: Any, path: str, above: list[Any]) -> dict[str, Any]:
        if len(above) > _DEPTH_MAX or group.id in above:
            raise InvalidLayoutError(f"{file}: '{path}' is nested too deeply, or in itself")
        found = {name: _attribute(value) for name, value in group.attrs.items()}
        if found := {name: value for name, value in found.items() if value is not None}:
            attributes[path or "/"] = found
        tree: dict[str, Any] = {}
        for name in group:
            place = f"{path}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise UnsupportedError(f"{file}: '{place}' is a link")
            child = group[name]
            if isinstance(child, h5py.Group):
                tree[name] = read_group(child, place, [*above, group.id])
            elif isinstance(child, h5py.Dataset):
                tree[name] = read_data_set(child, f"{file}: '{place}'")
            else:
                raise UnsupportedError(f"{file}: '{place}' is neither a group nor a data set")
        return tree

    try:
        with h5py.File(opened_file or file, "r") as opened:
            return read_group(opened["/"], "", []), attributes
    except (OSError, RuntimeError) as error:
        raise InvalidLayoutError(f"{file} is not a sound HDF5 file: {error}") from None


def _read_data_set(h5py: Any, data: Any, place: str) -> Any:
    if data.external:
        raise UnsupportedError(f"{place} has its data in another file")
    if data.is_virtual:
        raise UnsupportedError(f"{place} is a view of other data sets")
    if h5py.check_string_dtype(data.dtype) is not None and data.shape == ():
        return data.asstr()[()]
    if data.dtype.kind not in _KINDS or data.shape is None:
        raise UnsupportedError(f"{place} is of dtype {data.dtype}, which is not one of numbers")
    return np.asarray(data[()])


def _attribute(value: Any) -> Any:
    """As JSON has it; None: it cannot."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray | np.generic):
        return _attribute(value.tolist())
    if isinstance(value, list):
        return [_attribute(element) for element in value]
    return value if isinstance(value, str | bool | int | float) else None


def write(file: pathlib.Path, tree: Any) -> None:
    """Writes a tree of dicts, lists and tuples, whose places become names, in one durable rename.

    Raises
    ------
    UnsupportedError
        HDF5, or h5py, has no place for a leaf; nothing was written.
    """
    h5py = _h5py()
    partial = file.with_name(f"{file.name}.partial-{os.getpid()}")

    def write_group(group: Any, node: Any, path: str) -> None:
        entries = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in entries:
            name, place = str(key), f"{path}/{key}"
            if not name or "/" in name or name == "." or "\0" in name or name in group:
                raise UnsupportedError(f"'{place}' cannot be a name in an HDF5 file")
            if isinstance(child, dict | list | tuple):
                write_group(group.create_group(name), child, place)
            elif isinstance(child, str):
                group[name] = child
            else:
                array = np.asarray(child)
                if array.dtype.kind not in _KINDS:
                    raise UnsupportedError(f"'{place}' is of dtype {array.dtype}, which HDF5 lacks")
                group.create_dataset(name, data=array)

    if not isinstance(tree, dict | list | tuple):
        raise UnsupportedError("an HDF5 file holds a tree, not a single leaf")
    try:
        with h5py.File(partial, "w", track_order=True) as opened:
            write_group(opened, tree, "")
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.rename(file)
        sync_directory(os.fspath(file.parent))
    finally:
        partial.unlink(missing_ok=True)
