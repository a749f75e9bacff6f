"""Generators of random numbers of numpy: custom nodes with the dict that numpy has as their state.

The state says what numbers come next. What a generator gives to those that are made with `spawn` is
not part of it.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from stepstone import _native
from stepstone._nodes import special_nodes

Label = str | int

_GENERATOR = "numpy.random.Generator"
_RANDOM_STATE = "numpy.random.RandomState"
_BIT_GENERATORS = frozenset({"MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"})


def is_generator_type(cls: type) -> bool:
    """Whether it is one of numpy's two kinds of generators."""
    random = sys.modules.get("numpy.random")
    return random is not None and issubclass(cls, (random.Generator, random.RandomState))


def generator_node(generator: Any) -> _native.Node:
    """A generator's state, which is made into a new generator when it is restored."""
    if hasattr(generator, "bit_generator"):
        name, state = _GENERATOR, generator.bit_generator.state
    else:
        name, state = _RANDOM_STATE, generator.get_state(legacy=False)
    return _native.Node(
        "custom", name, "attribute", ["state"], [state], partial(_rebuild, name)
    )


def _rebuild(name: str, children: list[Any]) -> Any:
    return _made(name, children[0])


def _made(name: str, state: dict[str, Any]) -> Any:
    import numpy.random

    if state["bit_generator"] not in _BIT_GENERATORS:
        raise ValueError(f"numpy has no generator {state['bit_generator']!r} whose state is known")
    if name == _RANDOM_STATE:
        generator = numpy.random.RandomState()
        generator.set_state(state)
        return generator
    bit_generator = getattr(numpy.random, state["bit_generator"])()
    bit_generator.state = state
    return numpy.random.Generator(bit_generator)


def _as_saved(name: str, fields: dict[Label, Any]) -> Any:
    try:
        return _made(name, fields["state"])
    except (KeyError, TypeError, ValueError):
        return None  # No state, or one of a kind that this numpy does not have.


special_nodes[_GENERATOR] = lambda fields: _as_saved(_GENERATOR, fields)
special_nodes[_RANDOM_STATE] = lambda fields: _as_saved(_RANDOM_STATE, fields)
