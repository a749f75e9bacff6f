"""Objects of jax: arrays, random keys, and the pytrees that are registered with it.

jax is never imported because of a save: an object of it can only exist where it is imported. A
restore without a target imports it where a checkpoint holds a typed random key.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from stepstone import _native
from stepstone._foreign import PACKED_DTYPES, RefusedLeaf, stand_in
from stepstone._nodes import CustomNode, node_observers, special_nodes

Label = str | int
Converter = Callable[[Any], object]

_KEY_TYPE_NAME = "jax.random.key"


def jax_module() -> Any:
    """The module jax if it is imported, else None."""
    jax = sys.modules.get("jax")
    # While it is being imported it has no arrays yet.
    return jax if hasattr(jax, "tree_util") else None


# Pytrees.


def is_node(value: Any) -> bool:
    """Whether it is a container, registered with jax; never without jax."""
    jax = jax_module()
    return jax is not None and value is not None and not jax.tree_util.all_leaves((value,))


def is_function(value: Any) -> bool:
    """Whether a child of a pytree is code instead of state."""
    if not callable(value) or isinstance(value, type) or hasattr(value, "__array__"):
        return False
    return not is_node(value)


def flatten_one_level(
    value: Any,
) -> tuple[list[tuple[str, Label, Any]], Callable[[Sequence[Any]], Any]]:
    """Label kinds, labels and children of a registered node, and what makes it of such children."""
    util = jax_module().tree_util
    entries, structure = util.tree_flatten_with_path(value, is_leaf=lambda node: node is not value)
    found: list[tuple[str, Label, Any]] = []
    for (key,), child in entries:
        if isinstance(key, util.GetAttrKey):
            found.append(("attribute", key.name, child))
        elif isinstance(key, util.SequenceKey):
            found.append(("index", key.idx, child))
        else:
            # DictKey and FlattenedIndexKey; a class may have its own kind of key.
            label: Label = getattr(key, "key", str(key))
            if not isinstance(label, (str, int)) or isinstance(label, bool):
                label = str(key)
            found.append(("key", label, child))
    return found, structure.unflatten


_is_custom_node_registered = False


def register_custom_node() -> None:
    """Makes restored nodes pytrees, so that functions of jax map over them; not without jax."""
    global _is_custom_node_registered
    jax = jax_module()
    if jax is None or _is_custom_node_registered:
        return
    _is_custom_node_registered = True
    util = jax.tree_util

    def key_of(label_kind: str, label: Label) -> Any:
        if label_kind == "attribute":
            return util.GetAttrKey(label)
        return util.SequenceKey(label) if label_kind == "index" else util.DictKey(label)

    def flatten(node: CustomNode) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        children = [(key_of(node.label_kind, label), child) for label, child in node.items()]
        return children, (node.type_name, node.label_kind, tuple(node.keys()))

    def unflatten(form: tuple[Any, ...], children: Sequence[Any]) -> CustomNode:
        return CustomNode(form[0], form[1], list(form[2]), list(children))

    util.register_pytree_with_keys(CustomNode, flatten, unflatten)


node_observers.append(register_custom_node)


# Leaves.


def save_converter(cls: type) -> Converter | None:
    """How leaves of a class are saved; None: it is none of jax."""
    jax = jax_module()
    if jax is None:
        return None
    if issubclass(cls, jax.core.Tracer):
        return _refuse_tracer
    if issubclass(cls, jax.Array):
        return _save_array
    if issubclass(cls, jax.ShapeDtypeStruct):
        return _refuse_abstract
    return None


def target_converter(cls: type) -> Converter | None:
    """What leaves of a class ask of a restore; None: it is none of jax."""
    jax = jax_module()
    if jax is None:
        return None
    if issubclass(cls, jax.core.Tracer):
        return _refuse_tracer
    if issubclass(cls, jax.Array):
        return _target_array
    if issubclass(cls, jax.ShapeDtypeStruct):
        return _target_abstract
    return None


def _refuse_tracer(value: Any) -> object:
    raise RefusedLeaf(
        value,
        "it is a value that jax traces, so the call stands inside of jit, grad or another"
        " transformation; save and restore outside of it",
    )


def _refuse_abstract(value: Any) -> object:
    raise RefusedLeaf(
        value, "a jax.ShapeDtypeStruct has no elements that could be saved; it is for targets"
    )


# By dtype: its name, or "" for typed random keys.
_dtype_names: dict[Any, str] = {}


def _dtype_name(dtype: Any) -> str:
    name = _dtype_names.get(dtype)
    if name is None:
        dtypes = jax_module().dtypes
        name = "" if dtypes.issubdtype(dtype, dtypes.prng_key) else dtype.name
        _dtype_names[dtype] = name
    return name


def _save_array(value: Any) -> object:
    if value.is_deleted():
        raise RefusedLeaf(
            value,
            "the array was deleted, or donated to a jitted function (donate_argnums), before it was"
            " saved; save the state that the function returned, or save before it is called",
        )
    dtype = _dtype_name(value.dtype)
    if not dtype:
        jax = jax_module()
        return _key_node(str(jax.random.key_impl(value)), jax.random.key_data(value), None)
    if not value.is_fully_addressable:
        raise RefusedLeaf(
            value,
            "parts of the array are on devices of other processes; gather it first, for example"
            " with jax.experimental.multihost_utils.process_allgather",
        )
    host = _to_host(value)
    # The array of numpy holds a reference to the buffer, so that this outlives a deletion, and jax
    # copies it instead of overwriting it when the array is donated while it is being written.
    strides = None if host.flags.c_contiguous else host.strides
    return _native.Array(dtype, host.shape, host.ctypes.data, strides, host, True)


def _to_host(value: Any) -> np.ndarray[Any, Any]:
    """The elements in memory of the host: without a copy where they are there in one piece."""
    if value.is_fully_replicated or len(value.sharding.device_set) == 1:
        return np.asarray(value)
    gathered = np.empty(value.shape, value.dtype)
    for shard in value.addressable_shards:
        if shard.replica_id == 0:
            gathered[shard.index] = np.asarray(shard.data)
    return gathered


def start_transfers(tree: Any) -> None:
    """Lets all arrays on accelerators start on their way to the host, before any is waited for."""
    jax = jax_module()
    if jax is None:
        return
    try:
        leaves = jax.tree_util.tree_leaves(tree)
    except (TypeError, ValueError):
        return  # Keys that jax cannot sort: the arrays are then copied one by one.
    arrays = [
        leaf
        for leaf in leaves
        if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    ]
    # Asked only where there are arrays: the question would start the devices.
    if not arrays or jax.default_backend() == "cpu":
        return
    for array in arrays:
        if not array.is_deleted() and array.is_fully_addressable:
            array.copy_to_host_async()


def _target_array(value: Any) -> object:
    # Where an array was not put anywhere in particular, jax decides again.
    sharding = value.sharding if value.committed else None
    dtype = _dtype_name(value.dtype)
    if not dtype:
        jax = jax_module()
        if value.is_deleted():
            return _target_abstract(
                jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)
            )
        impl = str(jax.random.key_impl(value))
        return _key_node(impl, jax.random.key_data(value), sharding)
    finish = partial(_put, sharding)
    shape = value.shape
    if value.is_deleted():
        return _native.Leaf(_native.AbstractArray(dtype, shape), finish)
    if dtype in PACKED_DTYPES:
        return _native.Leaf(np.asarray(value), finish)
    return _native.Leaf(stand_in(dtype, shape), finish)


def _target_abstract(value: Any) -> object:
    dtype = _dtype_name(value.dtype)
    if not dtype:
        jax = jax_module()
        impls: list[str] = []

        def key_data(key: Any) -> Any:
            impls.append(str(jax.random.key_impl(key)))
            return jax.random.key_data(key)

        data = jax.eval_shape(key_data, jax.ShapeDtypeStruct(value.shape, value.dtype))
        return _key_node(impls[0], data, value.sharding)
    return _native.Leaf(_native.AbstractArray(dtype, value.shape), partial(_put, value.sharding))


def _put(sharding: Any, value: Any) -> Any:
    """An array of numpy on its device: jax takes over aligned memory of the host as it is."""
    jax = jax_module()
    return jax.device_put(value) if sharding is None else jax.device_put(value, sharding)


# Typed random keys.


def _key_node(impl: str, data: Any, sharding: Any) -> _native.Node:
    def rebuild(children: list[Any]) -> Any:
        stored_impl, stored_data = children
        if stored_impl != impl:
            raise ValueError(
                f"the checkpoint has a random key of '{stored_impl}', the target one of '{impl}'"
            )
        key = jax_module().random.wrap_key_data(stored_data, impl=impl)
        return key if sharding is None else jax_module().device_put(key, sharding)

    return _native.Node(
        "custom", _KEY_TYPE_NAME, "attribute", ["impl", "data"], [impl, data], rebuild
    )


def _key_as_saved(fields: dict[Label, Any]) -> Any:
    impl, data = fields.get("impl"), fields.get("data")
    if not isinstance(impl, str) or not isinstance(data, np.ndarray):
        return None
    try:
        import jax

        return jax.random.wrap_key_data(jax.numpy.asarray(data), impl=impl)
    except (ImportError, ValueError, TypeError):
        return None  # No jax, or one that does not have the implementation.


special_nodes[_KEY_TYPE_NAME] = _key_as_saved
