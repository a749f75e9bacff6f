"""Saving in parts: nothing is there before the end, and nothing is lost at any point."""

from __future__ import annotations

import os
import pathlib
import shutil
from typing import Any, NamedTuple

import numpy as np
import pytest

from stepstone import partial as partial_module
from stepstone import v1 as ocp


class Pair(NamedTuple):
    first: Any
    second: Any


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "checkpoint"


def test_parts_are_one_checkpoint_in_the_end(path: pathlib.Path) -> None:
    first = {"a": 1, "n": {"x": Pair(np.ones(2), "x")}}
    ocp.partial.save(path, first, custom_metadata={"p": 1, "q": 1})
    ocp.partial.save(path, {"n": {"y": [np.zeros(3, np.int8)]}, 7: None}, custom_metadata={"q": 2})
    assert not path.exists()
    ocp.partial.finalize(path)
    assert os.listdir(path.parent) == [path.name]
    target = {"a": 0, "n": {"x": Pair(np.ones(2), ""), "y": [np.ones(3, np.int8)]}, 7: None}
    found = ocp.load(path, target)
    np.testing.assert_equal(
        found, {"a": 1, "n": {"x": Pair(np.ones(2), "x"), "y": [np.zeros(3, np.int8)]}, 7: None}
    )
    assert isinstance(found["n"]["x"], Pair)
    assert ocp.metadata(path).custom_metadata == {"p": 1, "q": 2}


def test_saves_in_the_background_see_each_other(path: pathlib.Path) -> None:
    first = ocp.partial.save_async(path, {"a": np.ones(1 << 16)})
    second = ocp.partial.save_async(path, {"b": 2})
    with pytest.raises(partial_module.PartialSaveReplacementError):
        ocp.partial.save_async(path, {"b": 3})
    first.result()
    second.result()
    ocp.partial.finalize(f"{path}.partial_save")
    assert ocp.load(path)["b"] == 2


@pytest.mark.parametrize(
    "second", [{"n": {"x": 2}}, {"n": 2}, {"n": {"x": {"z": 1}}}, {"l": {"k": 1}}, [1]]
)
def test_a_part_replaces_nothing(path: pathlib.Path, second: Any) -> None:
    ocp.partial.save(path, {"n": {"x": 1}, "l": [1]})
    with pytest.raises(ocp.errors.PartialSaveReplacementError) as raised:
        ocp.partial.save(path, second)
    assert isinstance(raised.value, partial_module.PartialSaveError)
    ocp.partial.finalize(path)
    assert ocp.load(path) == {"n": {"x": 1}, "l": [1]}


def test_what_is_there_is_not_added_to(path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        ocp.partial.finalize(path)
    ocp.save(path, {"a": 1})
    with pytest.raises(FileExistsError):
        ocp.partial.save(path, {"b": 1})
    with pytest.raises(FileExistsError):
        ocp.partial.finalize(path)
    assert ocp.load(path) == {"a": 1}


def test_a_finalize_that_was_interrupted_is_finished_by_the_next(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise InterruptedError

    ocp.partial.save(path, {"a": 1})
    ocp.partial.save(path, {"b": 2})
    # Before the union is complete, when it is, and when the parts are gone.
    steps = ((partial_module, "_save_union"), (shutil, "rmtree"), (os, "rename"))
    for module, name in steps:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(InterruptedError):
                ocp.partial.finalize(path)
        assert not path.exists()
    with pytest.raises(ocp.errors.PartialSaveError, match="finalize"):
        ocp.partial.save(path, {"c": 3})
    ocp.partial.finalize(path)
    assert ocp.load(path) == {"a": 1, "b": 2}
    assert os.listdir(path.parent) == [path.name]


def test_a_part_whose_save_was_interrupted_does_not_count(path: pathlib.Path) -> None:
    ocp.partial.save(path, {"a": 1})
    (path.with_name("checkpoint.partial_save") / "1").mkdir()
    ocp.partial.save(path, {"b": 2})
    ocp.partial.finalize(path)
    assert ocp.load(path) == {"a": 1, "b": 2}
