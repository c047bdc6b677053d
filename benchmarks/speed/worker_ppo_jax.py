"""ppo_jax as its own host loop runs it: compiled chunks, metrics fetched after each.

`default` is a user's default and is compared. Other names: a kind of layout on one device per core
(`map`, `vmap`), `spread`, which shares one seed's environments among all devices, `single`, which
keeps a seed on one device, or `train`, the whole run as one function under `jit` and `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from cases import SUITE_CASES, Case
from worker import Program, Worker, device_per_core, serve

from ppo_jax.distributed import door, population

PACKAGES = ("ppo-jax", "gymnax", "jax", "jaxlib", "optax", "numpy")


def load() -> None:
    import gymnax.environments.environment  # noqa: F401  (imports are timed apart)

    import ppo_jax.distributed.programs  # noqa: F401


def layouts(case: Case) -> tuple[str, ...]:
    return ("default",)


def xla_flags(layout: str) -> tuple[str, ...]:
    return () if layout == "train" else (device_per_core(),)


def config_of(case: Case) -> Any:
    from ppo_jax.config.config import Config

    return Config(
        env=case.env,
        total_env_steps=case.env_steps,
        num_envs=case.num_envs,
        rollout_length=case.rollout_length,
        num_epochs=case.num_epochs,
        num_minibatches=case.num_minibatches,
        hidden_sizes=case.hidden_sizes,
        activation=case.activation,
        torso=case.torso,
        objective=case.objective,
        precision=case.precision,
        normalize_observations=case.normalize_observations,
        memory=case.memory,
        memory_size=case.memory_size,
        shared_torso=case.shared_torso,
        previous_inputs=case.previous_inputs,
        start_states=case.start_states,
        scale_bytes=case.has_flags,
        one_hot_integers=case.has_flags,
        normalize_advantages="minibatch" if case.normalizes_advantages else "none",
    )


def hyper_of(case: Case) -> Any:
    from ppo_jax.config.config import Hyper

    return Hyper(
        learning_rate=case.learning_rate,
        gamma=case.gamma,
        gae_lambda=case.gae_lambda,
        clip_epsilon=case.clip_epsilon,
        value_clip_epsilon=case.clip_epsilon if case.clips_value else float("inf"),
        entropy_coef=case.entropy_coef,
        value_coef=case.value_coef,
        max_grad_norm=case.max_grad_norm,
    )


def settings(case: Case) -> tuple[Any, Any]:
    from ppo_jax.training.schedules import as_arrays

    config = config_of(case)
    return config, as_arrays(config, hyper_of(case))


def build(case: Case, layout: str, mark: Callable[[str], None]) -> Program:
    return (build_train if layout == "train" else build_chunks)(case, layout, mark)


def build_chunks(case: Case, layout: str, mark: Callable[[str], None]) -> Program:
    import jax
    import jax.numpy as jnp

    from ppo_jax.distributed import programs
    from ppo_jax.distributed.layout import Layout, Wanted, choose_layout
    from ppo_jax.runtime.startup import begin

    config, hyper = settings(case)
    meshes = {"spread": (1, jax.local_device_count()), "single": (1, 1)}
    spread = choose_layout(config, case.seeds, wanted=Wanted(mesh=meshes.get(layout)))
    if layout in ("map", "vmap"):
        spread = Layout(layout, tuple(jax.local_devices()), case.seeds)
    begun = begin(config, hyper, 0, spread)
    mark("trace_seconds")
    chunk_compiled = begun.chunk.compile()
    mark("compile_seconds")

    def run(seed: int) -> Any:
        keys = population.member_keys(seed * spread.num_members, spread)
        state = population.place(begun.start(hyper, keys), spread)
        left = config.num_iterations
        while left:
            count = min(left, programs.MAX_CHUNK)
            state, rows = chunk_compiled(hyper, state, jnp.asarray(count))
            door.fetch_rows(rows, count)
            left -= count
        return jax.block_until_ready(state)

    def returns(state: Any) -> list[float]:
        if case.name in SUITE_CASES:
            return []
        play = programs.make_evaluation(config, spread, 128, 500, False)
        return play(hyper, state, jnp.asarray(0)).episode_return.mean(1)[: case.seeds].tolist()

    return Program(run, partial(env_steps, config, case.seeds), returns)


def build_train(case: Case, layout: str, mark: Callable[[str], None]) -> Program:
    import jax

    from ppo_jax.training.trainer import train

    config, hyper = settings(case)

    def keys(seed: int) -> Any:
        return jax.random.split(jax.random.key(seed), case.seeds)

    example = keys(0)
    mark("trace_seconds")
    lowered = jax.jit(jax.vmap(partial(train, config), in_axes=(None, 0))).lower(hyper, example)
    mark("trace_seconds")
    compiled = lowered.compile()
    mark("compile_seconds")
    return Program(
        run=lambda seed: jax.block_until_ready(compiled(hyper, keys(seed))[0]),
        env_steps=partial(env_steps, config, case.seeds),
        returns=lambda state: [],
    )


def env_steps(config: Any, seeds: int, state: Any) -> int:
    """Steps actually taken by the requested seeds, without those that fill a device."""
    return int(state.iteration[:seeds].sum()) * config.batch_size


if __name__ == "__main__":
    serve(Worker(PACKAGES, layouts, xla_flags, load, build))
