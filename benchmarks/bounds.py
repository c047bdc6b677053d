"""The logarithm and the ratio under five bounds: is it the ratio or the bound that helps?

Each of log pi and the ratio trains without a bound, with a KL stop, with a KL penalty, with a clip
and with a trust region, on the same batches, reuse E and step size. A control without a bound has
a step size divided by E: its steps are together as long as one of the others. The setting is that
of `ppo-jax explain surrogate`. `python benchmarks/bounds.py` writes
`benchmarks/results/bounds_cpu_DATE/bounds.json` and its picture. A finished cell is kept, so a
second start goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from stored import estimate

from ppo_jax.analysis import ranges, stats, verdicts
from ppo_jax.analysis.plots import STYLE, without_date
from ppo_jax.apps.diagnose.explain import HYPER, LAST_SHARE, SETTING, scored
from ppo_jax.config.config import Config, Hyper
from ppo_jax.distributed.layout import local_devices
from ppo_jax.models.agent import acting_policy, assemble
from ppo_jax.rl import surrogates
from ppo_jax.rl.types import Window
from ppo_jax.storage.manifest import make_manifest
from ppo_jax.training import objectives, trainer

RESULTS = Path(__file__).resolve().parent / "results"
ENVS = ("CartPole-v1", "Acrobot-v1", "Catch-bsuite")
EPOCHS = 8
KL_BOUND = 0.01  # of the stop and of the trust region
SOURCES = ("log", "ratio")
BOUNDS = ("none", "short-steps", "kl-stop", "kl-penalty", "clip", "trust-region")

Cell = tuple[str, str, str]  # environment, source, bound
Row = dict[str, Any]

# The objective of the package that has the bound, and its numbers.
SETTINGS: dict[str, tuple[str, dict[str, float]]] = {
    "none": ("is", {}),
    # E steps that are together as long as the one step of E = 1.
    "short-steps": ("is", {"learning_rate": HYPER.learning_rate / EPOCHS}),
    "kl-stop": ("is", {"kl_stop": KL_BOUND}),
    "kl-penalty": ("kl", {"kl_coef": 1.0}),
    "clip": ("clip", {"clip_epsilon": 0.2}),
    "trust-region": ("trpo", {"trust_region_kl": KL_BOUND}),
}

# The same bounds on log pi in place of the ratio. The clip of log r to [log(1 - eps), log(1 + eps)]
# stops the gradient at the same ratios as the clip of the ratio does.
LOGARITHMS: dict[str, objectives.Surrogate] = {
    "is": lambda t, h: surrogates.policy_gradient(t.log_prob, t.advantage),
    "kl": lambda t, h: -(t.log_prob * t.advantage - h.kl_coef * t.kl_old_new),
    "clip": lambda t, h: (
        -jnp.minimum(
            jnp.log(t.ratio) * t.advantage,
            jnp.clip(jnp.log(t.ratio), jnp.log1p(-h.clip_epsilon), jnp.log1p(h.clip_epsilon))
            * t.advantage,
        )
    ),
}


def main() -> None:
    """Run the cells that are missing, and store each as soon as it is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--steps", type=int, default=SETTING.total_env_steps)
    parser.add_argument("--envs", nargs="+", default=list(ENVS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = given.out or RESULTS / f"bounds_cpu_{time.strftime('%Y-%m-%d')}"
    out.mkdir(parents=True, exist_ok=True)
    path = out / "bounds.json"
    rows = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
    done = {(row["env"], row["source"], row["bound"]) for row in rows}
    for cell in ((e, s, b) for e in given.envs for b in BOUNDS for s in SOURCES):
        if cell in done:
            continue
        rows.append(run_cell(cell, given.seeds, given.steps))
        write(path, rows, given.seeds, given.steps)
        print(describe(rows[-1]), flush=True)


def write(path: Path, rows: list[Row], seeds: int, steps: int) -> None:
    """Store the rows, and everything that they depend on."""
    config = dataclasses.replace(SETTING, total_env_steps=steps, num_epochs=EPOCHS)
    record = {
        "seeds": seeds,
        "env_steps": config.trained_env_steps,
        "epochs": EPOCHS,
        "bounds": {name: numbers for name, (_, numbers) in SETTINGS.items()},
        "learning_rate": HYPER.learning_rate,
        "date": time.strftime("%Y-%m-%d"),
        "manifest": make_manifest(local_devices()),
        "rows": rows,
    }
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


@contextlib.contextmanager
def source(name: str) -> Iterator[None]:
    """Put the logarithm's surrogates in the place of the ratio's, if it is the source."""
    kept = dict(objectives.SURROGATES)
    jax.clear_caches()  # a compiled program knows the surrogate by its name only
    if name == "log":
        objectives.SURROGATES.update(LOGARITHMS)
    try:
        yield
    finally:
        objectives.SURROGATES.update(kept)


def run_cell(cell: Cell, seeds: int, steps: int) -> Row:
    """Train all seeds of a cell, and reduce them to one row."""
    env, name, bound = cell
    objective, numbers = SETTINGS[bound]
    config = dataclasses.replace(
        SETTING,
        env=env,
        total_env_steps=steps,
        objective=objective,
        num_epochs=EPOCHS,
        measure_gradient_cosine=False,
    )
    hyper = dataclasses.replace(HYPER, **numbers)
    started = time.monotonic()
    with source(name):
        keys = jax.vmap(jax.random.key)(np.arange(seeds))
        metrics = jax.jit(jax.vmap(partial(train, config, hyper)))(keys)
        found = {name: np.asarray(value, np.float64) for name, value in metrics.items()}
    last = max(1, round(LAST_SHARE * config.num_iterations))
    returns = found["episode_return_sum"][:, -last:].sum(1)
    counts = found["num_episodes"][:, -last:].sum(1)
    with np.errstate(invalid="ignore"):
        scores = np.where(counts > 0, returns / counts, np.nan)
    summaries = {
        "return": scores,
        "kl_after": found["kl_after"].mean(1),
        "kl_after_max": found["kl_after_max"].max(1),
        "entropy": found["entropy"].mean(1),
    }
    return {
        "env": env,
        "source": name,
        "bound": bound,
        **{key: summarised(key, known(values), env) for key, values in summaries.items()},
        "seconds": round(time.monotonic() - started, 1),
    }


def known(values: np.ndarray) -> list[float | None]:
    return [float(x) if math.isfinite(x) else None for x in values]


def train(config: Config, hyper: Hyper[Any], key: jax.Array) -> dict[str, jax.Array]:
    """A run whose metrics also hold KL[old||new] after the last step of each iteration.

    The KL is exact per state. It is measured on the states in which the rollout ended: their mean,
    and the largest.
    """
    agent = assemble(config)

    def step(state: Any, _: None) -> tuple[Any, dict[str, jax.Array]]:
        after, metrics = trainer.iterate(config, hyper, state)
        policy = acting_policy(config, agent, state.params, state.observation_moments)
        window = Window(policy.see(after.carry.observation))
        old, new = (agent.network.policy(each.params, window) for each in (state, after))
        kl = agent.family.kl(agent.family.keep(old), agent.family.keep(new))
        return after, {**metrics, "kl_after": jnp.mean(kl), "kl_after_max": jnp.max(kl)}

    start = trainer.init(config, hyper, key)
    return jax.lax.scan(step, start, None, config.num_iterations)[1]


def summarised(name: str, per_seed: Sequence[float | None], env: str) -> dict[str, Any]:
    """IQM and interval of a number; those of a return end where the possible returns end."""
    limits = ranges.limits(env) if name == "return" else ranges.UNLIMITED
    return stats.summarise(per_seed, limits=limits)


def resummarised(rows: Sequence[Row], env: str | None = None) -> list[Row]:
    """Rows whose IQMs and intervals are computed anew from the stored seeds.

    Args:
        env: of all rows, if they do not name it.
    """
    return [
        {
            name: summarised(name, value["per_seed"], env or row["env"])
            if isinstance(value, dict)
            else value
            for name, value in row.items()
        }
        for row in rows
    ]


def block(record: dict[str, Any], figure: str) -> str:
    """The part of docs/why-the-ratio.md: the picture and two tables of differences."""
    table = {(row["env"], row["source"], row["bound"]): row for row in record["rows"]}
    envs = list(dict.fromkeys(env for env, _, _ in table))
    pairs = [
        (env, bound)
        for env in envs
        for bound in BOUNDS
        if {(env, source, bound) for source in SOURCES} <= set(table)
    ]
    lines = [
        f"![Return of log π and of the ratio under each bound]({figure})",
        "",
        "| environment | bound | log π · A | r · A | r minus log π [95%] | r is "
        "| KL after the last step, mean; largest |",
        "|---|---|---|---|---|---|---|",
    ]
    for env, bound in pairs:
        log, ratio = (table[env, source, bound] for source in SOURCES)
        kls = " and ".join(
            f"{row['kl_after']['iqm']:.2g}; {row['kl_after_max']['iqm']:.2g}"
            for row in (log, ratio)
        )
        cells = (env, LABELS[bound], scored(log), scored(ratio), *compared(ratio, log), kls)
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| environment | log π with | minus r without a bound [95%] | log π is |",
        "|---|---|---|---|",
    ]
    for env, bound in pairs:
        if bound != "none" and (env, "none") in pairs:
            cells = compared(table[env, "log", bound], table[env, "ratio", "none"])
            lines.append(f"| {env} | {LABELS[bound]} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{record['seeds']} seeds, {record['env_steps']:,} environment steps each, E = "
        f"{record['epochs']}; IQM of the return of the last fifth of training by the sampled "
        "policy. The verdict is that of `ppo-jax compare`: equal means that the interval of the "
        "difference lies within 5% of the range from random to best. The KL is exact, on the "
        "states at the rollout's end.",
    ]
    missing = []
    for env in ENVS:
        bounds = [LABELS[bound] for bound in BOUNDS if (env, bound) not in pairs]
        if bounds:
            missing.append(env if len(bounds) == len(BOUNDS) else f"{env} with {'; '.join(bounds)}")
    if missing:
        lines[-1] += f" Not run yet: {'; '.join(missing)}."
    return "\n".join(lines)


def compared(ours: Row, theirs: Row) -> tuple[str, str]:
    """The difference of two rows' returns with its interval, and its verdict."""
    both = [[stats.known(row["return"]["per_seed"])] for row in (ours, theirs)]
    ends = ranges.ranges()[ours["env"]]
    verdict = verdicts.between(*both, verdicts.margin_of(ends.random, ends.best))
    return estimate(verdict.difference, verdict.ci95, "+.4g"), verdicts.described(verdict)


LABELS = {
    "none": "no bound",
    "short-steps": f"step size / {EPOCHS}, no bound",
    "kl-stop": f"stop at KL {KL_BOUND}",
    "kl-penalty": "KL penalty, β = 1",
    "clip": "clip, ε = 0.2",
    "trust-region": f"trust region, δ = {KL_BOUND}, one step",
}


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw the returns of both sources under each bound, one panel for each environment."""
    import matplotlib
    from matplotlib.figure import Figure

    envs = list(dict.fromkeys(row["env"] for row in record["rows"]))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.0, 3.6 * len(envs)), dpi=160, layout="constrained")
        for panel, env in zip(figure.subplots(len(envs), squeeze=False)[:, 0], envs, strict=True):
            for shift, source in zip((-0.12, 0.12), SOURCES, strict=True):
                color, label = {"log": ("#D55E00", "log π · A"), "ratio": ("#0072B2", "r · A")}[
                    source
                ]
                rows = [r for r in record["rows"] if (r["env"], r["source"]) == (env, source)]
                places = np.array([BOUNDS.index(row["bound"]) for row in rows]) + shift
                middle = np.array([row["return"]["iqm"] for row in rows])
                # One seed has no interval: a bar of length 0.
                ends = [row["return"]["ci95"] or [row["return"]["iqm"]] * 2 for row in rows]
                low, high = np.array(ends).T
                panel.errorbar(
                    places, middle, (middle - low, high - middle), fmt="o", color=color, label=label
                )
            panel.set_xlim(-0.5, len(BOUNDS) - 0.5)  # the same for cells that are not run yet
            panel.set_xticks(range(len(BOUNDS)), [LABELS[b].split(",")[0] for b in BOUNDS])
            panel.set_title(env, loc="left")
            panel.set_ylabel("return, 95% interval")
        figure.axes[0].legend(frameon=False)
        figure.savefig(path, metadata=without_date(path))


def describe(row: Row) -> str:
    found = estimate(row["return"]["iqm"], row["return"]["ci95"])
    return (
        f"{row['env']} {row['source']} {row['bound']}: return {found}, "
        f"KL {row['kl_after']['iqm']:.3g}, {row['seconds']} s"
    )


if __name__ == "__main__":
    main()
