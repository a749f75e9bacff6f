"""What peers.py measures: each peer's way to save, restore and read one leaf of a state.

Run by peers.py, one operation in one process:

    peer_formats.py PEER OPERATION WORKLOAD STATE PATH FSYNC STEPS

OPERATION: save, restore, leaf, steps or shared; and of those with a manager: save_sync (by a checkpointer
that saves before it returns, where the others save in the background and wait), managed (save, restore and
one leaf while it is open), stall and stall_jax (how long a save in the background keeps the caller), and
steps_async.
STATE is a directory that make_state() filled. Prints one line of JSON: seconds, or bytes, by measure.
Imports are not timed, and each peer is imported only where it is measured.
"""

import gc
import importlib
import json
import os
import pathlib
import shutil
import sys
import time

KEPT_STEPS = 3


def gpt2_small_shapes() -> dict[str, tuple[int, ...]]:
    width = 768
    shapes = {"wte": (50257, width), "wpe": (1024, width)}
    for block in range(12):
        for name, shape in {
            "ln_1.weight": (width,), "ln_1.bias": (width,),
            "attn.c_attn.weight": (width, 3 * width), "attn.c_attn.bias": (3 * width,),
            "attn.c_proj.weight": (width, width), "attn.c_proj.bias": (width,),
            "ln_2.weight": (width,), "ln_2.bias": (width,),
            "mlp.c_fc.weight": (width, 4 * width), "mlp.c_fc.bias": (4 * width,),
            "mlp.c_proj.weight": (4 * width, width), "mlp.c_proj.bias": (width,),
        }.items():
            shapes[f"h.{block}.{name}"] = shape
    return shapes | {"ln_f.weight": (width,), "ln_f.bias": (width,)}


def shapes_of(workload: str, shrink: int) -> dict[str, tuple[int, ...]]:
    if workload == "small":
        return {f"leaf{i}": (256,) for i in range(max(1, 10_000 // shrink))}
    if workload == "tiny-steps":
        return {f"leaf{i}": (4096,) for i in range(12)}
    return {f"{part}.{name}": (max(1, shape[0] // shrink), *shape[1:])
            for part in ("params", "mu", "nu") for name, shape in gpt2_small_shapes().items()}


def make_state(workload: str, directory: pathlib.Path, shrink: int) -> None:
    import numpy as np

    directory.mkdir()
    shapes = shapes_of(workload, shrink)
    (directory / "shapes.json").write_text(json.dumps(shapes))
    generator = np.random.default_rng(1)
    with open(directory / "bytes", "wb") as data:
        for shape in shapes.values():
            generator.standard_normal(shape, dtype=np.float32).tofile(data)


def load_state(directory: pathlib.Path) -> dict:
    import numpy as np

    numbers = np.fromfile(directory / "bytes", dtype=np.float32)
    state, offset = {}, 0
    for name, shape in json.loads((directory / "shapes.json").read_text()).items():
        size = int(np.prod(shape))
        state[name] = numbers[offset : offset + size].reshape(shape)
        offset += size
    return state


def files_and_directories(path: pathlib.Path) -> list[pathlib.Path]:
    return [path, *path.rglob("*")] if path.is_dir() else [path]


def fsync_all(path: pathlib.Path) -> None:
    for each in [*files_and_directories(path), path.parent]:
        descriptor = os.open(each, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


class Format:
    """A peer that writes a state to one path. `fsync` asks for a save that survives a power failure."""

    def __init__(self, fsync: bool):
        self.fsync = fsync

    def write(self, path: pathlib.Path, state: dict) -> None:
        raise NotImplementedError

    def read(self, path: pathlib.Path, state: dict) -> dict:
        """`state` says which shapes and dtypes to expect, for peers that want to know."""
        raise NotImplementedError

    def read_leaf(self, path: pathlib.Path, name: str, state: dict):
        raise NotImplementedError

    def save(self, path: pathlib.Path, state: dict) -> None:
        self.write(path, state)
        if self.fsync:
            fsync_all(path)

    def save_step(self, directory: pathlib.Path, step: int, state: dict) -> None:
        """Keeps the newest KEPT_STEPS; never a half step under a step's name."""
        partial = directory / f"partial-{step}"
        self.save(partial, state)
        os.rename(partial, directory / str(step))
        if self.fsync:
            fsync_all(directory)
        old = directory / str(step - KEPT_STEPS)
        if old.is_dir():
            shutil.rmtree(old)
        elif old.exists():
            old.unlink()

    def close(self) -> None:
        pass


class Orbax(Format):
    """Its checkpointer for one path, its manager for steps."""

    MODULE = "orbax.checkpoint"

    def __init__(self, fsync: bool):
        super().__init__(fsync)
        self.ocp = importlib.import_module(self.MODULE)
        self.checkpointer = self.ocp.StandardCheckpointer()
        self.manager = None

    def write(self, path, state):
        self.checkpointer.save(path, state)
        self.checkpointer.wait_until_finished()

    def write_synchronously(self, path, state):
        handler = self.ocp.StandardCheckpointHandler()
        self.ocp.Checkpointer(handler).save(path, args=self.ocp.args.StandardSave(state))

    def read(self, path, state):
        return self.checkpointer.restore(path, state)

    def _one(self, name, state):
        return self.ocp.args.PyTreeRestore(item={name: state[name]}, partial_restore=True)

    def read_leaf(self, path, name, state):
        checkpointer = self.ocp.PyTreeCheckpointer()
        return checkpointer.restore(path, args=self._one(name, state))[name]

    def open(self, directory, is_async, kept=KEPT_STEPS):
        options = self.ocp.CheckpointManagerOptions(max_to_keep=kept,
                                                    enable_async_checkpointing=is_async)
        self.manager = self.ocp.CheckpointManager(directory, options=options)

    def start_save(self, step, state):
        # PyTree: of what StandardSave saved, Orbax's manager does not restore a single leaf.
        self.manager.save(step, args=self.ocp.args.PyTreeSave(state))

    def wait(self):
        self.manager.wait_until_finished()

    def read_step(self, step, state):
        return self.manager.restore(step, args=self.ocp.args.PyTreeRestore(item=state))

    def read_leaf_of_step(self, step, name, state):
        return self.manager.restore(step, args=self._one(name, state))[name]

    def save_step(self, directory, step, state):
        if self.manager is None:
            self.open(directory, is_async=False)
        self.start_save(step, state)
        self.wait()
        if self.fsync:
            fsync_all(directory / str(step))

    def close(self):
        if self.manager is not None:
            self.manager.close()


class StepstonePython(Orbax):
    """The same calls."""

    MODULE = "stepstone"


class Ocdbt(Format):
    """Each leaf is one value: without TensorStore's arrays above it, which are slower."""

    def __init__(self, fsync: bool):
        super().__init__(fsync)
        import tensorstore

        self.tensorstore = tensorstore
        self.database = None

    def _open(self, path):
        # TensorStore's own fsync is on unless it is switched off.
        return self.tensorstore.KvStore.open(
            {"driver": "ocdbt", "base": f"file://{path}/"},
            context=self.tensorstore.Context({"file_io_sync": self.fsync})).result()

    def _put(self, database, prefix, state, transaction):
        inside = database.with_transaction(transaction)
        for future in [inside.write(prefix + name, array.tobytes()) for name, array in state.items()]:
            future.result()

    def save(self, path, state):
        transaction = self.tensorstore.Transaction()
        self._put(self._open(path), "", state, transaction)
        transaction.commit_async().result()

    def read(self, path, state):
        import numpy as np

        database = self._open(path)
        futures = {name: database.read(name) for name in state}
        return {name: np.frombuffer(future.result().value, np.float32).reshape(state[name].shape)
                for name, future in futures.items()}

    def read_leaf(self, path, name, state):
        import numpy as np

        value = self._open(path).read(name).result().value
        return np.frombuffer(value, np.float32).reshape(state[name].shape)

    def save_step(self, directory, step, state):
        self.database = self.database or self._open(directory)
        transaction = self.tensorstore.Transaction()
        self._put(self.database, f"{step}/", state, transaction)
        if step >= KEPT_STEPS:
            old = f"{step - KEPT_STEPS}/"
            self.database.with_transaction(transaction).delete_range(
                self.tensorstore.KvStore.KeyRange(old, old[:-1] + "0")).result()
        transaction.commit_async().result()


class Safetensors(Format):
    def __init__(self, fsync: bool):
        super().__init__(fsync)
        import safetensors
        import safetensors.numpy

        self.safetensors = safetensors

    def write(self, path, state):
        self.safetensors.numpy.save_file(state, path)

    def read(self, path, state):
        return self.safetensors.numpy.load_file(path)

    def read_leaf(self, path, name, state):
        with self.safetensors.safe_open(path, "np") as file:
            return file.get_tensor(name)


class Hdf5(Format):
    def __init__(self, fsync: bool):
        super().__init__(fsync)
        import h5py

        self.h5py = h5py

    def write(self, path, state):
        with self.h5py.File(path, "w", libver="latest") as file:
            for name, array in state.items():
                file.create_dataset(name, data=array)

    def read(self, path, state):
        with self.h5py.File(path, "r") as file:
            return {name: file[name][...] for name in state}

    def read_leaf(self, path, name, state):
        with self.h5py.File(path, "r") as file:
            return file[name][...]


class Torch(Format):
    def __init__(self, fsync: bool):
        super().__init__(fsync)
        import torch

        self.torch = torch

    def write(self, path, state):
        self.torch.save({name: self.torch.from_numpy(array) for name, array in state.items()}, path)

    def read(self, path, state):
        return {name: tensor.numpy() for name, tensor in self.torch.load(path, weights_only=True).items()}

    def read_leaf(self, path, name, state):
        return self.torch.load(path, weights_only=True, mmap=True)[name].clone().numpy()


FORMATS = {"stepstone-python": StepstonePython, "orbax": Orbax, "ocdbt": Ocdbt,
           "safetensors": Safetensors, "hdf5": Hdf5, "torch": Torch}


def seconds_of(work):
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def check(name: str, found, expected) -> None:
    import numpy as np

    if not np.array_equal(found, expected):
        sys.exit(f"{name} came back differently")


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def changed(state: dict) -> None:
    for array in state.values():
        array += 1


def run_managed(format_: Orbax, place: pathlib.Path, state: dict) -> dict:
    """Of a manager that is open, and has saved before."""
    format_.open(place, is_async=False, kept=1)
    for step in range(2):
        changed(state)
        save = seconds_of(lambda step=step: format_.save_step(place, step, state))[0]
    restore, restored = seconds_of(lambda: format_.read_step(1, state))
    for name, array in state.items():
        check(name, restored[name], array)
    del restored
    names = list(state)
    times = []
    for name in names[:: max(1, len(names) // 5)]:
        seconds, leaf = seconds_of(lambda name=name: format_.read_leaf_of_step(1, name, state))
        check(name, leaf, state[name])
        times.append(seconds)
    return {"save": save, "restore": restore, "leaf_open": median(times)}


def run_stall(format_: Orbax, place: pathlib.Path, state: dict, with_jax: bool) -> dict:
    """How long the caller waits; the first save, which sets things up, does not count."""
    import numpy as np

    format_.open(place, is_async=True, kept=1)
    if with_jax:
        import jax
        import jax.numpy as jnp

        state = {name: jnp.array(array) for name, array in state.items()}
    times = []
    for step in range(3):
        if with_jax:
            state = jax.block_until_ready(jax.tree.map(lambda array: array + 1, state))
        else:
            changed(state)
        # With jax's objects a full collection takes 0.1 s, and would fall into whichever call allocates next.
        gc.collect()
        times.append(seconds_of(lambda step=step: format_.start_save(step, state))[0])
        format_.wait()
    name = list(state)[len(state) // 2]
    leaf = np.asarray(state[name])
    check(name, format_.read_leaf_of_step(2, name, {name: leaf}), leaf)
    return {"stall_jax" if with_jax else "stall": median(times[1:])}


def run_steps_async(format_: Orbax, place: pathlib.Path, state: dict, steps: int) -> dict:
    """Per step of the whole, until the last is on the disk."""
    format_.open(place, is_async=True)

    def save_all():
        for step in range(steps):
            changed(state)
            format_.start_save(step, state)
        format_.wait()

    return {"step_async": seconds_of(save_all)[0] / steps}


def run(peer: str, operation: str, workload: str, state_directory: str, path: str, fsync: str,
        steps: str) -> dict:
    import numpy as np

    state = load_state(pathlib.Path(state_directory))
    place = pathlib.Path(path)
    format_ = FORMATS[peer](fsync == "1")
    names = list(state)
    try:
        if operation == "save":
            return {"save": seconds_of(lambda: format_.save(place, state))[0]}
        if operation == "save_sync":
            seconds = seconds_of(lambda: format_.write_synchronously(place, state))[0]
            name = names[len(names) // 2]
            check(name, format_.read(place, state)[name], state[name])
            return {"save": seconds}
        if operation == "restore":
            seconds, restored = seconds_of(lambda: format_.read(place, state))
            for name in names:
                check(name, restored[name], state[name])
            return {"restore": seconds}
        if operation == "leaf":
            name = names[len(names) // 2]
            seconds, leaf = seconds_of(lambda: format_.read_leaf(place, name, state))
            check(name, leaf, state[name])
            return {"leaf": seconds}
        place.mkdir()
        if operation == "managed":
            return run_managed(format_, place, state)
        if operation in ("stall", "stall_jax"):
            return run_stall(format_, place, state, operation == "stall_jax")
        if operation == "steps_async":
            return run_steps_async(format_, place, state, int(steps))
        if operation == "shared":
            for step in range(KEPT_STEPS):
                state[names[len(names) // 2]] += np.float32(1)
                format_.save_step(place, step, state)
            os.sync()
            return {"disk": sum(each.stat().st_blocks * 512 for each in files_and_directories(place))}
        times = []
        for step in range(int(steps)):
            changed(state)
            times.append(seconds_of(lambda step=step: format_.save_step(place, step, state))[0])
        return {"step": median(times)}
    finally:
        format_.close()


if __name__ == "__main__":
    print(json.dumps(run(*sys.argv[1:])))
