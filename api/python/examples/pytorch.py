"""Trains a PyTorch network on the UCI digits, with AdamW, a learning-rate schedule and dropout.

    python pytorch.py --data digits.csv --store /tmp/digits-torch --steps 400

Stop it at any moment, also with `kill -9`, and start it again: it goes on from the newest checkpoint
and ends with the same bits as a run that nobody stopped.
"""

from __future__ import annotations

import argparse
import hashlib
from typing import Any

import numpy as np
import torch

import stepstone as ocp

BATCH_SIZE = 64


def load(file: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (1797, 64) from 0 to 1, and digits (1797,)."""
    table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.int64))
    return table[:, :64].float() / 16, table[:, 64]


class Training:
    """All that a step depends on, and what a checkpoint therefore has to hold."""

    def __init__(self, step_count: int):
        torch.manual_seed(0)  # Of the first weights, and of dropout.
        self.step = 0
        self.model = torch.nn.Sequential(
            torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(128, 10)
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.005)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, step_count)
        self.batches = torch.Generator().manual_seed(1)

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "batches": self.batches.get_state(),
            "dropout": torch.get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.batches.set_state(state["batches"])
        torch.set_rng_state(state["dropout"])

    def train_step(self, images: torch.Tensor, digits: torch.Tensor) -> float:
        batch = torch.randint(len(images), (BATCH_SIZE,), generator=self.batches)
        loss = torch.nn.functional.cross_entropy(self.model(images[batch]), digits[batch])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        return loss.item()

    def digest(self) -> str:
        moments = [each for state in self.optimizer.state.values() for each in state.values()]
        tensors = [*self.model.state_dict().values(), *moments]
        return hashlib.sha256(b"".join(each.numpy().tobytes() for each in tensors)).hexdigest()


def to_tensors(value: Any) -> Any:
    """What was restored without a target: its arrays of numpy as tensors, which take their memory."""
    if isinstance(value, dict):
        return {key: to_tensors(each) for key, each in value.items()}
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", required=True, help="digits.csv")
    parser.add_argument("--store", required=True, help="the directory of the checkpoints")
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    images, digits = load(options.data)
    training = Training(options.steps)

    keep = ocp.CheckpointManagerOptions(save_interval_steps=5, max_to_keep=3)
    with ocp.CheckpointManager(options.store, options=keep) as manager:
        if (latest := manager.latest_step()) is not None:
            # Without a target, as an optimizer has no state before its first step.
            training.load_state_dict(to_tensors(manager.restore(latest)))
            print(f"resumed at step {latest}", flush=True)
        while training.step < options.steps:
            loss = training.train_step(images, digits)
            # Returns at once; what the tensors hold now is what is written.
            manager.save(training.step, args=ocp.args.StandardSave(training.state_dict()))
            if training.step % 10 == 0:
                print(f"step {training.step}: loss {loss:.4f}", flush=True)

    training.model.eval()
    right = (training.model(images).argmax(dim=1) == digits).float().mean()
    print(f"{right:.1%} of the digits right")
    print(f"digest {training.digest()}")


if __name__ == "__main__":
    main()
