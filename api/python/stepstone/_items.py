"""From arguments to the items of a save, and from the items of a step to restored objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepstone import _held, _native
from stepstone._handler import as_item_handler
from stepstone.args import Composite, adopt
from stepstone.errors import InvalidArgumentError, ItemNotFoundError
from stepstone.registry import DEFAULT_ITEM, HandlerRegistry, is_checkpoint_args


def build_items(args: Any, registry: HandlerRegistry) -> tuple[list[_native.SaveItem], bool]:
    """What a save of the native library takes.

    Parameters
    ----------
    args : CheckpointArgs
        Of one object, or `Composite` of several; ours or Orbax's.
    registry : HandlerRegistry
        Where the handlers come from.

    Returns
    -------
    items : list of SaveItem
        Nothing is looked at until the save takes place and calls them.
    is_single : bool
        Whether `args` are of one object.

    Raises
    ------
    ValueError
        An item has no handler for its arguments, or no arguments.
    """
    args = adopt(args)
    if not isinstance(args, Composite):
        return [_save_item(DEFAULT_ITEM, args, registry)], True
    return [_save_item(name, arg, registry) for name, arg in args.items()], False


def _save_item(name: str, args: Any, registry: HandlerRegistry) -> _native.SaveItem:
    args = adopt(args)
    if not is_checkpoint_args(args):
        raise InvalidArgumentError(
            f"item '{name}' has to be given as CheckpointArgs, such as args.StandardSave, not as "
            f"{type(args).__name__}"
        )
    handler = as_item_handler(registry.resolve_for_save(name, args))
    return name, handler.recorded_name, lambda: handler.save_item(args)


def restore_step(step: _native.Step, args: Any, registry: HandlerRegistry) -> Any:
    """Restores what `args` ask for.

    Parameters
    ----------
    step : _native.Step
        Where from.
    args : CheckpointArgs or None
        None, or an empty `Composite`: everything. `Composite`: its items, each with arguments or
        None. Arguments of one object: the object of a step that was saved as one.
    registry : HandlerRegistry
        Where the handlers come from.

    Returns
    -------
    object or Composite
        As the step was saved.

    Raises
    ------
    KeyError
        The step has no item of a name in `args`.
    ValueError
        The step was saved as one object and `args` are a Composite, or the other way round; an item
        has no handler; it does not fit its target.
    """
    args = adopt(args)
    if step.is_single:
        if isinstance(args, Composite):
            raise InvalidArgumentError(
                f"step {step.step} was saved as one object: restore it with arguments of one "
                "object, such as args.StandardRestore, not with a Composite"
            )
        return restore_item(step, DEFAULT_ITEM, args, registry)
    if args is None or (isinstance(args, Composite) and not args):
        args = Composite(**dict.fromkeys(step.item_handlers()))
    if not isinstance(args, Composite):
        raise InvalidArgumentError(
            f"step {step.step} has the items {list(step.item_handlers())}: restore them with "
            f"args.Composite, not with {type(args).__name__}"
        )
    # In Orbax's order, which is also that of the record.
    return Composite(
        **{name: restore_item(step, name, args[name], registry) for name in sorted(args)}
    )


def restore_item(
    step: _native.Step, name: str, args: Any, registry: HandlerRegistry, known_as: str | None = None
) -> Any:
    """Restores one item with its arguments, or None: as it was saved.

    Parameters
    ----------
    step, args, registry
        As of `restore_step`.
    name : str
        The item.
    known_as : str, optional
        What the registry knows it as, if not by its name.

    Raises
    ------
    KeyError
        The step has no such item.
    ValueError
        As `restore_step`.
    """
    args = adopt(args)
    recorded = _recorded(step, name)
    if args is not None and not is_checkpoint_args(args):
        raise InvalidArgumentError(
            f"item '{name}' has to be asked for with CheckpointArgs or None, not with "
            f"{type(args).__name__}"
        )
    handler = registry.resolve_for_restore(known_as or name, args, recorded)
    return as_item_handler(handler).restore_item(step, name, args)


def item_metadata(step: _native.Step, registry: HandlerRegistry) -> Any:
    """Metadata of all items, without their arrays being read.

    Returns
    -------
    object or Composite
        Of a step of one object, its metadata; else by item. None for items whose handler is not
        known in this process, or has no metadata to give.
    """
    found = {name: _metadata_of(step, name, registry) for name in step.item_handlers()}
    return found[DEFAULT_ITEM] if step.is_single else Composite(**found)


def one_item_metadata(step: _native.Step, name: str, registry: HandlerRegistry) -> Any:
    """Metadata of one item, as `item_metadata`.

    Raises
    ------
    KeyError
        The step has no such item.
    """
    _recorded(step, name)
    return _metadata_of(step, name, registry)


def item_handler_names(step: _native.Step) -> str | dict[str, str]:
    """The handlers that are recorded: of a step of one object its own, else by item."""
    names: Mapping[str, str] = step.item_handlers()
    return names[DEFAULT_ITEM] if step.is_single else dict(names)


def _recorded(step: _native.Step, name: str) -> str:
    handlers = step.item_handlers()
    if name not in handlers:
        raise ItemNotFoundError(
            f"step {step.step} has no item '{name}', only {list(handlers)}"
        )
    return handlers[name]


def _metadata_of(step: _native.Step, name: str, registry: HandlerRegistry) -> Any:
    handler = registry.handler_for(name, step.item_handlers()[name])
    return None if handler is None else as_item_handler(handler).item_metadata(step, name)


def open_and_restore(path: Any, args: Any, registry: HandlerRegistry) -> Any:
    """Restores from a path: of a checkpoint, of a step of a run, or of an item of either.

    Raises
    ------
    FileNotFoundError
        There is no checkpoint.
    KeyError, ValueError
        As `restore_step`.
    """
    with _held.opened(path) as (step, item):
        if item is None:
            return restore_step(step, args, registry)
        if isinstance(adopt(args), Composite):
            raise InvalidArgumentError(f"{path} is one item, and cannot be restored as a Composite")
        known_as = item if item in registry.item_names else DEFAULT_ITEM
        return restore_item(step, item, args, registry, known_as)


def path_metadata(path: Any, registry: HandlerRegistry) -> Any:
    """`item_metadata` of what is at a path, as of `open_and_restore`."""
    with _held.opened(path) as (step, item):
        if item is None:
            return item_metadata(step, registry)
        return one_item_metadata(step, item, registry)
