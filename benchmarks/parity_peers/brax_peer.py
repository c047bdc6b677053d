"""Brax's own PPO for `parity.py`: task on stdin, returns on stdout.

Its `train` makes its programs anew for each seed; a cache of compilations serves all but the first.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "speed"))
from pmapped import restore_replication


def main() -> None:
    wanted = json.load(sys.stdin)
    restore_replication()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
        returns = [trained(wanted["task"], seed, wanted["episodes"]) for seed in wanted["seeds"]]
    names = ("brax", "jax", "flax", "optax")
    answer = {
        "returns": returns,
        "train_seconds": round(time.perf_counter() - begin, 1),
        "versions": {name: version(name) for name in names},
    }
    print(json.dumps(answer))


def trained(task: dict[str, Any], seed: int, episodes: int) -> float:
    """Train one seed; mean return of as many whole episodes with the mode of the policy."""
    from brax import envs
    from brax.training.agents.ppo import networks, train
    from flax import linen

    _, _, found = train.train(
        envs.get_environment(task["env"].partition("/")[2]),
        num_timesteps=task["total_env_steps"],
        num_evals=1,
        num_eval_envs=episodes,
        deterministic_eval=True,
        episode_length=task["episode_length"],
        num_envs=task["num_envs"],
        unroll_length=task["rollout_length"],
        batch_size=task["num_envs"] // task["num_minibatches"],
        num_minibatches=task["num_minibatches"],
        num_updates_per_batch=task["num_epochs"],
        learning_rate=task["learning_rate"],
        entropy_cost=task["entropy_coef"],
        discounting=task["gamma"],
        gae_lambda=task["gae_lambda"],
        clipping_epsilon=task["clip_epsilon"],
        vf_loss_coefficient=task["value_coef"],
        max_grad_norm=None,
        normalize_observations=True,
        network_factory=partial(
            networks.make_ppo_networks,
            policy_hidden_layer_sizes=task["hidden_sizes"],
            value_hidden_layer_sizes=task["hidden_sizes"],
            activation=getattr(linen, task["activation"]),
        ),
        seed=seed,
    )
    return float(found["eval/episode_reward"])


if __name__ == "__main__":
    main()
