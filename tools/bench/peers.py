#!/usr/bin/env python3
"""Saves and restores the same states with Stepstone and with its peers, in turns, and compares.

Peers: Orbax, TensorStore's OCDBT (as a key-value store), safetensors, HDF5 and torch.save, from the
Python package index, in an environment of their own under build/ that the first run makes (torch alone
takes 5 GB there; --only leaves peers out). Stepstone's figures are those of `build/stepstone bench`;
"stepstone (Python)" is its Python package, called exactly as Orbax is: the one that was built in place
(api/python/stepstone/_native*.so), else installed from api/python.

Every measurement has a fresh process. What is restored is compared with the state, untimed. A peer that
leaves its bytes to the page cache is measured as it is and, as "+ fsync", with an fsync of everything it
wrote, which is what makes a save durable; Stepstone's saves are durable always.

Workloads: gpt2 (444 float32 leaves, 1.49 GB), small (10,000 leaves of 1 KiB): save, restore with the page
cache warm into new memory, one leaf after opening, one leaf from a manager that is open; gpt2: how long
a save in the background keeps the trainer, with numpy's arrays and with jax's; tiny-steps (196 KB, the
newest 3 kept): per step; shared (3 steps of gpt2, one leaf changed between them): bytes on the disk.
"""

import argparse
import compileall
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import venv

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
ENVIRONMENT = REPOSITORY / "build" / "peers-venv"
BASE_REQUIREMENTS = ["numpy==2.4.6", "matplotlib==3.11.2"]
PACKAGE = REPOSITORY / "api" / "python"
PYTHON_PEER = "stepstone-python"
REQUIREMENTS = {
    PYTHON_PEER: ["jax==0.10.2"],  # For its arrays; the package itself needs numpy only.
    "orbax": ["orbax-checkpoint==0.12.8", "jax==0.10.2"],
    "ocdbt": ["tensorstore==0.1.86"],
    "safetensors": ["safetensors==0.8.0"],
    "hdf5": ["h5py==3.16.0"],
    "torch": ["torch==2.15.0"],
}
WORKLOADS = ["gpt2", "small", "tiny-steps", "shared"]
MEASURES = {  # What each workload measures, its unit and how many of them a second or a byte has.
    "gpt2": {"save": "s", "restore": "s", "leaf": "ms", "leaf_open": "ms", "stall": "ms",
             "stall_jax": "ms"},
    "small": {"save": "ms", "restore": "ms", "leaf": "ms", "leaf_open": "ms"},
    "tiny-steps": {"step": "ms", "step_async": "ms"},
    "shared": {"disk": "GB"},
}
UNITS = {"s": 1, "ms": 1e3, "GB": 1e-9}
LABELS = {PYTHON_PEER: "stepstone (Python)"}
# Peers with a manager, and what more is measured with it.
MANAGED = {PYTHON_PEER, "orbax"}
MANAGED_OPERATIONS = {"gpt2": ["save_sync", "managed", "stall", "stall_jax"],
                      "small": ["save_sync", "managed"], "tiny-steps": ["steps_async"]}
SUFFIXES = {"save_sync": ", synchronous", "managed": ", manager"}
ALWAYS_DURABLE = {PYTHON_PEER}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", metavar="PEER,...", type=lambda text: text.split(","),
                        default=list(REQUIREMENTS), help="of " + ", ".join(REQUIREMENTS))
    parser.add_argument("--workloads", metavar="NAME,...", type=lambda text: text.split(","),
                        default=WORKLOADS, help="of " + ", ".join(WORKLOADS))
    parser.add_argument("--steps", type=int, default=60, help="of tiny-steps")
    parser.add_argument("--shrink", type=int, default=1, help="states so many times smaller")
    parser.add_argument("--program", type=pathlib.Path, default=REPOSITORY / "build/stepstone")
    parser.add_argument("--directory", type=pathlib.Path, default=REPOSITORY / "build/peers",
                        help="on the disk to measure; 10 GB are needed, and freed at the end")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the figures")
    parser.add_argument("--plot", metavar="PREFIX", help="also draw PREFIX.png and PREFIX.svg")
    options = parser.parse_args()
    for given, known in ((options.only, REQUIREMENTS), (options.workloads, WORKLOADS)):
        for name in given:
            if name not in known:
                parser.error(f"{name!r} is none of {', '.join(known)}")
    if options.repetitions < 1:
        parser.error("--repetitions must be at least 1")
    if not options.program.exists():
        parser.error(f"{options.program} is absent: cmake --build build --target stepstone_tool")
    return options


def enter_environment(peers: list[str]) -> None:
    """Goes on inside ENVIRONMENT, where what the peers need is installed first."""
    python = ENVIRONMENT / "bin" / "python"
    if pathlib.Path(sys.prefix).resolve() == ENVIRONMENT.resolve():
        # Also where the caller has chosen this Python himself.
        if PYTHON_PEER in peers and "PYTHONPATH" not in os.environ:
            provide_package(python)
        return
    marker = ENVIRONMENT / "installed"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
    installed = marker.read_text().splitlines() if marker.exists() else []
    for requirements in [BASE_REQUIREMENTS, *(REQUIREMENTS[peer] for peer in peers)]:
        if all(each in installed for each in requirements):
            continue
        print("installing", *requirements, file=sys.stderr, flush=True)
        result = subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements])
        if result.returncode != 0 and requirements is BASE_REQUIREMENTS:
            sys.exit("numpy and matplotlib are needed")
        # A peer that cannot be installed is found missing, and named, when it is first tried.
        if result.returncode == 0:
            installed += requirements
            marker.write_text("\n".join(installed) + "\n")
    if PYTHON_PEER in peers:
        provide_package(python)
    os.execv(python, [str(python), *sys.argv])


def provide_package(python: pathlib.Path) -> None:
    """Makes the Python package that stands in this tree the one that is imported."""
    if any(PACKAGE.glob("stepstone/_native*.so")):
        os.environ["PYTHONPATH"] = str(PACKAGE)
        # As pip does for the peers: else a process that may not write __pycache__ compiles anew.
        compileall.compile_dir(PACKAGE / "stepstone", quiet=1)
        return
    print("building and installing", PACKAGE, file=sys.stderr, flush=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", PACKAGE], check=False)


class Results:
    """Samples in seconds or bytes, by workload, measure and contestant, in the order of arrival."""

    def __init__(self):
        self.samples: dict[tuple[str, str], dict[str, list[float]]] = {}
        self.skipped: dict[tuple[str, str], str] = {}
        self.machine: dict = {}

    def add(self, workload: str, measure: str, contestant: str, value: float) -> None:
        contestants = self.samples.setdefault((workload, measure), {})
        contestants.setdefault(contestant, []).append(value)

    def rows(self) -> list[dict]:
        rows = []
        for (workload, measure), contestants in self.samples.items():
            unit = MEASURES[workload][measure]
            medians = {name: statistics.median(each) for name, each in contestants.items()}
            ours = medians.get("stepstone", medians.get(LABELS[PYTHON_PEER]))
            for name in sorted(medians, key=medians.get):
                rows.append({
                    "workload": workload, "measure": measure, "contestant": name,
                    "median": medians[name] * UNITS[unit], "unit": unit,
                    "times_stepstone": medians[name] / ours if ours else None,
                    "samples": [value * UNITS[unit] for value in contestants[name]],
                })
        return rows

    def to_table(self) -> str:
        lines, place = [], None
        for row in self.rows():
            if place != (row["workload"], row["measure"]):
                place = (row["workload"], row["measure"])
                lines += ["", f"{place[0]}: {place[1]}, in {row['unit']}"]
            times = row["times_stepstone"]
            lines.append(f"  {row['contestant']:<34} {row['median']:10.3g}"
                         + (f"   {times:8.2f} times Stepstone" if times else ""))
        lines += [f"\nnot measured: {workload}: {name}: {reason}"
                  for (workload, name), reason in self.skipped.items()]
        return "\n".join(lines)


class Stepstone:
    """`stepstone bench`, one sample at a time. The raw limit of a durable write comes with it."""

    METRICS = {"gpt2": "save,restore_warm,restore_warm_new_memory,leaf_first,"
                       "save_async_stall_mutable,save_async_stall_immutable",
               "small": "save,restore_warm,restore_warm_new_memory,leaf_first",
               "tiny-steps": "save", "shared": "disk_bytes"}

    def __init__(self, options: argparse.Namespace):
        self.options = options

    def measure(self, workload: str, results: Results) -> None:
        file = self.options.directory / "stepstone.json"
        steps = {"tiny-steps": self.options.steps, "shared": 2}.get(workload)
        subprocess.run(
            [self.options.program, "bench", workload, "--samples", "1", "--json", file,
             "--metrics", self.METRICS[workload], "--directory", self.options.directory,
             "--shrink", str(self.options.shrink), *(["--steps", str(steps)] if steps else [])],
            check=True, stdout=subprocess.DEVNULL)
        answer = json.loads(file.read_text())
        results.machine = answer["machine"]
        for row in answer["rows"]:
            metric, seconds = row["metric"], row["seconds"]
            if metric == "save":
                measure = "step" if workload == "tiny-steps" else "save"
                results.add(workload, measure, "stepstone", seconds)
                limit = seconds * row["value"] / row["limit"]
                results.add(workload, measure, "raw limit (durable write)", limit)
            elif metric == "restore_warm":
                results.add(workload, "restore", "stepstone, caller's memory", seconds)
                results.add(workload, "restore", "raw limit (pread)",
                            seconds * row["value"] / row["limit"])
            elif metric == "restore_warm_new_memory":
                results.add(workload, "restore", "stepstone", seconds)
            elif metric == "leaf_first":
                results.add(workload, "leaf", "stepstone", row["value"] / 1e3)
            elif metric == "save_async_stall_mutable":
                results.add(workload, "stall", "stepstone", row["value"] / 1e3)
                results.add(workload, "stall", "raw limit (memcpy)", row["limit"] / 1e3)
            elif metric == "save_async_stall_immutable":
                results.add(workload, "stall_jax", "stepstone", row["value"] / 1e3)
            elif metric == "disk_bytes":
                results.add(workload, "disk", "stepstone", row["value"])


def remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Peer:
    """One of peer_formats.py, each measurement in a process of its own."""

    def __init__(self, name: str, options: argparse.Namespace):
        self.name, self.options = name, options

    def _run(self, operation: str, workload: str, with_fsync: bool) -> dict:
        result = subprocess.run(
            [sys.executable, pathlib.Path(__file__).parent / "peer_formats.py", self.name,
             operation, workload, self.options.directory / workload,
             self.options.directory / "peer", str(int(with_fsync)), str(self.options.steps)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if result.returncode != 0:
            lines = result.stderr.strip().splitlines() or ["died without a word"]
            raise RuntimeError(f"{operation}, {workload}: {lines[-1]}")
        return json.loads(result.stdout.splitlines()[-1])

    def _measure(self, operation: str, workload: str, contestant: str, results: Results,
                 with_fsync: bool = False, keep: bool = False) -> None:
        if not keep:
            remove(self.options.directory / "peer")
            os.sync()
        for measure, value in self._run(operation, workload, with_fsync).items():
            results.add(workload, measure, contestant, value)

    def measure(self, workload: str, results: Results) -> None:
        label = LABELS.get(self.name, self.name)
        operation = {"tiny-steps": "steps", "shared": "shared"}.get(workload, "save")
        # The disk's use is the same with an fsync.
        is_once = operation == "shared" or self.name in ALWAYS_DURABLE
        for with_fsync in (False,) if is_once else (False, True):
            contestant = label + (" + fsync" if with_fsync else "")
            self._measure(operation, workload, contestant, results, with_fsync)
        if operation == "save":  # Of the save that is there now.
            for operation in ("restore", "leaf"):
                self._measure(operation, workload, label, results, keep=True)
        if self.name in MANAGED:
            for operation in MANAGED_OPERATIONS.get(workload, []):
                contestant = label + SUFFIXES.get(operation, "")
                self._measure(operation, workload, contestant, results)
        remove(self.options.directory / "peer")


def measure_all(options: argparse.Namespace) -> Results:
    import peer_formats

    results = Results()
    for workload in options.workloads:
        peer_formats.make_state(workload, options.directory / workload, options.shrink)
        contestants = [Stepstone(options), *(Peer(name, options) for name in options.only)]
        for repetition in range(options.repetitions):
            for contestant in contestants:
                name = getattr(contestant, "name", "stepstone")
                if (workload, name) in results.skipped:
                    continue
                print(f"{workload}, {repetition + 1} of {options.repetitions}: {name}",
                      file=sys.stderr, flush=True)
                try:
                    contestant.measure(workload, results)
                except RuntimeError as error:
                    print(f"NOT MEASURED: {name}: {error}", file=sys.stderr, flush=True)
                    results.skipped[workload, name] = str(error)
                    remove(options.directory / "peer")
        shutil.rmtree(options.directory / workload)
    return results


def plot(results: Results, prefix: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot
    import matplotlib.ticker as ticker

    panels: dict[tuple[str, str], list[dict]] = {}
    for row in results.rows():
        panels.setdefault((row["workload"], row["measure"]), []).append(row)
    columns = 2
    lines = -(-len(panels) // columns)
    height = max(len(rows) for rows in panels.values()) * 0.32 + 1.1
    figure, axes = pyplot.subplots(lines, columns, figsize=(14, height * lines), squeeze=False)
    for axis in axes.flat[len(panels):]:
        axis.set_visible(False)
    for axis, ((workload, measure), rows) in zip(axes.flat, panels.items()):
        names = [row["contestant"] for row in rows]
        values = [row["median"] for row in rows]
        colors = ["#1f6f5c" if name.startswith("stepstone") else
                  "#9a9a9a" if name.startswith("raw") else
                  "#d08a3c" if name.endswith("fsync") else "#e6c79c" for name in names]
        bars = axis.barh(names, values, color=colors)
        axis.bar_label(bars, [f" {value:.3g}" for value in values], fontsize=9)
        axis.set_xscale("log")
        axis.set_xlim(min(values) / 2, max(values) * 4)
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.invert_yaxis()
        axis.set_title(f"{workload}: {measure} ({rows[0]['unit']}, less is better)", fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
    machine = results.machine
    figure.suptitle(f"{machine['cpu']}, {machine['processor_count']} processors, "
                    f"{machine['file_system']}; medians of one run", fontsize=10)
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    for kind in ("png", "svg"):
        figure.savefig(f"{prefix}.{kind}", dpi=120)


def main() -> None:
    options = parse_arguments()
    enter_environment(options.only)
    options.directory = options.directory.resolve()
    shutil.rmtree(options.directory, ignore_errors=True)
    options.directory.mkdir(parents=True)
    try:
        results = measure_all(options)
    finally:
        shutil.rmtree(options.directory, ignore_errors=True)
    print(results.to_table())
    if options.json:
        options.json.write_text(json.dumps({"machine": results.machine, "rows": results.rows(),
                                            "skipped": [[*which, reason] for which, reason in
                                                        results.skipped.items()]}, indent=1) + "\n")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
