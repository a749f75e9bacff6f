"""Handlers: how an object becomes an item of a checkpoint, and an item an object again.

The handlers of the package store trees. What `StandardCheckpointHandler`, `PyTreeCheckpointHandler`
or `ArrayCheckpointHandler` has saved any of the three restores, in Python as in C++.

To store objects of your own, derive from `CheckpointHandler` and write files; `args.CheckpointArgs`
has an example. A handler is used through a `Checkpointer` or a `CheckpointManager`. When one of the
package is called itself, by a handler of yours, it makes a checkpoint of its own in the directory.
"""

from __future__ import annotations

import dataclasses
import importlib
import numbers
import os
import sys
from typing import Any

import numpy as np

from stepstone import _json, _native
from stepstone._handler import (
    AsyncCheckpointHandler,
    CheckpointHandler,
    ItemContent,
    ItemHandler,
    field_of,
    read_content,
)
from stepstone._items import build_items, open_and_restore, path_metadata
from stepstone._random_keys import JaxRandomKeyCheckpointHandler, NumpyRandomKeyCheckpointHandler
from stepstone.args import (
    ArrayRestore,
    ArraySave,
    Composite,
    JaxRandomKeyRestore,
    JaxRandomKeySave,
    JsonRestore,
    JsonSave,
    NumpyRandomKeyRestore,
    NumpyRandomKeySave,
    ProtoRestore,
    ProtoSave,
    PyTreeRestore,
    PyTreeSave,
    StandardRestore,
    StandardSave,
    arguments_of,
)
from stepstone.errors import CorruptError, InvalidArgumentError, MismatchError, UnsupportedError
from stepstone import registry as handler_registration
from stepstone.registry import (
    CheckpointHandlerRegistry,
    DefaultCheckpointHandlerRegistry,
    HandlerRegistry,
    create_default_handler_registry,
    read_also_as,
    register_with_handler,
)

__all__ = [
    "ArrayCheckpointHandler",
    "ArrayRestoreArgs",
    "ArraySaveArgs",
    "AsyncCheckpointHandler",
    "BasePyTreeCheckpointHandler",
    "CheckpointHandler",
    "CheckpointHandlerRegistry",
    "CompositeArgs",
    "CompositeCheckpointHandler",
    "CompositeOptions",
    "CompositeResults",
    "DefaultCheckpointHandlerRegistry",
    "JaxRandomKeyCheckpointHandler",
    "JaxRandomKeyRestoreArgs",
    "JaxRandomKeySaveArgs",
    "JsonCheckpointHandler",
    "JsonRestoreArgs",
    "JsonSaveArgs",
    "NumpyRandomKeyCheckpointHandler",
    "NumpyRandomKeyRestoreArgs",
    "NumpyRandomKeySaveArgs",
    "ProtoCheckpointHandler",
    "ProtoRestoreArgs",
    "ProtoSaveArgs",
    "PyTreeCheckpointHandler",
    "PyTreeRestoreArgs",
    "PyTreeSaveArgs",
    "StandardCheckpointHandler",
    "StandardRestoreArgs",
    "StandardSaveArgs",
    "create_default_handler_registry",
    "handler_registration",
]


class _TreeHandler(ItemHandler):
    restores = frozenset({"standard", "pytree", "array", "stateful"})
    _compression: str | None = None

    def save_item(self, args: Any) -> ItemContent:
        from stepstone._leaf_args import leaf_save_args
        from stepstone._tree import to_native

        return (
            to_native(args.item),
            leaf_save_args(args.item, args.save_args, self._compression),
            _json.custom_metadata(getattr(args, "custom_metadata", None), "the item"),
        )

    def restore_item(self, step: _native.Step, item: str, args: Any) -> Any:
        from stepstone._leaf_args import restore_tree

        return restore_tree(step, item, args)

    def item_metadata(self, step: _native.Step, item: str) -> Any:
        from stepstone.metadata import tree_metadata

        return tree_metadata(step.item_metadata(item))


class StandardCheckpointHandler(_TreeHandler):
    """Saves and restores trees, with `StandardSave` and `StandardRestore`.

    Parameters
    ----------
    save_concurrent_gb, restore_concurrent_gb : int
        No effect: memory is bounded by one copy of what is saved, and none of what is restored.
    multiprocessing_options : MultiprocessingOptions, optional
        No effect: a store belongs to one process.
    pytree_metadata_options : object, optional
        No effect: the kinds of containers are always recorded.
    use_ocdbt : bool
        No effect: the format is the store's own.
    """

    recorded_name = "standard"

    def __init__(
        self,
        *,
        save_concurrent_gb: int = 96,
        restore_concurrent_gb: int = 96,
        multiprocessing_options: Any = None,
        pytree_metadata_options: Any = None,
        use_ocdbt: bool = True,
    ) -> None:
        pass

    def save_item(self, args: Any) -> ItemContent:
        item = args.item
        if item is None:
            raise InvalidArgumentError("StandardSave needs an item to save; it was given None")
        jax = sys.modules.get("jax")
        if isinstance(item, numbers.Number) or (jax is not None and isinstance(item, jax.Array)):
            raise InvalidArgumentError(
                f"StandardSave is for trees; save a single {type(item).__name__} with ArraySave"
            )
        return super().save_item(args)


class PyTreeCheckpointHandler(_TreeHandler):
    """Saves and restores trees, with `PyTreeSave` and `PyTreeRestore`.

    Parameters
    ----------
    use_compression : bool
        False: leaves are stored as they are. True: compressed where that makes them shorter.
    aggregate_filename, save_concurrent_gb, restore_concurrent_gb, save_device_host_concurrent_gb, \
memory_limit_options, use_ocdbt, use_zarr3, multiprocessing_options, pytree_metadata_options, \
array_metadata_validator, enable_pinned_host_transfer, is_prioritized_key_fn, handler_impl
        No effect: they are about Orbax's format, its memory, and several hosts.
    type_handler_registry : TypeHandlerRegistry, optional
        No effect: `type_handlers.register_type_handler` registers types for all handlers.
    """

    recorded_name = "pytree"

    def __init__(
        self,
        aggregate_filename: str | None = None,
        *,
        save_concurrent_gb: int | None = None,
        restore_concurrent_gb: int | None = None,
        save_device_host_concurrent_gb: int | str | None = None,
        memory_limit_options: Any = None,
        use_ocdbt: bool = True,
        use_zarr3: bool = False,
        use_compression: bool = True,
        multiprocessing_options: Any = None,
        type_handler_registry: Any = None,
        handler_impl: Any = None,
        pytree_metadata_options: Any = None,
        array_metadata_validator: Any = None,
        enable_pinned_host_transfer: bool | None = None,
        is_prioritized_key_fn: Any = None,
    ) -> None:
        self._compression = None if use_compression else "none"


class BasePyTreeCheckpointHandler(PyTreeCheckpointHandler):
    """The same; Orbax has two.

    Parameters
    ----------
    save_concurrent_bytes, restore_concurrent_bytes, save_device_host_concurrent_bytes, \
enable_post_merge_validation
        No effect, as of `PyTreeCheckpointHandler`, like all others.
    """

    def __init__(
        self,
        *,
        save_concurrent_bytes: int | None = None,
        restore_concurrent_bytes: int | None = None,
        save_device_host_concurrent_bytes: int | str | None = None,
        enable_post_merge_validation: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)

    def get_param_names(self, item: Any) -> Any:
        """The same tree with the leaves' paths, as text, in their place."""
        from stepstone.tree import get_param_names

        return get_param_names(item)


class ArrayCheckpointHandler(_TreeHandler):
    """Saves and restores one array or number, with `ArraySave` and `ArrayRestore`.

    Parameters
    ----------
    checkpoint_name : str, optional
        No effect: it was the name of a file.
    """

    recorded_name = "array"

    def __init__(self, checkpoint_name: str | None = None) -> None:
        pass

    def save_item(self, args: Any) -> ItemContent:
        item = args.item
        known: list[type] = [np.ndarray, np.generic, int, float, complex]
        for module, name in (("jax", "Array"), ("torch", "Tensor")):
            if module in sys.modules:
                known.append(getattr(sys.modules[module], name))
        if not isinstance(item, tuple(known)):
            raise TypeError(f"ArraySave is for an array or a number, not for a {type(item)}")
        return super().save_item(args)


class JsonCheckpointHandler(ItemHandler):
    """Saves and restores what JSON can hold, with `JsonSave` and `JsonRestore`.

    Parameters
    ----------
    filename : str, optional
        No effect: the text is stored as a leaf, not as a file.
    multiprocessing_options : MultiprocessingOptions, optional
        No effect: a store belongs to one process.
    """

    recorded_name = "json"
    restores = frozenset({"json"})

    def __init__(
        self, filename: str | None = None, *, multiprocessing_options: Any = None
    ) -> None:
        pass

    def save_item(self, args: Any) -> ItemContent:
        from stepstone._tree import to_native

        return to_native(_json.dumps(args.item)), [], None

    def restore_item(self, step: _native.Step, item: str, args: Any) -> Any:
        text = read_content(step, item)
        if not isinstance(text, str):
            raise CorruptError(f"step {step.step} item '{item}' is not JSON text")
        return _json.loads(text)


class ProtoCheckpointHandler(ItemHandler):
    """Saves and restores a protocol buffer's message, with `ProtoSave` and `ProtoRestore`.

    Parameters
    ----------
    filename : str
        No effect: the message is stored as a leaf, not as a file.
    multiprocessing_options : MultiprocessingOptions, optional
        No effect: a store belongs to one process.
    """

    recorded_name = "proto"
    restores = frozenset({"proto"})

    def __init__(
        self, filename: str = "proto.pbtxt", *, multiprocessing_options: Any = None
    ) -> None:
        pass

    def save_item(self, args: Any) -> ItemContent:
        from stepstone._tree import to_native

        message = args.item
        if not hasattr(message, "SerializeToString"):
            raise TypeError(f"ProtoSave is for a protocol buffer's message, not {type(message)}")
        content = {
            "type_name": str(message.DESCRIPTOR.full_name),
            "message": bytes(message.SerializeToString()),
        }
        return to_native(content), [], None

    def restore_item(self, step: _native.Step, item: str, args: Any) -> Any:
        content = read_content(step, item)
        type_name: str = field_of(content, "type_name", str, step, item)
        cls = args.item if args is not None else _message_class(type_name, item)
        if str(cls.DESCRIPTOR.full_name) != type_name:
            raise MismatchError(
                f"step {step.step} item '{item}' is a message of the type '{type_name}', not "
                f"'{cls.DESCRIPTOR.full_name}'"
            )
        message = cls()
        message.ParseFromString(field_of(content, "message", bytes, step, item))
        return message


def _message_class(type_name: str, item: str) -> Any:
    """The class of a message that the program has imported."""
    pool = sys.modules.get("google.protobuf.descriptor_pool")
    try:
        if pool is not None:
            factory = importlib.import_module("google.protobuf.message_factory")
            return factory.GetMessageClass(pool.Default().FindMessageTypeByName(type_name))
    except KeyError:
        pass
    raise UnsupportedError(
        f"item '{item}' is a message of the type '{type_name}', which is not imported: restore it "
        "with args.ProtoRestore(the message's class)"
    )


@dataclasses.dataclass
class CompositeOptions:
    """Options of `CompositeCheckpointHandler`, none of which has an effect.

    They are about files, and about several hosts.
    """

    multiprocessing_options: Any = None
    temporary_path_class: Any = None
    file_options: Any = None
    atomicity_options: Any = None
    async_options: Any = None


class CompositeCheckpointHandler(AsyncCheckpointHandler):
    """Saves and restores several items, with `Composite`.

    Parameters
    ----------
    *item_names : str
        The only items there are. Without names, handlers or a registry: any.
    composite_options : CompositeOptions, optional
        No effect.
    handler_registry : CheckpointHandlerRegistry, optional
        Handlers by item and arguments; excludes the names and the handlers.
    **items_and_handlers : CheckpointHandler
        Handlers by item; None leaves the choice to the arguments.

    Raises
    ------
    ValueError
        `handler_registry` was given with names or handlers.

    Examples
    --------
    >>> import tempfile
    >>> import stepstone as ocp
    >>> checkpointer = ocp.Checkpointer(ocp.CompositeCheckpointHandler("state", "dataset"))
    >>> path = tempfile.mkdtemp() + "/both"
    >>> checkpointer.save(path, ocp.args.Composite(
    ...     state=ocp.args.StandardSave({"step": 3}), dataset=ocp.args.JsonSave({"seen": 10})))
    >>> checkpointer.restore(path).dataset
    {'seen': 10}
    """

    def __init__(
        self,
        *item_names: str,
        composite_options: CompositeOptions | None = None,
        handler_registry: Any = None,
        **items_and_handlers: Any,
    ) -> None:
        if handler_registry is not None and (item_names or items_and_handlers):
            raise InvalidArgumentError(
                "`handler_registry` excludes names of items and handlers for them"
            )
        self.registry = HandlerRegistry(item_names, items_and_handlers, handler_registry)

    def save(self, directory: Any, *given: Any, **kwargs: Any) -> Any:
        args = arguments_of(self, True, given, kwargs)
        items, is_single = build_items(args, self.registry)
        _native.save_checkpoint(os.fspath(directory), items, is_single=is_single, force=True)

    async def async_save(self, directory: Any, *given: Any, **kwargs: Any) -> list[Any] | None:
        self.save(directory, *given, **kwargs)
        return None

    def restore(self, directory: Any, *given: Any, **kwargs: Any) -> Any:
        args = arguments_of(self, False, given, kwargs)
        return open_and_restore(directory, args, self.registry)

    def metadata(self, directory: Any) -> Any:
        return path_metadata(directory, self.registry)

    def close(self) -> None:
        self.registry.close()


# Orbax's names for what `args` has.
StandardSaveArgs = StandardSave
StandardRestoreArgs = StandardRestore
PyTreeSaveArgs = PyTreeSave
PyTreeRestoreArgs = PyTreeRestore
ArraySaveArgs = ArraySave
ArrayRestoreArgs = ArrayRestore
JsonSaveArgs = JsonSave
JsonRestoreArgs = JsonRestore
ProtoSaveArgs = ProtoSave
ProtoRestoreArgs = ProtoRestore
JaxRandomKeySaveArgs = JaxRandomKeySave
JaxRandomKeyRestoreArgs = JaxRandomKeyRestore
NumpyRandomKeySaveArgs = NumpyRandomKeySave
NumpyRandomKeyRestoreArgs = NumpyRandomKeyRestore
CompositeArgs = Composite
CompositeResults = Composite

for _handler, _save, _restore in (
    (StandardCheckpointHandler, StandardSave, StandardRestore),
    (PyTreeCheckpointHandler, PyTreeSave, PyTreeRestore),
    (ArrayCheckpointHandler, ArraySave, ArrayRestore),
    (JsonCheckpointHandler, JsonSave, JsonRestore),
    (ProtoCheckpointHandler, ProtoSave, ProtoRestore),
    (JaxRandomKeyCheckpointHandler, JaxRandomKeySave, JaxRandomKeyRestore),
    (NumpyRandomKeyCheckpointHandler, NumpyRandomKeySave, NumpyRandomKeyRestore),
    (CompositeCheckpointHandler, Composite, Composite),
):
    register_with_handler(_handler, for_save=True)(_save)
    register_with_handler(_handler, for_restore=True)(_restore)
# What objects of C++ say about themselves is a tree.
read_also_as("stateful", PyTreeCheckpointHandler)


def adopt_handler(handler: Any) -> Any:
    """The package's handler for one of Orbax's own; any other as it is."""
    cls = type(handler)
    if not cls.__module__.startswith("orbax.checkpoint"):
        return handler
    if cls.__name__ in ("_LegacyCheckpointHandlerWrapper", "_AsyncLegacyCheckpointHandlerWrapper"):
        return adopt_handler(handler._handler)
    if cls.__name__ == "CompositeCheckpointHandler":
        return _adopt_composite(handler)
    ours = globals().get(cls.__name__)
    return handler if ours is None else ours()


def _adopt_composite(handler: Any) -> CompositeCheckpointHandler:
    entries = handler._handler_registry.get_all_entries()
    names = handler._item_names_without_registered_handlers
    if names is None:
        return CompositeCheckpointHandler(handler_registry=handler._handler_registry)
    handlers = {item: each for (item, _), each in entries.items() if item is not None}
    return CompositeCheckpointHandler(*names, **handlers)
