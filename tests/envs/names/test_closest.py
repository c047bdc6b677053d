"""The search for the name that a mistyped one may mean."""

from __future__ import annotations

import pytest

from ppo_jax.envs import suite_table as table
from ppo_jax.envs.names.closest import closest_ids, find_closest

ROWS = (
    table.Suite("near", "near", "", ("Walk-v1", "Run-v1"), shared=("CartPole-v1",)),
    table.Suite("far", "far", "", ("walk", "walk_fast", "Swim")),
)


@pytest.fixture(autouse=True)
def _two_suites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "SUITES", {row.name: row for row in ROWS})


@pytest.mark.parametrize(
    "typed, names, is_same",
    [
        ("walk", ["far/walk", "near/Walk-v1"], True),
        ("other/Walk", ["near/Walk-v1", "far/walk"], True),  # the case of its letters decides
        ("FAR/Walk", ["far/walk"], True),  # its own suite before all others
        ("far/swimm", ["far/Swim"], False),
        ("near/swim", ["far/Swim"], True),  # nothing like it in its own
        ("far/run-v7", ["near/Run-v1"], True),
        ("WalkFast", ["far/walk_fast"], True),
        ("fast", ["far/walk_fast"], False),  # a part
        ("cartpole", ["CartPole-v1"], True),  # without a slash it is gymnax's
        ("near/cartpole", ["near/CartPole-v1"], True),
        ("gymnax/cartpole", ["CartPole-v1"], True),
        ("/", [], False),
        ("", [], False),
        ("other/", [], False),
        ("quux", [], False),
    ],
)
def test_the_id_decides_and_then_the_suite(typed: str, names: list[str], is_same: bool) -> None:
    assert find_closest(typed) == (names, is_same)


def test_the_newest_of_equal_ids_comes_first_and_three_are_enough() -> None:
    ids = [f"Walk-v{n}" for n in range(5)]
    assert closest_ids("walk", ids) == ["Walk-v4", "Walk-v3", "Walk-v2"]
    assert closest_ids("Walk-v1", ids)[0] == "Walk-v1"
    assert closest_ids("quux", ids) == []
