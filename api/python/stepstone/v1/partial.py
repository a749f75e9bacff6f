"""`stepstone.partial`, under the newer style's name."""

from __future__ import annotations

from stepstone.partial import finalize, save, save_async

__all__ = ["finalize", "save", "save_async"]
