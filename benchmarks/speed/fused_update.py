"""A minibatch's gradient and a step along it: the trainer's program, the plain form, the kernel.

`python benchmarks/speed/fused_update.py` times them on a GPU, in turns, and compares their
gradients there. `--count` counts launches and bytes for a described H100 instead; it needs XLA's
CUDA plugin (launches.py). `--small` tries it on a CPU, where the kernel runs without Triton; its
times mean nothing.

The minibatch is that of 2,048 environments x 128 steps in 4 parts, as CartPole has it. The kernel
has fewer results than the trainer: neither KL divergences nor ratios. Here the trainer's are left
out as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from machine import begin, default_out, store

from ppo_jax.config.config import Config, Hyper
from ppo_jax.envs.interface import Discrete
from ppo_jax.kernels import backend, compiler
from ppo_jax.kernels.pallas import clip_update
from ppo_jax.kernels.pallas.clip_update import Networks, Numbers, Rows
from ppo_jax.models.network import make_network
from ppo_jax.rl.types import Batch, Window
from ppo_jax.training.objectives import minibatch_loss

HYPER = Hyper(entropy_coef=0.03, value_coef=0.7, clip_epsilon=0.1, value_clip_epsilon=jnp.inf)
NUMBERS = Numbers(0.1, 0.7, 0.03)  # the same
STEPS, ROUNDS = 200, 9  # of a timed call; calls of each form
Gradient = Callable[[Any, Rows], tuple[jax.Array, Any]]  # (parameters, rows) -> loss, gradients


class Problem(NamedTuple):
    """Sizes of a minibatch and of its networks."""

    rows: int = 65_536
    inputs: int = 4
    actions: int = 2
    width: int = 64

    def network(self, precision: str = "float32") -> tuple[Config, Any, Any]:
        """The trainer's configuration, network and family of distributions."""
        config = Config(hidden_sizes=(self.width, self.width), precision=precision)
        shape = jax.ShapeDtypeStruct((self.inputs,), "float32")
        return config, *make_network(config, shape, Discrete(self.actions))

    def draw(self) -> tuple[Any, Rows]:
        """The trainer's parameters, and rows of which the clip binds some."""
        rng = np.random.default_rng(0)

        def normal(*shape: int) -> np.ndarray:
            return rng.normal(size=shape).astype("float32")

        _, network, _ = self.network()
        shapes = jax.eval_shape(network.init, jax.random.key(0), 0.0)
        params = jax.tree.map(
            lambda leaf: normal(*leaf.shape) / np.sqrt(np.float32(leaf.shape[0])), shapes
        )
        n = self.rows
        action = rng.integers(0, self.actions, n).astype("int32")
        log_prob_old = -np.log(np.float32(self.actions)) + 0.3 * normal(n)
        return params, Rows(normal(n, self.inputs), action, log_prob_old, normal(n), normal(n))


def networks(tree: Any) -> Networks:
    """The layers in a tree of the trainer."""

    def layers(torso: str, head: str) -> Any:
        hidden = [layer for _, layer in sorted(tree["body"][torso].items())]
        return tuple((each["kernel"], each["bias"]) for each in (*hidden, tree["body"][head]))

    return Networks(layers("actor_torso", "policy_head"), layers("critic_torso", "value_head"))


def trainer_gradient(
    problem: Problem, params: Any, rows: Rows, precision: str = "float32"
) -> tuple[jax.Array, Any]:
    """Loss and gradients by the trainer."""
    config, network, family = problem.network(precision)

    def loss(params: Any) -> jax.Array:
        window, nothing = Window(rows.observation), jnp.zeros_like(rows.advantage)
        old = family.keep(network.policy(params, window))
        batch = Batch(window, rows.action, rows.log_prob_old, old, nothing, *rows[3:])
        return minibatch_loss(params, batch, HYPER, config, network, family)[0]

    return jax.value_and_grad(loss)(params)


def forms(problem: Problem, on_cpu: bool) -> dict[str, tuple[Gradient, Callable[[Any], Any]]]:
    """The gradient by form, and the form's view of the trainer's parameters."""

    def kernel(precision: Any = clip_update.FLOAT32) -> Any:
        options: Any = {"precision": precision, "interpret": on_cpu}
        return partial(clip_update.fused, numbers=NUMBERS, **options), networks

    def trainer(precision: str = "float32") -> Any:
        return partial(trainer_gradient, problem, precision=precision), lambda params: params

    found = {
        "plain": (partial(clip_update.plain, numbers=NUMBERS), networks),
        "trainer": trainer(),
        "kernel": kernel(),
    }
    if not on_cpu:  # it has no TF32
        found["trainer, tf32"] = trainer("tf32")
        found["kernel, tf32"] = kernel(clip_update.TF32)
        found["kernel, 3 x tf32"] = kernel(clip_update.THREE_TF32)
    return found


def descend(gradient: Gradient, params: Any, rows: Rows, steps: int) -> Any:
    """Some steps of gradient descent on the same rows."""

    def step(_: Any, params: Any) -> Any:
        return jax.tree.map(lambda p, g: p - 1e-5 * g, params, gradient(params, rows)[1])

    return jax.lax.fori_loop(0, steps, step, params)


def measure(problem: Problem, is_small: bool) -> dict[str, Any]:
    """Milliseconds of a step by form, in turns, and the greatest difference of the gradients."""
    params, rows = jax.device_put(problem.draw())
    options: Any = {} if is_small else {"compiler_options": compiler.gpu_options()}
    steps, calls, found, gradients = (2 if is_small else STEPS), {}, {}, {}
    for name, (gradient, view) in forms(problem, is_small).items():
        try:
            started = time.monotonic()
            own = partial(jax.jit(partial(descend, gradient, steps=steps), **options), view(params))
            jax.block_until_ready(own(rows))
            found[name] = {"compile_and_first_call_s": round(time.monotonic() - started, 2)}
            value = jax.jit(gradient)(view(params), rows)[1]
        except Exception as error:  # Triton's and XLA's errors have no common type
            found[name] = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
            continue
        calls[name], gradients[name] = own, value if view is networks else networks(value)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started = time.perf_counter()
            jax.block_until_ready(call(rows))
            seconds[name].append(time.perf_counter() - started)
    for name, each in seconds.items():
        scaled = [1e3 * one / steps for one in each]
        found[name] |= {"ms": statistics.median(scaled), "ms_range": [min(scaled), max(scaled)]}
        found[name] |= {"difference": difference(gradients[name], gradients.get("plain"))}
    return found


def difference(one: Any, other: Any) -> float | None:
    """The greatest difference of two trees' elements."""
    if other is None:
        return None
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(jnp.abs(a - b).max()) for a, b in pairs)


def count(problem: Problem) -> dict[str, Any]:
    """Launches and bytes of a step by form, on the described GPU."""
    import launches
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    topology = topologies.get_topology_desc(
        platform="cuda", target_config=launches.TARGET.read_text("utf-8"), topology="1x1x1"
    )
    place, found = SingleDeviceSharding(topology.devices[0]), {}
    params, rows = problem.draw()
    for name, (gradient, view) in forms(problem, False).items():
        given = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            (view(params), rows),
        )
        with tempfile.TemporaryDirectory() as folder, launches.as_on_a_gpu():
            options: Any = {"xla_dump_to": folder, **compiler.GRAPHS}
            program = jax.jit(partial(descend, gradient, steps=STEPS))
            program.lower(*given).compile(compiler_options=options)
            dump = launches.read_dump(Path(folder))
        loop, _ = launches.iteration_of(dump)
        found[name] = {
            "launches": launches.count(dump, loop.sections["body"]).launches,
            "megabytes": launches.bytes_outside_loops(dump, loop) / 1e6,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--count", action="store_true", help="launches and bytes, without a GPU")
    choice.add_argument("--small", action="store_true", help="a small size, on a CPU")
    parser.add_argument("--out", help="result file (default: benchmarks/results/gpu-fused_...)")
    arguments = parser.parse_args()
    if arguments.count:
        print(json.dumps(count(Problem()), indent=1))
        return
    if arguments.small:
        jax.config.update("jax_platforms", "cpu")
    problem, device = Problem(1_000 if arguments.small else 65_536), jax.devices()[0]
    command = " ".join(["python", "benchmarks/speed/fused_update.py", *sys.argv[1:]])
    record = begin("a fused update on a GPU", command, None) | {"device": device.device_kind}
    out = Path(arguments.out) if arguments.out else default_out(device.device_kind, "gpu-fused")
    with backend.on(device):
        record |= {"problem": problem._asdict(), "forms": measure(problem, arguments.small)}
    store(record, out)
    print(f"{json.dumps(record['forms'])}\n{out}")
    if any("error" in form for form in record["forms"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
