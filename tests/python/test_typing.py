"""The package's types, checked by mypy as a user's would: nothing may be left untyped."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

CHECKED = {
    "package": ["stepstone"],
    "numpy example": ["examples/numpy_only.py"],
    "jax example": ["examples/plain_jax.py"],
    "flax example": ["examples/flax_optax.py"],
    "torch example": ["examples/pytorch.py"],
}
NEEDED = {"jax example": ["jax"], "flax example": ["jax", "flax", "optax"],
          "torch example": ["torch"]}


@pytest.mark.parametrize("what", CHECKED)
def test_mypy_strict_finds_nothing(
    what: str, repository: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is absent")
    absent = [name for name in NEEDED.get(what, []) if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} absent: the types of this example cannot be checked")
    package = repository / "api" / "python"
    # What mypy learned about other libraries is kept from one run to the next, where there is a place for it.
    build = pathlib.Path(os.environ.get("STEPSTONE_BUILD", repository / "build"))
    cache = (build if build.is_dir() else tmp_path_factory.getbasetemp()) / "mypy"
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", cache,
         *CHECKED[what]],
        cwd=package, capture_output=True, text=True,
        env=os.environ | {"MYPYPATH": str(package)},
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_package_says_that_it_is_typed(repository: pathlib.Path) -> None:
    assert (repository / "api/python/stepstone/py.typed").exists()
    assert (repository / "api/python/stepstone/_native.pyi").exists()
