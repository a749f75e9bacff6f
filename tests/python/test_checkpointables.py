"""Objects that are no trees: handlers of the newer style, and objects that save themselves."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
from collections.abc import Awaitable
from typing import Any

import numpy as np
import pytest

import stepstone
from stepstone import v1 as ocp


class Iterator:
    """As Orbax's protocol has it: coroutines that return what is left to do."""

    def __init__(self, at: int) -> None:
        self.at = at

    async def save(self, directory: Any) -> Awaitable[None]:
        at = self.at

        async def write() -> None:
            created = await directory.await_creation()
            (created / "at").write_text(str(at))

        return write()

    async def load(self, directory: Any) -> Awaitable[None]:
        async def read() -> None:
            self.at = int((directory / "at").read_text())

        return read()


class PlainIterator:
    """The same with plain methods, and a file in a folder."""

    def __init__(self, at: int) -> None:
        self.at = at

    def save(self, directory: pathlib.Path) -> None:
        (directory / "folder").mkdir()
        (directory / "folder" / "at").write_text(str(self.at))

    def load(self, directory: pathlib.Path) -> None:
        self.at = int((directory / "folder" / "at").read_text())


@dataclasses.dataclass
class Words:
    words: list[str]


@dataclasses.dataclass
class AbstractWords:
    count: int


class WordsHandler(ocp.CheckpointableHandler[Words, AbstractWords]):
    async def save(self, directory: Any, checkpointable: Words) -> Awaitable[None]:
        async def write() -> None:
            path = await directory.await_creation()
            (path / "words").write_text(" ".join(checkpointable.words))

        return write()

    async def load(
        self, directory: Any, abstract_checkpointable: AbstractWords | None = None
    ) -> Awaitable[Words]:
        async def read() -> Words:
            words = (directory / "words").read_text().split()
            if abstract_checkpointable is not None:
                words = words[: abstract_checkpointable.count]
            return Words(words)

        return read()

    async def metadata(self, directory: Any) -> AbstractWords:
        return AbstractWords(len((directory / "words").read_text().split()))

    def is_handleable(self, checkpointable: Any) -> bool:
        return isinstance(checkpointable, Words)

    def is_abstract_handleable(self, abstract_checkpointable: Any) -> bool | None:
        return isinstance(abstract_checkpointable, AbstractWords)


class PairHandler(ocp.CheckpointableHandler[tuple[Any, Any], None]):
    """Leaves its parts to handlers of the package."""

    async def save(self, directory: Any, checkpointable: tuple[Any, Any]) -> Any:
        for name, value in zip(("tree", "json"), checkpointable):
            handler = ocp.handlers.PyTreeHandler() if name == "tree" else ocp.handlers.JsonHandler()
            (directory / name).mkdir()
            await handler.save(directory / name, value)

    async def load(self, directory: Any, abstract_checkpointable: None = None) -> Any:
        tree = await ocp.handlers.PyTreeHandler().load(directory / "tree")
        return tree, await ocp.handlers.JsonHandler().load(directory / "json")

    def is_handleable(self, checkpointable: Any) -> bool:
        return isinstance(checkpointable, tuple)

    def is_abstract_handleable(self, abstract_checkpointable: Any) -> bool | None:
        return abstract_checkpointable is None


def with_handlers(*handlers: type, **named: type) -> ocp.Context:
    registry = ocp.handlers.local_registry()
    for handler in handlers:
        registry.add(handler)
    for name, handler in named.items():
        registry.add(handler, checkpointable_name=name)
    context = ocp.Context()
    context.checkpointables.registry = registry
    return context


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("cls", [Iterator, PlainIterator])
def test_an_object_saves_and_loads_itself(path: pathlib.Path, cls: Any) -> None:
    ocp.save_checkpointables(path, {"data": cls(7), "state": {"w": np.ones(2)}})
    filled = cls(0)
    found = ocp.load_checkpointables(path, {"data": filled})
    assert found["data"] is filled and filled.at == 7
    with pytest.raises(ValueError, match="data"):
        ocp.load_checkpointables(path)
    assert ocp.checkpointables_metadata(path).metadata["data"] is None
    np.testing.assert_equal(ocp.load(path), {"w": np.ones(2)})


def test_a_save_in_the_background_has_the_state_of_the_call(path: pathlib.Path) -> None:
    data = Iterator(7)
    response = ocp.save_checkpointables_async(path, {"data": data})
    data.at = 8
    response.result()
    assert ocp.load_checkpointables(path, {"data": data})["data"].at == 7


def test_it_works_where_an_event_loop_runs(path: pathlib.Path) -> None:
    async def cell() -> int:
        ocp.save_checkpointables(path, {"data": Iterator(7)})
        return int(ocp.load_checkpointables(path, {"data": Iterator(0)})["data"].at)

    assert asyncio.run(cell()) == 7


def test_handlers_of_a_context(path: pathlib.Path) -> None:
    with with_handlers(WordsHandler):
        ocp.save_checkpointables(path, {"vocabulary": Words(["to", "be"])})
        assert ocp.load_checkpointables(path) == {"vocabulary": Words(["to", "be"])}
        some = ocp.load_checkpointables(path, {"vocabulary": AbstractWords(1)})
        assert some == {"vocabulary": Words(["to"])}
        known = ocp.checkpointables_metadata(path)
        assert known.metadata == {"vocabulary": AbstractWords(2)}
        assert ocp.load_checkpointables(path, known) == {"vocabulary": Words(["to", "be"])}
    with pytest.raises(KeyError, match="vocabulary"):
        ocp.load_checkpointables(path)


def test_a_handler_that_is_registered_globally(path: pathlib.Path, run_python: Any) -> None:
    run_python(
        """
import sys
from stepstone import v1 as ocp

@ocp.handlers.register_handler
class BytesHandler(ocp.CheckpointableHandler[bytearray, None]):
    async def save(self, directory, checkpointable):
        (directory / "it").write_bytes(checkpointable)
    async def load(self, directory, abstract_checkpointable=None):
        return bytearray((directory / "it").read_bytes())
    def is_handleable(self, checkpointable):
        return isinstance(checkpointable, bytearray)
    def is_abstract_handleable(self, abstract_checkpointable):
        return abstract_checkpointable is None

ocp.save_checkpointables(sys.argv[1], {"it": bytearray(b"abc")})
assert ocp.load_checkpointables(sys.argv[1]) == {"it": bytearray(b"abc")}
try:
    ocp.handlers.register_handler(BytesHandler)
except ValueError:
    pass
else:
    raise AssertionError("registered twice")
""",
        path,
    )


def test_a_handler_may_leave_parts_to_those_of_the_package(path: pathlib.Path) -> None:
    with with_handlers(pair=PairHandler):
        ocp.save_checkpointables(path, {"pair": ({"w": np.arange(2)}, {"a": [1]})})
        tree, text = ocp.load_checkpointables(path)["pair"]
    np.testing.assert_equal(tree, {"w": np.arange(2)})
    assert text == {"a": [1]}


def test_a_name_may_have_a_handler_of_its_own(path: pathlib.Path) -> None:
    with with_handlers(config=ocp.handlers.JsonHandler):
        ocp.save_checkpointables(path, {"config": {"a": (1, 2)}, "other": {"a": (1, 2)}})
        # JSON has no tuples.
        assert ocp.load_checkpointables(path) == {"config": {"a": [1, 2]}, "other": {"a": (1, 2)}}
    assert ocp.load_checkpointables(path)["config"] == {"a": [1, 2]}


def test_registries_refuse_what_would_be_ambiguous() -> None:
    registry = ocp.handlers.local_registry(include_global_registry=False)
    assert registry.get_all_entries() == []
    added = registry.add(WordsHandler, checkpointable_name="a", secondary_typestrs=["old"])
    assert added is registry
    registry.add(PairHandler)
    with pytest.raises(ValueError):
        registry.add(PairHandler, checkpointable_name="a")
    with pytest.raises(ValueError):
        registry.add(PairHandler)
    with pytest.raises(ValueError):
        registry.add(PairHandler())  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        registry.get("b")
    assert registry.get("a") is WordsHandler and registry.has("a") and not registry.has("b")
    both = ocp.handlers.local_registry(registry)
    assert both.get_secondary_typestrs(WordsHandler) == ("old",)
    assert both.has("state")
    with pytest.raises(NotImplementedError):
        ocp.Context().checkpointables.registry.add(WordsHandler)


def test_arguments_of_the_other_style_are_taken_too(path: pathlib.Path) -> None:
    args = stepstone.args
    ocp.save_checkpointables(path, {"state": args.StandardSave({"w": np.ones(2)})})
    np.testing.assert_equal(ocp.load(path), {"w": np.ones(2)})
    found = ocp.load_checkpointables(path, {"state": args.StandardRestore({"w": np.zeros(2)})})
    np.testing.assert_equal(found, {"state": {"w": np.ones(2)}})


def test_a_handler_that_fails_saves_nothing(path: pathlib.Path) -> None:
    class Failing(PlainIterator):
        def save(self, directory: pathlib.Path) -> None:
            raise OSError("out of tape")

    with pytest.raises(OSError, match="tape"):
        ocp.save_checkpointables(path, {"data": Failing(1)})
    assert not ocp.is_stepstone_checkpoint(path)


def test_messages_of_protocol_buffers(path: pathlib.Path) -> None:
    duration = pytest.importorskip(
        "google.protobuf.duration_pb2", reason="protobuf is not installed"
    ).Duration
    ocp.save_checkpointables(path, {"time": duration(seconds=3)})
    assert ocp.load_checkpointables(path, {"time": duration})["time"] == duration(seconds=3)
    with pytest.raises(ValueError, match="time"):
        ocp.load_checkpointables(path)
