"""What the methods of `training.Checkpointer` were called before."""

from __future__ import annotations

import warnings
from typing import Any


class OlderNames:
    """Each calls the method of the newer name, and warns."""

    def save_pytree(self, *args: Any, **kwargs: Any) -> Any:
        """Deprecated: `save`."""
        return self._call("save", *args, **kwargs)

    def save_pytree_async(self, *args: Any, **kwargs: Any) -> Any:
        """Deprecated: `save_async`."""
        return self._call("save_async", *args, **kwargs)

    def load_pytree(self, *args: Any, **kwargs: Any) -> Any:
        """Deprecated: `load`."""
        return self._call("load", *args, **kwargs)

    def load_pytree_async(self, *args: Any, **kwargs: Any) -> Any:
        """Deprecated: `load_async`."""
        return self._call("load_async", *args, **kwargs)

    def pytree_metadata(self, *args: Any, **kwargs: Any) -> Any:
        """Deprecated: `metadata`."""
        return self._call("metadata", *args, **kwargs)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        warnings.warn(f"it is called {name}() now", DeprecationWarning, stacklevel=3)
        return getattr(self, name)(*args, **kwargs)
