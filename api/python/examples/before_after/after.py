"""Fits a line to noisy points with JAX, with a checkpoint of every second step and a look back."""

import argparse

import jax
import jax.numpy as jnp
import stepstone as ocp


@jax.jit
def train_step(state, x, y):
    def loss_of(line):
        return jnp.mean((line["slope"] * x + line["offset"] - y) ** 2)

    loss, gradient = jax.value_and_grad(loss_of)(state["line"])
    line = jax.tree.map(lambda value, slope: value - 0.1 * slope, state["line"], gradient)
    return {"line": line, "step": state["step"] + 1}, loss


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", required=True)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()

    x = jnp.linspace(-1, 1, 100)
    y = 3 * x + 1 + 0.1 * jax.random.normal(jax.random.key(0), x.shape)
    state = {"line": {"slope": jnp.zeros(()), "offset": jnp.zeros(())}, "step": jnp.zeros((), int)}

    options = ocp.CheckpointManagerOptions(
        save_interval_steps=2,
        max_to_keep=3,
        best_fn=lambda metrics: metrics["loss"],
        best_mode="min",
    )
    item_names = ("state", "settings")
    with ocp.CheckpointManager(arguments.store, options=options, item_names=item_names) as manager:
        for step in range(arguments.steps):
            state, loss = train_step(state, x, y)
            manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    settings=ocp.args.JsonSave({"learning_rate": 0.1}),
                ),
                metrics={"loss": float(loss)},
            )
        manager.wait_until_finished()
        print("steps", manager.all_steps(), "best", manager.best_step())

        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        restored = manager.restore(
            manager.latest_step(),
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract),
                settings=ocp.args.JsonRestore(),
            ),
        )
        line = restored.state["line"]
        print(f"step {restored.state['step']}: {line['slope']:.3f} x + {line['offset']:.3f}")
        print("settings", restored.settings, "metrics", manager.metrics(manager.latest_step()))


if __name__ == "__main__":
    main()
