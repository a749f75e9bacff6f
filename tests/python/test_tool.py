"""What Python has saved is read by the command-line tool, and the other way round."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import trees

import stepstone as ocp

Tool = Callable[..., Any]


@pytest.fixture
def tool(repository: pathlib.Path) -> Tool:
    program = pathlib.Path(os.environ.get("STEPSTONE_BUILD", repository / "build")) / "stepstone"
    if not program.exists():
        pytest.skip(f"{program} is absent: the tool is not built")

    def run(*arguments: object) -> Any:
        result = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        return json.loads(result.stdout) if "--json" in arguments else result.stdout

    return run


class KeepsAll:
    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        return [True] * len(checkpoints)


def test_the_tool_tells_why_python_keeps_steps(tool: Tool, tmp_path: pathlib.Path) -> None:
    policy = ocp.checkpoint_managers
    for number, (options, rules) in enumerate(
        [
            ({}, ["all"]),
            ({"max_to_keep": 3, "keep_period": 100}, ["multiples of 100", "the newest 3"]),
            (
                {"max_to_keep": 2, "best_fn": lambda found: found["a/b"], "best_mode": "min"},
                ["the 2 with the lowest a\\/b", "those without the metric", "the newest"],
            ),
            (
                {"preservation_policy": policy.AnyPreservationPolicy([KeepsAll(), policy.LatestN(1)])},
                ["a rule of the program's own, KeepsAll", "the newest one"],
            ),
        ]
    ):
        with ocp.CheckpointManager(
            tmp_path / "run", options=ocp.CheckpointManagerOptions(**options)
        ) as manager:
            manager.save(number, args=ocp.args.StandardSave({"a": 1}), metrics={"a/b": 0.5})
        answer = tool("ls", tmp_path / "run", "--json")
        assert [rule["words"] for rule in answer["rules"]] == rules
        assert answer["steps"][-1]["kept_by"]


def test_the_tool_lists_shows_and_verifies_what_python_saved(tool: Tool, tmp_path: pathlib.Path) -> None:
    state = {"layer": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, "sizes": [1, 2], "n": 3}
    with ocp.CheckpointManager(tmp_path / "run", item_names=("state", "extra")) as manager:
        manager.save(
            5, args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), extra=ocp.args.JsonSave({"a": 1})
            ), metrics={"loss": 0.5},
        )
    (step,) = tool("ls", tmp_path / "run", "--json")["steps"]
    assert step["step"] == 5
    assert {item["name"]: item["handler"] for item in step["items"]} == {
        "state": "standard", "extra": "json",
    }
    leaves = tool("show", tmp_path / "run", 5, "--item", "state", "--json")["leaves"]
    found = {leaf["path"]: (leaf["kind"], leaf["dtype"], leaf["shape"]) for leaf in leaves}
    assert found["layer/w"] == ("array", "float32", [2, 3])
    assert found["n"][0] == "int" and len(found) == 4
    assert tool("verify", tmp_path / "run", "--json")["damages"] == []


def test_python_reads_what_the_tool_imported_and_exports_it_again_byte_for_byte(
    tool: Tool, tmp_path: pathlib.Path
) -> None:
    array = np.arange(12, dtype="<f4").reshape(3, 4)
    header = json.dumps({"w": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}})
    header += " " * (-len(header) % 8)
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode() + array.tobytes())

    tool("import", file, tmp_path / "run", "--step", 3)
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        assert list(manager.all_steps()) == [3]
        found = manager.restore(3)
        found = found["default"] if isinstance(found, ocp.args.Composite) else found
        trees.assert_same(found, {"w": array})
        manager.save(4, args=ocp.args.StandardSave(found))
    tool("export", tmp_path / "run", 4, "-o", tmp_path / "again.safetensors")
    exported = (tmp_path / "again.safetensors").read_bytes()
    assert exported[-48:] == array.tobytes()
