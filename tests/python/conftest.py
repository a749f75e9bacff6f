"""What the tests of the Python package share: where the data is, which libraries there are, processes.

Run them with `pytest tests/python`, with the package installed or `PYTHONPATH=api/python`.
What a machine lacks (jax, torch, Orbax, the data) is skipped, and the output says why.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator

import hypothesis
import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "api" / "python"

# Without a deadline: a machine that is busy is no error.
hypothesis.settings.register_profile(
    "stepstone",
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("stepstone")

# One device is the usual case; the tests of sharding need several, and jax asks only once.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ.setdefault("JAX_PLATFORMS", "cpu")


def pytest_report_header() -> list[str]:
    import stepstone

    return [f"stepstone: {pathlib.Path(stepstone.__file__).parent}"]


@pytest.fixture(scope="session")
def repository() -> pathlib.Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def examples() -> pathlib.Path:
    return PACKAGE / "examples"


@pytest.fixture(scope="session")
def digits() -> pathlib.Path:
    """The UCI digits, which `tools/test` fetches."""
    file = pathlib.Path(os.environ.get("STEPSTONE_DIGITS", REPOSITORY / "build/data/digits.csv"))
    if not file.exists():
        pytest.skip(f"{file} is absent: tools/test fetches it, or STEPSTONE_DIGITS names it")
    return file


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Environment variables for a process that imports the package which is being tested."""
    import stepstone

    package = str(pathlib.Path(stepstone.__file__).resolve().parents[1])
    path = os.environ.get("PYTHONPATH")
    # The examples are run as users do, on one device.
    variables = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return variables | {"PYTHONPATH": os.pathsep.join([package, path] if path else [package])}


@pytest.fixture
def run_python(environment: dict[str, str], tmp_path: pathlib.Path) -> Callable[..., str]:
    """`run_python(program, *arguments)`: its output, from a process of its own.

    It has to exit with `status` (0).
    """

    def run(program: str, *arguments: object, status: int = 0, timeout_s: float = 120) -> str:
        result = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=timeout_s,
        )
        assert result.returncode == status, (
            f"exit status {result.returncode}\n{result.stdout}\n{result.stderr}"
        )
        return result.stdout

    return run


@pytest.fixture
def start_python(
    environment: dict[str, str], tmp_path: pathlib.Path
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a program in a process of its own, whose output can be read; ends it after the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: object) -> subprocess.Popen[str]:
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", program, *map(str, arguments)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env=environment, cwd=tmp_path,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
