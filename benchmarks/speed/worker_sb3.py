"""Stable-Baselines3 and SBX, its algorithms in JAX, used as in their documents.

Layouts: `sbx`; `torch` with all threads and `torch-1` with one. Environments are gymnasium's, one
after the other in this process (`DummyVecEnv`), which for CartPole is faster than a process each.
A model compiles at its first update, so the first rollout and update count as compilation. Each run
continues with the same model: a new one would compile again. They differ by design: the value loss
is not clipped; SBX clips the gradients of actor and critic each by its own norm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cases import Case
from worker import Program, Worker, serve

PACKAGES = ("stable-baselines3", "sbx-rl", "torch", "gymnasium", "jax", "flax", "numpy")


def load() -> None:
    import sbx  # noqa: F401
    import stable_baselines3  # noqa: F401


def layouts(case: Case) -> tuple[str, ...]:
    return ("sbx", "torch", "torch-1")


def xla_flags(layout: str) -> tuple[str, ...]:
    return ()


def build(case: Case, layout: str, mark: Callable[[str], None]) -> Program:
    import torch
    from stable_baselines3.common.evaluation import evaluate_policy
    from torch.nn import Tanh

    sizes = list(case.hidden_sizes)
    assert (case.activation, case.seeds, case.normalize_observations) == ("tanh", 1, False)
    if layout == "sbx":
        from sbx import PPO

        policy = {"net_arch": {"pi": sizes, "vf": sizes}}  # its activation is tanh
    else:
        from stable_baselines3 import PPO

        policy = {"net_arch": {"pi": sizes, "vf": sizes}, "activation_fn": Tanh}
        if layout == "torch-1":
            torch.set_num_threads(1)
    model = PPO("MlpPolicy", make_envs(case), policy_kwargs=policy, **settings(case))
    mark("trace_seconds")
    model.learn(2 * case.batch_size)
    mark("compile_seconds")

    def run(seed: int) -> int:
        before = model.num_timesteps
        model.learn(case.env_steps, reset_num_timesteps=False)
        return model.num_timesteps - before

    def returns(_: int) -> list[float]:
        return [float(evaluate_policy(model, make_envs(case), n_eval_episodes=16)[0])]

    return Program(run=run, env_steps=lambda steps: steps, returns=returns)


def make_envs(case: Case) -> Any:
    from stable_baselines3.common.env_util import make_vec_env

    return make_vec_env(case.env, n_envs=case.num_envs, seed=0)


def settings(case: Case) -> dict[str, Any]:
    return {
        "n_steps": case.rollout_length,
        "batch_size": case.batch_size // case.num_minibatches,
        "n_epochs": case.num_epochs,
        "learning_rate": case.learning_rate,
        "gamma": case.gamma,
        "gae_lambda": case.gae_lambda,
        "clip_range": case.clip_epsilon,
        "ent_coef": case.entropy_coef,
        "vf_coef": case.value_coef,
        "max_grad_norm": case.max_grad_norm,
        "seed": 0,
        "device": "cpu",
    }


if __name__ == "__main__":
    serve(Worker(PACKAGES, layouts, xla_flags, load, build))
