"""What importing the package costs, and what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable

PROGRAM = """
import json, sys, time
import numpy
before = set(sys.modules)
begin = time.perf_counter()
import stepstone
seconds = time.perf_counter() - begin
print(json.dumps({"seconds": seconds, "modules": sorted(set(sys.modules) - before)}))
"""

# Libraries that the package knows how to deal with, and modules that are slow to import.
UNWANTED = {
    "jax", "jaxlib", "torch", "flax", "optax", "tensorstore", "orbax", "etils", "ml_dtypes",
    "google", "asyncio", "typing_extensions", "nest_asyncio", "inspect", "unittest", "rich", "tqdm",
}


def test_importing_loads_no_other_library_and_nothing_slow(run_python: Callable[..., str]) -> None:
    runs = [json.loads(run_python(PROGRAM)) for _ in range(5)]
    # Told rather than asserted: it is a matter of the machine and of what else it does.
    print(f"import stepstone, beyond numpy: {min(run['seconds'] for run in runs) * 1e3:.1f} ms")
    loaded = {name.partition(".")[0] for name in runs[0]["modules"]}
    assert loaded & UNWANTED == set()


def test_every_public_name_is_there(run_python: Callable[..., str]) -> None:
    program = """
import stepstone
for name in stepstone.__all__:
    getattr(stepstone, name)
assert set(stepstone.__all__) <= set(dir(stepstone))
"""
    run_python(program)


def test_an_unknown_name_is_an_attribute_error_that_names_it(run_python: Callable[..., str]) -> None:
    program = """
import stepstone
try:
    stepstone.no_such_name
except AttributeError as error:
    assert "no_such_name" in str(error), error
else:
    raise SystemExit("no error")
"""
    run_python(program)
