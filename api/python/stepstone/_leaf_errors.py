"""The exception that stands for a leaf which cannot be stored."""

from __future__ import annotations

from typing import Any


class RefusedLeaf(Exception):
    """Raised where only the leaf is known; `_tree` adds where it stands in its tree."""

    def __init__(self, value: Any, why: str) -> None:
        super().__init__(why)
        self.value = value
        self.why = why
