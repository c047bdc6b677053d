"""The trust-region improver: its bound, its critic, and an independent TRPO on the same batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree
from test_objectives import POLICIES, draw_batch

from ppo_jax import actor_critic, exchange, improve, natural_gradient, pieces
from ppo_jax.config import Config, Hyper
from ppo_jax.distributions import Family
from ppo_jax.envs.interface import Box, Discrete
from ppo_jax.networks import Network, make_network
from ppo_jax.types import Batch

# Half the compile time, and no less exact.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Double precision, in the hidden layers as well."""
    kinds = (jnp.float64, jax.lax.Precision.HIGHEST)
    monkeypatch.setitem(actor_critic._PRECISIONS, "float32", kinds)
    with jax.enable_x64(True):
        yield


class Case(NamedTuple):
    """A policy, its parameters and a batch drawn from it."""

    config: Config
    network: Network
    family: Family
    params: Any
    batch: Batch


@cache
def case_of(policy: str, size: int = 64) -> Case:
    """In double precision; the hidden layer is small, the curvature large."""
    word, space = POLICIES[policy]
    config = Config(
        policy=word,
        objective="trpo",
        hidden_sizes=(6,),
        num_envs=4,
        rollout_length=size // 4,
        num_epochs=2,
        num_minibatches=2,
        normalize_advantages="none",
    )
    network, family = make_network(config, (3,), space)
    params = jit(network.init)(jax.random.key(2), -1.5)
    # The policy head starts with a gain of 0.01: of a policy that sees little, little is shown.
    flat, unravel = ravel_pytree(params)
    noise = np.random.default_rng(3).normal(size=flat.shape)
    params = unravel(flat + 0.3 * noise.astype(flat.dtype))
    batch = jit(lambda p: draw_batch(network, family, p, (3,), size))(params)
    # Likely actions are good: a Gaussian shrinks, and its KL leaves the quadratic model behind.
    likely = batch.log_prob_old - jnp.mean(batch.log_prob_old)
    batch = batch._replace(advantage=0.3 * batch.advantage + likely / jnp.std(likely))
    return Case(config, network, family, params, batch)


def step(case: Case, hyper: Hyper, batch: Batch | None = None, **changes: Any) -> tuple:
    """(params, metrics) after one trust-region step from a fresh optimiser."""
    config = dataclasses.replace(case.config, **changes)
    batch = case.batch if batch is None else batch
    params, _, metrics, ratios = natural_gradient.by_trust_region(
        config,
        hyper,
        case.network,
        case.family,
        case.params,
        improve.init_optimiser(case.params),
        batch,
        config.num_envs,
        jax.random.key(1),
    )
    return params, metrics | improve.ratio_metrics(exchange.gathered(ratios, None))


@cache
def stepper(policy: str) -> Callable[[Hyper, Batch], tuple]:
    """`step` of a policy in double precision as one program for all numbers."""
    return jit(lambda hyper, batch: step(case_of(policy), hyper, batch))


def is_policy(path: tuple) -> bool:
    """By the names of our own networks, with separate torsos."""
    names = {getattr(entry, "key", None) for entry in path}
    return not names & {"critic_torso", "value_head"}


def part(params: Any, wanted: bool) -> np.ndarray:
    """The policy's parameters, or the critic's, as one vector in the order of `ravel_pytree`."""
    return np.concatenate(
        [
            np.ravel(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
            if is_policy(path) == wanted
        ]
    )


# What is always true ------------------------------------------------------------------------------

DELTAS = np.array([1e-4, 1e-2, 0.1, 0.3, 1.0, 3.0])


@cache
def over_deltas(policy: str) -> tuple[Any, dict[str, jax.Array], Any]:
    """One program: the step of every delta, without critic steps and with long ones."""
    case = case_of(policy)

    def member(delta: jax.Array, learning_rate: jax.Array) -> tuple:
        return step(case, Hyper(trust_region_kl=delta, learning_rate=learning_rate))

    count = len(DELTAS)
    both = jit(jax.vmap(member))(np.tile(DELTAS, 2), np.repeat([0.0, 0.05], count))
    (resting, _), (learning, metrics) = (
        jax.tree.map(lambda leaf, half=half: leaf[half], both)
        for half in (slice(count), slice(count, None))
    )
    return resting, metrics, learning


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("policy", POLICIES)
def test_after_a_step_the_kl_is_within_the_bound_and_the_surrogate_has_gained(policy: str) -> None:
    """Or the policy is as it was. KL and surrogate are measured anew, critic steps included."""
    case = case_of(policy)
    _, metrics, after = over_deltas(policy)

    def measure(params: Any) -> tuple[jax.Array, jax.Array]:
        distribution, _ = case.network.apply(params, case.batch.observation)
        kl = case.family.kl(case.batch.distribution_old, case.family.keep(distribution))
        log_prob = case.family.log_prob(distribution, case.batch.action)
        ratio = jnp.exp(log_prob - case.batch.log_prob_old)
        return jnp.mean(kl), jnp.mean(ratio * case.batch.advantage)

    kl, surrogate = jit(jax.vmap(measure))(after)
    fraction, before = np.asarray(metrics["updates_fraction"]), np.mean(case.batch.advantage)
    assert fraction[:2].min() > 0.0  # small steps are always found
    for i, delta in enumerate(DELTAS):
        moved = part(jax.tree.map(lambda leaf, i=i: leaf[i], after), wanted=True)
        if fraction[i] == 0.0:
            np.testing.assert_array_equal(moved, part(case.params, wanted=True))
        else:
            assert 0.0 < kl[i] <= delta * (1.0 + 1e-3)
            assert surrogate[i] > before
    assert 0.5 * DELTAS[0] < kl[0]  # where the model is exact the bound is used
    np.testing.assert_allclose(metrics["kl_old_new"], kl, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(metrics["policy_loss"], -surrogate, rtol=1e-6, atol=1e-12)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("policy", POLICIES)
def test_fitting_the_critic_moves_no_parameter_of_the_policy_bit_for_bit(policy: str) -> None:
    resting, metrics, learning = over_deltas(policy)
    np.testing.assert_array_equal(part(resting, wanted=True), part(learning, wanted=True))
    critics = [
        part(jax.tree.map(lambda leaf: leaf[1], params), wanted=False)
        for params in (resting, learning)
    ]
    np.testing.assert_array_equal(critics[0], part(case_of(policy).params, wanted=False))
    assert np.mean(critics[0] != critics[1]) > 0.9
    assert np.all(np.isfinite(metrics["value_loss"]))


@pytest.mark.usefixtures("double")
def test_a_member_of_a_vmap_over_delta_takes_the_step_it_takes_alone() -> None:
    """Of the Gaussian, whose searches end after different numbers of trials.

    Its Fisher matrix has a condition number of 500: there, 15 steps of conjugate gradient make of
    a perturbation of 1e-16 one of 3e-4 (found in NumPy), so that programs differ by that much.
    """
    policy = "gaussian"
    _, metrics, after = over_deltas(policy)
    start = part(case_of(policy).params, wanted=True)
    for i, delta in enumerate(DELTAS.tolist()):
        hyper = Hyper(trust_region_kl=delta, learning_rate=0.05)
        params, single = stepper(policy)(hyper, case_of(policy).batch)
        assert float(single["updates_fraction"]) == float(metrics["updates_fraction"][i])
        taken = part(params, wanted=True) - start
        member = part(jax.tree.map(lambda leaf, i=i: leaf[i], after), wanted=True) - start
        assert np.linalg.norm(taken - member) < 2e-3 * np.linalg.norm(taken)


@pytest.mark.usefixtures("double")
def test_whole_batch_pieces_and_two_devices_take_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advantages are standardised over all of the batch, and a maximum is one of all rows.

    The critic rests: its minibatches are each device's own.
    """
    case, hyper = case_of("categorical"), Hyper(trust_region_kl=0.05, learning_rate=0.0)
    with_norm = {"normalize_advantages": "minibatch", "num_epochs": 1}
    whole = jit(lambda: step(case, hyper, **with_norm))()
    halves = jax.tree.map(lambda leaf: leaf.reshape(2, 32, *leaf.shape[1:]), case.batch)
    config = dataclasses.replace(case.config, **with_norm)

    def device(rows: Batch) -> tuple:
        params, _, metrics, ratios = natural_gradient.by_trust_region(
            config,
            hyper,
            case.network,
            case.family,
            case.params,
            improve.init_optimiser(case.params),
            rows,
            2,
            jax.random.key(1),
            "devices",
        )
        return params, metrics | improve.ratio_metrics(exchange.gathered(ratios, "devices"))

    both = jit(jax.vmap(device, axis_name="devices"))(halves)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(pieces, "PIECE_ROWS", 8)
    assert pieces.piece_size(64) == 8
    cut = jit(lambda: step(case, hyper, **with_norm))()
    assert float(whole[1]["updates_fraction"]) > 0.0
    for other in (cut, jax.tree.map(lambda leaf: leaf[0], both)):
        for found, expected in zip(jax.tree.leaves(other), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9)


# Which parameters the policy depends on -----------------------------------------------------------


class NnxActorCritic(nnx.Module):
    """One module with a hidden layer for both and a layer for each."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(3, 8, rngs=rngs)
        self.policy = nnx.Linear(8, 3, rngs=rngs)
        self.critic = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = nnx.relu(self.hidden(observation))
        return self.policy(x), self.critic(x)[0]


def nnx_pair() -> tuple[Callable, Callable]:
    graph, _ = nnx.split(NnxActorCritic(nnx.Rngs(0)))
    return (
        lambda key: nnx.split(NnxActorCritic(nnx.Rngs(key)))[1],
        lambda params, observation: nnx.merge(graph, params)(observation),
    )


def scanned_pair() -> tuple[Callable, Callable]:
    """A compiled function around a loop that carries policy and critic side by side."""

    @jax.jit
    def apply_fn(params: Any, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        def layer(carry: tuple, weights: tuple) -> tuple:
            actor, critic = carry
            return (jnp.tanh(actor @ weights[0]), jnp.tanh(critic @ weights[1])), None

        weights = (params["policy"], params["critic"])
        (actor, critic), _ = jax.lax.scan(layer, (observation, observation), weights)
        return actor, critic.sum()

    def init_fn(key: jax.Array) -> dict[str, jax.Array]:
        return {"policy": jax.random.normal(key, (2, 3, 3)), "critic": jnp.ones((2, 3, 3))}

    return init_fn, apply_fn


BOX = Box((1,), np.full(1, -1.0), np.full(1, 1.0))


@pytest.mark.parametrize(
    ("fields", "space", "critic"),
    [
        ({}, Discrete(3), {"critic_torso", "value_head"}),
        ({"shared_torso": True}, Discrete(3), {"value_head"}),
        ({"policy": "gaussian"}, BOX, {"critic_torso", "value_head"}),
        ({"policy": "gsde"}, BOX, {"critic_torso", "value_head"}),
        ({"network": nnx_pair()}, Discrete(3), {"critic"}),
        ({"network": scanned_pair()}, Discrete(3), {"critic"}),
    ],
    ids=["separate", "shared", "gaussian", "gsde", "nnx", "jit and scan"],
)
def test_the_policys_parameters_are_told_from_the_critics(
    fields: dict, space: Any, critic: set[str]
) -> None:
    network, _ = make_network(Config(hidden_sizes=(4, 4), **fields), (3,), space)
    params = network.init(jax.random.key(0), 0.0)
    found = natural_gradient.policy_leaves(network, params, jnp.zeros((1, 3)))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    names = [{getattr(entry, "key", None) for entry in path} for path in paths]
    assert found == [not path & critic for path in names]
    assert 0 < sum(found) < len(found)


def test_a_shared_torso_keeps_the_bound_because_only_the_value_head_is_fitted() -> None:
    config = dataclasses.replace(case_of("categorical").config, shared_torso=True)
    network, family = make_network(config, (3,), Discrete(3))
    params = jit(network.init)(jax.random.key(0), 0.0)
    batch = jit(lambda p: draw_batch(network, family, p, (3,), 64))(params)
    case = Case(config, network, family, params, batch)
    after, metrics = jit(lambda: step(case, Hyper(trust_region_kl=0.02, learning_rate=0.1)))()
    distribution, _ = network.apply(after, batch.observation)
    kl = float(jnp.mean(family.kl(batch.distribution_old, distribution)))
    assert 0.002 < kl <= 0.02 * (1.0 + 1e-3)
    assert kl == pytest.approx(float(metrics["kl_old_new"]), rel=1e-3)
    head = after["body"]["value_head"]["kernel"]
    assert np.all(np.asarray(head) != np.asarray(params["body"]["value_head"]["kernel"]))


# Against a TRPO in NumPy --------------------------------------------------------------------------


class NumpyPolicy:
    """tanh network with a softmax or Gaussian head, its derivatives written out, in float64."""

    def __init__(self, case: Case) -> None:
        body = case.params["body"]
        layers = (body["actor_torso"]["Dense_0"], body["policy_head"])
        parts = [layer[name] for layer in layers for name in ("bias", "kernel")]
        self.is_gaussian = case.family.name == "gaussian"
        if self.is_gaussian:
            parts.append(case.params["log_std"])
        self.shapes = [leaf.shape for leaf in parts]
        self.start = np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in parts])
        self.observation = np.asarray(case.batch.observation, np.float64)
        self.action = np.asarray(case.batch.action)
        self.advantage = np.asarray(case.batch.advantage, np.float64)
        self.log_prob_old = self.log_prob(self.start)

    def cut(self, flat: np.ndarray) -> list[np.ndarray]:
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        pieces = np.split(flat, ends[:-1])
        return [piece.reshape(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def head(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(hidden [N, H], logits or mean [N, A])."""
        b1, w1, b2, w2, *_ = self.cut(flat)
        hidden = np.tanh(self.observation @ w1 + b1)
        return hidden, hidden @ w2 + b2

    def log_pi(self, flat: np.ndarray) -> np.ndarray:
        """log pi of every action of a softmax, [N, A]."""
        _, logits = self.head(flat)
        return logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))

    def log_prob(self, flat: np.ndarray) -> np.ndarray:
        if not self.is_gaussian:
            return self.log_pi(flat)[np.arange(len(self.action)), self.action]
        log_std, (_, mean) = self.cut(flat)[4], self.head(flat)
        z = (self.action - mean) / np.exp(log_std)
        return np.sum(-0.5 * z**2 - log_std - 0.5 * np.log(2.0 * np.pi), axis=1)

    def surrogate(self, flat: np.ndarray) -> float:
        return float(np.mean(np.exp(self.log_prob(flat) - self.log_prob_old) * self.advantage))

    def kl(self, first: np.ndarray, second: np.ndarray) -> float:
        """Mean KL[first || second] over the batch."""
        if not self.is_gaussian:
            log_p, log_q = self.log_pi(first), self.log_pi(second)
            return float(np.mean(np.sum(np.exp(log_p) * (log_p - log_q), axis=1)))
        (_, mean_p), (_, mean_q) = self.head(first), self.head(second)
        std_p, std_q = (np.exp(self.cut(flat)[4]) for flat in (first, second))
        terms = np.log(std_q / std_p) + (std_p**2 + (mean_p - mean_q) ** 2) / (2 * std_q**2) - 0.5
        return float(np.mean(np.sum(terms, axis=1)))

    def jacobian(self) -> np.ndarray:
        """Of logits, or of mean and log std, by every parameter, at the start. [N, D, P]"""
        _, _, _, w2, *log_std = self.cut(self.start)
        hidden, output = self.head(self.start)
        width, rows = output.shape[1], []
        for n, s in enumerate(self.observation):
            for d in range(width):
                at_output = np.eye(width)[d]
                before_tanh = w2[:, d] * (1.0 - hidden[n] ** 2)
                by = [before_tanh, np.outer(s, before_tanh), at_output]
                by += [np.outer(hidden[n], at_output), *map(np.zeros_like, log_std)]
                rows.append(np.concatenate([np.ravel(x) for x in by]))
            for d in range(width if log_std else 0):
                row = np.zeros(len(self.start))
                row[len(self.start) - width + d] = 1.0
                rows.append(row)
        return np.reshape(rows, (len(self.observation), -1, len(self.start)))

    def score_and_metric(self) -> tuple[np.ndarray, np.ndarray]:
        """d log pi / d output of the actions taken [N, D]; the output's own Fisher [N, D, D]."""
        if not self.is_gaussian:
            p = np.exp(self.log_pi(self.start))
            metric = np.stack([np.diag(row) - np.outer(row, row) for row in p])
            return np.eye(p.shape[1])[self.action] - p, metric
        (_, mean), variance = self.head(self.start), np.exp(2.0 * self.cut(self.start)[4])
        error = self.action - mean
        score = np.concatenate([error / variance, error**2 / variance - 1.0], axis=1)
        diagonal = np.concatenate([1.0 / variance, np.full_like(variance, 2.0)])
        return score, np.stack([np.diag(diagonal)] * len(mean))

    def gradient_and_fisher(self) -> tuple[np.ndarray, np.ndarray]:
        jacobian, (score, metric) = self.jacobian(), self.score_and_metric()
        gradient = np.einsum("n,nd,ndp->p", self.advantage, score, jacobian)
        fisher = np.einsum("ndp,nde,neq->pq", jacobian, metric, jacobian)
        return gradient / len(self.advantage), fisher / len(self.advantage)


def numpy_trpo(policy: NumpyPolicy, delta: float) -> tuple[np.ndarray, float, bool]:
    """The algorithm of Stable-Baselines3-contrib 2.x as its documentation has it, in NumPy.

    15 iterations of conjugate gradient that stop at a residual of 1e-10, damping 0.1, at most 10
    trials shrinking by 0.8. It measures KL[new || old] in the search where the paper, and we, take
    KL[old || new]; for large steps of a Gaussian the two accept different fractions.

    Returns:
        the full step, the accepted fraction (0 for none), and whether its own direction of the KL
        would have accepted the same.
    """
    gradient, fisher = policy.gradient_and_fisher()
    matrix = fisher + 0.1 * np.eye(len(gradient))
    x, residual = np.zeros_like(gradient), gradient.copy()
    direction, square = residual.copy(), residual @ residual
    for _ in range(15):
        image = matrix @ direction
        length = square / (direction @ image)
        x, residual = x + length * direction, residual - length * image
        square_new = residual @ residual
        if square_new < 1e-10:
            break
        direction, square = residual + square_new / square * direction, square_new
    full = np.sqrt(2.0 * delta / (x @ matrix @ x)) * x
    old, accepted = policy.start, {"old-new": 0.0, "new-old": 0.0}
    for name in accepted:
        for k in range(10):
            new = old + 0.8**k * full
            kl = policy.kl(old, new) if name == "old-new" else policy.kl(new, old)
            if policy.surrogate(new) > policy.surrogate(old) and kl <= delta:
                accepted[name] = 0.8**k
                break
    return full, accepted["old-new"], accepted["old-new"] == accepted["new-old"]


def moves(case: Case, params: Any) -> np.ndarray:
    """How far each member's policy is from the start, [len(DELTAS), P]."""
    start = part(case.params, wanted=True).astype(np.float64)
    members = [jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(len(DELTAS))]
    return np.stack([part(member, wanted=True).astype(np.float64) - start for member in members])


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("policy", ["categorical", "gaussian"])
def test_direction_length_and_accepted_fraction_are_those_of_an_independent_trpo(
    policy: str,
) -> None:
    assert (Hyper().fisher_damping, Config().num_cg_iterations) == (0.1, 15)
    case = case_of(policy)
    params, metrics, _ = over_deltas(policy)
    by_hand, found = NumpyPolicy(case), moves(case, params)
    np.testing.assert_allclose(part(case.params, wanted=True), by_hand.start, rtol=1e-12)
    fractions = []
    for i, delta in enumerate(DELTAS):
        full, fraction, is_either = numpy_trpo(by_hand, delta)
        assert float(metrics["updates_fraction"][i]) == pytest.approx(fraction, rel=1e-6)
        assert fraction > 0.0
        fractions.append(fraction)
        assert is_either or i > 0
        size = np.linalg.norm(found[i])
        assert found[i] @ full / size / np.linalg.norm(full) > 0.9999
        assert size == pytest.approx(np.linalg.norm(fraction * full), rel=1e-3)
    assert fractions[0] == 1.0
    if policy == "gaussian":
        assert len(set(fractions)) >= 3  # steps of several lengths were accepted


@pytest.mark.usefixtures("double")
def test_npg_takes_the_full_step_where_trpo_draws_back() -> None:
    case = case_of("gaussian")

    def member(delta: jax.Array) -> tuple:
        return step(case, Hyper(trust_region_kl=delta, learning_rate=0.0), objective="npg")

    params, metrics = jit(jax.vmap(member))(DELTAS)
    _, searched, _ = over_deltas("gaussian")
    full = [numpy_trpo(NumpyPolicy(case), delta)[0] for delta in DELTAS]
    for found, expected in zip(moves(case, params), full, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    np.testing.assert_array_equal(metrics["updates_fraction"], 1.0)
    held_back = np.asarray(searched["updates_fraction"]) < 1.0
    assert held_back.any()
    assert np.all(np.asarray(metrics["kl_old_new"])[held_back] > DELTAS[held_back])


@pytest.mark.usefixtures("double")
def test_the_step_is_that_of_the_dense_natural_gradient() -> None:
    """(F + lambda I) x = g with F enumerated over all actions of all samples, by autodiff."""
    case = case_of("categorical")
    flat, unravel = ravel_pytree(case.params)
    wanted = ravel_pytree(
        jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.full(leaf.shape, is_policy(path)), case.params
        )
    )[0]

    def log_pi(x: jax.Array) -> jax.Array:
        distribution, _ = case.network.apply(unravel(x), case.batch.observation)
        return jax.nn.log_softmax(distribution.logits)

    score = np.asarray(jit(jax.jacobian(log_pi))(flat))[..., np.asarray(wanted)]
    probability = np.exp(np.asarray(log_pi(flat)))
    fisher = np.einsum("na,nap,naq->pq", probability, score, score) / len(score)
    taken = score[np.arange(len(score)), np.asarray(case.batch.action)]
    gradient = np.asarray(case.batch.advantage) @ taken / len(score)

    def member(delta: jax.Array, damping: jax.Array) -> tuple:
        hyper = Hyper(trust_region_kl=delta, fisher_damping=damping, learning_rate=0.0)
        return step(case, hyper, objective="npg", num_cg_iterations=60)

    settings = np.array([[1e-3, 0.1], [0.01, 0.02], [5.0, 0.1]])
    params, metrics = jit(jax.vmap(member))(*settings.T)
    for i, (delta, damping) in enumerate(settings):
        matrix = fisher + damping * np.eye(len(gradient))
        x = np.linalg.solve(matrix, gradient)
        dense = np.sqrt(2.0 * delta / (x @ matrix @ x)) * x
        moved = part(jax.tree.map(lambda leaf, i=i: leaf[i], params), wanted=True)
        found = moved - part(case.params, wanted=True)
        assert np.linalg.norm(found - dense) <= 1e-4 * np.linalg.norm(dense)
        assert float(metrics["updates_fraction"][i]) == 1.0


@pytest.mark.usefixtures("double")
def test_without_advantages_the_policy_stays_and_the_critic_learns() -> None:
    case = case_of("gaussian")
    batch = case.batch._replace(advantage=jnp.zeros(64))
    params, metrics = stepper("gaussian")(Hyper(learning_rate=0.01), batch)
    assert float(metrics["updates_fraction"]) == 0.0
    np.testing.assert_array_equal(part(params, wanted=True), part(case.params, wanted=True))
    assert np.all(np.isfinite(ravel_pytree(params)[0]))

    errors = [
        np.mean(np.square(case.network.value(p, batch.observation) - batch.value_target))
        for p in (case.params, params)
    ]
    assert errors[1] < errors[0]


@pytest.mark.usefixtures("double")
def test_what_bounds_or_paces_minibatches_by_the_kl_leaves_the_critics_fit_alone() -> None:
    """The critic's loss has no KL: neither `kl_stop` nor `kl_lr_target` has anything to follow."""

    batch = case_of("gaussian").batch
    plain, _ = stepper("gaussian")(Hyper(learning_rate=0.01), batch)
    for bound in (1e-9, 10.0):
        hyper = Hyper(learning_rate=0.01, kl_stop=bound, kl_lr_target=bound)
        bounded, _ = stepper("gaussian")(hyper, batch)
        jax.tree.map(np.testing.assert_array_equal, bounded, plain)
