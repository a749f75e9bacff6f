"""Handlers for the states of random number generators; see `handlers`."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from stepstone import _native
from stepstone._handler import ItemContent, ItemHandler, field_of, read_content
from stepstone.args import JaxRandomKeyRestore
from stepstone.errors import MismatchError, UnsupportedError

# In the state of a key of jax.
_KEY_DATA = "key_data"
_IS_TYPED = "is_typed"


class _RandomKeyHandler(ItemHandler):
    recorded_name = "random_key"
    restores = frozenset({"random_key"})

    def _content(self, algorithm: str, state: object) -> ItemContent:
        from stepstone._tree import to_native

        return to_native({"algorithm": algorithm, "state": state}), [], None

    def restore_item(self, step: _native.Step, item: str, args: Any) -> Any:
        content = read_content(step, item)
        algorithm: str = field_of(content, "algorithm", str, step, item)
        state = field_of(content, "state", object, step, item)
        is_of_jax = isinstance(state, dict) and _KEY_DATA in state
        if args is not None and is_of_jax != isinstance(args, JaxRandomKeyRestore):
            raise MismatchError(
                f"step {step.step} item '{item}' is the state of a generator of "
                f"{'jax' if is_of_jax else 'numpy'} ('{algorithm}'), which {type(args).__name__} "
                "is not for"
            )
        if is_of_jax:
            return _jax_key(algorithm, state, getattr(args, "restore_args", None), item)
        return state


class JaxRandomKeyCheckpointHandler(_RandomKeyHandler):
    """Saves and restores random keys of jax, with `JaxRandomKeySave` and `JaxRandomKeyRestore`.

    Parameters
    ----------
    key_name : str, optional
        No effect: it was the name of a file.
    """

    def __init__(self, key_name: str | None = None) -> None:
        pass

    def save_item(self, args: Any) -> ItemContent:
        key = args.item
        jax = sys.modules.get("jax")
        if jax is None or not isinstance(key, jax.Array):
            raise TypeError(f"JaxRandomKeySave is for a random key of jax, not for a {type(key)}")
        is_typed = bool(jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key))
        # A key that is not typed is of the implementation that jax is set to.
        algorithm = jax.random.key_impl(key) if is_typed else jax.config.jax_default_prng_impl
        data = np.asarray(jax.random.key_data(key))
        return self._content(str(algorithm), {_KEY_DATA: data, _IS_TYPED: is_typed})


class NumpyRandomKeyCheckpointHandler(_RandomKeyHandler):
    """Saves and restores states of generators of numpy, with `NumpyRandomKeySave` and
    `NumpyRandomKeyRestore`.

    Parameters
    ----------
    key_name : str, optional
        No effect: it was the name of a file.
    """

    def __init__(self, key_name: str | None = None) -> None:
        pass

    def save_item(self, args: Any) -> ItemContent:
        state = args.item
        if isinstance(state, tuple) and state and isinstance(state[0], str):
            algorithm = state[0]
        elif isinstance(state, dict) and isinstance(state.get("bit_generator"), str):
            algorithm = state["bit_generator"]
        else:
            raise TypeError(
                "NumpyRandomKeySave is for numpy.random.get_state(), a tuple, or the state of a "
                f"bit generator, a dict; not for a {type(state)}"
            )
        return self._content(algorithm, state)


def _jax_key(algorithm: str, state: dict[str, Any], restore_args: Any, item: str) -> Any:
    try:
        import jax
    except ImportError as error:
        raise UnsupportedError(
            f"item '{item}' is a random key of jax, which is not installed"
        ) from error
    key = jax.numpy.asarray(state[_KEY_DATA])
    if state[_IS_TYPED]:
        key = jax.random.wrap_key_data(key, impl=algorithm)
    sharding = getattr(restore_args, "sharding", None)
    return key if sharding is None else jax.device_put(key, sharding)
