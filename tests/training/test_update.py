"""Epochs x minibatches of updates against a NumPy trainer that is written out in loops."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpy_adam import numpy_adam
from toy import all_metrics

from ppo_jax.config.config import Config, Hyper
from ppo_jax.kernels import backend, chunks
from ppo_jax.rl.types import Batch, Setting, Window
from ppo_jax.training.optimizer import init_optimizer
from ppo_jax.training.update import (
    Learned,
    Learner,
    Loss,
    minibatch_order,
    minibatch_updates,
    summarise,
)


def make_batch(size: int, seed: int = 0, features: int = 3) -> Batch:
    """A regression in the shape of a batch; the row's number is kept in `action`."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.result_type(float))

    return Batch(
        window=Window(normal(size, features)),
        action=jnp.arange(size, dtype=jnp.int32),
        log_prob_old=normal(size),
        distribution_old=(),
        value_old=normal(size),
        advantage=2.0 + 3.0 * normal(size),
        value_target=normal(size),
    )


def mean_of(row_loss: Any, kl: Any = None) -> Loss:
    """A loss with the diagnostics that every loss has; `kl` is of the parameters."""

    def loss(params: Any, batch: Batch) -> tuple[jax.Array, tuple]:
        losses = row_loss(params, batch)
        flat, _ = ravel_pytree(params)
        zero = jnp.zeros_like(losses[0])
        means = {
            "policy_loss": jnp.mean(losses),
            "kl_old_new": zero if kl is None else kl(flat),
        }
        return jnp.mean(losses), (means, batch.value_old)

    return loss


def regression(params: Any, batch: Batch) -> jax.Array:
    prediction = batch.window.observation @ params["w"] + params["b"]
    return 0.5 * (prediction - batch.value_target) ** 2 - 0.1 * batch.advantage * prediction


def start(features: int = 3) -> dict[str, jax.Array]:
    kind = jnp.result_type(float)
    return {"b": jnp.asarray(0.3, kind), "w": jnp.linspace(-1.0, 1.0, features, dtype=kind)}


def config_of(size: int, num_envs: int = 4, **fields: Any) -> Config:
    fields = {"num_epochs": 2, "num_minibatches": 4, "normalize_advantages": "none", **fields}
    return Config(num_envs=num_envs, rollout_length=size // num_envs, **fields)


KEY = jax.random.key(1)


def learn(
    config: Config, hyper: Any, loss: Loss, params: Any, batch: Batch, rate: float = 1.0
) -> Learned:
    """`minibatch_updates` from a fresh optimiser."""
    opt_state = init_optimizer(config, hyper, params)
    learner = Learner(params, opt_state, jnp.asarray(rate), jnp.ones((), bool))
    return minibatch_updates(Setting(config, hyper), loss, learner, batch, KEY)


def run(config: Config, hyper: Any, loss: Loss, params: Any, batch: Batch) -> tuple[Any, Any, dict]:
    """The same compiled, with its diagnostics summarised: (params, optimiser state, metrics)."""

    def update(hyper: Any, params: Any, batch: Batch) -> tuple:
        found = learn(config, hyper, loss, params, batch)
        return found.params, found.opt_state, all_metrics(hyper, found)

    return jax.jit(update)(hyper, params, batch)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("shuffle", ["samples", "env-rows"])
def test_every_sample_is_learnt_from_exactly_once_an_epoch(shuffle: str) -> None:
    """Loss sum of the rows' own parameters: the gradient of a step marks the rows of it.

    Adam's first moment then holds, for the row seen at step i of epoch 0 and j of epoch 1,
    0.1 * (0.9^(8 - 1 - i) + 0.9^(4 - 1 - j)), times 1 / 8 for the mean over 8 rows.
    """
    config = config_of(32, 4, shuffle=shuffle)
    batch = make_batch(32)
    loss = mean_of(lambda params, b: params["own"][b.action])
    hyper = Hyper(learning_rate=3e-4, max_grad_norm=math.inf)
    _, state, _ = run(config, hyper, loss, {"own": jnp.zeros(32)}, batch)
    pairs = {
        0.1 / 8 * (0.9 ** (7 - i) + 0.9 ** (3 - j)): (i, j) for i in range(4) for j in range(4)
    }
    sums = np.array(list(pairs))
    assert np.diff(np.sort(sums)).min() > 1e-6
    seen = []
    for number in np.asarray(state.mu):
        nearest = sums[np.abs(sums - number).argmin()]
        assert number == pytest.approx(nearest, abs=1e-12)
        seen.append(pairs[nearest])
    first, second = np.array(seen).T
    np.testing.assert_array_equal(np.bincount(first), np.full(4, 8))
    np.testing.assert_array_equal(np.bincount(second), np.full(4, 8))
    assert np.any(first != second)  # each epoch in its own order


def numpy_steps(config: Config, batch: Batch) -> list[Any]:
    """Every step's gradient as a function of flat parameters (b, w), in the package's order."""
    x, target, advantage = (
        np.asarray(leaf) for leaf in (batch.window.observation, batch.value_target, batch.advantage)
    )
    steps = []
    for epoch in np.asarray(minibatch_order(config, KEY, len(target), config.num_envs)):
        for rows in epoch:

            def gradient(flat: np.ndarray, rows: np.ndarray = rows) -> np.ndarray:
                a = advantage[rows]
                if config.normalize_advantages == "minibatch":
                    a = (a - a.mean()) / (a.std() + 1e-5 * abs(a.mean()))
                total = np.zeros_like(flat)
                for i, row in enumerate(rows):
                    error = flat[0] + x[row] @ flat[1:] - target[row] - 0.1 * a[i]
                    total += error * np.append(1.0, x[row])
                return total / len(rows)

            steps.append(gradient)
    return steps


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("shuffle", ["samples", "env-rows"])
@pytest.mark.parametrize("normalize", ["minibatch", "none"])
def test_an_update_is_that_of_a_numpy_trainer(shuffle: str, normalize: str) -> None:
    config = config_of(32, shuffle=shuffle, normalize_advantages=normalize, num_epochs=3)
    hyper = Hyper(learning_rate=0.05, max_grad_norm=0.5)
    batch = make_batch(32)
    params, state, metrics = run(config, hyper, mean_of(regression), start(), batch)
    by_hand = numpy_adam(np.asarray(ravel_pytree(start())[0]), numpy_steps(config, batch), hyper)
    np.testing.assert_allclose(ravel_pytree(params)[0], by_hand, atol=1e-7)
    assert int(state.count) == 12
    assert float(metrics["updates_fraction"]) == 1.0


@pytest.mark.usefixtures("double")
def test_after_the_kl_bound_is_reached_nothing_moves_for_each_member_of_a_vmap_alone() -> None:
    """The KL is the squared distance from the start; each bound stops after its own step."""
    config, batch = config_of(32), make_batch(32)
    origin = np.asarray(ravel_pytree(start())[0])
    steps = numpy_steps(config, batch)
    loss = mean_of(regression, kl=lambda flat: jnp.sum((flat - origin) ** 2))
    stops = np.array([1e-9, 0.02, 0.1, math.inf])

    def member(kl_stop: jax.Array) -> tuple:
        hyper = Hyper(learning_rate=0.05, kl_stop=kl_stop)
        found = learn(config, hyper, loss, start(), batch)
        return found.params, found.opt_state, all_metrics(hyper, found)

    params, state, metrics = jax.jit(jax.vmap(member))(jnp.asarray(stops))
    taken = []
    for i, kl_stop in enumerate(stops):
        count, at = 0, origin
        while count < 8 and np.sum((at - origin) ** 2) < kl_stop:
            count += 1
            at = numpy_adam(origin, steps, Hyper(learning_rate=0.05), stop_after=count)
        taken.append(count)
        found = ravel_pytree(jax.tree.map(lambda leaf, i=i: leaf[i], params))[0]
        np.testing.assert_allclose(found, at, atol=1e-7)
        assert int(state.count[i]) == count
        assert float(metrics["updates_fraction"][i]) == count / 8
    assert taken[0] == 1  # at theta_old the KL is 0: the first step is always taken
    assert 1 < taken[1] < taken[2] < 8
    assert taken[3] == 8


def test_one_minibatch_beyond_the_kl_bound_ends_all_epochs() -> None:
    """Only the minibatch that holds sample 5 has a KL: those before it are learnt from."""
    config, batch = config_of(32), make_batch(32)
    loss = mean_of(regression)

    def spiked(params: Any, rows: Batch) -> tuple[jax.Array, tuple]:
        total, (means, log_ratio) = loss(params, rows)
        return total, ({**means, "kl_old_new": jnp.any(rows.action == 5) * 1.0}, log_ratio)

    _, state, metrics = run(config, Hyper(learning_rate=3e-4, kl_stop=0.5), spiked, start(), batch)
    first = minibatch_order(config, KEY, 32, 4)[0]
    before = int(np.flatnonzero(np.any(np.asarray(first) == 5, axis=1))[0])
    assert int(state.count) == before
    assert float(metrics["updates_fraction"]) == before / 8


@pytest.mark.usefixtures("double")
def test_an_adaptive_learning_rate_follows_the_kl_of_every_epoch_for_each_member_alone() -> None:
    """The KL is the squared distance from the start, its mean over an epoch above twice the
    target: / 1.5, below half of it: x 1.5; the next iteration continues from the last factor.
    """
    config, batch = config_of(32, num_epochs=6), make_batch(32)
    origin = np.asarray(ravel_pytree(start())[0])
    steps = numpy_steps(config, batch)
    loss = mean_of(regression, kl=lambda flat: jnp.sum((flat - origin) ** 2))
    targets, start_rate = np.array([1e-3, 0.02, 10.0, math.inf]), 0.75

    def member(target: jax.Array) -> Learned:
        hyper = Hyper(learning_rate=0.02, kl_lr_target=target)
        return learn(config, hyper, loss, start(), batch, start_rate)

    params, _, rates, *_ = jax.jit(jax.vmap(member))(jnp.asarray(targets))
    ends = []
    for i, target in enumerate(targets):
        rate, turns, at, kls = start_rate, set(), origin, []
        mu, nu = np.zeros_like(at), np.zeros_like(at)
        for count, gradient_of in enumerate(steps, start=1):
            kls.append(float(np.sum((at - origin) ** 2)))
            gradient = gradient_of(at)
            gradient = gradient * min(1.0, 0.5 / np.linalg.norm(gradient))
            mu, nu = 0.9 * mu + 0.1 * gradient, 0.999 * nu + 0.001 * gradient**2
            root = np.sqrt(nu / (1.0 - 0.999**count))
            at = at - rate * 0.02 * mu / (1.0 - 0.9**count) / (root + 1e-5)
            if count % 4 == 0:  # the epoch's last minibatch
                kl = np.mean(kls[-4:])
                turn = 1 / 1.5 if kl > 2.0 * target else 1.5 if kl < target / 2.0 else 1.0
                if math.isfinite(target):
                    # The learning rate of 0.02 lies above the band, so it is its own bound.
                    rate, turns = min(rate * turn, 1.0), turns | {turn}
        found = ravel_pytree(jax.tree.map(lambda leaf, i=i: leaf[i], params))[0]
        np.testing.assert_allclose(found, at, atol=1e-7)
        assert float(rates[i]) == pytest.approx(rate, rel=1e-12)
        ends.append((rate, turns))
    assert len(ends[1][1]) == 3  # it rose, rested and fell
    assert ends[0][0] < ends[1][0] < ends[2][0] == 1.0
    assert ends[3][0] == start_rate


def test_the_kl_of_a_few_steps_is_measured_after_the_last_of_them() -> None:
    """Each step measures it before it moves, so a single step would measure 0 for ever."""
    config, batch = config_of(32, num_epochs=1, num_minibatches=1), make_batch(32)
    origin = ravel_pytree(start())[0]
    loss = mean_of(regression, kl=lambda flat: jnp.sum((flat - origin) ** 2))
    hyper = Hyper(learning_rate=1e-3, kl_lr_target=1e-8)
    found = jax.jit(lambda: learn(config, hyper, loss, start(), batch))()
    moved = float(jnp.sum((ravel_pytree(found.params)[0] - origin) ** 2))
    assert moved > 1e-6
    assert float(found.kl) == pytest.approx(moved, rel=1e-3)
    assert float(found.rate) == pytest.approx(1 / 1.5)  # the KL lies far above its target


def test_a_loss_without_a_kl_has_nothing_to_pace_or_to_bound_it() -> None:
    config, batch = config_of(32), make_batch(32)

    def plain(params: Any, rows: Batch) -> tuple[jax.Array, tuple]:
        total = jnp.mean(regression(params, rows))
        return total, ({"value_loss": total}, ())

    @jax.jit
    def update(bound: jax.Array) -> Learned:
        hyper = Hyper(learning_rate=0.05, kl_stop=bound, kl_lr_target=bound)
        return learn(config, hyper, plain, start(), batch)

    reference = update(math.inf)
    assert float(reference.rate) == 1.0
    assert float(jnp.min(reference.diagnostics["active"])) == 1.0
    assert reference.log_ratio == ()
    for bound in (1e-9, 1e9):
        jax.tree.map(np.testing.assert_array_equal, update(bound), reference)


def test_the_weights_of_log_ratios_are_those_of_their_rows() -> None:
    """The log-ratios of this loss are the rows' old values."""
    batch = make_batch(32)
    batch = batch._replace(weight=jnp.exp(batch.value_old))
    config = config_of(32)
    hyper = Hyper(learning_rate=0.05)
    learned = jax.jit(lambda: learn(config, hyper, mean_of(regression), start(), batch))()
    np.testing.assert_array_equal(learned.weight, jnp.exp(learned.log_ratio))
    assert learned.weight.shape == (2, 4, 8)


def test_a_probe_sees_the_first_minibatch_of_every_epoch_before_it_is_learnt_from() -> None:
    """It changes no parameter: they are those of a run without it."""
    config, batch, hyper = config_of(32), make_batch(32), Hyper(learning_rate=0.05)

    def probe(params: Any, rows: Batch) -> dict:
        return {"gradient_cosine": params["b"], "seen": jnp.sum(rows.action)}

    def update(probe: Any) -> Learned:
        learner = Learner(
            start(), init_optimizer(config, hyper, start()), jnp.ones(()), jnp.ones((), bool)
        )
        loss = mean_of(regression)
        return minibatch_updates(Setting(config, hyper), loss, learner, batch, KEY, probe)

    learned = jax.jit(lambda: update(probe))()
    params, found = learned.params, learned.diagnostics
    plain = jax.jit(lambda: update(None))()
    jax.tree.map(np.testing.assert_array_equal, params, plain.params)
    assert found["gradient_cosine"].shape == (2, 1)
    assert float(found["gradient_cosine"][0, 0]) == float(start()["b"])
    assert float(found["gradient_cosine"][1, 0]) != float(start()["b"])
    for epoch, rows in enumerate(minibatch_order(config, KEY, 32, 4)):
        assert int(found["seen"][epoch, 0]) == int(jnp.sum(rows[0]))
    metrics = summarise(found | {"seen": jnp.zeros((2, 4))})
    assert float(metrics["gradient_cosine_first_epoch"]) == float(found["gradient_cosine"][0, 0])
    assert float(metrics["gradient_cosine_last_epoch"]) == float(found["gradient_cosine"][1, 0])
    assert "gradient_cosine" not in metrics


def test_an_infinite_kl_bound_learns_on_whatever_the_kl() -> None:
    config, batch = config_of(32), make_batch(32)
    reference = run(config, Hyper(learning_rate=3e-4), mean_of(regression), start(), batch)[0]
    far = run(
        config, Hyper(learning_rate=3e-4), mean_of(regression, kl=lambda _: 1e30), start(), batch
    )[0]
    jax.tree.map(np.testing.assert_array_equal, far, reference)


def test_what_is_not_a_number_is_written_into_the_parameters_and_not_hidden() -> None:
    """A NaN makes the KL NaN too; it must not count as a KL bound that was reached."""
    config = config_of(32)
    batch = make_batch(32)
    batch = batch._replace(window=Window(batch.window.observation.at[0].set(jnp.nan)))
    loss = mean_of(lambda p, b: regression(p, b), kl=lambda flat: jnp.sum(flat))

    def poisoned(params: Any, rows: Batch) -> tuple[jax.Array, tuple]:
        total, (means, log_ratio) = loss(params, rows)
        return total, ({**means, "kl_old_new": total}, log_ratio)

    params, _, _ = run(config, Hyper(learning_rate=3e-4), poisoned, start(), batch)
    assert not np.all(np.isfinite(ravel_pytree(params)[0]))


def test_the_gradient_by_chunks_is_that_of_the_whole_minibatch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """64 rows a minibatch: whole, or in chunks of 8, standardised by the whole minibatch."""
    config = config_of(256, normalize_advantages="minibatch")
    batch, hyper = make_batch(256), Hyper(learning_rate=0.01)
    with backend.use("cpu"):
        assert chunks.chunk_size(64) == 64
        whole = run(config, hyper, mean_of(regression), start(), batch)
        monkeypatch.setattr(chunks, "CHUNK_ROWS", 8)
        assert chunks.chunk_size(64) == 8
        cut = run(config, hyper, mean_of(regression), start(), batch)
    for found, expected in zip(jax.tree.leaves(cut), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["plain", "cpu", "gpu"])
def test_log_ratios_stand_where_their_samples_were_drawn(form: str) -> None:
    """[E, M, rows], in the order of the minibatches; the loss gives each sample's `value_old`."""
    config, batch = config_of(32), make_batch(32)
    with backend.use(form):
        found = jax.jit(
            lambda: learn(config, Hyper(learning_rate=3e-4), mean_of(regression), start(), batch)
        )()
    order = np.asarray(minibatch_order(config, KEY, 32, 4))
    np.testing.assert_array_equal(found.log_ratio, np.asarray(batch.value_old)[order])


def test_the_reported_gradient_norm_is_the_one_before_clipping() -> None:
    config = config_of(32, num_epochs=1, num_minibatches=1)
    hyper = Hyper(learning_rate=3e-4, max_grad_norm=1e-3)
    _, _, metrics = run(config, hyper, mean_of(regression), start(), make_batch(32))
    (gradient,) = numpy_steps(config, make_batch(32))
    norm = np.linalg.norm(gradient(np.asarray(ravel_pytree(start())[0])))
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-4)


def test_no_value_of_a_hyperparameter_compiles_anything_anew() -> None:
    config, batch, traced = config_of(32), make_batch(32), []

    @jax.jit
    def update(hyper: Hyper) -> Any:
        traced.append(1)
        return learn(config, hyper, mean_of(regression), start(), batch).params

    results = [
        update(Hyper(learning_rate=rate, max_grad_norm=norm, kl_stop=stop, adam_epsilon=1e-5))
        for rate, norm, stop in ((0.1, 0.5, math.inf), (0.2, math.inf, 0.1), (0.0, 1.0, 1.0))
    ]
    assert len(traced) == 1
    assert update._cache_size() == 1
    jax.tree.map(np.testing.assert_array_equal, results[2], start())  # a rate of 0 moves nothing
    assert np.any(np.asarray(results[0]["w"]) != np.asarray(results[1]["w"]))
