"""`stepstone.v1`, under the name that Orbax has for its twin."""

from __future__ import annotations

import sys

from stepstone import v1
from stepstone.v1 import *  # noqa: F403
from stepstone.v1 import __all__ as __all__

# `import stepstone.experimental.v1.training` finds the module of `stepstone.v1`.
__path__: list[str] = []
_MODULES = "arrays errors handlers multihost options partial path training tree".split()
sys.modules.update({f"{__name__}.{name}": getattr(v1, name) for name in _MODULES})
