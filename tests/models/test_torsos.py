"""Observations of several leaves: encoded side by side; an action mask decides and is not seen."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import shown

from ppo_jax.config.config import Config
from ppo_jax.config.errors import InputError
from ppo_jax.envs.interface import Box, Discrete, MultiDiscrete
from ppo_jax.models.network import make_network, masked
from ppo_jax.models.torsos import ACTIVATIONS, Encoder, LeafCode
from ppo_jax.rl.types import Window

SPEC = {
    "board": shown(5, 4, 2, dtype="uint8"),
    "speed": shown(3),
    "turn": shown(dtype="int32"),
}
SMALL = Config(hidden_sizes=(8,))


def observed(num_rows: int, spec: dict = SPEC, seed: int = 0) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.integers(0, 2, (num_rows, *leaf.shape)), leaf.dtype)
        if leaf.dtype != jnp.float32
        else jnp.asarray(rng.normal(size=(num_rows, *leaf.shape)), jnp.float32)
        for name, leaf in spec.items()
    }


# Encoder ------------------------------------------------------------------------------------------


def test_grids_stay_grids_and_all_else_becomes_vectors_of_real_numbers() -> None:
    encode = Encoder(SMALL, SPEC)
    assert encode.grids == (True, False, False)
    leaves = encode(observed(6))
    assert [leaf.shape for leaf in leaves] == [(6, 5, 4, 2), (6, 3), (6, 1)]
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    assert [leaf.shape for leaf in encode.example()] == [(5, 4, 2), (3,), (1,)]
    assert not encode.is_narrow
    flat = Encoder(Config(torso="mlp"), SPEC)
    assert [leaf.shape for leaf in flat(observed(6))] == [(6, 40), (6, 3), (6, 1)]
    assert flat.is_narrow
    flags = {**SPEC, "board": shown(5, 4, 2, dtype="bool")}  # of which a convolution reads less
    assert [x.dtype for x in Encoder(SMALL, flags)(observed(6, flags))][:2] == [bool, jnp.float32]


def test_bytes_are_divided_by_the_highest_and_nothing_else_is() -> None:
    seen = observed(6)
    scales = (LeafCode(scale=200.0), LeafCode(), LeafCode())
    seen["board"] = 200 * seen["board"].astype(jnp.uint8)
    plain, scaled = Encoder(SMALL, SPEC)(seen), Encoder(SMALL, SPEC, scales)(seen)
    assert plain[0].max() == 200.0
    np.testing.assert_array_equal(scaled[0], plain[0] / 200.0)
    for left, right in zip(scaled[1:], plain[1:], strict=True):
        np.testing.assert_array_equal(left, right)
    given = {**seen, "board": seen["board"].astype(jnp.float32)}  # as a user may hold them
    np.testing.assert_array_equal(Encoder(SMALL, SPEC, scales)(given)[0], scaled[0])


def test_categories_become_flags_along_the_last_axis() -> None:
    codes = (LeafCode(low=-1, count=3), LeafCode(), LeafCode(low=2, count=2))
    spec = {**SPEC, "board": shown(2, 4, dtype="int32")}
    encode = Encoder(SMALL, spec, codes)
    board = jnp.array([[[-1, 0, 1, 7], [1, 1, 0, -1]]])  # 7 is no category
    seen = {"board": board, "speed": jnp.ones((1, 3)), "turn": jnp.array([3])}
    flags, speed, turn = encode(seen)
    rows = [[1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 1, 0, 1, 0, 1, 0, 0]]
    np.testing.assert_array_equal(flags, [[*rows[0], *rows[1]]])
    np.testing.assert_array_equal(speed, jnp.ones((1, 3)))
    np.testing.assert_array_equal(turn, [[0, 1]])
    assert [leaf.shape for leaf in encode.example()] == [(24,), (3,), (2,)]
    grid = Encoder(SMALL, SPEC, (LeafCode(count=3), LeafCode(), LeafCode()))
    assert grid.grids[0]
    assert grid(observed(6))[0].shape == (6, 5, 4, 6)  # channel by channel
    np.testing.assert_array_equal(grid(observed(6))[0][..., 1], observed(6)["board"][..., 0] == 1)


def test_leading_dims_are_kept() -> None:
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), observed(6))
    assert [leaf.shape for leaf in Encoder(SMALL, SPEC)(twice)] == [
        (2, 6, 5, 4, 2),
        (2, 6, 3),
        (2, 6, 1),
    ]


def test_a_convolution_needs_a_grid_among_the_leaves() -> None:
    Encoder(Config(torso="cnn"), SPEC)
    with pytest.raises(InputError, match=r"torso='cnn'.*\[\(3,\), \(\)\].*use mlp"):
        Encoder(Config(torso="cnn"), {name: SPEC[name] for name in ("speed", "turn")})


# Torso --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_leaves_meet_in_the_first_hidden_layer_as_in_numpy(activation: str) -> None:
    """A convolution of the grid, its output flattened, beside the vectors in their order."""
    config = Config(hidden_sizes=(8,), activation=activation, orthogonal_init=False)
    network, _ = make_network(config, SPEC, Discrete(3))
    params = network.init(jax.random.key(0))
    observation = observed(6)
    torso = jax.tree.map(np.asarray, params["body"]["critic_torso"])
    kernel, bias = torso["Conv_0"]["kernel"], torso["Conv_0"]["bias"]
    assert kernel.shape == (3, 3, 2, 16)

    def activate(x: np.ndarray) -> np.ndarray:
        return np.asarray(ACTIVATIONS[activation](jnp.asarray(x)))

    board, patches = np.asarray(observation["board"], np.float32), np.zeros((6, 3, 2, 16))
    for i, j in np.ndindex(3, 2):
        patches[:, i, j] = np.einsum("nhwc,hwcf->nf", board[:, i : i + 3, j : j + 3], kernel)
    grid = activate((patches + bias).astype(np.float32)).reshape(6, -1)
    x = np.concatenate([grid, observation["speed"], np.asarray(observation["turn"])[:, None]], 1)
    hidden = activate(x @ torso["Dense_0"]["kernel"] + torso["Dense_0"]["bias"])
    head = jax.tree.map(np.asarray, params["body"]["value_head"])
    expected = hidden @ head["kernel"][:, 0] + head["bias"][0]
    np.testing.assert_allclose(network.value(params, Window(observation)), expected, atol=1e-5)


# Action masks -------------------------------------------------------------------------------------


def test_illegal_actions_have_no_weight_and_without_a_legal_one_all_are() -> None:
    logits = jnp.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    legal = jnp.array([[True, False, True], [False, False, False]])
    expected = [[1.0, -np.inf, 3.0], [1.0, 2.0, 3.0]]
    np.testing.assert_array_equal(masked(logits, legal, (3,)), expected)
    assert masked(logits, None, (3,)) is logits


@pytest.mark.parametrize("space, size", [(Discrete(4), 4), (MultiDiscrete((2, 3)), 5)])
@pytest.mark.parametrize("memory", ["none", "gru"])
def test_a_mask_forbids_actions_and_nothing_else_sees_it(
    space: Any, size: int, memory: str
) -> None:
    spec = {"speed": shown(3), "action_mask": shown(size, dtype="bool")}
    config = Config(hidden_sizes=(8,), memory=memory, memory_size=4)
    network, family = make_network(config, spec, space)
    params = network.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    speed = observed(30, spec)["speed"]
    legal = np.random.default_rng(1).random((30, size)) < 0.6
    legal[:, [0, size - 1]] = True  # one at least of each dial
    start = network.start(params, 30)
    reset = () if memory == "none" else jnp.zeros(30, bool)
    both = []
    for mask in (jnp.asarray(legal), jnp.ones_like(legal)):
        observation = {"speed": speed, "action_mask": jnp.asarray(mask)}
        distribution, value = network.apply(params, Window(observation, reset, start))
        _, acted = network.act(params, start, observation)
        np.testing.assert_allclose(acted.logits, distribution.logits, atol=1e-6)
        both.append((distribution, value))
    (forbidden, value), (free, value_free) = both
    np.testing.assert_array_equal(value, value_free)
    np.testing.assert_array_equal(forbidden.logits, np.where(legal, free.logits, -np.inf))
    draw = family.draw(jax.random.key(2), (30,))
    action = np.asarray(family.sample(draw, forbidden, ()))
    dials = action[:, None] if action.ndim == 1 else action + np.array([[0, 2]])
    assert np.take_along_axis(legal, dials, axis=1).all()
    assert np.isfinite(family.log_prob(forbidden, jnp.asarray(action))).all()
    assert np.isfinite(family.entropy(forbidden)).all()
    assert np.isfinite(family.kl(forbidden, forbidden)).all()


def test_a_masked_policy_has_finite_gradients() -> None:
    spec = {"speed": shown(3), "action_mask": shown(4, dtype="bool")}
    network, family = make_network(SMALL, spec, Discrete(4))
    params = network.init(jax.random.key(0))
    legal = jnp.array([[True, False, False, True], [False, False, False, True]])
    observation = {"speed": observed(2, spec)["speed"], "action_mask": legal}

    def loss(params: Any) -> jax.Array:
        distribution, _ = network.apply(params, Window(observation))
        log_prob = family.log_prob(distribution, jnp.array([3, 3]))
        kl = family.kl(jax.lax.stop_gradient(distribution), distribution)
        return jnp.sum(log_prob + family.entropy(distribution) + kl)

    gradient = jax.grad(loss)(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(gradient["body"]["policy_head"]))


def test_a_box_has_no_use_for_a_mask() -> None:
    spec = {"speed": shown(3), "action_mask": shown(2, dtype="bool")}
    network, _ = make_network(SMALL, spec, Box((2,), np.full(2, -1.0), np.full(2, 1.0)))
    params = network.init(jax.random.key(0))
    observation = {"speed": jnp.ones((2, 3)), "action_mask": jnp.zeros((2, 2), bool)}
    distribution, _ = network.apply(params, Window(observation))
    assert np.isfinite(distribution.mean).all()
