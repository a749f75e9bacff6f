"""The examples: real training runs, killed and resumed, and an Orbax script whose import was changed."""

from __future__ import annotations

import difflib
import importlib.util
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import pytest

KILL_COUNT = 3
SEED = int(os.environ.get("STEPSTONE_SEED", random.SystemRandom().randrange(10**6)))

# The example, what it needs, and how many steps take it about a second.
EXAMPLES = [
    ("numpy_only.py", [], 3000),
    ("plain_jax.py", ["jax"], 1000),
    ("flax_optax.py", ["jax", "flax", "optax"], 500),
    ("pytorch.py", ["torch"], 500),
]


@pytest.fixture(scope="module")
def surroundings(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Environment variables with which many runs take as little time as possible."""
    return environment | {
        # Compiling is most of what a run with jax does, and the same each time.
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        # Threads that spin while they wait take minutes where other processes run, too.
        "OMP_NUM_THREADS": "1",
    }


def skip_without(modules: list[str]) -> None:
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} absent: this example cannot be run here")


class Training:
    """Runs of one example in one store."""

    def __init__(self, arguments: list[str], environment: dict[str, str]):
        self.arguments, self.environment = arguments, environment

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *self.arguments], env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )

    def run(self) -> str:
        return finished(self.start())

    def run_and_kill(self, step: int, delay_s: float) -> None:
        """Kills it so many seconds after it reported this step, or a later one."""
        output = ""
        with self.start() as process:
            assert process.stdout is not None
            for line in process.stdout:
                output += line
                reported = re.match(r"step (\d+):", line)
                if reported and int(reported[1]) >= step:
                    time.sleep(delay_s)  # A moment in the middle of whatever it does by then.
                    process.kill()
                    break
            output += process.communicate()[0]
        assert process.returncode == -signal.SIGKILL, output


def finished(process: subprocess.Popen[str]) -> str:
    with process:
        output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize("name, modules, steps", EXAMPLES, ids=[each[0] for each in EXAMPLES])
def test_example_that_is_killed_and_resumed_ends_with_the_same_bits(
    name: str, modules: list[str], steps: int, examples: pathlib.Path, digits: pathlib.Path,
    surroundings: dict[str, str], tmp_path: pathlib.Path,
) -> None:
    skip_without(modules)
    print(f"STEPSTONE_SEED={SEED}")
    rng = random.Random(f"{SEED} {name}")

    def training(store: str) -> Training:
        arguments = ["--data", digits, "--store", tmp_path / store, "--steps", steps]
        return Training([str(examples / name), *map(str, arguments)], surroundings)

    whole_run = training("whole").start()  # Meanwhile: most of the time is spent on imports.
    interrupted = training("interrupted")
    part = steps // (KILL_COUNT + 1)
    for kill in range(KILL_COUNT):
        step = part * kill + rng.randrange(10, part)
        interrupted.run_and_kill(step, delay_s=rng.uniform(0, 0.02))
    resumed = interrupted.run()
    whole = finished(whole_run)

    found = re.search(r"^resumed at step (\d+)$", resumed, re.MULTILINE)
    assert found, resumed
    # Of what was reported before the last kill, only steps since the newest save are trained again.
    assert int(found[1]) >= step - 100, resumed
    digest = re.compile(r"^digest ([0-9a-f]{64})$", re.MULTILINE)
    assert digest.findall(resumed) == digest.findall(whole) != []
    # It really learns: a network that guesses has a tenth right.
    right = re.search(r"^([0-9.]+)% of the digits right$", whole, re.MULTILINE)
    assert right and float(right[1]) > 90, whole


def test_only_the_import_differs_between_the_orbax_script_and_ours(examples: pathlib.Path) -> None:
    before, after = (
        (examples / "before_after" / name).read_text().splitlines()
        for name in ("before.py", "after.py")
    )
    changes = [line for line in difflib.ndiff(before, after) if not line.startswith("  ")]
    assert changes == ["- import orbax.checkpoint as ocp", "+ import stepstone as ocp"]


def test_the_script_prints_the_same_with_orbax_and_with_stepstone(
    examples: pathlib.Path, surroundings: dict[str, str], tmp_path: pathlib.Path
) -> None:
    skip_without(["jax"])
    outputs = {
        name: Training(
            [str(examples / "before_after" / name), "--store", str(tmp_path / name)], surroundings
        ).run()
        for name in ["after.py", *(["before.py"] if has_orbax() else [])]
    }
    assert "steps [14, 16, 18] best 18\nstep 19: 2.213 x + 0.996\n" in outputs["after.py"]
    if not has_orbax():
        pytest.skip("Orbax is absent: ours was run, and there is nothing to compare it with")
    assert outputs["after.py"] == outputs["before.py"]


def has_orbax() -> bool:
    try:
        return importlib.util.find_spec("orbax.checkpoint") is not None
    except ModuleNotFoundError:
        return False
