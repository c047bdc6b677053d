"""Two devices that share a seed: gradients and statistics are those of all rows."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from toy import CHOICE, SWING, all_metrics, flat, jit, toy_rollout

from ppo_jax.config.config import Hyper
from ppo_jax.distributed import layout as layouts
from ppo_jax.distributed import population, programs
from ppo_jax.kernels.collectives import ALONE, Across
from ppo_jax.models.agent import assemble
from ppo_jax.rl import moments
from ppo_jax.rl.distributions import Categorical
from ppo_jax.rl.types import Batch, EpisodeStats, Setting, Window
from ppo_jax.training import objectives, schedules, trainer
from ppo_jax.training.batch import batch_metrics, make_batch, scale_rewards
from ppo_jax.training.draws import draw_all, draw_noise
from ppo_jax.training.update import Learner, minibatch_order, minibatch_updates

DEVICES = Mesh(np.array(jax.devices()[:2]), ("devices",))
BOTH = Across(("devices",))


def on_two_devices(function, *args, out_specs):
    """`function` of each device's half of the arguments' [T, B] or [N] rows (last axis split)."""
    return jit(
        jax.shard_map(
            function, mesh=DEVICES, in_specs=P("devices"), out_specs=out_specs, check_vma=False
        )
    )(*args)


def uneven_batch():
    """64 rows whose halves differ much: standardised separately they give other gradients."""
    rng = np.random.default_rng(0)
    num_rows = 64
    advantage = rng.normal(size=num_rows) + np.where(np.arange(num_rows) < 32, 2.0, -1.0)
    logits = jnp.zeros((num_rows, 2))
    return Batch(
        window=Window(jnp.asarray(rng.normal(size=(num_rows, 1)), jnp.float32)),
        action=jnp.asarray(rng.integers(0, 2, num_rows), jnp.int32),
        log_prob_old=jnp.full(num_rows, -np.log(2.0), jnp.float32),
        distribution_old=Categorical(logits),
        value_old=jnp.zeros(num_rows),
        advantage=jnp.asarray(advantage, jnp.float32),
        value_target=jnp.asarray(rng.normal(size=num_rows), jnp.float32),
    )


def test_gradients_averaged_over_two_devices_are_those_of_the_whole_minibatch():
    """Three epochs of one minibatch, advantages standardised over both devices' rows."""
    config = dataclasses.replace(CHOICE, num_epochs=3, num_minibatches=1)
    hyper = Hyper(learning_rate=1e-2, entropy_coef=0.01)
    state = trainer.init(config, hyper, jax.random.key(0))
    agent = assemble(config)
    batch = uneven_batch()
    loss = partial(
        objectives.minibatch_loss,
        hyper=hyper,
        config=config,
        network=agent.network,
        family=agent.family,
    )

    start = Learner(state.params, state.opt_state, jnp.ones(()), jnp.ones((), bool))

    def learn(batch, across=ALONE):
        setting = Setting(config, hyper, across)
        found = minibatch_updates(setting, loss, start, batch, jax.random.key(5))
        return found.params, all_metrics(hyper, found, across), found.log_ratio

    alone, metrics, log_ratio = jit(learn)(batch)
    both, metrics_both, halves = on_two_devices(
        partial(learn, across=BOTH), batch, out_specs=(P(), P(), P(None, None, "devices"))
    )
    np.testing.assert_allclose(flat(alone), flat(both), atol=1e-5)
    assert np.abs(flat(alone) - flat(state.params)).max() > 1e-2
    for name in metrics:
        np.testing.assert_allclose(metrics_both[name], metrics[name], atol=1e-5, err_msg=name)
    # Log-ratios are not averaged: each device keeps those of its own rows.
    assert halves.shape == log_ratio.shape == (3, 1, 64)
    np.testing.assert_allclose(np.sort(halves), np.sort(log_ratio), atol=1e-5)


def test_the_gradients_cosine_of_two_devices_is_that_of_all_rows():
    config = dataclasses.replace(CHOICE, normalize_advantages="minibatch")
    state = trainer.init(config, Hyper(), jax.random.key(0))
    agent = assemble(config)
    batch = uneven_batch()
    # Parameters away from the policy that drew the actions, so that the two gradients differ.
    params = jax.tree.map(lambda leaf: 3.0 * leaf + 0.3, state.params)

    def measure(batch, across=ALONE):
        setting = Setting(config, Hyper(), across)
        return objectives.gradient_cosine(params, batch, setting, agent.network, agent.family)

    alone = jit(measure)(batch)
    both = on_two_devices(partial(measure, across=BOTH), batch, out_specs=P())
    half = jit(measure)(jax.tree.map(lambda leaf: leaf[:32], batch))
    for name in alone:
        np.testing.assert_allclose(both[name], alone[name], atol=1e-5, err_msg=name)
        assert abs(half[name] - alone[name]) > 1e-4, name


def test_statistics_over_two_devices_are_those_of_all_rows():
    steps = toy_rollout()
    steps = jax.tree.map(
        lambda leaf: (
            jnp.concatenate([leaf, 2.0 * leaf + 1.0], axis=1)
            if leaf.dtype == jnp.float32
            else jnp.tile(leaf, (1, 2))
        ),
        steps,
    )
    config = dataclasses.replace(SWING, normalize_advantages="batch")
    state = trainer.init(dataclasses.replace(SWING, num_envs=6), Hyper(), jax.random.key(0))

    def measure(rows, across=ALONE):  # rows are [B, T]: the sharded axis leads
        steps = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), rows)
        half = state._replace(discounted_return=jnp.zeros(steps.reward.shape[1]))
        reward, _, returns = scale_rewards(config, Hyper(), half, steps, across)
        ended = (steps.terminated | steps.truncated) * 1.0
        episodes = EpisodeStats(jnp.sum(ended), jnp.sum(steps.reward), jnp.sum(ended))
        batch, tally = make_batch(config, Hyper(), steps, reward, episodes, across)
        counted = batch_metrics(across.gather(tally))
        seen = moments.all_reduce(moments.from_batch(steps.reward.reshape(-1, 1)), across)
        advantage = batch.advantage.reshape(steps.reward.shape).T  # [B, T]
        return (returns, counted, seen), advantage

    rows = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), steps)
    alone, advantage = jit(measure)(rows)
    both, advantage_both = on_two_devices(
        partial(measure, across=BOTH), rows, out_specs=(P(), P("devices"))
    )
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(both), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(advantage, advantage_both, atol=1e-5)


@pytest.mark.parametrize("memory", ["none", "mingru"])
def test_a_seed_spread_over_two_devices_learns_and_counts_all_environments(memory):
    config = dataclasses.replace(
        CHOICE, activation="tanh", num_envs=32, memory=memory, memory_size=8
    )
    layout = layouts.Layout("map", tuple(jax.devices()[:2]), 1, 2, 2)
    hyper = schedules.as_arrays(config, Hyper(learning_rate=1e-2))
    state = population.init_population(config, hyper, 0, layout)
    chunk = programs.make_chunk(config, layout)
    state, rows = chunk(hyper, state, np.int32(30))
    rows = {name: np.asarray(value)[0, :30] for name, value in rows.items()}
    assert (rows["num_episodes"] == 128).all()
    assert abs(rows["episode_return_sum"][0] / 128) < 0.4  # -1 or 1, equally likely
    assert rows["episode_return_sum"][-1] / 128 > 0.9
    assert (rows["log_ratio_abs_first"] <= 1e-5).all()
    assert state.alive.all()
    # The devices' environments have different draws.
    halves = np.asarray(state.carry.episode_length).reshape(2, -1)
    assert halves.shape == (2, 16)
    for leaf in jax.tree.leaves(state.carry.memory):
        assert {shard.data.shape for shard in leaf.addressable_shards} == {(1, 16, 8)}


@pytest.mark.parametrize("policy, memory", [("gsde", "none"), ("auto", "mingru")])
def test_the_number_of_devices_changes_no_draw(policy, memory):
    """Four blocks on one device, on two and on four: actions, resets, noise and minibatches."""
    config = dataclasses.replace(
        SWING, num_envs=8, num_minibatches=2, policy=policy, memory=memory, memory_size=8
    )
    state = trainer.init(config, Hyper(), jax.random.key(3))._replace(iteration=jnp.int32(7))
    family = assemble(config).family

    def drawn(carry, across):
        own = state._replace(carry=carry)
        num_envs = carry.episode_length.shape[0]
        keys = trainer.iteration_keys(own, across)
        draws, resets, refill = draw_all(family, 3, num_envs, keys[..., :-1])
        ended = carry.episode_length % 2 == 0
        now = jax.tree.map(lambda leaf: leaf[1], resets)
        fresh = refill(now, 1, ended, lambda key: jax.random.uniform(key), jnp.zeros(num_envs))
        noise = draw_noise(family, draws.key_noise[1], num_envs)
        order = minibatch_order(
            config, keys[..., -1], config.rollout_length * num_envs, num_envs, memory != "none"
        )
        return (draws.action, jax.random.key_data(draws.key_env)), (fresh, noise), order

    def on(devices):
        carry = state.carry._replace(episode_length=jnp.arange(8))
        split = jax.tree.map(lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:]), carry)
        across = Across(("env",), 4) if devices > 1 else Across(blocks=4)
        steps, once, order = jit(jax.vmap(partial(drawn, across=across), axis_name="env"))(split)
        wide = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(3, 8, *x.shape[3:]), steps)
        flat = jax.tree.map(lambda x: x.reshape(8, *x.shape[2:]), once)
        num_steps, num_envs = config.rollout_length, 8 // devices
        if memory != "none":
            env, step = order // num_steps, order % num_steps
        else:
            step, env = order // num_envs, order % num_envs
        env = env + num_envs * jnp.arange(devices)[:, None, None, None]
        rows = jnp.moveaxis(step * 8 + env, 0, 2).reshape(config.num_epochs, 2, -1)
        return wide, flat, jnp.sort(rows, axis=-1)

    one = on(1)
    assert len(set(np.asarray(one[1][0]).tolist())) == 5  # four environments ended
    assert sorted(np.asarray(one[2][0]).ravel().tolist()) == list(range(8 * config.rollout_length))
    for devices in (2, 4):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(on(devices)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_seed_on_two_devices_and_on_one_goes_on_alike():
    config = dataclasses.replace(CHOICE, activation="tanh", num_envs=32)
    hyper = schedules.as_arrays(config, Hyper(learning_rate=1e-2))

    def trained(shares):
        layout = layouts.Layout("map", tuple(jax.devices()[:shares]), 1, shares, 4)
        state = population.init_population(config, hyper, 0, layout)
        return programs.make_chunk(config, layout)(hyper, state, np.int32(3))[0]

    one, two = trained(1), trained(2)
    np.testing.assert_array_equal(one.carry.episode_length, two.carry.episode_length)
    # Adam turns the last bits of tiny gradients into more; other draws differ by 1e-2.
    np.testing.assert_allclose(flat(one.params), flat(two.params), atol=2e-4)
    fresh = trainer.init(config, hyper, jax.random.key(0))
    assert np.abs(flat(one.params) - flat(fresh.params)).max() > 1e-2
