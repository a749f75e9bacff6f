"""Several hosts, of which here there is always one: one process writes a store."""

from __future__ import annotations

from typing import Any

__all__ = [
    "is_pathways_backend",
    "is_primary_host",
    "process_count",
    "process_index",
    "sync_global_processes",
]


def process_count() -> int:
    """1."""
    return 1


def process_index() -> int:
    """0."""
    return 0


def is_primary_host(primary_host: int | None = 0) -> bool:
    """True, whatever host is the primary one."""
    return True


def is_pathways_backend() -> bool:
    """False."""
    return False


async def sync_global_processes(*args: Any, **kwargs: Any) -> None:
    """Nothing: there is nobody to wait for."""
