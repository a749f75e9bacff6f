"""The benchmarks run, with states so small that they say nothing; what they measure is checked by themselves."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

OPERATIONS = {
    "small": ["save", "save_sync", "restore", "leaf", "managed", "stall", "stall_jax"],
    "tiny-steps": ["steps", "steps_async"],
}
SHRINK, STEPS = 1000, 4


@pytest.mark.parametrize("workload", OPERATIONS)
def test_every_measurement_of_the_package_beside_its_peers_works(
    workload: str, repository: pathlib.Path, tmp_path: pathlib.Path, environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = repository / "tools" / "bench"
    monkeypatch.syspath_prepend(str(bench))
    import peer_formats

    peer_formats.make_state(workload, tmp_path / "state", SHRINK)
    for operation in OPERATIONS[workload]:
        if operation == "stall_jax" and importlib.util.find_spec("jax") is None:
            continue
        place = tmp_path / (operation if operation not in ("restore", "leaf") else "save")
        result = subprocess.run(
            [sys.executable, bench / "peer_formats.py", "stepstone-python", operation, workload,
             tmp_path / "state", place, "0", str(STEPS)],
            capture_output=True, text=True, env=environment,
        )
        assert result.returncode == 0, result.stderr
        figures = json.loads(result.stdout.splitlines()[-1])
        assert figures and all(value > 0 for value in figures.values())


def test_the_benchmark_of_a_python_loop_measures_a_save_beside_other_work(
    repository: pathlib.Path, tmp_path: pathlib.Path, environment: dict[str, str]
) -> None:
    result = subprocess.run(
        [sys.executable, repository / "tools/bench/python_loop.py", "--megabytes", "16", "--seconds",
         "0.05", "--repetitions", "1", "--directory", tmp_path, "--json", tmp_path / "figures.json"],
        capture_output=True, text=True, env=environment,
    )
    assert result.returncode == 0, result.stderr
    compute, save = json.loads((tmp_path / "figures.json").read_text())
    assert compute["during"] == "compute" and save["during"] == "a save by stepstone"
    assert save["speed"] > 0 and save["longest_ms"] > 0 and save["stall_ms"] > 0
