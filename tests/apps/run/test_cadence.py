"""The host's calendar: rows, evaluations, checkpoints, the goal, and the chunks between them."""

from __future__ import annotations

import dataclasses

from tiny import CONFIG

from ppo_jax.apps.run import loop
from ppo_jax.apps.run.cadence import Cadence
from ppo_jax.config.options import RunOptions
from ppo_jax.distributed import programs


def test_the_cadence_counts_in_iterations_rounded_up() -> None:
    options = RunOptions(log_every=33, eval_every=100, checkpoint_every=1)
    cadence = Cadence.of(CONFIG, options, has_stop=False)
    assert cadence == Cadence(last=7, log=2, evaluate=4, save=1, stops_at=0)
    assert Cadence.of(CONFIG, options, has_stop=True).stops_at == 2
    assert Cadence.of(CONFIG, RunOptions(stop_at_return=0.0), has_stop=False).stops_at == 1


def test_a_goal_without_a_cadence_is_looked_for_twenty_times() -> None:
    long = dataclasses.replace(CONFIG, total_env_steps=1_000_000)
    cadence = Cadence.of(long, RunOptions(stop_at_return=0.0), has_stop=False)
    assert 19 <= cadence.last / cadence.evaluate <= 20
    assert Cadence.of(long, RunOptions(), has_stop=False).evaluate == 0


def test_a_run_has_about_a_hundred_rows_by_default() -> None:
    long = dataclasses.replace(CONFIG, total_env_steps=1_000_000)
    cadence = Cadence.of(long, RunOptions(), has_stop=False)
    assert 99 <= cadence.last / cadence.log <= 101


def test_chunks_end_where_the_host_must_look() -> None:
    cadence = Cadence(last=1000, log=2, evaluate=30, save=45, stops_at=0)
    ends, done = [], 0
    while done < 100:
        done += cadence.next_length(done, wanted=10**6)
        ends.append(done)
    assert ends == [30, 45, 60, 90, 120]
    assert Cadence(1000, 1, 0, 0, 0).next_length(0, 10**6) == programs.MAX_CHUNK
    assert Cadence(1000, 1, 0, 0, 0).next_length(998, 10**6) == 2
    assert cadence.next_length(1000, 10**6) == 0  # at the end of the budget


def test_a_seed_that_failed_counts_as_the_worst_against_the_goal() -> None:
    assert not loop.has_reached([None, 2.0, 2.0], 2.0)
    assert loop.has_reached([None, 2.0, 2.0, 9.0], 2.0)  # the lowest of four is outside the IQM
    assert not loop.has_reached([None, 1.0, 2.0, 9.0], 2.0)
    assert loop.score_of([None, None, 2.0, 9.0]) is None
    assert not loop.has_reached([None, None], -1e9)
    assert not loop.has_reached([5.0], None)
