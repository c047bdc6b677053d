"""The defaults of `train`, chosen by a study, and optimisers beside Adam.

    python benchmarks/defaults.py defaults      # candidates on 11 unlike tasks
    python benchmarks/defaults.py defaults --env-steps 500000    # the same on the default budget
    python benchmarks/defaults.py optimizers    # Adam, AdamW, Muon on six of them, three rates each

Candidates train on seeds from 100 on. The two best by the IQM of normalised scores over tasks and
seeds (random policy 0, best known 1), and the default of that time, then train on seeds from 0 on.
The difference has a bootstrap that is stratified by task. Both stages are suites of `ppo-jax
reproduce`, so a second start goes on. `results/STUDY_cpu_DATE/` has them, and its `summary.json`
their comparison. The study of the defaults also measures the error of the gain that is learnt on
the linear-quadratic task.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import study_tasks

import ppo_jax
from ppo_jax.analysis import ranges, stats, verdicts
from ppo_jax.apps.reproduce import specs
from ppo_jax.apps.reproduce.running import Request, reproduce
from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.distributed.layout import local_devices
from ppo_jax.models.agent import acting_policy, assemble
from ppo_jax.rl.types import Window
from ppo_jax.storage.manifest import make_manifest

RESULTS = Path(os.path.relpath(Path(__file__).resolve().parent / "results"))
STEPS = 50_000
# Seeds of the choice and of the comparison. A program's members are variants x seeds. Their number
# is the same in both stages, so both share one compiled program.
SEEDS = {"defaults": (4, 10), "optimizers": (4, 12)}
LQ = "study_tasks:LinearQuadratic"

# name: (kind, random, best, other entries of the suite's task). None: the numbers of ranges.csv.
TASKS: dict[str, tuple[str, float | None, float | None, dict[str, Any]]] = {
    LQ: ("linear-quadratic", -21.829, -2.855, {}),
    "CartPole-v1": ("dense, long episodes", None, None, {}),
    "Acrobot-v1": ("sparse, long episodes", None, None, {}),
    "Pendulum-v1": ("dense, real actions", None, None, {}),
    "Reacher-misc": ("dense, two real actions", None, None, {}),
    "FourRooms-misc": ("sparse", None, None, {}),
    "DiscountingChain-bsuite": ("long delays", None, None, {}),
    "Catch-bsuite": ("pixels, short episodes", None, None, {}),
    "study_tasks:ManyActions": ("64 actions, short episodes", 1 / 64, 1.0, {}),
    "BernoulliBandit-misc": ("bandit", None, None, {}),
    "memory/RepeatPrevious-v0": (
        "memory", -0.5, 1.0, {"config": {"memory": "gru", "memory_size": 32}}
    ),
}  # fmt: skip

# name: entries of the suite's variant. `today` was the default when the study ran.
CANDIDATES: dict[str, dict[str, Any]] = {
    "today": {"hyper": {"learning_rate": 3e-4}},
    "1e-3": {"hyper": {"learning_rate": 1e-3}},
    "annealed": {"hyper": {"learning_rate": "3e-4:0"}},
    "annealed 1e-3": {"hyper": {"learning_rate": "1e-3:0"}},
    "annealed 1e-3, entropy": {"hyper": {"learning_rate": "1e-3:0", "entropy_coef": 0.01}},
    "annealed 3e-3": {"hyper": {"learning_rate": "3e-3:0"}},
    "annealed 3e-3, entropy": {"hyper": {"learning_rate": "3e-3:0", "entropy_coef": 0.01}},
    "annealed 1e-3, entropy, normalised": {
        "config": {"normalize_observations": True},
        "hyper": {"learning_rate": "1e-3:0", "entropy_coef": 0.01},
    },
    "annealed 3e-3, entropy, normalised": {
        "config": {"normalize_observations": True},
        "hyper": {"learning_rate": "3e-3:0", "entropy_coef": 0.01},
    },
    "annealed 1e-3, entropy, LeCun": {
        "config": {"orthogonal_init": False},
        "hyper": {"learning_rate": "1e-3:0", "entropy_coef": 0.01},
    },
}
FINALISTS = 2  # candidates that are compared with `today`

# Start and end of the step size, for the gain of the linear-quadratic task.
GAIN_RATES = {
    "3e-4": (3e-4, 3e-4), "3e-4:0": (3e-4, 0.0), "1e-3": (1e-3, 1e-3), "1e-3:0": (1e-3, 0.0),
    "3e-3:0": (3e-3, 0.0),
}  # fmt: skip
GAIN_SEEDS = 5

OPTIMIZER_TASKS = (
    *(LQ, "CartPole-v1", "Acrobot-v1", "Pendulum-v1", "Reacher-misc", "Catch-bsuite"),
)
# All anneal to 0. A step of Adam moves each weight by about the rate; one of Muon moves a matrix of
# 64 x 64 by an eighth of it (orthogonal columns), so its rates are larger.
OPTIMIZERS: dict[str, tuple[dict[str, float], tuple[float, ...]]] = {
    "adam": ({}, (1e-3, 3e-3, 1e-2)),
    "adamw": ({"weight_decay": 0.01}, (1e-3, 3e-3, 1e-2)),
    "muon": ({"momentum": 0.95}, (1e-2, 3e-2, 1e-1)),
}

Groups = dict[str, list[tuple[str, dict[str, Any]]]]  # name and entry of each variant, by group
Scores = dict[str, dict[str, list[float]]]  # variant -> task -> normalised score of each seed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", choices=("defaults", "optimizers"))
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d"), help="of the results' folder")
    parser.add_argument("--env-steps", type=int, default=STEPS)
    given = parser.parse_args()
    name = given.study + ("-long" if given.env_steps > STEPS else "")
    plan = Plan(RESULTS / f"{name}_cpu_{given.date}", SEEDS[given.study], given.env_steps)
    if given.study == "defaults":
        groups = {name: [(name, entry)] for name, entry in CANDIDATES.items()}
        study(plan, list(TASKS), groups)
    else:
        study(plan, list(OPTIMIZER_TASKS), optimizer_variants())


class Plan(NamedTuple):
    out: Path
    seeds: tuple[int, int]  # of the choice and of the comparison
    env_steps: int

    @property
    def command(self) -> str:
        name = self.out.name.partition("_")[0]
        steps = "" if self.env_steps == STEPS else f" --env-steps {self.env_steps}"
        return f"python benchmarks/defaults.py {name.partition('-')[0]}{steps}"


def optimizer_variants() -> Groups:
    """The variants of each optimiser, one for each rate; all anneal it to 0."""
    return {
        name: [
            (
                f"{name} {rate:g}",
                {
                    "config": {"optimizer": name},
                    "hyper": {**numbers, "learning_rate": f"{rate:g}:0"},
                },
            )
            for rate in rates
        ]
        for name, (numbers, rates) in OPTIMIZERS.items()
    }


def study(plan: Plan, tasks: list[str], groups: Groups) -> None:
    """Choose on seeds from 100 on, compare on seeds from 0 on, and write the summary.

    Args:
        groups: variants by group; the best of each group is chosen. The first group is the one that
            the others are compared with. Groups of one variant each compete for one place.
    """
    out, seeds = plan.out, plan.seeds
    every = dict(variant for group in groups.values() for variant in group)
    chosen_by = stage(plan, "choice", tasks, every)
    first, *others = groups
    if all(len(group) == 1 for group in groups.values()):
        ranked = sorted(others, key=lambda name: -_iqm(chosen_by[name]))
        finalists = [first, *ranked[:FINALISTS]]
    else:
        finalists = [
            max((name for name, _ in group), key=lambda name: _iqm(chosen_by[name]))
            for group in groups.values()
        ]
    final = stage(plan, "final", tasks, {name: every[name] for name in finalists})
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "env_steps": plan.env_steps,
        "command": plan.command,
        "tasks": {name: TASKS[name][0] for name in tasks},
        "choice_seeds": [100, 99 + seeds[0]],
        "seeds": [0, seeds[1] - 1],
        **judged(chosen_by, final),
        "manifest": make_manifest(local_devices()),
    }
    write(out, record)
    if len(tasks) == len(TASKS):
        record["gains"] = {f"{plan.env_steps:,}": gain_errors(plan.env_steps)}
        write(out, record)
    print(json.dumps({k: record[k] for k in ("final", "differences")}, indent=1))


def judged(chosen_by: Scores, final: Scores) -> dict[str, Any]:
    """Compare both stages; the first finalist is the one that all are compared with."""
    first, *others = final
    return {
        "choice": {name: summary(scores) for name, scores in chosen_by.items()},
        "choice_differences": {
            name: compared(scores, chosen_by[first])["all tasks, IQM"]
            for name, scores in chosen_by.items()
        },
        "final": {name: summary(scores) for name, scores in final.items()},
        "differences": {name: compared(final[name], final[first]) for name in others},
    }


def write(out: Path, record: dict[str, Any]) -> None:
    """Write the summary of a study."""
    (out / "summary.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def stage(plan: Plan, name: str, tasks: list[str], variants: dict[str, dict[str, Any]]) -> Scores:
    """Train variants on tasks as a suite, and return the normalised scores.

    Args:
        name: choice (on seeds from 100 on) or final (from 0 on).
    """
    known, folder = ranges.ranges(), plan.out / name
    first, seeds = (100, plan.seeds[0]) if name == "choice" else (0, plan.seeds[1])
    lines = [f'title = "{plan.out.name}: {name}"', f'again = "{plan.command}"', "[defaults]"]
    lines += [f"seeds = {seeds}", f"first_seed = {first}", f"total_env_steps = {plan.env_steps}"]
    lines += ['protocol = "training"', "episodes = 64"]
    for task in tasks:
        kind, random, best, more = TASKS[task]
        entry = {
            "name": task, "note": kind, **more,
            "random": known[task].random if random is None else random,
            "best": known[task].best if best is None else best,
        }  # fmt: skip
        lines += ["[[task]]", *toml(entry)]
    for variant, entry in variants.items():
        lines += ["[[variant]]", *toml({"name": variant, **entry})]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f"{folder.name}.toml"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    suite = specs.load(str(path))
    found = reproduce(Request((suite,), out=str(folder)), lambda line: print(line, flush=True))
    if found.exit_code:
        raise SystemExit(found.exit_code)
    return stored_scores(folder, suite)


def stored_scores(folder: Path, suite: specs.Suite) -> Scores:
    """Read the normalised scores of a stage."""
    cells = json.loads((folder / "summary.json").read_text("utf-8"))["cells"]
    per_seed = {each["cell"]: each["per_seed"] for each in cells}
    scores: Scores = {cell.variant: {} for cell in suite.cells}
    for cell in suite.cells:
        assert cell.random is not None
        assert cell.best is not None
        width = cell.best - cell.random
        scores[cell.variant][cell.task] = [
            0.0 if value is None else (value - cell.random) / width  # a failed seed is as random
            for value in per_seed[cell.name]
        ]
    return scores


def toml(entry: dict[str, Any]) -> list[str]:
    """Lines of a table; inner tables are inline."""
    return [f"{key} = {_toml(value)}" for key, value in entry.items()]


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(toml(value)) + " }"
    return json.dumps(value)


def _iqm(scores: dict[str, list[float]]) -> float:
    return float(stats.iqm(np.concatenate([np.array(each) for each in scores.values()])))


def summary(scores: dict[str, list[float]]) -> dict[str, Any]:
    """IQM over tasks and seeds with its interval, and the mean of each task."""
    interval = stats.stratified_interval(
        [np.array(each) for each in scores.values()],
        stats.iqm,
        generator=np.random.default_rng(0),
    )
    return {
        "iqm": _iqm(scores),
        "ci95": interval,
        "mean": float(np.mean([np.mean(each) for each in scores.values()])),
        "tasks": {name: float(np.mean(each)) for name, each in scores.items()},
    }


def compared(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> dict[str, Any]:
    """Difference of the IQMs over all tasks, and of the means of each task, with intervals."""
    pairs = {name: (np.array(ours[name]), np.array(theirs[name])) for name in ours}

    def verdict(names: list[str], statistic: Any) -> dict[str, Any]:
        sides = ([pairs[name][i] for name in names] for i in (0, 1))
        found = verdicts.between(*sides, verdicts.MARGIN, statistic)
        words = verdicts.described(found)
        return {"difference": found.difference, "ci95": found.ci95, "verdict": words}

    return {
        "all tasks, IQM": verdict(list(pairs), stats.iqm),
        "all tasks, mean": verdict(list(pairs), np.mean),
        **{name: verdict([name], np.mean) for name in pairs},
    }


def gain_errors(steps: int) -> dict[str, Any]:
    """Error of the learnt gain in percent of the optimal one, by schedule of the step size.

    The gain is the slope of the policy's mean on the square of the starts, by least squares.
    """
    best = study_tasks.riccati_gain(Hyper().gamma)
    gains = learnt_gains(steps)
    errors = 100 * np.linalg.norm(gains - best, axis=-1) / np.linalg.norm(best)
    found = {
        name: {"gains": own.tolist(), **stats.summarise(error.tolist())}
        for name, own, error in zip(GAIN_RATES, gains, errors, strict=True)
    }
    return {"optimal": best[0].tolist(), "seeds": GAIN_SEEDS, "rates": found}


def learnt_gains(steps: int) -> np.ndarray:
    """Gains [rates, GAIN_SEEDS, 2] after trainings of seeds from 0 on, side by side."""
    config = Config(env=LQ, total_env_steps=steps)
    agent = assemble(config)
    axis = np.linspace(-1.0, 1.0, 9)
    x = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)

    def means(rate: jax.Array, key: jax.Array) -> jax.Array:
        hyper = Hyper(learning_rate=Schedule(rate[0], rate[1]))
        state, _ = ppo_jax.train(config, hyper, key)
        policy = acting_policy(config, agent, state.params, state.observation_moments)
        found = agent.network.policy(state.params, Window(policy.see(jnp.asarray(x, jnp.float32))))
        return agent.family.mode(found)

    pairs = [(rate, seed) for rate in GAIN_RATES.values() for seed in range(GAIN_SEEDS)]
    rates = jnp.asarray([rate for rate, _ in pairs])
    keys = jax.vmap(jax.random.key)(np.array([seed for _, seed in pairs]))
    actions = np.asarray(jax.jit(jax.vmap(means))(rates, keys), np.float64)
    actions = np.clip(actions.reshape(len(pairs), -1), -5.0, 5.0)
    gains = [-np.linalg.lstsq(x, each, rcond=None)[0] for each in actions]
    return np.stack(gains).reshape(len(GAIN_RATES), GAIN_SEEDS, 2)


if __name__ == "__main__":
    main()
