"""The table of docs/implementation-details.md: `readme.py` writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ppo_jax.apps.reproduce import comparison, scoring, specs

SUITE = "implementation-details"
# What three papers report, by variant: words of ours, not theirs. E: Engstrom et al. 2020. A:
# Andrychowicz et al. 2021, "What matters in on-policy reinforcement learning?". H: Huang et al.
# 2022, who list details and reproduce scores, and ablate few.
PUBLISHED = {
    "one-environment": "H: part of the official program",
    "no-orthogonal-init": "E: the start of the weights matters. A: small weights of the policy's "
    "last layer matter, the rest of the start little",
    "adam-epsilon-1e-8": "H: 1e-5 in the official program",
    "no-learning-rate-annealing": "E: annealing matters. A: it helps a little",
    "no-gae": "A: lambda 0.9 to 0.95, better than 1",
    "one-minibatch": "H: part of the official program",
    "no-advantage-normalisation": "A: little effect",
    "batch-advantage-normalisation": "A: little effect",
    "no-ratio-clipping": "E: no loss on Humanoid (831 without, 806 with the clip). A: the clip is "
    "the best of the losses",
    "no-value-clipping": "A: the value clip hurts. E: part of a bundle, see below",
    "no-entropy-bonus": "A: no regulariser helps much",
    "no-gradient-clipping": "A: the clip of the norm has a small effect",
    "shared-torso": "A: separate networks are better. H: the same on CartPole",
    "state-dependent-std": "H: one vector for all states in the official program",
    "tanh-squashing": "A: tanh is better than clipping",
    "no-observation-normalisation": "A: crucial on all tasks but one",
    "no-reward-scaling": "E: it matters",
    "relu": "A: tanh is better than relu",
    "no-truncation-bootstrap": "A: little effect with limits of 1,000 steps",
    "whole-environments-in-minibatches": "A: transitions shuffled one by one are better",
    "one-epoch": "A: several passes are important",
    "clip-annealing": "H: an option of the official program that its scores do not use",
    "kl-stop-0.015": "H: as in Spinning Up",
    "feed-forward": "–",
    "lstm-learned-start": "H: zero states in the official program",
}


def table(folder: Path, address: str) -> str:
    """Effect of each detail on each task that has a result, and on all of these.

    Args:
        address: of the folder, in the document.
    """
    suite = specs.load(SUITE)
    rows, _, machines = comparison.measured_rows(folder, suite)
    measured = {row.cell.name for row in rows}
    suite = suite._replace(cells=tuple(c for c in suite.cells if c.name in measured))
    tasks = list(dict.fromkeys(cell.task for cell in suite.cells if cell.task[:7] != "memory/"))
    names = [task.split("-")[0] for task in tasks]
    lines = [
        f"| changed | loss, all tasks shown [95%] | {' | '.join(names)} | published |",
        "|---|---|" + "---|" * len(tasks) + "---|",
    ]
    unknown = []
    for claim in suite.claims:
        judged = scoring.judge(suite, rows, claim)
        if judged.difference is None:
            unknown.append(f"`{claim.lower}`")
            continue
        sides = [scoring.scores_of(suite, rows, name) for name in (claim.higher, claim.lower)]
        cells = [_loss(sides, task) for task in tasks]
        low, high = judged.ci95 or (np.nan, np.nan)
        mark = "**" if low > 0 or high < 0 else ""
        found = f"{mark}{judged.difference:+.2f}{mark} [{low:+.2f}, {high:+.2f}]"
        lines.append(
            f"| `{claim.lower}` | {found} | {' | '.join(cells)} | {PUBLISHED[claim.lower]} |"
        )
    whole = next((v for v in scoring.variants(suite, rows) if v.name == "all"), None)
    scores = ", ".join(f"{t} {s:.2f}" for t, s in whole.per_task.items()) if whole else "–"
    missing = f" Without a result yet: {', '.join(unknown)}." if unknown else ""
    return "\n".join(
        [
            *lines,
            "",
            "A positive number is what the change costs, in normalised scores: 0 is a random "
            "policy, 1 the best known return. Bold: the interval excludes 0. `feed-forward` and "
            "`lstm-learned-start` are compared with an LSTM on CartPole without velocities, all "
            f"others with `all`, which scores {scores}.{missing} {'; '.join(machines)}. Every "
            f"seed, setting and curve: [{folder.name}]({address}/README.md). "
            "Again: `ppo-jax reproduce implementation-details`.",
        ]
    )


def _loss(sides: Sequence[dict[str, np.ndarray] | None], task: str) -> str:
    """Mean loss on one task."""
    first, second = sides
    if first is None or second is None or task not in first or task not in second:
        return "–"
    return f"{first[task].mean() - second[task].mean():+.2f}"
