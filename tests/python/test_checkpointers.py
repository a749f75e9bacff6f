"""Checkpointers: one checkpoint at one path."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import stepstone as ocp
import trees

STATE = {"layer": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, "n": 3}


def test_an_asynchronous_checkpointer_is_a_checkpointer() -> None:
    checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
    assert isinstance(checkpointer, ocp.Checkpointer)
    assert isinstance(checkpointer, ocp.AbstractCheckpointer)
    assert isinstance(ocp.StandardCheckpointer(), ocp.AsyncCheckpointer)
    assert isinstance(ocp.PyTreeCheckpointer(), ocp.Checkpointer)
    assert isinstance(checkpointer.handler, ocp.StandardCheckpointHandler)


def test_a_checkpoint_is_replaced_only_by_force(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    for checkpointer in (
        ocp.Checkpointer(ocp.StandardCheckpointHandler()),
        ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler()),
    ):
        checkpointer.save(path, args=ocp.args.StandardSave(STATE), force=True)
        with pytest.raises(ValueError, match=r"Destination .*a already exists"):
            checkpointer.save(path, args=ocp.args.StandardSave({"a": 1}))
        trees.assert_same(checkpointer.restore(path), STATE)
        checkpointer.save(path, args=ocp.args.StandardSave({"a": 1}), force=True)
        assert checkpointer.restore(path) == {"a": 1}


def test_metadata_says_what_is_there_without_reading_it(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, STATE, custom_metadata={"model": "small", "seen": 2**70})
        metadata = checkpointer.metadata(path)
    assert metadata.custom_metadata == {"model": "small", "seen": 2**70}
    assert metadata.item_handlers == "standard"
    assert metadata.commit_timestamp_nsecs >= metadata.init_timestamp_nsecs > 0
    leaf = metadata.item_metadata["layer"]["w"]
    assert leaf.shape == (2, 3) and leaf.dtype == np.float32
    # As in Orbax, metadata is a target.
    with ocp.StandardCheckpointer() as checkpointer:
        trees.assert_same(checkpointer.restore(path, metadata.item_metadata), STATE)


def test_metadata_of_an_item_comes_from_its_arguments(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(path, args=ocp.args.PyTreeSave(STATE, custom_metadata={"units": "m"}))
        assert checkpointer.metadata(path).item_metadata.custom_metadata == {"units": "m"}
    with pytest.raises(TypeError):
        ocp.PyTreeCheckpointer().save(
            tmp_path / "b", args=ocp.args.PyTreeSave(STATE, custom_metadata={"a": object()})
        )
    with pytest.raises(TypeError):
        ocp.PyTreeCheckpointer().save(tmp_path / "b", STATE, custom_metadata={1: 2})
    assert not (tmp_path / "b").exists()


def test_items_of_a_checkpoint_have_paths(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "both"
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler("state", "extra")) as checkpointer:
        checkpointer.save(
            path,
            ocp.args.Composite(
                state=ocp.args.StandardSave(STATE), extra=ocp.args.JsonSave({"v": 1})
            ),
        )
        assert sorted(checkpointer.restore(path)) == ["extra", "state"]
        with pytest.raises(ValueError):
            checkpointer.save(tmp_path / "c", args=ocp.args.StandardSave(STATE))
        with pytest.raises(ValueError):
            checkpointer.save(
                tmp_path / "c", ocp.args.Composite(other=ocp.args.StandardSave(STATE))
            )
        with pytest.raises(KeyError):
            checkpointer.restore(path, ocp.args.Composite(other=None))
    with ocp.StandardCheckpointer() as single:
        trees.assert_same(single.restore(path / "state", STATE), STATE)
        with pytest.raises(ValueError):
            single.restore(path)
    assert ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(path / "extra") == {"v": 1}


def test_what_a_caller_changes_after_a_save_is_not_saved(tmp_path: pathlib.Path) -> None:
    weights = np.zeros(1 << 18)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "a", {"w": weights})
        weights += 1
        checkpointer.wait_until_finished()
        assert not checkpointer.is_saving_in_progress()
        assert not checkpointer.restore(tmp_path / "a")["w"].any()


def test_a_callback_is_called_when_the_checkpoint_is_there(tmp_path: pathlib.Path) -> None:
    found = []

    class Options:  # Ours or Orbax's: only the attributes count.
        timeout_secs = 60

        @staticmethod
        def post_finalization_callback() -> None:
            found.append(ocp.PyTreeCheckpointer().restore(tmp_path / "a"))

    with ocp.StandardCheckpointer(async_options=Options()) as checkpointer:
        checkpointer.save(tmp_path / "a", {"n": 1})
        checkpointer.wait_until_finished()
        assert found == [{"n": 1}]


def test_an_error_of_a_callback_is_raised_once(tmp_path: pathlib.Path) -> None:
    class Options:
        timeout_secs = 60

        @staticmethod
        def post_finalization_callback() -> None:
            raise ArithmeticError("the callback's own error")

    with ocp.StandardCheckpointer(async_options=Options()) as checkpointer:
        checkpointer.save(tmp_path / "a", {"n": 1})
        with pytest.raises(ArithmeticError):
            checkpointer.wait_until_finished()
        checkpointer.wait_until_finished()
        checkpointer.check_for_errors()


def test_a_cancelled_save_is_there_as_a_whole_or_not_at_all(tmp_path: pathlib.Path) -> None:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "a", STATE)
        is_cancelled = checkpointer.cancel()
        checkpointer.wait_until_finished()
        if is_cancelled:
            with pytest.raises(FileNotFoundError):
                checkpointer.restore(tmp_path / "a")
        else:
            trees.assert_same(checkpointer.restore(tmp_path / "a"), STATE)
        assert not checkpointer.cancel()  # There is none any more.


def test_a_checkpointer_that_was_closed_says_so(tmp_path: pathlib.Path) -> None:
    checkpointer = ocp.StandardCheckpointer()
    checkpointer.close()
    checkpointer.close()
    with pytest.raises(RuntimeError, match="closed"):
        checkpointer.save(tmp_path / "a", STATE)
    with pytest.raises(ValueError):
        ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler(), timeout_secs=-1)


def test_a_save_in_flight_at_the_end_of_the_program_is_finished(
    tmp_path: pathlib.Path, run_python: Any
) -> None:
    run_python(
        """
import sys
import numpy as np
import stepstone as ocp
checkpointer = ocp.StandardCheckpointer()
checkpointer.save(sys.argv[1], {"w": np.arange(1 << 20)})
""",
        tmp_path / "a",
    )
    restored = ocp.StandardCheckpointer().restore(tmp_path / "a")
    trees.assert_same(restored, {"w": np.arange(1 << 20)})
