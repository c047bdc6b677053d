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


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Three runs of CartPole, one of Pendulum, and one that was not evaluated."""
    root = tmp_path_factory.mktemp("runs")
    make_run(root / "a")
    make_run(root / "b", shift=-200.0)
    make_run(root / "c", shift=-0.5)
    make_run(root / "other", env="Pendulum-v1")
    make_run(root / "open")
    (root / "open" / "summary.json").unlink()
    return root


def run(
    env: str, scores: Sequence[float | None], start: float = 0.0, steps: int = 64
) -> dict[str, Any]:
    summary = {"final_return": stats.summarise(scores), "policy_mode": "deterministic"}
    curve = {"iqm": [None, start]}
    return {
        "env": env,
        "hyper": {"env": {}},
        "summary": summary,
        "env_steps": steps,
        "curve": curve,
    }


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


def test_the_runs_of_a_group_are_one_sample_and_failed_seeds_the_lowest_of_all() -> None:
    runs = [run("own", [5.0, 6.0]), run("own", [7.0, None], steps=128), run("own", [1.0, 2.0, 3.0])]
    found = comparison.compared(runs, [Group("a", (0, 1)), Group("b", (2,))], margin=0.5)
    assert found["groups"][0]["per_seed"] == [5.0, 6.0, 7.0, None]
    assert found["groups"][0]["num_failed"] == 1
    # 5, 6, 7 and 1: the middle two are 5 and 6.
    assert found["groups"][1]["difference"] == 2.0 - 5.5
    assert found["notes"] == [
        "The runs took 64 to 128 environment steps a seed.",
        "Failed seeds count as the lowest return of all: 1.",
    ]


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
    assert page.data["comparisons"] == [json.loads(capsys.readouterr().out)]
    assert "minus a, b" in page.text


@pytest.mark.parametrize(
    "names, words",
    [
        (["a"], "needs two runs"),
        (["a", "a"], "named twice"),
        (["a", "none"], "is no run's folder"),
        (["a", "other"], "several environments (CartPole-v1, Pendulum-v1)"),
        (["a", "open"], "has no final return yet"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_sentence(
    made: Path, capsys, names: list[str], words: str
) -> None:
    assert main(["compare", *(str(made / name) for name in names)]) == 2
    assert words in capsys.readouterr().err
    assert main(["compare", ",", str(made / "a")]) == 2
    assert "A group without a run is named" in capsys.readouterr().err
