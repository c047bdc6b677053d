"""Torsos: observations in, features out. Each leaf has its encoder, then the hidden layers follow.

A grid leaf [height, width, channels] goes through a convolution; every other leaf is flattened. The
leaf `action_mask` of a dict observation is no feature and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array

from ppo_jax.config.config import Config
from ppo_jax.config.errors import InputError
from ppo_jax.envs.interface import actor_view, without_action_mask
from ppo_jax.envs.leaves import named
from ppo_jax.kernels.matmul import affine, convolution, tanh
from ppo_jax.rl.types import PyTree

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": tanh,
    "relu": nn.relu,
    "swish": nn.swish,
    "gelu": nn.gelu,
    "elu": nn.elu,
}
# (compute dtype, precision of products). DEFAULT is TF32 on NVIDIA GPUs, full float32 on CPUs.
PRECISIONS = {
    "float32": (jnp.float32, jax.lax.Precision.HIGHEST),
    "tf32": (jnp.float32, jax.lax.Precision.DEFAULT),
    "bfloat16": (jnp.bfloat16, jax.lax.Precision.DEFAULT),
}
CONV_FEATURES = 16  # Young and Tian 2019, MinAtar: one 3x3 convolution of 16 features, no padding
CONV_SIZE = (3, 3)


def real() -> Any:
    """float32, or float64 if JAX runs in double precision."""
    return jnp.result_type(float)


class Dense(nn.Dense):
    """A layer whose product and bias are one verb of the kernels."""

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        shape = (inputs.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, shape[1:], self.param_dtype)
        x, kernel, bias = promote_dtype(inputs, kernel, bias, dtype=self.dtype)
        return affine(x, kernel, bias, self.precision)


class Conv(nn.Module):
    """A convolution without padding."""

    features: int
    kernel_size: tuple[int, int]
    dtype: Any
    param_dtype: Any
    precision: Any
    kernel_init: Callable[..., Array]

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        shape = (*self.kernel_size, inputs.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:], self.param_dtype)
        kernel, bias = promote_dtype(kernel, bias, dtype=self.dtype)
        return convolution(inputs, kernel, bias, self.precision)


class Torso(nn.Module):
    """Leaf encoders, then hidden layers over their outputs side by side."""

    grids: tuple[bool, ...]  # one flag per leaf
    hidden_sizes: tuple[int, ...]
    activation: str
    layer: dict[str, Any]  # dtype, precision and kernel_init of every layer

    @nn.compact
    def __call__(self, leaves: tuple[Array, ...]) -> Array:
        activate = ACTIVATIONS[self.activation]
        encoded = []
        for x, is_grid in zip(leaves, self.grids, strict=True):
            if is_grid:
                x = activate(Conv(CONV_FEATURES, CONV_SIZE, **self.layer)(x))
                x = flatten(x, 3)
            encoded.append(x)
        x = encoded[0] if len(encoded) == 1 else jnp.concatenate(encoded, axis=-1)
        for size in self.hidden_sizes:
            x = activate(Dense(size, **self.layer)(x))
        return x


def flatten(x: Array, rank: int) -> Array:
    """[..., *O] -> [..., O], O one-dimensional; a scalar becomes a vector of one."""
    lead = x.shape[: x.ndim - rank]
    return x.reshape((*lead, math.prod(x.shape[x.ndim - rank :])))


class LeafCode(NamedTuple):
    """The way in which the numbers of one leaf become inputs."""

    scale: float | None = None  # they are divided by it
    low: int = 0
    count: int = 0  # each is one of so many whole numbers from `low` on; 0: it is a real number

    def words(self) -> str:
        """The code after the name of its leaf, "" for real numbers as they are."""
        if self.count:
            return f" (whole numbers from {self.low} to {self.low + self.count - 1})"
        return "" if self.scale is None else f" (divided by {self.scale:g})"


def widened(shape: tuple[int, ...], code: LeafCode) -> tuple[int, ...]:
    """The shape of a leaf's inputs."""
    if not code.count:
        return shape
    return (*shape[:-1], shape[-1] * code.count) if shape else (code.count,)


def coded(x: Array, code: LeafCode, shape: tuple[int, ...], is_grid: bool = False) -> Array:
    """The numbers [..., *shape] of a leaf as real inputs, with the shape that `widened` gives.

    Flags of a grid are booleans, of which a convolution reads a quarter of the bytes.
    """
    if is_grid and x.dtype == jnp.bool_ and code.scale is None and not code.count:
        return x
    if code.count:
        dtype = jnp.bool_ if is_grid else real()
        flags = jax.nn.one_hot(x.astype(jnp.int32) - code.low, code.count, dtype=dtype)
        return flags.reshape(*x.shape[: x.ndim - len(shape)], *widened(shape, code))
    return x.astype(real()) if code.scale is None else x.astype(real()) / code.scale


class Encoder:
    """The leaves of an observation, in the form that a `Torso` takes.

    A leaf of categories becomes flags, one for each value, along its last axis:
    [*shape, n] -> [*shape, n x count]. A number that is no category has no flag.

    Args:
        config: torso is read.
        observation: tree of `jax.ShapeDtypeStruct`, of one environment.
        codes: of the leaves in their order, without the action mask's; () if all are real numbers.
        view: the part of an observation that is encoded.

    Raises:
        InputError: a convolution is asked for and no leaf is a grid.
    """

    def __init__(
        self,
        config: Config,
        observation: PyTree,
        codes: tuple[LeafCode, ...] = (),
        view: Callable[[PyTree], PyTree] = actor_view,
    ) -> None:
        self.view = view
        seen = named(without_action_mask(view(observation)))
        by_name = dict(zip(named(without_action_mask(observation)), codes, strict=False))
        self.codes = tuple(by_name.get(name, LeafCode()) for name in seen)
        self.own_shapes = [tuple(leaf.shape) for leaf in seen.values()]
        shapes = [widened(*each) for each in zip(self.own_shapes, self.codes, strict=True)]
        self.shapes: list[tuple[int, ...]] = shapes
        fits = [len(s) == 3 and s[0] >= CONV_SIZE[0] and s[1] >= CONV_SIZE[1] for s in shapes]
        if config.torso == "cnn" and not any(fits):
            raise InputError(
                "torso='cnn' needs a grid observation [height, width, channels] of at least 3 x 3, "
                f"but this environment's has shape {shapes[0] if len(shapes) == 1 else shapes}; "
                "use mlp, or auto."
            )
        self.grids = tuple(fit and config.torso != "mlp" for fit in fits)

    def __call__(self, observation: PyTree) -> tuple[Array, ...]:
        """Leaves [..., *shape] or [..., size], as real numbers or, of a grid of flags, booleans."""
        leaves = jax.tree.leaves(without_action_mask(self.view(observation)))
        numbers = map(coded, leaves, self.codes, self.own_shapes, self.grids)
        ranks = [len(shape) for shape in self.shapes]
        return tuple(
            x if is_grid else flatten(x, rank)
            for x, rank, is_grid in zip(numbers, ranks, self.grids, strict=True)
        )

    def example(self) -> tuple[Array, ...]:
        """Zeros for one environment, in the form that `__call__` returns."""
        return tuple(
            jnp.zeros(shape if is_grid else (math.prod(shape),), real())
            for shape, is_grid in zip(self.shapes, self.grids, strict=True)
        )

    @property
    def is_narrow(self) -> bool:
        """Check that no leaf is a grid and all together are few numbers."""
        return not any(self.grids) and sum(map(math.prod, self.shapes)) <= 64
