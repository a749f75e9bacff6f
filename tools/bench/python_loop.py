#!/usr/bin/env python3
"""How much a save in the background slows a Python training loop.

    PYTHONPATH=api/python tools/bench/python_loop.py
    PYTHONPATH=api/python build/peers-venv/bin/python tools/bench/python_loop.py --only stepstone,orbax

The loop runs rounds of Python code (some 100 us each, with nothing in it that releases the GIL) on one
thread for a while without a save, then while a state is saved in the background, in turns. `speed` is
the rounds per second during the save over those without one; `longest` is the longest round: how long
the loop stood still at most. A save that held the GIL would show in both.

`compute` stands beside it: a thread that only hashes, outside the GIL, in place of the save. On a machine
with few cores what a save takes of the loop's own core is what any other thread would take, too.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import pathlib
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

LIBRARIES = {"stepstone": "stepstone", "orbax": "orbax.checkpoint"}
LEAF_SIZE_BYTES = 8 << 20


def one_round() -> int:
    total = 0
    for i in range(1500):
        total += i * i
    return total


def run_rounds(until: Callable[[], bool]) -> tuple[float, float]:
    """Rounds per second until `until()`, and the longest round in seconds."""
    longest, count = 0.0, 0
    begin = before = time.perf_counter()
    while True:
        one_round()
        count += 1
        now = time.perf_counter()
        longest = max(longest, now - before)
        before = now
        if until():
            return count / (now - begin), longest


def run_for(seconds: float) -> tuple[float, float]:
    end = time.perf_counter() + seconds
    return run_rounds(lambda: time.perf_counter() >= end)


class Hashing:
    """Work on one core that holds the GIL no more than a save does."""

    def __init__(self) -> None:
        self.data = bytes(LEAF_SIZE_BYTES)

    def measure(self, seconds: float) -> tuple[float, float]:
        end = time.perf_counter() + seconds

        def work() -> None:
            while time.perf_counter() < end:
                hashlib.sha256(self.data).digest()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            return run_rounds(lambda: not thread.is_alive())
        finally:
            thread.join()


class Saving:
    """Saves in the background by a manager, each of a state that differs everywhere."""

    def __init__(self, module: str, directory: pathlib.Path, size_bytes: int):
        self.ocp: Any = importlib.import_module(module)
        options = self.ocp.CheckpointManagerOptions(max_to_keep=1)
        self.manager = self.ocp.CheckpointManager(directory, options=options)
        generator = np.random.default_rng(1)
        self.state = {
            f"leaf{leaf}": generator.standard_normal(LEAF_SIZE_BYTES // 4, dtype=np.float32)
            for leaf in range(max(1, size_bytes // LEAF_SIZE_BYTES))
        }
        self.step = 0
        self.stall_s = 0.0
        self.measure(0)  # The first one sets things up.

    def measure(self, _: float) -> tuple[float, float]:
        for array in self.state.values():
            array += np.float32(1)
        begin = time.perf_counter()
        self.manager.save(self.step, args=self.ocp.args.StandardSave(self.state))
        self.stall_s = time.perf_counter() - begin
        self.step += 1
        try:
            return run_rounds(lambda: not self.manager.is_saving_in_progress())
        finally:
            self.manager.wait_until_finished()

    def close(self) -> None:
        self.manager.close()


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    directory = pathlib.Path(tempfile.mkdtemp(dir=options.directory.resolve()))
    source: Any = Hashing() if name == "compute" else Saving(
        LIBRARIES[name], directory / "run", options.megabytes * 10**6
    )
    speeds, longest, quiet_longest, stalls = [], [], [], []
    try:
        for _ in range(options.repetitions):
            quiet, quiet_longest_s = run_for(options.seconds)
            during, longest_s = source.measure(options.seconds)
            speeds.append(during / quiet)
            longest.append(longest_s * 1e3)
            quiet_longest.append(quiet_longest_s * 1e3)
            stalls.append(getattr(source, "stall_s", 0.0) * 1e3)
    finally:
        if name != "compute":
            source.close()
        shutil.rmtree(directory, ignore_errors=True)
    return {
        "during": name if name == "compute" else f"a save by {name}",
        "speed": statistics.median(speeds), "speed_samples": speeds,
        "longest_ms": statistics.median(longest), "longest_samples": longest,
        "longest_without_ms": statistics.median(quiet_longest),
        "stall_ms": statistics.median(stalls) if name != "compute" else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="NAME,...", type=lambda text: text.split(","),
                        default=["compute", "stepstone"], help="of compute, stepstone, orbax")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=512, help="the state's size")
    parser.add_argument("--seconds", type=float, default=0.5, help="of the loop without a save")
    parser.add_argument("--directory", type=pathlib.Path, default=pathlib.Path(),
                        help="on the disk to save to")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the figures")
    options = parser.parse_args()
    for name in options.only:
        if name not in ("compute", *LIBRARIES):
            parser.error(f"{name!r} is none of compute, {', '.join(LIBRARIES)}")
    rows = [measure(name, options) for name in options.only]
    print(f"{'DURING':<22} {'SPEED':>6} {'LONGEST':>9} {'WITHOUT':>9} {'STALL':>9}")
    for row in rows:
        stall = "" if row["stall_ms"] is None else f"{row['stall_ms']:6.1f} ms"
        print(f"{row['during']:<22} {row['speed']:6.3f} {row['longest_ms']:6.2f} ms "
              f"{row['longest_without_ms']:6.2f} ms {stall:>9}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
