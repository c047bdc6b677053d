"""Stable-Baselines3's PPO for `parity.py`: task on stdin, returns on stdout."""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from torch.nn import ReLU, Tanh


def main() -> None:
    wanted = json.load(sys.stdin)
    torch.set_num_threads(1)
    begin = time.perf_counter()
    returns = [trained(wanted["task"], seed, wanted["episodes"]) for seed in wanted["seeds"]]
    names = ("stable-baselines3", "torch", "gymnasium")
    answer = {
        "returns": returns,
        "train_seconds": round(time.perf_counter() - begin, 1),
        "versions": {name: version(name) for name in names},
    }
    print(json.dumps(answer))


def trained(task: dict[str, Any], seed: int, episodes: int) -> float:
    """Train one seed; mean return of whole episodes with the mode of the policy."""
    sizes = list(task["hidden_sizes"])
    model = PPO(
        "MlpPolicy",
        make_vec_env(task["env"], n_envs=task["num_envs"], seed=seed),
        n_steps=task["rollout_length"],
        batch_size=task["num_envs"] * task["rollout_length"] // task["num_minibatches"],
        n_epochs=task["num_epochs"],
        learning_rate=task["learning_rate"],
        gamma=task["gamma"],
        gae_lambda=task["gae_lambda"],
        clip_range=task["clip_epsilon"],
        ent_coef=task["entropy_coef"],
        vf_coef=task["value_coef"] / 2,  # its value loss has no factor 1/2
        max_grad_norm=0.5,
        policy_kwargs={
            "net_arch": {"pi": sizes, "vf": sizes},
            "activation_fn": {"tanh": Tanh, "relu": ReLU}[task["activation"]],
        },
        seed=seed,
        device="cpu",
    )
    model.learn(task["total_env_steps"])
    fresh = make_vec_env(task["env"], n_envs=16, seed=10_000 + seed)
    return float(evaluate_policy(model, fresh, n_eval_episodes=episodes, deterministic=True)[0])


if __name__ == "__main__":
    main()
