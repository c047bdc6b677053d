"""`ppo-jax reproduce` of environments that are stepped outside jax: a seed at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import programs_are_kept

from ppo_jax.apps.reproduce import running, specs, store, training
from ppo_jax.apps.reproduce.running import Request
from ppo_jax.apps.reproduce.specs import Suite
from ppo_jax.apps.reproduce.unfinished import Job
from ppo_jax.config.errors import InputError
from ppo_jax.storage import resume_point

pytest.importorskip("gymnasium", reason="pip install -e '.[gymnasium]'")

SUITE = """
[defaults]
seeds = 2
episodes = 2
total_env_steps = 192
[defaults.config]
num_envs = 2
rollout_length = 32
num_epochs = 1
num_minibatches = 2
hidden_sizes = [8]
[[task]]
name = "gymnasium/CartPole-v1"
[[variant]]
name = "fast"
hyper = { learning_rate = 0.02 }
[[variant]]
name = "slow"
hyper = { learning_rate = 0.001 }
"""


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    path = tmp_path / "poles.toml"
    path.write_text(SUITE, "utf-8")
    return specs.load(str(path))


def run(suite: Suite, folder: Path) -> list[str]:
    told: list[str] = []
    running.reproduce(Request((suite,), out=str(folder), save_seconds=1e-9), told.append)
    return told


def seeds_of(suite: Suite, folder: Path) -> list[Any]:
    contents = [store.read_result(folder, cell).content for cell in suite.cells]
    return [content and content["seeds"] for content in contents]


def test_each_seed_of_a_hosted_cell_is_a_pack_of_its_own(suite):
    packs = training.packs([Job(cell, (0, 1)) for cell in suite.cells])
    assert [(len(pack), pack[0].cell.variant, pack[0].seeds) for pack in packs] == [
        (1, variant, (seed,)) for variant in ("fast", "slow") for seed in (0, 1)
    ]


def test_only_the_packages_own_suites_may_name_a_module_unasked(tmp_path):
    specs.require_trust(specs.select(["popgym"]), ())
    copy = tmp_path / "popgym.toml"
    copy.write_bytes((specs.FOLDER / "popgym.toml").read_bytes())
    with pytest.raises(InputError, match="names the program of an environment"):
        specs.require_trust(specs.select([str(copy)]), ())


class Killed(BaseException):
    """An end that no code catches."""


@pytest.mark.slow
def test_seeds_go_on_after_a_kill_and_those_begun_after_it_are_unchanged(
    suite, tmp_path, monkeypatch
):
    """The seed that was killed has new environments, and says so; no other seed changes."""
    monkeypatch.setattr(training, "CHUNK_SECONDS", 1e-9)  # one iteration a chunk
    begin, begun = training.begin, []
    monkeypatch.setattr(training, "begin", lambda *given: begun.append(1) or begin(*given))
    with programs_are_kept():
        run(suite, tmp_path / "whole")
        assert len(begun) == 2  # the seeds of a cell share its programs
        whole = seeds_of(suite, tmp_path / "whole")
        save, calls = resume_point.save_pack, []

        def dying(*given: Any) -> Any:
            calls.append(1)
            if len(calls) == 3 + 3:  # within the second seed of the first cell
                raise Killed
            return save(*given)

        with monkeypatch.context() as patch:
            patch.setattr(resume_point, "save_pack", dying)
            with pytest.raises(Killed):
                run(suite, tmp_path / "cut")
        assert seeds_of(suite, tmp_path / "cut") == [whole[0][:1], None]
        told = run(suite, tmp_path / "cut")
    assert any("its environments start anew" in line for line in told)
    found = seeds_of(suite, tmp_path / "cut")
    assert found[0][0] == whole[0][0]
    assert found[0][1]["curve"][0] == whole[0][1]["curve"][0]  # before the kill
    assert found[1] == whole[1]
    assert not (tmp_path / "cut" / store.UNFINISHED).exists()
