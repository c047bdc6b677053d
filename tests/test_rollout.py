"""The rollout against a plain loop, against hand-made environments, and at every kind of end."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ppo_jax import envs, moments, trainer
from ppo_jax.config import Config, Hyper
from ppo_jax.densities import Categorical
from ppo_jax.distributions import make_family
from ppo_jax.envs.interface import Box, Discrete, Environment
from ppo_jax.networks import Network
from ppo_jax.rollout import Policy, draw_chance, reset_all, reset_ended, rollout, values_where
from ppo_jax.types import Moments

FRESH = 1000.0  # added to the first observation of an episode: no other one is near it


class CounterParams(NamedTuple):
    terminate_after: Any = np.int32(10**6)
    truncate_after: Any = np.int32(10**6)
    spread: Any = np.int32(0)  # an episode's ends come 0 .. spread steps later, drawn at reset


class CounterState(NamedTuple):
    time: Any
    delay: Any
    name: Any


def counter() -> Environment:
    """Shows [steps in this episode + FRESH at its start, the episode's name]; pays the step."""

    def reset(key, params):
        key_delay, key_name = jax.random.split(key)
        state = CounterState(
            jnp.zeros((), jnp.int32),
            jax.random.randint(key_delay, (), 0, params.spread + 1),
            jax.random.uniform(key_name),
        )
        return jnp.stack([jnp.float32(FRESH), state.name]), state

    def transition(key, state, action, params):
        time = state.time + 1
        observation = jnp.stack([time.astype(jnp.float32), state.name])
        return (
            observation,
            state._replace(time=time),
            time.astype(jnp.float32),
            time >= params.terminate_after + state.delay,
            time >= params.truncate_after + state.delay,
            {},
        )

    return Environment(
        name="counter",
        reset=reset,
        transition=transition,
        default_params=CounterParams(),
        observation_shape=(2,),
        observation_dtype="float32",
        action_space=Discrete(3),
        max_episode_steps=None,
        override=lambda params, values: params._replace(**values),
    )


def first_number(params: Any, observation: Any) -> Any:
    """A critic whose value is known: V(observation) = 2 observation[0]."""
    return 2.0 * observation[..., 0]


def flat_policy(seen: Moments | None = None) -> Policy:
    """Uniform over three actions, with the known critic."""
    network = Network(
        init=lambda key, log_std_init=0.0: {},
        apply=lambda params, x: (
            Categorical(jnp.zeros((*x.shape[:-1], 3))),
            first_number(params, x),
        ),
        policy=lambda params, x: Categorical(jnp.zeros((*x.shape[:-1], 3))),
        value=first_number,
    )
    return Policy(network, make_family("categorical", Discrete(3), 1), {}, seen)


def play(num_steps, num_envs, params=None, rounds=1, policy=None, **settings):
    """Consecutive rollouts of the counter: the last carry and a list of (steps, raw, stats)."""
    environment = counter()
    params = params or CounterParams()
    policy = policy or flat_policy()
    config = Config(num_envs=num_envs, rollout_length=num_steps, **settings)
    carry = reset_all(environment, params, policy.family, num_envs, jax.random.key(0))
    run = jax.jit(lambda carry, key: rollout(config, environment, params, policy, carry, key))
    results = []
    for i in range(rounds):
        carry, *rest = run(carry, jax.random.key(100 + i))
        results.append(jax.device_get(rest))
    return jax.device_get(carry), results


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
    parts = trainer.assemble(config)
    env, env_params = gymnax.make(name)
    env_params = env_params.replace(**changes)
    ours = parts.environment.override(parts.environment.default_params, changes)
    state = trainer.init(config, Hyper(env=changes), jax.random.key(3))
    shape = parts.environment.observation_shape
    seen = Moments(jnp.float32(50.0), jnp.full(shape, 0.3), jnp.full(shape, 50.0 * 4.0))
    policy = trainer.acting_policy(config, parts, state.params, seen)
    # Louder than the first policy, so that actions depend on what is seen.
    params = jax.tree.map(lambda leaf: 3.0 * leaf, state.params)
    policy = policy._replace(params=params)

    run = jax.jit(lambda c, k: rollout(config, parts.environment, ours, policy, c, k))
    reset = jax.jit(lambda key: env.reset_env(key, env_params))
    advance = jax.jit(
        lambda key, state, action: (
            *env.step_env(key, state, action, env_params)[:4],
            env.is_truncated(env.step_env(key, state, action, env_params)[1], env_params),
        )
    )
    think = jax.jit(lambda x: parts.network.apply(params, (x - 0.3) / jnp.sqrt(4.0 + 1e-8)))

    num_envs = 20
    key_envs = jax.random.split(jax.random.key(3), 3)[1]
    keys = jax.random.split(jax.random.split(key_envs)[0], num_envs)
    here = [reset(key) for key in keys]
    totals, lengths = np.zeros(num_envs), np.zeros(num_envs, int)
    carry, num_ends = state.carry, {"terminated": 0, "truncated": 0}
    for round_key in (jax.random.key(7), jax.random.key(8)):
        carry, steps, raw, episodes = jax.device_get(run(carry, round_key))
        ended_returns, ended_lengths = [], []
        chance, key_reset = draw_chance(parts.family, 24, num_envs, round_key)
        for t in range(24):
            shown = jnp.stack([observation for observation, _ in here])
            np.testing.assert_allclose(raw[t], shown, atol=1e-5)
            np.testing.assert_allclose(steps.observation[t], (shown - 0.3) / 2.0, atol=1e-5)
            distribution, value = think(shown)
            action = parts.family.sample(chance.action[t], distribution, ())
            np.testing.assert_array_equal(steps.action[t], action)
            log_probs = jax.nn.log_softmax(distribution.logits)
            expected = np.take_along_axis(np.asarray(log_probs), np.asarray(action)[:, None], 1)
            np.testing.assert_allclose(steps.log_prob[t], expected[:, 0], atol=1e-5)
            np.testing.assert_allclose(steps.value[t], value, atol=1e-5)
            ended = np.zeros(num_envs, bool)
            value_next = np.zeros(num_envs)
            for b, env_key in enumerate(chance.key_env[t]):
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


# Resets -------------------------------------------------------------------------------------------


def fresh_starts(ended, key=0):
    """(observation, state) after `reset_ended` of counters in the middle of their episodes."""
    num_envs = len(ended)
    observation = jnp.full((num_envs, 2), -1.0)
    state = CounterState(*(jnp.full(num_envs, -1, dtype) for dtype in (int, int, float)))
    return jax.jit(
        lambda ended, key: reset_ended(
            counter(), CounterParams(), key, 0, ended, observation, state
        )
    )(jnp.asarray(ended), jax.random.key(key))


@pytest.mark.parametrize("num_ended", [0, 1, 7, 8, 9, 63, 64])
def test_whatever_ended_is_reset_to_a_start_of_its_own_and_nothing_else_is(num_ended):
    """64 environments have a pool of 8: from 9 on it must be drawn again."""
    ended = np.zeros(64, bool)
    ended[np.random.default_rng(num_ended).permutation(64)[:num_ended]] = True
    observation, state = jax.device_get(fresh_starts(ended))
    assert (observation[ended, 0] == FRESH).all()
    assert (observation[~ended] == -1.0).all()
    assert (state.time[ended] == 0).all()
    assert (state.time[~ended] == -1).all()
    np.testing.assert_array_equal(observation[ended, 1], state.name[ended])
    assert len(set(state.name[ended])) == num_ended


def test_start_states_have_the_environments_own_distribution():
    """2,048 uniform names, against the uniform law, and no echo between neighbours or pools."""
    name = np.asarray(fresh_starts(np.ones(2048, bool), key=1)[1].name)
    assert stats.kstest(name, "uniform").pvalue > 1e-3
    for lag in (1, 2048 // 8):
        # independent: the correlation of n pairs has standard error 1 / sqrt(n)
        correlation = np.corrcoef(name[:-lag], name[lag:])[0, 1]
        assert abs(correlation) < 4 / math.sqrt(2048 - lag)
    assert len(set(name)) > 2048 - 5  # float32 uniforms collide about 0.25 times


def test_fewer_than_eight_environments_still_get_starts_of_their_own():
    state = jax.device_get(fresh_starts(np.ones(3, bool))[1])
    assert len(set(state.name)) == 3


def test_environments_that_end_together_start_apart_within_a_rollout():
    params = CounterParams(terminate_after=np.int32(3))
    _, [(steps, raw, _)] = play(10, 32, params)
    starts = raw[:, :, 0] == FRESH
    assert starts.sum(axis=1).tolist() == [32 if t % 3 == 0 else 0 for t in range(10)]
    names = raw[starts][:, 1]
    assert len(set(names)) == len(names) == 4 * 32
    assert steps.terminated.sum() == 3 * 32


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
        assert episodes == (0.0, 0.0, 0.0)
        assert not (steps.terminated | steps.truncated).any()
        times = np.arange(5) + 5 * round_
        expected = np.where(times == 0, FRESH, times)
        np.testing.assert_array_equal(raw[:, :, 0], np.tile(expected[:, None], 3))
        np.testing.assert_array_equal(steps.value_next[-1], np.full(3, 2.0 * (times[-1] + 1)))
    assert (carry.episode_length == 10).all()
    assert (carry.episode_return == sum(range(1, 11))).all()


def test_episode_sums_are_those_counted_by_hand_over_several_rollouts():
    """Episodes of 3 to 9 steps, cut by rollouts of 7: return and length go on over the border."""
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
        assert tuple(episodes) == (count, return_sum, length_sum)
        assert count > 0
    np.testing.assert_array_equal(carry.episode_return, totals)
    np.testing.assert_array_equal(carry.episode_length, lengths)


@pytest.mark.parametrize("num_wanted", [0, 1, 2, 16, 17, 34, 35])
def test_values_of_the_wanted_rows_are_those_of_valuing_everything(num_wanted):
    """35 rows are valued in packs of 16."""
    rng = np.random.default_rng(num_wanted)
    observation = jnp.asarray(rng.normal(size=(7, 5, 2)), jnp.float32)
    wanted = np.zeros(35, bool)
    wanted[rng.permutation(35)[:num_wanted]] = True
    wanted = jnp.asarray(wanted.reshape(7, 5))
    seen = Moments(jnp.float32(4.0), jnp.full(2, 0.5), jnp.full(2, 36.0))
    for policy in (flat_policy(), flat_policy(seen)):
        everything = first_number({}, policy.see(observation))
        values = jax.jit(lambda o, w, policy=policy: values_where(policy, o, w))(
            observation, wanted
        )
        np.testing.assert_allclose(values, jnp.where(wanted, everything, 0.0), atol=1e-6)


@pytest.fixture
def on_gpu(monkeypatch):
    """What is traced within takes the ways of a GPU, and runs on this machine."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    yield
    monkeypatch.undo()


def test_the_ways_of_a_gpu_give_the_same_rollout_but_for_who_starts_where(monkeypatch):
    """Episodes of 3 steps, so that only their names depend on how start states are drawn."""
    params = CounterParams(truncate_after=np.int32(3))
    carry, [(steps, raw, episodes)] = play(17, 6, params)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    carry_gpu, [(steps_gpu, raw_gpu, episodes_gpu)] = play(17, 6, params)
    monkeypatch.undo()
    assert tuple(episodes) == tuple(episodes_gpu)
    np.testing.assert_array_equal(raw[..., 0], raw_gpu[..., 0])
    np.testing.assert_array_equal(carry.state.time, carry_gpu.state.time)
    for name in ("action", "log_prob", "value", "reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(steps, name), getattr(steps_gpu, name))
    np.testing.assert_allclose(steps.value_next, steps_gpu.value_next, atol=1e-6)
    assert steps.truncated.any()


def test_on_a_gpu_every_start_is_a_draw_of_its_own(on_gpu):
    params = CounterParams(terminate_after=np.int32(2))
    _, [(steps, raw, _)] = play(40, 8, params)
    starts = raw[1:][steps.terminated[:-1]]
    assert (starts[:, 0] == FRESH).all()
    assert len(set(starts[:, 1])) == len(starts) > 100
    assert stats.kstest(starts[:, 1], "uniform").pvalue > 1e-3


def test_on_a_gpu_no_loop_of_a_rollout_has_an_unknown_length(on_gpu):
    environment, policy = counter(), flat_policy()
    config = Config(num_envs=4, rollout_length=5)
    carry = reset_all(environment, CounterParams(), policy.family, 4, jax.random.key(0))
    program = jax.make_jaxpr(
        lambda carry, key: rollout(config, environment, CounterParams(), policy, carry, key)
    )(carry, jax.random.key(1))
    assert "while" not in str(program)
    assert "scan" in str(program)


# What the policy sees and does --------------------------------------------------------------------


def test_every_observation_is_seen_through_the_given_moments_from_the_first_step_on():
    """Also the successors that only the values see: the final ones and the one after T."""
    seen = Moments(jnp.float32(10.0), jnp.array([3.0, 0.5]), jnp.array([160.0, 10.0]))
    params = CounterParams(truncate_after=np.int32(4))
    _, [(steps, raw, _)] = play(6, 4, params, policy=flat_policy(seen))
    expected = np.clip((raw - [3.0, 0.5]) / np.sqrt([16.0, 1.0]), -10.0, 10.0)
    np.testing.assert_allclose(steps.observation, expected, atol=1e-5)
    np.testing.assert_allclose(steps.value, 2.0 * expected[..., 0], atol=1e-5)
    assert steps.value_next[3] == pytest.approx(2.0 * (4.0 - 3.0) / 4.0)  # final observation 4
    assert steps.value_next[5] == pytest.approx(2.0 * (2.0 - 3.0) / 4.0)  # after the rollout: 2
    assert (raw[0, :, 0] == FRESH).all()
    np.testing.assert_allclose(
        steps.observation, moments.standardise(seen, jnp.asarray(raw)), atol=1e-6
    )


def recorder() -> Environment:
    """Shows the action that it was given, and never ends."""

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
    parts = trainer.assemble(config)
    params = parts.network.init(jax.random.key(0), 0.5)
    policy = Policy(parts.network, parts.family, params, None)
    carry = reset_all(environment, (), parts.family, 6, jax.random.key(1))
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
    """Where the observation stands still, so does the action as long as its noise is held."""
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
    parts = trainer.assemble(config)
    params = parts.network.init(jax.random.key(0), 0.5)
    # Biases give the features something to multiply the noise with at observation 0.
    params = jax.tree.map(lambda leaf: leaf + 0.3, params)
    policy = Policy(parts.network, parts.family, params, None)
    carry = reset_all(still, (), parts.family, 6, jax.random.key(1))
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


def test_rollouts_of_the_same_key_are_equal_and_of_another_key_are_not():
    environment = envs.make("CartPole-v1")
    config = Config(num_envs=4, rollout_length=16)
    parts = trainer.assemble(config)
    state = trainer.init(config, Hyper(), jax.random.key(0))
    policy = trainer.acting_policy(config, parts, state.params, state.observation_moments)
    run = jax.jit(
        lambda key: rollout(
            config, environment, environment.default_params, policy, state.carry, key
        )[1]
    )
    first, again, other = (run(jax.random.key(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.action, again.action)
    assert (np.asarray(first.action) != np.asarray(other.action)).any()
    # Within a rollout every step and every environment has draws of its own.
    rows = np.asarray(first.action)
    assert len(np.unique(rows, axis=0)) > 8
    assert len(np.unique(rows, axis=1).T) > 1
