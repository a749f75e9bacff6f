"""Arguments: what to save, and how to restore it.

Each kind of object has a class for saving and one for restoring, and the class decides which
handler does the work (see `handlers`). `Composite` puts several objects into one checkpoint. Objects of
Orbax's own `ocp.args` are taken everywhere in place of these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, KeysView, Mapping, ValuesView
from typing import Any

from stepstone.errors import InvalidArgumentError, ItemNotFoundError
from stepstone.registry import (
    CheckpointArgs,
    get_registered_args_cls,
    get_registered_handler_cls,
    has_registered_args,
    is_checkpoint_args,
    register_with_handler,
)

__all__ = [
    "ArrayRestore",
    "ArraySave",
    "CheckpointArgs",
    "Composite",
    "JaxRandomKeyRestore",
    "JaxRandomKeySave",
    "JsonRestore",
    "JsonSave",
    "NumpyRandomKeyRestore",
    "NumpyRandomKeySave",
    "ProtoRestore",
    "ProtoSave",
    "PyTreeRestore",
    "PyTreeSave",
    "StandardRestore",
    "StandardSave",
    "get_registered_args_cls",
    "get_registered_handler_cls",
    "has_registered_args",
    "register_with_handler",
]


def _is_tree_metadata(value: object) -> bool:
    return any(base.__name__ == "TreeMetadata" for base in type(value).__mro__)


def _tree_of(value: Any) -> Any:
    """The tree in metadata that was given as a target."""
    return value.tree if _is_tree_metadata(value) else value


class Composite(CheckpointArgs, Mapping[str, Any]):
    """Items by name: arguments of a save or a restore, or what a restore gives back.

    An immutable mapping, whose items are attributes as well. Names must not start with "__".

    >>> both = Composite(state=1, dataset=2)
    >>> both.state, both["dataset"], "metrics" in both
    (1, 2, False)
    >>> both | {"metrics": 3}
    Composite({'state': 1, 'dataset': 2, 'metrics': 3})
    """

    _items: dict[str, Any]

    def __init__(self, **items: Any) -> None:
        for key in items:
            if key.startswith("__"):
                raise InvalidArgumentError(f"the name of an item cannot start with '__': '{key}'")
        object.__setattr__(self, "_items", items)

    def __getitem__(self, key: str) -> Any:
        try:
            return self._items[key]
        except KeyError:
            raise ItemNotFoundError(f"there is no item '{key}', only {list(self._items)}") from None

    def __getattr__(self, key: str) -> Any:
        # Of what is not found otherwise; also before __init__, when an object is copied.
        if key.startswith("_"):
            items = self.__dict__.get("_items", {})
            if key not in items:
                raise AttributeError(key)
        return self[key]

    def __setattr__(self, key: str, value: Any) -> None:
        raise InvalidArgumentError("a Composite cannot be changed: make another one with `|`")

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and self._items == dict(other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_composite, (self._items,)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._items]

    def __and__(self, other: Mapping[str, Any]) -> Composite:
        """The items whose names `other` has, too."""
        return Composite(**{key: value for key, value in self._items.items() if key in other})

    def __or__(self, other: Mapping[str, Any]) -> Composite:
        """The items of both; `other`'s where both have one."""
        return Composite(**{**self._items, **other})

    def __repr__(self) -> str:
        return f"Composite({self._items!r})"

    def keys(self) -> KeysView[str]:
        return self._items.keys()

    def values(self) -> ValuesView[Any]:
        return self._items.values()


def _make_composite(items: dict[str, Any]) -> Composite:
    return Composite(**items)


@dataclasses.dataclass
class StandardSave(CheckpointArgs):
    """Saves a tree of arrays, scalars, strings and bytes.

    Parameters
    ----------
    item : tree
        Dicts, lists, tuples, named tuples, dataclasses, None and, with jax, every registered node.
    save_args : tree of SaveArgs, optional
        Of the structure of `item`; None for leaves without any.
    custom_metadata : dict, optional
        Of JSON's types; stored with the item, and given back by its metadata.

    Raises
    ------
    ValueError
        `item` is metadata; when it is saved: it is None, or a single array or number, for which
        `ArraySave` is there.
    """

    item: Any
    save_args: Any = None
    custom_metadata: Any = None

    def __post_init__(self) -> None:
        if _is_tree_metadata(self.item):
            raise InvalidArgumentError("TreeMetadata describes a tree, and cannot be saved as one")


@dataclasses.dataclass
class StandardRestore(CheckpointArgs):
    """Restores a tree.

    Parameters
    ----------
    item : tree, optional
        The target: its containers and its kinds of leaves come back, with the checkpoint's values
        cast to its dtypes. Leaves are arrays, scalars, types (`float`), anything with a shape and a
        dtype (`jax.ShapeDtypeStruct`, `ArrayMetadata`), or PLACEHOLDER, which is not read. Without
        it: the tree as it was saved, with numpy arrays.
    strict : bool
        False: arrays whose shape differs from the target's are filled with zeros, or cut, at the
        end of each axis, instead of being refused.
    support_layout : bool
        No effect: jax chooses the layout on the device.
    fallback_sharding : jax.sharding.Sharding, optional
        For leaves of the target that are of jax and say none.
    """

    item: Any = None
    strict: bool = True
    support_layout: bool = False
    fallback_sharding: Any = None

    def __post_init__(self) -> None:
        self.item = _tree_of(self.item)


@dataclasses.dataclass
class PyTreeSave(CheckpointArgs):
    """Saves a tree, which may also be a single leaf; see `StandardSave`.

    Parameters
    ----------
    item, save_args, custom_metadata
        As of `StandardSave`.
    ocdbt_target_data_file_size : int, optional
        No effect: the store decides how large its files are.
    """

    item: Any
    save_args: Any = None
    ocdbt_target_data_file_size: int | None = None
    custom_metadata: Any = None

    def __post_init__(self) -> None:
        if _is_tree_metadata(self.item):
            raise InvalidArgumentError("TreeMetadata describes a tree, and cannot be saved as one")


@dataclasses.dataclass
class PyTreeRestore(CheckpointArgs):
    """Restores a tree, or parts of it, or another tree made of it.

    Parameters
    ----------
    item : tree, optional
        The target, as of `StandardRestore`.
    restore_args : tree of RestoreArgs, optional
        Of the structure of `item` or, without it, of the checkpoint: how leaves are restored, which
        overrides what `item` says about them.
    transforms : dict, optional
        From patterns of the target's paths to `Transform`; needs `item`. See `transform`.
    transforms_default_to_original : bool
        Leaves that no transform matches: True: from the same path of the checkpoint; False: the
        target's own values.
    legacy_transform_fn : None
        Refused if given: it worked on how Orbax lays out files. `transforms` can do the same.
    partial_restore : bool
        Read only what `item` has. Without it, a leaf of the checkpoint that `item` has not is an
        error.
    keep_missing : bool
        A leaf of `item` that the checkpoint has not keeps its own value. Without it: an error.
    subtree : str
        Restore only what stands below this path ("params/encoder"); `item` and `restore_args` are
        relative to it.
    """

    item: Any = None
    restore_args: Any = None
    transforms: Any = None
    transforms_default_to_original: bool = True
    legacy_transform_fn: Any = None
    partial_restore: bool = False
    keep_missing: bool = dataclasses.field(default=False, kw_only=True)
    subtree: str = dataclasses.field(default="", kw_only=True)

    def __post_init__(self) -> None:
        self.item = _tree_of(self.item)
        self.restore_args = _tree_of(self.restore_args)
        self.transforms = _tree_of(self.transforms)


@dataclasses.dataclass
class ArraySave(CheckpointArgs):
    """Saves one array or number.

    Parameters
    ----------
    item : numpy.ndarray, jax.Array, torch.Tensor, int, float, or numpy scalar
        TypeError when anything else is saved.
    save_args : SaveArgs, optional
        How.
    """

    item: Any
    save_args: Any = None


@dataclasses.dataclass
class ArrayRestore(CheckpointArgs):
    """Restores one array or number.

    Parameters
    ----------
    item : array or number, optional
        The target, as a leaf of `StandardRestore`'s.
    restore_args : RestoreArgs, optional
        How.
    """

    item: Any = None
    restore_args: Any = None


@dataclasses.dataclass
class JsonSave(CheckpointArgs):
    """Saves what JSON can hold: dicts, lists, strings, numbers, bools and None.

    Parameters
    ----------
    item : dict
        Tuples come back as lists, and other keys than strings as strings. Infinities, NaN and
        integers of any size are kept. TypeError when anything else is saved.
    """

    item: Any


@dataclasses.dataclass
class JsonRestore(CheckpointArgs):
    """Restores what JsonSave has saved.

    Parameters
    ----------
    item : object, optional
        No effect; older programs give one.
    """

    item: Any = None


@dataclasses.dataclass
class ProtoSave(CheckpointArgs):
    """Saves a protocol buffer's message.

    Parameters
    ----------
    item : google.protobuf.message.Message
        Stored in its binary form, with the name of its type.
    """

    item: Any


@dataclasses.dataclass
class ProtoRestore(CheckpointArgs):
    """Restores a protocol buffer's message.

    Parameters
    ----------
    item : type of google.protobuf.message.Message
        Of the type that was saved; ValueError if it is of another.
    """

    item: Any


@dataclasses.dataclass
class JaxRandomKeySave(CheckpointArgs):
    """Saves a random key, or an array of keys, of jax.

    Parameters
    ----------
    item : jax.Array
        Typed (`jax.random.key`) or not (`jax.random.PRNGKey`). TypeError when anything else is
        saved.
    save_args : SaveArgs, optional
        No effect: a key is a few bytes, and has to stay as it is.
    """

    item: Any
    save_args: Any = None


@dataclasses.dataclass
class JaxRandomKeyRestore(CheckpointArgs):
    """Restores a random key of jax.

    Parameters
    ----------
    restore_args : ArrayRestoreArgs, optional
        Its `sharding` says where the key goes.
    """

    restore_args: Any = None


@dataclasses.dataclass
class NumpyRandomKeySave(CheckpointArgs):
    """Saves the state of a random number generator of numpy.

    Parameters
    ----------
    item : tuple or dict
        `numpy.random.get_state()`, or a bit generator's `state`. TypeError when anything else is
        saved.
    """

    item: Any


@dataclasses.dataclass
class NumpyRandomKeyRestore(CheckpointArgs):
    """Restores the state of a random number generator of numpy, in the form that was saved."""


class CallArgs(CheckpointArgs):
    """What is passed on to a handler that has no arguments registered."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs


# Orbax's names for the same things. Its modules are `orbax.checkpoint.…`.
_FROM_ORBAX: dict[str, type] = {
    "StandardSaveArgs": StandardSave,
    "StandardRestoreArgs": StandardRestore,
    "PyTreeSaveArgs": PyTreeSave,
    "PyTreeRestoreArgs": PyTreeRestore,
    "BasePyTreeSaveArgs": PyTreeSave,
    "BasePyTreeRestoreArgs": PyTreeRestore,
    "ArraySaveArgs": ArraySave,
    "ArrayRestoreArgs": ArrayRestore,
    "JsonSaveArgs": JsonSave,
    "JsonRestoreArgs": JsonRestore,
    "ProtoSaveArgs": ProtoSave,
    "ProtoRestoreArgs": ProtoRestore,
    "JaxRandomKeySaveArgs": JaxRandomKeySave,
    "JaxRandomKeyRestoreArgs": JaxRandomKeyRestore,
    "NumpyRandomKeySaveArgs": NumpyRandomKeySave,
    "NumpyRandomKeyRestoreArgs": NumpyRandomKeyRestore,
    "CompositeArgs": Composite,
    "Composite": Composite,
    "_WrapperArgs": CallArgs,
    "_AsyncWrapperArgs": CallArgs,
}


def adopt_type(cls: type) -> type:
    """The package's class for one of Orbax; any other class as it is."""
    if cls.__module__.startswith("orbax.checkpoint"):
        return _FROM_ORBAX.get(cls.__name__, cls)
    return cls


def adopt(args: Any) -> Any:
    """The package's arguments for Orbax's; anything else as it is."""
    cls = adopt_type(type(args))
    if cls is type(args):
        return args
    if cls is Composite:
        return Composite(**dict(args.items()))
    if cls is CallArgs:
        return CallArgs(*args.args, **args.kwargs)
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(args)}
    known = {field.name for field in dataclasses.fields(cls)}
    return cls(**{name: value for name, value in given.items() if name in known})


def arguments_of(
    handler: Any, for_save: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The arguments that a call of `save` or `restore` has or, in the older style, stands for.

    Parameters
    ----------
    handler : CheckpointHandler
        Of whose registered arguments an instance is made, from what the call was given.
    for_save : bool
        Which of the two calls it is.
    args, kwargs
        What the call was given: arguments, or what they are constructed from.
    """
    for given in (*args, *kwargs.values()):
        if is_checkpoint_args(given):
            return adopt(given)
    if not has_registered_args(handler):
        return CallArgs(*args, **kwargs)
    classes = get_registered_args_cls(handler)
    return adopt(classes[0 if for_save else 1](*args, **kwargs))


def is_composite(args: object) -> bool:
    """Whether these are arguments, or results, of several items."""
    return isinstance(adopt(args), Composite)
