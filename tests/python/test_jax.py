"""Arrays, random keys and pytrees of jax: saved without copies, restored to where the target is."""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stepstone import _native
from stepstone._tree import CustomNode, from_native, to_native

jax = pytest.importorskip("jax", reason="needs jax")
jnp = jax.numpy
P = jax.sharding.PartitionSpec


@pytest.fixture
def stored(tmp_path: pathlib.Path) -> Callable[[Any], Callable[..., Any]]:
    """Saves a tree; what it returns restores it, into a target or as it was saved."""

    def save(value: Any) -> Callable[..., Any]:
        path = str(tmp_path / str(len(list(tmp_path.iterdir()))))
        tree = to_native(value)
        items: Any = [("default", "tree", lambda: (tree, [], None))]
        _native.save_checkpoint(path, items, is_single=True)
        step, _ = _native.open_checkpoint(path)

        def restore(*target: Any, **options: Any) -> Any:
            if not target:
                return from_native(step.restore("default").tree)
            like = to_native(target[0], target=True)
            restored = step.restore("default", _native.RestoreOptions(target=like, **options))
            return from_native(restored.tree, like)

        return restore

    return save


@pytest.fixture(scope="module")
def sharding() -> Any:
    if jax.device_count() < 2:
        pytest.skip("needs several devices: XLA_FLAGS=--xla_force_host_platform_device_count=4")
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("x",))
    return jax.sharding.NamedSharding(mesh, P("x"))


def same(a: Any, b: Any) -> bool:
    """The same structure, dtypes, placements and bits."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False

    def bits(leaf: Any) -> Any:
        if jax.dtypes.issubdtype(getattr(leaf, "dtype", np.int8), jax.dtypes.prng_key):
            return str(leaf.dtype), np.asarray(jax.random.key_data(leaf)).tobytes()
        host = np.asarray(leaf)
        return host.dtype, host.shape, host.tobytes()

    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b))
    return all(bits(x) == bits(y) for x, y in pairs)


DTYPES = [
    "float32", "bfloat16", "float16", "float8_e4m3fn", "int4", "uint4", "int8", "uint32", "bool",
    "complex64",
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_come_back_as_arrays_of_jax_in_a_target(dtype: str, stored: Any) -> None:
    value = {"w": jnp.arange(6).reshape(2, 3).astype(dtype), "e": jnp.zeros((0, 2), dtype)}
    restore = stored(value)
    assert same(restore(), jax.tree.map(np.asarray, value))
    for target in (value, jax.eval_shape(lambda: value)):
        restored = restore(target)
        assert same(restored, value)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))


def test_sharded_arrays_are_gathered_and_come_back_sharded(stored: Any, sharding: Any) -> None:
    replicated = jax.sharding.NamedSharding(sharding.mesh, P())
    value = {
        "sharded": jax.device_put(np.arange(8.0), sharding),
        "replicated": jax.device_put(np.arange(8.0), replicated),
    }
    restore = stored(value)
    assert restore()["sharded"].tolist() == list(range(8))
    restored = restore(value)
    assert restored["sharded"].sharding == sharding
    assert restored["replicated"].sharding == replicated
    swapped = restore(
        {
            "sharded": jax.ShapeDtypeStruct((8,), jnp.float32, sharding=replicated),
            "replicated": jax.ShapeDtypeStruct((8,), jnp.float32, sharding=sharding),
        }
    )
    assert swapped["sharded"].sharding == replicated
    assert swapped["replicated"].sharding == sharding
    assert swapped["replicated"].tolist() == list(range(8))


def test_arrays_that_were_put_nowhere_are_put_nowhere(stored: Any) -> None:
    value = [jnp.ones(2), jax.device_put(np.ones(2), jax.devices()[-1])]
    restored = stored(value)(value)
    assert not restored[0].committed
    assert restored[1].committed and restored[1].devices() == {jax.devices()[-1]}


def test_the_memory_of_an_array_is_not_copied() -> None:
    pointers = []

    class Spy:
        """Stands for the native module's Array."""

        def __init__(self, dtype: str, shape: Any, pointer: int, *rest: Any) -> None:
            pointers.append((pointer, rest[-1]))

    from stepstone import _jax

    value = jnp.arange(1000.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_jax._native, "Array", Spy)
        _jax._save_array(value)
    assert pointers == [(value.unsafe_buffer_pointer(), True)]


def test_donation_during_a_save_in_the_background_does_not_change_what_is_saved(
    tmp_path: pathlib.Path,
) -> None:
    update = jax.jit(lambda x: x * 0 - 7, donate_argnums=0)
    value = jnp.arange(1_000_000.0)
    tree = to_native({"w": value})
    pending = _native.save_checkpoint_async(
        str(tmp_path / "c"), [("default", "tree", lambda: (tree, [], None))], is_single=True
    )
    for _ in range(3):
        value = update(value)
    value.block_until_ready()
    pending.wait()
    step, _ = _native.open_checkpoint(str(tmp_path / "c"))
    restored = from_native(step.restore("default").tree)["w"]
    assert np.array_equal(restored, np.arange(1_000_000, dtype=np.float32))


def test_arrays_that_are_gone_are_refused_with_what_to_do() -> None:
    donated = jnp.ones(4)
    jax.jit(lambda x: x + 1, donate_argnums=0)(donated)
    deleted = jnp.ones(4)
    deleted.delete()
    for gone in (donated, deleted, jax.random.key(0)):
        if not gone.is_deleted():
            gone.delete()
        with pytest.raises(ValueError, match=r"leaf 'params/w'.*donated.*save the state"):
            to_native({"params": {"w": gone}})


def test_an_array_that_is_gone_is_still_a_target(stored: Any) -> None:
    value = {"w": jnp.arange(3.0), "k": jax.random.key(1)}
    restore = stored(value)
    expected = {"w": np.arange(3.0, dtype=np.float32), "k": jax.random.key(1)}
    for leaf in value.values():
        leaf.delete()
    restored = restore(value)
    assert restored["w"].tolist() == expected["w"].tolist()
    assert same(restored["k"], expected["k"])


def test_what_jax_traces_is_refused() -> None:
    def step(x: Any) -> Any:
        to_native({"x": x})
        return x

    with pytest.raises(ValueError, match="leaf 'x'.*outside"):
        jax.jit(step)(1.0)


def test_abstract_arrays_are_only_targets() -> None:
    with pytest.raises(ValueError, match="leaf 'x'.*targets"):
        to_native({"x": jax.ShapeDtypeStruct((1,), jnp.float32)})


def test_leaves_that_are_kept_are_the_targets_own(stored: Any) -> None:
    own = {"a": jnp.ones(3), "i4": jnp.array([1, -2], jnp.int4), "k": jax.random.key(2)}
    restored = stored({"old": 1})({"old": 0, **own}, keep_missing=True)
    assert restored["a"] is own["a"]
    assert same({name: restored[name] for name in own}, own)


# Random keys.


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_typed_keys_come_back_typed(impl: str, stored: Any) -> None:
    key = jax.random.key(3, impl=impl)
    value = {"key": key, "keys": jax.random.split(key, 3), "old": jax.random.PRNGKey(1)}
    restore = stored(value)
    as_saved = restore()
    assert isinstance(as_saved["old"], np.ndarray)
    for restored in (as_saved, restore(value), restore(jax.eval_shape(lambda: value))):
        assert same(restored, value)


def test_a_key_of_another_implementation_does_not_fit(stored: Any) -> None:
    restore = stored({"k": jax.random.key(0, impl="rbg")})
    for impl in ("threefry2x32", "unsafe_rbg"):
        with pytest.raises(ValueError):
            restore({"k": jax.random.key(0, impl=impl)})


def test_keys_keep_their_sharding(stored: Any, sharding: Any) -> None:
    keys = jax.device_put(jax.random.split(jax.random.key(0), 8), sharding)
    restored = stored({"k": keys})({"k": keys})["k"]
    assert restored.sharding == sharding and same(restored, keys)


def test_a_key_without_jax_is_a_node(tmp_path: pathlib.Path) -> None:
    tree = to_native({"k": jax.random.key(5)})
    path = str(tmp_path / "c")
    _native.save_checkpoint(path, [("default", "tree", lambda: (tree, [], None))], is_single=True)
    program = (
        "import sys; sys.modules['jax'] = None\n"
        "from stepstone import _native; from stepstone._tree import from_native\n"
        f"step, _ = _native.open_checkpoint({path!r})\n"
        "key = from_native(step.restore('default').tree)['k']\n"
        "assert key.impl == 'threefry2x32' and key.data.tolist() == [0, 5], key"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# Pytrees.


class Counted:
    """A node with a child that has a key, one without, and something that is no child."""

    def __init__(self, a: Any, b: Any, label: str) -> None:
        self.a, self.b, self.label = a, b, label


jax.tree_util.register_pytree_node(
    Counted, lambda node: ((node.a, node.b), node.label), lambda label, ab: Counted(*ab, label)
)


def test_registered_nodes_keep_from_the_target_what_is_no_child(stored: Any) -> None:
    restored = stored(Counted(1, [jnp.ones(2)], "saved"))(Counted(0, [jnp.zeros(2)], "target"))
    assert restored.a == 1 and restored.b[0].tolist() == [1, 1] and restored.label == "target"


def test_partials_are_their_arguments(stored: Any) -> None:
    value = jax.tree_util.Partial(print, 1, end=jnp.ones(2))
    restored = stored(value)(value)
    assert restored.func is print and restored.args == (1,) and restored.keywords["end"][0] == 1


def test_nodes_that_were_restored_without_a_target_are_pytrees(stored: Any) -> None:
    node = stored(Counted(1, 2, "x"))()
    assert isinstance(node, CustomNode)
    doubled = jax.tree.map(lambda leaf: leaf * 2, node)
    assert isinstance(doubled, CustomNode) and list(doubled.values()) == [2, 4]


def test_flax_train_states(stored: Any) -> None:
    flax = pytest.importorskip("flax", reason="needs flax")
    optax = pytest.importorskip("optax", reason="needs optax")
    from flax.training.train_state import TrainState

    params = flax.core.freeze({"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)}})
    mask = flax.core.freeze({"dense": {"kernel": True, "bias": False}})
    masked = optax.masked(optax.sgd(1e-3, momentum=0.9), mask)
    optimizer = optax.chain(optax.clip(1.0), optax.adamw(1e-3), masked)
    state = TrainState.create(apply_fn=print, params=params, tx=optimizer)
    restore = stored(state)
    # What jax makes abstract has an array in the place of the number of steps.
    in_abstract = state.replace(step=jnp.zeros((), jnp.int32))
    for target, expected in ((state, state), (jax.eval_shape(lambda: state), in_abstract)):
        restored = restore(target)
        assert isinstance(restored, TrainState) and restored.apply_fn is print
        assert same(restored, expected)
        restored.apply_gradients(grads=params)
    as_saved = restore()
    assert as_saved["step"] == as_saved.step == 0
    assert as_saved.params == {"dense": as_saved.params["dense"]}
    adam = as_saved.opt_state[1][0]
    assert type(adam) is type(state.opt_state[1][0]) and adam.count == 0
    assert same(stored(as_saved)(state), state)


def test_flax_nnx_states_and_modules(stored: Any) -> None:
    nnx = pytest.importorskip("flax.nnx", reason="needs flax")
    optax = pytest.importorskip("optax", reason="needs optax")

    class Model(nnx.Module):  # type: ignore[misc, name-defined]
        def __init__(self, rngs: Any) -> None:
            self.layers = nnx.List([nnx.Linear(2, 2, rngs=rngs), nnx.Linear(2, 1, rngs=rngs)])
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    graph, state = nnx.split((model, optimizer))
    restore = stored(state)
    for target in (state, jax.eval_shape(lambda: state)):
        restored = restore(target)
        assert isinstance(restored, nnx.State) and same(restored, state)
        nnx.merge(graph, restored)
    assert same(stored(model)(model), model)
    pure = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert same(stored(pure)(), jax.tree.map(np.asarray, pure))


@dataclasses.dataclass(frozen=True)
class Layer:
    """As equinox makes modules: frozen, arrays and functions side by side, static fields apart."""

    weight: Any
    bias: Any
    activation: Any
    width: int = dataclasses.field(metadata={"static": True})

    def __call__(self, x: Any) -> Any:
        return self.activation(self.weight @ x + self.bias)


def _flatten_layer(layer: Layer) -> tuple[list[Any], int]:
    names = ("weight", "bias", "activation")
    keys = [(jax.tree_util.GetAttrKey(name), getattr(layer, name)) for name in names]
    return keys, layer.width


def _unflatten_layer(width: int, children: Any) -> Layer:
    layer = object.__new__(Layer)  # As equinox: no __init__ is run.
    for name, value in zip(("weight", "bias", "activation"), children):
        object.__setattr__(layer, name, value)
    object.__setattr__(layer, "width", width)
    return layer


jax.tree_util.register_pytree_with_keys(Layer, _flatten_layer, _unflatten_layer)


def test_modules_like_equinoxs_leave_their_functions_where_they_are(stored: Any) -> None:
    def layer(seed: int, activation: Any) -> Layer:
        weight = jax.random.normal(jax.random.key(seed), (3, 3))
        return Layer(weight, jnp.full(3, float(seed)), activation, 3)

    model = {"layers": [layer(1, jax.nn.relu), layer(2, jnp.tanh)], "step": 7}
    other = {"layers": [layer(3, jax.nn.gelu), layer(4, jnp.tanh)], "step": 0}
    restore = stored(model)
    restored = restore(other)
    assert restored["step"] == 7
    for found, saved, target in zip(restored["layers"], model["layers"], other["layers"]):
        assert type(found) is Layer and found.width == 3
        assert found.activation is target.activation
        assert np.array_equal(found.weight, saved.weight)
        assert np.array_equal(found.bias, saved.bias)
    with pytest.raises(dataclasses.FrozenInstanceError):
        restored["layers"][0].width = 4
    # An abstract target, as eqx.filter_eval_shape makes one.
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if hasattr(leaf, "dtype") else leaf,
        model,
    )
    found = restore(abstract)["layers"][1]
    assert np.array_equal(found(jnp.ones(3)), model["layers"][1](jnp.ones(3)))
    # Without a target there are no functions to take over: a node with the arrays.
    assert restore()["layers"][0]["bias"].tolist() == [1.0, 1.0, 1.0]


def test_equinox_modules_leave_their_functions_where_they_are(stored: Any) -> None:
    eqx = pytest.importorskip("equinox", reason="needs equinox")
    model = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
    other = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(1))
    restored = stored(model)(other)
    assert isinstance(restored, eqx.nn.MLP) and restored.activation is other.activation
    assert same(eqx.filter(restored, eqx.is_array), eqx.filter(model, eqx.is_array))
    assert np.array_equal(restored(jnp.ones(2)), model(jnp.ones(2)))


# What one machine with a CPU does not have.


def test_arrays_of_other_processes_are_refused() -> None:
    from stepstone import _jax
    from stepstone._foreign import RefusedLeaf

    class Elsewhere:
        """Stands for an array over the devices of several processes."""

        dtype = np.dtype(np.float32)
        is_fully_addressable = False

        def is_deleted(self) -> bool:
            return False

    with pytest.raises(RefusedLeaf, match="other processes"):
        _jax._save_array(Elsewhere())


def test_all_arrays_leave_an_accelerator_before_any_is_waited_for(monkeypatch: Any) -> None:
    from stepstone import _jax

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    started = []
    kind = type(jnp.ones(1))
    monkeypatch.setattr(kind, "copy_to_host_async", lambda array: started.append(array))
    arrays = [jnp.ones(2), jnp.zeros(3)]
    deleted = jnp.ones(4)
    deleted.delete()
    _jax.start_transfers({"a": arrays[0], "b": [arrays[1], 5, deleted]})
    assert [array.shape for array in started] == [(2,), (3,)]
    _jax.start_transfers({"a": 1, 2: arrays[0]})  # Keys that jax cannot sort.
