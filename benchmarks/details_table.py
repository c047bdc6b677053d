"""The table of docs/implementation-details.md: `readme.py` writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from stored import estimate

from ppo_jax.apps.reproduce import comparison, scoring, specs

SUITE = "implementation-details"
# What three papers report, by variant, in words of ours. E: Engstrom et al. 2020. A: Andrychowicz
# et al. 2021, with their decision (C47) or section. H: Huang et al. 2022, with their detail. H was
# read itself; E and A in quotations of H and others, with the table or figure. An entry that no
# text supports is left out.
PUBLISHED = {
    "one-environment": "H core 1: several at once; the official program takes 1 on MuJoCo. "
    "A C1, in H: 256 are faster and score less",
    "no-orthogonal-init": "E figure 1: needed for the highest reward of their grid. A 3.2: the "
    "last policy layer 100 times smaller; the rest matters little",
    "adam-epsilon-1e-8": "H core 3: 1e-5 in the official program; A took 1e-7, E 1e-8; no effect "
    "is reported",
    "no-learning-rate-annealing": "E figure 1: needed for the highest reward of their grid. A C31: "
    "better on 4 of 5 tasks, by little but on Ant (15%)",
    "no-gae": "A C6, C8: GAE is better than N-step returns; lambda 0.9 is recommended. No number "
    "for lambda 1",
    "one-minibatch": "H core 6: always taking the whole batch is a common mistake; no effect is "
    "reported",
    "no-advantage-normalisation": "A C67: little effect",
    "batch-advantage-normalisation": "H core 7: in minibatches in the official program; no effect "
    "is reported",
    "no-ratio-clipping": "E table 3: Humanoid 831 without the clip, 806 with it. A C14: the "
    "clipped loss is the best on 4 of 5 tasks, compared with other losses",
    "no-value-clipping": "A C13: it hurts at every threshold. E, in H: no evidence that it helps",
    "no-entropy-bonus": "A 3.8: no evidence that it helps, but on HalfCheetah",
    "no-gradient-clipping": "A C68: a small gain, whatever the threshold",
    "shared-torso": "A C47: separate networks are better on 4 of 5 tasks. H core 13: clearly so "
    "on simple tasks",
    "state-dependent-std": "A C59: very close to one vector for all states",
    "tanh-squashing": "A C63: better than clipping, by 30% on HalfCheetah",
    "no-observation-normalisation": "A C64: crucial on all tasks but Hopper",
    "no-reward-scaling": "E figure 1: needed for the highest reward of their grid",
    "relu": "A 3.2: tanh is the best, relu the worst",
    "no-truncation-bootstrap": "H core 5: the official program does not bootstrap there; no "
    "effect is reported",
    "whole-environments-in-minibatches": "A 3.5: shuffle single transitions",
    "one-epoch": "A 3.5: several passes are crucial for few environment steps",
    "clip-annealing": "H auxiliary 1: the official program has it; no effect is reported",
    "kl-stop-0.015": "H auxiliary 3: from modular_rl and Spinning Up; no effect is reported",
    "feed-forward": "–",
    "lstm-learned-start": "H LSTM 2: zero states in the official program; no effect is reported",
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
    unknown, marked = [], 0
    for claim in suite.claims:
        judged = scoring.judge(suite, rows, claim)
        if judged.difference is None:
            unknown.append(f"`{claim.lower}`")
            continue
        sides = [scoring.scores_of(suite, rows, name) for name in (claim.higher, claim.lower)]
        cells = [_loss(sides, task) for task in tasks]
        low, high = judged.ci95 or (np.nan, np.nan)
        excludes_0 = bool(low > 0 or high < 0)
        marked += excludes_0
        found = estimate(judged.difference, judged.ci95, "+.2f", bold=excludes_0)
        lines.append(
            f"| `{claim.lower}` | {found} | {' | '.join(cells)} | {PUBLISHED[claim.lower]} |"
        )
    whole = next((v for v in scoring.variants(suite, rows) if v.name == "all"), None)
    scores = ", ".join(f"{t} {s:.2f}" for t, s in whole.per_task.items()) if whole else "–"
    known = len(suite.claims) - len(unknown)
    missing = f" Without a result yet: {', '.join(unknown)}." if unknown else ""
    odds = (
        f" {known} of {len(suite.claims)} changes have a result. {marked} intervals exclude 0; "
        f"without any effect about {0.05 * known:.1f} of {known} would. There is no correction "
        "for that."
    )
    return "\n".join(
        [
            *lines,
            "",
            "A positive number is what the change costs, in normalised scores: 0 is a random "
            "policy, 1 the best known return. Bold: the interval excludes 0. `feed-forward` and "
            "`lstm-learned-start` are compared with an LSTM on CartPole without velocities, all "
            f"others with `all`, which scores {scores}.{odds}{missing} {'; '.join(machines)}. "
            f"Every seed, setting and curve: [{folder.name}]({address}/README.md). "
            "Again: `ppo-jax reproduce implementation-details`.",
        ]
    )


def _loss(sides: Sequence[dict[str, np.ndarray] | None], task: str) -> str:
    """Mean loss on one task."""
    first, second = sides
    if first is None or second is None or task not in first or task not in second:
        return "–"
    return f"{first[task].mean() - second[task].mean():+.2f}"
