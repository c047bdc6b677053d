"""Policies played on the Gymnasium twins of the environments that trained them.

    python benchmarks/twins.py [ENV ...] [--seeds 5] [--date DATE]

Each preset is trained, brax/hopper and brax/halfcheetah for a tenth of its budget. The same
deterministic policies then play whole episodes there and on the twin, which has other code and, of
Brax, other physics. `random` is the mean return of uniform actions there. Needs the extras
`brax` and `gymnasium`. `results/twins_DATE.json` has an entry for each environment, and
`readme.py` writes the table of docs/environments.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from datetime import UTC, datetime
from typing import Any

import numpy as np
from random_policy import random_returns
from stored import RESULTS

import ppo_jax
from ppo_jax.analysis import stats
from ppo_jax.envs import registration
from ppo_jax.storage.files import write_json
from ppo_jax.storage.manifest import hardware, package_versions

# environment: (its twin, environment steps or None for the preset's, episodes of each seed)
CASES: dict[str, tuple[str, int | None, int]] = {
    "CartPole-v1": ("gymnasium/CartPole-v1", None, 64),
    "Acrobot-v1": ("gymnasium/Acrobot-v1", None, 64),
    "Pendulum-v1": ("gymnasium/Pendulum-v1", None, 64),
    "MountainCarContinuous-v0": ("gymnasium/MountainCarContinuous-v0", None, 64),
    "brax/hopper": ("gymnasium/Hopper-v5", 524_288, 16),
    "brax/halfcheetah": ("gymnasium/HalfCheetah-v5", 524_288, 16),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("env", nargs="*", choices=[*CASES, []])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--date", default=f"{datetime.now(UTC):%Y-%m-%d}", help="of the results")
    given = parser.parse_args()
    path = RESULTS / f"twins_{given.date}.json"
    for env in given.env or CASES:
        record: dict[str, Any] = {
            "what": "policies on the Gymnasium twins of the environments that trained them",
            "command": "python benchmarks/twins.py",
            "machine": hardware(),
            "cases": {},
        }
        record |= json.loads(path.read_text("utf-8")) if path.exists() else {}
        found = record["cases"][env] = case(env, given.seeds)
        write_json(path, record)
        print(env, {side: found[side]["iqm"] for side in ("there", "twin_scores")}, flush=True)


def case(env: str, seeds: int) -> dict[str, Any]:
    """Train a preset, and play its policies on both sides."""
    twin, steps, episodes = CASES[env]
    config, hyper = ppo_jax.preset(env)
    if steps is not None:
        config = dataclasses.replace(config, total_env_steps=steps)
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        trained = ppo_jax.run(config, hyper, seeds=seeds, out=run, eval_episodes=1, quiet=True)
        played = {
            side: ppo_jax.evaluate(run, episodes=episodes, policy_mode="deterministic", on=on)
            for side, on in (("there", None), ("twin_scores", twin))
        }
    return {
        "twin": twin,
        "env_steps": trained.summary["env_steps"],
        "seeds": list(range(seeds)),
        "episodes": episodes,
        "versions": package_versions(),  # of each entry: a later call adds entries
        "random": float(np.mean(random_returns(registration.make(env), episodes))),
        **{
            side: stats.summarise(found["final_return"]["per_seed"])
            for side, found in played.items()
        },
    }


if __name__ == "__main__":
    main()
