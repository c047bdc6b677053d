"""A user's own network: by pair, by object, by name, written with Flax NNX; and refusals."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import own_network
import pytest
from counter import counter
from networks import shown
from own_network import nnx_pair

from ppo_jax.config.config import Config
from ppo_jax.config.errors import InputError
from ppo_jax.envs.interface import Box, Discrete, MultiDiscrete
from ppo_jax.models.agent import assemble
from ppo_jax.models.network import make_network
from ppo_jax.rl.distributions import MultiCategorical
from ppo_jax.rl.types import Window

BOX = Box((2,), np.array([-1.0, -1.0]), np.array([1.0, 1.0]))


def init_fn(key):
    return {"policy": jax.random.normal(key, (3, 2)), "value": jnp.ones(3)}


def apply_fn(params, observation):
    assert observation.shape == (3,)
    return observation @ params["policy"], observation @ params["value"]


def apply_with_std(params, observation):
    mean, value = apply_fn(params, observation)
    return [mean, 0.1 * mean], value


class Pair(NamedTuple):
    init_fn: object
    apply_fn: object


def check(network, config_policy="auto", space=Discrete(2)):  # noqa: B008
    built, _ = make_network(Config(network=network, policy=config_policy), shown(3), space)
    params = built.init(jax.random.key(0), -0.5)
    return built, params


@pytest.mark.parametrize("network", [(init_fn, apply_fn), Pair(init_fn, apply_fn)])
def test_own_network_is_batched_over_any_leading_dims(network) -> None:
    built, params = check(network)
    kernel = np.asarray(init_fn(jax.random.key(0))["policy"])
    observation = np.random.default_rng(0).integers(2, size=(4, 5, 3)).astype(np.uint8)
    for seen in (observation, observation[0], observation[0, 0]):
        distribution, value = built.apply(params, Window(seen))
        np.testing.assert_allclose(distribution.logits, seen @ kernel, atol=1e-5)
        np.testing.assert_allclose(value, seen.sum(-1), atol=1e-6)
        np.testing.assert_allclose(built.value(params, Window(seen)), value)


def test_mean_of_an_own_network_gets_a_log_std_that_is_learnt() -> None:
    built, params = check((init_fn, apply_fn), "gaussian", BOX)
    distribution, _ = built.apply(params, Window(jnp.ones((4, 3))))
    assert params["log_std"].tolist() == [-0.5, -0.5]
    assert (distribution.log_std == -0.5).all()
    assert distribution.mean.shape == distribution.log_std.shape == (4, 2)


@pytest.mark.parametrize("policy", ["gaussian", "gaussian-state-std", "tanh-gaussian"])
def test_own_network_may_return_its_log_std(policy) -> None:
    built, params = check((init_fn, apply_with_std), policy, BOX)
    distribution, _ = built.apply(params, Window(jnp.ones((4, 3))))
    assert "log_std" not in params
    np.testing.assert_allclose(distribution.log_std, 0.1 * distribution.mean, rtol=1e-6)


def test_own_network_serves_several_discrete_actions() -> None:
    def wide(params, observation):
        logits, value = apply_fn(params, observation)
        return jnp.concatenate([logits, logits, logits[:1]]), value

    built, params = check((init_fn, wide), "auto", MultiDiscrete((2, 3)))
    distribution, _ = built.apply(params, Window(jnp.ones((4, 3))))
    assert isinstance(distribution, MultiCategorical)
    assert distribution.logits.shape == (4, 5)


def test_own_network_is_found_by_name(tmp_path, monkeypatch) -> None:
    text = (
        "import jax.numpy as jnp\n"
        "def init_fn(key): return jnp.ones((3, 2))\n"
        "def apply_fn(params, observation): return observation @ params, observation.sum()\n"
        "small = (init_fn, apply_fn)\n"
    )
    (tmp_path / "networks_of_a_user.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    built, params = check("networks_of_a_user:small")
    assert built.apply(params, Window(jnp.array([1.0, 2.0, 3.0])))[0].logits.tolist() == [6.0, 6.0]
    with pytest.raises(InputError, match=r"'smal'.*Nearest: small"):
        check("networks_of_a_user:smal")
    with pytest.raises(InputError, match="is not a network"):
        check("networks_of_a_user:init_fn")


def test_own_network_may_be_a_flax_nnx_module() -> None:
    init, apply = nnx_pair(2)
    built, params = check((init, apply))
    observation = jax.random.normal(jax.random.key(1), (7, 3))
    distribution, value = jax.jit(built.apply)(params, Window(observation))
    logits, expected = apply(init(jax.random.key(0)), observation[2])
    np.testing.assert_allclose(distribution.logits[2], logits, atol=1e-6)
    np.testing.assert_allclose(value[2], expected, atol=1e-6)
    gradient = jax.grad(lambda p: built.apply(p, Window(observation))[0].logits.sum())(params)
    assert all(leaf.shape == p.shape for leaf, p in zip(*map(jax.tree.leaves, (gradient, params))))
    assert any(leaf.any() for leaf in jax.tree.leaves(gradient))


def logits_only(params, observation):
    return observation @ params["policy"]


def value_with_a_dim(params, observation):
    logits, value = apply_fn(params, observation)
    return logits, value[None]


def failing(params, observation):
    return observation @ jnp.ones((7, 2)), observation.sum()


@pytest.mark.parametrize(
    "network, policy, space, words",
    [
        (3, "auto", Discrete(2), ("network=3", "(init_fn, apply_fn)")),
        ((init_fn, apply_fn), "auto", Discrete(5), ("(2,)", "logits of shape (5,)")),
        ((init_fn, apply_with_std), "auto", Discrete(2), ("logits of shape (2,)",)),
        ((init_fn, apply_fn), "gaussian-state-std", BOX, ("pair (mean, log_std)",)),
        ((init_fn, logits_only), "auto", Discrete(2), ("value of shape ()",)),
        ((init_fn, value_with_a_dim), "auto", Discrete(2), ("(1,)", "value of shape ()")),
        ((init_fn, failing), "auto", Discrete(2), ("apply_fn", "shape (3,)", "failed with")),
        ((init_fn, apply_fn), "gsde", BOX, ("gsde", "use gaussian")),
        ((lambda key: {"key": key}, apply_fn), "auto", Discrete(2), ("real numbers",)),
    ],
)
def test_own_network_that_does_not_fit_is_refused_with_a_sentence(
    network, policy, space, words
) -> None:
    with pytest.raises(InputError) as refused:
        make_network(Config(network=network, policy=policy), shown(3), space)
    assert all(word in str(refused.value) for word in words), str(refused.value)


def remembering(params, memory, observation):
    return {"sum": memory["sum"] + observation}, apply_fn(params, memory["sum"])


def forgetting(params, memory, observation):
    return apply_fn(params, observation)


def widening(params, memory, observation):
    return {"sum": jnp.append(memory["sum"], 0.0)}, apply_fn(params, observation)


def start_fn():
    return {"sum": jnp.zeros(3)}


class Triple(NamedTuple):
    init_fn: object
    apply_fn: object
    start_fn: object


@pytest.mark.parametrize("kind", [Triple, lambda *three: three])
def test_own_network_with_a_start_is_recurrent(kind) -> None:
    """It acts on the sum of what it saw before, which a reset clears."""
    built, params = check(kind(init_fn, remembering, start_fn))
    kernel = np.asarray(init_fn(jax.random.key(0))["policy"])
    memory = built.start(params, 2)
    np.testing.assert_array_equal(memory["actor"]["sum"], np.zeros((2, 3)))
    x = np.random.default_rng(0).integers(5, size=(2, 4, 3)).astype(np.uint8)
    before = np.cumsum(x, axis=1) - x
    before[1, 2:] -= before[1, 2]  # its second episode begins at step 2
    reset = np.array([[False] * 4, [False, False, True, False]])
    window = Window(jnp.asarray(x.reshape(8, 3)), jnp.asarray(reset.ravel()), memory)
    distribution, value = built.apply(params, window)
    np.testing.assert_allclose(distribution.logits, before.reshape(8, 3) @ kernel, atol=1e-4)
    np.testing.assert_allclose(value, before.reshape(8, 3).sum(-1))
    memory, acted = built.act(params, memory, jnp.asarray(x[:, 0]))
    np.testing.assert_array_equal(acted.logits, np.zeros((2, 2)))
    np.testing.assert_array_equal(memory["actor"]["sum"], x[:, 0])


@pytest.mark.parametrize(
    "network, words",
    [
        ((init_fn, remembering, dict), ("start_fn() returns no array", "leave start_fn out")),
        (
            (init_fn, forgetting, start_fn),
            ("returns a memory of float32[2]", "{'sum': 'float32[3]'}"),
        ),
        ((init_fn, widening, start_fn), ("'float32[4]'", "equal in structure")),
        ((init_fn, logits_only, start_fn), ("apply_fn(params, memory", "failed with TypeError")),
        ((init_fn, lambda p, m, x: m["sum"], start_fn), ("must return (memory, (policy, value))",)),
        ((init_fn, remembering, 3), ("is not a network", "a triple with start_fn")),
    ],
)
def test_own_network_whose_memory_does_not_fit_is_refused(network, words) -> None:
    with pytest.raises(InputError) as refused:
        make_network(Config(network=network), shown(3), Discrete(2))
    assert all(word in str(refused.value) for word in words), str(refused.value)


def test_minibatches_of_a_recurrent_network_are_whole_environments() -> None:
    """6 environments of 128 steps are 4 minibatches of rows, and not of environments."""
    config = Config(env=counter(), network=own_network.OWN_NETWORK, num_envs=6, num_minibatches=4)
    recurrent = dataclasses.replace(config, network=own_network.RECURRENT_NETWORK)
    with pytest.raises(InputError, match=r"does not divide num_envs \(with a network that has a"):
        assemble(recurrent)
    with pytest.raises(InputError, match=r"logits of shape \(3,\)"):  # it has two actions
        assemble(config)


def test_own_network_is_given_the_leaves_of_an_observation_without_its_action_mask() -> None:
    def dict_init(key):
        return jnp.ones((3, 2))

    def dict_apply(params, observation):
        assert observation.keys() == {"speed", "turn"}
        assert (observation["speed"].shape, observation["turn"].shape) == ((3,), ())
        assert observation["turn"].dtype == jnp.float32
        return observation["speed"] @ params + observation["turn"], observation["speed"].sum()

    spec = {"speed": shown(3), "turn": shown(dtype="int32"), "action_mask": shown(2, dtype="bool")}
    built, _ = make_network(Config(network=(dict_init, dict_apply)), spec, Discrete(2))
    observation = {
        "speed": jnp.arange(6.0).reshape(2, 3),
        "turn": jnp.array([10, 20]),
        "action_mask": jnp.array([[True, True], [False, True]]),
    }
    params = built.init(jax.random.key(0))
    distribution, value = built.apply(params, Window(observation))
    np.testing.assert_array_equal(distribution.logits, [[13.0, 13.0], [-np.inf, 32.0]])
    np.testing.assert_array_equal(value, [3.0, 12.0])
