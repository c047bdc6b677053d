"""`ppo-jax compare`: its numbers by hand and by scipy, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
from report_page import Page, make_run

from ppo_jax.analysis import ranges, stats
from ppo_jax.apps.report import comparison, write
from ppo_jax.apps.report.comparison import Group
from ppo_jax.cli.main import main
from ppo_jax.config.errors import InputError


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Three runs of CartPole, one of Pendulum, and one that was not evaluated."""
    root = tmp_path_factory.mktemp("runs")
    make_run(root / "a")
    make_run(root / "b", shift=-200.0, seed=7)
    make_run(root / "again", seed=6)
    make_run(root / "c", shift=-0.5)
    make_run(root / "other", env="Pendulum-v1")
    make_run(root / "open")
    (root / "open" / "summary.json").unlink()
    return root


def run(
    env: str,
    scores: Sequence[float | None],
    start: float = 0.0,
    steps: int = 64,
    seed: int = 0,
    episodes: int = 8,
    **changed: Any,
) -> dict[str, Any]:
    summary = {"final_return": stats.summarise(scores), "policy_mode": "deterministic"}
    return {
        "label": f"from seed {seed}",
        "env": env,
        "config": {"total_env_steps": steps},
        "hyper": {"env": changed},
        "options": {"seeds": len(scores), "seed": seed},
        "summary": {**summary, "episodes_per_seed": episodes},
        "env_steps": steps,
        "curve": {"iqm": [None, start]},
    }


def pair(
    ours: Sequence[float | None], theirs: Sequence[float | None], env: str = "CartPole-v1"
) -> dict[str, Any]:
    """Compare `ours` with `theirs`, and return its row."""
    runs = [run(env, theirs), run(env, ours, seed=100)]
    return comparison.compared(runs, [Group("a", (0,)), Group("b", (1,))])["groups"][1]


def test_a_comparison_by_hand() -> None:
    ours, theirs = [9.0, 10.0, 11.0, 12.0], [1.0, 2.0, 3.0, 10.5]
    runs = [run("own", theirs, start=-10.0), run("own", ours, start=-4.0)]
    found = comparison.compared(runs, [Group("a", (0,)), Group("b", (1,))])
    first, second = found["groups"]
    assert second["difference"] == (10.0 + 11.0) / 2 - (2.0 + 3.0) / 2
    expected = scipy.stats.mannwhitneyu(ours, theirs).statistic / 16
    assert second["probability"] == pytest.approx(expected)
    assert {first[name] for name in comparison.NOTHING} == {None}  # nothing to compare it with
    # An environment of the user's own: 5% from the start of training to the best seed.
    assert found["margin"] == pytest.approx(0.05 * (12.0 + 10.0))
    low, high = second["difference_ci95"]
    assert low < 8.0 < high
    known = ranges.ranges()["CartPole-v1"]
    runs = [run("CartPole-v1", theirs), run("CartPole-v1", ours)]
    found = comparison.compared(runs, [Group("a", (0,)), Group("b", (1,))])
    assert found["margin"] == pytest.approx(0.05 * (500.0 - known.random))


def test_the_runs_of_a_group_are_one_sample_and_a_failed_seed_counts_as_the_start() -> None:
    runs = [run("own", [5.0, 6.0]), run("own", [7.0, None], steps=128), run("own", [1.0, 2.0, 3.0])]
    found = comparison.compared(runs, [Group("a", (0, 1)), Group("b", (2,))], margin=0.5)
    assert found["groups"][0]["per_seed"] == [5.0, 6.0, 7.0, None]
    assert found["groups"][0]["num_failed"] == 1
    # Means, and the failed seed is 0: 2 minus 18 / 4. The IQMs are 2 and 5.5.
    assert found["groups"][1]["difference"] == 2.0 - 4.5
    assert found["notes"] == [
        "The runs took 64 to 128 environment steps a seed.",
        "1 seed failed and counted as 0. All differences are those of the means, since an IQM may "
        "leave failed seeds out.",
    ]


def test_failed_seeds_are_never_the_best_return() -> None:
    """At the ceiling the lowest living return is the best one."""
    whole = [500.0] * 10
    random = ranges.ranges()["CartPole-v1"].random
    assert pair([500.0] + [None] * 9, whole)["word"] == "worse"
    one = pair([500.0] * 9 + [None], whole)
    assert one["difference"] == pytest.approx((random - 500.0) / 10)
    assert one["word"] == "undecided"  # 1 of 10 and 0 of 10 may be chance
    assert pair(whole, [500.0] + [None] * 9)["word"] == "better"
    assert pair([None] * 10, whole)["word"] == "worse"
    # Below random actions: the lowest return of all.
    assert pair([5.0, None, 5.0], [5.0, 5.0, 5.0])["difference"] == 0.0
    with pytest.raises(InputError, match="Every seed of every run failed"):
        pair([None, None], [None, None])


def test_a_failed_seed_makes_all_rows_compare_means() -> None:
    runs = [run("own", [1.0, 2.0, 3.0, 10.5]), run("own", [9.0, 10.0, 11.0, 20.0])]
    runs.append(run("own", [5.0, 6.0, 7.0, None]))
    groups = [Group(name, (i,)) for i, name in enumerate("abc")]
    _, second, third = comparison.compared(runs, groups)["groups"]
    assert (second["difference"], third["difference"]) == (12.5 - 4.125, 4.5 - 4.125)


def test_a_range_with_its_own_parameters_is_that_of_runs_with_them() -> None:
    known = ranges.ranges()["brax/reacher"]
    for changed, low in (({"max_steps_in_episode": 50}, known.random), ({}, -40.0)):
        runs = [run("brax/reacher", [-8.0, -9.0], start=-40.0, **changed) for _ in range(2)]
        assert comparison.range_of(runs, [(0,), (1,)])[0] == low


def test_changed_parameters_of_the_environment_have_a_range_of_their_own() -> None:
    runs = [run("CartPole-v1", [20.0] * 4, limit=20), run("CartPole-v1", [10.0] * 4, limit=20)]
    found = comparison.compared(runs, [Group("a", (0,)), Group("b", (1,))])
    assert found["margin"] == pytest.approx(0.05 * 20.0)
    assert found["groups"][1]["word"] == "worse"
    assert found["notes"] == []
    runs[1]["hyper"]["env"]["limit"] = 10
    found = comparison.compared(runs, [Group("a", (0,)), Group("b", (1,))])
    assert found["notes"] == ["The runs' environments have several values of limit."]


def test_the_same_seeds_of_a_setting_are_no_further_evidence() -> None:
    runs = [run("own", [1.0, 2.0]), run("own", [1.0, 2.0], seed=1), run("own", [3.0], seed=3)]
    with pytest.raises(InputError, match="same setting and the same seed 1"):
        comparison.compared(runs, [Group("a", (0, 1)), Group("b", (2,))])
    for i in range(2):
        runs[i]["options"]["init_from"] = f"runs/{i}"  # policies of two other runs
    comparison.compared(runs, [Group("a", (0, 1)), Group("b", (2,))])
    # In two groups they may be: two versions of the program.
    comparison.compared(runs, [Group("a", (0,)), Group("b", (1,))])
    comparison.compared(runs, [Group("a", (1, 2)), Group("b", (0,))])


def test_a_page_compares_failed_runs_and_names_the_groups_that_it_leaves_out() -> None:
    open_ = run("CartPole-v1", [None], seed=9, episodes=0)
    runs = [run("CartPole-v1", [None, None]), run("CartPole-v1", [9.0, 8.0], seed=5), open_]
    found = comparison.by_group(runs, [(0,), (1,), (2,)], [0, 1, 2])
    assert found is not None
    assert [row["num_failed"] for row in found["groups"]] == [2, 0]
    assert found["notes"][-1] == "from seed 9 is left out: it has no final return yet."
    assert comparison.by_group(runs, [(0,), (2,)], [0, 2]) is None


def test_improvement_counts_pairs_of_seeds_and_a_failed_one_is_the_least() -> None:
    runs = [run("e", [1.0, 3.0]), run("e", [2.0, None]), run("e", [None], episodes=0)]
    found = comparison.improvements(runs, [0, 1, 2])
    # 3 beats both, 1 beats the failed one.
    assert found == {"env": "e", "runs": [0, 1], "probability": [[None, 0.75], [0.25, None]]}
    assert comparison.improvements(runs, [0, 2]) is None


def test_the_command_prints_what_its_json_holds(made: Path, capsys) -> None:
    words = ["compare", *(str(made / name) for name in "abc")]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["word"] for row in found["groups"][1:]] == ["worse", "equal"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert f"{found['groups'][1]['difference']:+.4g} [" in text
    assert "5% of the range" in text
    assert main(["compare", f"{made / 'a'},{made / 'b'}", str(made / "c"), "--margin", "1"]) == 0
    text = capsys.readouterr().out
    assert "a, b" in text
    assert "margin    1, as given" in text
    assert main(["compare", "--help"]) == 0
    assert "[default: 5% of" in capsys.readouterr().out


def test_a_report_compares_the_same_groups_as_the_command(made: Path, capsys) -> None:
    words = [f"{made / 'a'},{made / 'b'}", str(made / "c")]
    write.report([*words, str(made / "open")], made / "page.html", animate=False)
    page = Page((made / "page.html").read_text("utf-8"))
    (made / "page.html").unlink()
    assert main(["compare", *words, "--json"]) == 0
    (found,) = page.data["comparisons"]
    assert found.pop("notes") == ["open is left out: it has no final return yet."]
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("notes") == []
    assert found == printed
    assert "minus a, b" in page.text


@pytest.mark.parametrize(
    "names, words",
    [
        (["a"], "needs two runs"),
        (["a", "a"], "named twice"),
        (["a", "none"], "is no run's folder"),
        (["a", "other"], "several environments (CartPole-v1, Pendulum-v1)"),
        (["a", "open"], "has no final return yet"),
        (["a,again", "b"], "same setting and the same seed 6"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_sentence(
    made: Path, capsys, names: list[str], words: str
) -> None:
    groups = [",".join(str(made / name) for name in group.split(",")) for group in names]
    assert main(["compare", *groups]) == 2
    assert words in capsys.readouterr().err
    assert main(["compare", ",", str(made / "a")]) == 2
    assert "A group without a run is named" in capsys.readouterr().err
