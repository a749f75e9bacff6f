"""Options of the newer style, set for a block of code instead of call by call.

A `Context` holds one options object per subject. Set what differs from the defaults, then enter it:

>>> context = Context()
>>> context.array.saving.storage_options.dtype = "bfloat16"
>>> with context:
...     get_context().array.saving.storage_options.dtype
'bfloat16'

Inside the block nothing of it can be changed, so that a save never sees half of a change. A context
belongs to the thread, or the asyncio task, that entered it; the threads of the package's own
`*_async` functions run in the context of their caller.

Every option of Orbax's newer style is here. Those about hosts that share one checkpoint, about
Orbax's file formats, and about memory that is bounded here by design have no effect; each says so.
"""

from __future__ import annotations

import contextvars
from types import TracebackType
from typing import Self, cast

from stepstone import _native
from stepstone.context_options import (
    ArrayOptions,
    AsyncOptions,
    AtomicityOptions,
    CheckpointablesOptions,
    CheckpointLayout,
    DeletionOptions,
    FileOptions,
    MemoryOptions,
    MultiprocessingOptions,
    Options,
    PathwaysOptions,
    PyTreeOptions,
    SafetensorsOptions,
    copy_options,
    entering,
)

__all__ = ["Context", "get_context"]

# What a Context has options for.
_SUBJECTS: dict[str, type[Options]] = {
    "pytree": PyTreeOptions,
    "array": ArrayOptions,
    "asynchronous": AsyncOptions,
    "multiprocessing": MultiprocessingOptions,
    "file": FileOptions,
    "checkpointables": CheckpointablesOptions,
    "pathways": PathwaysOptions,
    "deletion": DeletionOptions,
    "memory": MemoryOptions,
    "safetensors": SafetensorsOptions,
    "atomicity": AtomicityOptions,
}


class Context(Options):
    """All options, as a context manager.

    Parameters
    ----------
    context : Context, optional
        Where the options come from that are not given; they are copied. Without it every option has
        its default, also inside another context.
    pytree_options, array_options, async_options, multiprocessing_options, file_options, \
checkpointables_options, pathways_options, deletion_options, memory_options, safetensors_options, \
atomicity_options
        Options objects to copy; Orbax's own will do.
    checkpoint_layout : CheckpointLayout or str, optional

    Attributes
    ----------
    pytree, array, asynchronous, multiprocessing, file, checkpointables, pathways, deletion, \
memory, safetensors, atomicity
        The options objects. Setting one of their fields inside `with` is a RuntimeError.
    checkpoint_layout : CheckpointLayout
    """

    pytree: PyTreeOptions
    array: ArrayOptions
    asynchronous: AsyncOptions
    multiprocessing: MultiprocessingOptions
    file: FileOptions
    checkpointables: CheckpointablesOptions
    pathways: PathwaysOptions
    deletion: DeletionOptions
    memory: MemoryOptions
    safetensors: SafetensorsOptions
    atomicity: AtomicityOptions
    checkpoint_layout: CheckpointLayout

    def __init__(
        self,
        context: Context | None = None,
        *,
        pytree_options: object = None,
        array_options: object = None,
        async_options: object = None,
        multiprocessing_options: object = None,
        file_options: object = None,
        checkpointables_options: object = None,
        pathways_options: object = None,
        checkpoint_layout: CheckpointLayout | str | None = None,
        deletion_options: object = None,
        memory_options: object = None,
        safetensors_options: object = None,
        atomicity_options: object = None,
    ) -> None:
        given = {
            "pytree": pytree_options,
            "array": array_options,
            "asynchronous": async_options,
            "multiprocessing": multiprocessing_options,
            "file": file_options,
            "checkpointables": checkpointables_options,
            "pathways": pathways_options,
            "deletion": deletion_options,
            "memory": memory_options,
            "safetensors": safetensors_options,
            "atomicity": atomicity_options,
        }
        for name, cls in _SUBJECTS.items():
            source = given[name]
            if source is None and context is not None:
                source = getattr(context, name)
            super().__setattr__(name, cls() if source is None else copy_options(cls, source))
        if checkpoint_layout is None and context is not None:
            checkpoint_layout = context.checkpoint_layout
        # By way of __setattr__, which takes a name, or Orbax's own constant.
        setattr(self, "checkpoint_layout", checkpoint_layout or CheckpointLayout.ORBAX)

    def __setattr__(self, name: str, value: object) -> None:
        if name == "checkpoint_layout":
            value = CheckpointLayout(getattr(value, "value", value))
        elif name in _SUBJECTS:
            raise AttributeError(f"set the fields of Context.{name}, not {name} itself")
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Options:
        # The names of the arguments are those of attributes, too, in programs for Orbax.
        subject = "asynchronous" if name == "async_options" else name.removesuffix("_options")
        if name.endswith("_options") and subject in _SUBJECTS:
            return cast(Options, self.__dict__[subject])
        raise AttributeError(f"a Context has no '{name}'")

    def __enter__(self) -> Self:
        with entering:
            self.enter(1)
        _ENTERED.set((*_ENTERED.get(), self))
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _ENTERED.set(_ENTERED.get()[:-1])
        with entering:
            self.enter(-1)

    def __repr__(self) -> str:
        changed = [
            f"{name}={getattr(self, name)!r}"
            for name, cls in _SUBJECTS.items()
            if name != "checkpointables" and getattr(self, name) != cls()
        ]
        if self.checkpoint_layout != CheckpointLayout.ORBAX:
            changed.append(f"checkpoint_layout={self.checkpoint_layout}")
        return f"Context({', '.join(changed)})"

    def storage(self) -> _native.StorageOptions | None:
        """What the native module is told about storing whole checkpoints; None: the defaults."""
        if self.array.saving.use_compression:
            return None
        return _native.StorageOptions(compression="none")

    def check_layout(self) -> None:
        """ValueError where a foreign format is asked for."""
        if self.checkpoint_layout == CheckpointLayout.SAFETENSORS:
            raise ValueError(
                "checkpoint_layout is SAFETENSORS, which Stepstone neither reads nor writes: load "
                "the file with safetensors.numpy.load_file, and save what it gives"
            )


_ENTERED: contextvars.ContextVar[tuple[Context, ...]] = contextvars.ContextVar(
    "stepstone_contexts", default=()
)


def get_context(default: Context | None = None) -> Context:
    """The context that was entered last.

    Parameters
    ----------
    default : Context, optional
        What is returned outside of all contexts. Without it: one with the defaults.
    """
    entered = _ENTERED.get()
    return entered[-1] if entered else default or Context()
