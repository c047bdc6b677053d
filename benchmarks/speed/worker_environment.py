"""The environment alone: the adapter's steps and fresh starts, under uniform legal actions.

It answers like a trainer, so that its runs alternate with theirs. Layouts: all environments on one
device, or a share of them on one device for each core.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from cases import Case
from spreading import xla_flags
from worker import Program, Worker, serve

PACKAGES = ("ppo-jax", "jax", "jaxlib", "numpy")


def load() -> None:
    import jax  # noqa: F401


def layouts(case: Case) -> tuple[str, ...]:
    return ("plain", "devices")


def build(case: Case, layout: str, mark: Callable[[str], None]) -> Program:
    import jax

    from ppo_jax.envs import registration

    environment = registration.make(case.env)
    shares = jax.local_device_count()
    start, steps = parts(environment, case, case.num_envs // shares)
    example = jax.random.split(jax.random.key(0), shares)
    mark("trace_seconds")
    play = jax.pmap(steps).lower(jax.pmap(start)(example), example)
    mark("trace_seconds")
    ready = play.compile()
    mark("compile_seconds")
    state = jax.pmap(start)(example)

    def run(seed: int) -> Any:
        nonlocal state
        keys = jax.random.split(jax.random.key(seed), shares)
        state, _ = jax.block_until_ready(ready(state, keys))
        return state

    return Program(run, env_steps=lambda _: case.env_steps, returns=lambda _: [])


def parts(environment: Any, case: Case, count: int) -> tuple[Any, Any]:
    """The start of `count` environments, and a whole run of their steps."""
    import jax

    from ppo_jax.apps.diagnose.random_play import random_action
    from ppo_jax.envs.interface import action_mask
    from ppo_jax.kernels.select import make_refill

    params, space = environment.default_params, environment.action_space

    def draw(key: Any) -> Any:
        return environment.reset(key, params)

    def start(key: Any) -> Any:
        return jax.vmap(draw)(jax.random.split(key, count))

    def window(carry: Any, key: Any) -> Any:
        key_steps, key_reset = jax.random.split(key)
        resets, refill = make_refill(key_reset, case.rollout_length, count)

        def step(carry: Any, inputs: Any) -> Any:
            (observation, state), (t, keys, resets) = carry, inputs
            act = jax.vmap(partial(random_action, space))
            action = act(jax.random.split(keys[0], count), action_mask(observation))
            move = jax.vmap(environment.transition, (0, 0, 0, None))
            found = move(jax.random.split(keys[1], count), state, action, params)
            ended = found[3] | found[4]
            return refill(resets, t, ended, draw, found[:2]), found[2].sum()

        keys = jax.random.split(key_steps, (case.rollout_length, 2))
        times = jax.numpy.arange(case.rollout_length)
        return jax.lax.scan(step, carry, (times, keys, resets))

    def steps(carry: Any, key: Any) -> Any:
        windows = jax.random.split(key, case.env_steps // case.batch_size)
        carry, reward = jax.lax.scan(window, carry, windows)
        return carry, reward.sum()

    return start, steps


if __name__ == "__main__":
    serve(Worker(PACKAGES, layouts, xla_flags, load, build))
