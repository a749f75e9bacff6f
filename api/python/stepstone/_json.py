"""JSON text in the form that the C++ library reads and writes.

JSON has no infinities, and many of its readers no integers over 64 bits: such numbers are stored as
`{"__float__": "nan"}` and `{"__int__": "18446744073709551616"}`, and come back as numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_INTEGER_MIN = -(2**63)
_INTEGER_MAX = 2**63 - 1
_SPECIAL_KEYS = ("__float__", "__int__")


def _plain(value: object) -> object:
    """`value` with stand-ins for the numbers that JSON has not."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"__float__": "nan" if value != value else "inf" if value > 0 else "-inf"}
    if isinstance(value, int) and not _INTEGER_MIN <= value <= _INTEGER_MAX:
        return {"__int__": str(value)}
    if isinstance(value, Mapping):
        if len(value) == 1 and next(iter(value)) in _SPECIAL_KEYS:
            raise ValueError(
                f"JSON text cannot hold a dict with nothing but {next(iter(value))!r}: "
                "that stands for a number"
            )
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(child) for child in value]
    return value


def _number(pairs: dict[str, Any]) -> Any:
    if len(pairs) == 1:
        ((key, value),) = pairs.items()
        if isinstance(value, str):
            try:
                if key == "__int__":
                    return int(value)
                if key == "__float__" and value in ("nan", "inf", "-inf"):
                    return float(value)
            except ValueError:
                pass
    return pairs


def dumps(value: object) -> str:
    """JSON text of `value`: dicts, lists, tuples, strings, bools, None, and any int or float.

    Raises
    ------
    TypeError
        JSON cannot hold it: an array, bytes, an object.
    ValueError
        It refers to itself.
    """
    try:
        plain = _plain(value)
    except RecursionError:
        raise ValueError("the value is nested too deep for JSON, or refers to itself") from None
    return json.dumps(plain, ensure_ascii=False, allow_nan=False)


def loads(text: str) -> Any:
    """What `dumps` made the text from; tuples come back as lists.

    >>> loads(dumps({"best": float("inf"), "seen": 2**70})) == {"best": float("inf"), "seen": 2**70}
    True
    """
    return json.loads(text, object_hook=_number)


def custom_metadata(value: Mapping[str, Any] | None, owner: str) -> str | None:
    """JSON text of custom metadata, or None.

    Parameters
    ----------
    value : Mapping or None
        With strings as keys.
    owner : str
        Whose metadata it is, for messages.

    Raises
    ------
    TypeError
        It is no dict with strings as keys, or JSON cannot hold a value.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"{owner}: custom_metadata has to be a dict with strings as keys")
    try:
        return dumps(dict(value))
    except TypeError as error:
        raise TypeError(f"{owner}: custom_metadata: {error}") from None
