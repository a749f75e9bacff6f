"""Loggers, helpers for tests, and what is shown of sizes and steps."""

from __future__ import annotations

import logging
import pathlib
import unittest
from typing import Any

import numpy as np
import pytest

import stepstone as ocp
from stepstone import _display, test_utils


class Entries(ocp.logging.AbstractLogger):
    def __init__(self) -> None:
        self.entries: list[Any] = []

    def log_entry(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        self.entries.append(msg)


def test_a_composite_logger_tells_all_that_are_loggers(caplog: pytest.LogCaptureFixture) -> None:
    one, other = Entries(), Entries()

    class OfOrbax:  # Derives from Orbax's base.
        log_entry = other.log_entry

    composite: Any = ocp.logging.CompositeLogger(
        one, OfOrbax(), object(), ocp.logging.CompositeLogger(one)
    )
    composite.log_entry({"step": 1})
    assert one.entries == other.entries == [{"step": 1}]
    assert len(caplog.records) == 2


def test_a_standard_logger_logs_below_warnings(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="stepstone"):
        ocp.logging.StandardLogger().log_entry("step %d", 3)
    assert [(record.name, record.levelno, record.message) for record in caplog.records] == [
        ("stepstone", logging.INFO, "step 3")
    ]
    with pytest.raises(TypeError):
        ocp.logging.AbstractLogger()  # type: ignore[abstract]


def test_statistics_have_the_fields_of_orbax() -> None:
    pytest.importorskip("orbax.checkpoint", reason="Orbax is absent: nothing to compare with")
    import dataclasses

    from orbax.checkpoint.logging import step_statistics as theirs

    ours = ocp.logging.step_statistics
    for name in ("SaveStepStatistics", "RestoreStepStatistics"):
        assert dataclasses.asdict(getattr(ours, name)()) == dataclasses.asdict(
            getattr(theirs, name)()
        )


def test_sizes_and_steps_are_written_for_people() -> None:
    sizes = [0, 999, 1000, 999_499, 999_500, 1_490_000_000, 2 * 10**15]
    assert [_display.size_text(size) for size in sizes] == [
        "0 B", "999 B", "1 kB", "999 kB", "1 MB", "1.49 GB", "2e+03 TB",
    ]
    assert _display.steps_text([]) == "no steps" and _display.steps_text(["3"]) == "1 step: 3"
    assert _display.steps_text(list("123456")).endswith("1, 2, 3, 4, 5, 6")


def test_directories_are_emptied(tmp_path: pathlib.Path) -> None:
    directory = test_utils.erase_and_create_empty(tmp_path / "above" / "below")
    assert directory.is_dir()
    (directory / "file").write_text("text")
    (directory / "folder").mkdir()
    (directory / "folder" / "file").write_text("text")
    assert test_utils.empty_directory(directory) and list(directory.iterdir()) == []
    assert not test_utils.empty_directory(directory / "absent")
    (directory / "file").write_text("text")
    assert list(test_utils.erase_and_create_empty(str(directory)).iterdir()) == []


def test_directories_are_printed(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("text")
    with caplog.at_level(logging.INFO, logger="stepstone"):
        test_utils.print_directory(tmp_path)
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}/", "..folder/", "....file",
    ]
    with pytest.raises(ValueError):
        test_utils.print_directory(tmp_path / "absent")


def test_trees_are_compared() -> None:
    case = unittest.TestCase()
    tree = test_utils.setup_pytree()
    more = test_utils.setup_pytree(add=1)
    test_utils.assert_tree_equal(case, tree, test_utils.setup_pytree())
    test_utils.assert_tree_same_structure(case, tree, more)
    with pytest.raises(AssertionError):
        test_utils.assert_tree_equal(case, tree, more)
    for other in ({**tree, "x": 5.0}, {**tree, "a": tree["a"].astype(np.float32)}, {"a": 1}):
        with pytest.raises(AssertionError):
            test_utils.assert_tree_equal(case, tree, other)
    doubled = test_utils.apply_function({"a": [1, 2]}, lambda value: 2 * value)
    assert doubled == {"a": [2, 4]}
    assert test_utils.is_leaf(tree["a"]) and not test_utils.is_leaf(tree)
