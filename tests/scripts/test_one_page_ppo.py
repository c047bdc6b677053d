"""The single-file twin is an independent implementation: both must take the same update."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
from functools import partial
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import all_metrics

from ppo_jax.config.config import Config, Hyper
from ppo_jax.kernels.collectives import ALONE
from ppo_jax.models.agent import acting_policy, assemble, env_params
from ppo_jax.rl import advantages
from ppo_jax.rl.types import EpisodeStats, Setting
from ppo_jax.training import objectives, trainer
from ppo_jax.training.batch import make_batch
from ppo_jax.training.rollout import rollout
from ppo_jax.training.update import Learner, minibatch_order, minibatch_updates

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "one_page_ppo.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("one_page_ppo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


page = load()

NO_EPISODES = EpisodeStats(0.0, 0.0, 0.0)

CONFIG = Config(
    env="CartPole-v1",
    num_envs=8,
    rollout_length=32,
    num_epochs=3,
    num_minibatches=4,
    hidden_sizes=(16, 16),
    total_env_steps=8 * 32,
)
HYPERS = {
    "defaults": Hyper(learning_rate=3e-3),
    "everything": Hyper(
        learning_rate=3e-3,
        clip_epsilon=0.1,
        value_clip_epsilon=0.1,
        value_coef=0.7,
        entropy_coef=0.05,
        max_grad_norm=0.1,
        gamma=0.9,
        gae_lambda=0.8,
    ),
    "no gradient clip": Hyper(learning_rate=1e-2, max_grad_norm=jnp.inf, entropy_coef=0.01),
}


def settings_of(hyper: Hyper):
    return page.Settings(**{name: getattr(hyper, name) for name in page.Settings._fields})


def to_page(params):
    """Parameters in the twin's layout."""
    body = params["body"]

    def layers(torso, head):
        names = sorted(body[torso])
        return [
            (part["kernel"], part["bias"])
            for part in (*(body[torso][n] for n in names), body[head])
        ]

    return {
        "actor": layers("actor_torso", "policy_head"),
        "critic": layers("critic_torso", "value_head"),
    }


def to_page_batch(batch):
    """Samples in the twin's layout."""
    names = set(page.Batch._fields) - {"observation"}
    own = {name: getattr(batch, name) for name in names}
    return page.Batch(observation=batch.window.observation, **own)


@jax.jit
def our_update(learner, batch, hyper, key):
    agent = assemble(CONFIG)
    loss = partial(
        objectives.minibatch_loss,
        hyper=hyper,
        config=CONFIG,
        network=agent.network,
        family=agent.family,
    )
    found = minibatch_updates(Setting(CONFIG, hyper), loss, learner, batch, key)
    learner = learner._replace(params=found.params, opt_state=found.opt_state)
    return learner, all_metrics(hyper, found)


their_update = jax.jit(page.update)


@pytest.fixture(scope="module", autouse=True)
def _plain_broadcasting():
    """The single file adds biases to rows as a reader writes it."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def collected():
    """A state and one real rollout of it, by the package."""
    hyper = Hyper(log_std_init=0.0)
    agent = assemble(CONFIG)
    state = trainer.init(CONFIG, hyper, jax.random.key(0))
    # Louder than the initial 0.01, so that ratios move.
    head = state.params["body"]["policy_head"]
    head["kernel"] = 30.0 * head["kernel"]
    policy = acting_policy(CONFIG, agent, state.params, state.observation_moments)
    world = env_params(agent.environment, hyper)
    _, steps, _, _ = rollout(
        CONFIG, agent.environment, world, policy, state.carry, jax.random.key(1)
    )
    return state, steps


def test_the_twin_imports_nothing_of_the_package():
    tree = ast.parse(SCRIPT.read_text())
    modules = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert modules <= {"__future__", "functools", "gymnax", "jax", "numpy", "time", "typing"}


def test_both_see_the_same_policy_and_values(collected):
    state, steps = collected
    theirs = to_page(state.params)
    log_prob = page.chosen(page.log_policy(theirs, steps.window.observation), steps.action)
    np.testing.assert_allclose(log_prob, steps.log_prob, atol=1e-5)
    np.testing.assert_allclose(
        page.value_of(theirs, steps.window.observation), steps.value, atol=1e-5
    )


@pytest.mark.parametrize("name", ["defaults", "everything"])
def test_both_estimate_the_same_advantages(collected, name):
    _, steps = collected
    hyper = HYPERS[name]
    ended = steps.terminated | steps.truncated
    assert ended.any()
    ours, target = advantages.gae(
        steps.reward, steps.value, steps.value_next, ended, hyper.gamma, hyper.gae_lambda
    )
    theirs = page.advantages(steps.reward, steps.value, steps.value_next, ended, settings_of(hyper))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(target, theirs + steps.value, atol=1e-5)


@pytest.mark.parametrize("name", list(HYPERS))
def test_the_same_parameters_rollout_and_permutation_give_the_same_updates(collected, name):
    state, steps = collected
    hyper = HYPERS[name]
    batch, _ = make_batch(CONFIG, hyper, steps, steps.reward, NO_EPISODES, ALONE)
    learner = Learner(state.params, state.opt_state, jnp.ones(()), jnp.ones((), bool))
    zeros = jax.tree.map(jnp.zeros_like, to_page(state.params))
    theirs, adam = to_page(state.params), page.Adam(jnp.zeros(()), zeros, zeros)
    same = to_page_batch(batch)
    for i in range(3):
        key = jax.random.key(10 + i)
        orders = minibatch_order(CONFIG, key, CONFIG.batch_size, CONFIG.num_envs)
        learner, metrics = our_update(learner, batch, hyper, key)
        theirs, adam, (moved, clipped) = their_update(
            theirs, adam, same, orders, settings_of(hyper)
        )
        # float32 rounding; one step of 3e-3 or more moves every parameter far beyond 1e-5
        for a, b in zip(
            jax.tree.leaves(to_page(learner.params)), jax.tree.leaves(theirs), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_allclose(metrics["log_ratio_abs_first"], moved[0, 0], atol=1e-5)
        # a ratio on the edge may fall on either side: one sample of 64, in one minibatch of 12
        np.testing.assert_allclose(metrics["clip_fraction"], clipped.mean(), atol=2 / 64 / 12)
    assert float(clipped.mean()) > 0.01  # the clip took part
    start = jax.tree.leaves(to_page(state.params))
    farthest = max(
        float(jnp.abs(a - b).max()) for a, b in zip(start, jax.tree.leaves(theirs), strict=True)
    )
    assert farthest > 1e-2


def test_a_wrong_number_is_seen(collected):
    """The comparison can fail: another Adam epsilon, or another order, is not within 1e-5."""
    state, steps = collected
    hyper = HYPERS["everything"]
    batch, _ = make_batch(CONFIG, hyper, steps, steps.reward, NO_EPISODES, ALONE)
    same = to_page_batch(batch)
    start = to_page(state.params)
    zeros = jax.tree.map(jnp.zeros_like, start)
    adam = page.Adam(jnp.zeros(()), zeros, zeros)

    def after(hyper, seed):
        rows = minibatch_order(
            dataclasses.replace(CONFIG, num_epochs=1), jax.random.key(seed), 256, 8
        )
        result = their_update(start, adam, same, rows, settings_of(hyper))[0]
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(result)])

    reference = after(hyper, 0)
    for other in (
        after(hyper, 1),
        after(dataclasses.replace(hyper, adam_epsilon=1e-4), 0),
        after(dataclasses.replace(hyper, value_coef=0.5), 0),
        after(dataclasses.replace(hyper, entropy_coef=0.0), 0),
    ):
        assert float(jnp.abs(reference - other).max()) > 3e-5


def test_the_twin_learns_to_balance():
    returns = page.train(seed=0, num_iterations=40, is_quiet=True)
    # A random policy holds the pole for about 20 steps.
    assert np.nanmean(returns[:2]) < 50
    assert np.nanmean(returns[-10:]) > 200
