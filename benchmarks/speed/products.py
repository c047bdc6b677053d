"""The share of matrix products in an iteration with a GRU: `python benchmarks/speed/products.py`.

A minibatch's gradient, and a rollout with the critic's pass behind it, are timed in turns with the
bare products of each, in our order and shapes. Sums stand in for gates, so that no product can be
left out or cut. What is not products is the environment, gates, losses, advantages and sums.
Times are those of this process's CPU: run it on one core, `taskset -c 1`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cases import ENV_SIZES, MEMORY_CASES, Case
from machine import begin, default_out, store, versions
from worker_ppo_jax import config_of, hyper_of

APART = [name for name, case in MEMORY_CASES.items() if not case.shared_torso]
STEPS = 4  # gradients in one call


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", choices=APART, default="m256")
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--hardware", help="name of this machine in the result")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    command = " ".join(["python", "benchmarks/speed/products.py", *sys.argv[1:]])
    record = begin(
        "CPU time of bare matrix products next to the whole", command, arguments.hardware
    )
    out = arguments.out or default_out(record["machine"]["hardware"], "products")
    case = MEMORY_CASES[arguments.case]
    record |= {"versions": versions(), "settings": vars(case), "parts": {}}
    for name, part in {"gradient": gradients, "rollout": rollouts}.items():
        found = in_turns(*part(case), arguments.turns)
        record["parts"][name] = found
        store(record, out)
        print(
            f"{name}: {found['whole_ms']:.1f} ms, its products {found['products_ms']:.1f} ms: "
            f"{found['share']:.2f} ({min(found['shares']):.2f} to {max(found['shares']):.2f})",
            flush=True,
        )
    print(out)


def in_turns(
    whole: Callable[[], Any], bare: Callable[[], Any], count: int, turns: int
) -> dict[str, Any]:
    """CPU milliseconds of both, for one of the `count` pieces of a call."""
    import jax

    calls = {"whole": whole, "products": bare}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-1, turns):  # the first is not counted
        for name, call in calls.items():
            begin = time.process_time()
            jax.block_until_ready(call())
            if turn >= 0:
                times[name].append(1e3 * (time.process_time() - begin) / count)
    shares = [b / a for a, b in zip(times["whole"], times["products"], strict=True)]
    medians = {f"{name}_ms": statistics.median(each) for name, each in times.items()}
    return {**medians, "share": statistics.median(shares), "shares": shares, "each_ms": times}


def compiled(function: Callable[..., Any], *given: Any) -> Callable[[], Any]:
    """`function` of these arguments, compiled as a chunk of a run is."""
    import jax

    from ppo_jax.kernels.compiler import compiler_options

    program = jax.jit(function, compiler_options=compiler_options(1)).lower(*given).compile()
    return lambda: program(*given)


def gradients(case: Case) -> tuple[Callable[[], Any], Callable[[], Any], int]:
    """Gradients of a minibatch one after the other, the bare products of them, and their number."""
    import jax
    import jax.numpy as jnp

    from ppo_jax.models.agent import assemble
    from ppo_jax.rl.distributions import Categorical
    from ppo_jax.rl.types import Batch, Window
    from ppo_jax.training.objectives import minibatch_loss

    config, hyper = config_of(case), hyper_of(case)
    _, network, family = assemble(config)
    envs = case.num_envs // case.num_minibatches
    rows, keys = envs * case.rollout_length, iter(jax.random.split(jax.random.key(0), 9))
    inputs, outputs = ENV_SIZES[case.env]

    def draw(*shape: int) -> Any:
        return 0.3 * jax.random.normal(next(keys), shape)

    start = {name: draw(envs, case.memory_size) for name in ("actor", "critic")}
    window = Window(draw(rows, inputs), draw(rows) > 0.3, start)
    batch = Batch(
        window=window,
        action=(draw(rows) > 0.0).astype(jnp.int32),
        log_prob_old=draw(rows),
        distribution_old=Categorical(draw(rows, outputs)),
        value_old=window.observation[:, 0],
        advantage=window.observation[:, 1],
        value_target=window.observation[:, 2],
    )

    def whole(params: Any, batch: Any) -> Any:
        def loss(params: Any) -> Any:
            return minibatch_loss(params, batch, hyper, config, network, family)

        return repeated(lambda params: jax.grad(loss, has_aux=True)(params)[0], params)

    def bare(weights: Any, seen: Any) -> Any:
        fresh = jnp.zeros((envs, case.memory_size))
        return repeated(lambda w: [gradient(own, seen, fresh) for own in w], weights)

    seen = window.observation.reshape(case.rollout_length, envs, inputs)
    params = network.init(jax.random.key(1))
    return compiled(whole, params, batch), compiled(bare, weights_of(case), seen), STEPS


def repeated(gradient: Callable[[Any], Any], params: Any) -> Any:
    """Small steps down a gradient, so that none of them can be left out."""
    import jax

    def step(params: Any, _: None) -> tuple[Any, None]:
        return jax.tree.map(lambda w, g: w - 1e-6 * g, params, gradient(params)), None

    return jax.lax.scan(step, params, length=STEPS)[0]


def rollouts(case: Case) -> tuple[Callable[[], Any], Callable[[], Any], int]:
    """The first half of an iteration, and its bare products."""
    import jax

    from ppo_jax.training import trainer

    config, hyper = config_of(case), hyper_of(case)

    def whole(state: Any) -> Any:
        experience, estimates = trainer.sample(config, hyper, state)
        return experience.carry, estimates.batch

    state = jax.jit(lambda key: trainer.init(config, hyper, key))(jax.random.key(0))
    shape = (case.rollout_length, case.num_envs, ENV_SIZES[case.env][0])
    seen = jax.random.normal(jax.random.key(1), shape)
    return compiled(whole, state), compiled(acted, weights_of(case), seen), 1


def weights_of(case: Case) -> list[dict[str, Any]]:
    """A torso, a GRU and a head of actor and critic; small, as sums take the place of gates."""
    import jax

    width, size = case.hidden_sizes[-1], case.memory_size
    inputs, outputs = ENV_SIZES[case.env]
    found = []
    for number, count in enumerate((outputs, 1)):
        sides = {
            "torso": (inputs, width),
            "input": (width, 3 * size),
            "memory": (size, 3 * size),
            "head": (size, count),
        }
        keys = jax.random.split(jax.random.key(number), len(sides))
        found.append(
            {name: 0.01 * jax.random.normal(k, sides[name]) for k, name in zip(keys, sides)}
        )
    return found


def acted(weights: Any, seen: Any) -> Any:
    """The actor step by step, the critic over the window, and one more step of it."""
    import jax
    import jax.numpy as jnp

    actor, critic = weights
    start = jnp.zeros((seen.shape[1], actor["memory"].shape[0]))

    def act(held: Any, x: Any) -> Any:
        held = added((x @ actor["torso"]) @ actor["input"] + held @ actor["memory"])
        return held, held @ actor["head"]

    held, outputs = jax.lax.scan(act, start, seen)
    values, memories, _ = forward(critic, seen, start)
    last = added((seen[-1] @ critic["torso"]) @ critic["input"] + memories[-1] @ critic["memory"])
    return held, outputs, values, last @ critic["head"]


def added(gates: Any) -> Any:
    """The sum of a GRU's three gates [B, 3 H]: it needs them all."""
    import jax.numpy as jnp

    first, second, third = jnp.split(gates, 3, axis=-1)
    return first + second + third


def forward(own: Any, seen: Any, start: Any) -> Any:
    """Outputs [T, B, n], memories and embeddings of a network over a window."""
    import jax

    from ppo_jax.models.cores import _window_product

    embedded = _window_product(seen, own["torso"])
    given = _window_product(embedded, own["input"])

    def step(held: Any, x: Any) -> Any:
        after = added(x + held @ own["memory"])
        return after, after

    _, memories = jax.lax.scan(step, start, given)
    return _window_product(memories, own["head"]), memories, embedded


def gradient(own: Any, seen: Any, start: Any) -> Any:
    """The products of a gradient: forward, back through time, and one for each weight."""
    import jax
    import jax.numpy as jnp

    from ppo_jax.models.cores import _window_product

    outputs, memories, embedded = forward(own, seen, start)
    moved, head = jax.vjp(_window_product, memories, own["head"])[1](outputs)

    def back(carried: Any, given: Any) -> Any:
        gates = jnp.tile(carried + given, 3)
        return gates @ own["memory"].T, gates

    _, gates = jax.lax.scan(back, jnp.zeros_like(start), moved, reverse=True)
    before = jnp.concatenate([start[None], memories[:-1]])
    _, memory = jax.vjp(_window_product, before, own["memory"])[1](gates)
    moved, inputs = jax.vjp(_window_product, embedded, own["input"])[1](gates)
    _, torso = jax.vjp(_window_product, seen, own["torso"])[1](moved)
    return {"torso": torso, "input": inputs, "memory": memory, "head": head}


if __name__ == "__main__":
    main()
