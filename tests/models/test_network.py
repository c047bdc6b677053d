"""Networks: shapes, initialisation, a forward pass in numpy, and refusals."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import shown

from ppo_jax.config.config import Config
from ppo_jax.config.errors import InputError
from ppo_jax.envs.interface import Box, Discrete
from ppo_jax.kernels import backend
from ppo_jax.models.network import make_network
from ppo_jax.rl.distributions import Gaussian, StateDependentNoise
from ppo_jax.rl.types import Window

BOX = Box((2,), np.array([-1.0, -1.0]), np.array([1.0, 1.0]))
SMALL = Config(hidden_sizes=(16, 8))


def build(config: Config, shape=(3,), space=Discrete(4), log_std_init=0.0):  # noqa: B008
    network, family = make_network(config, shown(*shape), space)
    return network, family, jax.jit(network.init)(jax.random.key(0), log_std_init)


def count(params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_mlp_is_the_numpy_forward_pass() -> None:
    network, _, params = build(SMALL)
    observation = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    distribution, value = jax.jit(network.apply)(params, Window(observation))
    body = jax.tree.map(np.asarray, params["body"])

    def torso(layers) -> np.ndarray:
        x = observation
        for name in ("Dense_0", "Dense_1"):
            x = np.tanh(x @ layers[name]["kernel"] + layers[name]["bias"])
        return x

    logits = torso(body["actor_torso"]) @ body["policy_head"]["kernel"]
    expected = torso(body["critic_torso"]) @ body["value_head"]["kernel"]
    np.testing.assert_allclose(distribution.logits, logits, atol=1e-6)
    np.testing.assert_allclose(value, expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(
        jax.jit(network.value)(params, Window(observation)), value, atol=1e-6
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"policy": "gsde"},
        {"policy": "gaussian-state-std"},
        {"shared_torso": True},
        {"policy": "gsde", "shared_torso": True},
    ],
    ids=str,
)
def test_a_gpu_computes_both_torsos_at_once_and_the_same(settings) -> None:
    space = BOX if "policy" in settings else Discrete(4)
    network, _, params = build(dataclasses.replace(SMALL, **settings), space=space)
    observation = jax.random.normal(jax.random.key(1), (6, 3))

    def loss(params):
        outputs = jax.tree.leaves(network.apply(params, Window(observation)))
        return sum(jnp.sum(jnp.sin(output)) for output in outputs)

    def traced():
        return jax.jit(
            lambda: (network.apply(params, Window(observation)), jax.grad(loss)(params))
        )()

    on_cpu = traced()
    window = Window(observation)
    apart = network.policy(params, window), network.value(params, window)
    with backend.use("gpu"):
        on_gpu = traced()
        text = str(jax.make_jaxpr(lambda: network.apply(params, window))())
    if not settings:
        # The second hidden layers at once; layers of few inputs or outputs are sums of columns.
        assert text.count("dot_general[") == 1

    def close(a, b):
        np.testing.assert_allclose(a, b, atol=1e-5)

    jax.tree.map(close, on_gpu, on_cpu)
    jax.tree.map(close, apart, on_cpu[0])


def test_kernels_are_orthogonal_with_the_usual_gains_and_biases_zero() -> None:
    _, _, params = build(SMALL)
    body = params["body"]
    for kernel, gain in (
        (body["actor_torso"]["Dense_0"]["kernel"], np.sqrt(2)),
        (body["critic_torso"]["Dense_1"]["kernel"], np.sqrt(2)),
        (body["policy_head"]["kernel"], 0.01),
        (body["value_head"]["kernel"], 1.0),
    ):
        rows, columns = kernel.shape
        gram = kernel.T @ kernel if rows >= columns else kernel @ kernel.T
        np.testing.assert_allclose(gram, gain**2 * np.eye(len(gram)), atol=1e-5 * gain**2)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        assert "bias" not in jax.tree_util.keystr(path) or not leaf.any()


def test_without_orthogonal_init_kernels_have_lecuns_scale() -> None:
    config = Config(hidden_sizes=(256, 256), orthogonal_init=False)
    kernel = build(config)[2]["body"]["actor_torso"]["Dense_1"]["kernel"]
    np.testing.assert_allclose(kernel.std(), 1 / np.sqrt(256), rtol=0.05)
    assert not np.allclose(kernel.T @ kernel, np.eye(256), atol=0.05)


def test_shared_torso_has_fewer_parameters_and_feeds_both_heads() -> None:
    shared_config = dataclasses.replace(SMALL, shared_torso=True)
    network, _, shared = build(shared_config)
    separate = build(SMALL)[2]
    torso = 3 * 16 + 16 + 16 * 8 + 8
    assert count(separate) - count(shared) == torso
    window = Window(jnp.ones(3))
    np.testing.assert_allclose(
        network.value(shared, window), network.apply(shared, window)[1], rtol=1e-6
    )
    gradient = jax.grad(lambda p: network.value(p, window))(shared)
    assert gradient["body"]["actor_torso"]["Dense_0"]["kernel"].any()


@pytest.mark.parametrize(
    "shape, torso, convolution",
    [
        ((), "auto", False),
        ((3,), "auto", False),
        ((10, 5), "auto", False),
        ((10, 10, 4), "auto", True),
        ((10, 10, 4), "mlp", False),
        ((10, 10, 4), "cnn", True),
        ((2, 2, 2), "auto", False),
    ],
)
def test_torso_follows_the_shape_of_the_observation(shape, torso, convolution) -> None:
    network, _, params = build(dataclasses.replace(SMALL, torso=torso), shape)
    assert ("Conv_0" in params["body"]["actor_torso"]) == convolution
    if convolution:  # 3 x 3 without padding leaves 8 x 8 of 16 features
        assert params["body"]["actor_torso"]["Conv_0"]["kernel"].shape == (3, 3, 4, 16)
        assert params["body"]["actor_torso"]["Dense_0"]["kernel"].shape == (8 * 8 * 16, 16)
    for lead in ((), (5,), (2, 5)):
        distribution, value = jax.eval_shape(
            network.apply, params, Window(shown(*lead, *shape, dtype=jnp.bool_))
        )
        assert distribution.logits.shape == (*lead, 4)
        assert value.shape == lead
        assert value.dtype == distribution.logits.dtype == jnp.float32


def test_bytes_and_booleans_are_read_as_their_numbers() -> None:
    network, _, params = build(SMALL)
    values = [
        network.value(params, Window(jnp.array([1, 0, 1], dtype)))
        for dtype in ("bool", "uint8", "float32")
    ]
    assert values[0] == values[1] == values[2]


@pytest.mark.parametrize("policy", ["gaussian", "tanh-gaussian", "gaussian-state-std"])
def test_first_standard_deviation_is_log_std_init(policy) -> None:
    network, family, params = build(dataclasses.replace(SMALL, policy=policy), (3,), BOX, -1.5)
    distribution, _ = network.apply(params, Window(jnp.zeros((5, 3))))
    assert family.name == policy
    assert isinstance(distribution, Gaussian)
    assert distribution.mean.shape == distribution.log_std.shape == (5, 2)
    np.testing.assert_allclose(distribution.log_std, -1.5, atol=1e-6)
    other = network.apply(params, Window(jnp.full((1, 3), 3.0)))[0].log_std
    assert np.allclose(other, -1.5, atol=1e-6) == (policy != "gaussian-state-std")


def test_gsde_has_a_log_std_for_each_feature_and_its_marginal() -> None:
    network, _, params = build(dataclasses.replace(SMALL, policy="gsde"), (3,), BOX, -2.0)
    assert params["log_std"].shape == (8, 2)
    distribution, _ = network.apply(params, Window(jnp.ones((5, 3))))
    assert isinstance(distribution, StateDependentNoise)
    assert distribution.features.shape == (5, 8)
    variance = np.square(distribution.features).sum(-1) * np.exp(-4.0) + 1e-6
    np.testing.assert_allclose(
        np.exp(2 * np.asarray(distribution.log_std)), np.stack([variance] * 2, -1), rtol=1e-5
    )


def test_log_std_init_may_be_a_vmap_axis() -> None:
    network, _ = make_network(SMALL, shown(3), BOX)
    keys = jax.random.split(jax.random.key(0), 2)
    params = jax.vmap(network.init)(keys, jnp.array([-1.0, 0.5]))
    assert params["log_std"].tolist() == [[-1.0, -1.0], [0.5, 0.5]]


@pytest.mark.parametrize("policy", ["gaussian", "gsde", "tanh-gaussian", "categorical"])
def test_ratio_of_a_step_seen_again_in_a_batch_is_one(policy) -> None:
    space = Discrete(4) if policy == "categorical" else BOX
    network, family, params = build(dataclasses.replace(SMALL, policy=policy), (3,), space)
    observation = jax.random.normal(jax.random.key(1), (4, 6, 3))

    @jax.jit
    def play(observation):
        distribution, _ = network.apply(params, Window(observation))
        noise = family.draw_noise(jax.random.key(2), len(observation))
        draw = family.draw(jax.random.key(3), observation.shape[:1])
        action = family.sample(draw, distribution, noise)
        return action, family.log_prob(distribution, action)

    @jax.jit
    def look_back(observation, action):
        return family.log_prob(network.apply(params, Window(observation))[0], action)

    steps = [play(observation[t]) for t in range(4)]
    action, log_prob_old = (jnp.concatenate(parts) for parts in zip(*steps, strict=True))
    log_ratio = look_back(observation.reshape(24, 3), action) - log_prob_old
    assert abs(log_ratio).max() <= 1e-5


def test_bfloat16_keeps_parameters_and_outputs_in_float32() -> None:
    config = dataclasses.replace(SMALL, precision="bfloat16")
    network, _, params = build(config)
    exact, _, _ = build(SMALL)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    observation = jax.random.normal(jax.random.key(1), (64, 3))
    (coarse, value), (fine, value_fine) = (
        n.apply(params, Window(observation)) for n in (network, exact)
    )
    assert coarse.logits.dtype == value.dtype == jnp.float32
    assert 1e-6 < abs(value - value_fine).max() < 0.05
    assert abs(coarse.logits - fine.logits).max() < 1e-3


def test_cnn_without_a_grid_is_refused_with_a_sentence() -> None:
    for shape in ((4,), (10, 5), (2, 2, 1)):
        with pytest.raises(InputError, match=r"torso='cnn'.*use mlp"):
            make_network(Config(torso="cnn"), shown(*shape), Discrete(2))
