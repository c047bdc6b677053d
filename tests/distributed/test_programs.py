"""Which layout a run takes, how seeds are filled up, and where their state lies.

What the layouts compute is compared in test_invariants.py.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tiny import CONFIG, HYPER

from ppo_jax.config.config import Config
from ppo_jax.distributed import population as populations
from ppo_jax.distributed.layout import Layout, choose_layout
from ppo_jax.training import schedules, trainer


class Device(NamedTuple):
    platform: str
    id: int


def machine(monkeypatch: pytest.MonkeyPatch, platform: str, count: int) -> None:
    devices = [Device(platform, i) for i in range(count)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)


SMALL = Config(num_envs=8, rollout_length=32, num_minibatches=1)  # minibatches of 256
MEDIUM = Config(num_envs=8, rollout_length=64, num_minibatches=1)  # of 512
LARGE = Config(num_envs=8, rollout_length=128, num_minibatches=1)  # of 1,024
WIDE = Config(num_envs=2048, rollout_length=128, num_minibatches=4)  # of 65,536


@pytest.mark.parametrize(
    "platform, count, config, num_seeds, kind, num_devices",
    [
        ("cpu", 2, SMALL, 16, "vmap", 2),
        ("cpu", 2, LARGE, 16, "map", 2),
        ("cpu", 2, LARGE, 1, "envs", 2),
        ("cpu", 2, MEDIUM, 1, "map", 1),  # a minibatch too small to be worth spreading
        ("cpu", 4, LARGE, 1, "map", 1),  # over so many devices
        ("cpu", 2, WIDE, 1, "envs", 2),
        ("cpu", 2, WIDE, 2, "map", 2),
        ("cpu", 3, WIDE, 1, "map", 1),  # 2,048 environments on 3 devices do not come out even
        ("gpu", 1, LARGE, 32, "vmap", 1),
        ("gpu", 8, LARGE, 32, "vmap", 8),
        ("gpu", 8, WIDE, 4, "envs", 8),
        ("gpu", 8, LARGE, 3, "vmap", 3),
    ],
)
def test_the_layout_follows_the_batch_the_seeds_and_the_devices(
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    count: int,
    config: Config,
    num_seeds: int,
    kind: str,
    num_devices: int,
) -> None:
    machine(monkeypatch, platform, count)
    layout = choose_layout(config, num_seeds)
    assert (layout.kind, len(layout.devices), layout.num_seeds) == (kind, num_devices, num_seeds)


def test_fewer_devices_may_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "gpu", 8)
    assert choose_layout(LARGE, 32, 3).devices == (Device("gpu", 0), Device("gpu", 1), ("gpu", 2))


@pytest.mark.parametrize(
    "kind, num_devices, num_seeds, num_members",
    [("map", 2, 3, 4), ("vmap", 2, 4, 4), ("vmap", 8, 9, 16), ("map", 1, 5, 5), ("envs", 2, 1, 1)],
)
def test_seeds_are_filled_up_to_the_devices_unless_these_share_each_seed(
    kind: str, num_devices: int, num_seeds: int, num_members: int
) -> None:
    layout = Layout(kind, tuple(range(num_devices)), num_seeds)
    assert layout.num_members == num_members


def population(
    num_seeds: int, seed: int = 0, kind: str = "map"
) -> tuple[trainer.TrainState, Layout]:
    layout = Layout(kind, tuple(jax.local_devices()), num_seeds)
    return populations.init_population(CONFIG, hyper(), seed, layout), layout


def hyper() -> object:
    return schedules.as_arrays(CONFIG, HYPER)


def host(state: object) -> list[np.ndarray]:
    def data(leaf: jax.Array) -> np.ndarray:
        is_key = jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    return [data(leaf) for leaf in jax.tree.leaves(state)]


def test_member_i_starts_as_seed_i_alone_would() -> None:
    state, _ = population(num_seeds=3, seed=5)
    alone = jax.jit(lambda h, key: trainer.init(populations.without_budget(CONFIG), h, key))
    for member in range(4):  # the fourth fills up
        single = alone(hyper(), jax.random.key(5 + member))
        for mine, other in zip(host(state), host(single), strict=True):
            np.testing.assert_allclose(mine[member], other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_a_member_s_key_is_that_of_its_seed(implementation: str) -> None:
    with jax.default_prng_impl(implementation):
        for seeds in (range(0, 3), range(2**31 - 1, 2**31 + 1), [2**32 - 1]):
            layout = Layout("vmap", tuple(jax.local_devices()[:1]), len(seeds))
            found = jax.random.key_data(populations.member_keys(list(seeds), layout))
            expected = [jax.random.key_data(jax.random.key(seed)) for seed in seeds]
            np.testing.assert_array_equal(found, expected)


def test_filling_up_copies_the_first_seed_and_trimming_takes_it_off_again() -> None:
    state, layout = population(num_seeds=3)
    three = populations.trimmed(state, layout)
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(three))
    four = populations.padded(three, layout)
    for filled, known in zip(host(four), host(three), strict=True):
        np.testing.assert_array_equal(filled, known[[0, 1, 2, 0]])
    even = Layout("map", layout.devices, 4)
    assert populations.padded(four, even) is four


def test_each_device_holds_its_own_seeds() -> None:
    state, layout = population(num_seeds=4)
    for leaf in jax.tree.leaves(state):
        assert leaf.sharding.spec == P("devices")
        assert [shard.data.shape[0] for shard in leaf.addressable_shards] == [2, 2]
        assert {shard.device for shard in leaf.addressable_shards} == set(layout.devices)


def test_where_devices_share_a_seed_only_its_environments_are_divided() -> None:
    state, _ = population(num_seeds=1, kind="envs")
    environments = jax.tree.leaves((state.carry, state.discounted_return))
    for leaf in environments:
        assert leaf.shape[:2] == (1, CONFIG.num_envs)
        assert {shard.data.shape[1] for shard in leaf.addressable_shards} == {2}
    for leaf in jax.tree.leaves((state.params, state.opt_state, state.observation_moments)):
        assert leaf.sharding.is_fully_replicated


def test_budgets_share_one_program() -> None:
    longer = dataclasses.replace(CONFIG, total_env_steps=10**9)
    assert populations.without_budget(longer) == populations.without_budget(CONFIG)
    other = dataclasses.replace(CONFIG, num_envs=8)
    assert populations.without_budget(other) != populations.without_budget(CONFIG)
