#!/usr/bin/env python3
"""Saves and restores a GPT-2-sized training state with Stepstone and with Orbax, side by side.

The state: the 148 parameter tensors of GPT-2 small and Adam's two moments of each, 444 float32 leaves,
1.49 GB of random normal numbers. Each repetition measures, one after the other: a durable, synchronous
save with Stepstone, a synchronous save with Orbax (which leaves the bytes to the page cache), a warm
restore with each, and what the disk takes at most (the raw limit: the best of buffered or O_DIRECT,
one file or two, in writes of 1 MiB, then fdatasync). The restored arrays are compared with the state.

Build stepstone_bench first. Orbax is installed by pip into build/bench-venv on the first run.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
import venv

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
REQUIREMENTS = ["orbax-checkpoint==0.12.8", "jax==0.10.2", "numpy==2.4.6"]


def enter_environment() -> None:
    """Goes on inside build/bench-venv, made first where it is not there yet."""
    directory = REPOSITORY / "build" / "bench-venv"
    python = directory / "bin" / "python"
    if pathlib.Path(sys.prefix).resolve() == directory.resolve():
        return
    installed = directory / "installed"
    if not installed.exists() or installed.read_text().split() != REQUIREMENTS:
        print("installing", *REQUIREMENTS, file=sys.stderr)
        venv.create(directory, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        installed.write_text("\n".join(REQUIREMENTS))
    os.execv(python, [str(python), *sys.argv])


def gpt2_small_shapes() -> dict[str, tuple[int, ...]]:
    width = 768
    shapes = {"wte": (50257, width), "wpe": (1024, width)}
    for block in range(12):
        for name, shape in {
            "ln_1.weight": (width,),
            "ln_1.bias": (width,),
            "attn.c_attn.weight": (width, 3 * width),
            "attn.c_attn.bias": (3 * width,),
            "attn.c_proj.weight": (width, width),
            "attn.c_proj.bias": (width,),
            "ln_2.weight": (width,),
            "ln_2.bias": (width,),
            "mlp.c_fc.weight": (width, 4 * width),
            "mlp.c_fc.bias": (4 * width,),
            "mlp.c_proj.weight": (4 * width, width),
            "mlp.c_proj.bias": (width,),
        }.items():
            shapes[f"h.{block}.{name}"] = shape
    return shapes | {"ln_f.weight": (width,), "ln_f.bias": (width,)}


def make_state(directory: pathlib.Path, seed: int):
    """Returns the state as {name: array} and leaves it in `directory` for stepstone_bench."""
    import numpy as np

    generator = np.random.default_rng(seed)
    state = {}
    for part in ("params", "mean", "variance"):
        for name, shape in gpt2_small_shapes().items():
            state[f"{part}.{name}"] = generator.standard_normal(shape, dtype=np.float32)
    with open(directory / "leaves", "w") as leaves, open(directory / "bytes", "wb") as data:
        for name, array in state.items():
            print(name, *array.shape, file=leaves)
            array.tofile(data)
    return state


class Stepstone:
    def __init__(self, program: pathlib.Path, state: pathlib.Path, directory: pathlib.Path):
        self.program, self.state, self.store = program, state, directory / "stepstone"

    def _run(self, what: str, place: pathlib.Path) -> dict:
        command = [self.program, what, self.state, place]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    def save(self) -> dict:
        shutil.rmtree(self.store, ignore_errors=True)
        os.sync()
        return self._run("save", self.store)

    def restore(self) -> dict:
        return self._run("restore", self.store)

    def raw(self) -> dict:
        os.sync()
        return self._run("raw", self.store.parent)


class Orbax:
    def __init__(self, state: dict, directory: pathlib.Path):
        import orbax.checkpoint as ocp

        self.state, self.path = state, directory / "orbax"
        self.checkpointer = ocp.StandardCheckpointer()

    def save(self) -> dict:
        shutil.rmtree(self.path, ignore_errors=True)
        os.sync()
        begin = time.perf_counter()
        self.checkpointer.save(self.path, self.state)
        self.checkpointer.wait_until_finished()
        return {"seconds": time.perf_counter() - begin}

    def restore(self) -> dict:
        import numpy as np

        begin = time.perf_counter()
        restored = self.checkpointer.restore(self.path, self.state)
        seconds = time.perf_counter() - begin
        for name, array in self.state.items():
            if not np.array_equal(restored[name], array):
                sys.exit(f"Orbax restored {name} differently")
        return {"seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--program", type=pathlib.Path,
                        default=REPOSITORY / "build/tools/bench/stepstone_bench")
    parser.add_argument("--directory", type=pathlib.Path, default=REPOSITORY / "build/bench",
                        help="on the disk to measure; 8 GB are needed, and freed at the end")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE",
                        help="also write all the measurements here")
    options = parser.parse_args()
    if options.repetitions < 1:
        parser.error("--repetitions must be at least 1")
    if not options.program.exists():
        parser.error(f"{options.program} is absent: cmake --build build --target stepstone_bench")

    directory = options.directory.resolve()
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "state").mkdir(parents=True)
    try:
        measure(options, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def measure(options: argparse.Namespace, directory: pathlib.Path) -> None:
    state = make_state(directory / "state", options.seed)
    size = sum(array.nbytes for array in state.values())
    print(f"{len(state)} leaves, {size / 1e9:.2f} GB, {options.repetitions} repetitions, "
          f"{os.cpu_count()} processors", flush=True)
    stepstone = Stepstone(options.program, directory / "state", directory)
    orbax = Orbax(state, directory)
    measurements: dict[str, list[dict]] = {}
    for repetition in range(options.repetitions):
        for name, work in {
            "raw": stepstone.raw,
            "stepstone save": stepstone.save,
            "orbax save": orbax.save,
            "stepstone restore": stepstone.restore,
            "orbax restore": orbax.restore,
        }.items():
            measurements.setdefault(name, []).append(work())
            print(f"  {repetition + 1} {name}: {json.dumps(measurements[name][-1])}", flush=True)

    def median(name: str, key: str = "seconds") -> float:
        return statistics.median(each[key] for each in measurements[name] if key in each)

    ways = {way: median("raw", way) for way in measurements["raw"][0]}
    best_way = min(ways, key=ways.get)
    results = {
        "state_bytes": size,
        "repetitions": options.repetitions,
        "raw_limit_seconds": ways[best_way],
        "raw_limit_way": best_way,
    }
    print("\nmedians, in seconds:")
    print(f"  raw limit (durable write)  {ways[best_way]:6.2f}  {best_way}")
    for what in ("save", "restore"):
        ours, theirs = median(f"stepstone {what}"), median(f"orbax {what}")
        peak = max(each["peak_bytes"] - each["state_bytes"]
                   for each in measurements[f"stepstone {what}"])
        results |= {f"stepstone_{what}_seconds": ours, f"orbax_{what}_seconds": theirs,
                    f"{what}_ratio": theirs / ours, f"stepstone_{what}_peak_beyond_state_bytes": peak}
        print(f"  {what + ' with Stepstone':<26} {ours:6.2f}  Orbax takes {theirs / ours:.2f} times as long; "
              f"at most {peak / 2**20:.0f} MiB of memory beyond the state")
        print(f"  {what + ' with Orbax':<26} {theirs:6.2f}")
    ratio = results["stepstone_save_seconds"] / results["raw_limit_seconds"]
    results["save_over_raw_limit"] = ratio
    print(f"Stepstone's save takes {ratio:.2f} times the raw limit.")
    if options.json:
        options.json.write_text(
            json.dumps({"results": results, "measurements": measurements}, indent=1) + "\n")


if __name__ == "__main__":
    enter_environment()
    main()
