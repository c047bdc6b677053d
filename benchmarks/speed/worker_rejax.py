"""Rejax's PPO (Liesen et al., github.com/keraJLi/rejax) at its best: no evaluation while it trains.

Layouts over seeds: `vmap` is what its README shows; `devices-vmap` and `devices-map` are what a
user who knows jax would write around it to keep all cores of a CPU busy. One seed runs with and
without XLA's own threads in matrix products.
Where it differs by design: gradients are clipped element by element, the value loss is always
clipped, the observation that follows a reset is taken from a reset at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cases import Case
from worker import Program, Worker, device_per_core, serve

PACKAGES = ("rejax", "gymnax", "jax", "jaxlib", "flax", "optax", "distrax", "numpy")


def load() -> None:
    import jax  # noqa: F401
    import rejax  # noqa: F401


def layouts(case: Case) -> tuple[str, ...]:
    if case.seeds == 1:
        return ("plain", "plain-eigen-off")
    return ("vmap", "devices-vmap", "devices-map")


def xla_flags(layout: str) -> tuple[str, ...]:
    if layout.startswith("devices"):
        return (device_per_core(),)
    return ("--xla_cpu_multi_thread_eigen=false",) if layout.endswith("eigen-off") else ()


def create(case: Case) -> Any:
    import rejax

    algorithm = rejax.PPO.create(
        env=case.env,
        agent_kwargs={
            "activation": case.activation,
            "hidden_layer_sizes": case.hidden_sizes,
        },
        num_envs=case.num_envs,
        num_steps=case.rollout_length,
        num_epochs=case.num_epochs,
        num_minibatches=case.num_minibatches,
        total_timesteps=case.env_steps,
        eval_freq=case.env_steps,
        skip_initial_evaluation=True,
        learning_rate=case.learning_rate,
        gamma=case.gamma,
        gae_lambda=case.gae_lambda,
        clip_eps=case.clip_epsilon,
        ent_coef=case.entropy_coef,
        vf_coef=case.value_coef,
        max_grad_norm=case.max_grad_norm,
    )
    return algorithm.replace(eval_callback=lambda algorithm, state, key: ())


def build(case: Case, layout: str, mark: Callable[[str], None]) -> Program:
    import jax
    from rejax.evaluate import evaluate

    algorithm = create(case)

    def train(key: Any) -> Any:
        return algorithm.train(key)[0]

    def keys(seed: int) -> Any:
        return jax.random.split(jax.random.PRNGKey(seed), case.seeds)

    def evaluate_one(state: Any, key: Any) -> Any:
        act = algorithm.make_act(state)
        return evaluate(act, key, algorithm.env, algorithm.env_params, 128)[1].mean()

    program = jax.jit(spread(train, layout))
    example = keys(0)
    mark("trace_seconds")
    lowered = program.lower(example)
    mark("trace_seconds")
    compiled = lowered.compile()
    mark("compile_seconds")
    return Program(
        run=lambda seed: jax.block_until_ready(compiled(keys(seed))),
        env_steps=lambda state: int(state.global_step.sum()),
        returns=lambda state: jax.jit(jax.vmap(evaluate_one))(state, keys(1)).tolist(),
    )


def spread(train: Callable[[Any], Any], layout: str) -> Callable[[Any], Any]:
    """`train` of one key as a function of keys [S], laid out over the machine."""
    import jax
    import numpy
    from jax.sharding import Mesh, PartitionSpec

    if layout.startswith("plain"):
        return lambda keys: jax.tree.map(lambda leaf: jax.numpy.asarray(leaf)[None], train(keys[0]))
    if layout == "vmap":
        return jax.vmap(train)
    inner = jax.vmap(train) if layout == "devices-vmap" else lambda keys: jax.lax.map(train, keys)
    mesh = Mesh(numpy.array(jax.devices()), ("seed",))
    seeds = PartitionSpec("seed")
    return jax.shard_map(inner, mesh=mesh, in_specs=seeds, out_specs=seeds, check_vma=False)


if __name__ == "__main__":
    serve(Worker(PACKAGES, layouts, xla_flags, load, build))
