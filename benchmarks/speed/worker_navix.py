"""Navix's own PPO (navix.agents.PPO), unchanged, with observations flattened as its examples do.

It differs by design: the environment's whole state of every step, its drawing cache included, goes
through the shuffle of the minibatches; a reset is computed at every step; values are computed again
in each epoch. Its network takes the cells' numbers as they are, and so does ours in this case.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cases import Case
from spreading import compiled, layouts, xla_flags
from worker import Program, Worker, serve

PACKAGES = ("navix", "jax", "jaxlib", "flax", "optax", "distrax", "rlax", "numpy")


def load() -> None:
    import navix.agents  # noqa: F401


def flattened(env: Any) -> Any:
    """The environment with a vector as observation (navix's examples/ppo.py)."""
    import jax.numpy as jnp

    space = env.observation_space
    return env.replace(
        observation_fn=lambda state: jnp.ravel(env.observation_fn(state)),
        observation_space=space.replace(shape=(math.prod(space.shape),)),
    )


def build(case: Case, layout: str, mark: Callable[[str], None]) -> Program:
    import navix
    from navix.agents import PPO, ActorCritic, PPOHparams

    assert (case.hidden_sizes, case.activation) == ((64, 64), "tanh")
    env = flattened(navix.make(case.env.partition("/")[2], gamma=case.gamma))
    agent = PPO(
        hparams=PPOHparams(
            budget=case.env_steps,
            num_envs=case.num_envs,
            num_steps=case.rollout_length,
            num_minibatches=case.num_minibatches,
            num_epochs=case.num_epochs,
            gae_lambda=case.gae_lambda,
            clip_eps=case.clip_epsilon,
            ent_coef=case.entropy_coef,
            vf_coef=case.value_coef,
            max_grad_norm=case.max_grad_norm,
            lr=case.learning_rate,
            anneal_lr=False,
        ),
        network=ActorCritic(action_dim=len(env.action_set)),
        env=env,
    )
    return Program(
        run=compiled(case, lambda key: agent.train(key)[0], layout, mark),
        env_steps=lambda state: int(state.frames.sum()),
        returns=lambda state: [],
    )


if __name__ == "__main__":
    serve(Worker(PACKAGES, layouts, xla_flags, load, build))
