"""Rejax's PPO (Liesen et al., github.com/keraJLi/rejax) at its best: no evaluation while it trains.

It differs by design: gradients are clipped element by element and for each network alone, and the
value loss is always clipped. The observation after a reset comes from a reset at every step. A time
limit counts as the end of the task. Observations are normalised by statistics that change at every
step. Its network takes MinAtar's 10 x 10 x 4 observations flattened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cases import Case
from spreading import compiled, layouts, seed_keys, xla_flags
from worker import Program, Worker, serve

PACKAGES = ("rejax", "gymnax", "jax", "jaxlib", "flax", "optax", "distrax", "numpy")


def load() -> None:
    import jax  # noqa: F401
    import rejax  # noqa: F401


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
        normalize_observations=case.normalize_observations,
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

    def evaluate_one(state: Any, key: Any) -> Any:
        act = algorithm.make_act(state)
        return evaluate(act, key, algorithm.env, algorithm.env_params, 128)[1].mean()

    def returns(state: Any) -> list[float]:
        return jax.jit(jax.vmap(evaluate_one))(state, seed_keys(case, 1)).tolist()

    return Program(
        run=compiled(case, lambda key: algorithm.train(key)[0], layout, mark),
        env_steps=lambda state: int(state.global_step.sum()),
        returns=returns,
    )


if __name__ == "__main__":
    serve(Worker(PACKAGES, layouts, xla_flags, load, build))
