"""Suites and published scores as data: every cell of the package can run, bad files are told."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from ppo_jax.apps.reproduce import references, specs
from ppo_jax.config import presets
from ppo_jax.config.errors import InputError
from ppo_jax.envs import registration, suite_table
from ppo_jax.models.agent import assemble

SMALL = """
title = "small"
[defaults]
seeds = 3
total_env_steps = 10_000
[defaults.config]
num_envs = 4
rollout_length = 16
[[task]]
name = "CartPole-v1"
random = 20.0
best = 500.0
[[variant]]
name = "a"
hyper = { learning_rate = 1e-3 }
[[variant]]
name = "b"
objective = "is"
total_env_steps = 2_000
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL, "utf-8")
    return path


@pytest.mark.parametrize("name", specs.names())
@pytest.mark.parametrize("is_quick", [False, True])
def test_every_suite_of_the_package_loads_and_its_settings_are_valid(name, is_quick):
    suite = specs.load(name, is_quick)
    assert suite.cells
    for cell in suite.cells:
        assert cell.seeds >= 5
        assert cell.task in cell.config.env
        assert not is_quick or cell.config.trained_env_steps < cell.full_env_steps


@pytest.mark.parametrize("name", specs.names())
def test_every_setting_of_the_package_fits_its_environment(name):
    for config in {cell.config for cell in specs.load(name).cells}:
        is_extra = suite_table.is_suite_name(config.env) and not config.env.startswith("memory/")
        if not is_extra:  # the tests of the suites' adapters import those
            assemble(config)  # refuses a network or a policy that does not fit


def test_the_suites_are_there():
    wanted = {"classic", "known-failures", "bsuite", "memory", "minatar", "ppo-table-1"}
    wanted |= {"brax", "craftax", "gpu", "jumanji", "mujoco", "navix", "pgx", "playground"}
    wanted |= {"xminigrid"}
    assert wanted | {"implementation-details"} <= set(specs.names())


def test_a_cell_may_name_a_preset_and_train_it_on_another_task(small: Path):
    small.write_text(
        '[[cell]]\ntask = "brax/hopper"\nvariant = "v"\npreset = "brax/google-ant"\n', "utf-8"
    )
    (cell,) = specs.load(str(small)).cells
    config, hyper = presets.preset("brax/google-ant")
    assert cell.config == dataclasses.replace(config, env="brax/hopper")
    assert cell.hyper == hyper
    small.write_text(small.read_text("utf-8").replace("google-ant", "google-ent"), "utf-8")
    with pytest.raises(InputError, match=r"no preset 'brax/google-ent'.*Nearest: brax/google-ant"):
        specs.load(str(small))


def test_a_suite_loads_without_its_package_which_training_alone_needs(monkeypatch):
    monkeypatch.setattr(suite_table, "is_installed", lambda suite: False)
    assert {cell.task for cell in specs.load("brax").cells} >= {"brax/fast", "brax/reacher"}
    with pytest.raises(InputError, match="needs the package brax"):
        registration.make("brax/fast")


def test_table_1_has_the_papers_eleven_rows_with_the_papers_numbers():
    suite = specs.load("ppo-table-1")
    paper = {name: reference.value for name, reference in suite.variant_published.items()}
    assert paper == {  # Schulman et al. 2017, Table 1
        "none": -0.39,
        "clip-0.1": 0.76,
        "clip-0.2": 0.82,
        "clip-0.3": 0.70,
        "adaptive-kl-0.003": 0.68,
        "adaptive-kl-0.01": 0.74,
        "adaptive-kl-0.03": 0.71,
        "fixed-kl-0.3": 0.62,
        "fixed-kl-1": 0.71,
        "fixed-kl-3": 0.72,
        "fixed-kl-10": 0.69,
    }
    assert len(suite.cells) == 15 * 5
    assert suite.is_normalised
    cells = {cell.name: cell for cell in suite.cells}
    assert cells["Pendulum-v1/clip-0.3"].hyper.clip_epsilon == 0.3
    fixed, adaptive = cells["Pendulum-v1/fixed-kl-3"], cells["Pendulum-v1/adaptive-kl-0.003"]
    assert (fixed.hyper.kl_coef, fixed.hyper.kl_target) == (3.0, math.inf)
    assert (adaptive.hyper.kl_coef, adaptive.hyper.kl_target) == (1.0, 0.003)
    assert cells["Pendulum-v1/none"].config.objective == "is"


def test_claims_of_table_1_agree_with_the_papers_numbers():
    suite = specs.load("ppo-table-1")
    for claim in suite.claims:
        higher, lower = (suite.variant_published[n].value for n in (claim.higher, claim.lower))
        assert higher is not None
        assert lower is not None
        assert higher > lower


def test_later_layers_win(small):
    cells = {cell.variant: cell for cell in specs.load(str(small)).cells}
    assert cells["a"].config.total_env_steps == 10_000
    assert cells["b"].config.total_env_steps == 2_000
    assert cells["a"].hyper.learning_rate == 1e-3
    assert cells["b"].config.objective == "is"
    assert cells["a"].config.num_envs == 4


def test_quick_budget_is_a_tenth_at_least_one_iteration_and_remembers_the_whole_one(small):
    quick = {cell.variant: cell for cell in specs.load(str(small), is_quick=True).cells}
    assert quick["a"].config.total_env_steps == 1_000
    assert quick["a"].full_env_steps == 10_048  # 157 iterations of 64
    assert quick["b"].is_quick


def test_a_selection_keeps_the_cells_asked_for():
    suites = specs.select(["ppo-table-1/Pendulum-v1/none", "ppo-table-1/Pendulum-v1/pg"])
    assert [cell.variant for cell in suites[0].cells] == ["none", "pg"]
    assert len(specs.select(["ppo-table-1/Pendulum-v1"])[0].cells) == 15


def test_a_task_may_have_a_slash_in_its_name():
    suite = specs.select(["memory/memory/TMaze-v0/gru", "memory/MemoryChain-bsuite"])[0]
    assert specs.select(["memory/TMaze-v0/gru", "memory/MemoryChain-bsuite"])[0] == suite
    found = [(cell.task, cell.variant, cell.config.memory) for cell in suite.cells]
    assert found == [
        ("memory/TMaze-v0", "gru", "gru"),
        ("MemoryChain-bsuite", "gru", "gru"),
        ("MemoryChain-bsuite", "none", "none"),
    ]


def test_number_of_seeds_can_be_asked_for():
    assert {cell.seeds for cell in specs.select(["classic"], seeds=12)[0].cells} == {12}


@pytest.mark.parametrize(
    "wanted, words",
    [
        ("clasic", "Nearest: classic"),
        ("ppo-table-1/Pendulum", "Nearest: ppo-table-1/Pendulum-v1"),
        ("brax/brax/hopper", "Nearest: brax/brax/reacher"),
        ("brax/hopper", "Another suite has this task: gpu/brax/hopper/rejax"),
        ("nowhere.toml", "cannot be read"),
    ],
)
def test_unknown_specs_are_refused_with_the_nearest_name(wanted, words):
    with pytest.raises(InputError, match=words):
        specs.select([wanted])


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("seeds = 3", "sedes = 3", "Nearest: seeds"),
        ("seeds = 3", 'seeds = "3"', "must be int"),
        ("num_envs = 4", "num_env = 4", "num_envs"),
        ("learning_rate = 1e-3", "learning_rate = -1", "learning_rate"),
        ('name = "b"', 'name = "a"', "defined twice"),
        ('name = "b"', 'name = "b/c"', "has a slash"),
        ('name = "CartPole-v1"', 'name = "CartPol-v1"', "CartPole-v1"),
        ("seeds = 3", 'seeds = 3\nprotocol = "sample"', "Nearest: sampled"),
        ('title = "small"', "title = small", "not TOML"),
        ("[[task]]", "[[tsk]]", "Nearest: task"),
        ("total_env_steps = 2_000", "total_env_steps = 2", "less than one iteration"),
    ],
)
def test_a_bad_suite_is_refused_with_one_sentence(small, old, new, words):
    small.write_text(SMALL.replace(old, new, 1), "utf-8")
    with pytest.raises(InputError, match=words):
        specs.load(str(small))


def test_a_claim_about_a_variant_that_is_not_there_is_refused(small):
    small.write_text(SMALL + '[[claim]]\nhigher = "a"\nlower = "c"\nsource = ""\n', "utf-8")
    with pytest.raises(InputError, match="no variant 'c'"):
        specs.load(str(small))


def test_the_command_that_repeats_a_suite_names_its_file_or_its_program(small):
    assert specs.load("classic").command == "ppo-jax reproduce classic"
    assert specs.load(str(small)).command == f"ppo-jax reproduce {small}"
    small.write_text('again = "python study.py"\n' + SMALL, "utf-8")
    assert specs.load(str(small)).command == "python study.py"


def test_a_variant_runs_on_its_own_tasks_alone(small):
    more = '[[task]]\nname = "Pendulum-v1"\n[[variant]]\nname = "c"\ntasks = ["Pendulum-v1"]\n'
    small.write_text(SMALL + more, "utf-8")
    names = [cell.name for cell in specs.load(str(small)).cells]
    assert names == [f"CartPole-v1/{v}" for v in "ab"] + [f"Pendulum-v1/{v}" for v in "abc"]
    small.write_text((SMALL + more).replace('["Pendulum-v1"]', '["Pendulum"]'), "utf-8")
    with pytest.raises(InputError, match="'c' of the suite 'small' names no task 'Pendulum'"):
        specs.load(str(small))


def test_a_published_score_is_found_by_its_columns():
    found = references.find(
        {"table_id": "classic_rl_zoo", "env": "Acrobot", "algorithm": "TRPO"}, "test"
    )
    assert (found.value, found.env_steps, found.num_seeds) == (-83.11, 100_000, 1)
    assert found.policy_mode == "deterministic"


@pytest.mark.parametrize(
    "wanted, words",
    [
        ({"table_id": "classic_rl_zoo"}, "fits 15 rows"),
        ({"table_id": "classic_rl_zo"}, "fits 0 rows"),
        ({"tabel_id": "classic_rl_zoo"}, "Nearest: table_id"),
    ],
)
def test_a_published_score_must_be_one_row(wanted, words):
    with pytest.raises(InputError, match=words):
        references.find(wanted, "test")
