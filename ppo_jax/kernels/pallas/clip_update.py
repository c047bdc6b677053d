"""Loss and gradients of a minibatch under the clipped surrogate, as one kernel of a GPU.

`plain` is the definition, and `fused` the kernel, written in Pallas for Triton. The network is two
layers of tanh and a head, for the actor and for the critic, with a categorical policy. Training
does not use the kernel: no GPU has shown yet that it is faster (docs/speed.md).

A program of the kernel reads the weights once, takes its blocks of rows one after the other, and
adds up their gradients. No layer's result goes to the device's main memory. Each program writes its
sums, and one more kernel adds them, in the same order every time.

Products are float32 (`InputPrecision.IEEE` in Triton), which tensor cores do not compute. Other
precisions can be asked for: TF32, or three products of TF32 that nearly have float32's accuracy.
"""

from __future__ import annotations

from functools import partial, reduce
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

MAX_LOG_RATIO = 20.0  # as in rl/surrogates.py
SMALLEST = 16  # the fewest rows or columns that a product of Triton takes
MASKED = -1e30  # logit of an action that is padding
BLOCK, PROGRAMS, WARPS = 32, 128, 8  # rows of a block; programs for each network; their warps

Layers: TypeAlias = "tuple[tuple[Array, Array], ...]"  # three of (kernel [in, out], bias [out])


FLOAT32 = jax.lax.Precision.HIGHEST
TF32 = jax.lax.DotAlgorithmPreset.TF32_TF32_F32
THREE_TF32 = jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3


class Networks(NamedTuple):
    """Parameters, or their gradients."""

    actor: Layers
    critic: Layers


class Rows(NamedTuple):
    """A minibatch of M rows."""

    observation: Array  # [M, O]
    action: Array  # [M], int32
    log_prob_old: Array  # [M]
    advantage: Array  # [M]
    value_target: Array  # [M]


class Numbers(NamedTuple):
    """Hyperparameters of the loss."""

    clip_epsilon: Array | float
    value_coef: Array | float
    entropy_coef: Array | float


def plain(params: Networks, rows: Rows, numbers: Numbers) -> tuple[Array, Networks]:
    """The mean loss of the rows, and its gradients."""

    def loss(params: Networks) -> Array:
        logits, value = (output(layers, rows.observation) for layers in params)
        policy = actor_losses(logits, rows, numbers, logits.shape[1])
        return jnp.mean(policy + critic_losses(value, rows, numbers))

    return jax.value_and_grad(loss)(params)


def actor_losses(logits: Array, rows: Rows, numbers: Numbers, num_actions: int) -> Array:
    """The clipped surrogate less the entropy's bonus [M]; columns past the actions are padding."""
    column = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    logits = jnp.where(column < num_actions, logits, MASKED)
    logits = logits - jax.lax.stop_gradient(jnp.max(logits, axis=1))[:, None]
    log_probs = logits - jnp.log(jnp.sum(jnp.exp(logits), axis=1))[:, None]
    log_prob = jnp.sum(jnp.where(column == rows.action[:, None], log_probs, 0.0), axis=1)
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=1)
    log_ratio = jax.lax.clamp(-MAX_LOG_RATIO, log_prob - rows.log_prob_old, MAX_LOG_RATIO)
    ratio, epsilon = jnp.exp(log_ratio), numbers.clip_epsilon
    whole = ratio * rows.advantage
    low = jnp.where(ratio < 1.0 - epsilon, 1.0 - epsilon, ratio)
    bounded = jnp.where(low > 1.0 + epsilon, 1.0 + epsilon, low) * rows.advantage
    return -jnp.where(whole <= bounded, whole, bounded) - numbers.entropy_coef * entropy


def critic_losses(value: Array, rows: Rows, numbers: Numbers) -> Array:
    """Half the squared error of the value times its coefficient [M]; padded columns are 0."""
    error = jnp.sum(value, axis=1) - rows.value_target
    return numbers.value_coef * 0.5 * error * error


def output(layers: Layers, x: Array, precision: Any = FLOAT32) -> Array:
    """Output of the head [M, out]."""

    def affine(x: Array, layer: tuple[Array, Array]) -> Array:
        return jnp.dot(x, layer[0], precision=precision) + layer[1][None, :]

    *hidden, head = layers
    return affine(reduce(lambda x, layer: jnp.tanh(affine(x, layer)), hidden, x), head)


# The kernel ---------------------------------------------------------------------------------------


class Sizes(NamedTuple):
    """Sizes of the problem, and those of the tiles."""

    rows: int
    inputs: int
    width: int  # the hidden layers', all alike
    actions: int
    block: int
    passes: int  # blocks that a program takes

    @property
    def offsets(self) -> tuple[int, int, int, int, int]:
        """First row of each kernel's gradient in a program's sums, of the vectors', and the end."""
        second = tile(self.inputs)
        head = second + self.width
        vectors = head + tile(self.actions)
        return 0, second, head, vectors, vectors + 4  # three biases and the loss


def tile(size: int) -> int:
    """The size of a tile that holds `size`: a power of two."""
    return max(SMALLEST, pl.next_power_of_2(size))


def fused(
    params: Networks,
    rows: Rows,
    numbers: Numbers,
    *,
    block: int = BLOCK,
    programs: int = PROGRAMS,
    warps: int = WARPS,
    precision: Any = FLOAT32,
    interpret: bool = False,
) -> tuple[Array, Networks]:
    """`plain` as one kernel, and one that adds the programs' sums.

    Args:
        block, programs, warps: see above; powers of two. precision: of the products. interpret: run
            without Triton, on any device.

    Raises:
        ValueError: the hidden layers differ in width, or their width is no power of two that holds
            the actions.
    """
    num_rows, inputs = rows.observation.shape
    widths = {bias.size for layers in params for _, bias in layers[:-1]}
    width, actions = max(widths), params.actor[-1][1].size
    if len(widths) > 1 or tile(width) != width or tile(actions) > width:
        raise ValueError(f"The kernel takes no layers of {widths} units with {actions} actions.")
    programs = min(programs, pl.cdiv(num_rows, block))
    passes = pl.cdiv(num_rows, block * programs)
    sizes = Sizes(num_rows, inputs, width, actions, block, passes)
    end = sizes.offsets[-1]
    sums = pl.pallas_call(
        partial(_kernel, sizes, precision),
        grid=(programs, 2),
        out_shape=jax.ShapeDtypeStruct((programs, 2, end, width), jnp.float32),
        out_specs=pl.BlockSpec((None, None, end, width), lambda i, half: (i, half, 0, 0)),
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1),
        interpret=interpret,
        name="clip_update",
    )(*rows, jnp.stack([jnp.float32(number) for number in numbers]), *jax.tree.leaves(params))
    actor, critic = jnp.sum(sums, axis=0) / num_rows
    loss = actor[end - 1, 0] + critic[end - 1, 0]
    return loss, Networks(_unpack(actor, sizes, actions), _unpack(critic, sizes, 1))


def _unpack(sums: Array, sizes: Sizes, outputs: int) -> Layers:
    """The gradients in one network's sums [end, width]."""
    first, second, head, vectors, _ = sizes.offsets
    kernels = sums[first : sizes.inputs], sums[second:head], sums[head : head + outputs].T
    biases = sums[vectors], sums[vectors + 1], sums[vectors + 2, :outputs]
    return tuple(zip(kernels, biases, strict=True))


def _kernel(sizes: Sizes, precision: Any, *refs: Any) -> None:
    """Program (i, half): the blocks of i, for the actor or the critic."""
    (rows, number), params, sums = (Rows(*refs[:5]), refs[5]), refs[6:18], refs[18]
    numbers = Numbers(*(number[i] for i in range(3)))
    first, half = pl.program_id(0) * sizes.passes, pl.program_id(1)

    def blocks(i: Array) -> tuple[Rows, Array]:
        begin = (first + i) * sizes.block
        is_row = begin + jnp.arange(sizes.block) < sizes.rows
        return _load_rows(sizes, rows, begin, is_row), is_row

    def write(losses: Any, layers: Layers) -> None:
        _store(sizes, sums, *_sum_blocks(sizes.passes, blocks, losses, layers))

    @pl.when(half == 0)
    def _() -> None:
        def losses(layers: Layers, rows: Rows) -> Array:
            logits = output(layers, rows.observation, precision)
            return actor_losses(logits, rows, numbers, sizes.actions)

        write(losses, _load_layers(sizes, params[:6], sizes.actions))

    @pl.when(half == 1)
    def _() -> None:
        def losses(layers: Layers, rows: Rows) -> Array:
            value = output(layers, rows.observation, precision)
            return critic_losses(value, rows, numbers)

        write(losses, _load_layers(sizes, params[6:], 1))


def _sum_blocks(passes: int, blocks: Any, losses: Any, layers: Layers) -> tuple[Array, Layers]:
    """Sums of the losses and of their gradients over one program's blocks."""

    def add(i: Array, total: tuple[Array, Layers]) -> tuple[Array, Layers]:
        rows, is_row = blocks(i)

        def loss(layers: Layers) -> Array:
            return jnp.sum(jnp.where(is_row, losses(layers, rows), 0.0))

        return jax.tree.map(jnp.add, total, jax.value_and_grad(loss)(layers))

    zeros = jax.tree.map(jnp.zeros_like, layers)
    return jax.lax.fori_loop(0, passes, add, (jnp.float32(0.0), zeros))


def _store(sizes: Sizes, sums: Any, loss: Array, gradients: Layers) -> None:
    """Write one program's sums, in the order of `Sizes.offsets`."""
    (first, bias), (second, second_bias), (head, head_bias) = gradients
    *kernels, vectors, _ = sizes.offsets
    for begin, kernel in zip(kernels, (first, second, head.T), strict=True):
        sums[pl.ds(begin, kernel.shape[0]), :] = kernel
    sums[vectors, :], sums[vectors + 1, :] = bias, second_bias
    sums[vectors + 2, pl.ds(0, head_bias.size)] = head_bias
    sums[vectors + 3, 0] = loss


def _load_layers(sizes: Sizes, refs: Any, outputs: int) -> Layers:
    """Weights of one network, with zeros to fill the tiles."""
    inputs, heads = tile(sizes.inputs), tile(sizes.actions)
    is_input = (jnp.arange(inputs) < sizes.inputs)[:, None]
    is_output = jnp.arange(heads) < outputs
    first = triton.load(refs[0].at[pl.ds(0, inputs), :], mask=is_input, other=0.0)
    head = triton.load(refs[4].at[:, pl.ds(0, heads)], mask=is_output[None, :], other=0.0)
    head_bias = triton.load(refs[5].at[pl.ds(0, heads)], mask=is_output, other=0.0)
    return (first, refs[1][...]), (refs[2][...], refs[3][...]), (head, head_bias)


def _load_rows(sizes: Sizes, refs: Any, begin: Array, is_row: Array) -> Rows:
    """One block of rows; rows beyond the last one are 0."""
    inputs, some = tile(sizes.inputs), pl.ds(begin, sizes.block)
    is_there = is_row[:, None] & (jnp.arange(inputs) < sizes.inputs)[None, :]
    observation = refs.observation.at[some, pl.ds(0, inputs)]
    columns = (triton.load(ref.at[some], mask=is_row, other=0) for ref in refs[1:])
    return Rows(triton.load(observation, mask=is_there, other=0.0), *columns)
