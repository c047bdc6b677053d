"""A population's state: its seeds, its padding, and the devices that hold it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tiny import CONFIG, HYPER

from ppo_jax.distributed import population
from ppo_jax.distributed.layout import Layout
from ppo_jax.kernels import backend
from ppo_jax.training import schedules, trainer


def population_of(
    num_seeds: int, seed: int = 0, kind: str = "map"
) -> tuple[trainer.TrainState, Layout]:
    shares = (2, 2) if kind == "envs" else (1, 1)
    kind = "map" if kind == "envs" else kind
    layout = Layout(kind, tuple(jax.local_devices()), num_seeds, *shares)
    return population.init_population(CONFIG, hyper(), seed, layout), layout


def hyper() -> object:
    return schedules.as_arrays(CONFIG, HYPER)


def host(state: object) -> list[np.ndarray]:
    def data(leaf: jax.Array) -> np.ndarray:
        is_key = jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    return [data(leaf) for leaf in jax.tree.leaves(state)]


def test_member_i_starts_as_seed_i_alone_would() -> None:
    state, _ = population_of(num_seeds=3, seed=5)
    alone = jax.jit(lambda h, key: trainer.init(population.without_budget(CONFIG), h, key))
    for member in range(4):  # the fourth is padding
        single = alone(hyper(), jax.random.key(5 + member))
        for mine, other in zip(host(state), host(single), strict=True):
            np.testing.assert_allclose(mine[member], other, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_members_start_alike_side_by_side_and_one_after_the_other() -> None:
    keys, found = jax.random.split(jax.random.key(3), 2), {}
    for form in ("cpu", "gpu"):
        with backend.use(form):
            found[form] = host(population.make_init(CONFIG)(hyper(), keys))
    for mine, other in zip(found["cpu"], found["gpu"], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_a_member_s_key_is_that_of_its_seed(implementation: str) -> None:
    with jax.default_prng_impl(implementation):
        for seeds in (range(0, 3), range(2**31 - 1, 2**31 + 1), [2**32 - 1]):
            layout = Layout("vmap", tuple(jax.local_devices()[:1]), len(seeds))
            found = jax.random.key_data(population.member_keys(list(seeds), layout))
            expected = [jax.random.key_data(jax.random.key(seed)) for seed in seeds]
            np.testing.assert_array_equal(found, expected)


def test_filling_up_copies_the_first_seed_and_trimming_takes_it_off_again() -> None:
    state, layout = population_of(num_seeds=3)
    three = population.trimmed(state, layout)
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(three))
    four = population.padded(three, layout)
    for filled, known in zip(host(four), host(three), strict=True):
        np.testing.assert_array_equal(filled, known[[0, 1, 2, 0]])
    even = Layout("map", layout.devices, 4)
    assert population.padded(four, even) is four


def test_each_device_holds_its_own_seeds() -> None:
    state, layout = population_of(num_seeds=4)
    for leaf in jax.tree.leaves(state):
        assert leaf.sharding.spec in (P("seed"), P("seed", "env"))
        assert leaf.sharding.mesh.shape == {"seed": 2, "env": 1}
        assert [shard.data.shape[0] for shard in leaf.addressable_shards] == [2, 2]
        assert {shard.device for shard in leaf.addressable_shards} == set(layout.devices)


def test_where_devices_share_a_seed_only_its_environments_are_divided() -> None:
    state, _ = population_of(num_seeds=1, kind="envs")
    environments = jax.tree.leaves((state.carry, state.discounted_return))
    for leaf in environments:
        assert leaf.shape[:2] == (1, CONFIG.num_envs)
        assert {shard.data.shape[1] for shard in leaf.addressable_shards} == {2}
    for leaf in jax.tree.leaves((state.params, state.opt_state, state.observation_moments)):
        assert leaf.sharding.is_fully_replicated


def test_budgets_share_one_program() -> None:
    longer = dataclasses.replace(CONFIG, total_env_steps=10**9)
    assert population.without_budget(longer) == population.without_budget(CONFIG)
    other = dataclasses.replace(CONFIG, num_envs=8)
    assert population.without_budget(other) != population.without_budget(CONFIG)


def test_gathered_members_go_on_from_others_and_keep_their_keys() -> None:
    state, layout = population_of(num_seeds=4)
    before, sources = jax.device_get(state._replace(key=state.iteration)), np.array([2, 1, 2, 0])
    keys = np.asarray(jax.random.key_data(state.key))
    found = population.make_gather(layout)(state, sources)
    np.testing.assert_array_equal(jax.random.key_data(found.key), keys)
    for mine, old in zip(host(found._replace(key=found.iteration)), host(before), strict=True):
        np.testing.assert_array_equal(mine, old[sources])
    assert found.params["body"]["policy_head"]["kernel"].sharding.spec == P("seed")


def test_refilled_members_are_fresh_and_the_others_stay() -> None:
    (state, layout), (fresh, _) = population_of(num_seeds=4), population_of(num_seeds=4, seed=9)
    old, new, is_new = host(state), host(fresh), np.array([True, False, False, True])
    found = population.make_refill(layout)(state, fresh, is_new)
    for mine, a, b in zip(host(found), new, old, strict=True):
        chosen = is_new.reshape(-1, *[1] * (a.ndim - 1))
        np.testing.assert_array_equal(mine, np.where(chosen, a, b))


def test_members_share_their_numbers_or_each_has_its_own() -> None:
    shared = schedules.as_arrays(CONFIG, HYPER)
    own = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[shared] * 4)
    layout = Layout("map", tuple(jax.local_devices()), 4)
    assert not population.has_own_hyper(shared)
    assert population.has_own_hyper(own)
    for hyper, spec in ((shared, P()), (own, P("seed"))):
        for leaf in jax.tree.leaves(population.place_hyper(hyper, layout)):
            assert leaf.sharding.spec == spec
    alone, _ = population_of(num_seeds=4)
    each = population.init_population(CONFIG, own, 0, layout)
    for a, b in zip(host(alone), host(each), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_an_abstract_population_has_the_shapes_and_places_of_a_real_one() -> None:
    for kind, num_seeds in (("map", 3), ("envs", 1)):
        state, layout = population_of(num_seeds, kind=kind)
        found = population.abstract_population(CONFIG, schedules.as_arrays(CONFIG, HYPER), layout)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            assert a.sharding.is_equivalent_to(b.sharding, b.ndim)
