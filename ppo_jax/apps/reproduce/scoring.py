"""Scores, verdicts, normalised scores and claims of a table, from the returns of each seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ppo_jax.analysis import means, ranges, stats, verdicts
from ppo_jax.analysis.verdicts import Verdict
from ppo_jax.apps.reproduce.cells import Cell
from ppo_jax.apps.reproduce.specs import Claim, Suite

NOT_REACHED_QUICK = "not reached (quick)"
NO_VERDICT = "–"
RESAMPLES = 2000
CHECK_CONFIDENCE = 0.99  # for `--check`: it compares many cells, and chance must not fail them


class Measured(NamedTuple):
    """One cell's scores."""

    cell: Cell
    per_seed: tuple[float | None, ...]  # in the order of the seeds; None for a seed that failed
    iqm: float | None
    mean: float | None
    ci95: tuple[float, float] | None
    verdict: str  # in words
    compared: Verdict | None  # with the first published score
    remarks: tuple[str, ...]  # reasons why the published score is unlike ours
    share_reached: float | None  # share of the seeds that reach the published score alone

    @property
    def known(self) -> list[float]:
        return [score for score in self.per_seed if score is not None]

    @property
    def num_failed(self) -> int:
        return len(self.per_seed) - len(self.known)


def last_episodes(returns: Any, counts: Any, episodes: int) -> float | None:
    """Mean return of the last episodes of a training, None if none ended.

    Iterations are taken from the last one back until they hold `episodes` episodes. All episodes of
    these iterations count, so there may be a few more.

    Args:
        returns, counts: [I], sum of the returns and number of the episodes that ended in each
            iteration.
    """
    held = np.cumsum(np.asarray(counts, np.float64)[::-1])
    if not held.size or held[-1] == 0:
        return None
    taken = min(int(np.searchsorted(held, episodes)) + 1, held.size)
    return float(np.asarray(returns, np.float64)[-taken:].sum() / held[taken - 1])


def measured(cell: Cell, content: Mapping[str, Any]) -> Measured:
    """Make a cell's row from the returns of the seeds asked for; further seeds are ignored."""
    seeds = sorted(content["seeds"], key=lambda each: each["seed"])
    per_seed = tuple(each["score"] for each in seeds if each["seed"] in wanted_seeds(cell))
    scores = stats.summarise(per_seed, limits=ranges.limits(cell.config.env, cell.hyper.env))
    published = cell.published[0].value if cell.published else None
    words, share, compared = NO_VERDICT, None, None
    if published is not None:
        least = published - verdicts.rounding(published)
        compared = verdicts.against(per_seed, published, margin_of(cell))
        share = float(np.mean([s is not None and s >= least for s in per_seed] or [0.0]))
    if compared is not None and cell.compare:
        words = said(compared, cell.is_quick)
        if len(per_seed) < cell.seeds:
            words = f"{NO_VERDICT} ({cell.seeds - len(per_seed)} seeds missing)"
        elif scores["num_failed"]:
            words += f" ({scores['num_failed']} of {len(per_seed)} seeds failed)"
    return Measured(
        cell=cell,
        per_seed=per_seed,
        iqm=scores["iqm"],
        mean=scores["mean"],
        ci95=None if scores["ci95"] is None else tuple(scores["ci95"]),
        verdict=words,
        compared=compared,
        remarks=remarks(cell),
        share_reached=share,
    )


def said(compared: Verdict, is_quick: bool) -> str:
    """A verdict in words; a smaller budget than the published one is never worse."""
    if not is_quick:
        return verdicts.described(compared)
    is_worse = compared.word == verdicts.WORSE
    return NOT_REACHED_QUICK if is_worse else f"{compared.word} (quick)"


def margin_of(cell: Cell) -> float:
    """Margin of equality: 5% of the range from random to best, of the cell or of ranges.csv."""
    known = ranges.ranges().get(cell.config.env)
    random = cell.random if cell.random is not None or known is None else known.random
    best = cell.best if cell.best is not None or known is None else known.best
    return verdicts.margin_of(random, best)


def remarks(cell: Cell) -> tuple[str, ...]:
    """List why the published score is unlike ours: steps, protocol, harder ones, the task."""
    if not cell.published:
        return ()
    first, found = cell.published[0], []
    if first.env_steps is not None and not cell.is_quick:
        ratio = cell.full_env_steps / first.env_steps
        found += [f"{ratio:.2g} times its steps"] if not 0.67 < ratio < 1.5 else []
    if first.policy_mode not in (cell.protocol, "unknown"):
        found.append(f"published {first.policy_mode}, ours {cell.protocol}")
    for each in cell.published[1:]:
        if each.value is not None and (first.value is None or each.value > first.value):
            found.append(f"also published: {each.value:g} at {each.env_steps:,} steps")
    return tuple(dict.fromkeys([*found, *([cell.unlike] if cell.unlike else [])]))


def wanted_seeds(cell: Cell) -> range:
    return range(cell.first_seed, cell.first_seed + cell.seeds)


def normalised(cell: Cell, scores: Sequence[float]) -> np.ndarray:
    """Normalise scores: 0 for the random policy, 1 for the best known return; not clipped.

    Raises:
        ValueError: the cell has no constants to normalise with.
    """
    if cell.random is None or cell.best is None:
        raise ValueError(f"{cell.full_name} has no constants to normalise with.")
    return (np.asarray(scores, np.float64) - cell.random) / (cell.best - cell.random)


class Variant(NamedTuple):
    """One variant over all tasks, in normalised scores."""

    name: str
    tasks: tuple[str, ...]
    num_seeds: int  # sum over all tasks
    mean: float  # over tasks and seeds alike, as in the paper
    mean_ci95: tuple[float, float] | None
    iqm: float
    iqm_ci95: tuple[float, float] | None
    optimality_gap: float
    per_task: dict[str, float]  # mean over seeds


def variants(suite: Suite, rows: Sequence[Measured]) -> list[Variant]:
    """Summarise each variant that has a score on every task, in the order of the suite."""
    found = []
    for name in dict.fromkeys(cell.variant for cell in suite.cells):
        groups = scores_of(suite, rows, name)
        if groups is None:
            continue
        flat = np.concatenate(list(groups.values()))
        scores = list(groups.values())
        resampled = stats.stratified_interval(
            scores, resamples=RESAMPLES, generator=np.random.default_rng(0)
        )
        found.append(
            Variant(
                name=name,
                tasks=tuple(groups),
                num_seeds=flat.size,
                mean=float(flat.mean()),
                mean_ci95=means.interval(scores),
                iqm=float(stats.iqm(flat)),
                iqm_ci95=resampled,
                optimality_gap=float(stats.optimality_gap(flat)),
                per_task={task: float(group.mean()) for task, group in groups.items()},
            )
        )
    return found


def scores_of(suite: Suite, rows: Sequence[Measured], variant: str) -> dict[str, np.ndarray] | None:
    """Normalised scores of a variant by task; None unless every seed of every task was run.

    A failed seed counts as the random policy, or as the lowest score of its task if that is less.
    """
    tasks = dict.fromkeys(cell.task for cell in suite.cells if cell.variant == variant)
    found = {
        row.cell.task: completed(row)
        for row in rows
        if row.cell.variant == variant and 0 < row.cell.seeds == len(row.per_seed)
    }
    if not tasks or set(found) != set(tasks):
        return None
    return {task: found[task] for task in tasks}


def completed(row: Measured) -> np.ndarray:
    """Normalised scores of all seeds of a cell, the failed ones at the end."""
    scores = normalised(row.cell, row.known)
    return np.append(scores, np.full(row.num_failed, min([0.0, *scores])))


class Judged(NamedTuple):
    """A published order of two variants, and our measurement of it."""

    claim: Claim
    difference: float | None  # between the mean normalised scores
    ci95: tuple[float, float] | None
    probability: float | None  # a run of the first beats one of the second; mean over tasks
    verdict: str  # in words
    seeds_needed: int | None = None  # seeds a task that would decide, if undecided


def judge(suite: Suite, rows: Sequence[Measured], claim: Claim) -> Judged:
    """Judge a claim by the interval of the difference: it holds if the first side is better.

    Only the tasks of both sides count.
    """
    first, second = (scores_of(suite, rows, name) for name in (claim.higher, claim.lower))
    tasks = [task for task in first or () if task in (second or ())]
    if first is None or second is None or not tasks:
        return Judged(claim, None, None, None, f"{NO_VERDICT} (not measured)")
    sides = [first[task] for task in tasks], [second[task] for task in tasks]
    found = verdicts.between(*sides, verdicts.MARGIN, np.mean)
    chances = [stats.probability_of_improvement(*pair) for pair in zip(*sides, strict=True)]
    probability = float(np.mean(chances))
    is_quick = any(row.cell.is_quick for row in rows)
    words = said(found, is_quick) if claim.compare else NO_VERDICT
    sides_of = {claim.higher, claim.lower}
    failed = sum(row.num_failed for row in rows if row.cell.variant in sides_of)
    words += f" ({failed} seed{'s' * (failed > 1)} failed)" if failed else ""
    return Judged(claim, found.difference, found.ci95, probability, words, found.seeds_needed)


class Compared(NamedTuple):
    """New results of a cell beside stored ones of the same class of machine."""

    cell: Cell
    stored_iqm: float
    iqm: float | None  # None if every seed failed
    stored_num_failed: int
    num_failed: int
    difference_ci99: tuple[float, float] | None  # from the surviving seeds
    is_regression: bool


def compare(new: Measured, stored: Measured) -> Compared | None:
    """Check whether the new scores are worse than chance explains; None if that is undecidable.

    A regression is a difference of the IQMs whose 99% interval lies below 0. More failed seeds than
    in the stored result are one, too, and so is a failure of all new seeds. The question is
    undecidable if the new side has no seed or the stored side no score. It is also undecidable if a
    side has fewer than two scores and no more seeds failed.
    """
    if not new.per_seed or stored.iqm is None:
        return None
    interval = stats.difference_interval(
        [new.known],
        [stored.known],
        confidence=CHECK_CONFIDENCE,
        resamples=RESAMPLES,
        generator=np.random.default_rng(0),
    )
    tolerance = 1e-4 * max(1.0, abs(stored.iqm))
    has_failed = new.iqm is None or new.num_failed > stored.num_failed
    if interval is None and not has_failed:
        return None
    return Compared(
        cell=new.cell,
        stored_iqm=stored.iqm,
        iqm=new.iqm,
        stored_num_failed=stored.num_failed,
        num_failed=new.num_failed,
        difference_ci99=interval,
        is_regression=has_failed or (interval is not None and interval[1] < -tolerance),
    )
