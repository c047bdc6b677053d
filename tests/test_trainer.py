"""`init`, `iterate` and `train`: the pieces by hand, theta_old, failure, and two devices."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ppo_jax import envs, improve, layouts, moments, objectives, parallel, schedules, trainer
from ppo_jax.config import Config, Hyper, Schedule
from ppo_jax.envs.probes import PROBES
from ppo_jax.rollout import rollout
from ppo_jax.types import Batch, EpisodeStats, Rollout

# Half the compile time, and no less exact.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SWING = Config(
    env="Pendulum-v1",
    num_envs=4,
    rollout_length=16,
    num_epochs=2,
    num_minibatches=2,
    hidden_sizes=(8,),
    normalize_observations=True,
    normalize_rewards=True,
    orthogonal_init=False,
    total_env_steps=64 * 3,
)
FEW_STEPS = {"max_steps_in_episode": 10}


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def roll(config, hyper, state):
    """The rollout that `iterate` will take from `state`."""
    parts = trainer.assemble(config)
    key_rollout = trainer.iteration_keys(state, None)[:-1]
    policy = trainer.acting_policy(config, parts, state.params, state.observation_moments)
    env_params = trainer.env_params(parts.environment, hyper)
    return rollout(config, parts.environment, env_params, policy, state.carry, key_rollout)


@pytest.fixture(scope="module")
def swing():
    """Three iterations: states before and after, metrics, and the rollouts that they took."""
    hyper = Hyper(learning_rate=1e-2, env=FEW_STEPS)
    state = jit(partial(trainer.init, SWING))(hyper, jax.random.key(0))
    iterate = jit(partial(trainer.iterate, SWING))
    rolled = jit(partial(roll, SWING))
    states, rows, rollouts = [state], [], []
    for _ in range(3):
        rollouts.append(rolled(hyper, state))
        state, row = iterate(hyper, state)
        states.append(state)
        rows.append(row)
    return jax.device_get(states), jax.device_get(rows), jax.device_get(rollouts)


def test_an_iteration_acts_through_the_moments_of_before_and_merges_its_own_at_the_end(swing):
    states, _, rollouts = swing
    for before, after, (carry, steps, _, _) in zip(states, states[1:], rollouts):
        np.testing.assert_allclose(after.carry.observation, carry.observation, atol=1e-5)
        del before, steps
    everything = np.concatenate([raw.reshape(-1, 3) for _, _, raw, _ in rollouts])
    last = states[-1].observation_moments
    assert last.count == len(everything) == 3 * 64
    np.testing.assert_allclose(last.mean, everything.mean(0), atol=1e-5)
    np.testing.assert_allclose(last.m2 / last.count, everything.var(0), rtol=1e-4)
    second = rollouts[1]
    expected = (second[2] - everything[:64].mean(0)) / np.sqrt(everything[:64].var(0) + 1e-8)
    np.testing.assert_allclose(second[1].observation, np.clip(expected, -10, 10), atol=1e-3)


def test_rewards_are_scaled_by_the_std_of_the_discounted_return_so_far(swing):
    """Against VecNormalize's rule in numpy, over three rollouts with episodes of 10 steps."""
    states, _, rollouts = swing
    running, returns = np.zeros(4), []
    for before, after, (_, steps, _, _) in zip(states, states[1:], rollouts):
        ended = steps.terminated | steps.truncated
        for t in range(16):
            running = 0.99 * running + steps.reward[t]
            returns.append(running.copy())
            running = np.where(ended[t], 0.0, running)
        reward, carried, statistics = trainer.scaled_rewards(SWING, Hyper(), before, steps, None)
        std = np.concatenate(returns).std()
        expected = np.clip(steps.reward / std, -10, 10)
        np.testing.assert_allclose(reward, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(carried, running, rtol=1e-4)
        np.testing.assert_allclose(after.discounted_return, running, rtol=1e-4)
        assert after.return_moments.count == statistics.count == len(np.concatenate(returns))
    plain = dataclasses.replace(SWING, normalize_rewards=False)
    unscaled, _, statistics = trainer.scaled_rewards(plain, Hyper(), before, steps, None)
    np.testing.assert_array_equal(unscaled, steps.reward)
    assert statistics.count == before.return_moments.count


def test_metrics_name_the_episodes_of_their_own_iteration(swing):
    """Episodes are cut after 10 steps; 4 environments, 16 steps an iteration."""
    _, rows, rollouts = swing
    assert [row["num_episodes"] for row in rows] == [4, 8, 4]
    assert [row["episode_length_sum"] for row in rows] == [40, 80, 40]
    for row, (_, _, _, episodes) in zip(rows, rollouts):
        assert row["episode_return_sum"] == pytest.approx(episodes.return_sum, rel=1e-4)
        assert row["alive"] == 1.0
    assert all(np.isfinite(value) for row in rows for value in row.values())


def test_every_ratio_of_the_first_minibatch_is_one_also_after_some_iterations(swing):
    _, rows, _ = swing
    assert all(row["log_ratio_abs_first"] <= 1e-5 for row in rows)
    # and not because nothing moved
    assert all(row["ratio_max"] > 1.001 for row in rows)


def break_observations(batch):
    """As if the moments had been merged before the update instead of after it."""
    return batch._replace(observation=1.05 * batch.observation + 0.05)


def break_log_prob(batch):
    return batch._replace(log_prob_old=1.001 * batch.log_prob_old)


@pytest.mark.parametrize("broken", [break_observations, break_log_prob])
def test_ratios_of_a_broken_trainer_are_seen_not_to_be_one(swing, monkeypatch, broken):
    whole = trainer.make_batch

    def make_batch(*args):
        batch, explained = whole(*args)
        return broken(batch), explained

    monkeypatch.setattr(trainer, "make_batch", make_batch)
    state = jax.tree.map(jnp.asarray, swing[0][1])
    hyper = Hyper(learning_rate=1e-2, env=FEW_STEPS)
    _, row = jit(lambda state: trainer.iterate(SWING, hyper, state))(state)
    assert row["log_ratio_abs_first"] > 5e-4


@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
def test_at_theta_old_all_surrogates_have_the_gradient_of_the_policy_gradient(env):
    """On a whole rollout of a policy that has moved from its start; KL and drifts are flat there.

    clip's tie at ratio = 1 is inside the interval, where min takes r A on both sides.
    """
    config = dataclasses.replace(SWING, env=env, normalize_rewards=False)
    hyper = Hyper()
    state = trainer.init(config, hyper, jax.random.key(1))
    state = state._replace(
        params=jax.tree.map(lambda leaf: 1.5 * leaf + 0.05, state.params),
        observation_moments=moments.from_batch(
            jax.random.normal(jax.random.key(2), (50, *state.carry.observation.shape[1:])) + 0.5
        ),
    )
    parts = trainer.assemble(config)

    @jit
    def gradients(state):
        _, steps, _, _ = roll(config, hyper, state)
        batch, _ = trainer.make_batch(config, hyper, steps, steps.reward, None)
        found = {}
        for name in objectives.SURROGATES:
            loss = partial(
                objectives.minibatch_loss,
                batch=batch,
                hyper=dataclasses.replace(hyper, value_coef=0.0),
                config=dataclasses.replace(config, objective=name),
                network=parts.network,
                family=parts.family,
            )
            found[name], diagnostics = jax.grad(loss, has_aux=True)(state.params)
        return found, diagnostics

    found, diagnostics = gradients(state)
    assert jnp.abs(diagnostics["log_ratio"]).max() <= 1e-5
    expected = flat(found["pg"])
    assert np.abs(expected).max() > 1e-3
    for name in set(objectives.SURROGATES) - {"pg"}:
        # log-ratios of 1e-6 leave the gradient with relative errors of that size
        np.testing.assert_allclose(
            flat(found[name]), expected, atol=2e-5 * np.abs(expected).max(), err_msg=name
        )


def toy_rollout(seed=0):
    """A rollout of T = 5, B = 3 of random numbers, its sample (t, b) marked 10 t + b."""
    rng = np.random.default_rng(seed)

    def normal():
        return jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)

    mark = jnp.asarray(10.0 * np.arange(5)[:, None] + np.arange(3), jnp.float32)
    terminated = jnp.asarray(rng.random((5, 3)) < 0.2)
    return Rollout(
        observation=mark[..., None],
        action=mark[..., None],
        log_prob=normal(),
        distribution=(mark[..., None],),
        value=normal(),
        value_next=jnp.where(terminated, 0.0, normal()),
        reward=3.0 * normal(),
        terminated=terminated,
        truncated=jnp.asarray(rng.random((5, 3)) < 0.2) & ~terminated,
    )


def slow_gae(steps, gamma, lam):
    """Sums of (gamma lambda)^k delta_{t+k} to the episode's end. [T, B] float64"""
    ended = np.asarray(steps.terminated | steps.truncated)
    delta = np.float64(steps.reward) + gamma * np.float64(steps.value_next) - steps.value
    advantage = np.zeros((5, 3))
    for b in range(3):
        for t in range(5):
            for k in range(5 - t):
                advantage[t, b] += (gamma * lam) ** k * delta[t + k, b]
                if ended[t + k, b]:
                    break
    return advantage


def test_the_batch_is_time_major_and_holds_advantages_and_targets():
    config = dataclasses.replace(SWING, normalize_advantages="none")
    steps = toy_rollout()
    hyper = Hyper(gamma=0.9, gae_lambda=0.8)
    batch, explained = trainer.make_batch(config, hyper, steps, steps.reward, None)
    marks = (10.0 * np.arange(5)[:, None] + np.arange(3)).reshape(-1)
    np.testing.assert_array_equal(batch.observation[:, 0], marks)
    np.testing.assert_array_equal(batch.action[:, 0], marks)
    np.testing.assert_array_equal(batch.distribution_old[0][:, 0], marks)
    np.testing.assert_array_equal(batch.log_prob_old, np.asarray(steps.log_prob).reshape(-1))
    np.testing.assert_array_equal(batch.value_old, np.asarray(steps.value).reshape(-1))
    advantage = slow_gae(steps, 0.9, 0.8)
    target = advantage + np.asarray(steps.value)
    np.testing.assert_allclose(batch.advantage, advantage.reshape(-1), atol=1e-5)
    np.testing.assert_allclose(batch.value_target, target.reshape(-1), atol=1e-5)
    assert explained == pytest.approx(1.0 - advantage.var() / target.var(), abs=1e-5)


def test_advantages_are_standardised_over_the_batch_where_that_is_asked_for():
    steps = toy_rollout()
    advantage = slow_gae(steps, 0.99, 0.95).reshape(-1)
    for name, expected in (
        ("batch", (advantage - advantage.mean()) / advantage.std()),
        ("minibatch", advantage),  # standardised later, minibatch by minibatch
    ):
        config = dataclasses.replace(SWING, normalize_advantages=name)
        batch, _ = trainer.make_batch(config, Hyper(), steps, steps.reward, None)
        np.testing.assert_allclose(batch.advantage, expected, atol=1e-4)


CHOICE = Config(
    env="probe:action-choice",
    num_envs=8,
    rollout_length=4,
    num_epochs=2,
    num_minibatches=2,
    hidden_sizes=(8,),
    activation="relu",
    orthogonal_init=False,
    total_env_steps=32 * 12,
)


@pytest.fixture(scope="module")
def run_choice():
    """Four members that differ in learning rate and key: one program for all tests."""
    return jit(
        jax.vmap(
            lambda rate, key: trainer.train(CHOICE, Hyper(learning_rate=rate), key), in_axes=(0, 0)
        )
    )


def test_iterations_draw_anew_and_seeds_differ(run_choice):
    """With a learning rate of 0 only the draws can make two iterations differ."""
    keys = jax.random.split(jax.random.key(0), 4)
    state, rows = jax.device_get(run_choice(jnp.zeros(4), keys))
    returns = rows["episode_return_sum"]
    assert returns.shape == (4, 12)
    assert all(len(set(member)) >= 4 for member in returns)
    assert len({tuple(member) for member in returns}) == 4
    assert len(np.unique(state.params["body"]["policy_head"]["kernel"], axis=0)) == 4
    # One-step episodes: 8 x 4 of them an iteration.
    assert (rows["num_episodes"] == 32).all()
    assert (state.iteration == 12).all()


def test_a_member_that_turns_non_finite_is_frozen_and_its_neighbours_do_not_notice(run_choice):
    """inf breaks the first step. At 1e20 the parameters stay finite but what they compute is not:
    KL[old||new] is NaN then, which must not pass for a KL that has reached its bound."""
    keys = jax.random.split(jax.random.key(0), 4)
    good, rows = jax.device_get(run_choice(jnp.full(4, 1e-3), keys))
    assert good.alive.all()
    assert (rows["alive"] == 1.0).all()
    state, rows = jax.device_get(run_choice(jnp.array([1e-3, jnp.inf, 1e20, 1e-3]), keys))
    assert state.alive.tolist() == [True, False, False, True]
    assert rows["alive"][:, -1].tolist() == [1.0, 0.0, 0.0, 1.0]
    for k in (0, 3):
        for a, b in zip(jax.tree.leaves(good.params), jax.tree.leaves(state.params)):
            np.testing.assert_array_equal(a[k], b[k])
    start, _ = jax.device_get(run_choice(jnp.zeros(4), keys))
    for k in (1, 2):  # the last finite parameters: those before the first iteration
        for a, b in zip(jax.tree.leaves(start.params), jax.tree.leaves(state.params)):
            np.testing.assert_array_equal(a[k], b[k])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.opt_state))


# What a failed update leaves behind ---------------------------------------------------------------

PENDULUM = envs.make("Pendulum-v1")


def step_and_bribe(key, state, action, params):
    observation, state, reward, *rest = PENDULUM.transition(key, state, action, params[0])
    return observation, state, reward + params[1], *rest


BRIBED = PENDULUM._replace(  # its rewards are larger by a parameter of their own
    default_params=(PENDULUM.default_params, 0.0),
    reset=lambda key, params: PENDULUM.reset(key, params[0]),
    transition=step_and_bribe,
    override=lambda params, values: (params[0], values["bribe"]),
)

STRIDE = dataclasses.replace(
    CHOICE,
    env=BRIBED,
    num_minibatches=1,
    normalize_observations=True,
    normalize_rewards=True,
    activation="tanh",
)


@pytest.fixture(scope="module")
def many():
    """32 members' start states and a compiled iteration of all of them, each with its bribe."""

    def hyper(bribe):
        return Hyper(env={"bribe": bribe})

    bribe = jnp.zeros(32)
    keys = jax.random.split(jax.random.key(0), 32)
    state = jit(jax.vmap(lambda b, key: trainer.init(STRIDE, hyper(b), key)))(bribe, keys)
    step = jit(jax.vmap(lambda b, state: trainer.iterate(STRIDE, hyper(b), state)))

    def run(state, bribe=bribe, count=5):
        rows = []
        for _ in range(count):
            state, row = step(bribe, state)
            rows.append(row)
        return jax.device_get(state), jax.device_get(rows)

    return state, run, run(state)


def spoil_observations(state, bribe):
    """The environment shows NaN: its state holds one."""
    states = state.carry.state
    spoilt = states.replace(theta=states.theta.at[5].set(jnp.nan))
    return state._replace(carry=state.carry._replace(state=spoilt)), bribe


def spoil_rewards(state, bribe):
    return state, bribe.at[5].set(jnp.inf)


def spoil_gradients(state, bribe):
    """Parameters that are finite, and whose values' squares are not."""
    kernel = state.params["body"]["value_head"]["kernel"]
    state.params["body"]["value_head"]["kernel"] = kernel.at[5].set(1e30)
    return state, bribe


@pytest.mark.parametrize("spoil", [spoil_observations, spoil_rewards, spoil_gradients])
def test_one_spoilt_member_of_32_is_frozen_and_31_are_those_of_the_healthy_run(many, spoil):
    start, run, (healthy, healthy_rows) = many
    start = jax.tree.map(lambda leaf: leaf, start)  # its dictionaries are written to
    spoilt, bribe = spoil(start, jnp.zeros(32))
    state, rows = run(spoilt, bribe)
    others = np.delete(np.arange(32), 5)
    assert healthy.alive.all()
    assert state.alive.tolist() == [i != 5 for i in range(32)]
    for a, b in zip(jax.tree.leaves((healthy, healthy_rows)), jax.tree.leaves((state, rows))):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a)[others], np.asarray(b)[others])
    # Nothing of it was taken over: all as at its start, but for the count of the failures.
    assert state.failures[5] == trainer.MAX_FAILURES == 3
    assert state.iteration[5] == 2  # the third iteration can be made again
    same = jax.tree.map(lambda leaf: leaf[5], (spoilt.params, spoilt.opt_state, spoilt.carry))
    kept = jax.tree.map(lambda leaf: leaf[5], (state.params, state.opt_state, state.carry))
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(kept)):
        np.testing.assert_array_equal(a, b)
    assert state.observation_moments.count[5] == state.return_moments.count[5] == 0.0
    assert [row["alive"][5] for row in rows] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert [row["refused_fraction"][5] for row in rows] == [1.0] * 5
    assert not any(row["refused_fraction"][others].any() for row in rows)


def test_a_member_that_recovers_in_time_learns_on(many):
    """Two iterations with rewards of infinity, then sound ones again."""
    start, run, _ = many
    state, _ = run(start, jnp.zeros(32).at[5].set(jnp.inf), count=2)
    assert (state.failures[5], state.alive[5], state.iteration[5]) == (2, True, 2)
    state, rows = run(jax.tree.map(jnp.asarray, state), count=1)
    assert (state.failures[5], state.alive[5], state.iteration[5]) == (0, True, 3)
    assert rows[0]["refused_fraction"][5] == 0.0
    assert state.observation_moments.count[5] == 32  # of one iteration only


def test_train_has_one_row_an_iteration_and_rounds_the_budget_up():
    config = dataclasses.replace(CHOICE, total_env_steps=32 * 2 + 1)
    assert config.num_iterations == 3
    assert config.trained_env_steps == 96
    state, rows = jax.eval_shape(lambda key: trainer.train(config, Hyper(), key), jax.random.key(0))
    assert all(row.shape == (3,) for row in rows.values())
    assert state.iteration.shape == ()


def test_schedules_move_with_the_iterations_and_reach_the_metrics():
    config = dataclasses.replace(CHOICE, total_env_steps=32 * 4)
    hyper = Hyper(learning_rate=Schedule(1.0, 0.0), schedule_env_steps=64.0)
    _, rows = jit(lambda key: trainer.train(config, hyper, key))(jax.random.key(0))
    np.testing.assert_allclose(rows["learning_rate"], [1.0, 0.5, 0.0, 0.0])


def test_an_environment_object_with_bounds_can_be_trained_on():
    """Bounds are arrays, which cannot be hashed."""
    config = dataclasses.replace(CHOICE, env=PROBES["action-choice-continuous"].environment)
    parts = trainer.assemble(config)
    assert parts.environment is config.env
    assert parts.family.name == "gaussian"


def test_the_initial_log_std_and_the_environments_parameters_are_those_of_hyper(swing):
    hyper = Hyper(log_std_init=-1.25)
    state = trainer.init(SWING, hyper, jax.random.key(0))
    assert (state.params["log_std"] == -1.25).all()
    environment = trainer.assemble(SWING).environment
    assert trainer.env_params(environment, Hyper(env=FEW_STEPS)).max_steps_in_episode == 10
    assert trainer.env_params(environment, hyper).max_steps_in_episode == 200


# Two devices --------------------------------------------------------------------------------------

DEVICES = Mesh(np.array(jax.devices()[:2]), ("devices",))


def on_two_devices(function, *args, out_specs):
    """`function` of each device's half of the arguments' [T, B] or [N] rows (last axis split)."""
    return jit(
        jax.shard_map(
            function, mesh=DEVICES, in_specs=P("devices"), out_specs=out_specs, check_vma=False
        )
    )(*args)


def test_gradients_averaged_over_two_devices_are_those_of_the_whole_minibatch():
    """Three epochs of one minibatch, advantages standardised over both devices' rows."""
    config = dataclasses.replace(CHOICE, num_epochs=3, num_minibatches=1)
    hyper = Hyper(learning_rate=1e-2, entropy_coef=0.01)
    state = trainer.init(config, hyper, jax.random.key(0))
    parts = trainer.assemble(config)
    rng = np.random.default_rng(0)
    num_rows = 64
    # The halves differ much: standardised each by itself they would give another gradient.
    advantage = rng.normal(size=num_rows) + np.where(np.arange(num_rows) < 32, 2.0, -1.0)
    logits = jnp.zeros((num_rows, 2))
    batch = Batch(
        observation=jnp.asarray(rng.normal(size=(num_rows, 1)), jnp.float32),
        action=jnp.asarray(rng.integers(0, 2, num_rows), jnp.int32),
        log_prob_old=jnp.full(num_rows, -np.log(2.0), jnp.float32),
        distribution_old=type(parts.network.apply(state.params, jnp.zeros((1, 1)))[0])(logits),
        value_old=jnp.zeros(num_rows),
        advantage=jnp.asarray(advantage, jnp.float32),
        value_target=jnp.asarray(rng.normal(size=num_rows), jnp.float32),
    )
    loss = partial(
        objectives.minibatch_loss,
        hyper=hyper,
        config=config,
        network=parts.network,
        family=parts.family,
    )

    def learn(batch, axis_name=None):
        params, _, _, diagnostics = improve.by_minibatches(
            config,
            hyper,
            loss,
            state.params,
            state.opt_state,
            batch,
            8,
            jax.random.key(5),
            axis_name,
        )
        return params, improve.summarise(hyper, diagnostics, axis_name)

    alone, metrics = jit(learn)(batch)
    both, metrics_both = on_two_devices(partial(learn, axis_name="devices"), batch, out_specs=P())
    np.testing.assert_allclose(flat(alone), flat(both), atol=1e-5)
    assert np.abs(flat(alone) - flat(state.params)).max() > 1e-2
    for name in metrics:
        np.testing.assert_allclose(metrics_both[name], metrics[name], atol=1e-5, err_msg=name)


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

    def measure(rows, axis_name=None):  # rows are [B, T]: the sharded axis leads
        steps = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), rows)
        half = state._replace(discounted_return=jnp.zeros(steps.reward.shape[1]))
        reward, _, returns = trainer.scaled_rewards(config, Hyper(), half, steps, axis_name)
        batch, explained = trainer.make_batch(config, Hyper(), steps, reward, axis_name)
        ended = (steps.terminated | steps.truncated) * 1.0
        episodes = EpisodeStats(jnp.sum(ended), jnp.sum(steps.reward), jnp.sum(ended))
        counted = trainer.episode_metrics(episodes, axis_name)
        seen = trainer.merged(
            state.observation_moments, jnp.tile(steps.reward.reshape(-1, 1), 3), axis_name
        )
        advantage = batch.advantage.reshape(steps.reward.shape).T  # [B, T]
        return (returns, explained, counted, seen), advantage

    rows = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), steps)
    alone, advantage = jit(measure)(rows)
    both, advantage_both = on_two_devices(
        partial(measure, axis_name="devices"), rows, out_specs=(P(), P("devices"))
    )
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(both), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(advantage, advantage_both, atol=1e-5)


def test_a_seed_spread_over_two_devices_learns_and_counts_all_environments():
    config = dataclasses.replace(CHOICE, activation="tanh", num_envs=32)
    layout = layouts.Layout("envs", tuple(jax.devices()[:2]), 1)
    hyper = schedules.as_arrays(config, Hyper(learning_rate=1e-2))
    state = parallel.init_population(config, hyper, 0, layout)
    chunk = parallel.make_chunk(config, layout)
    state, rows = chunk(hyper, state, np.int32(30))
    rows = {name: np.asarray(value)[0, :30] for name, value in rows.items()}
    assert (rows["num_episodes"] == 128).all()
    assert abs(rows["episode_return_sum"][0] / 128) < 0.4  # -1 or 1, equally likely
    assert rows["episode_return_sum"][-1] / 128 > 0.9
    assert (rows["log_ratio_abs_first"] <= 1e-5).all()
    assert state.alive.all()
    # The devices' environments draw apart.
    halves = np.asarray(state.carry.episode_length).reshape(2, -1)
    assert halves.shape == (2, 16)
