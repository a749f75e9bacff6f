"""Names and paths of steps."""

from __future__ import annotations

import datetime
import pathlib
from typing import Any

import pytest

import stepstone as ocp

step_lib = ocp.path.step


@pytest.fixture
def store(tmp_path: pathlib.Path) -> pathlib.Path:
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        for step in (3, 10, 200):
            manager.save(step, args=ocp.args.StandardSave({"n": step}))
    return tmp_path / "run"


NAMES: list[tuple[dict[str, Any], str]] = [
    ({}, "23"),
    ({"step_format_fixed_length": 4}, "0023"),
    ({"step_prefix": "step"}, "step_23"),
    ({"step_prefix": "step", "step_format_fixed_length": 4}, "step_0023"),
    ({"step_prefix": "a_b", "step_format_fixed_length": 1}, "a_b_23"),
]


@pytest.mark.parametrize("options, name", NAMES)
def test_steps_are_named_and_found_by_their_names(
    store: pathlib.Path, options: dict[str, Any], name: str
) -> None:
    names = step_lib.standard_name_format(**options)
    assert names.build_name(23) == name
    assert step_lib.step_from_checkpoint_name(name) == 23
    assert [found.step for found in names.find_all(store)] == [3, 10, 200]
    found = names.find_step(store, 10)
    assert found.path == store / names.build_name(10) == step_lib.build_step_path(store, names, 10)
    # No directory, but where a checkpoint is read, a path.
    assert not found.path.exists()
    assert ocp.StandardCheckpointer().restore(found.path) == {"n": 10}
    with pytest.raises(ValueError, match="no step 4"):
        names.find_step(store, 4)


def test_where_there_is_no_store_there_are_no_steps(tmp_path: pathlib.Path) -> None:
    names = step_lib.standard_name_format()
    for path in (tmp_path, tmp_path / "absent"):
        assert list(names.find_all(path)) == []
        assert step_lib.checkpoint_steps(path) == step_lib.checkpoint_steps_paths(path) == []
        assert step_lib.any_checkpoint_step(path) is None
        assert step_lib.latest_step_metadata(path, names) is None
        assert step_lib.maybe_find_step_metadata(path, names, step=1) is None
        with pytest.raises(ValueError):
            step_lib.find_step_path(path, names, step=1)


def test_found_steps_tell_when_they_were_saved(store: pathlib.Path) -> None:
    found = step_lib.latest_step_metadata(store, step_lib.standard_name_format(step_prefix="s"))
    assert found is not None and found.step == 200
    assert 0 < found.init_timestamp_nsecs <= found.commit_timestamp_nsecs
    age = datetime.datetime.now(tz=datetime.timezone.utc) - found.commit_timestamp
    assert datetime.timedelta(0) <= age < datetime.timedelta(hours=1)


def test_helpers_list_and_find_the_steps_of_a_store(store: pathlib.Path) -> None:
    names = step_lib.standard_name_format(step_prefix="step")
    assert step_lib.checkpoint_steps(store) == [3, 10, 200]
    assert step_lib.checkpoint_steps_paths(store) == [store / "3", store / "10", store / "200"]
    assert step_lib.any_checkpoint_step(store) == 200
    path = step_lib.find_step_path(store, names, step=3, include_uncommitted=True)
    assert path == store / "step_3"
    assert step_lib.step_metadata_of_checkpoint_path(path, names).step == 3
    with pytest.raises(ValueError, match="step_4"):
        step_lib.step_metadata_of_checkpoint_path(store / "step_4", names)
    assert step_lib.is_path_finalized(store) and step_lib.is_path_finalized(store / "10")
    assert not step_lib.is_path_finalized(store / "11")
    assert not step_lib.is_path_temporary(store / "10")
    assert step_lib.all_temporary_paths(store) == []
    built = step_lib.build_step_metadatas([store / "3"], lambda path: path.name)
    assert list(built) == ["3"]


def test_several_formats_are_read_and_one_is_written(store: pathlib.Path) -> None:
    plain = step_lib.standard_name_format()
    prefixed = step_lib.standard_name_format(step_prefix="step")
    both = step_lib.composite_name_format(prefixed, [plain, prefixed])
    assert both.build_name(3) == "step_3"
    assert [found.step for found in both.find_all(store)] == [3, 10, 200]
    assert both.find_step(store, 3).path == store / "3"
    with pytest.raises(ValueError, match="no step 4"):
        both.find_step(store, 4)
    with pytest.raises(ValueError, match="read_name_formats"):
        step_lib.composite_name_format(prefixed, [plain])
    assert "step_1234" in str(both)


@pytest.mark.parametrize("name", ["", "step", "step_", "12a", "-1", "step-3", "3.5"])
def test_what_is_no_name_of_a_step_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        step_lib.step_from_checkpoint_name(name)


def test_save_directories_are_named() -> None:
    run = pathlib.Path("/run")
    assert step_lib.get_save_directory(3, run) == run / "3"
    assert step_lib.get_save_directory(3, run, "state", "step", None, 3) == run / "step_003/state"
    assert step_lib.get_save_directory(3, run, "state", override_directory="/x") == pathlib.Path(
        "/x/state"
    )
    names = step_lib.standard_name_format(step_prefix="p")
    assert step_lib.get_save_directory(3, run, step_name_format=names) == run / "p_3"
    with pytest.raises(ValueError):
        step_lib.get_save_directory(3, None)


def test_kinds_of_formats_are_told_apart() -> None:
    plain = step_lib.standard_name_format()
    both = step_lib.composite_name_format(plain, [plain])
    assert step_lib.is_standard_name_format(plain)
    assert not step_lib.is_standard_name_format(both)
    alone = step_lib.single_host_load_and_broadcast_name_format(plain)
    assert alone.single_host_load_and_broadcast and alone.build_name(3) == "3"
    with pytest.raises(ValueError):
        step_lib.single_host_load_and_broadcast_name_format(both)
    assert ocp.step is step_lib
