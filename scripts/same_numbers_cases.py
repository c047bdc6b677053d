"""The runs of `same_numbers.py`: small, and together they use every part that computes numbers."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

# The learning rate of `train` is high, so that clips, stops and adaptive factors act.
SIZE = "--num-envs 4 --rollout-length 32"
TINY = (
    "--no-preset --num-epochs 2 --num-minibatches 2 --hidden-sizes 16 --log-every 128 "
    "--eval-episodes 4 --quiet --json"
)
SWEEP = f"{TINY} {SIZE} --total-env-steps 1024 --seeds 2 --out sweep"

# A user's own drift and network, in a module beside the runs.
OWN_PARTS = """
import jax
import jax.numpy as jnp

def drift(ratio, advantage):
    return jax.nn.relu((ratio - 1.0) * advantage - 0.02 * jnp.abs(advantage))

def init_fn(key):
    first, last = jax.random.split(key)
    return {"first": jax.random.normal(first, (4, 8)), "last": jax.random.normal(last, (8, 3))}

def apply_fn(params, observation):
    out = jnp.tanh(observation @ params["first"]) @ params["last"]
    return out[:2], out[2]

network = (init_fn, apply_fn)
"""


class Case(NamedTuple):
    """Commands that run one after the other in one folder."""

    commands: tuple[str, ...]
    num_devices: int = 1


def train(
    options: str = "",
    *more: str,
    env: str = "CartPole-v1",
    size: str = SIZE,
    env_steps: int = 1024,
    num_devices: int = 1,
) -> Case:
    """A training run in `run`, whose five checkpoints are all kept; then `more` commands."""
    rate = "" if "--learning-rate" in options else "--learning-rate 0.01"
    every = f"--total-env-steps {env_steps} --checkpoint-every {env_steps // 4} --keep 99"
    first = f"train {env} {TINY} {size} {every} {rate} --out run {options}"
    return Case((first, *more), num_devices)


pendulum = partial(train, env="Pendulum-v1")
large = partial(train, size="--num-envs 32 --rollout-length 64", env_steps=8192)

CASES = {
    "clip": train("--clip-epsilon 0.02 --eval-every 512"),
    "clip-variants": train(
        "--clip-epsilon 0.02 --clip-epsilon-high 0.03 --dual-clip 1.05 --value-clip-epsilon 0.2 "
        "--entropy-coef 0.01 --learning-rate 0.01:0.001 --normalize-advantages none"
    ),
    "pg": train("--objective pg"),
    "is": train("--objective is"),
    "kl-adaptive": train("--objective kl --kl-target 0.0005"),
    "kl-new-old": train("--objective kl --kl-direction new-old"),
    "dpo": train("--objective dpo"),
    "spo": train("--objective spo"),
    "trpo": train("--objective trpo"),
    "npg": train("--objective npg"),
    "own-drift": train("--objective drift --drift own_parts:drift"),
    "gaussian": pendulum("--policy gaussian"),
    "gaussian-state-std": pendulum("--policy gaussian-state-std"),
    "gsde": pendulum("--policy gsde --gsde-resample-steps 4"),
    "tanh-gaussian": pendulum("--policy tanh-gaussian --log-std-init -0.5"),
    "normalised": pendulum(
        "--normalize-observations --normalize-rewards --normalize-advantages batch --env.g 9"
    ),
    "kl-learning-rate": pendulum("--kl-lr-target 0.001"),
    "kl-stop": train("--kl-stop 0.002"),
    "cnn": train("--torso cnn", env="Breakout-MinAtar"),
    "shared-torso": train("--shared-torso --no-orthogonal-init --activation relu"),
    "gradient-cosine": train("--measure-gradient-cosine"),
    "env-rows": train("--shuffle env-rows"),
    "own-network": train("--network own_parts:network"),
    "seeds-vmap": train("--seeds 3 --seed 5"),
    "seeds-map": large("--seeds 3"),
    "two-devices-seeds": train("--seeds 3", num_devices=2),
    "two-devices-envs": large("--normalize-observations", num_devices=2),
    "resume": train(
        "--max-seconds 0.001",  # over before the first iteration
        "resume run --quiet --json",
        "resume run --total-env-steps 1536 --quiet --json",
    ),
    "eval": train(
        "--policy gaussian",
        "eval run --episodes 5 --json",
        "eval run --episodes 5 --policy-mode sampled --seed 3 --json",
        env="Pendulum-v1",
    ),
    "sweep-grid": Case((f"sweep CartPole-v1 lr=0.001,0.01 objective=clip,pg {SWEEP}",)),
    "sweep-halving": Case(
        (f"sweep CartPole-v1 lr=1e-4..1e-1:log --sampler halving --settings 6 {SWEEP}",)
    ),
    "sweep-pbt": Case(
        (f"sweep CartPole-v1 lr=1e-4..1e-1:log --sampler pbt --settings 5 --interval 256 {SWEEP}",)
    ),
}
