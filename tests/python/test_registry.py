"""Which handler is found, and which mistakes are noticed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import stepstone as ocp
from stepstone import handlers
from stepstone.errors import MismatchError
from stepstone.registry import HandlerRegistry


class Words(ocp.CheckpointHandler):
    def save(self, directory: Any, args: Any) -> None:
        (directory / "words").write_text(" ".join(args.words))

    def restore(self, directory: Any, args: Any) -> Any:
        return (directory / "words").read_text().split()


@ocp.args.register_with_handler(Words, for_save=True)
@dataclasses.dataclass
class WordsSave(ocp.args.CheckpointArgs):
    words: list[str]


@ocp.args.register_with_handler(Words, for_restore=True)
@dataclasses.dataclass
class WordsRestore(ocp.args.CheckpointArgs):
    pass


def test_arguments_and_handlers_find_each_other() -> None:
    assert ocp.args.get_registered_handler_cls(WordsSave) is Words
    assert ocp.args.get_registered_handler_cls(WordsRestore()) is Words
    assert ocp.args.get_registered_args_cls(Words()) == (WordsSave, WordsRestore)
    assert ocp.args.has_registered_args(Words)
    assert ocp.args.get_registered_handler_cls(ocp.args.StandardSave) is (
        ocp.StandardCheckpointHandler
    )


def test_what_is_not_registered_is_refused() -> None:
    class Unknown(ocp.args.CheckpointArgs):
        pass

    with pytest.raises(ValueError, match="register_with_handler"):
        ocp.args.get_registered_handler_cls(Unknown)
    with pytest.raises(TypeError):
        ocp.args.get_registered_handler_cls(int)
    assert not ocp.args.has_registered_args(Unknown)
    with pytest.raises(TypeError):
        ocp.args.register_with_handler(Words, for_save=True)(int)


def test_another_class_of_the_same_name_is_refused_and_the_same_class_again_is_not() -> None:
    class Impostor(ocp.CheckpointHandler):
        def save(self, directory: Any, args: Any) -> None: ...

        def restore(self, directory: Any, args: Any) -> None: ...

        @classmethod
        def typestr(cls) -> str:
            return Words.typestr()

    with pytest.raises(ValueError, match="typestr"):
        ocp.args.register_with_handler(Impostor, for_save=True)(
            type("ImpostorSave", (ocp.args.CheckpointArgs,), {})
        )

    def define() -> type:
        class Cell(ocp.CheckpointHandler):
            def save(self, directory: Any, args: Any) -> None: ...

            def restore(self, directory: Any, args: Any) -> None: ...

        ocp.args.register_with_handler(Cell, for_save=True)(
            type("CellSave", (ocp.args.CheckpointArgs,), {})
        )
        return Cell

    define()
    define()


def test_a_registry_gives_an_item_its_handler() -> None:
    registry = ocp.DefaultCheckpointHandlerRegistry()
    registry.add("words", WordsSave, Words)
    registry.add(None, ocp.args.JsonSave)
    assert isinstance(registry.get("words", WordsSave(["a"])), Words)
    assert isinstance(registry.get(None, ocp.args.JsonSave), ocp.JsonCheckpointHandler)
    with pytest.raises(KeyError):
        registry.get("words", WordsRestore)
    with pytest.raises(handlers.handler_registration.AlreadyExistsError):
        registry.add("words", WordsSave, Words)
    copied = ocp.DefaultCheckpointHandlerRegistry(registry)
    assert copied.get_all_entries() == registry.get_all_entries()

    found = HandlerRegistry(handler_registry=registry)
    assert found.resolve_for_save("words", WordsSave([])) is registry.get("words", WordsSave)
    with pytest.raises(ValueError):
        found.resolve_for_save("words", ocp.args.StandardSave({}))
    found.resolve_for_save("anything", ocp.args.StandardSave({}))


def test_only_items_that_were_named_are_saved() -> None:
    registry = HandlerRegistry(["state"])
    registry.resolve_for_save("state", ocp.args.StandardSave({}))
    with pytest.raises(ValueError, match="'other'.*state"):
        registry.resolve_for_save("other", ocp.args.StandardSave({}))


def test_an_item_with_a_handler_takes_only_its_arguments() -> None:
    registry = HandlerRegistry(item_handlers={"words": Words()})
    registry.resolve_for_save("words", WordsSave([]))
    with pytest.raises(ValueError, match="Words"):
        registry.resolve_for_save("words", ocp.args.StandardSave({}))


def test_a_handler_is_found_by_what_is_recorded() -> None:
    registry = HandlerRegistry()
    assert isinstance(registry.resolve_for_restore("a", None, Words.typestr()), Words)
    for recorded, cls in (
        ("standard", ocp.StandardCheckpointHandler),
        ("pytree", ocp.PyTreeCheckpointHandler),
        ("array", ocp.ArrayCheckpointHandler),
        ("json", ocp.JsonCheckpointHandler),
        ("proto", ocp.ProtoCheckpointHandler),
    ):
        assert type(registry.resolve_for_restore("a", None, recorded)) is cls
    with pytest.raises(ValueError, match="elsewhere.Handler"):
        registry.resolve_for_restore("a", None, "elsewhere.Handler")
    assert registry.handler_for("a", "elsewhere.Handler") is None


def test_arguments_for_another_handler_than_the_recorded_one_are_a_mismatch() -> None:
    registry = HandlerRegistry()
    registry.resolve_for_restore("a", ocp.args.PyTreeRestore(), "standard")
    with pytest.raises(MismatchError, match="'a'.*'json'"):
        registry.resolve_for_restore("a", ocp.args.StandardRestore(), "json")


def test_handlers_and_arguments_of_orbax_are_taken() -> None:
    orbax: Any = pytest.importorskip("orbax.checkpoint", reason="Orbax is absent")

    class Theirs(orbax.CheckpointHandler):  # type: ignore[misc]
        def save(self, directory: Any, args: Any) -> None: ...

        def restore(self, directory: Any, args: Any) -> None: ...

    @orbax.args.register_with_handler(Theirs, for_save=True, for_restore=True)
    class TheirArgs(orbax.args.CheckpointArgs):  # type: ignore[misc]
        pass

    registry = HandlerRegistry(item_handlers={"state": orbax.StandardCheckpointHandler()})
    save = ocp.args.StandardSave({"a": 1})
    assert type(registry.resolve_for_save("state", save)) is ocp.StandardCheckpointHandler
    registry = HandlerRegistry()
    assert isinstance(registry.resolve_for_save("other", TheirArgs()), Theirs)
    assert isinstance(registry.resolve_for_restore("other", None, Theirs.typestr()), Theirs)
