"""Training with masks, trees of observations and hybrid actions, and the slips that must show."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lane import lane
from objective_cases import train
from toy import jit
from workshop import Workshop

from ppo_jax.config.config import Config, Hyper
from ppo_jax.envs import registration
from ppo_jax.envs.interface import ACTION_MASK, Box, Discrete, Environment, MultiDiscrete, Product
from ppo_jax.models.agent import assemble
from ppo_jax.rl.types import Window
from ppo_jax.training import schedules, trainer

pytestmark = pytest.mark.slow

PAY = np.array([0.0, 1.0, 0.4, 0.8])
ILLEGAL = -1e6


def bandit() -> Environment:
    """Two dials of four arms, of which some are locked at each step: a locked one costs 1e6.

    The arms that pay are 1, 3, 2, 0 in this order. Three steps an episode.
    """

    def shown(key: Any) -> dict[str, Any]:
        legal = jax.random.bernoulli(key, 0.5, (2, 4)).at[:, 2].set(True)
        return {ACTION_MASK: legal.ravel(), "time": jnp.ones(1)}

    def reset(key: Any, params: Any) -> tuple:
        observation = shown(key)
        return observation, (observation[ACTION_MASK], jnp.int32(0))

    def transition(key: Any, state: Any, action: Any, params: Any) -> tuple:
        legal, time = state
        flags = jnp.take_along_axis(legal.reshape(2, 4), action[:, None], axis=1)
        reward = jnp.sum(jnp.asarray(PAY, jnp.float32)[action])
        reward = jnp.where(jnp.all(flags), reward, ILLEGAL)
        observation = shown(key)
        after = observation[ACTION_MASK], time + 1
        return observation, after, reward, time >= 2, jnp.bool_(False), {}

    return Environment(
        name="bandit",
        reset=reset,
        transition=transition,
        default_params=(),
        observation={
            ACTION_MASK: jax.ShapeDtypeStruct((8,), jnp.bool_),
            "time": jax.ShapeDtypeStruct((1,), jnp.float32),
        },
        action_space=MultiDiscrete((4, 4)),
        max_episode_steps=None,
        override=lambda params, values: params,
    )


# Of a dial 2 is always legal, the others by half: E[max] = 1/2 x 1 + 1/4 x 0.8 + 1/4 x 0.4.
BEST = 3 * 2 * (0.5 * 1.0 + 0.25 * 0.8 + 0.25 * 0.4)
CONFIG = Config(
    env=bandit(),
    num_envs=32,
    rollout_length=24,
    num_epochs=4,
    num_minibatches=2,
    hidden_sizes=(8,),
    total_env_steps=32 * 24 * 40,
)


def test_a_masked_bandit_is_learnt_without_one_illegal_draw() -> None:
    """A single illegal draw would show in the mean return of its iteration, and in the ratios."""
    hyper = Hyper(learning_rate=0.02, entropy_coef=0.0)
    _, rows = jit(partial(trainer.train, CONFIG, hyper))(jax.random.key(0))
    returns = np.asarray(rows["episode_return_sum"] / rows["num_episodes"])
    assert returns.min() > 0.0
    # 10,240 episodes of 6 draws, with a standard deviation of 0.6 each
    assert returns[-10:].mean() == pytest.approx(BEST, abs=0.1)
    assert np.max(rows["log_ratio_abs_first"]) <= 1e-5


def test_a_mask_that_the_loss_forgets_shows_in_the_ratios() -> None:
    _, network, family = assemble(CONFIG)

    @jit
    def largest_log_ratios(key: Any) -> Any:
        state = trainer.init(CONFIG, Hyper(), key)
        steps = trainer.sample(CONFIG, Hyper(), state)[0].rollout
        seen = steps.window.observation
        forgotten = {**seen, ACTION_MASK: jnp.ones_like(seen[ACTION_MASK])}
        found = []
        for observation in (seen, forgotten):
            policy = network.policy(state.params, Window(observation))
            found.append(jnp.abs(family.log_prob(policy, steps.action) - steps.log_prob).max())
        return found

    kept, forgotten = largest_log_ratios(jax.random.key(0))
    assert kept <= 1e-5
    assert forgotten > 0.1


def split(environment: Environment) -> Environment:
    """The same environment with a dict of its numbers, whose sorted keys keep their order."""

    def cut(observation: Any) -> dict[str, Any]:
        return {"a": observation[:1], "b": observation[1:]}

    def transition(*given: Any) -> tuple:
        observation, *rest = environment.transition(*given)
        return cut(observation), *rest

    def reset(*given: Any) -> tuple:
        observation, state = environment.reset(*given)
        return cut(observation), state

    observation = jax.eval_shape(cut, environment.observation)
    return environment._replace(reset=reset, transition=transition, observation=observation)


BOX = Box((2,), np.full(2, -1.0, np.float32), np.full(2, 1.0, np.float32))
HYBRID = Product((Discrete(2), BOX))


def test_a_dict_of_vectors_trains_as_the_vector_does() -> None:
    """The same sums in another order of operations: equal to rounding, from equal parameters."""
    found = []
    for environment in (lane(HYBRID), split(lane(HYBRID))):
        config = dataclasses.replace(
            CONFIG,
            env=environment,
            num_envs=8,
            rollout_length=8,
            total_env_steps=128,
            normalize_observations=True,
        )
        hyper = schedules.as_arrays(config, Hyper())
        state, rows = jit(partial(trainer.train, config, hyper))(jax.random.key(1))
        found.append((state.params, rows))
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def curtained() -> Environment:
    """The workshop without its board; its number and aim are hidden where a parameter is 0."""
    base = registration.make(Workshop())
    shapes = {name: leaf for name, leaf in base.observation.items() if name != "board"}

    def hidden(shown: Any, observation: Any, *rest: Any) -> tuple:
        number, aim = (observation[name] * shown[i] for i, name in enumerate(("number", "aim")))
        return {"number": number > 0, "aim": aim, "lamp": observation["lamp"]}, *rest

    def reset(key: Any, shown: Any) -> tuple:
        return hidden(shown, *base.reset(key, base.default_params))

    def transition(key: Any, state: Any, action: Any, shown: Any) -> tuple:
        return hidden(shown, *base.transition(key, state, action, base.default_params))

    return base._replace(
        reset=reset,
        transition=transition,
        default_params=jnp.ones(2),
        observation=shapes,
        override=lambda params, values: jnp.stack([values["number"], values["aim"]]),
        action_bounds=None,
        max_episode_steps=4,
    )


def test_each_leaf_is_needed_and_a_hybrid_policy_nears_the_optimum() -> None:
    """4 steps pay 1 each at best; 4/3 without the number, 4 - 4 Var[aim] = 8/3 without the aim."""
    config = dataclasses.replace(
        CONFIG,
        env=curtained(),
        rollout_length=32,
        num_minibatches=4,
        hidden_sizes=(16,),
        total_env_steps=40_000,
        normalize_observations=True,
    )
    shows = {"number": jnp.array([1.0, 0.0, 1.0]), "aim": jnp.array([1.0, 1.0, 0.0])}
    _, rows = train(config, Hyper(learning_rate=6e-3, env=shows))
    returns = (rows["episode_return_sum"] / rows["num_episodes"])[:, -5:].mean(axis=1)
    assert 3.2 < returns[0] <= 4.0
    assert returns[1] < 4 / 3 + 0.2
    assert returns[2] < 8 / 3 + 0.2
    assert rows["log_ratio_abs_first"].max() <= 1e-4
