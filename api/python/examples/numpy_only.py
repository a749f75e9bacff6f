"""Trains a network with one hidden layer on the UCI digits, with numpy and nothing else.

    python numpy_only.py --data digits.csv --store /tmp/digits-numpy --steps 400

Stop it at any moment, also with `kill -9`, and start it again: it goes on from the newest checkpoint
and ends with the same bits as a run that nobody stopped.
"""

from __future__ import annotations

import argparse
import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

import stepstone as ocp

Floats = npt.NDArray[np.float32]
Parameters = dict[str, Floats]

LEARNING_RATE, BATCH_SIZE = np.float32(0.002), 64


def load(file: str) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Images (1797, 64) from 0 to 1, and digits (1797,)."""
    table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    return (table[:, :64] / 16).astype(np.float32), table[:, 64]


def initial_state(seed: int = 0, hidden: int = 128) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    parameters: Parameters = {
        "w1": rng.normal(0, 0.1, (64, hidden)).astype(np.float32),
        "b1": np.zeros(hidden, np.float32),
        "w2": rng.normal(0, 0.1, (hidden, 10)).astype(np.float32),
        "b2": np.zeros(10, np.float32),
    }
    return {
        "step": 0,
        "parameters": parameters,
        "mean": {name: np.zeros_like(value) for name, value in parameters.items()},
        "square": {name: np.zeros_like(value) for name, value in parameters.items()},
        # Numbers of 128 bits and a string: a checkpoint takes them as they are.
        "rng": rng.bit_generator.state,
    }


def loss_and_gradients(
    parameters: Parameters, images: Floats, digits: npt.NDArray[np.int64]
) -> tuple[float, Parameters]:
    hidden = np.maximum(images @ parameters["w1"] + parameters["b1"], 0)
    scores = hidden @ parameters["w2"] + parameters["b2"]
    scores -= scores.max(axis=1, keepdims=True)
    logarithms = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    rows = np.arange(len(digits))
    slope = np.exp(logarithms)
    slope[rows, digits] -= 1
    slope /= len(digits)
    back = (slope @ parameters["w2"].T) * (hidden > 0)
    gradients = {
        "w1": images.T @ back, "b1": back.sum(axis=0),
        "w2": hidden.T @ slope, "b2": slope.sum(axis=0),
    }
    return -float(logarithms[rows, digits].mean()), gradients


def train_step(state: dict[str, Any], images: Floats, digits: npt.NDArray[np.int64]) -> float:
    """One step of Adam, in place."""
    rng = np.random.default_rng()
    rng.bit_generator.state = state["rng"]
    batch = rng.integers(len(images), size=BATCH_SIZE)
    loss, gradients = loss_and_gradients(state["parameters"], images[batch], digits[batch])
    state["step"] += 1
    for name, gradient in gradients.items():
        mean, square = state["mean"][name], state["square"][name]
        mean += np.float32(0.1) * (gradient - mean)
        square += np.float32(0.001) * (gradient * gradient - square)
        rate = LEARNING_RATE * np.float32(
            np.sqrt(1 - 0.999 ** state["step"]) / (1 - 0.9 ** state["step"])
        )
        state["parameters"][name] -= rate * mean / (np.sqrt(square) + np.float32(1e-8))
    state["rng"] = rng.bit_generator.state
    return loss


def digest(state: dict[str, Any]) -> str:
    parts = [state["parameters"], state["mean"], state["square"]]
    arrays = [part[name] for part in parts for name in sorted(part)]
    return hashlib.sha256(b"".join(each.tobytes() for each in arrays)).hexdigest()


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
        if (latest := manager.latest_step()) is not None:
            state = manager.restore(latest, args=ocp.args.StandardRestore(state))
            print(f"resumed at step {latest}", flush=True)
        while state["step"] < options.steps:
            loss = train_step(state, images, digits)
            # Returns at once; what the arrays hold now is what is written, although they change next.
            manager.save(state["step"], args=ocp.args.StandardSave(state))
            if state["step"] % 10 == 0:
                print(f"step {state['step']}: loss {loss:.4f}", flush=True)

    scores = np.maximum(images @ state["parameters"]["w1"] + state["parameters"]["b1"], 0)
    scores = scores @ state["parameters"]["w2"] + state["parameters"]["b2"]
    print(f"{(scores.argmax(axis=1) == digits).mean():.1%} of the digits right")
    print(f"digest {digest(state)}")


if __name__ == "__main__":
    main()
