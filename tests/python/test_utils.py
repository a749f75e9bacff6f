"""Names that Orbax has in `utils`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stepstone import utils


def test_names_of_other_modules_are_theirs() -> None:
    from stepstone import multihost, step, tree

    assert utils.to_flat_dict is tree.to_flat_dict
    assert utils.serialize_tree is tree.serialize_tree
    assert utils.checkpoint_steps is step.checkpoint_steps
    assert utils.is_primary_host is multihost.is_primary_host
    assert all(hasattr(utils, name) for name in utils.__all__)


def test_scalars_are_numbers() -> None:
    assert all(utils.is_scalar(value) for value in (1, 1.5, True, np.float32(1)))
    assert not any(utils.is_scalar(value) for value in (np.zeros(()), "1", None, 1j))


def test_flattened_trees_of_jax_become_dicts_and_lists() -> None:
    jax = pytest.importorskip("jax", reason="needs jax's key paths")

    def again(tree: Any) -> Any:
        return utils.from_flattened_with_keypath(jax.tree_util.tree_flatten_with_path(tree)[0])

    assert again({"a": (1, {"b": [2, 3]}), "c": {5: 4}}) == {"a": [1, {"b": [2, 3]}], "c": {"5": 4}}
    assert again(7) == 7
    keys = [path for path, _ in jax.tree_util.tree_flatten_with_path({"a": [1]})[0]][0]
    assert utils.tuple_path_from_keypath(keys) == ("a", "0")
    assert utils.is_dict_key(keys[0]) and utils.is_sequence_key(keys[1])
    assert utils.get_key_name(keys[1]) == 0
    with pytest.raises(ValueError, match="no leaf"):
        utils.from_flattened_with_keypath([])
    with pytest.raises(ValueError, match="both"):
        utils.from_flattened_with_keypath([((keys[0],), 1), ((keys[1],), 2)])
