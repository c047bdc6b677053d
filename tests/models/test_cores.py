"""Every core: its equations by loops, scans against steps, and resets that cut."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ppo_jax.config.config import MEMORIES, Config
from ppo_jax.kernels import backend
from ppo_jax.models import attention
from ppo_jax.models.attention import CoreShape
from ppo_jax.models.cores import CORES, RADII, Core, find_core

T, B = 7, 4
SHAPE = CoreShape(inputs=3, size=5, window=3)
NAMES = ("gru", "lstm", "mingru", "lru", "attention")
CASES = [(name, 1) for name in NAMES] + [("lstm", 2)]
FORMS = [(*case, "cpu") for case in CASES] + [("mingru", 1, "gpu"), ("lru", 1, "gpu")]
RESET = np.zeros((T, B), bool)
RESET[[0, 2, 3, 5], [0, 1, 1, 2]] = True


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def shaken(tree: Any) -> Any:
    """Parameters away from their start, so that biases, gates and ages count."""
    return jax.tree.map(
        lambda leaf: leaf + 0.2 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), tree
    )


class Case(NamedTuple):
    """A core in the middle of episodes, and its scan as a compiled program."""

    core: Core
    params: Any
    memory: Any  # of an environment each that has seen 0, 1, 2 and 3 steps
    fresh: Any
    scan: Any  # (params, memory, x, reset, fresh) -> (memory, features)


@lru_cache
def make_case(name: str, layers: int, form: str = "cpu", x64: bool = False) -> Case:
    core = find_core(Config(memory=name, memory_layers=layers))
    params = shaken(jax.jit(core.init, static_argnums=1)(jax.random.key(0), SHAPE))
    fresh = core.start(B, SHAPE)
    memory, step = fresh, jax.jit(core.step)
    for t in range(3):
        seen, _ = step(params, memory, normal(10 + t, B, SHAPE.inputs))
        memory = choose(np.arange(B) > t, seen, memory)
    if name != "attention":  # as a learned start has it
        fresh = jax.tree.map(
            lambda leaf: 0.3 * jnp.cos(jnp.arange(leaf.size * 1.0)).reshape(leaf.shape), fresh
        )

    def scan(*given: Any) -> Any:
        with backend.use(form):
            return core.scan(*given)

    return Case(core, params, memory, fresh, jax.jit(scan))


def choose(rows: Any, new: Any, old: Any) -> Any:
    def one(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(jnp.asarray(rows).reshape((B,) + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(one, new, old)


def by_steps(case: Case, x: jax.Array, reset: np.ndarray = RESET) -> tuple[Any, Any]:
    """Memory and features after each step, from `step` alone."""
    step = jax.jit(case.core.step)
    memory, found = case.memory, []
    for t in range(len(x)):
        memory, features = step(case.params, choose(reset[t], case.fresh, memory), x[t])
        found.append((memory, features))
    return jax.tree.map(lambda *each: np.stack(each), *found)


def assert_close(found: Any, expected: Any, atol: float = 1e-6) -> None:
    jax.tree.map(partial(np.testing.assert_allclose, atol=atol, rtol=1e-6), found, expected)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """T = 7 steps are 3 blocks of 3 = K steps, with a filling."""
    monkeypatch.setattr(attention, "BLOCK", 2)


def test_every_word_has_a_row() -> None:
    assert {"none", *CORES} == set(MEMORIES)


# Scans --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, layers, form", FORMS)
def test_a_scan_is_one_step_after_the_other_with_a_fresh_memory_at_resets(
    name: str, layers: int, form: str
) -> None:
    case, x = make_case(name, layers, form), normal(1, T, B, SHAPE.inputs)
    found = case.scan(case.params, case.memory, x, RESET, case.fresh)
    expected = by_steps(case, x)
    assert_close(found, expected, 2e-6)
    late = np.roll(RESET, 1, axis=0)  # the mutant: a reset that comes one step late
    wrong = by_steps(case, x, late)
    assert np.max(np.abs(wrong[1] - expected[1])) > 1e-2


@pytest.mark.parametrize("name, layers", CASES)
def test_a_window_in_two_parts_is_the_window_as_a_whole(name: str, layers: int) -> None:
    case, x = make_case(name, layers), normal(1, T, B, SHAPE.inputs)
    whole = case.scan(case.params, case.memory, x, RESET, case.fresh)
    first = case.scan(case.params, case.memory, x[:4], RESET[:4], case.fresh)
    last = jax.tree.map(lambda leaf: leaf[-1], first[0])
    second = case.scan(case.params, last, x[4:], RESET[4:], case.fresh)
    parts = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)
    assert_close(parts, whole)


@pytest.mark.parametrize("name, layers, form", FORMS)
def test_nothing_flows_over_a_reset(name: str, layers: int, form: str) -> None:
    """Features after it keep every bit, and their gradient to what was before is 0."""
    case, x = make_case(name, layers, form), normal(1, T, B, SHAPE.inputs)
    reset = np.zeros((T, B), bool)
    reset[4] = True

    def run(memory: Any, x: jax.Array, reset: np.ndarray) -> tuple[jax.Array, jax.Array]:
        features = case.scan(case.params, memory, x, reset, case.fresh)[1]
        return jnp.sum(jnp.sin(features[4:])), features[4:]

    gradient = jax.jit(jax.grad(run, (0, 1), has_aux=True, allow_int=True))
    (by_memory, by_x), after = gradient(case.memory, x, reset)
    other = jax.tree.map(lambda leaf: leaf * 0.5 if leaf.dtype != bool else ~leaf, case.memory)
    _, changed = gradient(other, x.at[:4].multiply(-3.0), reset)
    np.testing.assert_array_equal(changed, after)
    for leaf in [*jax.tree.leaves(by_memory), by_x[:4]]:
        assert leaf.dtype == jax.dtypes.float0 or not np.any(leaf)
    assert np.all(np.any(by_x[4:] != 0.0, axis=(1, 2)))
    late = np.roll(reset, 1, axis=0)
    (_, by_x), wrong = gradient(case.memory, x, late)
    assert np.any(by_x[:4])
    assert np.any(np.asarray(wrong) != np.asarray(after))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_a_scan_are_finite_differences_forwards_and_backwards(
    name: str, double: None
) -> None:
    case = make_case(name, 1, x64=True)
    real, flags = [], []
    for leaf in jax.tree.leaves(case.memory):
        (flags if leaf.dtype == bool else real).append(leaf)
    structure = jax.tree.structure(case.memory)

    def run(params: Any, real: Any, x: jax.Array, fresh: Any) -> jax.Array:
        memory = jax.tree.unflatten(structure, [*real, *flags])
        return case.scan(params, memory, x, RESET, fresh)[1]

    given: tuple = (case.params, real, normal(1, T, B, SHAPE.inputs), case.fresh)
    assert jax.tree.leaves(given)[0].dtype == jnp.float64
    call = run
    if name == "attention":  # its fresh memory holds flags alone
        given, call = given[:3], lambda *some: run(*some, case.fresh)
    check_grads(call, given, order=1, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6, eps=1e-5)


@pytest.mark.parametrize("dtype", [float, complex])
def test_both_forms_of_a_recurrence_agree_near_a_decay_of_one(dtype: type) -> None:
    from ppo_jax.kernels.recurrence import resettable_recurrence

    rng = np.random.default_rng(0)
    size = (128, B, 6)
    decay = (1.0 - 10.0 ** rng.uniform(-7.0, -2.0, size)) * np.exp(
        1j * rng.uniform(-3.0, 3.0, size) * (dtype is complex)
    )
    decay = decay if dtype is complex else decay.real
    x, start, fresh = (rng.normal(size=s) for s in (size, size[1:], size[1:]))
    reset = rng.random(size[:2]) < 0.02
    given = [jnp.asarray(a, jnp.complex64 if dtype is complex else jnp.float32) for a in (decay, x)]
    more = [jnp.asarray(a, given[0].dtype) for a in (start, fresh)]
    found = {}
    for form in ("cpu", "gpu"):
        with backend.use(form):
            found[form] = jax.jit(partial(resettable_recurrence))(*given, reset, *more)
    y, slow = start.astype(decay.dtype), []
    for t in range(128):
        y = x[t] + decay[t] * np.where(reset[t][:, None], fresh, y)
        slow.append(y)
    scale = np.max(np.abs(slow))
    np.testing.assert_allclose(found["cpu"], np.stack(slow), atol=1e-5 * scale)
    np.testing.assert_allclose(found["gpu"], found["cpu"], atol=1e-5 * scale)


# Equations ----------------------------------------------------------------------------------------


def test_a_gru_is_the_cell_of_flax() -> None:
    gru, h, x = CORES["gru"], normal(4, B, SHAPE.size), normal(5, B, SHAPE.inputs)
    params = shaken(gru.init(jax.random.key(0), SHAPE))
    by_gate = {name: np.split(np.asarray(params[name]), 3, axis=-1) for name in ("input", "memory")}
    biases = np.split(np.asarray(params["bias"]), 3)
    theirs: dict[str, Any] = {}
    for i, gate in enumerate("rzn"):
        theirs[f"i{gate}"] = {"kernel": by_gate["input"][i], "bias": biases[i]}
        theirs[f"h{gate}"] = {"kernel": by_gate["memory"][i]}
    theirs["hn"]["bias"] = np.asarray(params["memory_bias"])
    assert_close(gru.step(params, h, x), nn.GRUCell(SHAPE.size).apply({"params": theirs}, h, x))


def test_an_lstm_is_the_cell_of_flax() -> None:
    lstm, x = CORES["lstm"], normal(5, B, SHAPE.inputs)
    params = shaken(lstm.init(jax.random.key(0), SHAPE))
    memory = {"cell": normal(3, B, SHAPE.size), "hidden": normal(4, B, SHAPE.size)}
    theirs: dict[str, Any] = {}
    for i, gate in enumerate("ifgo"):
        columns = slice(i * SHAPE.size, (i + 1) * SHAPE.size)
        theirs[f"i{gate}"] = {"kernel": params["input"][:, columns]}
        theirs[f"h{gate}"] = {
            "kernel": params["memory"][:, columns],
            "bias": params["bias"][columns],
        }
    cell = nn.LSTMCell(SHAPE.size)
    carry, output = cell.apply({"params": theirs}, (memory["cell"], memory["hidden"]), x)
    found, features = lstm.step(params, memory, x)
    assert_close((found["cell"], found["hidden"], features), (*carry, output))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def test_a_mingru_is_its_equation() -> None:
    """h' = (1 - z) h + z (V x + c), z = sigmoid(W x + b)."""
    core, h, x = CORES["mingru"], normal(4, B, SHAPE.size), normal(5, B, SHAPE.inputs)
    params = shaken(core.init(jax.random.key(0), SHAPE))
    own = jax.tree.map(np.asarray, params)
    (w, v), (b, c) = np.split(own["input"], 2, axis=1), np.split(own["bias"], 2)
    z = sigmoid(np.asarray(x) @ w + b)
    expected = (1.0 - z) * np.asarray(h) + z * (np.asarray(x) @ v + c)
    assert_close(core.step(params, h, x), (expected, expected))


def test_an_lru_is_its_equation_and_starts_in_a_ring() -> None:
    """h' = lambda h + sqrt(1 - |lambda|^2) B x, y = Re(C h) + D x, then a gated linear unit."""
    core, x = CORES["lru"], normal(5, B, SHAPE.inputs)
    first = jax.tree.map(np.asarray, core.init(jax.random.key(0), CoreShape(3, 200)))
    radius = np.exp(-np.exp(first["log_rate"]))
    assert RADII[0] <= radius.min() < 0.6 < 0.98 < radius.max() <= RADII[1]
    params = shaken(core.init(jax.random.key(0), SHAPE))
    memory = {"real": normal(3, B, SHAPE.size), "imag": normal(4, B, SHAPE.size)}
    own = jax.tree.map(np.asarray, params)
    eigenvalue = np.exp(-np.exp(own["log_rate"]) + 1j * np.exp(own["log_angle"]))
    (b, b_i), (c, c_i) = (np.split(own[name], 2, axis=1) for name in ("input", "output"))
    given = np.asarray(x) @ (b + 1j * b_i) * np.sqrt(1.0 - np.abs(eigenvalue) ** 2)
    h = eigenvalue * (np.asarray(memory["real"]) + 1j * np.asarray(memory["imag"])) + given
    y = np.asarray(jax.nn.gelu((h @ (c + 1j * c_i)).real + np.asarray(x) @ own["skip"]))
    y = 2.0 * y * sigmoid(y @ own["gate"] + own["gate_bias"])
    assert_close(core.step(params, memory, x), ({"real": h.real, "imag": h.imag}, y), 2e-6)


def test_an_lru_that_forgets_nothing_has_a_finite_gradient() -> None:
    """|lambda| rounds to 1 at log_rate -18, where sqrt(1 - |lambda|^2) is sqrt(2) e^-9."""
    core, x = CORES["lru"], normal(5, B, SHAPE.inputs)
    params = core.init(jax.random.key(0), SHAPE)

    def features(log_rate: jax.Array) -> jax.Array:
        return core.step(params | {"log_rate": log_rate}, core.start(B, SHAPE), x)[1].sum()

    def written(log_rate: jax.Array) -> jax.Array:
        return core.step(params | {"log_rate": log_rate}, core.start(B, SHAPE), x)[0]["real"]

    slow = jnp.full(SHAPE.size, -18.0)
    assert np.isfinite(jax.grad(features)(slow)).all()
    fast = written(jnp.full(SHAPE.size, 2.0))  # 1 - |lambda|^2 is 1 - 4e-7
    np.testing.assert_allclose(written(slow), fast * np.sqrt(2.0) * np.exp(-9.0), rtol=1e-5)


def test_attention_is_its_loop_over_the_observations_that_were_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Softmax over q k / sqrt(d) + bias[age] of 4 heads, between two residual parts."""
    monkeypatch.setattr(attention, "NARROW", 8)
    shape = CoreShape(3, 8, 3)
    params = shaken(CORES["attention"].init(jax.random.key(0), shape))
    own = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    x = np.asarray(normal(1, 5, 1, 3), np.float64)
    memory, found = attention.start(1, shape), []
    for t in range(5):
        memory, features = attention.step(params, memory, jnp.asarray(x[t], jnp.float32))
        found.append(np.asarray(features)[0])

    def norm(v: np.ndarray) -> np.ndarray:
        return (v - v.mean()) / np.sqrt(v.var() + attention.EPSILON)

    entries = [x[t, 0] @ own["input"] + own["bias"] for t in range(5)]
    for t in range(5):
        mixed = []
        for head in range(4):
            part = slice(2 * head, 2 * head + 2)
            query = (norm(entries[t]) @ own["query"])[part]
            ages = range(min(t + 1, 3))
            scores = [
                query @ (norm(entries[t - age]) @ own["key"])[part] / np.sqrt(2.0)
                + own["age"][head, age]
                for age in ages
            ]
            weights = np.exp(scores) / np.sum(np.exp(scores))
            values = [(norm(entries[t - age]) @ own["value"])[part] for age in ages]
            mixed.append(sum(w * v for w, v in zip(weights, values, strict=True)))
        y = entries[t] + np.concatenate(mixed) @ own["output"]
        hidden = np.asarray(jax.nn.gelu(norm(y) @ own["up"] + own["up_bias"]))
        np.testing.assert_allclose(found[t], y + hidden @ own["down"] + own["down_bias"], atol=1e-5)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_a_gated_core_starts_from_zeros_with_orthogonal_matrices(name: str) -> None:
    core, gates = CORES[name], {"gru": 3, "lstm": 4}[name]
    params = core.init(jax.random.key(0), SHAPE)
    assert params["input"].shape == (SHAPE.inputs, gates * SHAPE.size)
    for part in np.split(np.asarray(params["memory"]), gates, axis=1):
        np.testing.assert_allclose(part.T @ part, np.eye(SHAPE.size), atol=1e-5)
    for leaf in jax.tree.leaves(core.start(B, SHAPE)):
        np.testing.assert_array_equal(leaf, np.zeros((B, SHAPE.size)))
    bias = np.zeros(gates * SHAPE.size)
    bias[SHAPE.size : 2 * SHAPE.size] = 1.0 if name == "lstm" else 0.0  # the forget gate's
    np.testing.assert_array_equal(params["bias"], bias)
