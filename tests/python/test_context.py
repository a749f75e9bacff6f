"""Options of the newer style: where they hold, and that nothing changes them halfway."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from stepstone import v1 as ocp
from stepstone.context import get_context


def test_options_hold_inside_the_block_only() -> None:
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    assert not get_context().pytree.loading.partial_load
    with context as entered:
        assert entered is context
        assert get_context().pytree.loading.partial_load
        with ocp.Context():
            assert not get_context().pytree.loading.partial_load
        assert get_context().pytree.loading.partial_load
    assert not get_context().pytree.loading.partial_load


def test_a_context_made_from_another_starts_with_copies() -> None:
    parent = ocp.Context()
    parent.array.saving.storage_options.dtype = "float16"
    child = ocp.Context(parent)
    child.array.saving.storage_options.chunk_byte_size = 1 << 20
    assert child.array.saving.storage_options.dtype == "float16"
    assert parent.array.saving.storage_options.chunk_byte_size is None


def test_nothing_can_be_changed_inside() -> None:
    context = ocp.Context()
    with context:
        with pytest.raises(RuntimeError, match="before the `with`"):
            context.array.saving.storage_options.dtype = "float16"
        with pytest.raises(RuntimeError):
            context.checkpoint_layout = "auto"  # type: ignore[assignment]
        ocp.Context(context).array.saving.use_compression = False
    context.array.saving.storage_options.dtype = "float16"
    assert context.array.saving.storage_options.dtype == "float16"


def test_a_context_can_be_entered_twice() -> None:
    context = ocp.Context()
    with context, context:
        pass
    with context:
        with context:
            pass
        with pytest.raises(RuntimeError):
            context.memory.deepcopy_host_arrays = False
    context.memory.deepcopy_host_arrays = False


def test_a_subject_cannot_be_replaced_whole() -> None:
    with pytest.raises(AttributeError):
        ocp.Context().array = ocp.options.ArrayOptions()


def test_threads_of_the_caller_have_their_own() -> None:
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    seen = []
    with context:
        thread = threading.Thread(
            target=lambda: seen.append(get_context().pytree.loading.partial_load)
        )
        thread.start()
        thread.join()
    assert seen == [False]


def test_options_objects_are_copied_also_foreign_ones() -> None:
    foreign = SimpleNamespace(timeout_secs=7, post_finalization_callback=None)
    context = ocp.Context(
        async_options=foreign,
        array_options=ocp.options.ArrayOptions(
            loading=ocp.options.ArrayOptions.Loading(enable_padding_and_truncation=True)
        ),
    )
    assert context.asynchronous.timeout_secs == 7
    assert context.array_options.loading.enable_padding_and_truncation  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        context.other_options


def test_threads_may_share_a_context() -> None:
    context = ocp.Context()
    is_inside, may_leave = threading.Event(), threading.Event()

    def enter() -> None:
        with context:
            is_inside.set()
            may_leave.wait(60)

    thread = threading.Thread(target=enter)
    thread.start()
    assert is_inside.wait(60)
    with context:
        may_leave.set()
        thread.join()
        assert get_context() is context
    assert get_context() is not context
    context.asynchronous.timeout_secs = 1


def test_the_layout_is_taken_by_name_and_checked() -> None:
    context = ocp.Context(checkpoint_layout="auto")
    assert context.checkpoint_layout is ocp.options.CheckpointLayout.AUTO
    with pytest.raises(ValueError):
        context.checkpoint_layout = "zarr"  # type: ignore[assignment]


def test_repr_shows_what_was_changed() -> None:
    context = ocp.Context()
    assert repr(context) == "Context()"
    context.asynchronous.timeout_secs = 5
    assert "timeout_secs=5" in repr(context)
    assert "memory" not in repr(context)
