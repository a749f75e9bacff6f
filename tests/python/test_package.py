"""The package as its users get it: `pip install` into an empty environment, then the README."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest


def code_blocks(readme: pathlib.Path, heading: str) -> list[str]:
    """The Python programs below a heading."""
    text = readme.read_text()
    assert f"\n## {heading}\n" in text
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def run(*command: object, **options: object) -> str:
    result = subprocess.run(  # type: ignore[call-overload]
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-5000:]}"
    return str(result.stdout)


@pytest.fixture(scope="module")
def installed(repository: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The Python of an environment in which nothing but the package was installed."""
    wheel = os.environ.get("STEPSTONE_WHEEL")
    directory = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", directory)
    python = directory / "bin" / "python"
    package = wheel or repository / "api" / "python"
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", package]
    # A build of the library that is there already saves minutes; without it all is compiled.
    library = pathlib.Path(os.environ.get("STEPSTONE_BUILD", repository / "build")) / "prefix"
    if not wheel and library.exists():
        command += ["--config-settings", f"cmake.define.stepstone_ROOT={library}",
                    "--config-settings", f"build-dir={library / 'python-package'}"]
    run(*command)  # Where packages come from is a matter of pip's own configuration.
    return python


@pytest.fixture
def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


@pytest.fixture
def quickstart(repository: pathlib.Path) -> str:
    (program,) = code_blocks(repository / "api/python/README.md", "Quickstart")
    return program


def test_quickstart_has_ten_lines_and_prints_what_the_readme_says(
    installed: pathlib.Path, quickstart: str, clean_environment: dict[str, str],
    tmp_path: pathlib.Path,
) -> None:
    assert len([line for line in quickstart.splitlines() if line.strip()]) <= 10
    output = run(installed, "-c", quickstart, cwd=tmp_path, env=clean_environment)
    expected = re.findall(r"# prints (.*)$", quickstart, re.MULTILINE)
    assert output.splitlines() == expected != []


def test_numpy_is_all_that_is_installed_with_it(
    installed: pathlib.Path, clean_environment: dict[str, str]
) -> None:
    output = run(installed, "-m", "pip", "list", "--format", "freeze", env=clean_environment)
    names = {line.partition("==")[0].lower() for line in output.splitlines() if "==" in line}
    assert names <= {"stepstone", "numpy", "pip", "setuptools"} and "numpy" in names


def test_the_installed_package_brings_its_types_and_its_version(
    installed: pathlib.Path, clean_environment: dict[str, str]
) -> None:
    program = """
import importlib.metadata, pathlib, stepstone
package = pathlib.Path(stepstone.__file__).parent
print(all((package / name).exists() for name in ("py.typed", "_native.pyi")))
print(importlib.metadata.version("stepstone") == stepstone.__version__)
"""
    assert run(installed, "-c", program, env=clean_environment).split() == ["True", "True"]


def test_the_wheel_holds_no_more_than_the_package(
    installed: pathlib.Path, clean_environment: dict[str, str]
) -> None:
    program = "import importlib.metadata as m; print(*m.files('stepstone'), sep='\\n')"
    files = run(installed, "-c", program, env=clean_environment).split()
    strange = [file for file in files if not re.match(r"stepstone(-[^/]*\.dist-info|\.libs)?/", file)]
    assert strange == []


def test_every_program_of_the_readme_runs(
    repository: pathlib.Path, tmp_path: pathlib.Path, environment: dict[str, str]
) -> None:
    readme = (repository / "api/python/README.md").read_text()
    programs = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert len(programs) >= 3
    for number, program in enumerate(programs):
        if "import jax" in program:
            pytest.importorskip("jax", reason="jax is absent, which a program of the README uses")
        directory = tmp_path / str(number)
        directory.mkdir()
        output = run(sys.executable, "-c", program, cwd=directory, env=environment)
        assert output.splitlines() == re.findall(r"# prints (.*)$", program, re.MULTILINE)
