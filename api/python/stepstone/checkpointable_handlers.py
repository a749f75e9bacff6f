"""The handlers of the newer style that come with the package.

Their items are those of the handlers in `stepstone.handlers`, under the same recorded names, so
that either style, and C++, reads what the other has saved. The coroutines that they have besides
are for handlers of your own that leave a part of their object to one of these: there an object is
saved into a directory.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stepstone import _native, _tree
from stepstone._leaf_args import dtype_name
from stepstone.args import JsonSave, ProtoRestore, ProtoSave
from stepstone.context import get_context
from stepstone.context_options import ArrayStorageOptions
from stepstone.errors import InvalidArgumentError, UnsupportedError
from stepstone.handlers import JsonCheckpointHandler, ProtoCheckpointHandler
from stepstone.registry import DEFAULT_ITEM
from stepstone.stateful import StatefulCheckpointable, typestr, with_files, written_files

if TYPE_CHECKING:
    from collections.abc import Callable

    # The item, or what makes it in the background.
    _Content = _native.ItemContent | Callable[[], _native.ItemContent]

__all__ = ["JsonHandler", "ProtoHandler", "PyTreeHandler", "StatefulCheckpointableHandler"]


# Within a directory that was given to one of the coroutines.
_STORE_NAME = "checkpointable"
_CHUNK_BYTES_MIN = 4 << 10
_CHUNK_BYTES_MAX = 16 << 20


class UnsupportedTargetError(UnsupportedError, TypeError):
    """A target has a leaf that nothing can be restored into."""


class TreeHandler:
    """A handler that gives a tree for its item, instead of writing files."""

    recorded: ClassVar[str]  # The name under which its items are saved.
    restores: ClassVar[tuple[str, ...]]  # The names of those that it loads.

    def to_tree(self, checkpointable: Any) -> _Content:
        """What a save of the native library takes of an item."""
        raise NotImplementedError

    def from_step(self, step: _native.Step, item: str, abstract: Any) -> Any:
        """The object, made of an item that one of `restores` has saved."""
        raise NotImplementedError

    def describe(self, step: _native.Step, item: str) -> Any:
        """What is known of the object without its arrays being read."""
        return None

    async def save(self, directory: Any, checkpointable: Any) -> None:
        """Saves into a directory, under a name that is the package's own."""
        if hasattr(directory, "await_creation"):
            directory = await directory.await_creation()
        _native.save_checkpoint(
            os.path.join(directory, _STORE_NAME),
            [(DEFAULT_ITEM, self.recorded, lambda: self.to_tree(checkpointable))],
            is_single=True,
            force=True,
        )

    async def load(self, directory: Any, abstract_checkpointable: Any = None) -> Any:
        """Loads what `save` has saved there."""
        step, _ = _native.open_checkpoint(os.path.join(directory, _STORE_NAME))
        try:
            return self.from_step(step, DEFAULT_ITEM, abstract_checkpointable)
        finally:
            step.release()

    async def metadata(self, directory: Any) -> Any:
        """What is known of what `save` has saved there."""
        step, _ = _native.open_checkpoint(os.path.join(directory, _STORE_NAME))
        try:
            return self.describe(step, DEFAULT_ITEM)
        finally:
            step.release()


class PyTreeHandler(TreeHandler):
    """Trees of arrays, scalars, strings and bytes; a single leaf is one, too.

    Options of the current `Context` decide how arrays are stored and what a target may lack.
    """

    recorded = "pytree"
    restores = ("pytree", "standard", "array")

    def to_tree(self, checkpointable: Any) -> _native.ItemContent:
        return _tree.to_native(checkpointable), _leaf_save_args(checkpointable), None

    def from_step(self, step: _native.Step, item: str, abstract: Any) -> Any:
        context = get_context()
        try:
            target = None if abstract is None else _tree.to_native(abstract, target=True)
        except UnsupportedError as error:
            raise UnsupportedTargetError(f"item '{item}': the target's {error}") from error
        options = _native.RestoreOptions(
            target=target,
            partial_restore=context.pytree.loading.partial_load,
            any_container=True,
            pad_or_truncate=context.array.loading.enable_padding_and_truncation,
            map=_map_name(context.array.loading.mmap),
        )
        return _tree.from_native(step.restore(item, options).tree, target)

    def describe(self, step: _native.Step, item: str) -> Any:
        from stepstone.metadata import tree_metadata

        return tree_metadata(step.item_metadata(item)).tree

    def is_handleable(self, checkpointable: Any) -> bool:
        if isinstance(checkpointable, type):
            return False
        return _is_tree(checkpointable)

    def is_abstract_handleable(self, abstract_checkpointable: Any) -> bool | None:
        if isinstance(abstract_checkpointable, type):
            return issubclass(
                abstract_checkpointable, (bool, int, float, complex, str, bytes, np.generic)
            )
        return abstract_checkpointable is ... or _is_tree(abstract_checkpointable)


class JsonHandler(TreeHandler):
    """Dicts, lists, strings, numbers, bools and None, as JSON text.

    A tree of these is saved by `PyTreeHandler` unless a registry says otherwise.

    Parameters
    ----------
    filename : str, optional
        No effect: the text is a leaf, not a file.
    """

    recorded = "json"
    restores = ("json",)

    def __init__(self, filename: str | None = None) -> None:
        self._handler = JsonCheckpointHandler()

    def to_tree(self, checkpointable: Any) -> _native.ItemContent:
        return self._handler.save_item(JsonSave(checkpointable))

    def from_step(self, step: _native.Step, item: str, abstract: Any) -> Any:
        return self._handler.restore_item(step, item, None)

    def is_handleable(self, checkpointable: Any) -> bool:
        from stepstone import _json

        try:
            _json.dumps(checkpointable)
        except (TypeError, ValueError):
            return False
        return True

    def is_abstract_handleable(self, abstract_checkpointable: Any) -> bool | None:
        return None


class ProtoHandler(TreeHandler):
    """Protocol buffers' messages; loaded with the class of the message.

    Parameters
    ----------
    filename : str, optional
        No effect: the message is a leaf, not a file.
    """

    recorded = "proto"
    restores = ("proto",)

    def __init__(self, filename: str | None = None) -> None:
        self._handler = ProtoCheckpointHandler()

    def to_tree(self, checkpointable: Any) -> _Content:
        return self._handler.save_item(ProtoSave(checkpointable))

    def from_step(self, step: _native.Step, item: str, abstract: Any) -> Any:
        if abstract is None:
            raise InvalidArgumentError(
                f"item '{item}' is a protocol buffer's message: load it with the message's class"
            )
        return self._handler.restore_item(step, item, ProtoRestore(abstract))

    def is_handleable(self, checkpointable: Any) -> bool:
        return _is_message_class(type(checkpointable))

    def is_abstract_handleable(self, abstract_checkpointable: Any) -> bool | None:
        return isinstance(abstract_checkpointable, type) and _is_message_class(
            abstract_checkpointable
        )


class StatefulCheckpointableHandler(TreeHandler):
    """Objects that save and load themselves; loaded with the object that is to be filled."""

    recorded = "stateful"
    restores = ("stateful",)

    def to_tree(self, checkpointable: Any) -> _Content:
        return written_files(checkpointable.save)

    def from_step(self, step: _native.Step, item: str, abstract: Any) -> Any:
        if abstract is None:
            raise InvalidArgumentError(
                f"item '{item}' is the state of an object that loads itself: give that object, to "
                "be filled, or leave the item out"
            )
        with_files(step.restore(item).tree, abstract.load)
        return abstract

    def is_handleable(self, checkpointable: Any) -> bool:
        return not isinstance(checkpointable, type) and isinstance(
            checkpointable, StatefulCheckpointable
        )

    def is_abstract_handleable(self, abstract_checkpointable: Any) -> bool | None:
        return self.is_handleable(abstract_checkpointable)


class FileHandler(TreeHandler):
    """Makes an item of the files that a user's handler writes."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def to_tree(self, checkpointable: Any) -> _Content:
        return written_files(lambda path: self._handler.save(path, checkpointable))

    def from_step(self, step: _native.Step, item: str, abstract: Any) -> Any:
        files = step.restore(item).tree
        return with_files(files, lambda path: self._handler.load(path, abstract))

    def describe(self, step: _native.Step, item: str) -> Any:
        try:
            return with_files(step.restore(item).tree, self._handler.metadata)
        except (AttributeError, NotImplementedError):
            return None


def as_tree_handler(handler: Any) -> TreeHandler:
    """`handler`, or what makes items of the files that it writes."""
    return handler if isinstance(handler, TreeHandler) else FileHandler(handler)


def recorded_name(handler: Any) -> str:
    """The name under which the handler's items are saved."""
    return handler.recorded if isinstance(handler, TreeHandler) else typestr(type(handler))


def _map_name(mmap: Any) -> str:
    if mmap is True or mmap is False:
        return "checked" if mmap else "no"
    if mmap != "unchecked":
        raise InvalidArgumentError(f"mmap is True, False or 'unchecked', not {mmap!r}")
    return "unchecked"


def _is_tree(value: Any) -> bool:
    if isinstance(value, (dict, list, tuple, str, bytes, bool, int, float, complex)):
        return True
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return True
    leaves = _tree.flatten_with_paths(value)
    return not (len(leaves) == 1 and leaves[0][0] == ())


def _is_message_class(cls: type) -> bool:
    return hasattr(cls, "DESCRIPTOR") and hasattr(cls, "SerializeToString")


def _leaf_save_args(tree: Any) -> list[tuple[_native.Selector, _native.LeafSaveArgs]]:
    """How the arrays of a tree are stored; of the entries that select a leaf, the first counts."""
    saving = get_context().array.saving
    general = saving.storage_options
    entries: list[tuple[_native.Selector, _native.LeafSaveArgs]] = []
    if saving.scoped_storage_options_creator is not None:
        for labels, leaf in _tree.flatten_with_paths(tree):
            scoped = saving.scoped_storage_options_creator(_key_path(tree, labels), leaf)
            if scoped is not None:
                entries.append((labels, _native_save_args(scoped, general)))
    if general != ArrayStorageOptions():
        entries.append(("*", _native_save_args(general, general)))
    return entries


def _native_save_args(scoped: Any, general: ArrayStorageOptions) -> _native.LeafSaveArgs:
    def option(name: str) -> Any:
        value = getattr(scoped, name, None)  # Orbax's own options lack some.
        return getattr(general, name) if value is None else value

    dtype, chunk_bytes = option("dtype"), option("chunk_byte_size")
    if chunk_bytes is not None:
        chunk_bytes = min(max(chunk_bytes, _CHUNK_BYTES_MIN), _CHUNK_BYTES_MAX)
    return _native.LeafSaveArgs(
        dtype=None if dtype is None else dtype_name(dtype),
        chunk_size_bytes=chunk_bytes,
        compression=option("compression"),
        share=option("share"),
    )


def _key_path(tree: Any, labels: tuple[_native.Label, ...]) -> tuple[Any, ...]:
    """The path in jax's keys, which `jax.tree_util.keystr` takes, where jax is imported."""
    jax = sys.modules.get("jax")
    if jax is None:
        return labels
    keys: list[Any] = []
    node = tree
    for label in labels:
        if isinstance(node, dict):
            keys.append(jax.tree_util.DictKey(label))
            node = node.get(label)
        elif isinstance(label, int):
            keys.append(jax.tree_util.SequenceKey(label))
            node = node[label] if isinstance(node, (list, tuple)) else None
        else:
            keys.append(jax.tree_util.GetAttrKey(label))
            node = getattr(node, label, None)
    return tuple(keys)
