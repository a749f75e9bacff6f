"""Trains a flax network on the UCI digits with an optax optimizer, and keeps the best two states.

    python flax_optax.py --data digits.csv --store /tmp/digits-flax --steps 400

Stop it at any moment, also with `kill -9`, and start it again: it goes on from the newest checkpoint
and ends with the same bits as a run that nobody stopped.
"""

from __future__ import annotations

import argparse
import hashlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state

import stepstone as ocp

BATCH_SIZE = 64


class Network(nn.Module):
    @nn.compact
    def __call__(self, images: jax.Array, is_training: bool) -> jax.Array:
        hidden = nn.relu(nn.Dense(128)(images))
        hidden = nn.Dropout(0.2, deterministic=not is_training)(hidden)
        scores: jax.Array = nn.Dense(10)(hidden)
        return scores


class TrainState(train_state.TrainState):
    """Parameters, optimizer and step, and the random key that dropout and the batches come from."""

    key: jax.Array


def load(file: str) -> tuple[jax.Array, jax.Array]:
    """Images (1797, 64) from 0 to 1, and digits (1797,)."""
    table = np.loadtxt(file, delimiter=",", dtype=np.int32)
    return jnp.asarray(table[:, :64] / 16, jnp.float32), jnp.asarray(table[:, 64])


def initial_state(step_count: int) -> TrainState:
    network = Network()
    key, parameter_key = jax.random.split(jax.random.key(0))
    variables = network.init(parameter_key, jnp.zeros((1, 64)), is_training=False)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.005, 20, step_count)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))
    state: TrainState = TrainState.create(
        apply_fn=network.apply, params=variables["params"], tx=optimizer, key=key
    )
    return state


@jax.jit
def train_step(
    state: TrainState, images: jax.Array, digits: jax.Array
) -> tuple[TrainState, jax.Array]:
    key, batch_key, dropout_key = jax.random.split(state.key, 3)
    batch = jax.random.randint(batch_key, (BATCH_SIZE,), 0, len(images))

    def loss_of(params: optax.Params) -> jax.Array:
        scores = state.apply_fn(
            {"params": params}, images[batch], is_training=True, rngs={"dropout": dropout_key}
        )
        loss: jax.Array = optax.losses.softmax_cross_entropy_with_integer_labels(
            scores, digits[batch]
        ).mean()
        return loss

    loss, gradients = jax.value_and_grad(loss_of)(state.params)
    return state.apply_gradients(grads=gradients, key=key), loss


@jax.jit
def accuracy(state: TrainState, images: jax.Array, digits: jax.Array) -> jax.Array:
    scores = state.apply_fn({"params": state.params}, images, is_training=False)
    right: jax.Array = (scores.argmax(axis=1) == digits).mean()
    return right


def digest(state: TrainState) -> str:
    arrays = jax.tree.leaves([state.params, state.opt_state, jax.random.key_data(state.key)])
    return hashlib.sha256(b"".join(np.asarray(each).tobytes() for each in arrays)).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", required=True, help="digits.csv")
    parser.add_argument("--store", required=True, help="the directory of the checkpoints")
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    images, digits = load(options.data)
    state = initial_state(options.steps)

    keep = ocp.CheckpointManagerOptions(
        save_interval_steps=5, max_to_keep=2, best_fn=lambda metrics: float(metrics["accuracy"])
    )
    with ocp.CheckpointManager(options.store, options=keep) as manager:
        first = manager.latest_step() or 0
        if first:
            state = manager.restore(first, args=ocp.args.StandardRestore(state))
            print(f"resumed at step {first}", flush=True)
        for step in range(first + 1, options.steps + 1):
            state, loss = train_step(state, images, digits)
            if manager.should_save(step):
                metrics = {"accuracy": float(accuracy(state, images, digits))}
                manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)
            if step % 10 == 0:
                print(f"step {step}: loss {loss:.4f}", flush=True)
        print(f"best step {manager.best_step()}")

    print(f"{accuracy(state, images, digits):.1%} of the digits right")
    print(f"digest {digest(state)}")


if __name__ == "__main__":
    main()
