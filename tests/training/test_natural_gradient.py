"""The trust-region update: its bound, its critic, and an independent TRPO on the same batch."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from networks import shown
from numpy_trpo import NumpyPolicy, numpy_trpo
from objective_cases import POLICIES, draw_batch
from trust_region_case import (
    DELTAS,
    Case,
    case_of,
    is_policy,
    jit,
    over_deltas,
    part,
    step,
    stepper,
)

from ppo_jax.config.config import Config, Hyper
from ppo_jax.envs.interface import Discrete
from ppo_jax.kernels import backend, chunks
from ppo_jax.kernels.collectives import Across
from ppo_jax.models.network import make_network
from ppo_jax.rl.types import Batch

# Invariants ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("policy", POLICIES)
def test_after_a_step_the_kl_is_within_the_bound_and_the_surrogate_has_gained(policy: str) -> None:
    """Else the policy is unchanged. KL and surrogate are measured after the critic's steps."""
    case = case_of(policy)
    _, metrics, after = over_deltas(policy)

    def measure(params: Any) -> tuple[jax.Array, jax.Array]:
        distribution, _ = case.network.apply(params, case.batch.window)
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
    assert 0.5 * DELTAS[0] < kl[0]  # small steps use the bound, as the model is exact
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
def test_weight_decay_of_the_critics_optimiser_leaves_the_policy_alone() -> None:
    case = case_of("gaussian")
    fit = jit(lambda hyper: step(case, hyper, optimizer="adamw")[0])
    plain, decayed = (fit(Hyper(learning_rate=0.01, weight_decay=decay)) for decay in (0.0, 0.5))
    np.testing.assert_array_equal(part(decayed, wanted=True), part(plain, wanted=True))
    critics = [part(params, wanted=False) for params in (plain, decayed)]
    assert np.mean(critics[0] != critics[1]) > 0.9


@pytest.mark.usefixtures("double")
def test_a_member_of_a_vmap_over_delta_takes_the_step_it_takes_alone() -> None:
    """The policy is the Gaussian, whose searches end after different numbers of trials.

    Its Fisher matrix has a condition number of 500. There, 15 steps of conjugate gradient amplify a
    perturbation of 1e-16 to 3e-4 (found in NumPy), so programs differ by that much.
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
def test_whole_batch_chunks_and_two_devices_take_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advantages are standardised over the whole batch, and a maximum is over all rows.

    The critic rests: its minibatches are each device's own.
    """
    case, hyper = case_of("categorical"), Hyper(trust_region_kl=0.05, learning_rate=0.0)
    with_norm = {"normalize_advantages": "minibatch", "num_epochs": 1}
    whole = jit(lambda: step(case, hyper, **with_norm))()
    halves = jax.tree.map(lambda leaf: leaf.reshape(2, 32, *leaf.shape[1:]), case.batch)

    def device(rows: Batch) -> tuple:
        return step(case, hyper, rows, Across(("devices",)), **with_norm)

    both = jit(jax.vmap(device, axis_name="devices"))(halves)
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 8)
    with backend.use("cpu"):
        assert chunks.chunk_size(64) == 8
        cut = jit(lambda: step(case, hyper, **with_norm))()
    assert float(whole[1]["updates_fraction"]) > 0.0
    for other in (cut, jax.tree.map(lambda leaf: leaf[0], both)):
        for found, expected in zip(jax.tree.leaves(other), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9)


def test_a_shared_torso_keeps_the_bound_because_only_the_value_head_is_fitted() -> None:
    config = dataclasses.replace(case_of("categorical").config, shared_torso=True)
    network, family = make_network(config, shown(3), Discrete(3))
    params = jit(network.init)(jax.random.key(0), 0.0)
    batch = jit(lambda p: draw_batch(network, family, p, (3,), 64))(params)
    case = Case(config, network, family, params, batch)
    after, metrics = jit(lambda: step(case, Hyper(trust_region_kl=0.02, learning_rate=0.1)))()
    distribution, _ = network.apply(after, batch.window)
    kl = float(jnp.mean(family.kl(batch.distribution_old, distribution)))
    assert 0.002 < kl <= 0.02 * (1.0 + 1e-3)
    assert kl == pytest.approx(float(metrics["kl_old_new"]), rel=1e-3)
    head = after["body"]["value_head"]["kernel"]
    assert np.all(np.asarray(head) != np.asarray(params["body"]["value_head"]["kernel"]))


# Against a TRPO in NumPy --------------------------------------------------------------------------


def moves(case: Case, params: Any) -> np.ndarray:
    """Distance of each member's policy from the start, [len(DELTAS), P]."""
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
        distribution, _ = case.network.apply(unravel(x), case.batch.window)
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
        np.mean(np.square(case.network.value(p, batch.window) - batch.value_target))
        for p in (case.params, params)
    ]
    assert errors[1] < errors[0]


@pytest.mark.usefixtures("double")
def test_what_bounds_or_paces_minibatches_by_the_kl_leaves_the_critics_fit_alone() -> None:
    """The critic's loss has no KL: `kl_stop` and `kl_lr_target` have no effect."""

    batch = case_of("gaussian").batch
    plain, _ = stepper("gaussian")(Hyper(learning_rate=0.01), batch)
    for bound in (1e-9, 10.0):
        hyper = Hyper(learning_rate=0.01, kl_stop=bound, kl_lr_target=bound)
        bounded, _ = stepper("gaussian")(hyper, batch)
        jax.tree.map(np.testing.assert_array_equal, bounded, plain)
