"""Invariants of the compiled loop: bits, compilations, memory, failures, evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.distributed import layout as layouts
from ppo_jax.distributed import population, programs
from ppo_jax.envs import registration
from ppo_jax.envs.interface import Environment
from ppo_jax.training import schedules, trainer

SMALL = Config(
    env="CartPole-v1",
    num_envs=8,
    rollout_length=8,
    num_epochs=2,
    num_minibatches=2,
    hidden_sizes=(8,),
    normalize_observations=True,
    normalize_rewards=True,
    orthogonal_init=False,
    total_env_steps=64 * 4,
)
HYPER = Hyper(learning_rate=1e-2, entropy_coef=0.01)
ONE = (jax.devices()[0],)
TWO = tuple(jax.devices()[:2])


def bits(tree: Any) -> list[np.ndarray]:
    """Leaves as numpy arrays, keys as their data."""

    def plain(leaf: Any) -> np.ndarray:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    return [plain(leaf) for leaf in jax.tree.leaves(tree)]


def assert_same_bits(a: Any, b: Any) -> None:
    for x, y in zip(bits(a), bits(b), strict=True):
        np.testing.assert_array_equal(x, y)


def member(tree: Any, k: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[k], tree)


@contextmanager
def counted_compilations() -> Iterator[list[float]]:
    """Every compilation (or its fetch from the cache) within the block appends one number."""
    found: list[float] = []

    def listen(name: str, seconds: float, **_: Any) -> None:
        if name == "/jax/core/compile/backend_compile_duration":
            found.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


class Program(NamedTuple):
    """A compiled loop and a way to make fresh states for it."""

    layout: layouts.Layout
    chunk: Any
    start: Any  # first seed -> population

    def run(self, first_seed: int, lengths: tuple[int, ...], hyper: Hyper = HYPER) -> Any:
        state, rows = self.start(first_seed), []
        for n in lengths:
            state, fresh = self.chunk(schedules.as_arrays(SMALL, hyper), state, np.int32(n))
            rows.append({name: np.asarray(value)[:, :n] for name, value in fresh.items()})
        joined = {name: np.concatenate([r[name] for r in rows], axis=1) for name in rows[0]}
        return jax.device_get(state), joined


def program(kind: str, devices: tuple[Any, ...], num_seeds: int) -> Program:
    layout = layouts.Layout(kind, devices, num_seeds)
    arrays = schedules.as_arrays(SMALL, HYPER)
    return Program(
        layout,
        programs.make_chunk(SMALL, layout),
        lambda seed: population.init_population(SMALL, arrays, seed, layout),
    )


@pytest.fixture(scope="module")
def in_a_row() -> Program:
    """Three members on one device, one after the other."""
    return program("map", ONE, 3)


@pytest.fixture(scope="module")
def side_by_side() -> Program:
    """Three members on one device, on a vmap axis."""
    return program("vmap", ONE, 3)


# Bits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["in_a_row", "side_by_side"])
def test_the_length_of_a_chunk_changes_no_bit(kind, request):
    built = request.getfixturevalue(kind)
    state, rows = built.run(0, (4,))
    for lengths in ((1, 1, 1, 1), (3, 1)):
        other, other_rows = built.run(0, lengths)
        assert_same_bits(state, other)
        assert_same_bits(rows, other_rows)
    assert (state.iteration == 4).all()
    # The compared bits are those of a run that learns.
    start = jax.device_get(built.start(0))
    assert all((a != b).any() for a, b in zip(bits(start.params), bits(state.params)))


@pytest.mark.parametrize("kind", ["in_a_row", "side_by_side"])
def test_a_members_place_and_neighbours_change_no_bit(kind, request):
    """Seed 2 is the last of 0, 1, 2 and the first of 2, 3, 4."""
    built = request.getfixturevalue(kind)
    state, rows = built.run(0, (4,))
    other, other_rows = built.run(2, (4,))
    assert_same_bits(member(state, 2), member(other, 0))
    assert_same_bits(member(rows, 2), member(other_rows, 0))
    with pytest.raises(AssertionError):
        assert_same_bits(member(state, 2), member(other, 1))


def test_a_member_trained_one_after_another_equals_its_seed_trained_alone(in_a_row):
    state, rows = in_a_row.run(0, (4,))
    alone, alone_rows = program("map", ONE, 1).run(1, (4,))
    assert_same_bits(member(state, 1), member(alone, 0))
    assert_same_bits(member(rows, 1), member(alone_rows, 0))


def test_three_seeds_on_two_devices_are_filled_up_and_their_places_change_no_bit(in_a_row):
    """Seed 2 is on the second device of 0, 1, 2 and on the first of 2, 3, 4.

    A program for one device rounds differently, like programs of other widths.
    """
    spread = program("map", TWO, 3)
    assert spread.layout.num_members == 4
    state, rows = spread.run(0, (2,))
    other, other_rows = spread.run(2, (2,))
    assert_same_bits(member(state, 2), member(other, 0))
    assert_same_bits(member(rows, 2), member(other_rows, 0))
    expected, _ = in_a_row.run(0, (2,))
    for k in range(3):
        for x, y in zip(bits(member(expected.params, k)), bits(member(state.params, k))):
            np.testing.assert_allclose(x, y, atol=1e-3)


def test_layouts_differ_by_rounding_only(in_a_row, side_by_side):
    """Between programs of different width bits may differ; over two iterations not by much."""
    a, _ = in_a_row.run(0, (2,))
    b, _ = side_by_side.run(0, (2,))
    for x, y in zip(bits(a.params), bits(b.params)):
        np.testing.assert_allclose(x, y, atol=1e-3)


# Compilations and memory --------------------------------------------------------------------------


def test_no_value_of_a_hyperparameter_and_no_chunk_length_compiles_again(in_a_row):
    in_a_row.run(0, (1,))
    states = [in_a_row.start(0) for _ in range(4)]
    hypers = [
        HYPER,
        Hyper(
            **{
                name: Schedule(0.5, 0.1, 1.0)
                for name in Hyper.__dataclass_fields__
                if name not in ("env", "schedule_env_steps")
            },
            schedule_env_steps=100,
        ),
        Hyper(clip_epsilon=np.inf, max_grad_norm=np.inf, kl_stop=np.inf, learning_rate=0),
        Hyper(kl_stop=1e-9, value_clip_epsilon=0.1, gamma=1, gae_lambda=0),
    ]
    with counted_compilations() as found:
        for n, (hyper, state) in enumerate(zip(hypers, states)):
            arrays = schedules.as_arrays(SMALL, hyper)
            jax.block_until_ready(in_a_row.chunk(arrays, state, np.int32(n + 1)))
    assert found == []
    with counted_compilations() as found:  # the counter counts
        jax.jit(lambda x: x * 3.0 + 1.0)(np.float32(2.0))
    assert len(found) == 1


def test_the_environments_parameters_compile_nothing_either():
    config = dataclasses.replace(SMALL, env="probe:time-limit")
    layout = layouts.Layout("map", ONE, 1)
    chunk = programs.make_chunk(config, layout)

    def run(limit: int) -> Any:
        arrays = schedules.as_arrays(config, Hyper(env={"max_steps_in_episode": limit}))
        state = population.init_population(config, arrays, 0, layout)
        with counted_compilations() as found:
            _, rows = chunk(arrays, state, np.int32(1))
            return len(found), float(np.asarray(rows["num_episodes"])[0, 0])

    assert run(2) == (1, 8 * 8 / 2)
    assert run(4) == (0, 8 * 8 / 4)


def lowered(config: Config) -> str:
    layout = layouts.Layout("map", ONE, 2)
    arrays = schedules.as_arrays(config, HYPER)
    state = jax.eval_shape(
        lambda keys: jax.vmap(partial(trainer.init, population.without_budget(config), HYPER))(
            keys
        ),
        jax.random.split(jax.random.key(0), 2),
    )
    chunk = programs.make_chunk(config, layout)
    return chunk.lower(arrays, state, np.int32(1)).as_text()


def test_a_run_ten_thousand_times_as_long_is_the_same_program_in_the_same_memory(in_a_row):
    """Equal programs take equal memory; only their inputs could still grow."""
    longer = dataclasses.replace(SMALL, total_env_steps=10_000 * SMALL.total_env_steps)
    assert lowered(SMALL) == lowered(longer)
    assert lowered(SMALL) != lowered(dataclasses.replace(SMALL, rollout_length=16))
    start = in_a_row.start(0)
    size = sum(leaf.nbytes for leaf in bits(start))
    compiled = in_a_row.chunk.lower(schedules.as_arrays(SMALL, HYPER), start, np.int32(1)).compile()
    before = compiled.memory_analysis()
    state, rows = compiled(schedules.as_arrays(SMALL, HYPER), start, np.int32(200))
    assert sum(leaf.nbytes for leaf in bits(state)) == size
    assert {value.shape for value in rows.values()} == {(3, programs.MAX_CHUNK)}
    if before is not None:  # the program's allocations are known before n
        assert before.temp_size_in_bytes < 10 * 2**20


@pytest.mark.parametrize(
    ("total_env_steps", "num_iterations"), [(64, 1), (65, 2), (128, 2), (1000, 16), (1024, 16)]
)
def test_the_budget_is_rounded_up_to_whole_iterations(total_env_steps, num_iterations):
    config = dataclasses.replace(SMALL, total_env_steps=total_env_steps)
    assert config.num_iterations == num_iterations
    assert config.trained_env_steps == 64 * num_iterations
    assert 0 <= config.trained_env_steps - total_env_steps < 64


# Failure ------------------------------------------------------------------------------------------


class Poison(NamedTuple):
    amount: Any  # added to every reward of the running episode


def poisoned() -> Environment:
    """CartPole whose reward can be made non-finite through its state, until the next reset."""
    inner = registration.make("CartPole-v1")

    def reset(key, params):
        observation, state = inner.reset(key, params)
        return observation, (state, Poison(jnp.zeros(())))

    def transition(key, state, action, params):
        observation, after, reward, *rest = inner.transition(key, state[0], action, params)
        return (observation, (after, state[1]), reward + state[1].amount, *rest)

    return inner._replace(name="poisoned", reset=reset, transition=transition)


def test_a_non_finite_member_is_frozen_for_good_and_its_neighbours_are_untouched():
    config = dataclasses.replace(SMALL, env=poisoned(), num_envs=4)
    layout = layouts.Layout("vmap", ONE, 3)
    arrays = schedules.as_arrays(config, HYPER)
    chunk = programs.make_chunk(config, layout)

    def run(amount: float) -> Any:
        state = population.init_population(config, arrays, 0, layout)
        state, _ = chunk(arrays, state, np.int32(2))
        healthy = jax.device_get(state)
        inner, poison = state.carry.state
        poison = Poison(poison.amount.at[1, 0].set(amount))
        state = state._replace(carry=state.carry._replace(state=(inner, poison)))
        state, rows = chunk(arrays, state, np.int32(12))
        return healthy, jax.device_get(state), np.asarray(rows["alive"])[:, :12]

    _, expected, alive = run(0.0)
    assert (alive == 1.0).all()
    for amount in (np.nan, np.inf):
        healthy, state, alive = run(amount)
        assert state.alive.tolist() == [True, False, True]
        three = [1.0, 1.0] + [0.0] * 10  # frozen by the third refused update in a row
        assert alive.tolist() == [[1.0] * 12, three, [1.0] * 12]
        for k in (0, 2):
            assert_same_bits(member(state, k), member(expected, k))
        kept = ("params", "opt_state", "observation_moments", "return_moments")
        for name in kept:  # the last finite ones
            assert_same_bits(member(getattr(state, name), 1), member(getattr(healthy, name), 1))
        # A refused iteration does not count: the poisoned episode is where it was.
        np.testing.assert_array_equal(state.carry.state[1].amount[1], [amount, 0.0, 0.0, 0.0])


# Evaluation ---------------------------------------------------------------------------------------


def test_evaluation_changes_no_bit_of_the_state_and_of_what_is_trained_from_it(in_a_row):
    play = programs.make_evaluation(SMALL, in_a_row.layout, 8, 40, False)
    arrays = schedules.as_arrays(SMALL, HYPER)
    state = in_a_row.start(0)
    for i in range(4):
        before = bits(jax.device_get(state))
        played = play(arrays, state, np.uint32(i))
        assert played.episode_return.shape == (3, 8)
        assert_same_bits(before, bits(jax.device_get(state)))
        state, _ = in_a_row.chunk(arrays, state, np.int32(1))
    expected, _ = in_a_row.run(0, (4,))
    assert_same_bits(expected, jax.device_get(state))


def test_evaluation_uses_the_trained_normaliser_and_a_stream_of_its_own(in_a_row):
    play = programs.make_evaluation(SMALL, in_a_row.layout, 16, 60, False)
    arrays = schedules.as_arrays(SMALL, HYPER)
    state, _ = in_a_row.run(0, (10,))
    # Large logits, so that actions depend on observations.
    head = state.params["body"]["policy_head"]
    head["kernel"] = 100.0 * head["kernel"]
    returns = np.asarray(play(arrays, state, np.uint32(0)).episode_return)
    again = np.asarray(play(arrays, state, np.uint32(0)).episode_return)
    np.testing.assert_array_equal(returns, again)
    fresh = state._replace(
        observation_moments=jax.tree.map(jnp.zeros_like, state.observation_moments)
    )
    assert (np.asarray(play(arrays, fresh, np.uint32(0)).episode_return) != returns).any()
    assert (np.asarray(play(arrays, state, np.uint32(1)).episode_return) != returns).any()
    # Members differ in their streams, not only in their parameters.
    twins = jax.tree.map(lambda leaf: leaf[jnp.zeros(3, int)], state.params)
    same = state._replace(
        params=twins,
        observation_moments=jax.tree.map(
            lambda leaf: leaf[jnp.zeros(3, int)], state.observation_moments
        ),
    )
    lengths = np.asarray(play(arrays, same, np.uint32(0)).length)
    assert len({tuple(row) for row in lengths}) == 3


def test_a_state_with_keys_can_be_timed():
    """Suites such as jumanji keep the next key in their states."""
    keys = jax.random.split(jax.random.key(3), 2)
    assert programs.first_number(keys) == jax.random.key_data(keys)[0, 0]
    assert programs.first_number(jnp.array([[2, 5]])) == 2


def with_an_empty_leaf(name: str) -> Environment:
    """An environment whose states hold an array without numbers, as MuJoCo's do."""
    bare = registration.make(name)

    def reset(key: Any, params: Any) -> tuple:
        observation, state = bare.reset(key, params)
        return observation, (state, jnp.zeros(0))

    def transition(key: Any, state: Any, action: Any, params: Any) -> tuple:
        observation, inner, *rest = bare.transition(key, state[0], action, params)
        return observation, (inner, state[1]), *rest

    return bare._replace(reset=reset, transition=transition)


@pytest.mark.skipif(
    tuple(map(int, jax.__version__.split(".")[:2])) >= (0, 11),
    reason="XLA of jax 0.11 dies while it compiles a loop over devices with an empty array",
)
def test_a_compiled_loop_takes_its_own_state_with_an_empty_leaf():
    """Left to itself, XLA would replicate that leaf over the devices."""
    config = dataclasses.replace(SMALL, env=with_an_empty_leaf("CartPole-v1"))
    layout, hyper = layouts.Layout("map", TWO, 2), schedules.as_arrays(config, HYPER)
    state = population.init_population(config, hyper, 0, layout)
    loop = programs.make_chunk(config, layout).lower(hyper, state, np.int32(1)).compile()
    state, _ = loop(hyper, state, np.int32(1))
    state, _ = loop(hyper, state, np.int32(1))
    copied = population.make_gather(layout)(state, np.array([1, 1]))
    copied, rows = loop(hyper, copied, np.int32(1))
    assert np.isfinite(rows["policy_loss"][:, 0]).all()
    assert copied.iteration.tolist() == [3, 3]
