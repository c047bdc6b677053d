"""The rollout against a plain loop, against hand-made environments, and at every kind of end."""

from __future__ import annotations

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counter import FRESH, CounterParams, counter, flat_policy, play
from scipy import stats

from ppo_jax.config.config import Config, Hyper
from ppo_jax.envs import registration
from ppo_jax.kernels import backend
from ppo_jax.kernels.select import make_refill
from ppo_jax.models.agent import acting_policy, assemble
from ppo_jax.rl import moments
from ppo_jax.rl.types import Moments, Window
from ppo_jax.training import trainer
from ppo_jax.training.draws import draw_all, refill_blocks
from ppo_jax.training.rollout import reset_all, rollout

# Against an unrolled loop -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        # moves to a random side a third of the time; both start and goal are drawn
        (
            "FourRooms-misc",
            {"max_steps_in_episode": 9, "resample_init_pos": True, "resample_goal_pos": True},
        ),
        ("CartPole-v1", {"max_steps_in_episode": 34}),
    ],
)
def test_a_rollout_is_the_plain_loop_over_gymnax_own_functions(name, changes):
    config = Config(
        env=name,
        num_envs=20,
        rollout_length=24,
        num_minibatches=1,
        hidden_sizes=(8,),
        normalize_observations=True,
        orthogonal_init=False,
    )
    agent = assemble(config)
    env, env_params = gymnax.make(name)
    env_params = env_params.replace(**changes)
    ours = agent.environment.override(agent.environment.default_params, changes)
    state = trainer.init(config, Hyper(env=changes), jax.random.key(3))
    shape = agent.environment.observation_shape
    seen = Moments(jnp.float32(50.0), jnp.full(shape, 0.3), jnp.full(shape, 50.0 * 4.0))
    policy = acting_policy(config, agent, state.params, seen)
    # Larger logits than the first policy's, so that actions depend on observations.
    params = jax.tree.map(lambda leaf: 3.0 * leaf, state.params)
    policy = policy._replace(params=params)

    run = jax.jit(lambda c, k: rollout(config, agent.environment, ours, policy, c, k))
    reset = jax.jit(lambda key: env.reset_env(key, env_params))
    advance = jax.jit(
        lambda key, state, action: (
            *env.step_env(key, state, action, env_params)[:4],
            env.is_truncated(env.step_env(key, state, action, env_params)[1], env_params),
        )
    )
    think = jax.jit(lambda x: agent.network.apply(params, Window((x - 0.3) / jnp.sqrt(4.0 + 1e-8))))

    num_envs = 20
    key_envs = jax.random.split(jax.random.key(3), 3)[1]
    keys = jax.random.split(jax.random.split(key_envs)[0], num_envs)
    here = [reset(key) for key in keys]
    totals, lengths = np.zeros(num_envs), np.zeros(num_envs, int)
    carry, num_ends = state.carry, {"terminated": 0, "truncated": 0}
    for round_key in (jax.random.key(7), jax.random.key(8)):
        carry, steps, raw, episodes = jax.device_get(run(carry, round_key))
        ended_returns, ended_lengths = [], []
        draws, *_ = draw_all(agent.family, 24, num_envs, round_key)
        key_reset = jax.random.split(round_key, 4)[2]
        for t in range(24):
            shown = jnp.stack([observation for observation, _ in here])
            np.testing.assert_allclose(raw[t], shown, atol=1e-5)
            np.testing.assert_allclose(steps.window.observation[t], (shown - 0.3) / 2.0, atol=1e-5)
            distribution, value = think(shown)
            action = agent.family.sample(draws.action[t], distribution, ())
            np.testing.assert_array_equal(steps.action[t], action)
            log_probs = jax.nn.log_softmax(distribution.logits)
            expected = np.take_along_axis(np.asarray(log_probs), np.asarray(action)[:, None], 1)
            np.testing.assert_allclose(steps.log_prob[t], expected[:, 0], atol=1e-5)
            np.testing.assert_allclose(steps.value[t], value, atol=1e-5)
            ended = np.zeros(num_envs, bool)
            value_next = np.zeros(num_envs)
            for b, env_key in enumerate(draws.key_env[t]):
                observation, env_state, reward, terminated, truncated = advance(
                    env_key, here[b][1], action[b]
                )
                truncated = bool(truncated) and not bool(terminated)
                assert steps.reward[t, b] == pytest.approx(float(reward), abs=1e-5)
                assert steps.terminated[t, b] == bool(terminated)
                assert steps.truncated[t, b] == truncated
                here[b] = (observation, env_state)
                totals[b] += float(reward)
                lengths[b] += 1
                ended[b] = bool(terminated) or truncated
                num_ends["terminated"] += bool(terminated)
                num_ends["truncated"] += truncated
            following = np.asarray(think(jnp.stack([o for o, _ in here]))[1])
            value_next = np.where(steps.terminated[t], 0.0, following)
            np.testing.assert_allclose(steps.value_next[t], value_next, atol=1e-5)
            for rank, b in enumerate(np.flatnonzero(ended)):
                here[b] = reset(jax.random.fold_in(key_reset, t * num_envs + rank))
                ended_returns.append(totals[b])
                ended_lengths.append(lengths[b])
                totals[b], lengths[b] = 0.0, 0
        assert episodes.num_episodes == len(ended_returns)
        assert episodes.return_sum == pytest.approx(sum(ended_returns), abs=1e-5)
        assert episodes.length_sum == sum(ended_lengths)
        np.testing.assert_array_equal(carry.episode_length, lengths)
        np.testing.assert_allclose(carry.episode_return, totals, atol=1e-5)
    assert min(num_ends.values()) > 0


# Ends and values ----------------------------------------------------------------------------------


def test_a_truncation_is_valued_by_its_final_observation_and_not_by_the_fresh_one():
    params = CounterParams(truncate_after=np.int32(4))
    _, [(steps, _, _)] = play(9, 3, params)
    # V = 2 observation[0]: 2000 at a start, 2 time elsewhere. Episodes of 4, 4 and 1 steps.
    seen = [2000.0, 2.0, 4.0, 6.0]
    following = [2.0, 4.0, 6.0, 8.0]  # 8 is V(final observation); 2000 would be the reset's
    np.testing.assert_array_equal(steps.value[:, 0], [*seen, *seen, 2000.0])
    np.testing.assert_array_equal(steps.value_next[:, 0], [*following, *following, 2.0])
    assert steps.truncated[:, 0].tolist() == [False, False, False, True] * 2 + [False]
    assert not steps.terminated.any()


def test_the_last_step_of_a_rollout_is_valued_like_any_other():
    """Ends exactly at T: V(final observation) if truncated, 0 if terminated."""
    _, [(steps, _, _)] = play(4, 2, CounterParams(truncate_after=np.int32(4)))
    assert (steps.value_next[-1] == 8.0).all()
    _, [(steps, _, _)] = play(4, 2, CounterParams(terminate_after=np.int32(4)))
    assert (steps.value_next[-1] == 0.0).all()
    _, [(steps, _, _)] = play(4, 2)
    assert (steps.value_next[-1] == 8.0).all()


def test_termination_wins_where_both_flags_are_set():
    both = CounterParams(terminate_after=np.int32(4), truncate_after=np.int32(4))
    _, [(steps, _, episodes)] = play(8, 2, both)
    assert steps.terminated[3].all()
    assert not steps.truncated.any()
    assert (steps.value_next[3] == 0.0).all()
    assert episodes.num_episodes == 4


def test_time_limits_as_terminations_are_an_ablation_that_values_them_at_zero():
    params = CounterParams(truncate_after=np.int32(4))
    _, [(steps, _, episodes)] = play(8, 2, params, time_limits="termination")
    assert steps.terminated[3].all()
    assert not steps.truncated.any()
    assert (steps.value_next[3] == 0.0).all()
    assert (steps.value_next[2] == 6.0).all()
    assert episodes.num_episodes == 4


def test_environments_that_never_finish_are_carried_on():
    carry, results = play(5, 3, rounds=2)
    for round_, (steps, raw, episodes) in enumerate(results):
        assert episodes[:3] == (0.0, 0.0, 0.0)
        assert not (steps.terminated | steps.truncated).any()
        times = np.arange(5) + 5 * round_
        expected = np.where(times == 0, FRESH, times)
        np.testing.assert_array_equal(raw[:, :, 0], np.tile(expected[:, None], 3))
        np.testing.assert_array_equal(steps.value_next[-1], np.full(3, 2.0 * (times[-1] + 1)))
    assert (carry.episode_length == 10).all()
    assert (carry.episode_return == sum(range(1, 11))).all()


def test_episode_sums_are_those_counted_by_hand_over_several_rollouts():
    """Episodes of 3 to 9 steps, cut by rollouts of 7: return and length continue."""
    params = CounterParams(
        terminate_after=np.int32(3), truncate_after=np.int32(8), spread=np.int32(6)
    )
    carry, results = play(7, 16, params, rounds=4)
    totals, lengths = np.zeros(16), np.zeros(16)
    for steps, _, episodes in results:
        count, return_sum, length_sum = 0, 0.0, 0.0
        for t in range(7):
            totals += steps.reward[t]
            lengths += 1
            for b in np.flatnonzero(steps.terminated[t] | steps.truncated[t]):
                count, return_sum, length_sum = (
                    count + 1,
                    return_sum + totals[b],
                    length_sum + lengths[b],
                )
                # an episode of n steps pays 1 + 2 + .. + n
                assert totals[b] == lengths[b] * (lengths[b] + 1) / 2
                totals[b] = lengths[b] = 0.0
        assert episodes[:3] == (count, return_sum, length_sum)
        assert count > 0
    np.testing.assert_array_equal(carry.episode_return, totals)
    np.testing.assert_array_equal(carry.episode_length, lengths)


# Inputs and actions of the policy -----------------------------------------------------------------


def test_every_observation_is_seen_through_the_given_moments_from_the_first_step_on():
    """Also the successors that only the values use: the final ones and the one after T."""
    seen = Moments(jnp.float32(10.0), jnp.array([3.0, 0.5]), jnp.array([160.0, 10.0]))
    params = CounterParams(truncate_after=np.int32(4))
    _, [(steps, raw, _)] = play(6, 4, params, policy=flat_policy(seen))
    expected = np.clip((raw - [3.0, 0.5]) / np.sqrt([16.0, 1.0]), -10.0, 10.0)
    np.testing.assert_allclose(steps.window.observation, expected, atol=1e-5)
    np.testing.assert_allclose(steps.value, 2.0 * expected[..., 0], atol=1e-5)
    assert steps.value_next[3] == pytest.approx(2.0 * (4.0 - 3.0) / 4.0)  # final observation 4
    assert steps.value_next[5] == pytest.approx(2.0 * (2.0 - 3.0) / 4.0)  # after the rollout: 2
    assert (raw[0, :, 0] == FRESH).all()
    np.testing.assert_allclose(
        steps.window.observation, moments.standardise(seen, jnp.asarray(raw)), atol=1e-6
    )


def test_rollouts_of_the_same_key_are_equal_and_of_another_key_are_not():
    environment = registration.make("CartPole-v1")
    config = Config(num_envs=4, rollout_length=16)
    agent = assemble(config)
    state = trainer.init(config, Hyper(), jax.random.key(0))
    policy = acting_policy(config, agent, state.params, state.observation_moments)
    run = jax.jit(
        lambda key: rollout(
            config, environment, environment.default_params, policy, state.carry, key
        )[1]
    )
    first, again, other = (run(jax.random.key(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.action, again.action)
    assert (np.asarray(first.action) != np.asarray(other.action)).any()
    # Within a rollout every step and every environment has its own draws.
    rows = np.asarray(first.action)
    assert len(np.unique(rows, axis=0)) > 8
    assert len(np.unique(rows, axis=1).T) > 1


# Starts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["plain", "cpu", "gpu"])
def test_environments_that_end_together_start_apart(form):
    with backend.use(form):
        _, [(steps, raw, _)] = play(10, 32, CounterParams(terminate_after=np.int32(3)))
    starts = raw[:, :, 0] == FRESH
    assert starts.sum(axis=1).tolist() == [32 if t % 3 == 0 else 0 for t in range(10)]
    names = raw[starts][:, 1]
    assert len(set(names)) == len(names) == 4 * 32
    assert steps.terminated.sum() == 3 * 32


def test_on_a_gpu_start_states_have_the_environments_own_distribution():
    with backend.use("gpu"):
        _, [(steps, raw, _)] = play(40, 8, CounterParams(terminate_after=np.int32(2)))
    starts = raw[1:][steps.terminated[:-1]]
    assert (starts[:, 0] == FRESH).all()
    assert len(set(starts[:, 1])) == len(starts) > 100
    assert stats.kstest(starts[:, 1], "uniform").pvalue > 1e-3


def test_the_form_of_a_gpu_gives_the_same_rollout_but_for_who_starts_where():
    """Episodes of 3 steps, so that only their names depend on how start states are drawn."""
    params = CounterParams(truncate_after=np.int32(3))
    carry, [(steps, raw, episodes)] = play(17, 6, params)
    with backend.use("gpu"):
        carry_gpu, [(steps_gpu, raw_gpu, episodes_gpu)] = play(17, 6, params)
    assert tuple(episodes) == tuple(episodes_gpu)
    np.testing.assert_array_equal(raw[..., 0], raw_gpu[..., 0])
    np.testing.assert_array_equal(carry.state.time, carry_gpu.state.time)
    for name in ("action", "log_prob", "value", "reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(steps, name), getattr(steps_gpu, name))
    np.testing.assert_allclose(steps.value_next, steps_gpu.value_next, atol=1e-6)
    assert steps.truncated.any()


def test_on_a_gpu_no_loop_of_a_rollout_has_an_unknown_length():
    environment, policy = counter(), flat_policy()
    config = Config(num_envs=4, rollout_length=5)
    carry = reset_all(environment, CounterParams(), policy, 4, jax.random.key(0))
    with backend.use("gpu"):
        program = jax.make_jaxpr(
            lambda carry, key: rollout(config, environment, CounterParams(), policy, carry, key)
        )(carry, jax.random.key(1))
    assert "while" not in str(program)
    assert "scan" in str(program)


# The environment's own metrics --------------------------------------------------------------------


def test_own_metrics_are_read_at_the_last_step_of_each_episode():
    own = {"metrics": lambda info: {"age": info["time"], "is_old": info["time"] > 3}}
    _, found = play(8, 3, CounterParams(terminate_after=np.int32(3)), rounds=2, **own)
    *_, first = found[0]
    *_, second = found[1]
    assert (first.num_episodes, second.num_episodes) == (6, 9)  # 2 and 3 of each environment
    assert first.metric_sums == {"age": 18.0, "is_old": 0.0}
    assert second.metric_sums == {"age": 27.0, "is_old": 0.0}


def test_an_environment_without_metrics_has_no_more_leaves():
    *_, stats = play(2, 2)[1][0]
    assert len(jax.tree.leaves(stats)) == 3


def test_start_states_are_drawn_from_a_buffer_that_each_rollout_fills_anew():
    """The counter's names tell its episodes apart: one step each, 4 x 16 of them a rollout."""
    params = CounterParams(terminate_after=np.int32(1))
    _, found = play(16, 4, params, rounds=2, start_states=6)
    names = [np.unique(raw[1:, :, 1]) for _, raw, *_ in found]  # of the episodes begun in it
    assert [len(each) for each in names] == [6, 6]
    assert not np.intersect1d(*names).size


def test_a_block_of_environments_refills_as_if_it_were_alone():
    """States may hold an array without numbers, as MuJoCo's do."""
    keys = jax.random.split(jax.random.key(3), 2)
    mask = jnp.arange(8) % 3 == 0
    old = {"x": jnp.full((8, 2), -1.0), "nothing": jnp.zeros((8, 0))}

    def draw(key):
        return {"x": jax.random.uniform(key, (2,)), "nothing": jnp.zeros(0)}

    found = refill_blocks(keys, 4)((), jnp.int32(1), mask, draw, old)
    for block in range(2):
        rows = slice(4 * block, 4 * block + 4)
        own = jax.tree.map(lambda leaf, rows=rows: leaf[rows], old)
        expected = make_refill(keys[block], 4, 4)[1]((), jnp.int32(1), mask[rows], draw, own)
        np.testing.assert_array_equal(found["x"][rows], expected["x"])
    assert found["nothing"].shape == (8, 0)
    assert ((found["x"] >= 0.0) == mask[:, None]).all()
