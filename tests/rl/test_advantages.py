"""GAE against its definition as a sum, rlax, and an enumerated MDP; truncation; standardising."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
import tabular
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_jax.kernels import backend
from ppo_jax.kernels.collectives import Across
from ppo_jax.rl.advantages import gae, mean_and_variance, standardise, successor_values

gae_jit = jax.jit(gae)
successor_jit = jax.jit(successor_values)


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def random_steps(seed: int, T: int, B: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    end = rng.random((T, B))
    return {
        "reward": rng.normal(size=(T, B)),
        "value": rng.normal(size=(T, B)),
        "value_last": rng.normal(size=B),
        "value_final": rng.normal(size=(T, B)),
        "terminated": end < 0.2,
        "truncated": (end > 0.1) & (end < 0.4),  # some steps are both
    }


def successors(s: dict[str, np.ndarray]) -> np.ndarray:
    return successor_jit(
        s["value"], s["value_last"], s["value_final"], s["terminated"], s["truncated"]
    )


def literal_gae(s: dict[str, np.ndarray], gamma: float, gae_lambda: float) -> np.ndarray:
    """sum_l (gamma lambda)^l delta_{t+l} up to the end of the episode: eq. 16, literally."""
    T, B = s["reward"].shape
    advantage = np.zeros((T, B))
    for t in range(T):
        for b in range(B):
            for k in range(t, T):
                following = s["value"][k + 1, b] if k + 1 < T else s["value_last"][b]
                if s["truncated"][k, b]:
                    following = s["value_final"][k, b]
                if s["terminated"][k, b]:
                    following = 0.0
                delta = s["reward"][k, b] + gamma * following - s["value"][k, b]
                advantage[t, b] += (gamma * gae_lambda) ** (k - t) * delta
                if s["terminated"][k, b] or s["truncated"][k, b]:
                    break
    return advantage


def ours(s: dict[str, np.ndarray], gamma: float, gae_lambda: float) -> tuple:
    ended = s["terminated"] | s["truncated"]
    return gae_jit(s["reward"], s["value"], successors(s), ended, gamma, gae_lambda)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(1, 1), (2, 3), (7, 1), (23, 4)]),
    gamma=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0)),
    gae_lambda=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0)),
)
def test_gae_is_the_sum_of_its_definition(seed, shape, gamma, gae_lambda) -> None:
    steps = random_steps(seed, *shape)
    with jax.enable_x64(True):
        advantage, target = ours(steps, gamma, gae_lambda)
    expected = literal_gae(steps, gamma, gae_lambda)
    np.testing.assert_allclose(advantage, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(target, expected + steps["value"], rtol=1e-10, atol=1e-10)


def test_the_form_of_a_gpu_gives_the_same_advantages() -> None:
    steps = random_steps(3, 37, 5)
    ended = steps["terminated"] | steps["truncated"]
    given = (steps["reward"], steps["value"], successors(steps), ended, 0.97, 0.9)
    with backend.use("gpu"):
        program = jax.jit(gae).lower(*given)
    assert "while" not in program.as_text()
    advantage, target = program.compile()(*given)
    expected = literal_gae(steps, 0.97, 0.9)
    np.testing.assert_allclose(advantage, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(target, expected + steps["value"], rtol=1e-4, atol=1e-5)


def test_three_steps_by_hand() -> None:
    """gamma = lambda = 1/2; V = 1, 2, 4; V(s_3) = 8; r = 1, 1, 1.

    delta = 1 + 1 - 1, 1 + 2 - 2, 1 + 4 - 4 = 1, 1, 1; A_2 = 1, A_1 = 1 + 1/4, A_0 = 1 + 5/16.
    """
    one, value = np.ones(3), np.array([1.0, 2.0, 4.0])
    advantage, target = gae(one, value, np.array([2.0, 4.0, 8.0]), one > 1.0, 0.5, 0.5)
    np.testing.assert_array_equal(advantage, [21 / 16, 5 / 4, 1.0])
    np.testing.assert_array_equal(target, [37 / 16, 13 / 4, 5.0])


def test_rlax_gae_agrees_where_episodes_only_terminate() -> None:
    s = random_steps(0, 23, 4)
    s["truncated"] = np.zeros_like(s["truncated"])
    advantage, _ = ours(s, 0.97, 0.9)
    for b in range(4):
        theirs = rlax.truncated_generalized_advantage_estimation(
            jnp.asarray(s["reward"][:, b]),
            jnp.asarray(0.97 * (1.0 - s["terminated"][:, b])),
            0.9,
            jnp.append(s["value"][:, b], s["value_last"][b]),
        )
        np.testing.assert_allclose(advantage[:, b], theirs, atol=1e-12)


def test_value_targets_are_the_lambda_returns_of_rlax_with_truncations_too() -> None:
    """A lambda of 0 at an episode's last step makes rlax bootstrap there and stop."""
    s = random_steps(1, 23, 4)
    _, target = ours(s, 0.97, 0.9)
    value_next, ended = successors(s), s["terminated"] | s["truncated"]
    for b in range(4):
        theirs = rlax.lambda_returns(
            jnp.asarray(s["reward"][:, b]),
            jnp.full(23, 0.97),
            value_next[:, b],
            jnp.asarray(0.9 * (1.0 - ended[:, b])),
        )
        np.testing.assert_allclose(target[:, b], theirs, atol=1e-12)


def test_lambda_zero_is_the_one_step_error() -> None:
    s = random_steps(2, 9, 3)
    advantage, _ = ours(s, 0.9, 0.0)
    np.testing.assert_allclose(advantage, s["reward"] + 0.9 * successors(s) - s["value"])


def test_lambda_one_is_the_discounted_return_less_the_value() -> None:
    s = random_steps(3, 9, 3)
    _, target = ours(s, 0.9, 1.0)
    value_next, ended = successors(s), s["terminated"] | s["truncated"]
    total = np.array(value_next[-1])
    for t in reversed(range(9)):
        total = s["reward"][t] + 0.9 * np.where(ended[t], value_next[t], total)
        np.testing.assert_allclose(target[t], total, rtol=1e-12)


def test_the_value_that_follows_each_kind_of_step() -> None:
    #                     goes on   terminated  truncated   both    last of the rollout
    value = jnp.array([[1.0], [2.0], [3.0], [4.0], [5.0]])
    terminated = jnp.array([[False], [True], [False], [True], [False]])
    truncated = jnp.array([[False], [False], [True], [True], [False]])
    value_final = jnp.array([[10.0], [20.0], [30.0], [40.0], [50.0]])
    following = successor_values(value, jnp.array([6.0]), value_final, terminated, truncated)
    np.testing.assert_array_equal(following[:, 0], [2.0, 0.0, 30.0, 0.0, 6.0])


def test_the_last_step_of_a_rollout_may_be_truncated_or_terminated_too() -> None:
    yes, no = jnp.array([[True]]), jnp.array([[False]])
    value, last, final = jnp.array([[1.0]]), jnp.array([6.0]), jnp.array([[7.0]])
    assert float(successor_values(value, last, final, no, yes)[0, 0]) == 7.0
    assert float(successor_values(value, last, final, yes, no)[0, 0]) == 0.0


@pytest.mark.parametrize("kind", ["terminated", "truncated"])
def test_nothing_before_an_episodes_end_depends_on_anything_after_it(kind: str) -> None:
    """The gradient of A_0 .. A_3 to rewards and values of steps 4 .. 7 is exactly 0."""
    rng = np.random.default_rng(4)
    end = np.zeros((8, 2), bool)
    end[3] = True
    none = np.zeros_like(end)
    terminated, truncated = (end, none) if kind == "terminated" else (none, end)

    def before_the_end(reward, value, value_last, value_final):
        value_next = successor_values(value, value_last, value_final, terminated, truncated)
        advantage, target = gae(reward, value, value_next, end, 0.9, 0.9)
        return jnp.sum(jnp.sin(advantage[:4])) + jnp.sum(jnp.cos(target[:4]))

    arguments = [rng.normal(size=shape) for shape in ((8, 2), (8, 2), (2,), (8, 2))]
    reward, value, last, final = jax.grad(before_the_end, (0, 1, 2, 3))(*arguments)
    for gradient in (reward[4:], value[4:], last, final[4:], final[:3]):
        np.testing.assert_array_equal(gradient, 0.0)
    assert np.all(np.asarray(reward[:4]) != 0.0)
    assert np.all(np.asarray(value[:4]) != 0.0)
    if kind == "truncated":
        assert np.all(np.asarray(final[3]) != 0.0)
    else:
        np.testing.assert_array_equal(final, 0.0)


def test_scaled_rewards_and_values_scale_the_advantages_and_nothing_else() -> None:
    s = random_steps(5, 12, 3)
    scaled = {name: 8.0 * x if name.startswith(("reward", "value")) else x for name, x in s.items()}
    advantage, eightfold = (ours(x, 0.9, 0.9)[0] for x in (s, scaled))
    np.testing.assert_array_equal(eightfold, 8.0 * advantage)  # a power of two: exact
    np.testing.assert_allclose(
        *(standardise(a, *mean_and_variance(a)) for a in (advantage, eightfold)), atol=1e-6
    )


def test_permuted_environments_permute_the_advantages() -> None:
    s, order = random_steps(6, 7, 3), np.array([2, 0, 1])
    permuted = {name: x[..., order] for name, x in s.items()}
    np.testing.assert_array_equal(ours(permuted, 0.9, 0.9)[0], ours(s, 0.9, 0.9)[0][:, order])


def test_shapes_that_differ_are_refused() -> None:
    row, table = jnp.zeros(3), jnp.zeros((3, 2))
    with pytest.raises(AssertionError):
        gae(table, row, row, row > 0, 0.9, 0.9)


# An enumerated MDP --------------------------------------------------------------------------------


def expected_advantage(
    mdp: tabular.MDP, policy: np.ndarray, value: np.ndarray, gae_lambda: float, cut: int | None
) -> np.ndarray:
    """E[A_GAE at t = 0 | s, a], [WIDTH, A], by enumeration; a time limit after `cut` steps."""
    paths = tabular.enumerate_all(mdp, policy)
    truncated = np.zeros_like(paths.terminated)
    if cut is not None:
        truncated[cut - 1] = paths.alive[cut - 1] & ~paths.terminated[cut - 1]
    padded = np.append(value, 0.0)
    value_next = successor_values(
        padded[paths.state],
        np.full(paths.state.shape[1], 1e6),  # no value after the last layer may be read
        padded[paths.successor],
        paths.terminated,
        truncated,
    )
    ended = paths.terminated | truncated
    advantage, _ = gae(paths.reward, padded[paths.state], value_next, ended, mdp.gamma, gae_lambda)
    table = np.zeros((tabular.WIDTH, tabular.ACTIONS))
    weight = np.zeros_like(table)
    first = (paths.state[0], paths.action[0])
    np.add.at(weight, first, paths.probability)
    np.add.at(table, first, paths.probability * np.asarray(advantage[0]))
    return table / weight


@pytest.mark.parametrize("cut", [None, 1, 2])
@pytest.mark.parametrize("gae_lambda", [0.0, 0.3, 0.95, 1.0])
def test_with_the_true_values_gae_is_unbiased_for_every_lambda(gae_lambda: float, cut) -> None:
    """E[A_GAE(lambda) | s, a] = A^pi(s, a), by enumeration; a truncation changes nothing."""
    mdp = tabular.random_mdp(11)
    rng = np.random.default_rng(12)
    policy = tabular.softmax(rng.normal(size=(tabular.STATES, tabular.ACTIONS)))
    value = np.asarray(tabular.values(mdp, policy))
    estimate = expected_advantage(mdp, policy, value, gae_lambda, cut)
    exact = tabular.advantages(mdp, policy)[: tabular.WIDTH]
    np.testing.assert_allclose(estimate, exact, atol=1e-10)


def test_with_wrong_values_only_lambda_one_stays_unbiased_up_to_the_baseline() -> None:
    """The test above can fail: wrong values shift the one-step estimate between actions."""
    mdp = tabular.random_mdp(11)
    rng = np.random.default_rng(12)
    policy = tabular.softmax(rng.normal(size=(tabular.STATES, tabular.ACTIONS)))
    exact = tabular.advantages(mdp, policy)[: tabular.WIDTH]
    value = np.asarray(tabular.values(mdp, policy)) + rng.normal(size=tabular.STATES)

    def error(gae_lambda: float) -> float:
        off = expected_advantage(mdp, policy, value, gae_lambda, None) - exact
        return np.abs(off - off.mean(axis=1, keepdims=True)).max()

    assert error(1.0) < 1e-10
    assert error(0.0) > 1e-2


# Standardising ------------------------------------------------------------------------------------


def test_standardised_advantages_have_mean_zero_and_standard_deviation_one() -> None:
    x = 3.0 + 5.0 * np.random.default_rng(7).normal(size=1000)
    z = np.asarray(standardise(x, *mean_and_variance(x)))
    assert z.mean() == pytest.approx(0.0, abs=1e-12)
    assert z.std() == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_allclose(z, (x - x.mean()) / x.std(), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("constant", [0.0, 1e-3, -7.3, 123456.7])
def test_a_constant_advantage_is_standardised_to_zero(constant: float) -> None:
    """In float32 the mean of equal numbers may have a rounding error."""
    with jax.enable_x64(False):
        x = jnp.full(1000, constant, jnp.float32)
        np.testing.assert_allclose(standardise(x, *mean_and_variance(x)), 0.0, atol=0.05)


def test_mean_and_variance_are_numpys_and_span_all_devices() -> None:
    x = np.random.default_rng(8).normal(size=(2, 50)) + np.array([[0.0], [4.0]])
    np.testing.assert_allclose(mean_and_variance(x), (x.mean(), x.var()), rtol=1e-12)
    across = Across(("devices",))
    over_devices = jax.vmap(lambda part: mean_and_variance(part, across), axis_name="devices")
    for result, expected in zip(over_devices(x), (x.mean(), x.var()), strict=True):
        np.testing.assert_allclose(result, np.full(2, expected), rtol=1e-12)
