"""The examples in the docstrings, run as they are shown."""

from __future__ import annotations

import doctest
import importlib
import pathlib
import pkgutil

import pytest

import stepstone


def module_names() -> list[str]:
    submodules = pkgutil.walk_packages(stepstone.__path__, "stepstone.")
    return ["stepstone", *(module.name for module in submodules if not module.ispkg)]


@pytest.mark.parametrize("name", module_names())
def test_docstrings_show_what_happens(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "stepstone._native":
        pytest.skip("compiled: it has no docstrings with examples")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and not error.name.startswith("stepstone"):
            pytest.skip(f"{error.name} is absent, which {name} is about")
        raise
    monkeypatch.chdir(tmp_path)  # Where examples with relative paths write.
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.testmod(module, extraglobs={"tmp_path": tmp_path}, optionflags=options)
    assert failed == 0


def test_there_are_examples_in_docstrings() -> None:
    finder = doctest.DocTestFinder()
    count = 0
    for name in module_names():
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        count += sum(bool(test.examples) for test in finder.find(module))
    assert count >= 20
