"""Ajax's PPO (Berthelot, github.com/YannBerthelot/Ajax) at its best: neither logs nor evaluations.

Without a logging configuration its training loop traces no evaluation. `get_make_train` returns the
function that its own `train` puts under `vmap`; here it has the layouts of Rejax's. Its loop runs
one iteration more than its budget holds, so its budget is one iteration smaller. It differs by
design: the value loss is never clipped, and V(next observation) is computed for every sample.
Observations are normalised by each environment's own statistics, which change at every step. Actor
and critic have separate optimisers, with one global norm for clipping.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cases import Case
from spreading import compiled, layouts, seed_keys, xla_flags
from worker import Program, Worker, serve

PACKAGES = ("ajax-rl", "gymnax", "jax", "jaxlib", "flax", "optax", "distrax", "numpy")


def load() -> None:
    import ajax.agents.PPO.PPO  # noqa: F401


def create(case: Case) -> Any:
    from ajax.agents.PPO.PPO import PPO

    layers = tuple(word for size in case.hidden_sizes for word in (str(size), case.activation))
    return PPO(
        env_id=case.env,
        n_envs=case.num_envs,
        actor_learning_rate=case.learning_rate,
        critic_learning_rate=case.learning_rate,
        actor_architecture=layers,
        critic_architecture=layers,
        gamma=case.gamma,
        max_grad_norm=case.max_grad_norm,
        ent_coef=case.entropy_coef,
        clip_range=case.clip_epsilon,
        n_steps=case.rollout_length,
        n_epochs=case.num_epochs,
        num_minibatches=case.num_minibatches,
        vf_coef=case.value_coef,
        gae_lambda=case.gae_lambda,
        normalize_observations=case.normalize_observations,
        memory=memory_of(case),
    )


def memory_of(case: Case) -> dict[str, Any] | None:
    is_none = case.memory == "none"
    return None if is_none else {"kind": case.memory, "hidden_size": case.memory_size}


def build(case: Case, layout: str, mark: Callable[[str], None]) -> Program:
    import jax
    from ajax.evaluate import evaluate

    agent = create(case)
    train = agent.get_make_train()(
        env_args=agent.env_args,
        actor_optimizer_args=agent.actor_optimizer_args,
        critic_optimizer_args=agent.critic_optimizer_args,
        network_args=agent.network_args,
        agent_config=agent.agent_config,
        total_timesteps=case.env_steps - case.batch_size,
        num_episode_test=1,
        run_ids=[],
        logging_config=None,
    )

    def evaluate_one(state: Any, key: Any) -> Any:
        env = agent.env_args
        return evaluate(env.env, state.actor_state, 128, key, env.env_params)[0]

    def returns(state: Any) -> list[float]:
        if case.normalize_observations:  # one statistic per environment: no use in evaluation
            return []
        return jax.jit(jax.vmap(evaluate_one))(state, seed_keys(case, 1)).tolist()

    return Program(
        run=compiled(case, lambda key: train(key)[0], layout, mark),
        env_steps=lambda state: int(state.collector_state.timestep.sum()),
        returns=returns,
    )


if __name__ == "__main__":
    serve(Worker(PACKAGES, layouts, xla_flags, load, build))
