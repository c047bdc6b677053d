"""Jumanji's own A2C (jumanji.training), unchanged, with its network and without evaluations.

It differs by design: the loss contains the rollout, so its gradient goes through the environment's
steps; a time limit counts as the end of the task; its convolutions are two of 2 x 2 with 32
features, and actor and critic have layers of their own sizes (configs/env/snake.yaml).
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from cases import Case
from pmapped import layouts, restore_replication
from spreading import xla_flags
from worker import Program, Worker, serve

PACKAGES = ("jumanji", "dm-haiku", "jax", "jaxlib", "optax", "rlax", "numpy")


def load() -> None:
    restore_replication()
    import jumanji.training.setup_train  # noqa: F401


def settings(case: Case) -> Any:
    """What its scripts read from configs/env/snake.yaml."""
    assert (case.env, case.objective) == ("jumanji/Snake-v1", "pg")
    return SimpleNamespace(
        agent="a2c",
        env=SimpleNamespace(
            name="snake",
            registered_version="Snake-v1",
            network=SimpleNamespace(
                num_channels=32, policy_layers=[64, 64], value_layers=[128, 128]
            ),
            training=SimpleNamespace(n_steps=case.rollout_length, total_batch_size=case.num_envs),
            a2c=SimpleNamespace(
                normalize_advantage=case.normalizes_advantages,
                discount_factor=case.gamma,
                bootstrapping_factor=case.gae_lambda,
                l_pg=1.0,
                l_td=case.value_coef / 2,  # its value loss has no factor 1/2
                l_en=case.entropy_coef,
                learning_rate=case.learning_rate,
            ),
        ),
    )


def build(case: Case, layout: str, mark: Callable[[str], None]) -> Program:
    import jax
    from jumanji.training import setup_train

    given = settings(case)
    env = setup_train.setup_env(given)
    agent = setup_train.setup_agent(given, env)

    def start(seed: int) -> Any:
        return setup_train.setup_training_state(env, agent, jax.random.PRNGKey(seed))

    def epoch(state: Any) -> Any:
        updates = case.env_steps // case.batch_size
        return jax.lax.scan(lambda state, _: agent.run_epoch(state), state, None, updates)[0]

    state = start(0)
    mark("trace_seconds")
    lowered = jax.pmap(epoch, axis_name="devices").lower(state)
    mark("trace_seconds")
    ready = lowered.compile()
    mark("compile_seconds")

    def run(seed: int) -> Any:
        """Continue the same training: its start is no part of an epoch."""
        nonlocal state
        state = jax.block_until_ready(ready(state))
        return state

    return Program(run, env_steps=lambda _: case.env_steps, returns=lambda _: [])


if __name__ == "__main__":
    serve(Worker(PACKAGES, layouts, xla_flags, load, build))
