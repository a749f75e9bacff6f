"""Composite, the arguments, and what is made of Orbax's."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import stepstone as ocp
from stepstone.args import adopt


def test_a_composite_is_an_immutable_mapping_with_attributes() -> None:
    both = ocp.args.Composite(state=1, dataset=2)
    assert dict(both) == {"state": 1, "dataset": 2}
    assert both.state == both["state"] == both.get("state") == 1
    assert both.get("other") is None
    assert len(both) == 2 and "state" in both and "other" not in both
    assert list(both.keys()) == ["state", "dataset"] and list(both.values()) == [1, 2]
    with pytest.raises(ValueError):
        both.state = 3
    assert both == {"state": 1, "dataset": 2}


def test_an_item_that_is_absent_is_a_key_error_and_has_no_attribute() -> None:
    both = ocp.args.Composite(state=1)
    with pytest.raises(KeyError, match="other"):
        both["other"]
    with pytest.raises(KeyError, match="other"):
        _ = both.other
    assert not hasattr(both, "other")


def test_names_of_methods_are_items_too() -> None:
    items = ocp.args.Composite(items=1, keys=2)
    assert items["items"] == 1
    assert dict(items.items()) == {"items": 1, "keys": 2}


def test_composites_combine() -> None:
    left, right = ocp.args.Composite(a=1, b=2), ocp.args.Composite(b=3, c=4)
    assert left | right == {"a": 1, "b": 3, "c": 4}
    assert left & right == {"b": 2}
    assert left | {"c": 5} == {"a": 1, "b": 2, "c": 5}
    assert repr(left) == "Composite({'a': 1, 'b': 2})"


def test_a_composite_survives_copying_and_pickling() -> None:
    both = ocp.args.Composite(state=[1], dataset=2)
    assert copy.copy(both) == both
    assert copy.deepcopy(both) == both
    assert pickle.loads(pickle.dumps(both)) == both


def test_a_target_may_be_metadata_and_a_save_may_not() -> None:
    class TreeMetadata:
        tree = {"a": 1}

    assert ocp.args.StandardRestore(TreeMetadata()).item == {"a": 1}
    assert ocp.args.PyTreeRestore(TreeMetadata()).item == {"a": 1}
    for save in (ocp.args.StandardSave, ocp.args.PyTreeSave):
        with pytest.raises(ValueError):
            save(TreeMetadata())


def test_orbax_arguments_become_ours_with_all_they_say() -> None:
    orbax: Any = pytest.importorskip("orbax.checkpoint", reason="Orbax is absent")
    state = {"a": 1}
    given = orbax.args.Composite(
        state=orbax.args.StandardSave(state, custom_metadata={"v": 1}),
        target=orbax.args.PyTreeRestore(state, partial_restore=True),
        text=orbax.args.JsonSave({"b": 2}),
    )
    ours = adopt(given)
    assert type(ours) is ocp.args.Composite
    assert adopt(ours.state) == ocp.args.StandardSave(state, custom_metadata={"v": 1})
    assert adopt(ours.target) == ocp.args.PyTreeRestore(state, partial_restore=True)
    assert adopt(ours.text) == ocp.args.JsonSave({"b": 2})


def test_every_kind_of_arguments_of_orbax_is_known() -> None:
    orbax: Any = pytest.importorskip("orbax.checkpoint", reason="Orbax is absent")
    for name in ocp.args.__all__:
        theirs = getattr(orbax.args, name)
        if isinstance(theirs, type) and name != "CheckpointArgs":
            assert ocp.args.adopt_type(theirs) is getattr(ocp.args, name)
