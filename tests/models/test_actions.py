"""The action that the environment receives, and the action of the log-probability."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ppo_jax.config.config import Config
from ppo_jax.envs.interface import Box, Environment
from ppo_jax.models.agent import assemble
from ppo_jax.models.policy import Policy
from ppo_jax.training.rollout import reset_all, rollout


def recorder() -> Environment:
    """An environment that shows its last action, and never ends."""

    def reset(key, params):
        return jnp.zeros(2), jnp.zeros(())

    def transition(key, state, action, params):
        no = jnp.zeros((), bool)
        return action, state, jnp.zeros(()), no, no, {}

    return Environment(
        name="recorder",
        reset=reset,
        transition=transition,
        default_params=(),
        observation_shape=(2,),
        observation_dtype="float32",
        action_space=Box((2,), np.float32([-1.0, -0.5]), np.float32([1.0, 2.0])),
        max_episode_steps=None,
        override=lambda params, values: params,
    )


def recorded(policy_name, **settings):
    """Two rollouts of the recorder under a fresh network with a wide std."""
    environment = recorder()
    config = Config(
        env=environment,
        policy=policy_name,
        num_envs=6,
        hidden_sizes=(8,),
        orthogonal_init=False,
        **{"rollout_length": 12, **settings},
    )
    agent = assemble(config)
    params = agent.network.init(jax.random.key(0), 0.5)
    policy = Policy(agent.network, agent.family, params, None)
    carry = reset_all(environment, (), policy, 6, jax.random.key(1))
    run = jax.jit(lambda c, k: rollout(config, environment, (), policy, c, k)[:3])
    results = []
    for i in range(2):
        carry, steps, raw = run(carry, jax.random.key(i))
        results.append(jax.device_get((steps, raw, carry)))
    return results


def normal_log_prob(steps):
    """The textbook density of the action as sampled."""
    mean, std = steps.distribution.mean, np.exp(steps.distribution.log_std)
    return stats.norm.logpdf(steps.action, mean, std).sum(-1)


def test_the_environment_gets_the_clipped_action_and_log_prob_is_of_the_unclipped_one():
    (steps, raw, carry), _ = recorded("gaussian")
    given = np.concatenate([raw[1:], carry.observation[None]])
    np.testing.assert_allclose(given, np.clip(steps.action, [-1.0, -0.5], [1.0, 2.0]), atol=1e-6)
    was_clipped = (given != steps.action).any(-1)
    assert was_clipped.any()  # std 1.65 around 0
    assert not was_clipped.all()
    np.testing.assert_allclose(steps.log_prob, normal_log_prob(steps), atol=1e-5)


def test_the_environment_gets_the_squashed_action_of_a_tanh_gaussian():
    (steps, raw, carry), _ = recorded("tanh-gaussian")
    given = np.concatenate([raw[1:], carry.observation[None]])
    low, high = np.array([-1.0, -0.5]), np.array([1.0, 2.0])
    expected = low + (high - low) * (np.tanh(steps.action) + 1.0) / 2.0
    np.testing.assert_allclose(given, expected, atol=1e-5)
    jacobian = np.log1p(-(np.tanh(steps.action.astype(np.float64)) ** 2)).sum(-1)
    np.testing.assert_allclose(steps.log_prob, normal_log_prob(steps) - jacobian, atol=1e-4)


@pytest.mark.parametrize(("every", "draws_at"), [(-1, [0]), (5, [0, 5, 10]), (1, list(range(12)))])
def test_gsde_noise_is_drawn_anew_at_the_named_steps_and_at_the_start_of_every_rollout(
    every, draws_at
):
    """For a constant observation the action is constant while its noise is held."""
    still = recorder()._replace(
        transition=lambda key, state, action, params: (
            jnp.zeros(2),
            state,
            jnp.zeros(()),
            jnp.zeros((), bool),
            jnp.zeros((), bool),
            {},
        )
    )
    config = Config(
        env=still,
        policy="gsde",
        num_envs=6,
        rollout_length=12,
        hidden_sizes=(8,),
        gsde_resample_steps=every,
        orthogonal_init=False,
    )
    agent = assemble(config)
    params = agent.network.init(jax.random.key(0), 0.5)
    # Biases give nonzero features at observation 0, which multiply the noise.
    params = jax.tree.map(lambda leaf: leaf + 0.3, params)
    policy = Policy(agent.network, agent.family, params, None)
    carry = reset_all(still, (), policy, 6, jax.random.key(1))
    run = jax.jit(lambda c, k: rollout(config, still, (), policy, c, k)[:2])
    actions = []
    for i in range(2):
        carry, steps = run(carry, jax.random.key(i))
        actions.append(np.asarray(steps.action))
    actions = np.concatenate(actions)  # [24, 6, 2]
    changed = np.abs(np.diff(actions, axis=0)).max(-1) > 1e-6  # [23, 6]
    expected = [t % 12 in draws_at for t in range(1, 24)]
    assert changed.all(axis=1).tolist() == expected
    assert changed.any(axis=1).tolist() == expected
    assert len(np.unique(actions[0].round(6), axis=0)) == 6  # every environment has its own noise
    np.testing.assert_allclose(steps.log_prob, normal_log_prob(steps), atol=1e-4)
