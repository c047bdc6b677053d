"""An experiment on the founding question: why the ratio in place of the logarithm?

Each objective trains on the same environment with the same number of environment steps. The number
E of gradient steps on each batch varies. The whole batch is one minibatch, so at E = 1 every
gradient is taken at theta_old.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ppo_jax.analysis import ranges, stats
from ppo_jax.apps.diagnose import explain_figure
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions
from ppo_jax.config.validate import check_count, validate
from ppo_jax.distributed.layout import local_devices
from ppo_jax.envs import registration
from ppo_jax.runtime import devices
from ppo_jax.storage import run_folder
from ppo_jax.storage.files import replacing, to_json, to_strict_json, write_json
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

    Raises:
        InputError: `out` cannot become a new folder, `seeds` or `epochs` are too few or too many,
            or the environment and its steps cannot be trained.
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
    cells.insert(0, (REFERENCE, 1))
    shares = np.cumsum([work(config, objective, count, seeds) for objective, count in cells])
    tell = tell or (lambda _: None)
    tell(
        f"{len(cells)} trainings of {seeds} seeds x {config.trained_env_steps:,} environment "
        f"steps: about {duration(shares[-1])} on two idle cores"
    )
    rows, started = [], time.monotonic()
    for (objective, count), share in zip(cells, shares, strict=True):
        rows.append(run_cell(config, objective, count, seeds))
        left = (time.monotonic() - started) * (shares[-1] / share - 1.0)
        tell(describe(rows[-1]) + (f"; {duration(left)} left" if len(rows) < len(cells) else ""))
    result = record(config, seeds, rows) | {"figure": str(folder / "explain.svg")}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "explain.json", to_strict_json(result))
    for suffix in ("svg", "png"):
        with replacing(folder / f"explain.{suffix}") as path:
            explain_figure.draw(rows, path, env, seeds)
    return result


# Seconds on two idle cores: to compile a cell, for a step, and for its share of each epoch.
COMPILE_SECONDS, STEP_SECONDS, EPOCH_SECONDS = 10.0, 2e-6, 4e-6
CRITIC_EPOCHS = 10  # the reference has no others


def work(config: Config, objective: str, num_epochs: int, seeds: int) -> float:
    """Forecast the seconds of a cell."""
    steps = CRITIC_EPOCHS if objective == REFERENCE else num_epochs
    per_step = STEP_SECONDS + EPOCH_SECONDS * steps
    return COMPILE_SECONDS + seeds * config.trained_env_steps * per_step


def duration(seconds: float) -> str:
    """Seconds or minutes, rounded."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


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
        cell = dataclasses.replace(cell, num_epochs=CRITIC_EPOCHS, measure_gradient_cosine=False)
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
        "return": stats.summarise(scores, limits=ranges.limits(cell.env)),
        "entropy": over_seeds("entropy"),
    }
    for name, probed in explain_figure.MEASURED.items():
        metric = name if objective == REFERENCE else probed  # the reference has one step a batch
        if metric in metrics:
            row[name] = over_seeds(metric)
    return row


def describe(row: Row) -> str:
    """One row in one line."""
    interval = row["return"]["ci95"]
    spread = "" if interval is None else f" ({interval[0]:.3g} to {interval[1]:.3g})"
    return (
        f"{row['objective']:<5} E={row['epochs']:<3} return {middle(row, 'return')}{spread}, KL "
        f"{middle(row, 'kl_old_new')}, effective sample size {middle(row, 'ess_fraction')} N, "
        f"cosine {middle(row, 'gradient_cosine')}"
    )


def conclusions(rows: Sequence[Row]) -> list[str]:
    """Five claims on the rows, each as shown, or as not shown at this budget.

    A claim is shown if the 95% intervals of the returns that it compares do not overlap.
    """
    table = {(row["objective"], row["epochs"]): row for row in rows}
    epochs = sorted({row["epochs"] for row in rows if row["objective"] in OBJECTIVES})
    first, most = epochs[0], epochs[-1]

    def at(objective: str, count: int) -> str:
        return f"{NAMES[objective]} {scored(table[objective, count])}"

    def below(one: tuple[str, int], other: tuple[str, int]) -> bool:
        return is_below(table[one], table[other])

    lines = []
    if first == 1:
        names = ("pg", "is", "clip")
        apart = any(below((a, 1), (b, 1)) for a in names for b in names)
        claim = "at E = 1 the ratio is 1, the three gradients are equal, and the intervals overlap"
        lines.append(verdict(not apart, claim, ", ".join(at(name, 1) for name in names)))
    if most > first:
        best = max(epochs, key=lambda count: table["is", count]["return"]["iqm"] or -math.inf)
        reused = [count for count in epochs if count > 1]
        better = [count for count in reused if below(("pg", count), ("is", count))]
        places = ", ".join(f"E = {count}" for count in better) or f"E = {most}"
        lines += [
            verdict(
                below(("pg", most), ("pg", first)),
                "reuse of a batch ruins the logarithm",
                f"{at('pg', first)} at E = {first}, {at('pg', most)} at E = {most}, "
                f"KL {middle(table['pg', most], 'kl_old_new')}",
            ),
            verdict(
                bool(better),
                f"the ratio alone does better than the logarithm at {places} ({len(better)} of "
                f"{len(reused)} values of E above 1)",
                "; ".join(f"{at('pg', e)}, {at('is', e)} at E = {e}" for e in better or [most]),
            ),
            verdict(
                below(("is", most), ("is", best)),
                "the ratio alone is not enough for much reuse",
                f"{at('is', best)} at E = {best}, {at('is', most)} at E = {most}, "
                f"KL {middle(table['is', most], 'kl_old_new')}, effective sample size "
                f"{middle(table['is', most], 'ess_fraction')} N",
            ),
        ]
    bounds = [name for name in ("clip", "kl") if below(("is", most), (name, most))]
    claim = " and ".join(BOUNDS[name] for name in bounds or BOUNDS)
    lines.append(
        verdict(
            bool(bounds),
            f"with a bound on the ratio ({claim}) the return is higher at E = {most}",
            f"{at('is', most)}, {at('clip', most)}, {at('kl', most)}; {at(REFERENCE, 1)} with "
            "one step a batch",
        )
    )
    return lines


NAMES = {"pg": "L^PG", "is": "L^IS", "kl": "KL penalty", "clip": "clip", REFERENCE: "TRPO"}
BOUNDS = {"clip": "clip", "kl": "KL penalty"}


def verdict(is_shown: bool, claim: str, evidence: str) -> str:
    """A line with a claim and its numbers, marked if the intervals do not bear it out."""
    opening = claim[0].upper() + claim[1:] if is_shown else f"Not shown at this budget: {claim}"
    return f"{opening}. Returns: {evidence}."


def is_below(row: Row, other: Row) -> bool:
    """Check that the interval of a row's return ends before that of another begins."""
    ours, theirs = row["return"]["ci95"], other["return"]["ci95"]
    return ours is not None and theirs is not None and ours[1] < theirs[0]


def scored(row: Row) -> str:
    """The return of a row with its interval."""
    interval = row["return"]["ci95"]
    spread = "" if interval is None else f" [{interval[0]:.4g}, {interval[1]:.4g}]"
    value = row["return"]["iqm"]
    return ("-" if value is None else f"{value:.4g}") + spread


def middle(row: Row, name: str) -> str:
    """The IQM of one measurement of a row."""
    value = row.get(name, {}).get("iqm")
    return "-" if value is None else f"{value:.3g}"
