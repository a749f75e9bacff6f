"""Helpers for tests and notebooks."""

from __future__ import annotations

import logging
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from stepstone import _live_managers
from stepstone._containers import flatten_with_paths, map_structure
from stepstone._paths import PathLike, as_path
from stepstone.errors import InvalidArgumentError

__all__ = [
    "apply_function",
    "assert_array_equal",
    "assert_tree_equal",
    "assert_tree_same_structure",
    "empty_directory",
    "erase_and_create_empty",
    "print_directory",
    "setup_pytree",
]

_logger = logging.getLogger("stepstone")


def erase_and_create_empty(directory: PathLike) -> pathlib.Path:
    """Makes an empty directory, erasing what is there; managers that are open there are closed.

    Parameters
    ----------
    directory : path
        Directories above it are created, too.

    Returns
    -------
    pathlib.Path
        The directory; of etils' type where the program uses that.

    Examples
    --------
    >>> import tempfile
    >>> directory = erase_and_create_empty(tempfile.mkdtemp() + "/run")
    >>> directory.name, list(directory.iterdir())
    ('run', [])
    """
    path = as_path(directory)
    _live_managers.close_below(path)
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path


def empty_directory(directory: PathLike) -> bool:
    """Erases what is in a directory; False if there is none."""
    path = as_path(directory)
    if not path.exists():
        return False
    for each in path.iterdir():
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink()
    return True


def print_directory(directory: PathLike, level: int = 0) -> None:
    """Logs, at the level INFO, the files below a directory; ValueError if there is none."""
    path = as_path(directory)
    if not path.is_dir():
        raise InvalidArgumentError(f"{path} is no directory")
    _logger.info("%s%s/", ".." * level, path.name if level else path)
    for each in sorted(path.iterdir()):
        if each.is_dir():
            print_directory(each, level + 1)
        else:
            _logger.info("%s%s", ".." * (level + 1), each.name)


def is_leaf(value: object) -> bool:
    """Whether it is an array, a number or a string."""
    return hasattr(value, "__array__") or isinstance(value, (bool, int, float, complex, str, bytes))


def setup_pytree(add: int = 0) -> dict[str, Any]:
    """A small tree of arrays of numpy and numbers; `add` is added to each."""
    tree = {
        "a": np.arange(8) * 1,
        "b": np.arange(16) * 2,
        "c": {"a": np.arange(8).reshape((2, 4)) * 3, "e": np.arange(16).reshape((4, 4)) * 4},
        "x": 5,
        "y": np.asarray([]),
    }
    changed: dict[str, Any] = apply_function(tree, lambda value: value + add)
    return changed


def apply_function(tree: Any, function: Callable[[Any], Any]) -> Any:
    """The tree with `function` applied to its leaves."""
    return map_structure(function, tree)


def assert_array_equal(testclass: Any, v_expected: Any, v_actual: Any) -> None:
    """Fails unless two leaves are of one type and have one dtype and one value.

    Parameters
    ----------
    testclass : unittest.TestCase
        Whose assertions are used.
    v_expected, v_actual : array or plain value
        The leaves.
    """
    testclass.assertIsInstance(v_actual, type(v_expected))
    if hasattr(v_expected, "dtype"):
        testclass.assertEqual(v_expected.dtype, v_actual.dtype)
    np.testing.assert_array_equal(np.asarray(v_expected), np.asarray(v_actual))


def assert_tree_same_structure(testclass: Any, expected: Any, actual: Any) -> None:
    """Fails unless two trees have leaves under the same paths."""
    paths = [[path for path, _ in flatten_with_paths(tree)] for tree in (expected, actual)]
    testclass.assertEqual(*paths)


def assert_tree_equal(testclass: Any, expected: Any, actual: Any) -> None:
    """Fails unless two trees have the same structure and equal leaves."""
    assert_tree_same_structure(testclass, expected, actual)
    for (_, one), (_, other) in zip(flatten_with_paths(expected), flatten_with_paths(actual)):
        assert_array_equal(testclass, one, other)
