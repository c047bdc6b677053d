"""Cores: layers with a memory, each one row of a table and four pure functions.

A core takes features [..., F] and its memory, and gives features [..., H]. The memory is the one
*before* the features are seen. An episode's first step starts from a fresh memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Config
from ppo_jax.kernels.matmul import LAST_BY_FIRST, dot_general
from ppo_jax.kernels.orthogonal import orthogonal
from ppo_jax.kernels.recurrence import resettable_recurrence
from ppo_jax.kernels.select import where_rows
from ppo_jax.models import attention
from ppo_jax.models.attention import CoreShape
from ppo_jax.rl.types import PyTree

HIGHEST = jax.lax.Precision.HIGHEST
Step = Callable[[PyTree, PyTree, Any], tuple[PyTree, Any]]
RADII = (0.5, 0.999)  # |lambda| of a new LRU, Orvieto et al. 2023, 3.3
MAX_TIME = 32.0  # steps that the slowest gate of a new minGRU keeps (Tallec and Ollivier 2018)


class Core(NamedTuple):
    """A layer with a memory; memory is a tree [B, ...]."""

    init: Callable[[Array, CoreShape], PyTree]  # key -> params
    start: Callable[[int, CoreShape], PyTree]  # B -> memory [B, ...]
    step: Step  # (params, memory, x [B, F]) -> (memory, features [B, H])
    # (params, memory before the first step, x [T, B, F], reset [T, B], fresh memory [B, ...])
    # -> (memory after each step [T, B, ...], features [T, B, H])
    scan: Callable[[PyTree, PyTree, Array, Array, PyTree], tuple[PyTree, Array]]


def find_core(config: Config) -> Core:
    """The core that `config` names, as deep as it asks for."""
    return stack(CORES[config.memory], config.memory_layers)


def stack(core: Core, num_layers: int) -> Core:
    """`num_layers` layers of a core, one on the other; params and memory are tuples of theirs."""
    if num_layers == 1:
        return core

    def init(key: Array, shape: CoreShape) -> PyTree:
        keys = jax.random.split(key, num_layers)
        inner = shape._replace(inputs=shape.size)
        return tuple(core.init(k, inner if i else shape) for i, k in enumerate(keys))

    def step(params: PyTree, memory: PyTree, x: Array) -> tuple[PyTree, Array]:
        after = []
        for layer, own in zip(params, memory, strict=True):
            own, x = core.step(layer, own, x)
            after.append(own)
        return tuple(after), x

    def scan(
        params: PyTree, memory: PyTree, x: Array, reset: Array, fresh: PyTree
    ) -> tuple[PyTree, Array]:
        after = []
        for layer, own, new in zip(params, memory, fresh, strict=True):
            own, x = core.scan(layer, own, x, reset, new)
            after.append(own)
        return tuple(after), x

    return Core(
        init=init,
        start=lambda num_envs, shape: tuple(core.start(num_envs, shape) for _ in range(num_layers)),
        step=step,
        scan=scan,
    )


def scan_steps(
    step: Step, params: PyTree, memory: PyTree, xs: PyTree, reset: Array, fresh: PyTree
) -> tuple[PyTree, Any]:
    """`step` over time: the memory and the result after each step, [T, B, ...]."""

    def body(memory: PyTree, inputs: tuple[PyTree, Array]) -> tuple[PyTree, tuple[PyTree, Any]]:
        x, begins = inputs
        memory, found = step(params, where_rows(begins, fresh, memory), x)
        return memory, (memory, found)

    return jax.lax.scan(body, memory, (xs, reset))[1]


def _recurrent(init: Any, start: Any, step: Step) -> Core:
    """A core whose scan is its step, one after the other."""

    def scan(
        params: PyTree, memory: PyTree, x: Array, reset: Array, fresh: PyTree
    ) -> tuple[PyTree, Array]:
        return scan_steps(step, params, memory, x, reset, fresh)

    return Core(init, start, step, scan)


def _linear(init: Any, start: Any, gates: Any, output: Any) -> Core:
    """A core of the recurrence h' = a h + b, in which a and b are functions of the input alone.

    Args:
        gates: (params, x) -> (a, b). output: (params, h, x) -> features.
    """

    def step(params: PyTree, memory: PyTree, x: Array) -> tuple[PyTree, Array]:
        decay, given = gates(params, x)
        after = decay * _joined(memory) + given
        return _parted(after), output(params, after, x)

    def scan(
        params: PyTree, memory: PyTree, x: Array, reset: Array, fresh: PyTree
    ) -> tuple[PyTree, Array]:
        decay, given = gates(params, x)
        after = resettable_recurrence(decay, given, reset, _joined(memory), _joined(fresh))
        return _parted(after), output(params, after, x)

    return Core(init, start, step, scan)


def _joined(memory: PyTree) -> Array:
    """A memory as the numbers of the recurrence, complex if it has two parts."""
    return jax.lax.complex(memory["real"], memory["imag"]) if isinstance(memory, dict) else memory


def _parted(h: Array) -> PyTree:
    """Complex numbers as two real arrays: saved runs and packed carries hold real numbers."""
    return {"real": h.real, "imag": h.imag} if jnp.iscomplexobj(h) else h


def _product(x: Array, kernel: Array) -> Array:
    return jnp.matmul(x, kernel, precision=HIGHEST)


def _window_product(x: Array, kernel: Array) -> Array:
    """x [T, B, F] times kernel [F, K], as one product of T x B rows."""
    rows = dot_general(x.reshape(-1, x.shape[-1]), kernel, LAST_BY_FIRST, HIGHEST)
    return rows.reshape(*x.shape[:-1], -1)


def _plus(x: Array, bias: Array) -> Array:
    return x + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


def _side_by_side(key: Array, rows: int, size: int, count: int) -> Array:
    """`count` orthogonal matrices [rows, size] side by side."""
    return jnp.concatenate(orthogonal(key, [(rows, size)] * count), axis=1)


def _zeros(num_envs: int, shape: CoreShape) -> Array:
    return jnp.zeros((num_envs, shape.size), jnp.result_type(float))


def _two_zeros(*names: str) -> Callable[[int, CoreShape], PyTree]:
    return lambda num_envs, shape: {name: _zeros(num_envs, shape) for name in names}


def _gru_init(key: Array, shape: CoreShape) -> PyTree:
    key_input, key_memory = jax.random.split(key)
    from_input = _side_by_side(key_input, shape.inputs, shape.size, 3)
    return {
        "input": from_input,  # [F, 3 H]: reset, update, candidate
        "memory": _side_by_side(key_memory, shape.size, shape.size, 3),  # [H, 3 H]
        "bias": jnp.zeros(3 * shape.size, from_input.dtype),
        "memory_bias": jnp.zeros(shape.size, from_input.dtype),  # bias of the candidate
    }


Parts = tuple[Array, Array, Array]  # reset gate, update gate, candidate


class Gates(NamedTuple):
    """A GRU's gates at each step, each [..., H]."""

    reset: Array
    update: Array
    candidate: Array
    inner: Array  # U h + c


def _gru_cell(params: PyTree, memory: Array, given: Parts) -> tuple[Array, Gates]:
    """h' = (1 - z) n + z h, n = tanh(W x + r (U h + c))  (Cho et al. 2014; cuDNN's variant)."""
    own = _product(memory, params["memory"])
    reset, update, candidate = given
    own_reset, own_update, own_candidate = _thirds(own)
    reset = jax.nn.sigmoid(reset + own_reset)
    update = jax.nn.sigmoid(update + own_update)
    inner = _plus(own_candidate, params["memory_bias"])
    candidate = jnp.tanh(candidate + reset * inner)
    after = (1.0 - update) * candidate + update * memory
    return after, Gates(reset, update, candidate, inner)


def _thirds(x: Array) -> Parts:
    first, second, third = jnp.split(x, 3, axis=-1)
    return first, second, third


def _gru_step(params: PyTree, memory: Array, x: Array) -> tuple[Array, Array]:
    given = _thirds(_plus(_product(x, params["input"]), params["bias"]))
    after = _gru_cell(params, memory, given)[0]
    return after, after


def _gru_scan(
    params: PyTree, memory: Array, x: Array, reset: Array, fresh: Array
) -> tuple[Array, Array]:
    # The gates apart: a CPU's scan over one array [T, B, 3 H] takes twice as long.
    given = _thirds(_plus(_window_product(x, params["input"]), params["bias"]))
    own = {name: params[name] for name in ("memory", "memory_bias")}
    after = _gru_window(own, memory, given, reset, fresh)
    return after, after


@jax.custom_jvp
def _gru_window(params: PyTree, memory: Array, given: Parts, reset: Array, fresh: Array) -> Array:
    """The memory after each step, [T, B, H], of W x + b.

    Its derivative is a scan of its own, in which no product with the weights' tangent is left. So
    the gradient of the weights is one product after the scan, and none is added at each step.
    """
    return scan_steps(_gru_cell, params, memory, given, reset, fresh)[0]


@_gru_window.defjvp
def _gru_window_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    params, memory, given, reset, fresh = primals
    d_params, d_memory, d_given, _, d_fresh = tangents
    after, gates = scan_steps(_gru_cell, params, memory, given, reset, fresh)
    before = jnp.concatenate([memory[None], after[:-1]])
    before = where_rows(reset, jnp.broadcast_to(fresh, before.shape), before)
    by_reset = gates.reset * (1.0 - gates.reset) * gates.inner
    by_update = gates.update * (1.0 - gates.update) * (before - gates.candidate)
    by_candidate = (1.0 - gates.update) * (1.0 - jnp.square(gates.candidate))
    own_reset, own_update, own = _thirds(_window_product(before, d_params["memory"]))
    own = gates.reset * _plus(own, d_params["memory_bias"])
    d_gates = tuple(map(jnp.add, d_given, (own_reset, own_update, own)))

    def body(moved: Array, inputs: Any) -> tuple[Array, Array]:
        begins, (d_reset, d_update, d_candidate), gate, update, *by = inputs
        by_reset, by_update, by_candidate = by
        moved = where_rows(begins, d_fresh, moved)
        own_reset, own_update, own = _thirds(_product(moved, params["memory"]))
        d_candidate += gate * own + by_reset * (d_reset + own_reset)
        moved = by_candidate * d_candidate + by_update * (d_update + own_update) + update * moved
        return moved, moved

    known = gates.reset, gates.update, by_reset, by_update, by_candidate
    return after, jax.lax.scan(body, d_memory, (reset, d_gates, *known))[1]


def _lstm_init(key: Array, shape: CoreShape) -> PyTree:
    """The bias of the forget gate is 1 (Jozefowicz et al. 2015)."""
    key_input, key_memory = jax.random.split(key)
    from_input = _side_by_side(key_input, shape.inputs, shape.size, 4)
    gates = jnp.array([0.0, 1.0, 0.0, 0.0], from_input.dtype)
    return {
        "input": from_input,  # [F, 4 H]: input, forget, candidate, output
        "memory": _side_by_side(key_memory, shape.size, shape.size, 4),  # [H, 4 H]
        "bias": jnp.repeat(gates, shape.size),
    }


def _lstm_step(params: PyTree, memory: PyTree, x: Array) -> tuple[PyTree, Array]:
    """c' = f c + i g, h' = o tanh(c')  (Hochreiter and Schmidhuber 1997; Gers et al. 2000)."""
    gates = _product(x, params["input"]) + _product(memory["hidden"], params["memory"])
    write, keep, candidate, show = jnp.split(_plus(gates, params["bias"]), 4, axis=-1)
    cell = jax.nn.sigmoid(keep) * memory["cell"] + jax.nn.sigmoid(write) * jnp.tanh(candidate)
    hidden = jax.nn.sigmoid(show) * jnp.tanh(cell)
    return {"cell": cell, "hidden": hidden}, hidden


def _mingru_init(key: Array, shape: CoreShape) -> PyTree:
    """The gates keep 1 to MAX_TIME steps at the start."""
    from_input = _side_by_side(key, shape.inputs, shape.size, 2)
    slow = -jnp.log(jnp.linspace(1.0, MAX_TIME, shape.size, dtype=from_input.dtype))
    return {
        "input": from_input,  # [F, 2 H]: update, candidate
        "bias": jnp.concatenate([slow, jnp.zeros_like(slow)]),
    }


def _mingru_gates(params: PyTree, x: Array) -> tuple[Array, Array]:
    """h' = (1 - z) h + z c, both linear functions of x before z's sigmoid (Feng et al. 2024)."""
    given = _plus(_product(x, params["input"]), params["bias"])
    update, candidate = jnp.split(given, 2, axis=-1)
    return jax.nn.sigmoid(-update), jax.nn.sigmoid(update) * candidate


def _lru_init(key: Array, shape: CoreShape) -> PyTree:
    """Eigenvalues uniform in a ring of the complex plane, at angles up to pi."""
    keys = jax.random.split(key, 5)
    real = jnp.result_type(float)
    low, high = (radius**2 for radius in RADII)
    squared = jax.random.uniform(keys[0], (shape.size,), real, low, high)
    angle = jax.random.uniform(keys[1], (shape.size,), real, 1e-3, jnp.pi)
    return {
        "log_rate": jnp.log(-0.5 * jnp.log(squared)),  # |lambda| = exp(-exp(log_rate)) < 1
        "log_angle": jnp.log(angle),
        "input": _side_by_side(keys[2], shape.inputs, shape.size, 2),  # [F, 2 H]: real, imaginary
        "output": _side_by_side(keys[3], shape.size, shape.size, 2),  # [H, 2 H]: real, imaginary
        "skip": orthogonal(keys[4], [(shape.inputs, shape.size)])[0],
        "gate": jnp.zeros((shape.size, shape.size), real),
        "gate_bias": jnp.zeros(shape.size, real),
    }


def _lru_gates(params: PyTree, x: Array) -> tuple[Array, Array]:
    """h' = lambda h + sqrt(1 - |lambda|^2) B x, complex  (Orvieto et al. 2023, eq. 7)."""
    rate = jnp.exp(params["log_rate"])
    radius = jnp.exp(-rate)
    angle = jnp.exp(params["log_angle"])
    decay = jax.lax.complex(radius * jnp.cos(angle), radius * jnp.sin(angle))
    real, imaginary = jnp.split(_product(x, params["input"]), 2, axis=-1)
    # 1 - |lambda|^2 without cancellation: its root has a finite slope also if |lambda| rounds to 1.
    scale = jnp.broadcast_to(jnp.sqrt(-jnp.expm1(-2.0 * rate)), real.shape)
    given = jax.lax.complex(scale * real, scale * imaginary)
    return jnp.broadcast_to(decay, given.shape), given


def _lru_output(params: PyTree, h: Array, x: Array) -> Array:
    """y = Re(C h) + D x, through a gated linear unit, as the heads are linear."""
    real, imaginary = jnp.split(params["output"], 2, axis=-1)
    y = _product(h.real, real) - _product(h.imag, imaginary) + _product(x, params["skip"])
    y = jax.nn.gelu(y)
    return 2.0 * y * jax.nn.sigmoid(_plus(_product(y, params["gate"]), params["gate_bias"]))


def _attention_init(key: Array, shape: CoreShape) -> PyTree:
    """Orthogonal matrices; all ages count alike."""
    size = shape.size
    embed = (shape.inputs, size)
    sides = [embed, *[(size, size)] * 4, (size, 2 * size), (2 * size, size)]
    names = ("input", "query", "key", "value", "output", "up", "down")
    params = dict(zip(names, orthogonal(key, sides), strict=True))
    real = params["input"].dtype
    return params | {
        "bias": jnp.zeros(size, real),
        "up_bias": jnp.zeros(2 * size, real),
        "down_bias": jnp.zeros(size, real),
        "age": jnp.zeros((attention.num_heads(size), shape.window), real),
    }


CORES: dict[str, Core] = {
    "gru": Core(_gru_init, _zeros, _gru_step, _gru_scan),
    "lstm": _recurrent(_lstm_init, _two_zeros("cell", "hidden"), _lstm_step),
    "mingru": _linear(_mingru_init, _zeros, _mingru_gates, lambda params, h, x: h),
    "lru": _linear(_lru_init, _two_zeros("real", "imag"), _lru_gates, _lru_output),
    "attention": Core(_attention_init, attention.start, attention.step, attention.scan),
}
