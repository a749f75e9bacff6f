"""What a manager's methods are given, checked and in one form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepstone import _json
from stepstone._policies import plain_metrics
from stepstone.args import Composite, adopt, arguments_of
from stepstone.errors import InvalidArgumentError
from stepstone.registry import is_checkpoint_args


def check_exclusive(
    checkpointers: Any, item_names: Any, item_handlers: Any, handler_registry: Any
) -> None:
    given = {
        "checkpointers": checkpointers,
        "item_names": item_names,
        "item_handlers": item_handlers,
        "handler_registry": handler_registry,
    }
    names = [name for name, value in given.items() if value is not None]
    both_are_fine = ["item_names", "item_handlers"]
    if len(names) > 1 and names != both_are_fine:
        raise InvalidArgumentError(
            f"{' and '.join(names)} exclude each other: give a handler_registry alone, or "
            "item_names and item_handlers"
        )
    if names == both_are_fine and item_names and not isinstance(item_handlers, Mapping):
        raise InvalidArgumentError(
            "item_names are for several items, and item_handlers is the handler of one object: "
            "give a dict of handlers by item"
        )


def handlers_of(checkpointers: Any) -> tuple[Any, bool]:
    """The handlers of checkpointers, and whether one of them saves in the background."""
    several = checkpointers if isinstance(checkpointers, Mapping) else {None: checkpointers}
    handlers = {}
    for name, checkpointer in several.items():
        handler = getattr(checkpointer, "handler", None)
        if handler is None:
            raise InvalidArgumentError(
                f"checkpointers have to be Checkpointers, or a dict of them, not {checkpointer!r}"
            )
        handlers[name] = handler
    is_async = any(hasattr(each, "wait_until_finished") for each in several.values())
    return (handlers if several is checkpointers else handlers[None]), is_async


def is_on_device(metrics: Any) -> bool:
    """Whether metrics have to be fetched from a device before they can be looked at."""
    values = metrics.values() if isinstance(metrics, Mapping) else ()
    return any(
        is_on_device(value)
        if isinstance(value, Mapping)
        else hasattr(value, "__dlpack__") and not type(value).__module__.startswith("numpy")
        for value in values
    )


def metrics_text(metrics: Any, step: int) -> str | None:
    """JSON text of metrics."""
    if metrics is None:
        return None
    if not isinstance(metrics, Mapping):
        raise TypeError(
            f"step {step}: metrics have to be a dict of numbers by name, not "
            f"{type(metrics).__name__}"
        )
    try:
        return _json.dumps(plain_metrics(metrics))
    except TypeError as error:
        raise TypeError(f"step {step}: metrics: {error}") from None


def given_args(items: Any, args: Any) -> Any:
    """`args`, in our form, or None; `items` are of the older style and stand for none of them.

    Raises
    ------
    ValueError
        Arguments were given as `items`, or something else as arguments.
    """
    if is_checkpoint_args(items):
        raise InvalidArgumentError(
            f"{type(items).__name__} was given in the place of `items`: give it by name, args=..."
        )
    if args is None:
        return None
    if not is_checkpoint_args(args):
        raise InvalidArgumentError(
            f"args has to be CheckpointArgs, such as args.StandardSave, not {type(args).__name__}"
        )
    return adopt(args)


def older_args(handlers: Any, items: Any, kwargs: Any, *, for_save: bool) -> Any:
    """Arguments for the handlers that a manager was constructed with.

    Parameters
    ----------
    handlers : CheckpointHandler or dict of str to CheckpointHandler
        Of the one object, or of the items.
    items, kwargs
        The object, or objects by item; and further arguments, by item if there are several.
    for_save : bool
        Whether they are saved.

    Raises
    ------
    ValueError
        An item has no handler.
    """
    if not isinstance(handlers, Mapping):
        given = () if items is None and not for_save else (items,)
        return arguments_of(handlers, for_save, given, dict(kwargs or {}))
    items, kwargs = items or {}, kwargs or {}
    made = {}
    for name in dict.fromkeys([*items, *kwargs]):
        handler = handlers.get(name)
        if handler is None:
            raise InvalidArgumentError(
                f"the manager was constructed without a handler for item '{name}': "
                "give args=args.Composite(...)"
            )
        given = (items[name],) if name in items else ()
        made[name] = arguments_of(handler, for_save, given, dict(kwargs.get(name) or {}))
    return Composite(**made)
