"""Halving and pbt, compared with training everything: `python .../sweep/selection.py WHAT`.

`halving`: the full grid against successive halving over the same points, two environments. Compared
are the winners on the same fresh seeds, and the environment steps. `pbt`: population-based training
against the best fixed setting of its own initial population, four environments. Each repetition has
its own seeds and its own order or draw of settings. Finished repetitions are kept, so a second
start with the same --out goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import record

GRID = {
    "learning_rate": "1e-4..1e-2:5:log",
    "clip_epsilon": [0.1, 0.2, 0.3],
    "entropy_coef": [0.0, 0.01],
}
RANGES = {
    "learning_rate": "1e-5..1e-1:log",
    "clip_epsilon": "0.05..0.4",
    "entropy_coef": "1e-5..1e-1:log",
}
HALVING = {"CartPole-v1": 22_500, "Acrobot-v1": 45_000}
PBT = {"CartPole-v1": 50_000, "Acrobot-v1": 50_000, "Pendulum-v1": 100_000, "Catch-bsuite": 50_000}
NORMALIZED = ("Pendulum-v1",)  # trained with standardised observations and rewards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("halving", "pbt"))
    parser.add_argument("--envs", nargs="+")
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="first repetition")
    parser.add_argument("--seeds", type=int, default=4, help="of each setting")
    parser.add_argument("--fresh-seeds", type=int, default=8)
    parser.add_argument("--eta", type=int, default=3, help="halving: one in so many goes on")
    parser.add_argument("--population", type=int, default=16, help="pbt: settings")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on every budget")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    budgets = {"halving": HALVING, "pbt": PBT}[arguments.what]
    name = arguments.what if arguments.eta == 3 else f"{arguments.what}-eta-{arguments.eta}"
    out = Path(arguments.out or record.default_out(name))
    result: dict[str, Any] = {**record.opening(__doc__), "envs": {}}
    if arguments.what == "halving":
        result["eta"] = arguments.eta
    if out.exists():
        result["envs"] = json.loads(out.read_text("utf-8"))["envs"]
    first = arguments.first
    for repetition in range(first, first + arguments.repetitions):
        for env in arguments.envs or list(budgets):
            steps = int(budgets[env] * arguments.scale)
            rows = result["envs"].get(env, {}).get("repetitions", [])
            if repetition in [row["repetition"] for row in rows]:
                continue
            rows = [*rows, compare(env, steps, repetition, arguments)]
            found = verdict(rows)
            result["envs"][env] = {"env_steps": steps, "repetitions": rows, **found}
            record.write(result, out)  # after each, so that no data is lost
            print(env, json.dumps(found), flush=True)


def compare(env: str, steps: int, repetition: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One repetition: everything to the end, and the sampler in question."""
    from ppo_jax.apps.sweep.driver import sweep
    from ppo_jax.config.config import Config

    is_normalized = env in NORMALIZED
    config = Config(
        env=env, total_env_steps=steps, num_envs=8, rollout_length=128,
        normalize_observations=is_normalized, normalize_rewards=is_normalized,
    )  # fmt: skip
    common = {
        "seeds": arguments.seeds,
        "seed": 1000 * repetition,
        "fresh_seeds": arguments.fresh_seeds,
        "eval_episodes": 32,
    }
    axes, ours = GRID, {"sampler": "halving", "eta": arguments.eta}
    everything: dict[str, Any] = {"sampler": "grid"}
    if arguments.what == "pbt":
        axes, ours = RANGES, {"sampler": "pbt", "settings": arguments.population}
        everything = {"sampler": "random", "settings": arguments.population}
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            name: sweep(config, axes, out=f"{folder}/{name}", **common, **how).summary
            for name, how in (("everything", everything), (arguments.what, ours))
        }
        lineage = Path(folder, arguments.what).rglob("lineage.jsonl")
        rungs = arrivals(next(lineage)) if arguments.what == "halving" else []
    row: dict[str, Any] = {"repetition": repetition, "rungs": rungs}
    row["wall_seconds"] = round(time.perf_counter() - begin, 1)
    row |= {name: winner(summary) for name, summary in found.items()}
    row |= beside(row["everything"], row[arguments.what])
    print(env, repetition, {k: v for k, v in row.items() if not isinstance(v, dict)}, flush=True)
    return row


def winner(summary: dict[str, Any]) -> dict[str, Any]:
    """The winner of a sweep, and the sweep's cost."""
    best = summary["best"]
    return {
        "values": best["values"],
        "selected": best["selected"]["mean"],
        "fresh": best["fresh"],
        "env_steps": summary["env_steps_in_all"],
        "train_seconds": summary["train_seconds"],
        "evaluation_env_steps": summary.get("evaluation_env_steps", 0),
    }


def beside(whole: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """A sampler's winner and cost beside those of everything that was trained to the end."""
    low = (whole["fresh"]["ci95"] or [whole["fresh"]["mean"]])[0]
    return {
        "share_of_steps": other["env_steps"] / whole["env_steps"],
        "difference": other["fresh"]["mean"] - whole["fresh"]["mean"],
        "not_below_interval": other["fresh"]["mean"] >= low,
    }


def arrivals(lineage: Path) -> list[dict[str, Any]]:
    """The scores at each rung before the last, and the settings that went on, best first.

    The score of a failed setting is null.
    """
    found: dict[int, list[Any]] = {}
    for line in lineage.read_text("utf-8").splitlines():
        for each in json.loads(line)["arrived"]:
            found.setdefault(each["rung_env_steps"], []).append(each)
    rungs = []
    for steps in sorted(found)[:-1]:
        here = sorted(found[steps], key=_standing)
        rungs.append(
            {
                "env_steps": steps,
                "scores": [each["score"] for each in here],
                "went_on": sum(each["goes_on"] for each in here),
            }
        )
    return rungs


def _standing(arrival: dict[str, Any]) -> tuple[bool, float]:
    """The order of arrivals at a rung: those that go on, then by score, the failed at the end."""
    score = arrival["score"]
    return not arrival["goes_on"], math.inf if score is None else -float(score)


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Summary over the repetitions: wins, differences, and the share of the steps."""
    import numpy as np

    from ppo_jax.analysis import means

    differences = [row["difference"] for row in rows]
    return {
        "not_below_interval": sum(row["not_below_interval"] for row in rows),
        "better": sum(difference > 0 for difference in differences),
        "repetitions_in_all": len(rows),
        "difference_mean": float(np.mean(differences)),
        "difference_ci95": means.interval([differences]),
        "share_of_steps_max": max(row["share_of_steps"] for row in rows),
    }


if __name__ == "__main__":
    main()
