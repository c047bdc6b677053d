"""Verdicts, scores at the end of training, normalised scores and claims against hand-made cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from ppo_jax.analysis import verdicts
from ppo_jax.apps.reproduce import references, scoring, specs
from ppo_jax.apps.reproduce.cells import Cell
from ppo_jax.apps.reproduce.specs import Claim, Suite

SUITE = """
[defaults]
seeds = 4
[[task]]
name = "CartPole-v1"
random = 20.0
best = 500.0
[[task]]
name = "Pendulum-v1"
random = -1200.0
best = -200.0
[[variant]]
name = "good"
[[variant]]
name = "bad"
"""
ZOO = {"table_id": "classic_rl_zoo", "env": "Pendulum", "algorithm": "PPO"}  # -172.2


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Suite:
    path: Path = tmp_path_factory.mktemp("suite") / "two.toml"
    path.write_text(SUITE, "utf-8")
    return specs.load(str(path))


def content(scores: list[float | None]) -> dict[str, Any]:
    return {"seeds": [{"seed": i, "score": score} for i, score in enumerate(scores)]}


def published_cell(suite: Suite, **changes: Any) -> Cell:
    published = (references.find(ZOO, "test"),)
    return suite.cells[2]._replace(published=published, **changes)


def test_last_episodes_takes_whole_iterations_from_the_end():
    returns, counts = [50.0, 6.0, 30.0, 8.0], [10, 2, 3, 2]
    assert scoring.last_episodes(returns, counts, 2) == 4.0  # 8 / 2
    assert scoring.last_episodes(returns, counts, 3) == 38.0 / 5
    assert scoring.last_episodes(returns, counts, 6) == 44.0 / 7
    assert scoring.last_episodes(returns, counts, 1000) == 94.0 / 17


def test_last_episodes_passes_over_iterations_without_an_end():
    assert scoring.last_episodes([4.0, 0.0, 9.0, 0.0], [1, 0, 1, 0], 2) == 6.5
    assert scoring.last_episodes([0.0, 0.0], [0, 0], 100) is None


def test_a_row_is_computed_from_the_seeds_and_from_nothing_else(suite):
    cell = published_cell(suite)
    held = {**content([-150.0, -160.0, -170.0, -400.0]), "iqm": 0.0, "verdict": "reached"}
    row = scoring.measured(cell, held)
    assert row.iqm == -165.0  # the middle two of four
    assert row.mean == -220.0
    assert row.share_reached == 0.75
    # -172.2 lies 7 below, and the margin is 5% of the 1,000 from random to best.
    assert row.compared is not None
    assert row.compared.difference == pytest.approx(-165.0 + 172.2)
    assert row.compared.margin == 50.0
    assert row.verdict.startswith("undecided (")


def test_a_missing_seed_leaves_no_verdict(suite):
    row = scoring.measured(published_cell(suite), content([-500.0, -500.0, -500.0]))
    assert row.verdict == "– (1 seeds missing)"


def test_seeds_beyond_those_asked_for_are_not_counted(suite):
    row = scoring.measured(published_cell(suite, seeds=2), content([1.0, 3.0, 99.0, 99.0]))
    assert row.per_seed == (1.0, 3.0)


def test_failed_seeds_do_not_vanish(suite):
    row = scoring.measured(published_cell(suite), content([None, None, None, None]))
    assert (row.iqm, row.verdict) == (None, "worse (4 of 4 seeds failed)")
    row = scoring.measured(published_cell(suite), content([-100.0, None, -100.0, -100.0]))
    assert row.share_reached == 0.75


@pytest.mark.parametrize("score", [-100.0, -173.0])  # above the published score, and close to it
def test_a_cell_with_a_failed_seed_has_not_reached_anything(suite, score):
    spread = [score - 2.0, score, score, score + 2.0]
    whole = scoring.measured(published_cell(suite), content(list(spread)))
    assert whole.verdict.split()[0] in (verdicts.BETTER, verdicts.EQUAL)
    scores = [None, *spread[1:]]
    row = scoring.measured(published_cell(suite), content(scores))
    assert (row.num_failed, row.verdict) == (1, "worse (1 of 4 seeds failed)")
    quick = scoring.measured(published_cell(suite, is_quick=True), content(scores))
    assert quick.verdict.startswith(scoring.NOT_REACHED_QUICK)


def test_a_quick_run_is_never_worse(suite):
    bad = content([-900.0, -901.0, -902.0, -903.0])
    assert scoring.measured(published_cell(suite), bad).verdict == verdicts.WORSE
    quick = scoring.measured(published_cell(suite, is_quick=True), bad)
    assert quick.verdict == scoring.NOT_REACHED_QUICK


def test_values_shown_without_comparison_have_no_verdict(suite):
    row = scoring.measured(published_cell(suite, compare=False), content([0.0] * 4))
    assert row.verdict == scoring.NO_VERDICT


def test_the_bar_is_the_hardest_score_of_no_more_steps(suite):
    found = references.find(ZOO, "test")
    bars = [found._replace(value=v, env_steps=n) for v, n in ((1.0, 100), (3.0, 900), (2.0, None))]
    assert [each.value for each in references.hardest_first(bars, 100)] == [2.0, 1.0, 3.0]
    assert [each.value for each in references.hardest_first(bars, 900)] == [3.0, 2.0, 1.0]


def test_a_row_says_how_the_published_number_is_unlike_ours(suite):
    cell = published_cell(suite, protocol="sampled", full_env_steps=500_000, unlike="has pictures")
    harder = cell.published[0]._replace(value=-100.0, env_steps=1_000_000)
    assert scoring.remarks(cell._replace(published=(*cell.published, harder))) == (
        "5 times its steps",
        "published deterministic, ours sampled",
        "also published: -100 at 1,000,000 steps",
        "has pictures",
    )
    like = published_cell(suite, protocol="deterministic", full_env_steps=100_352)
    assert scoring.remarks(like) == ()


def rows_of(suite: Suite, scores: dict[str, list[float | None]]) -> list[scoring.Measured]:
    return [
        scoring.measured(cell, content(scores[cell.name]))
        for cell in suite.cells
        if cell.name in scores
    ]


SCORES: dict[str, list[float | None]] = {
    "CartPole-v1/good": [500.0, 500.0, 260.0, 260.0],  # normalised 1, 1, 0.5, 0.5
    "CartPole-v1/bad": [20.0, 20.0, 20.0, 20.0],  # 0
    "Pendulum-v1/good": [-200.0, -200.0, -200.0, -200.0],  # 1
    "Pendulum-v1/bad": [-1200.0, -1700.0, -1700.0, -1200.0],  # 0, -0.5, -0.5, 0
}


def test_normalised_scores_by_hand(suite):
    good, bad = scoring.variants(suite, rows_of(suite, SCORES))
    assert good.name == "good"
    assert good.mean == (0.75 + 1.0) / 2
    assert good.per_task == {"CartPole-v1": 0.75, "Pendulum-v1": 1.0}
    assert good.iqm == 1.0
    assert good.optimality_gap == 0.125
    assert good.num_seeds == 8
    assert bad.mean == -0.125
    # Pendulum does not vary: half of CartPole's standard error, with its three degrees of freedom.
    error = scipy.stats.sem([1.0, 1.0, 0.5, 0.5]) / 2
    assert good.mean_ci95 == pytest.approx(scipy.stats.t.interval(0.95, 3, 0.875, error))


def test_a_variant_that_lacks_a_task_or_a_seed_is_not_averaged(suite):
    without = {name: each for name, each in SCORES.items() if name != "CartPole-v1/good"}
    assert [each.name for each in scoring.variants(suite, rows_of(suite, without))] == ["bad"]
    fewer = {**SCORES, "CartPole-v1/bad": SCORES["CartPole-v1/bad"][:3]}
    assert [each.name for each in scoring.variants(suite, rows_of(suite, fewer))] == ["good"]


def test_failed_seeds_count_as_the_random_policy_or_less(suite):
    failed = {**SCORES, "CartPole-v1/good": [None, 500.0, 500.0, None]}
    good, bad = scoring.variants(suite, rows_of(suite, failed))
    assert good.per_task["CartPole-v1"] == 0.5
    judged = scoring.judge(suite, rows_of(suite, failed), Claim("good", "bad", ""))
    assert judged.difference == good.mean - bad.mean
    assert judged.verdict.endswith("(2 seeds failed)")
    lower = scoring.completed(rows_of(suite, {"CartPole-v1/bad": [None, -478.0]})[0])
    np.testing.assert_allclose(lower, [(-478.0 - 20.0) / 480.0] * 2)


def test_a_claim_is_judged_by_the_difference_and_its_interval(suite):
    rows = rows_of(suite, SCORES)
    right = scoring.judge(suite, rows, Claim("good", "bad", ""))
    assert right.difference == 0.875 + 0.125
    assert (right.probability, right.verdict) == (1.0, verdicts.BETTER)
    wrong = scoring.judge(suite, rows, Claim("bad", "good", ""))
    assert (wrong.difference, wrong.verdict) == (-1.0, verdicts.WORSE)
    assert wrong.ci95 is not None
    assert wrong.ci95[1] < 0
    shown = scoring.judge(suite, rows, Claim("bad", "good", "", compare=False))
    assert (shown.difference, shown.verdict) == (-1.0, scoring.NO_VERDICT)
    assert scoring.judge(suite, rows[:2], Claim("good", "bad", "")).difference is None


def test_a_claim_about_fewer_tasks_compares_those_alone(suite):
    fewer = suite._replace(cells=tuple(c for c in suite.cells if c.name != "CartPole-v1/bad"))
    judged = scoring.judge(fewer, rows_of(fewer, SCORES), Claim("good", "bad", ""))
    pendulum = [scoring.scores_of(suite, rows_of(suite, SCORES), v) for v in ("good", "bad")]
    good, bad = (float(np.mean(scores["Pendulum-v1"])) for scores in pendulum if scores)
    assert judged.difference == good - bad
    assert (
        judged.difference
        != scoring.judge(suite, rows_of(suite, SCORES), Claim("good", "bad", "")).difference
    )


def test_a_regression_is_a_difference_that_chance_does_not_explain(suite):
    cell = suite.cells[0]._replace(seeds=10)
    generator = np.random.default_rng(0)
    stored = scoring.measured(cell, content(list(generator.normal(400.0, 10.0, 10))))
    same = scoring.measured(cell, content(list(generator.normal(398.0, 10.0, 10))))
    worse = scoring.measured(cell, content(list(generator.normal(360.0, 10.0, 10))))
    better = scoring.measured(cell, content(list(generator.normal(440.0, 10.0, 10))))

    def is_regression(row: scoring.Measured) -> bool:
        found = scoring.compare(row, stored)
        assert found is not None
        return found.is_regression

    assert [is_regression(row) for row in (stored, same, worse, better)] == [
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    "new, before, is_regression",
    [
        ([None] * 10, [500.0] * 10, True),
        ([None] * 9 + [500.0], [500.0] * 10, True),
        ([None] + [500.0] * 9, [500.0] * 10, True),
        ([None] + [500.0] * 9, [None] + [500.0] * 9, False),
        ([500.0] * 10, [None] + [500.0] * 9, False),
        ([None] * 3, [None] * 4 + [500.0] * 6, True),  # fewer seeds, of which none has a score
        ([None] * 9 + [500.0], [None] * 9 + [500.0], None),  # one score a side has no interval
        ([500.0] * 10, [None] * 10, None),
        ([], [500.0] * 10, None),
    ],
)
def test_more_failed_seeds_than_stored_are_a_regression(suite, new, before, is_regression):
    cell = suite.cells[0]._replace(seeds=10)
    rows = [scoring.measured(cell, content(scores)) for scores in (new, before)]
    found = scoring.compare(*rows)
    assert (None if found is None else found.is_regression) is is_regression
