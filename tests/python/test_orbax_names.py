"""Every name that Orbax's users use is here, and is called as they call it.

Read from Orbax itself where it is installed: its public names, the parameters of what can be called, in their order,
with their defaults, and which class derives from which. What is missing stands below, with the reason.
"""

from __future__ import annotations

import importlib
import inspect
import types
from typing import Any, TypeVar

import pytest

orbax = pytest.importorskip(
    "orbax.checkpoint", reason="Orbax is absent: that its names are all here is not tested"
)

# Modules whose names are compared, the package itself first.
MODULES = [
    "", "args", "checkpoint_managers", "checkpoint_utils", "checkpointers",
    "handlers", "logging", "metadata", "options", "path.step", "transform_utils", "tree",
    "type_handlers", "experimental.v1", "experimental.v1.training",
]

FILES_OF_ORBAX = "about how Orbax lays out files, of which there are none here"
PROCESSES = "about several processes that write one checkpoint"
INTERNAL = "between Orbax's own classes; what it does for a user is done otherwise here"
ABSENT = {
    "aggregate_handlers": FILES_OF_ORBAX,
    "msgpack_utils": FILES_OF_ORBAX,
    "serialization": FILES_OF_ORBAX,
    "checkpoint_utils.STANDARD_ARRAY_TYPES": INTERNAL,
    "checkpoint_utils.get_snapshot_dir_from_step_dir": "nothing is copied for an evaluator",
    "checkpoint_utils.utils": INTERNAL,
    "handlers.CompositeCheckpointHandler.metadata_from_temporary_paths": FILES_OF_ORBAX,
    **{f"metadata.{kind}ShardingMetadata": "shardings are the target's, and not stored"
       for kind in ("", "Named", "SingleDevice")},
    "metadata.MetadataStore": FILES_OF_ORBAX,
    "metadata.metadata_store": FILES_OF_ORBAX,
    "metadata.StorageMetadata.__init__: no parameter zarr_metadata": FILES_OF_ORBAX,
    "path.step.ALLOWED_STEP_NAME_PATTERN": FILES_OF_ORBAX,
    "path.step.TMP_DIR": FILES_OF_ORBAX,
    "type_handlers.is_ocdbt_checkpoint": FILES_OF_ORBAX,
    "type_handlers.merge_ocdbt_per_process_files": FILES_OF_ORBAX,
    "type_handlers.get_cast_tspec": FILES_OF_ORBAX,
    "type_handlers.get_json_tspec": FILES_OF_ORBAX,
    "type_handlers.get_ts_context": FILES_OF_ORBAX,
    **{f"type_handlers.{handler}.has_dispatcher": PROCESSES
       for handler in ("ArrayHandler", "SingleReplicaArrayHandler")},
    **{f"{place}{kind}Checkpointer.{method}": INTERNAL
       for place in ("", "checkpointers.") for kind in ("", "Async", "Standard", "PyTree")
       for method in ("create_temporary_path", "get_temporary_path",
                      "synchronize_next_awaitable_signal_operation_id")},
    **{f"{place}{kind}RandomKeyCheckpointHandler.{method}": INTERNAL
       for place in ("", "handlers.") for kind in ("Jax", "Numpy")
       for method in ("checkpoint_restore_args", "checkpoint_save_args", "post_restore")},
    "logging.CompositeLogger.log_entry": "its parameter is called as the other loggers' is",
    "experimental.v1.load_async": "looks for the tree as `load` does",
    "experimental.v1.PyTreeMetadata": "a type for annotations in Orbax",
    "CompositeCheckpointHandler.metadata_from_temporary_paths": FILES_OF_ORBAX,
}


def resolve(package: str, module: str) -> Any:
    found: Any = importlib.import_module(package)
    for part in module.split(".") if module else []:
        try:
            found = getattr(found, part)
        except AttributeError:
            found = importlib.import_module(f"{found.__name__}.{part}")
    return found


def public_names(module: types.ModuleType) -> list[str]:
    """The names that are Orbax's own: no types for annotations, and nothing of other libraries."""
    names = []
    for name in vars(module):
        value = getattr(module, name)
        home = getattr(value, "__module__", None) or "orbax"
        if name.startswith("_") or not str(home).startswith("orbax"):
            continue
        if isinstance(value, TypeVar) or name.endswith("_lib"):
            continue
        if isinstance(value, types.ModuleType) and (
            "orbax" not in value.__name__ or "_src" in value.__name__ or name == "pathways"
        ):
            continue
        names.append(name)
    return names


def signatures(value: Any) -> dict[str, inspect.Signature]:
    """Of a function; of a class's constructor and public methods."""
    if not isinstance(value, type):
        return {"": inspect.signature(value)} if callable(value) else {}
    found = {}
    for name in ["__init__", *(name for name in dir(value) if not name.startswith("_"))]:
        member = inspect.getattr_static(value, name)
        member = getattr(member, "__func__", member)
        if isinstance(member, types.FunctionType):
            found[name] = inspect.signature(member)
    return found


def is_comparable(default: object) -> bool:
    return default is None or isinstance(default, (bool, int, float, str, tuple))


def differences(theirs: inspect.Signature, ours: inspect.Signature) -> list[str]:
    """What a call that Orbax takes would meet here."""
    found = []
    takes_any = any(each.kind == each.VAR_KEYWORD for each in ours.parameters.values())
    takes_more = any(each.kind == each.VAR_POSITIONAL for each in ours.parameters.values())
    positional = [each.name for each in ours.parameters.values() if each.kind <= 1]
    expected = [each for each in theirs.parameters.values() if each.kind not in (2, 4)]
    for place, parameter in enumerate(expected):
        here = ours.parameters.get(parameter.name)
        if here is None:
            if not takes_any:
                found.append(f"no parameter {parameter.name}")
            continue
        if parameter.kind <= 1 and positional[place : place + 1] != [parameter.name]:
            if not takes_more:
                found.append(f"{parameter.name} has another place")
        default = parameter.default
        if is_comparable(default) and here.default != default:
            found.append(f"{parameter.name}={here.default!r} for {default!r}")
        if default is not parameter.empty and here.default is here.empty:
            found.append(f"{parameter.name} has no default")
    if any(each.kind == each.VAR_POSITIONAL for each in theirs.parameters.values()):
        return found  # Wrapped: what it takes cannot be seen.
    known = set(theirs.parameters)
    found += [
        f"{each.name} is required"
        for each in ours.parameters.values()
        if each.name not in known and each.default is each.empty and each.kind not in (2, 4)
    ]
    return found


def problems_with(module: str, name: str) -> list[str]:
    place = f"{module}.{name}".lstrip(".")
    theirs = getattr(resolve("orbax.checkpoint", module), name)
    try:
        ours = getattr(resolve("stepstone", module), name)
    except AttributeError:
        return [f"{place} is absent"]
    here = signatures(ours)
    found = []
    for method, signature in signatures(theirs).items():
        if method and method not in here:
            found.append(f"{place}.{method}() is absent")
        else:
            each = differences(signature, here[method]) if method in here else ["is not callable"]
            found += [f"{place}.{method}: {problem}".replace(".:", ":") for problem in each]
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module or "top")
def test_what_orbax_has_is_here_and_called_in_the_same_way(module: str) -> None:
    problems = [
        problem
        for name in public_names(resolve("orbax.checkpoint", module))
        for problem in problems_with(module, name)
    ]
    unexplained = [
        problem for problem in problems if not any(problem.startswith(each) for each in ABSENT)
    ]
    assert unexplained == [], "\n".join(unexplained)


def test_what_derives_from_what_is_the_same() -> None:
    classes = {
        name: (getattr(orbax, name), getattr(importlib.import_module("stepstone"), name))
        for name in public_names(orbax)
        if isinstance(getattr(orbax, name), type)
    }
    for derived, (their_derived, our_derived) in classes.items():
        for base, (their_base, our_base) in classes.items():
            if their_base in their_derived.__mro__:
                assert our_base in our_derived.__mro__, f"{derived} is no {base}"
