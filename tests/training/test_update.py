"""Epochs x minibatches of Adam against a NumPy trainer that is written out in loops."""

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
from ppo_jax.kernels import chunks
from ppo_jax.rl.types import Batch
from ppo_jax.training import update as improve


def make_batch(size: int, seed: int = 0, features: int = 3) -> Batch:
    """A regression in the shape of a batch; the row's number is kept in `action`."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.result_type(float))

    return Batch(
        observation=normal(size, features),
        action=jnp.arange(size, dtype=jnp.int32),
        log_prob_old=normal(size),
        distribution_old=(),
        value_old=normal(size),
        advantage=2.0 + 3.0 * normal(size),
        value_target=normal(size),
    )


def mean_of(row_loss: Any, kl: Any = None) -> improve.Loss:
    """A loss with the diagnostics that every loss has; `kl` is of the parameters."""

    def loss(params: Any, batch: Batch) -> tuple[jax.Array, dict]:
        losses = row_loss(params, batch)
        flat, _ = ravel_pytree(params)
        zero = jnp.zeros_like(losses[0])
        return jnp.mean(losses), {
            "policy_loss": jnp.mean(losses),
            "kl_old_new": zero if kl is None else kl(flat),
            "log_ratio": batch.value_old,
        }

    return loss


def regression(params: Any, batch: Batch) -> jax.Array:
    prediction = batch.observation @ params["w"] + params["b"]
    return 0.5 * (prediction - batch.value_target) ** 2 - 0.1 * batch.advantage * prediction


def start(features: int = 3) -> dict[str, jax.Array]:
    kind = jnp.result_type(float)
    return {"b": jnp.asarray(0.3, kind), "w": jnp.linspace(-1.0, 1.0, features, dtype=kind)}


def config_of(size: int, num_envs: int = 4, **fields: Any) -> Config:
    fields = {"num_epochs": 2, "num_minibatches": 4, "normalize_advantages": "none", **fields}
    return Config(num_envs=num_envs, rollout_length=size // num_envs, **fields)


def run(
    config: Config, hyper: Any, loss: improve.Loss, params: Any, batch: Batch, key: Any = None
) -> tuple[Any, Any, dict]:
    """`by_minibatches` from a fresh optimiser, compiled, with its diagnostics summarised."""
    key = jax.random.key(1) if key is None else key

    def update(hyper: Any, params: Any, batch: Batch) -> tuple:
        opt_state = improve.init_optimiser(params)
        params, opt_state, _, diagnostics = improve.by_minibatches(
            config, hyper, loss, params, opt_state, batch, config.num_envs, key
        )
        return params, opt_state, all_metrics(hyper, diagnostics)

    return jax.jit(update)(hyper, params, batch)


# Rows of a minibatch ------------------------------------------------------------------------------


@pytest.mark.parametrize("num_minibatches", [1, 4])
@pytest.mark.parametrize("shuffle", ["samples", "env-rows"])
def test_minibatches_cover_each_sample_once(shuffle: str, num_minibatches: int) -> None:
    config = config_of(96, 8, shuffle=shuffle, num_minibatches=num_minibatches)
    rows = np.asarray(improve.minibatch_rows(config, jax.random.key(0), 96, 8))
    assert rows.shape == (config.num_epochs, num_minibatches, 96 // num_minibatches)
    for epoch in rows:
        np.testing.assert_array_equal(np.sort(epoch.ravel()), np.arange(96))
        assert np.any(epoch.ravel() != np.arange(96))
    assert np.any(rows[0] != rows[1])
    other = improve.minibatch_rows(config, jax.random.key(1), 96, 8)
    assert np.any(rows != np.asarray(other))


def test_env_rows_keeps_the_steps_of_an_environment_together_and_in_order() -> None:
    """Row t B + b of the batch is step t of environment b: T = 12, B = 8."""
    config = config_of(96, 8, shuffle="env-rows", num_minibatches=4)
    rows = np.asarray(improve.minibatch_rows(config, jax.random.key(0), 96, 8))
    for minibatch in rows.reshape(-1, 24):
        step, environment = (x.reshape(2, 12) for x in divmod(minibatch, 8))
        assert np.all(environment == environment[:, :1])
        np.testing.assert_array_equal(step, np.broadcast_to(np.arange(12), (2, 12)))


def test_samples_mixes_environments() -> None:
    config = config_of(96, 8, num_minibatches=4)
    rows = np.asarray(improve.minibatch_rows(config, jax.random.key(0), 96, 8))
    assert min(len(set(minibatch % 8)) for minibatch in rows.reshape(-1, 24)) > 4


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
    hyper = Hyper(max_grad_norm=math.inf)
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


# Whole epochs -------------------------------------------------------------------------------------


def numpy_steps(config: Config, batch: Batch, key: Any) -> list[Any]:
    """Every step's gradient as a function of flat parameters (b, w); only the order is ours."""
    x, target, advantage = (
        np.asarray(leaf) for leaf in (batch.observation, batch.value_target, batch.advantage)
    )
    steps = []
    for epoch in np.asarray(improve.minibatch_rows(config, key, len(target), config.num_envs)):
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
    batch, key = make_batch(32), jax.random.key(1)
    params, state, metrics = run(config, hyper, mean_of(regression), start(), batch, key)
    by_hand = numpy_adam(
        np.asarray(ravel_pytree(start())[0]), numpy_steps(config, batch, key), hyper
    )
    np.testing.assert_allclose(ravel_pytree(params)[0], by_hand, atol=1e-7)
    assert int(state.count) == 12
    assert float(metrics["updates_fraction"]) == 1.0


@pytest.mark.usefixtures("double")
def test_after_the_kl_bound_is_reached_nothing_moves_for_each_member_of_a_vmap_alone() -> None:
    """The KL is the squared distance from the start; each bound stops after its own step."""
    config, batch, key = config_of(32), make_batch(32), jax.random.key(1)
    origin = np.asarray(ravel_pytree(start())[0])
    steps = numpy_steps(config, batch, key)
    loss = mean_of(regression, kl=lambda flat: jnp.sum((flat - origin) ** 2))
    stops = np.array([1e-9, 0.02, 0.1, math.inf])

    def member(kl_stop: jax.Array) -> tuple:
        hyper = Hyper(learning_rate=0.05, kl_stop=kl_stop)
        state = improve.init_optimiser(start())
        params, state, _, diagnostics = improve.by_minibatches(
            config, hyper, loss, start(), state, batch, 4, key
        )
        return params, state, all_metrics(hyper, diagnostics)

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
    """Only the minibatch that holds sample 5 has a KL: what comes before it is learnt from."""
    config, batch, key = config_of(32), make_batch(32), jax.random.key(1)
    loss = mean_of(regression)

    def spiked(params: Any, rows: Batch) -> tuple[jax.Array, dict]:
        total, diagnostics = loss(params, rows)
        return total, {**diagnostics, "kl_old_new": jnp.any(rows.action == 5) * 1.0}

    _, state, metrics = run(config, Hyper(kl_stop=0.5), spiked, start(), batch, key)
    first = improve.minibatch_rows(config, key, 32, 4)[0]
    before = int(np.flatnonzero(np.any(np.asarray(first) == 5, axis=1))[0])
    assert int(state.count) == before
    assert float(metrics["updates_fraction"]) == before / 8


@pytest.mark.usefixtures("double")
def test_an_adaptive_learning_rate_follows_the_kl_of_every_epoch_for_each_member_alone() -> None:
    """The KL is the squared distance from the start, its mean over an epoch above twice the
    target: / 1.5, below half of it: x 1.5; the next iteration goes on from where this one ended.
    """
    config, batch, key = config_of(32, num_epochs=6), make_batch(32), jax.random.key(1)
    origin = np.asarray(ravel_pytree(start())[0])
    steps = numpy_steps(config, batch, key)
    loss = mean_of(regression, kl=lambda flat: jnp.sum((flat - origin) ** 2))
    targets, start_rate = np.array([1e-3, 0.02, 10.0, math.inf]), 0.75

    def member(target: jax.Array) -> tuple:
        hyper = Hyper(learning_rate=0.02, kl_lr_target=target)
        state = improve.init_optimiser(start())
        return improve.by_minibatches(
            config, hyper, loss, start(), state, batch, 4, key, rate=start_rate
        )

    params, _, rates, _ = jax.jit(jax.vmap(member))(jnp.asarray(targets))
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
                    rate, turns = rate * turn, turns | {turn}
        found = ravel_pytree(jax.tree.map(lambda leaf, i=i: leaf[i], params))[0]
        np.testing.assert_allclose(found, at, atol=1e-7)
        assert float(rates[i]) == pytest.approx(rate, rel=1e-12)
        ends.append((rate, turns))
    assert len(ends[1][1]) == 3  # it rose, rested and fell
    assert ends[0][0] < ends[1][0] < ends[2][0]
    assert ends[3][0] == start_rate


def test_a_loss_without_a_kl_has_nothing_to_pace_or_to_bound_it() -> None:
    config, batch = config_of(32), make_batch(32)

    def plain(params: Any, rows: Batch) -> tuple[jax.Array, dict]:
        total = jnp.mean(regression(params, rows))
        return total, {"value_loss": total}

    @jax.jit
    def update(bound: jax.Array) -> tuple:
        hyper = Hyper(learning_rate=0.05, kl_stop=bound, kl_lr_target=bound)
        state = improve.init_optimiser(start())
        key = jax.random.key(1)
        return improve.by_minibatches(config, hyper, plain, start(), state, batch, 4, key)

    reference = update(math.inf)
    assert float(reference[2]) == 1.0
    assert float(jnp.min(reference[3]["active"])) == 1.0
    for bound in (1e-9, 1e9):
        jax.tree.map(np.testing.assert_array_equal, update(bound), reference)


def test_a_probe_sees_the_first_minibatch_of_every_epoch_before_it_is_learnt_from() -> None:
    """And changes nothing: the parameters are those of a run without it."""
    config, batch, key = config_of(32), make_batch(32), jax.random.key(1)

    def probe(params: Any, rows: Batch) -> dict:
        return {"gradient_cosine": params["b"], "seen": jnp.sum(rows.action)}

    def update(probe: Any, num_epochs: int) -> tuple:
        state = improve.init_optimiser(start())
        hyper, loss = Hyper(learning_rate=0.05), mean_of(regression)
        short = config_of(32, num_epochs=num_epochs)
        keys = {"probe": probe}
        return improve.by_minibatches(short, hyper, loss, start(), state, batch, 4, key, **keys)

    params, _, _, found = jax.jit(lambda: update(probe, 2))()
    plain = jax.jit(lambda: update(None, 2))()
    jax.tree.map(np.testing.assert_array_equal, params, plain[0])
    assert found["gradient_cosine"].shape == (2, 1)
    assert float(found["gradient_cosine"][0, 0]) == float(start()["b"])
    assert float(found["gradient_cosine"][1, 0]) != float(start()["b"])
    for epoch, rows in enumerate(improve.minibatch_rows(config, key, 32, 4)):
        assert int(found["seen"][epoch, 0]) == int(jnp.sum(rows[0]))
    metrics = improve.summarise(found | {"seen": jnp.zeros((2, 4))})
    assert float(metrics["gradient_cosine_first_epoch"]) == float(found["gradient_cosine"][0, 0])
    assert float(metrics["gradient_cosine_last_epoch"]) == float(found["gradient_cosine"][1, 0])
    assert "gradient_cosine" not in metrics


def test_an_infinite_kl_bound_learns_on_whatever_the_kl() -> None:
    config, batch = config_of(32), make_batch(32)
    reference = run(config, Hyper(), mean_of(regression), start(), batch)[0]
    far = run(config, Hyper(), mean_of(regression, kl=lambda _: 1e30), start(), batch)[0]
    jax.tree.map(np.testing.assert_array_equal, far, reference)


def test_what_is_not_a_number_is_written_into_the_parameters_and_not_hidden() -> None:
    """A NaN makes the KL NaN too; it must not pass for a KL bound that was reached."""
    config = config_of(32)
    batch = make_batch(32)
    batch = batch._replace(observation=batch.observation.at[0].set(jnp.nan))
    loss = mean_of(lambda p, b: regression(p, b), kl=lambda flat: jnp.sum(flat))

    def poisoned(params: Any, rows: Batch) -> tuple[jax.Array, dict]:
        total, diagnostics = loss(params, rows)
        return total, {**diagnostics, "kl_old_new": total}

    params, _, _ = run(config, Hyper(), poisoned, start(), batch)
    assert not np.all(np.isfinite(ravel_pytree(params)[0]))


def test_the_gradient_by_pieces_is_that_of_the_whole_minibatch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """64 rows a minibatch: whole, or in pieces of 8, standardised by the whole minibatch."""
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    config = config_of(256, normalize_advantages="minibatch")
    batch, hyper = make_batch(256), Hyper(learning_rate=0.01)
    assert chunks.piece_size(64) == 64
    whole = run(config, hyper, mean_of(regression), start(), batch)
    monkeypatch.setattr(chunks, "PIECE_ROWS", 8)
    assert chunks.piece_size(64) == 8
    cut = run(config, hyper, mean_of(regression), start(), batch)
    for found, expected in zip(jax.tree.leaves(cut), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_means_over_pieces_by_hand_with_every_row_kept_in_its_place() -> None:
    rows = improve.Rows(jnp.zeros((3, 2)), jnp.array([[1.0, 2.0], [3.0, 10.0], [0.0, 2.0]]))

    def gradient_of(rows: improve.Rows) -> tuple[jax.Array, dict]:
        return 2.0 * rows.advantage, {
            "policy_loss": rows.advantage.sum(),
            "log_ratio": -rows.advantage,
        }

    gradient, diagnostics = improve.mean_over_pieces(gradient_of, rows)
    np.testing.assert_allclose(gradient, [8 / 3, 28 / 3], rtol=1e-6)
    assert float(diagnostics["policy_loss"]) == pytest.approx(6.0)  # (3 + 13 + 2) / 3
    np.testing.assert_array_equal(diagnostics["log_ratio"], [-1.0, -2.0, -3.0, -10.0, 0.0, -2.0])


@pytest.mark.usefixtures("double")
def test_the_rows_of_two_devices_make_one_minibatch() -> None:
    """One minibatch an epoch, so that the devices' own orders do not matter."""
    config = config_of(32, 4, num_minibatches=1, normalize_advantages="minibatch")
    batch, hyper = make_batch(32), Hyper(learning_rate=0.05)
    whole, _, metrics = run(config, hyper, mean_of(regression), start(), batch)
    halves = jax.tree.map(lambda leaf: leaf.reshape(2, 16, *leaf.shape[1:]), batch)
    opt_state = improve.init_optimiser(start())

    def device(rows: Batch) -> tuple:
        params, _, _, diagnostics = improve.by_minibatches(
            config,
            hyper,
            mean_of(regression),
            start(),
            opt_state,
            rows,
            2,
            jax.random.key(1),
            "devices",
        )
        return params, all_metrics(hyper, diagnostics, "devices")

    params, both = jax.jit(jax.vmap(device, axis_name="devices"))(halves)
    for i in range(2):
        jax.tree.map(
            lambda found, expected, i=i: np.testing.assert_allclose(found[i], expected, atol=1e-7),
            params,
            whole,
        )
        for name in ("policy_loss", "grad_norm", "ratio_max", "log_ratio_abs_first"):
            assert float(both[name][i]) == pytest.approx(float(metrics[name]), abs=1e-7), name


def test_the_reported_gradient_norm_is_the_one_before_clipping() -> None:
    config = config_of(32, num_epochs=1, num_minibatches=1)
    hyper = Hyper(max_grad_norm=1e-3)
    _, _, metrics = run(config, hyper, mean_of(regression), start(), make_batch(32))
    (gradient,) = numpy_steps(config, make_batch(32), jax.random.key(1))
    norm = np.linalg.norm(gradient(np.asarray(ravel_pytree(start())[0])))
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-4)


def test_no_value_of_a_hyperparameter_compiles_anything_anew() -> None:
    config, batch, traced = config_of(32), make_batch(32), []

    @jax.jit
    def update(hyper: Hyper) -> Any:
        traced.append(1)
        state = improve.init_optimiser(start())
        loss = mean_of(regression)
        return improve.by_minibatches(
            config, hyper, loss, start(), state, batch, 4, jax.random.key(0)
        )[0]

    results = [
        update(Hyper(learning_rate=rate, max_grad_norm=norm, kl_stop=stop, adam_epsilon=1e-5))
        for rate, norm, stop in ((0.1, 0.5, math.inf), (0.2, math.inf, 0.1), (0.0, 1.0, 1.0))
    ]
    assert len(traced) == 1
    assert update._cache_size() == 1
    jax.tree.map(np.testing.assert_array_equal, results[2], start())  # a rate of 0 moves nothing
    assert np.any(np.asarray(results[0]["w"]) != np.asarray(results[1]["w"]))
