"""Whole runs on environments of Gymnasium, and policies that move between twins."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import beside
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.apps.export.load_policy import load_policy
from ppo_jax.apps.run import evaluate, runner
from ppo_jax.cli import main
from ppo_jax.config.config import Config, Hyper
from ppo_jax.models.agent import assemble
from ppo_jax.training import hosted as training

pytest.importorskip("gymnasium", reason="pip install -e '.[gymnasium]'")
from gymnasium_tasks import LIMIT, SMALL, sentence


def test_a_policy_of_gymnax_fits_its_twin_and_no_other():
    config = dataclasses.replace(SMALL, env="CartPole-v1")
    moved, hyper = evaluate.moved(config, Hyper(env={"gravity": 9.0}), "gymnasium/CartPole-v1")
    assert (moved.env, dict(hyper.env)) == ("gymnasium/CartPole-v1", {})
    words = sentence(lambda: evaluate.moved(config, Hyper(), "gymnasium/Pendulum-v1"))
    assert "observation float32[3]" in words
    assert "observation float32[4]" in words
    pendulum = dataclasses.replace(SMALL, env="Pendulum-v1")
    evaluate.moved(pendulum, Hyper(), "gymnasium/Pendulum-v1")
    cart = dataclasses.replace(SMALL, env="gymnasium/CartPole-v1")
    assert evaluate.moved(cart, Hyper(), "CartPole-v1")[0].env == "CartPole-v1"


@pytest.mark.slow
def test_a_run_is_trained_resumed_exported_and_moved(tmp_path: Path, capsys):
    name = "gymnasium/CartPole-v1"
    limit = ("--env.max_episode_steps", "9")
    summary = beside.trained(name, tmp_path, capsys, "--seeds", "2", *limit)
    assert max(summary["final_return"]["per_seed"]) <= 9
    assert len(summary["final_return"]["per_seed"]) == 2
    run = str(tmp_path / "run")
    more = ["resume", run, "--total-env-steps", "256"]
    assert main.main(more) == 0
    assert "start anew" in capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert rows[-1]["env_steps"] == 256
    for on in (name, "CartPole-v1"):
        assert main.main(["eval", run, "--on", on, "--episodes", "2", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["env"], found["trained_on"], found["episodes_cut"]) == (on, name, 0)
    assert main.main(["export", run, "--out", str(tmp_path / "policy")]) == 0
    assert load_policy(run)(np.zeros(4, np.float32)) in (0, 1)
    assert main.main(["doctor", name]) == 0
    for command in (["replay", run], ["sweep", name, "learning_rate=1e-3,1e-4"]):
        assert main.main(command) == 2
        assert "stepped outside jax" in capsys.readouterr().err


@pytest.mark.slow
def test_a_time_limit_leaves_the_value_that_has_no_end(tmp_path: Path):
    """Rewards of 1 at a discount of 0.5 are worth 2 at every age, if a cut is no end."""
    config = dataclasses.replace(
        SMALL, env="gymnasium/Clock-v0", num_epochs=4, total_env_steps=1600, num_envs=4
    )
    hyper = Hyper(gamma=0.5, learning_rate=0.02)
    state = runner.run(config, hyper, out=str(tmp_path / "run"), eval_episodes=1, quiet=True).state
    parts = assemble(config)
    ages = {"age": jnp.arange(LIMIT + 1.0)[:, None], "phase": jnp.arange(LIMIT + 1) % 3 + 1}
    params = jax.tree.map(lambda leaf: leaf[0], state.params)
    value = parts.network.value_after(params, (), training.stored(parts.environment, ages))
    np.testing.assert_allclose(value, 2.0, atol=0.15)


@pytest.mark.slow
def test_cartpole_is_learnt(tmp_path: Path):
    sizes = {"num_envs": 8, "rollout_length": 128, "num_epochs": 10, "num_minibatches": 4}
    config = Config(env="gymnasium/CartPole-v1", total_env_steps=20_480, **sizes)
    hyper = Hyper(learning_rate=3e-4, entropy_coef=0.0, value_coef=1.0)
    out = str(tmp_path / "run")
    found = runner.run(config, hyper, out=out, eval_episodes=8, quiet=True).summary
    assert found["final_return"]["iqm"] > 200  # a random policy has 22
