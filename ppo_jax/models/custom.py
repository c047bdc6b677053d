"""A user's network: `init_fn(key) -> params`, `apply_fn(params, observation) -> (policy, value)`.

With a third function, `start_fn() -> memory`, it is recurrent, and its second one is
`apply_fn(params, memory, observation) -> (memory, (policy, value))`. The user writes it for one
environment. This file loads it, checks it without running it, and batches it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.errors import RAISED, InputError
from ppo_jax.config.loading import load_attribute
from ppo_jax.envs.interface import without_action_mask
from ppo_jax.models.body import Body, feed_forward
from ppo_jax.models.cores import scan_steps
from ppo_jax.models.policy_head import Family
from ppo_jax.models.recurrent import Heads, Stream, by_rows, count_envs, in_time, join_streams
from ppo_jax.rl.types import PyTree, Window


def wrap_network(network: Any, observation: PyTree, family: Family) -> Body:
    """Check a user's network and batch it.

    Args:
        network: a pair (init_fn, apply_fn) or a triple with start_fn, an object with these
            attributes, or the text `module:attribute` of one. apply_fn takes the observation [*O]
            of one environment, as real numbers, and returns (policy output, value []). The policy
            output is logits [n], a mean [A], a pair (mean, log_std), or for discrete and real
            actions at once a pair of logits and one of the other two. A lone mean gets a log std
            that is a parameter.
        observation: tree of `jax.ShapeDtypeStruct`, of one environment.
        family: of the policy; its dials and its real numbers are the sizes n and A.

    Raises:
        InputError: it cannot be loaded, fails, or returns other shapes.
    """
    init_fn, apply_fn, start_fn = _functions(network)
    if family.name == "gsde":
        raise InputError(
            "policy='gsde' needs the features of a built-in network and cannot use a network of "
            "your own; use gaussian or gaussian-state-std."
        )
    seen = jax.tree.map(_as_real, without_action_mask(observation))
    params = _check_init(init_fn)
    if start_fn is not None:
        result = _check_memory(apply_fn, params, _trial("start_fn()", start_fn), seen)
        call = f"apply_fn(params, memory, observation of shape {_leaf_shapes(seen)})"
        shape = _check_result(call, result, family)
        return _recurrent(init_fn, apply_fn, start_fn, shape)
    call = f"apply_fn(params, observation of shape {_leaf_shapes(seen)})"
    log_std_shape = _check_result(call, _trial(call, apply_fn, params, seen), family)
    rank = len(jax.tree.leaves(seen)[0].shape)

    def one(params: PyTree, observation: PyTree) -> tuple[Any, Array]:
        return jax.tree.map(_as_real, _output(apply_fn(params, observation)))

    def apply(params: PyTree, observation: PyTree) -> tuple[Any, Any, Array]:
        observation = jax.tree.map(_as_real, without_action_mask(observation))
        first = jax.tree.leaves(observation)[0]
        lead = first.shape[: first.ndim - rank]
        size = math.prod(lead)
        rows = jax.tree.map(lambda leaf: leaf.reshape(size, *leaf.shape[len(lead) :]), observation)
        output, value = jax.vmap(partial(one, params))(rows)
        shaped = jax.tree.map(lambda leaf: leaf.reshape(lead + leaf.shape[1:]), (output, value))
        return shaped[0], None, shaped[1]

    return feed_forward(
        init=lambda key, log_std_init: init_fn(key),
        apply=apply,
        policy=lambda params, observation: apply(params, observation)[:2],
        value=lambda params, observation: apply(params, observation)[2],
        log_std_shape=log_std_shape,
    )


def _recurrent(
    init_fn: Callable, apply_fn: Callable, start_fn: Callable, log_std_shape: Any
) -> Body:
    """A body of one stream, whose features are the network's results."""

    def start(params: PyTree, num_envs: int) -> PyTree:
        return jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (num_envs, *jnp.shape(leaf))), start_fn()
        )

    def one(params: PyTree, memory: PyTree, observation: PyTree) -> tuple[PyTree, Any]:
        memory, result = apply_fn(params, memory, observation)
        return memory, jax.tree.map(_as_real, _output(result))

    def step(params: PyTree, memory: PyTree, observation: PyTree) -> tuple[PyTree, Any]:
        observation = jax.tree.map(_as_real, without_action_mask(observation))
        return jax.vmap(partial(one, params))(memory, observation)

    def scan(params: PyTree, memory: PyTree, window: Window) -> tuple[PyTree, Any]:
        num_envs = count_envs(memory)
        observation = without_action_mask(window.observation)
        xs, reset = in_time((observation, window.reset), num_envs)
        return by_rows(scan_steps(step, params, memory, xs, reset, start(params, num_envs)))

    heads = Heads(
        init=lambda key, log_std_init: init_fn(key),
        policy=lambda params, result: (result[0], None),
        value=lambda params, result: result[1],
        log_std_shape=log_std_shape,
    )
    return join_streams({"actor": Stream(start, step, scan)}, heads)


def _as_real(leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, jnp.result_type(float))
    return jnp.asarray(leaf).astype(jnp.result_type(float))


def _functions(network: Any) -> tuple[Callable, Callable, Callable | None]:
    """(init_fn, apply_fn, start_fn), the last None for a network without memory."""
    found = load_attribute(network) if isinstance(network, str) else network
    if hasattr(found, "init_fn") and hasattr(found, "apply_fn"):
        start_fn = getattr(found, "start_fn", None)
        found = (found.init_fn, found.apply_fn, *filter(None, [start_fn]))
    is_sequence = isinstance(found, Sequence) and len(found) in (2, 3)
    if not (is_sequence and all(map(callable, found))):
        raise InputError(
            f"network={network!r} is not a network: give a pair of functions (init_fn, apply_fn), "
            "a triple with start_fn for a memory, or module:attribute that names one."
        )
    return found[0], found[1], found[2] if len(found) == 3 else None


def _output(result: Any) -> tuple[Any, Any]:
    """(policy output, value), with tuples in place of lists."""
    output, value = result
    return _as_tuples(output), value


def _as_tuples(output: Any) -> Any:
    return tuple(map(_as_tuples, output)) if isinstance(output, list | tuple) else output


def _leaf_shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: tuple(leaf.shape), tree)


def _check_init(init_fn: Callable) -> PyTree:
    """The shapes of the parameters; refuse those that cannot be trained."""
    params = _trial("init_fn(key)", init_fn, jax.eval_shape(lambda: jax.random.key(0)))
    strange = [leaf.dtype for leaf in jax.tree.leaves(params) if not _is_float(leaf)]
    if strange:
        raise InputError(
            f"network: init_fn returns parameters of type {strange[0]}, but all must be real "
            "numbers to be trained; leave keys and counters out of them."
        )
    return params


def _check_memory(
    apply_fn: Callable, params: PyTree, memory: PyTree, observation: PyTree
) -> PyTree:
    """(policy output, value) of a network with a memory; refuse a memory that changes its form."""
    if not jax.tree.leaves(memory):
        raise InputError(
            "network: start_fn() returns no array, so there is nothing to remember: return the "
            "memory of a new episode, or leave start_fn out."
        )
    call = f"apply_fn(params, memory, observation of shape {_leaf_shapes(observation)})"
    result = _trial(call, apply_fn, params, memory, observation)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise InputError(
            f"network: {call} must return (memory, (policy, value)) where the network has a "
            "start_fn; change what it returns."
        )
    if _form(result[0]) != _form(memory):
        raise InputError(
            f"network: {call} returns a memory of {_form(result[0])}, but start_fn() gives "
            f"{_form(memory)}: both must be equal in structure, shapes and dtypes."
        )
    return result[1]


def _form(memory: PyTree) -> str:
    """Structure, shapes and dtypes in a few words."""
    return str(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", memory))


def _check_result(call: str, result: Any, family: Family) -> tuple[int, ...] | None:
    """Return the shape of the log std to be added, if any; refuse outputs that do not fit."""
    policy, allowed = _outputs(family)
    try:
        output, value = _output(result)
        returned = _shapes(output), value.shape
    except (TypeError, ValueError, AttributeError):
        returned = ()
    if len(returned) != 2 or returned[0] not in allowed or returned[1] != ():
        found = jax.tree.map(lambda leaf: leaf.shape, result)
        raise InputError(
            f"network: {call} returns {found} where policy {family.name!r} needs ({policy}, value "
            "of shape ()); change the network's last layers."
        )
    real = returned[0][1] if family.dials and family.num_reals else returned[0]
    return real if real == (family.num_reals,) and family.num_reals else None


def _shapes(output: Any) -> Any:
    return tuple(map(_shapes, output)) if isinstance(output, tuple) else tuple(output.shape)


def _outputs(family: Family) -> tuple[str, list[Any]]:
    """The policy outputs that a family takes: in words, and all shapes of them."""
    logits, size = (sum(family.dials),), (family.num_reals,)
    if not family.num_reals:
        return f"logits of shape {logits}", [logits]
    if family.name == "gaussian-state-std":
        words, allowed = f"a pair (mean, log_std), each of shape {size}", [(size, size)]
    else:
        words = f"a mean of shape {size} or a pair (mean, log_std) of such"
        allowed = [size, (size, size)]
    if not family.dials:
        return words, allowed
    return f"a pair of logits of shape {logits} and {words}", [(logits, each) for each in allowed]


def _trial(call: str, function: Callable, *args: Any) -> Any:
    try:
        return jax.eval_shape(function, *args)
    except RAISED as error:  # every error of the user's function becomes an InputError
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"network: {call} failed with {type(error).__name__}: {reason} Fix the network, or "
            "leave it out to use a built-in one."
        ) from error


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)
