"""Observations with a part for the actor alone and one for the critic alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hidden import ENVIRONMENT, SHAPES

from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.models.agent import acting_policy, assemble, without_critic
from ppo_jax.rl.types import Window
from ppo_jax.training import trainer

SMALL = {"num_envs": 2, "rollout_length": 4, "num_minibatches": 1, "hidden_sizes": (4,)}


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_each_side_sees_its_own_part_and_the_common_one(memory: str) -> None:
    config = Config(env=ENVIRONMENT, memory=memory, memory_size=4, **SMALL)
    network = assemble(config).network
    params = network.init(jax.random.key(0))
    # Larger weights than the first policy's, so that every input matters.
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    memory_start = network.start(params, 1)
    seen = {name: jnp.full((1, *shape), 0.3) for name, shape in SHAPES.items()}

    def both(seen):
        window = Window(seen, jnp.ones(1, bool) if memory == "gru" else (), memory_start)
        distribution, value = network.apply(params, window)
        return distribution.logits[0, 0], value[0]

    def alone(seen):
        window = Window(seen, jnp.ones(1, bool) if memory == "gru" else (), memory_start)
        return network.policy(params, window).logits[0, 0], network.value(params, window)[0]

    for function in (both, alone):
        of_policy, of_value = jax.jit(jax.jacrev(function))(seen)
        assert [bool(jnp.any(of_policy[name] != 0)) for name in SHAPES] == [True, True, False]
        assert [bool(jnp.any(of_value[name] != 0)) for name in SHAPES] == [False, True, True]


def test_a_policy_acts_alike_without_the_part_of_the_critic() -> None:
    config = Config(env=ENVIRONMENT, normalize_observations=True, **SMALL)
    state, _ = jax.jit(
        lambda key: trainer.iterate(config, Hyper(), trainer.init(config, Hyper(), key))
    )(jax.random.key(0))
    agent = assemble(config)
    policy = acting_policy(config, agent, state.params, state.observation_moments)
    lean_agent, lean = without_critic(config, agent, policy)
    assert set(lean_agent.environment.observation) == {"actor", "both"}
    seen = {name: jnp.ones((5, *shape)) for name, shape in SHAPES.items()}
    less = {name: seen[name] for name in ("actor", "both")}
    _, whole = policy.network.act(policy.params, (), policy.see(seen))
    _, part = lean.network.act(lean.params, (), lean.see(less))
    np.testing.assert_array_equal(whole.logits, part.logits)


def test_one_torso_for_two_views_is_refused() -> None:
    with pytest.raises(InputError, match="leave --shared-torso out"):
        assemble(Config(env=ENVIRONMENT, shared_torso=True))
