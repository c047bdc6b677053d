"""The settings that every trainer is timed at. Standard library only: all processes read them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Case:
    """One workload; every number has the same meaning for every trainer."""

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
    normalize_observations: bool = False
    memory: str = "none"
    memory_size: int = 128
    shared_torso: bool = False
    previous_inputs: str = "none"
    clips_value: bool = True
    start_states: int = 0  # start states that a rollout shares; 0 for a fresh one each
    has_flags: bool = True  # ours sees kinds of cells as flags; else as the numbers that they are
    normalizes_advantages: bool = True
    objective: str = "clip"  # this and the next two: of ours only
    torso: str = "mlp"
    precision: str = "float32"
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

    @property
    def flops_per_env_step(self) -> int:
        """Floating-point operations of the matrix products per environment step.

        Forward passes of actor and critic at every step, then forward and backward (twice the
        forward's cost) in every epoch, 2 operations a multiplication and addition; the first
        layer's backward pass makes no gradient of its input. Environment, activations, advantages,
        shuffling and Adam are not counted, nor the products of TRPO's conjugate gradients. So a
        share of a ceiling computed from this is a lower bound.
        """
        observation, outputs = ENV_SIZES[self.env]
        forward = backward = 0
        for out in (outputs, 1):  # actor, critic
            is_grid = self.torso == "cnn"
            sizes = (CONV_OUTPUTS if is_grid else observation, *self.hidden_sizes, out)
            layers = [CONV_FLOPS] * is_grid + [2 * a * b for a, b in pairwise(sizes)]
            forward += sum(layers)
            backward += 2 * sum(layers) - layers[0]
        return forward + self.num_epochs * (forward + backward)


# Numbers in an observation, and outputs of the actor.
ENV_SIZES = {
    **{"CartPole-v1": (4, 2), "Breakout-MinAtar": (400, 3), "Pendulum-v1": (3, 1)},
    **{"MemoryChain-bsuite": (3, 2), "craftax/Craftax-Classic-Symbolic-v1": (1345, 17)},
}

# MinAtar's convolution: 3 x 3 x 4 -> 16 at 8 x 8 places.
CONV_OUTPUTS = 8 * 8 * 16
CONV_FLOPS = 2 * CONV_OUTPUTS * 3 * 3 * 4

# Ajax has a core each for actor and critic, as ours has. PureJaxRL shares one and has a layer of
# 128 behind it on either side; ours has two more layers before the core, with as many products.
MEMORY = {"env": "MemoryChain-bsuite", "activation": "relu", "memory": "gru"}
APART = MEMORY | {"hidden_sizes": (128,)}
SHARED = MEMORY | {"hidden_sizes": (128, 128, 128), "shared_torso": True}

# Budgets are whole iterations that last one to three seconds on two CPU cores.
CASES = {
    case.name: case
    for case in (
        Case("a", "4 envs x 128, 1 seed", env_steps=512 * 512, num_envs=4),
        Case("b", "4 envs x 128, 16 seeds", env_steps=40 * 512, num_envs=4, seeds=16),
        Case("c", "2,048 envs x 128, 1 seed", env_steps=2 * 262_144, num_envs=2048),
        Case(
            *("d", "Breakout-MinAtar, 64 envs x 128"),
            env_steps=24 * 8192,
            num_envs=64,
            env="Breakout-MinAtar",
            activation="relu",
        ),
        Case(
            *("e", "Pendulum, normalised observations, 64 envs x 128"),
            env_steps=40 * 8192,
            num_envs=64,
            env="Pendulum-v1",
            normalize_observations=True,
        ),
    )
}

# Policies with a memory; a peer takes part in those that have its network.
MEMORY_CASES = {
    case.name: case
    for case in (
        Case("m16", "a GRU 128 each, 16 envs x 128", 4 * 2048, 16, **APART),
        Case("m256", "a GRU 128 each, 256 envs x 32", 2 * 8192, 256, rollout_length=32, **APART),
        Case("s16", "one GRU 128, 16 envs x 128", 4 * 2048, 16, **SHARED),
        Case("s256", "one GRU 128, 256 envs x 32", 2 * 8192, 256, rollout_length=32, **SHARED),
    )
}

# Suites of environments, each beside its own trainer, with that trainer's batches and networks as
# far as a CPU trains them. Convolutions and embeddings differ; our layers are chosen for as many
# products (XLand: 0.81 and 0.78 million a step; Snake: 0.59 twice).
SUITE_CASES = {
    case.name: case
    for case in (
        Case(
            *("brax-fast", "Brax: fast, 64 envs x 32", 48 * 2048, 64),
            env="brax/fast",
            rollout_length=32,
            normalize_observations=True,
            clips_value=False,
        ),
        Case(
            *("brax-pendulum", "Brax: inverted_pendulum, 64 envs x 32", 4 * 2048, 64),
            env="brax/inverted_pendulum",
            rollout_length=32,
            normalize_observations=True,
            clips_value=False,
        ),
        Case(
            *("craftax", "Craftax-Classic-Symbolic, 3 x 512, 64 envs x 64", 2 * 4096, 64),
            env="craftax/Craftax-Classic-Symbolic-v1",
            rollout_length=64,
            num_minibatches=8,
            hidden_sizes=(512, 512, 512),
            gae_lambda=0.8,
            max_grad_norm=1.0,
            start_states=64,
        ),
        Case(
            *("navix", "Navix: DoorKey-8x8, 16 envs x 128", 32 * 2048, 16),
            env="navix/Navix-DoorKey-8x8-v0",
            num_epochs=1,
            num_minibatches=8,
            has_flags=False,
        ),
        Case(
            *("xminigrid", "XLand-MiniGrid: Empty-6x6, GRU 128, 256 envs x 16", 4 * 4096, 256),
            env="xminigrid/MiniGrid-Empty-6x6",
            rollout_length=16,
            num_epochs=1,
            num_minibatches=16,
            hidden_sizes=(512, 512),
            activation="relu",
            torso="cnn",
            memory="gru",
            memory_size=128,
            shared_torso=True,
            previous_inputs="action+reward",
        ),
        Case(
            *("jumanji", "Jumanji: Snake, A2C, 128 envs x 20", 10 * 2560, 128),
            env="jumanji/Snake-v1",
            rollout_length=20,
            num_epochs=1,
            num_minibatches=1,
            hidden_sizes=(128, 128),
            activation="relu",
            torso="cnn",
            objective="pg",
            clips_value=False,
            normalizes_advantages=False,
            learning_rate=3e-4,
            gamma=0.997,
            value_coef=2.0,
            max_grad_norm=1e6,
        ),
    )
}
ALL_CASES = CASES | MEMORY_CASES | SUITE_CASES


def scaled(case: Case, factor: float) -> Case:
    """The same case with a budget `factor` times as long, in whole iterations."""
    iterations = max(1, round(factor * case.env_steps / case.batch_size))
    return dataclasses.replace(case, env_steps=iterations * case.batch_size)
