"""The settings that every trainer is timed at (standard library only: all processes read it)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One workload; every number means the same thing to every trainer."""

    name: str
    title: str
    env_steps: int  # per seed, whole iterations
    num_envs: int
    seeds: int = 1
    env: str = "CartPole-v1"
    rollout_length: int = 128
    num_epochs: int = 4
    num_minibatches: int = 4
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    learning_rate: float = 2.5e-4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_epsilon: float = 0.2
    entropy_coef: float = 0.01
    value_coef: float = 0.5
    max_grad_norm: float = 0.5

    @property
    def batch_size(self) -> int:
        return self.num_envs * self.rollout_length


# Budgets are whole iterations that last one to three seconds on two CPU cores.
CASES = {
    case.name: case
    for case in (
        Case("a", "4 envs x 128, 1 seed", env_steps=512 * 512, num_envs=4),
        Case("b", "4 envs x 128, 16 seeds", env_steps=40 * 512, num_envs=4, seeds=16),
        Case("c", "2,048 envs x 128, 1 seed", env_steps=2 * 262_144, num_envs=2048),
    )
}


def scaled(case: Case, factor: float) -> Case:
    """The same case with a budget `factor` times as long, in whole iterations."""
    iterations = max(1, round(factor * case.env_steps / case.batch_size))
    return dataclasses.replace(case, env_steps=iterations * case.batch_size)
