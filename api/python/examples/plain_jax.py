"""Trains a small network on the UCI digits with JAX alone: a dict of arrays, `grad` and `jit`.

    python plain_jax.py --data digits.csv --store /tmp/digits-jax --steps 400

Stop it at any moment, also with `kill -9`, and start it again: it goes on from the newest checkpoint
and ends with the same bits as a run that nobody stopped.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import stepstone as ocp

State = dict[str, Any]

LEARNING_RATE, MOMENTUM, BATCH_SIZE = 0.05, 0.9, 64


def load(file: str) -> tuple[jax.Array, jax.Array]:
    """Images (1797, 64) from 0 to 1, and digits (1797,)."""
    table = np.loadtxt(file, delimiter=",", dtype=np.int32)
    return jnp.asarray(table[:, :64] / 16, jnp.float32), jnp.asarray(table[:, 64])


def initial_state(hidden: int = 128) -> State:
    key, key1, key2 = jax.random.split(jax.random.key(0), 3)
    parameters = {
        "layer1": {"w": 0.1 * jax.random.normal(key1, (64, hidden)), "b": jnp.zeros(hidden)},
        "layer2": {"w": 0.1 * jax.random.normal(key2, (hidden, 10)), "b": jnp.zeros(10)},
    }
    velocity = jax.tree.map(jnp.zeros_like, parameters)
    return {"parameters": parameters, "velocity": velocity, "key": key}


def scores(parameters: State, images: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(images @ parameters["layer1"]["w"] + parameters["layer1"]["b"])
    result: jax.Array = hidden @ parameters["layer2"]["w"] + parameters["layer2"]["b"]
    return result


def loss_of(parameters: State, images: jax.Array, digits: jax.Array) -> jax.Array:
    logarithms = jax.nn.log_softmax(scores(parameters, images))
    return -jnp.take_along_axis(logarithms, digits[:, None], axis=1).mean()


@functools.partial(jax.jit, donate_argnames="state")
def train_step(state: State, images: jax.Array, digits: jax.Array) -> tuple[State, jax.Array]:
    """One step of gradient descent with momentum. The memory of the old state is used again."""
    key, batch_key = jax.random.split(state["key"])
    batch = jax.random.randint(batch_key, (BATCH_SIZE,), 0, len(images))
    loss, gradients = jax.value_and_grad(loss_of)(
        state["parameters"], images[batch], digits[batch]
    )
    velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, state["velocity"], gradients)
    parameters = jax.tree.map(lambda p, v: p - LEARNING_RATE * v, state["parameters"], velocity)
    return {"parameters": parameters, "velocity": velocity, "key": key}, loss


def digest(state: State) -> str:
    arrays = jax.tree.leaves([state["parameters"], state["velocity"]])
    return hashlib.sha256(b"".join(np.asarray(each).tobytes() for each in arrays)).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", required=True, help="digits.csv")
    parser.add_argument("--store", required=True, help="the directory of the checkpoints")
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    images, digits = load(options.data)
    state = initial_state()

    keep = ocp.CheckpointManagerOptions(save_interval_steps=5, max_to_keep=3)
    with ocp.CheckpointManager(options.store, options=keep) as manager:
        first = manager.latest_step() or 0
        if first:
            state = manager.restore(first, args=ocp.args.StandardRestore(state))
            print(f"resumed at step {first}", flush=True)
        for step in range(first + 1, options.steps + 1):
            state, loss = train_step(state, images, digits)
            manager.save(step, args=ocp.args.StandardSave(state))
            if step % 10 == 0:
                print(f"step {step}: loss {loss:.4f}", flush=True)

    right = (scores(state["parameters"], images).argmax(axis=1) == digits).mean()
    print(f"{right:.1%} of the digits right")
    print(f"digest {digest(state)}")


if __name__ == "__main__":
    main()
