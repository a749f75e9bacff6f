"""Names of Orbax's module for Pathways, a runtime of several machines that is not supported here."""

from __future__ import annotations

from stepstone.errors import UnsupportedError

__all__ = ["Snapshotter"]


class Snapshotter:
    """Refuses to be made: it would keep copies of a state in the memory of other machines.

    What it is for on one machine, to go on from a recent state after an error, a run of its own
    gives that is saved often: `Checkpointer.save_async` keeps the trainer for one copy of what may
    change, and what has not changed since the last step is not stored again.

    Parameters
    ----------
    replica_axis_index : int
        As in Orbax.

    Raises
    ------
    UnsupportedError
        Always. A ValueError.
    """

    def __init__(self, *, replica_axis_index: int = 0) -> None:
        raise UnsupportedError(
            "there is no Pathways here, and no Snapshotter: save often with "
            "training.Checkpointer.save_async, into a run that keeps the newest steps"
        )
