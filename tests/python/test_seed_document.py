"""Orbax's overview of its API, cell by cell, with only the import changed.

The cells are Orbax's code as it stands there. They are run as a notebook runs them: in one namespace, the value of
a cell being that of its last expression. The same test runs them with Orbax itself where it is
installed, so that the values expected are the ones that Orbax gives.
"""

from __future__ import annotations

import ast
import json
import pathlib
import types
from collections.abc import Callable
from typing import Any

import pytest

CHECKPOINTER_CELLS = {
    "imports": """\
import orbax.checkpoint as ocp
from etils import epath

path = ocp.test_utils.erase_and_create_empty('/tmp/my-checkpoints/')
""",
    "handler": """\
handler = ocp.CompositeCheckpointHandler('state', 'metadata', 'dataset')
""",
    "save": """\
state = {'layer0': {'bias': 0, 'weight': 1}}
metadata = {'version': 1.0}
dataset = {'my_data': 2}

checkpointer = ocp.Checkpointer(handler)
checkpointer.save(
    path / 'composite_checkpoint',
    ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        metadata=ocp.args.JsonSave(metadata),
        dataset=ocp.args.JsonSave(dataset),
    )
)
""",
    "restore all": """\
# Restore all items:
checkpointer.restore(path / 'composite_checkpoint')
""",
    "restore some": """\
# Restore some items, but not all:
checkpointer.restore(
    path / 'composite_checkpoint',
    ocp.args.Composite(
        state=ocp.args.StandardRestore(),
    )
)
""",
    "restore with arguments": """\
# Restore some items, and specify optional arguments for restoration:
checkpointer.restore(
    path / 'composite_checkpoint',
    ocp.args.Composite(
        state=ocp.args.StandardRestore(state),
    )
)
""",
    "json checkpointer": """\
ckptr = ocp.Checkpointer(ocp.JsonCheckpointHandler())
""",
    "async checkpointer": """\
ckptr = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
""",
}

SINGLE_CELLS = {
    "directory": """\
import jax

directory = ocp.test_utils.erase_and_create_empty('/tmp/checkpoint-manager-single/')
""",
    "manager": """\
options = ocp.CheckpointManagerOptions(
    save_interval_steps=2,
    max_to_keep=2,
    # other options
)
mngr = ocp.CheckpointManager(
    directory,
    options=options,
)
""",
    "train": """\
num_steps = 5
state = {'layer0': {'bias': 0, 'weight': 1}}

def train_step(state):
  return jax.tree_util.tree_map(lambda x: x + 1, state)

for step in range(num_steps):
  state = train_step(state)
  mngr.save(step, args=ocp.args.StandardSave(state))
mngr.wait_until_finished()
""",
    "latest step": """\
mngr.latest_step()
""",
    "all steps": """\
mngr.all_steps()
""",
    "restore": """\
mngr.restore(mngr.latest_step())
""",
    "restore with arguments": """\
# Restore with additional arguments, like dtype or sharding.
target_state = {'layer0': {'bias': 0.0, 'weight': 0.0}}
mngr.restore(mngr.latest_step(), args=ocp.args.StandardRestore(target_state))
""",
}

MULTIPLE_CELLS = {
    "directory": """\
directory = ocp.test_utils.erase_and_create_empty('/tmp/checkpoint-manager-multiple/')
""",
    "manager": """\
options = ocp.CheckpointManagerOptions(
    save_interval_steps=2,
    max_to_keep=2,
    # other options
)
mngr = ocp.CheckpointManager(
    directory,
    options=options,
    item_names=('state', 'extra_metadata'),
)
""",
    "train": """\
num_steps = 5
state = {'layer0': {'bias': 0, 'weight': 1}}
extra_metadata = {'version': 1.0, 'step': 0}

def train_step(step, _state, _extra_metadata):
  return jax.tree_util.tree_map(lambda x: x + 1, _state), {**_extra_metadata, **{'step': step}}

for step in range(num_steps):
  state, extra_metadata = train_step(step, state, extra_metadata)
  mngr.save(
    step,
    args=ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      extra_metadata=ocp.args.JsonSave(extra_metadata),
    )
  )
mngr.wait_until_finished()
""",
    "restore": """\
# Restore exactly as saved
result = mngr.restore(mngr.latest_step())
""",
    "result": """\
result
""",
    "state": """\
result.state
""",
    "extra metadata": """\
result.extra_metadata
""",
    "skip state": """\
# Skip `state` when restoring.
# Note that it is possible to provide `extra_metadata=None` because we already
# saved using `JsonSave`. This is internally cached, so we know it uses JSON
# logic to save and restore. If you had called `restore` without first calling
# `save`, however, it would have been necessary to provide
# `ocp.args.JsonRestore`.
mngr.restore(mngr.latest_step(), args=ocp.args.Composite(extra_metadata=None))
""",
    "restore with arguments": """\
# Restore with additional arguments, like dtype or sharding.
target_state = {'layer0': {'bias': 0.0, 'weight': 0.0}}
mngr.restore(mngr.latest_step(), args=ocp.args.Composite(
    state=ocp.args.StandardRestore(target_state), extra_metadata=None)
)
""",
}

# What a fresh process runs: the same cells, but for those that empty the directory and train.
FRESH_PROGRAM = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
from test_seed_document import FRESH_CELLS, Notebook
import stepstone as ocp
notebook = Notebook("stepstone", pathlib.Path(sys.argv[2]))
notebook.namespace |= {"ocp": ocp, "directory": pathlib.Path(sys.argv[2]) / sys.argv[3]}
values = {name: notebook.run(cell) for name, cell in FRESH_CELLS[sys.argv[3]].items()}
print(json.dumps({name: dict(value) if isinstance(value, ocp.args.Composite) else value
                  for name, value in values.items() if value is not None}))
assert "jax" not in sys.modules
"""
FRESH_CELLS = {
    "checkpoint-manager-single": {
        name: cell for name, cell in SINGLE_CELLS.items() if name not in ("directory", "train")
    },
    "checkpoint-manager-multiple": {
        name: cell for name, cell in MULTIPLE_CELLS.items() if name not in ("directory", "train")
    },
}


class Notebook:
    """Runs cells with `module` in Orbax's place and `directory` in that of /tmp."""

    def __init__(self, module: str, directory: pathlib.Path):
        self.module, self.directory = module, directory
        self.namespace: dict[str, Any] = {}

    def run(self, cell: str) -> Any:
        cell = cell.replace("import orbax.checkpoint as ocp", f"import {self.module} as ocp")
        cell = cell.replace("'/tmp/", f"'{self.directory}/")
        try:
            import etils.epath  # noqa: F401
        except ImportError:  # The document imports it, and does not use it.
            cell = cell.replace("from etils import epath\n", "")
        body = ast.parse(cell)
        last = body.body.pop() if isinstance(body.body[-1], ast.Expr) else None
        exec(compile(body, "cell", "exec"), self.namespace)
        if not isinstance(last, ast.Expr):
            return None
        return eval(compile(ast.Expression(last.value), "cell", "eval"), self.namespace)


@pytest.fixture(params=["stepstone", "orbax.checkpoint"])
def notebook(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Notebook:
    pytest.importorskip("jax", reason="jax is absent, which the document's training steps use")
    if request.param == "orbax.checkpoint":
        pytest.importorskip("orbax.checkpoint", reason="Orbax is absent: nothing to compare with")
    return Notebook(request.param, tmp_path)


def assert_is(found: Any, expected: Any) -> None:
    """The same value, and of the same types all the way down."""
    assert found == expected
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name in expected:
            assert_is(found[name], expected[name])
    else:
        assert type(found) is type(expected)


def is_composite(value: Any, notebook: Notebook) -> bool:
    return isinstance(value, notebook.namespace["ocp"].args.Composite)


def test_checkpointer_cells_give_what_the_document_says(notebook: Notebook) -> None:
    values = {name: notebook.run(cell) for name, cell in CHECKPOINTER_CELLS.items()}
    state = {"layer0": {"bias": 0, "weight": 1}}
    everything = values["restore all"]
    assert is_composite(everything, notebook)
    assert_is(dict(everything)["state"], state)
    assert_is(everything["metadata"], {"version": 1.0})
    assert_is(everything.dataset, {"my_data": 2})
    assert set(everything) == {"state", "metadata", "dataset"}
    for name in ("restore some", "restore with arguments"):
        assert is_composite(values[name], notebook)
        assert_is(dict(values[name]), {"state": state})
    ocp: types.ModuleType = notebook.namespace["ocp"]
    assert isinstance(notebook.namespace["ckptr"], ocp.Checkpointer)
    assert notebook.namespace["path"].is_dir()


def test_single_item_manager_cells_give_what_the_document_says(notebook: Notebook) -> None:
    notebook.run(CHECKPOINTER_CELLS["imports"])
    values = {name: notebook.run(cell) for name, cell in SINGLE_CELLS.items()}
    assert_is(values["latest step"], 4)
    assert list(values["all steps"]) == [2, 4]
    assert_is(values["restore"], {"layer0": {"bias": 5, "weight": 6}})
    assert_is(values["restore with arguments"], {"layer0": {"bias": 5.0, "weight": 6.0}})
    notebook.namespace["mngr"].close()


def test_multiple_item_manager_cells_give_what_the_document_says(notebook: Notebook) -> None:
    notebook.run(CHECKPOINTER_CELLS["imports"])
    notebook.run(SINGLE_CELLS["directory"])
    values = {name: notebook.run(cell) for name, cell in MULTIPLE_CELLS.items()}
    state = {"layer0": {"bias": 5, "weight": 6}}
    assert is_composite(values["result"], notebook)
    assert set(values["result"]) == {"state", "extra_metadata"}
    assert_is(values["state"], state)
    assert_is(values["extra metadata"], {"version": 1.0, "step": 4})
    assert_is(dict(values["skip state"]), {"extra_metadata": {"version": 1.0, "step": 4}})
    with_arguments = values["restore with arguments"]
    assert is_composite(with_arguments, notebook)
    assert_is(with_arguments.state, {"layer0": {"bias": 5.0, "weight": 6.0}})
    assert_is(with_arguments.extra_metadata, {"version": 1.0, "step": 4})
    notebook.namespace["mngr"].close()


def test_restoring_cells_give_the_same_in_a_fresh_process(
    tmp_path: pathlib.Path, run_python: Callable[..., str]
) -> None:
    pytest.importorskip("jax", reason="jax is absent, which the document's training steps use")
    notebook = Notebook("stepstone", tmp_path)
    notebook.run(CHECKPOINTER_CELLS["imports"])
    for cell in [*SINGLE_CELLS.values(), "mngr.close()\n", *MULTIPLE_CELLS.values(), "mngr.close()\n"]:
        notebook.run(cell)

    state = {"layer0": {"bias": 5, "weight": 6}}
    floats = {"layer0": {"bias": 5.0, "weight": 6.0}}
    extra = {"version": 1.0, "step": 4}
    expected = {
        "checkpoint-manager-single": {
            "latest step": 4, "all steps": [2, 4], "restore": state,
            "restore with arguments": floats,
        },
        # Without having saved: how each item was saved is recorded with it.
        "checkpoint-manager-multiple": {
            "result": {"state": state, "extra_metadata": extra}, "state": state,
            "extra metadata": extra, "skip state": {"extra_metadata": extra},
            "restore with arguments": {"state": floats, "extra_metadata": extra},
        },
    }
    here = pathlib.Path(__file__).parent
    for directory, values in expected.items():
        assert json.loads(run_python(FRESH_PROGRAM, here, tmp_path, directory)) == values
