"""`init`, `iterate` and `train`: the parts by hand, theta_old, draws, schedules."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import CHOICE, SWING, flat, jit

from ppo_jax.config import validate
from ppo_jax.config.config import Hyper, Schedule
from ppo_jax.distributed import hosted, programs
from ppo_jax.envs.suites.probes import PROBES
from ppo_jax.kernels.collectives import ALONE
from ppo_jax.models.agent import acting_policy, assemble, env_params
from ppo_jax.rl import moments
from ppo_jax.rl.types import Window
from ppo_jax.training import objectives, trainer
from ppo_jax.training.batch import make_batch, scale_rewards
from ppo_jax.training.rollout import rollout

FEW_STEPS = {"max_steps_in_episode": 10}


def roll(config, hyper, state):
    """The rollout that `iterate` will take from `state`."""
    agent = assemble(config)
    key_rollout = trainer.iteration_keys(state)[:-1]
    policy = acting_policy(config, agent, state.params, state.observation_moments)
    world = env_params(agent.environment, hyper)
    return rollout(config, agent.environment, world, policy, state.carry, key_rollout)


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
    np.testing.assert_allclose(second[1].window.observation, np.clip(expected, -10, 10), atol=1e-3)


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
        reward, carried, statistics = scale_rewards(SWING, Hyper(), before, steps, ALONE)
        std = np.concatenate(returns).std()
        expected = np.clip(steps.reward / std, -10, 10)
        np.testing.assert_allclose(reward, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(carried, running, rtol=1e-4)
        np.testing.assert_allclose(after.discounted_return, running, rtol=1e-4)
        assert after.return_moments.count == statistics.count == len(np.concatenate(returns))
    plain = dataclasses.replace(SWING, normalize_rewards=False)
    unscaled, _, statistics = scale_rewards(plain, Hyper(), before, steps, ALONE)
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
    # and not for lack of change
    assert all(row["ratio_max"] > 1.001 for row in rows)


def break_observations(batch):
    """Observations as if the moments had been merged before the update instead of after it."""
    return batch._replace(window=Window(1.05 * batch.window.observation + 0.05))


def break_log_prob(batch):
    return batch._replace(log_prob_old=1.001 * batch.log_prob_old)


@pytest.mark.parametrize("broken", [break_observations, break_log_prob])
def test_ratios_of_a_broken_trainer_are_seen_not_to_be_one(swing, monkeypatch, broken):

    def make_broken(*args):
        batch, tally = make_batch(*args)
        return broken(batch), tally

    monkeypatch.setattr(trainer, "make_batch", make_broken)
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
    agent = assemble(config)

    @jit
    def gradients(state):
        _, steps, _, episodes = roll(config, hyper, state)
        batch, _ = make_batch(config, hyper, steps, steps.reward, episodes, ALONE)
        found = {}
        for name in objectives.SURROGATES:
            loss = partial(
                objectives.minibatch_loss,
                batch=batch,
                hyper=dataclasses.replace(hyper, value_coef=0.0),
                config=dataclasses.replace(config, objective=name),
                network=agent.network,
                family=agent.family,
            )
            found[name], (_, log_ratio) = jax.grad(loss, has_aux=True)(state.params)
        return found, log_ratio

    found, log_ratio = gradients(state)
    assert jnp.abs(log_ratio).max() <= 1e-5
    expected = flat(found["pg"])
    assert np.abs(expected).max() > 1e-3
    for name in set(objectives.SURROGATES) - {"pg"}:
        # log-ratios of 1e-6 leave the gradient with relative errors of that size
        np.testing.assert_allclose(
            flat(found[name]), expected, atol=2e-5 * np.abs(expected).max(), err_msg=name
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
    """inf breaks the first step. At 1e20 the parameters stay finite but their outputs do not.
    KL[old||new] is NaN then, which must not count as a KL that has reached its bound."""
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


def test_at_the_last_iteration_that_can_be_counted_schedules_keep_their_end():
    hyper = Hyper(learning_rate=Schedule(1e-3, 1e-4))
    state = trainer.init(CHOICE, hyper, jax.random.key(0))
    state = state._replace(iteration=jnp.int32(2**31 - 3))
    run = jit(lambda s: jax.lax.scan(lambda s, _: trainer.iterate(CHOICE, hyper, s), s, length=4))
    state, rows = run(state)
    np.testing.assert_allclose(rows["learning_rate"], [1e-4] * 4, rtol=1e-6)
    assert state.iteration == 2**31 - 1
    assert validate.KEYS_PER_ITERATION == trainer.NUM_KEYS
    # No iteration draws as an evaluation or an environment outside jax does.
    others = [hosted.STARTS, hosted.EVALUATION_STARTS, hosted.EVALUATION_DRAWS]
    assert min(programs.EVALUATION, *others) >= validate.KEYS


def test_an_environment_object_with_bounds_can_be_trained_on():
    """Bounds are arrays, so its `Config` has no hash: nothing on the way may ask for one."""
    config = dataclasses.replace(CHOICE, env=PROBES["action-choice-continuous"].environment)
    with pytest.raises(TypeError):
        hash(config)
    agent = assemble(config)
    assert agent.environment is config.env
    assert agent.family.name == "gaussian"
    assert jax.eval_shape(lambda: trainer.train(config, Hyper(), jax.random.key(0)))


def test_the_initial_log_std_and_the_environments_parameters_are_those_of_hyper(swing):
    hyper = Hyper(log_std_init=-1.25)
    state = trainer.init(SWING, hyper, jax.random.key(0))
    assert (state.params["log_std"] == -1.25).all()
    environment = assemble(SWING).environment
    assert env_params(environment, Hyper(env=FEW_STEPS)).max_steps_in_episode == 10
    assert env_params(environment, hyper).max_steps_in_episode == 200
