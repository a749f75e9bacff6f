"""Options for single leaves, and leaves of types that only their users know.

`SaveArgs` and `RestoreArgs` stand in trees of the structure of what is saved or restored. A
`TypeHandler`, once registered, stores leaves of a type of yours in files, which become part of the
checkpoint. Arrays, numbers, strings and bytes are stored by the package itself.
"""

from __future__ import annotations

import abc
import dataclasses
import logging
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stepstone import _native
from stepstone._files import as_path, run_coroutine, scratch_directory, wait_for
from stepstone._leaf_options import (
    ArrayRestoreArgs,
    RestoreArgs,
    SaveArgs,
    SingleReplicaArrayRestoreArgs,
)
from stepstone._nodes import special_nodes
from stepstone.errors import AlreadyRegisteredTypeError, InvalidArgumentError
from stepstone.errors import InvalidShardingError, UnregisteredTypeError

if TYPE_CHECKING:
    from types import EllipsisType

__all__ = [
    "PLACEHOLDER",
    "ArrayHandler",
    "ArrayRestoreArgs",
    "InvalidShardingError",
    "NumpyHandler",
    "ParamInfo",
    "RestoreArgs",
    "SaveArgs",
    "ScalarHandler",
    "SingleReplicaArrayHandler",
    "SingleReplicaArrayRestoreArgs",
    "StringHandler",
    "TypeHandler",
    "TypeHandlerRegistry",
    "check_input_arguments",
    "create_type_handler_registry",
    "get_type_handler",
    "has_type_handler",
    "is_supported_empty_value",
    "is_supported_type",
    "register_standard_handlers_with_options",
    "register_type_handler",
    "supported_types",
]

_logger = logging.getLogger("stepstone")

# In a target: a leaf that is not read, and comes back as this.
PLACEHOLDER: EllipsisType = ...


@dataclasses.dataclass(kw_only=True)
class ParamInfo:
    """Where a `TypeHandler` finds, or puts, the files of one leaf.

    Parameters
    ----------
    name : str
        Of the leaf, to be used as a file's name.
    parent_dir : path
        A directory for this leaf alone, which exists.
    path : path, optional
        `parent_dir / name`.
    keypath, skip_deserialize, byte_limiter, device_host_byte_limiter, is_ocdbt_checkpoint, \
use_compression, use_zarr3, ocdbt_target_data_file_size, ts_context, value_typestr, \
enable_pinned_host_transfer, raise_array_data_missing_error, write_shape, is_prioritized_key_fn
        Nothing but their defaults: they are about how Orbax lays out its files. Handlers that were
        written for it may look at them.
    """

    name: str
    parent_dir: Any
    path: Any = None
    keypath: tuple[Any, ...] | None = None
    skip_deserialize: bool | None = None
    byte_limiter: Any = None
    device_host_byte_limiter: Any = None
    is_ocdbt_checkpoint: bool | None = None
    use_compression: bool | None = True
    use_zarr3: bool | None = False
    ocdbt_target_data_file_size: int | None = None
    ts_context: Any = None
    value_typestr: str | None = None
    enable_pinned_host_transfer: bool = False
    raise_array_data_missing_error: bool = True
    write_shape: tuple[int, ...] | None = None
    is_prioritized_key_fn: Any = None

    def __post_init__(self) -> None:
        if self.path is None:
            self.path = self.parent_dir / self.name

    def replace(self, **kwargs: Any) -> ParamInfo:
        """A copy with other values."""
        return dataclasses.replace(self, **kwargs)

    async def await_path_creation(self) -> None:
        """Returns at once: the directory exists."""


class TypeHandler(abc.ABC):
    """Stores leaves of a type in files of its own.

    Derive from it, and register an instance with `register_type_handler`. A handler gets the leaves
    one by one, and may wait or return futures. Its files become one leaf of the checkpoint.
    """

    @abc.abstractmethod
    def typestr(self) -> str:
        """The name that is recorded with each leaf, and finds the handler again: keep it."""

    @abc.abstractmethod
    async def metadata(self, infos: Sequence[ParamInfo]) -> Sequence[Any]:
        """What can be said about the leaves; here never called, since leaves have metadata."""

    @abc.abstractmethod
    async def serialize(
        self,
        values: Sequence[Any],
        infos: Sequence[ParamInfo],
        args: Sequence[SaveArgs] | None = None,
    ) -> Sequence[Any]:
        """Writes each value to its path, and returns futures of what is still going on."""

    @abc.abstractmethod
    async def deserialize(
        self, infos: Sequence[ParamInfo], args: Sequence[RestoreArgs] | None = None
    ) -> Sequence[Any]:
        """Reads the values back."""

    def finalize(self, directory: Any) -> None:
        """Called with `parent_dir` when a leaf is written."""


class _StoredByPackage(TypeHandler):
    """Stands for how the package stores a type itself, which its options do not change."""

    _typestr = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def typestr(self) -> str:
        return self._typestr

    async def metadata(self, infos: Sequence[ParamInfo]) -> Sequence[Any]:
        raise NotImplementedError(f"{type(self).__name__} has no files of its own")

    async def serialize(
        self,
        values: Sequence[Any],
        infos: Sequence[ParamInfo],
        args: Sequence[SaveArgs] | None = None,
    ) -> Sequence[Any]:
        raise NotImplementedError(f"{type(self).__name__} has no files of its own")

    async def deserialize(
        self, infos: Sequence[ParamInfo], args: Sequence[RestoreArgs] | None = None
    ) -> Sequence[Any]:
        raise NotImplementedError(f"{type(self).__name__} has no files of its own")


class ArrayHandler(_StoredByPackage):
    """Stands for arrays of jax. Its options, which are about several hosts, have no effect."""

    _typestr = "jax.Array"


class SingleReplicaArrayHandler(ArrayHandler):
    """As `ArrayHandler`: there is one process, which reads each array once."""


class NumpyHandler(_StoredByPackage):
    """Stands for arrays of numpy. Its options, which are about Orbax's files, have no effect."""

    _typestr = "np.ndarray"


class ScalarHandler(NumpyHandler):
    """Stands for numbers. Its options, which are about Orbax's files, have no effect."""

    _typestr = "scalar"


class StringHandler(_StoredByPackage):
    """Stands for strings. Its options, which are about Orbax's files, have no effect."""

    _typestr = "string"


class TypeHandlerRegistry(Protocol):
    """Handlers by the type of a leaf."""

    def add(
        self,
        ty: Any,
        handler: TypeHandler,
        func: Callable[[Any], bool] | None = None,
        override: bool = False,
        ignore_warnings: bool = False,
    ) -> None: ...

    def get(self, ty: Any) -> TypeHandler: ...

    def has(self, ty: Any) -> bool: ...


class _Registry(TypeHandlerRegistry):
    def __init__(self, *handlers: tuple[Any, TypeHandler]) -> None:
        self._entries: list[tuple[Callable[[Any], bool], TypeHandler]] = []
        for ty, handler in handlers:
            self.add(ty, handler, override=True, ignore_warnings=True)

    def add(
        self,
        ty: Any,
        handler: TypeHandler,
        func: Callable[[Any], bool] | None = None,
        override: bool = False,
        ignore_warnings: bool = False,
    ) -> None:
        matches = func or (lambda other: issubclass(other, ty))
        for position, (known, _) in enumerate(self._entries):
            if not known(ty):
                continue
            if not override:
                raise AlreadyRegisteredTypeError(f"{ty} has a TypeHandler: set `override`")
            if not ignore_warnings:
                _logger.warning("%s gets another TypeHandler: %s", ty, handler.typestr())
            self._entries[position] = (matches, handler)
            return
        if not override and any(each.typestr() == handler.typestr() for _, each in self._entries):
            raise AlreadyRegisteredTypeError(
                f"the TypeHandler for {ty} has the typestr '{handler.typestr()}' of another one"
            )
        self._entries.append((matches, handler))

    def get(self, ty: Any) -> TypeHandler:
        for matches, handler in self._entries:
            if handler.typestr() == ty if isinstance(ty, str) else matches(ty):
                return handler
        raise UnregisteredTypeError(f"{ty} has no TypeHandler: use `register_type_handler`")

    def has(self, ty: Any) -> bool:
        try:
            self.get(ty)
        except ValueError:
            return False
        return True

    def is_empty(self) -> bool:
        return not self._entries


def create_type_handler_registry(*handlers: tuple[Any, TypeHandler]) -> TypeHandlerRegistry:
    """A registry with these pairs of a type and its handler."""
    return _Registry(*handlers)


# Of types that the package does not know. It is asked after the types that it does.
_registry = _Registry()


def _stored_types() -> list[tuple[Any, TypeHandler]]:
    jax = sys.modules.get("jax")
    types: list[tuple[Any, TypeHandler]] = [
        (int, ScalarHandler()),
        (float, ScalarHandler()),
        (complex, ScalarHandler()),
        (bytes, ScalarHandler()),
        (np.number, ScalarHandler()),
        (np.ndarray, NumpyHandler()),
        (str, StringHandler()),
    ]
    if jax is not None:
        types.append((jax.Array, ArrayHandler()))
    return types


def register_type_handler(
    ty: Any,
    handler: TypeHandler,
    func: Callable[[Any], bool] | None = None,
    override: bool = False,
) -> None:
    """Has leaves of a type stored by a handler.

    Parameters
    ----------
    ty : type
        What is stored by the package itself (arrays, numbers, strings) stays so: a handler for it
        is taken, and has no effect.
    handler : TypeHandler
        Ours or Orbax's.
    func : callable, optional
        Whether a type is one for the handler. Without it: `ty` and what derives from it.
    override : bool
        Whether an earlier registration may be replaced.

    Raises
    ------
    ValueError
        The type has a handler, or another handler has this `typestr()`, and `override` is False.
    """
    if isinstance(ty, type) and any(issubclass(ty, known) for known, _ in _stored_types()):
        if not override:
            raise AlreadyRegisteredTypeError(f"{ty} has a TypeHandler: set `override`")
        return
    _registry.add(ty, handler, func, override)
    # What is restored without a target is found by its name; metadata has no files.
    special_nodes[_CUSTOM_PREFIX + handler.typestr()] = lambda fields: (
        _deserialized(handler, fields["files"]) if fields.get("files") else None
    )


def get_type_handler(ty: Any) -> TypeHandler:
    """The handler of a type, or of a `typestr()`.

    Raises
    ------
    ValueError
        There is none.
    """
    for known in (_registry, _Registry(*_stored_types())):
        if known.has(ty):
            return known.get(ty)
    raise UnregisteredTypeError(f"{ty} has no TypeHandler: use `register_type_handler`")


def has_type_handler(ty: Any) -> bool:
    """Whether there is a handler of a type."""
    return _registry.has(ty) or _Registry(*_stored_types()).has(ty)


def supported_types() -> list[Any]:
    """The types of leaves that the package stores itself."""
    return [ty for ty, _ in _stored_types()]


def is_supported_type(value: Any, pytree_metadata_options: Any = None) -> bool:
    """Whether the package stores a leaf like `value` itself.

    Parameters
    ----------
    value : object
        The leaf.
    pytree_metadata_options : object, optional
        No effect: the kinds of containers are always recorded.
    """
    return isinstance(value, tuple(supported_types())) or is_supported_empty_value(value)


def is_supported_empty_value(value: Any, pytree_metadata_options: Any = None) -> bool:
    """Whether `value` is None, or a container without anything in it.

    Parameters
    ----------
    value : object
        A node of a tree.
    pytree_metadata_options : object, optional
        No effect: the kinds of containers are always recorded.
    """
    from stepstone.tree import is_empty_node

    return value is None or bool(is_empty_node(value))


def check_input_arguments(*args: Any) -> None:
    """Whether sequences are of one length, and not empty.

    Raises
    ------
    ValueError
        They are not.
    """
    lengths = {len(each) for each in args}
    if len(lengths) > 1 or 0 in lengths:
        raise InvalidArgumentError(f"sequences of one length are needed, not of {sorted(lengths)}")


def register_standard_handlers_with_options(**kwargs: Any) -> None:
    """Does nothing: options of how Orbax stores numbers and arrays have no meaning here."""


_CUSTOM_PREFIX = "type_handler:"
_LEAF_NAME = "leaf"


def converter_of(cls: type, is_target: bool) -> Callable[[Any], _native.Node] | None:
    """How leaves of a registered class are stored, for `_tree`.

    Parameters
    ----------
    cls : type
        Of the leaf.
    is_target : bool
        Whether it is for targets, in which a leaf says nothing but its type.

    Returns
    -------
    callable or None
        None: no handler is registered for the class.
    """
    if _registry.is_empty() or not _registry.has(cls):
        return None
    handler = _registry.get(cls)
    name = _CUSTOM_PREFIX + handler.typestr()

    def convert(value: Any) -> _native.Node:
        files = b"" if is_target else _serialized(handler, value)
        return _native.Node(
            "custom",
            name,
            "key",
            ["files"],
            [files],
            lambda children: _deserialized(handler, children[0]),
        )

    return convert


def _deserialized(handler: TypeHandler, files: object) -> object:
    if not isinstance(files, bytes):
        return files  # A placeholder: the leaf was not read.
    import io
    import zipfile

    with scratch_directory() as scratch:
        with zipfile.ZipFile(io.BytesIO(files)) as archive:
            archive.extractall(scratch.path)
        info = ParamInfo(name=_LEAF_NAME, parent_dir=as_path(scratch.path))
        return run_coroutine(handler.deserialize([info], [RestoreArgs()]))[0]


def _serialized(handler: TypeHandler, value: object) -> bytes:
    import io
    import zipfile

    with scratch_directory() as scratch:
        directory = as_path(scratch.path)
        info = ParamInfo(name=_LEAF_NAME, parent_dir=directory)
        wait_for(list(run_coroutine(handler.serialize([value], [info], [SaveArgs()])) or ()))
        handler.finalize(directory)
        files = io.BytesIO()
        root = pathlib.Path(scratch.path)
        with zipfile.ZipFile(files, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(root.rglob("*")):
                archive.write(path, path.relative_to(root))
        return files.getvalue()
