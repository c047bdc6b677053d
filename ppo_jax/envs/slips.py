"""The slips of people who write an environment, each with a sentence that names it.

jax reports where a trace failed, in the words of jax; these say what to change.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, errors
from jax.core import Tracer

from ppo_jax.config.errors import RAISED, InputError

NUMBERS = (Array, np.ndarray, np.generic, bool, int, float, complex, jax.ShapeDtypeStruct)


def traced(function: Callable, *arguments: Any, method: str, state: Any = None) -> Any:
    """The shapes that a user's function returns.

    Args:
        arguments: the first is a random key.
        method: how the sentences name the function.
        state: the state among the arguments, if there is one.

    Raises:
        InputError: it fails while it is traced; the sentence names the slip behind it.
    """
    try:
        with jax.numpy_rank_promotion("allow"):
            return jax.eval_shape(function, *arguments)
    except InputError:
        raise
    except RAISED as error:
        raise InputError(_sentence(error, function, arguments, method, state)) from error


def _sentence(
    error: BaseException, function: Callable, arguments: tuple[Any, ...], method: str, state: Any
) -> str:
    if _takes_raw_keys(function, arguments):
        return (
            f"{method} takes its key apart as if it were two numbers: keys are typed here, so "
            "give them whole to jax.random.split, jax.random.fold_in and the functions that draw."
        )
    lists = list_paths(state)
    if lists and isinstance(error, TypeError | AttributeError | ValueError):
        return (
            f"{method} fails with {type(error).__name__}, and state{lists[0]} is a Python list, "
            "which jax takes for separate numbers: make it one array, jnp.array([...])."
        )
    reason = str(error).strip().split("\n")[0]
    return f"{method} cannot be traced by jax ({type(error).__name__}: {reason}): {remedy(error)}."


def remedy(error: BaseException) -> str:
    """The change that mends what a trace failed with."""
    text = str(error)
    if isinstance(error, errors.TracerBoolConversionError):
        return (
            "an `if`, `while`, `and`, `or` or `not` on an array must be written with jnp.where, "
            "jax.lax.cond or jnp.logical_and"
        )
    if isinstance(error, errors.TracerArrayConversionError):
        return "a function of NumPy is given an array of jax; write it in jax.numpy"
    if isinstance(error, errors.NonConcreteBooleanIndexError):
        return "a mask cannot be an index; write it with jnp.where"
    if "The problem arose with the `" in text or "item()" in text:
        return (
            "float(), int(), bool() and .item() take a number out of the program; use the array as "
            "it is, or x.astype(dtype)"
        )
    is_size = isinstance(error, errors.TracerIntegerConversionError)
    if is_size or isinstance(error, errors.ConcretizationTypeError) or "concrete value" in text:
        return (
            "a number of the state or the parameters is used as a size, a range or an index of "
            "Python's; a parameter that is a size must be static, "
            "flax.struct.field(pytree_node=False)"
        )
    if "vmap_method" in text:
        return "give the callback vmap_method='sequential', or write it in jax.numpy"
    if isinstance(error, errors.UnexpectedTracerError):
        return "a value of an earlier call was kept outside of it; put it into the state"
    return "mend it there, and write it in jax.numpy"


def require_batch(environment: Any, example: Any) -> None:
    """Refuse an environment that does not work in a batch.

    Args:
        example: the shapes of an action.

    Raises:
        InputError: the sentence gives jax's reason, and what to change.
    """
    params = environment.default_params

    def two(keys: Any) -> Any:
        _, states = jax.vmap(environment.reset, (0, None))(keys, params)
        action = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), example)
        step = jax.vmap(environment.transition, (0, 0, None, None))
        return step(keys, states, action, params)

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
    traced(two, keys, method=f"A batch of {environment.name}")


def require_methods(kind: type, arguments: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse a class that leaves methods to gymnax, or whose methods take other arguments.

    Args:
        arguments: the names of each method's arguments, in gymnax's order.

    Raises:
        InputError: the sentence names the method and its arguments.
    """
    for name, wanted in arguments.items():
        method, order = getattr(kind, name, None), ", ".join(wanted)
        is_empty = getattr(method, "__module__", "") == "gymnax.environments.environment"
        if is_empty and name != "is_truncated":
            raise InputError(
                f"{kind.__name__} has no {name} of its own: write {name}(self, {order})."
            )
        if method is None or is_empty:
            continue
        is_static = isinstance(inspect.getattr_static(kind, name), staticmethod | classmethod)
        try:
            signature = inspect.signature(method)
        except (TypeError, ValueError):  # it has none that Python knows
            continue
        found = [each for each in signature.parameters if each != "self"]
        is_fit = _binds(signature, wanted if is_static else ("self", *wanted))
        if not is_fit or (found != list(wanted) and sorted(found) == sorted(wanted)):
            raise InputError(
                f"{kind.__name__}.{name} takes ({', '.join(found)}) and is given ({order}): write "
                f"{name}(self, {order})."
            )


def _binds(signature: inspect.Signature, given: tuple[str, ...]) -> bool:
    try:
        signature.bind(*given)
    except TypeError:
        return False
    return True


def _takes_raw_keys(function: Callable, arguments: tuple[Any, ...]) -> bool:
    """Try the function with an untyped key of two numbers, as keys once were."""
    raw = jax.eval_shape(jax.random.PRNGKey, 0)
    try:
        with jax.numpy_rank_promotion("allow"):
            jax.eval_shape(function, raw, *arguments[1:])
    except InputError:  # it came to an end, with another slip
        return True
    except RAISED:
        return False
    return True


def list_paths(tree: Any) -> list[str]:
    """Paths of the Python lists in a pytree, as `.name[0]`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: isinstance(node, list))
    return [jax.tree_util.keystr(path) for path, leaf in leaves if isinstance(leaf, list)]


def require_numbers(value: Any, what: str) -> None:
    """Refuse texts and objects among what an environment returns: jax carries numbers only.

    Raises:
        InputError: the sentence names the place.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        if not is_number(leaf):
            raise InputError(
                f"{what}{jax.tree_util.keystr(path)} is {kind_of(leaf)}, and jax carries numbers "
                f"only: {struct_hint(leaf) or 'leave it out'}."
            )


def is_number(leaf: Any) -> bool:
    """Check for a number or an array of numbers, random keys included."""
    return (
        isinstance(leaf, NUMBERS)
        and getattr(getattr(leaf, "dtype", None), "kind", "f") not in "OSU"
    )


def kind_of(value: Any) -> str:
    """The kind of a value, for a sentence."""
    if isinstance(value, NUMBERS):  # an array of texts or objects
        return f"an array of dtype {np.asarray(value).dtype}"
    return "a text" if isinstance(value, str) else f"of type {type(value).__name__}"


def struct_hint(value: Any) -> str | None:
    """The remedy for a dataclass that jax does not know, None for anything else."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return None
    return f"write @flax.struct.dataclass above the class {type(value).__name__}"


def require_no_memory(env: Any, label: str) -> None:
    """Refuse an environment that keeps what it computed on itself, where the next call finds it.

    Raises:
        InputError: the sentence names the attribute.
    """
    for name, value in getattr(env, "__dict__", {}).items():
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
            raise InputError(
                f"{label} keeps self.{name} from one call to the next, which a compiled program "
                "cannot: put it into the state."
            )


def require_values(result: Any, names: tuple[str, ...], method: str) -> tuple:
    """Return the values of a method if their number is right.

    Raises:
        InputError: the sentence counts them.
    """
    if isinstance(result, tuple | list) and len(result) == len(names):
        return tuple(result)
    count = "one array" if isinstance(result, NUMBERS) else f"a {type(result).__name__}"
    if isinstance(result, tuple | list):
        count = f"{len(result)} values"
    more = ""
    if names[-1] == "info" and isinstance(result, tuple) and len(result) == len(names) + 1:
        more = (
            " (`step` returns six; step_env leaves `truncated` out, which is_truncated(state, "
            "params) says)"
        )
    raise InputError(
        f"{method} returns {count} and must return {len(names)}: ({', '.join(names)}){more}."
    )


def require_same_state(reset_state: Any, step_state: Any, label: str) -> None:
    """Refuse states of reset_env and step_env that no loop can carry.

    Raises:
        InputError: the sentence names the first place where they differ.
    """
    before, after = (
        {
            jax.tree_util.keystr(path): f"an array of shape {jnp.shape(leaf)}"
            for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        }
        for state in (reset_state, step_state)
    )
    for place in [*before, *after]:
        pair = [shapes.get(place, "missing") for shapes in (before, after)]
        if pair[0] != pair[1]:
            lists = list_paths(reset_state) + list_paths(step_state)
            hint = f" (state{lists[0]} is a Python list: make it one array)" if lists else ""
            raise InputError(
                f"{label}: state{place} is {pair[0]} after reset_env and {pair[1]} after "
                f"step_env, which no loop can carry: make them equal{hint}."
            )
    kinds = [jax.tree.structure(state) for state in (reset_state, step_state)]
    if kinds[0] != kinds[1]:
        raise InputError(
            f"{label}: reset_env and step_env return states of different kinds ({kinds[0]} and "
            f"{kinds[1]}): make them equal."
        )
