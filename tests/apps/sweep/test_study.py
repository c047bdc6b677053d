"""Workers that share a study: every setting is trained and told once, whoever dies.

The protocol is tested with real processes and a real SQLite file; training is a short sleep, so
that a kill falls into it.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

optuna = pytest.importorskip("optuna")

from ppo_jax.apps.sweep import axes  # noqa: E402
from ppo_jax.apps.sweep.search import parameters, storages, study  # noqa: E402
from ppo_jax.config.errors import InputError  # noqa: E402
from ppo_jax.config.values import masked  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks" / "sweep"))

import postgres  # noqa: E402

pytestmark = pytest.mark.slow

COUNT = 10
AXES = axes.parse(["learning_rate=1e-4..1e-2:log", "objective=clip,kl", "env.limit=1,2,3"])

WORKER = """
import sys, time, json
from pathlib import Path
from ppo_jax.apps.sweep import axes
from ppo_jax.apps.sweep.search import study
storage, name, naps = sys.argv[1], sys.argv[2], float(sys.argv[3])
known = axes.parse(["learning_rate=1e-4..1e-2:log", "objective=clip,kl", "env.limit=1,2,3"])
opened = study.open_study("it", storage, Path("."), 0)
told = []
print("ready", flush=True)
while not study.is_over(opened, 10):
    study.take_over(opened, 10, 2.0, time.time())
    claims = study.claim(opened, known, 2, 10, name)
    print("claimed", [each.root for each in claims], flush=True)
    with study.beating(claims, 2.0):
        time.sleep(naps)
    for each in claims:
        if study.tell(opened, each, float(each.root), {"by": name}):
            told.append(each.root)
    if not claims:
        time.sleep(0.2)
print(json.dumps(told), flush=True)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'study.db'}"
        return
    if (reason := postgres.missing()) is not None:
        pytest.skip(reason)
    with postgres.server() as url:
        yield url


def worker(storage: str, name: str, naps: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, storage, name, str(naps)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )


def opened(folder: Path) -> optuna.Study:
    return study.open_study("it", f"sqlite:///{folder / 'study.db'}", folder, 0)


def test_of_three_workers_one_is_killed_and_no_setting_is_lost_or_told_twice(
    storage: str, tmp_path: Path
) -> None:
    victim = worker(storage, "victim", 600.0)
    assert victim.stdout is not None
    while "claimed [0, 1]" not in victim.stdout.readline():
        assert victim.poll() is None
    others = [worker(storage, name, 0.3) for name in ("b", "c")]
    time.sleep(0.5)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    told = {}
    for name, process in zip("bc", others, strict=True):
        lines = process.communicate(timeout=120)[0].splitlines()
        assert process.returncode == 0
        told[name] = json.loads(lines[-1])
    # What the workers themselves say that they told: all ten, none twice, the victim's included.
    known = study.open_study("it", storage, tmp_path, 0)
    trials = known.get_trials()
    roots = study.roots(trials, COUNT)
    assert len(set(roots)) == COUNT
    assert roots[:2] == [0, 1]
    assert sorted(told["b"] + told["c"]) == roots
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert Counter(study.root_of(trial) for trial in complete) == Counter(roots)
    assert all(trial.value == study.root_of(trial) for trial in complete)
    failed = {trial.number for trial in trials if trial.user_attrs.get("worker") == "victim"}
    assert failed == {0, 1}
    done = study.finished(known, COUNT)
    assert sorted(done) == roots
    first = next(trial for trial in trials if trial.number == 0)
    assert done[0].params == first.params  # taken over, not drawn again


def claim(folder: Path, count: int, batch: int = 1) -> list[study.TrialClaim]:
    return study.claim(opened(folder), AXES, batch, count, "me")


def test_a_silent_worker_is_given_up_only_after_its_grace(tmp_path: Path) -> None:
    (mine,) = claim(tmp_path, 1)
    now = time.time()
    assert study.take_over(opened(tmp_path), 1, 60.0, now) == []
    assert study.take_over(opened(tmp_path), 1, 60.0, now + 61.0) == [0]
    assert study.take_over(opened(tmp_path), 1, 60.0, now + 61.0) == []  # it waits already
    (again,) = claim(tmp_path, 1)
    assert (again.root, again.values) == (0, mine.values)


def test_a_result_told_too_late_does_not_count(tmp_path: Path) -> None:
    (mine,) = claim(tmp_path, 1)
    study.take_over(opened(tmp_path), 1, 60.0, time.time() + 61.0)
    (again,) = claim(tmp_path, 1)
    assert not study.tell(opened(tmp_path), mine, 1.0, {})
    assert study.tell(opened(tmp_path), again, 2.0, {})
    assert [trial.value for trial in study.finished(opened(tmp_path), 1).values()] == [2.0]
    assert study.is_over(opened(tmp_path), 1)


def test_trials_beyond_the_number_of_settings_are_never_trained(tmp_path: Path) -> None:
    assert [each.root for each in claim(tmp_path, 3, batch=8)] == [0, 1, 2]
    surplus = opened(tmp_path).ask()  # as of a worker that looked a moment too early
    trials = opened(tmp_path).get_trials()
    assert study.void_reason(trials, surplus.number, 3) == "surplus"
    assert study.void_reason(trials, 2, 3) is None


def test_of_two_trials_of_one_setting_the_earlier_one_is_trained(tmp_path: Path) -> None:
    (mine,) = claim(tmp_path, 1)
    known = opened(tmp_path)
    study.give_back(known, [mine])
    for _ in range(2):  # two workers saw the same gap
        known.enqueue_trial(dict(mine.trial.params), user_attrs={study.ROOT: 0})
    assert [each.trial.number for each in claim(tmp_path, 1, batch=4)] == [1]
    assert known.get_trials()[2].user_attrs[study.VOID] == "duplicate"


def test_a_setting_that_kills_its_workers_is_left_alone_in_the_end(tmp_path: Path) -> None:
    later = time.time()
    deaths = 0
    while deaths < 10:
        deaths += 1
        assert len(claim(tmp_path, 1)) == 1
        later += 100.0
        if not study.take_over(opened(tmp_path), 1, 60.0, later):
            break
    assert deaths == study.MAX_TAKEOVERS + 1
    assert study.is_over(opened(tmp_path), 1)
    assert study.finished(opened(tmp_path), 1) == {}


def test_a_stop_by_hand_does_not_count_as_a_death(tmp_path: Path) -> None:
    for _ in range(study.MAX_TAKEOVERS + 1):
        study.give_back(opened(tmp_path), claim(tmp_path, 1))
        assert study.take_over(opened(tmp_path), 1, 60.0, time.time()) == [0]


def test_a_setting_that_fails_for_good_is_done_and_has_no_score(tmp_path: Path) -> None:
    (mine,) = claim(tmp_path, 1)
    assert study.tell(opened(tmp_path), mine, None, {study.RETURNS: [None, None]})
    assert study.is_over(opened(tmp_path), 1)
    assert study.finished(opened(tmp_path), 1)[0].user_attrs[study.RETURNS] == [None, None]


def test_the_sampler_sees_a_setting_with_a_failed_seed_as_the_lowest(tmp_path: Path) -> None:
    claims = claim(tmp_path, 14, batch=12)
    for place, each in enumerate(claims):
        assert study.tell(opened(tmp_path), each, float(place) if place % 2 else -math.inf, {})
    # Optuna's sampler learns from complete trials only, and it goes on with infinite ones.
    assert {trial.state.name for trial in opened(tmp_path).get_trials()} == {"COMPLETE"}
    assert opened(tmp_path).best_trial.value == 11.0
    assert len(claim(tmp_path, 14, batch=2)) == 2


def test_values_are_those_of_the_axes(tmp_path: Path) -> None:
    for each in claim(tmp_path, 5, batch=5):
        assert 1e-4 <= each.values["learning_rate"] <= 1e-2
        assert each.values["objective"] in ("clip", "kl")
        assert each.values["env.limit"] in (1, 2, 3)


def drawn(folder: Path, batches: list[int]) -> list[axes.Values]:
    """The settings of some batches, each asked for by a worker that opens the study anew."""
    folder.mkdir()
    found: list[study.TrialClaim] = []
    for batch in batches:
        known = opened(folder)
        claims = study.claim(known, AXES, batch, 14, "me")
        for each in claims:
            assert study.tell(known, each, each.values["learning_rate"], {})
        found += claims
    return [each.values for each in found]


def test_a_study_that_is_opened_again_goes_on_as_if_it_had_not_been_closed(tmp_path: Path) -> None:
    whole = drawn(tmp_path / "whole", [8])
    assert drawn(tmp_path / "cut", [4, 4]) == whole
    rates = [values["learning_rate"] for values in drawn(tmp_path / "long", [4] * 3 + [2])]
    assert rates[:8] == [values["learning_rate"] for values in whole]
    assert len(set(rates)) == 14  # those that TPE itself drew after 10 of chance are new ones, too


def test_a_batch_that_was_given_back_does_not_change_the_settings_after_it(tmp_path: Path) -> None:
    whole = drawn(tmp_path / "whole", [4, 4])
    cut = tmp_path / "cut"
    cut.mkdir()
    study.give_back(opened(cut), claim(cut, 8, batch=4))
    assert study.take_over(opened(cut), 8, 60.0, time.time()) == [0, 1, 2, 3]
    again = [*claim(cut, 8, batch=8), *claim(cut, 8, batch=8)]  # those that wait, then new ones
    assert [each.values for each in again] == whole


def test_trials_of_a_dead_worker_in_the_same_folder_need_no_grace(tmp_path: Path) -> None:
    claims = claim(tmp_path, 3, batch=3)
    study.mark_place(claims[:2], "here")
    left = study.abandoned(opened(tmp_path), "here")
    assert [each.root for each in left] == [0, 1]
    study.fail(opened(tmp_path), left[0].trial.number)
    study.give_back(opened(tmp_path), left[1:])
    assert study.take_over(opened(tmp_path), 3, 60.0, time.time()) == [0, 1]
    assert [each.values for each in claim(tmp_path, 3, batch=3)] == [
        each.values for each in claims[:2]
    ]
    voids = [trial.user_attrs.get(study.VOID) for trial in opened(tmp_path).get_trials()]
    assert voids == [None, "stopped", None, None, None]


def test_another_seed_draws_other_settings(tmp_path: Path) -> None:
    known = study.open_study("it", f"sqlite:///{tmp_path / 'other.db'}", tmp_path, 1)
    (other,) = study.claim(known, AXES, 1, 1, "me")
    (mine,) = claim(tmp_path, 1)
    assert other.values["learning_rate"] != mine.values["learning_rate"]


def test_values_that_are_equal_to_six_digits_are_choices_of_their_own() -> None:
    known = axes.parse(["gamma=0.9999999,1,0.5", "lr=0.10000001:0,0.1:0", "objective=clip,kl"])
    found = parameters.distributions(known)
    for axis in known:
        words = found[axis.name].choices
        values = [parameters.values_of([axis], {axis.name: word})[axis.name] for word in words]
        assert tuple(values) == axis.choices
        assert len(set(words)) == len(words)


def test_a_log_range_of_whole_numbers_is_proposed_on_its_scale() -> None:
    axis = axes.Axis("env.limit", (), axes.Range(1, 1000, True, is_whole=True))
    found = parameters.distributions([axis])["env.limit"]
    assert found == optuna.distributions.IntDistribution(1, 1000, log=True)


def test_a_study_of_another_sweep_is_not_joined(tmp_path: Path) -> None:
    study.require_same(opened(tmp_path), {"seeds": 4})
    study.require_same(opened(tmp_path), {"seeds": 4})
    with pytest.raises(InputError, match=r"seeds is 4 there and 8 here"):
        study.require_same(opened(tmp_path), {"seeds": 8})


def test_a_journal_file_is_a_storage_and_nonsense_is_refused(tmp_path: Path) -> None:
    known = study.open_study("it", str(tmp_path / "journal.log"), tmp_path, 0)
    assert len(study.claim(known, AXES, 1, 1, "me")) == 1
    with pytest.raises(InputError, match="cannot be used"):
        study.open_study("it", "nothing://at/all", tmp_path, 0)


def test_a_password_is_never_told() -> None:
    assert masked("postgresql://me:se:cret@host:5432/db") == "postgresql://me:***@host:5432/db"
    assert masked("postgresql://me@host/db") == "postgresql://me@host/db"
    said = "storage='postgresql://me:***@host/db': name postgresql://user@host/name."
    assert masked(said, is_sentence=True) == said
    assert masked("at postgresql://me:se@cret@h/db: refused", is_sentence=True) == (
        "at postgresql://me:***@h/db: refused"
    )
    assert masked("sqlite:////a/b:c@d.db") == "sqlite:////a/b:c@d.db"


def test_a_postgresql_url_without_a_driver_takes_the_one_that_the_extra_installs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storages, "find_spec", lambda package: object())
    assert storages.with_driver("postgresql://a@b/c") == "postgresql+psycopg://a@b/c"
    assert storages.with_driver("postgresql+pg8000://a@b/c") == "postgresql+pg8000://a@b/c"
    assert storages.with_driver("sqlite:///a.db") == "sqlite:///a.db"
    monkeypatch.setattr(storages, "find_spec", lambda package: None)
    assert storages.with_driver("postgresql://a@b/c") == "postgresql://a@b/c"


def test_whether_a_study_is_over_takes_a_look_or_two_at_each_trial(monkeypatch) -> None:
    """Ten thousand settings would take a hundred million looks if each setting saw all trials."""
    done = [SimpleNamespace(number=n, user_attrs={study.DONE: True}) for n in range(200)]
    for trial in done:
        trial.state = SimpleNamespace(name="FAIL")
    again = SimpleNamespace(number=200, user_attrs={study.ROOT: 7}, state=done[0].state)
    opened = SimpleNamespace(get_trials=lambda deepcopy: [*done, again])
    looks: list[int] = []
    root_of = study.root_of
    monkeypatch.setattr(study, "root_of", lambda trial: looks.append(1) or root_of(trial))
    assert study.is_over(opened, 200)
    assert not study.is_over(opened, 201)
    assert study.take_over(opened, 200, 1.0, 0.0) == []
    assert len(looks) <= 4 * 201
    assert [each.number for each in study.families([*done, again], 200)[7]] == [7, 200]
