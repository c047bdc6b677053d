"""Collectives: the same numbers on every device, and few collectives, each of one array."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
from tiny import CONFIG, HYPER

from ppo_jax.distributed import layout as layouts
from ppo_jax.distributed import population, programs
from ppo_jax.kernels.collectives import ALONE, Across
from ppo_jax.training import schedules

TREE = {
    "weights": jnp.arange(18.0).reshape(3, 2, 3) ** 2,
    "losses": (jnp.array([1.0, 2.0, 6.0]), {"log_ratio": jnp.arange(12.0).reshape(3, 4)}),
}
ACROSS = Across(("devices",))


def on_three_devices(function):
    return jax.vmap(function, axis_name="devices")(TREE)


def test_means_are_each_leafs_and_the_same_on_every_device():
    found = on_three_devices(ACROSS.mean)
    assert jax.tree.structure(found) == jax.tree.structure(TREE)
    np.testing.assert_allclose(found["losses"][0], 3.0)

    def mean(leaf):
        return np.broadcast_to(np.mean(leaf, axis=0), leaf.shape)

    jax.tree.map(np.testing.assert_allclose, found, jax.tree.map(mean, TREE))


def test_every_device_gathers_what_all_have():
    found = on_three_devices(ACROSS.gather)
    for device in range(3):
        jax.tree.map(
            lambda leaf, every, device=device: np.testing.assert_array_equal(every[device], leaf),
            TREE,
            found,
        )


def test_devices_are_counted_and_each_has_as_many_blocks_in_their_order():
    across = Across(("devices",), 6)
    sizes, blocks = on_three_devices(lambda tree: (jnp.asarray(across.size), across.own_blocks))
    np.testing.assert_array_equal(sizes, [3, 3, 3])
    np.testing.assert_array_equal(blocks, [[0, 1], [2, 3], [4, 5]])
    assert (ALONE.size, ALONE.own_blocks.tolist()) == (1, [0])


def test_alone_nothing_is_exchanged():
    assert ALONE.mean(TREE) is TREE
    jax.tree.map(
        lambda leaf, every: np.testing.assert_array_equal(every, leaf[None]),
        TREE,
        ALONE.gather(TREE),
    )


def test_an_iteration_meets_once_a_minibatch_and_twice_besides():
    """Each collective puts a core to sleep, and XLA makes one per array."""
    layout = layouts.Layout("map", tuple(jax.local_devices()[:2]), 1, 2, 2)
    hyper = schedules.as_arrays(CONFIG, HYPER)
    state = population.abstract_population(CONFIG, hyper, layout)
    text = programs.make_chunk(CONFIG, layout).lower(hyper, state, np.int32(1)).as_text()
    exchanges = re.findall(r"stablehlo\.(?:all_reduce|all_gather|collective\w*)", text)
    assert len(exchanges) == 1 + 2 + 1  # the last: the KL after so few steps

    bare = dataclasses.replace(
        CONFIG, normalize_observations=False, normalize_advantages="none", num_minibatches=1
    )
    text = programs.make_chunk(bare, layout).lower(hyper, state, np.int32(1)).as_text()
    assert len(re.findall(r"stablehlo\.(?:all_reduce|all_gather)", text)) == 1 + 1 + 1
