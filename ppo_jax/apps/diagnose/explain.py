"""An experiment on the founding question: why the ratio in place of the logarithm?

Each objective trains on the same environment with the same number of environment steps. The number
E of gradient steps on each batch varies. The whole batch is one minibatch, so at E = 1 every
gradient is taken at theta_old.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ppo_jax.analysis import stats
from ppo_jax.apps.diagnose import explain_figure
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions
from ppo_jax.config.validate import check_count, validate
from ppo_jax.distributed.layout import local_devices
from ppo_jax.envs import registration
from ppo_jax.runtime import devices
from ppo_jax.storage import run_folder
from ppo_jax.storage.files import to_json, to_strict_json, write_json
from ppo_jax.storage.manifest import make_manifest
from ppo_jax.training import trainer

OBJECTIVES = ("pg", "is", "kl", "clip")
EPOCHS = (1, 2, 4, 8, 16, 32)
SETTING = Config(
    env="CartPole-v1",
    num_envs=8,
    rollout_length=64,
    num_minibatches=1,
    total_env_steps=60_000,
    measure_gradient_cosine=True,
)
# One step size for all: large enough that one step on a batch of 512 learns something.
HYPER = Hyper(learning_rate=3e-3, gamma=0.98, gae_lambda=0.95, kl_coef=1.0)
REFERENCE = "trpo"  # takes one step a batch, as large as its trust region allows
LAST_SHARE = 0.2  # returns are averaged over this last part of the training

Row = dict[str, Any]


MAX_SEEDS, MAX_EPOCHS = 2**12, 2**16  # the metrics of every iteration stay in memory


def surrogate(
    env: str = "CartPole-v1",
    *,
    seeds: int = 16,
    total_env_steps: int = SETTING.total_env_steps,
    epochs: Sequence[int] = EPOCHS,
    out: Path | str = "explain",
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Run the experiment, write `explain.json` and two pictures, and return the results.

    Args:
        seeds: per cell. total_env_steps: per seed and cell. epochs: the values of E.
        tell: called with a line for each finished cell.

    Returns:
        {"rows": one per objective and E, "text": lines for people, "figure": its path, ...}.
    """
    folder = Path(out)
    run_folder.check_new_folder(str(folder))
    if seeds < 2 or not epochs or min(epochs) < 1:
        raise InputError("explain needs at least 2 seeds and 1 epoch: an interval needs two.")
    check_count("seeds", seeds, 2, MAX_SEEDS)
    check_count("epochs", max(epochs), 1, MAX_EPOCHS)
    config = dataclasses.replace(SETTING, env=env, total_env_steps=total_env_steps)
    validate(config, HYPER)
    devices.prepare_jax(RunOptions())
    registration.make(env)
    cells = [(objective, count) for count in epochs for objective in OBJECTIVES]
    rows = []
    for objective, count in [(REFERENCE, 1), *cells]:
        rows.append(run_cell(config, objective, count, seeds))
        if tell is not None:
            tell(describe(rows[-1]))
    result = record(config, seeds, rows) | {"figure": str(folder / "explain.svg")}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "explain.json", to_strict_json(result))
    for suffix in ("svg", "png"):
        explain_figure.draw(rows, folder / f"explain.{suffix}", env, seeds)
    return result


def record(config: Config, seeds: int, rows: Sequence[Row]) -> dict[str, Any]:
    """The content of `explain.json`: rows, conclusions and what they depend on."""
    return {
        "env": config.env,
        "seeds": seeds,
        "env_steps": config.trained_env_steps,
        "setting": {
            "config": to_json(vars(config)),
            "hyper": to_json(vars(HYPER)),
        },
        "manifest": make_manifest(local_devices()),
        "rows": rows,
        "text": conclusions(rows),
    }


def run_cell(config: Config, objective: str, num_epochs: int, seeds: int) -> Row:
    """Train all seeds of one objective and one E, and reduce them to one row."""
    cell = dataclasses.replace(config, objective=objective)
    if objective == REFERENCE:  # its epochs are the critic's
        cell = dataclasses.replace(cell, num_epochs=10, measure_gradient_cosine=False)
    else:
        cell = dataclasses.replace(cell, num_epochs=num_epochs)
    keys = jax.vmap(jax.random.key)(np.arange(seeds))
    _, metrics = jax.jit(jax.vmap(partial(trainer.train, cell, HYPER)))(keys)
    metrics = {name: np.asarray(value, np.float64) for name, value in metrics.items()}
    last = max(1, round(LAST_SHARE * cell.num_iterations))
    returns = metrics["episode_return_sum"][:, -last:].sum(1)
    counts = metrics["num_episodes"][:, -last:].sum(1)
    scores = [float(r / n) if n else None for r, n in zip(returns, counts, strict=True)]

    def over_seeds(name: str) -> dict[str, Any]:
        with np.errstate(invalid="ignore"):
            per_seed = np.nanmean(metrics[name], axis=1)
        return stats.summarise([x if math.isfinite(x) else None for x in per_seed])

    row: Row = {
        "objective": objective,
        "epochs": num_epochs,
        "return": stats.summarise(scores),
        "entropy": over_seeds("entropy"),
    }
    for name, probed in explain_figure.MEASURED.items():
        metric = name if objective == REFERENCE else probed  # the reference has one step a batch
        if metric in metrics:
            row[name] = over_seeds(metric)
    return row


def describe(row: Row) -> str:
    """One row in one line."""

    def middle(name: str) -> str:
        value = row.get(name, {}).get("iqm")
        return "-" if value is None else f"{value:.3g}"

    interval = row["return"]["ci95"]
    spread = "" if interval is None else f" ({interval[0]:.3g} to {interval[1]:.3g})"
    return (
        f"{row['objective']:<5} E={row['epochs']:<3} return {middle('return')}{spread}, KL "
        f"{middle('kl_old_new')}, effective sample size {middle('ess_fraction')} N, cosine "
        f"{middle('gradient_cosine')}"
    )


def conclusions(rows: Sequence[Row]) -> list[str]:
    """Sum up the rows in a few lines, step by step; each line is computed from them."""
    table = {(row["objective"], row["epochs"]): row for row in rows}
    epochs = sorted({row["epochs"] for row in rows if row["objective"] in OBJECTIVES})
    most = epochs[-1]

    def score(objective: str, count: int) -> float:
        return table[objective, count]["return"]["iqm"] or 0.0

    def kl(objective: str, count: int) -> float:
        return table[objective, count]["kl_old_new"]["iqm"] or 0.0

    lines = []
    if 1 in epochs:
        first = [score(name, 1) for name in ("pg", "is", "clip")]
        lines.append(
            f"One step a batch (E = 1): L^PG {first[0]:.4g}, L^IS {first[1]:.4g}, clip "
            f"{first[2]:.4g}. At theta_old the ratio is 1 and the three gradients are equal. Only "
            "rounding differs, and training amplifies it: compare the intervals."
        )
    best = {name: max(epochs, key=partial(score, name)) for name in OBJECTIVES}
    lines += [
        f"Reuse with the logarithm: L^PG goes from {score('pg', epochs[0]):.4g} at E = "
        f"{epochs[0]} to {score('pg', most):.4g} at E = {most}; KL from the old policy "
        f"{kl('pg', most):.3g}. From the second step on the samples come from another "
        "distribution, and the logarithm does not correct for it.",
        f"The ratio repairs the gradient, not the distance: L^IS is best at E = {best['is']} "
        f"({score('is', best['is']):.4g}) and reaches {score('is', most):.4g} at E = {most}, KL "
        f"{kl('is', most):.3g}, effective sample size "
        f"{table['is', most]['ess_fraction']['iqm'] or 0.0:.2f} N.",
        f"So the ratio needs a bound. Clipped: {score('clip', most):.4g} at E = {most} (best "
        f"{score('clip', best['clip']):.4g} at E = {best['clip']}), KL {kl('clip', most):.3g}; "
        f"with a KL penalty: {score('kl', most):.4g}, KL {kl('kl', most):.3g}; TRPO, one step a "
        f"batch: {score(REFERENCE, 1):.4g}, KL {kl(REFERENCE, 1):.3g}.",
    ]
    return lines
