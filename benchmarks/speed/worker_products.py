"""The bare matrix products of an iteration with a GRU, in our order and shapes, and little else.

Not a trainer: it answers like one, so that its runs alternate with theirs. Its environment steps
are those whose products it has computed. Our steps per second over its own are the share of our
time that the products take; what remains is the environment, gates, advantages, shuffling and Adam.
Sums stand in for gates, so that no product can be left out or cut; there is no environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cases import ENV_SIZES, Case
from worker import Program, Worker, device_per_core, serve

PACKAGES = ("jax", "jaxlib", "numpy")


def load() -> None:
    import ppo_jax.models.cores  # noqa: F401


def layouts(case: Case) -> tuple[str, ...]:
    return ("products",)


def xla_flags(layout: str) -> tuple[str, ...]:
    return (device_per_core(),)


def build(case: Case, layout: str, mark: Callable[[str], None]) -> Program:
    import jax
    import jax.numpy as jnp

    from ppo_jax.kernels.compiler import compiler_options

    inputs, outputs = ENV_SIZES[case.env]
    keys = jax.random.split(jax.random.key(0), 3)
    weights = [weights_of(case, key, n) for key, n in zip(keys, (outputs, 1), strict=False)]
    shape = (case.rollout_length, case.num_envs, inputs)
    seen = jax.random.normal(keys[2], shape)
    count = case.env_steps // case.batch_size

    def run(weights: Any, seen: Any) -> Any:
        return jax.lax.scan(
            lambda held, _: (iteration(case, *held), None), (weights, seen), length=count
        )[0]

    lowered = jax.jit(run, compiler_options=compiler_options(1)).lower(weights, seen)
    mark("trace_seconds")
    compiled = lowered.compile()
    mark("compile_seconds")

    def once(seed: int) -> Any:
        return jax.block_until_ready(compiled(weights, seen + jnp.float32(seed)))

    return Program(run=once, env_steps=lambda _: case.env_steps, returns=lambda _: [])


def weights_of(case: Case, key: Any, outputs: int) -> dict[str, Any]:
    """A torso of one layer, a GRU and a head; small, so that sums in place of gates stay small."""
    import jax

    width, size = case.hidden_sizes[-1], case.memory_size
    sides = {
        "torso": (ENV_SIZES[case.env][0], width),
        "input": (width, 3 * size),
        "memory": (size, 3 * size),
        "head": (size, outputs),
    }
    keys = jax.random.split(key, len(sides))
    return {
        name: 0.01 * jax.random.normal(k, side)
        for k, (name, side) in zip(keys, sides.items(), strict=True)
    }


def iteration(case: Case, weights: Any, seen: Any) -> Any:
    """Rollout of the actor, pass of the critic, one more step, and all minibatches' gradients."""
    import jax
    import jax.numpy as jnp

    actor, critic = weights
    start = jnp.zeros((case.num_envs, case.memory_size))

    def act(held: Any, x: Any) -> Any:
        given = (x @ actor["torso"]) @ actor["input"]
        held = added(given + held @ actor["memory"])
        return held, held @ actor["head"]

    held, acted = jax.lax.scan(act, start, seen)
    values, (last, *_) = forward(critic, seen, start)
    final = added((seen[-1] @ critic["torso"]) @ critic["input"] + last @ critic["memory"])
    used = jnp.sum(acted) + jnp.sum(values) + jnp.sum(held) + jnp.sum(final @ critic["head"])
    envs = case.num_envs // case.num_minibatches
    starts = envs * (jnp.arange(case.num_epochs * case.num_minibatches) % case.num_minibatches)

    def minibatch(weights: Any, first: Any) -> Any:
        rows = jax.lax.dynamic_slice_in_dim(seen, first, envs, axis=1)
        moves = [gradient(own, rows, start[:envs]) for own in weights]
        return jax.tree.map(lambda w, g: w - 1e-9 * g, weights, moves), None

    weights, _ = jax.lax.scan(minibatch, weights, starts)
    return weights, seen + 1e-12 * used


def added(gates: Any) -> Any:
    """The sum of a GRU's three gates [B, 3 H]: it needs them all."""
    import jax.numpy as jnp

    first, second, third = jnp.split(gates, 3, axis=-1)
    return first + second + third


def forward(own: Any, seen: Any, start: Any) -> Any:
    """Outputs [T, B, n] of a network; its last memory, memories and embeddings."""
    import jax

    from ppo_jax.models.cores import _window_product

    embedded = _window_product(seen, own["torso"])
    given = _window_product(embedded, own["input"])

    def step(held: Any, x: Any) -> Any:
        after = added(x + held @ own["memory"])
        return after, after

    last, memories = jax.lax.scan(step, start, given)
    return _window_product(memories, own["head"]), (last, memories, embedded)


def gradient(own: Any, seen: Any, start: Any) -> Any:
    """The products of a minibatch: forward, back through time, and one for each weight."""
    import jax
    import jax.numpy as jnp

    from ppo_jax.models.cores import _window_product

    outputs, (_, memories, embedded) = forward(own, seen, start)
    by_head = jax.vjp(_window_product, memories, own["head"])[1](outputs)
    moved, head = by_head

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
    serve(Worker(PACKAGES, layouts, xla_flags, load, build))
