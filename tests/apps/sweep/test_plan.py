"""The plan of a sweep, without its compilation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tiny import CONFIG, HYPER

from ppo_jax.apps.sweep import axes, engine, groups, plan
from ppo_jax.apps.sweep.folder import Sweep
from ppo_jax.apps.sweep.options import SweepOptions
from ppo_jax.config.errors import InputError
from ppo_jax.runtime import evaluation

AXES = axes.parse(["gamma=0.5..0.9"])


def of(**changes: Any) -> Sweep:
    return Sweep(CONFIG, HYPER, AXES, [{}], SweepOptions(settings=6, seeds=2, **changes))


def test_a_halving_narrowed_by_memory_goes_on_with_its_slots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """6 settings x 2 seeds, and a device for 10 members: 5 slots at the start and afterwards."""

    def build(config: Any, hyper: Any, num_members: int, *given: Any) -> Any:
        return SimpleNamespace(width=min(num_members, 10), limit=0)

    monkeypatch.setattr(engine, "build", build)
    monkeypatch.setattr(engine, "seconds_per_iteration", lambda *given: 1.0)
    settings = [{"gamma": 0.5 + i / 100} for i in range(6)]
    prepared = plan.Prepared(
        of(sampler="halving", slots=6),
        dict(enumerate(settings)),
        groups.compile_groups(CONFIG, HYPER, settings),
    )
    first = plan.plan_slots(prepared, None)
    assert (first.engine.width, len(first.packs[0])) == (10, 10)
    again = plan.plan_slots(prepared, {"width": 10, "layout": "map"})
    assert (again.engine.width, again.packs, again.seconds) == (10, first.packs, first.seconds)
    monkeypatch.setattr(engine, "build", lambda *given: SimpleNamespace(width=8, limit=0))
    with pytest.raises(InputError, match="5 settings x 2 seeds"):
        plan.plan_slots(prepared, {"width": 10, "layout": "map"})


@pytest.mark.parametrize("budget, count", [(3 * 2 * 224, 3), (10**6, 6)])
@pytest.mark.parametrize("sampler", ["halving", "pbt"])
def test_a_budget_takes_points_of_the_grid_and_none_of_them_twice(
    sampler: str, budget: int, count: int
) -> None:
    words = axes.parse(["gamma=0.5,0.6,0.7", "learning_rate=0.1,0.01"])
    options = SweepOptions(sampler=sampler, seeds=2, budget=budget)
    prepared = plan.prepare(Sweep(CONFIG, HYPER, words, [{}], options))
    chosen = list(prepared.settings.values())
    assert len(chosen) == prepared.sweep.options.settings == count
    assert len({tuple(values.values()) for values in chosen}) == count
    whole = plan.prepare(Sweep(CONFIG, HYPER, words, [{}], SweepOptions(sampler=sampler, seeds=2)))
    assert chosen == list(whole.settings.values())[:count]


@pytest.mark.parametrize(
    "word, changes",
    [
        ("env.max_steps_in_episode=200,20000", {}),
        ("env.max_steps_in_episode=20000,200", {}),
        ("env.max_steps_in_episode=200,20000", {"sampler": "halving"}),
        ("env.max_steps_in_episode=200,20000", {"sampler": "tpe", "settings": 1}),
        ("env.max_steps_in_episode=200..20000:log", {"sampler": "tpe", "settings": 1}),
        ("env.max_steps_in_episode=200..20000", {"sampler": "pbt", "settings": 2}),
    ],
)
def test_an_evaluation_lasts_as_long_as_the_longest_episodes_of_any_setting(
    word: str, changes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []

    def build(config: Any, hyper: Any, num_members: int, *given: Any) -> Any:
        limits.append(evaluation.max_steps(config, hyper))
        return SimpleNamespace(width=num_members, limit=0)

    monkeypatch.setattr(engine, "build", build)
    monkeypatch.setattr(engine, "seconds_per_iteration", lambda *given: 1.0)
    given = Sweep(CONFIG, HYPER, axes.parse([word]), [{}], SweepOptions(seeds=2, **changes))
    plan.plan_all(plan.prepare(given), None)
    assert limits == [20_000]


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"sampler": "halving", "min_env_steps": 224},
            "min_env_steps=224 .* total_env_steps=224",
        ),
        (
            {"sampler": "pbt", "interval": 224},
            "interval=224 .* total_env_steps=224: .* 7 of 7",
        ),
    ],
)
def test_a_sampler_that_would_never_decide_is_refused(changes: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan.prepare(of(**changes))
