"""Search for the operation of a program that first wrote a non-finite number.

A program is traced and evaluated operation by operation, without jit. The chain of non-finite
values is followed back from the non-finite outputs; a selection contributes only its chosen inputs.
The fault is the first operation in the chain that made NaN or infinity from better inputs. Values
that are infinite on purpose, such as a disabled bound, are outside the chain unless they lead to
it.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from ppo_jax.config.data import PACKAGE

_LIBRARIES = tuple(f"/site-packages/{name}/" for name in ("jax", "jaxlib", "flax", "optax", "chex"))
_INLINED = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # parameters that hold the called program


class Fault(NamedTuple):
    """The first operation that went wrong."""

    operation: str  # JAX's name of the primitive, or "input" if it came from outside
    source: str  # file:line (function), or the input's name
    code: str  # the line itself
    is_backward: bool  # True in the gradient of that line
    path: tuple[tuple[str, int, int], ...]  # loops around it: (kind, step from 0, steps)
    inputs: tuple[str, ...]  # in words
    outputs: tuple[str, ...]


class _Step(NamedTuple):
    """One evaluated operation; values are identified by their numbers."""

    eqn: Any
    inputs: list[int]
    outputs: list[int]


class _Record(NamedTuple):
    values: list[Any]
    steps: list[_Step]

    def add(self, value: Any) -> int:
        self.values.append(value)
        return len(self.values) - 1


def first_fault(function: Callable[..., Any], **arguments: Any) -> Fault | None:
    """Find the first operation behind the non-finite results of `function(**arguments)`.

    Args:
        function: any JAX function of keyword arguments that are pytrees; every leaf of its result
            should be finite.

    Returns:
        None if all of it is finite when evaluated operation by operation.
    """
    closed = jax.make_jaxpr(lambda given: function(**given))(arguments)
    named = jax.tree_util.tree_flatten_with_path(arguments)[0]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in named]
    leaves = [jnp.asarray(leaf) for _, leaf in named]
    return _search(closed, leaves, [True] * len(closed.jaxpr.outvars), (), names)


def _search(
    closed: ClosedJaxpr,
    arguments: Sequence[Any],
    is_wanted: Sequence[bool],
    path: tuple[tuple[str, int, int], ...],
    names: Sequence[str],
) -> Fault | None:
    record = _Record([], [])
    given = [record.add(value) for value in arguments]
    outputs = _evaluate(closed.jaxpr, closed.consts, given, record)
    wanted = [i for i, flag in zip(outputs, is_wanted, strict=True) if flag]
    chain, reached = _chain(record, wanted)
    for step in chain:
        if not _makes_it_worse(record, step):
            continue
        inside = _inside(record, step, reached, path)
        return inside or _fault(record, step, path)
    for i, name in zip(given, names):
        if i in reached:
            value = _words(record.values[i])
            return Fault("input", name, "", False, path, (value,), (value,))
    return None


def _evaluate(jaxpr: Any, consts: Sequence[Any], given: list[int], record: _Record) -> list[int]:
    """Evaluate op by op, calls and branches inlined, loops whole; return the outputs' numbers."""
    numbers = dict(zip(jaxpr.invars, given, strict=True))
    numbers |= {v: record.add(value) for v, value in zip(jaxpr.constvars, consts, strict=True)}

    def number(atom: Any) -> int:
        if isinstance(atom, Literal):  # may be a plain Python number
            aval: Any = atom.aval
            return record.add(np.asarray(atom.val, aval.dtype))
        return numbers[atom]

    for eqn in jaxpr.eqns:
        inputs = [number(atom) for atom in eqn.invars]
        called = _called(eqn, [record.values[i] for i in inputs])
        if called is not None:
            inner, skipped = called
            outputs = _evaluate(inner.jaxpr, inner.consts, inputs[skipped:], record)
        else:
            outputs = [record.add(value) for value in _apply(jaxpr, eqn, record, inputs)]
            record.steps.append(_Step(eqn, inputs, outputs))
        numbers |= dict(zip(eqn.outvars, outputs, strict=True))
    return [number(atom) for atom in jaxpr.outvars]


def _called(eqn: Any, values: list[Any]) -> tuple[ClosedJaxpr, int] | None:
    """The program that a call or a branch runs, and the number of inputs that are not for it."""
    if eqn.primitive.name == "cond":
        return eqn.params["branches"][int(values[0])], 1
    if eqn.primitive.name in ("scan", "while"):
        return None
    for name in _INLINED:
        inner = eqn.params.get(name)
        if inner is None:
            continue
        if not hasattr(inner, "consts"):  # a program without constants
            inner = ClosedJaxpr(inner, ())
        if len(inner.jaxpr.invars) == len(values):
            return inner, 0
    return None


def _apply(jaxpr: Any, eqn: Any, record: _Record, inputs: list[int]) -> list[Any]:
    """Run one operation as a program of one line, which works in all versions of JAX.

    The arguments of a primitive's own `bind` vary between versions.
    """
    values = {
        atom: record.values[i]
        for atom, i in zip(eqn.invars, inputs, strict=True)
        if not isinstance(atom, Literal)
    }
    line = jaxpr.replace(constvars=[], invars=list(values), outvars=eqn.outvars, eqns=[eqn])
    return list(jaxpr_as_fun(ClosedJaxpr(line, ()))(*values.values()))


def _chain(record: _Record, wanted: Sequence[int]) -> tuple[list[_Step], set[int]]:
    """The operations behind non-finite values among `wanted`, in order, and those values."""
    reached = {i for i in wanted if is_bad(record.values[i])}
    chain = []
    for step in reversed(record.steps):
        guilty = [i for i in step.outputs if i in reached]
        if guilty:
            chain.append(step)
            reached |= set(_culprits(record, step, guilty))
    return chain[::-1], reached


def _culprits(record: _Record, step: _Step, guilty: list[int]) -> list[int]:
    """The inputs that can be the reason for the non-finite outputs `guilty`."""
    values = record.values
    inputs = step.inputs
    if step.eqn.primitive.name == "select_n":  # only the chosen inputs
        which = np.asarray(values[inputs[0]]).astype(int)
        where = ~np.isfinite(np.asarray(values[guilty[0]]))
        chosen = set(np.unique(np.broadcast_to(which, where.shape)[where]).tolist())
        inputs = [i for case, i in enumerate(inputs[1:]) if case in chosen]
    bad = [i for i in inputs if is_bad(values[i])]
    with_nan = [i for i in bad if _has_nan(values[i])]
    needs_nan = any(_has_nan(values[i]) for i in guilty)
    return with_nan if needs_nan and with_nan else bad


def _makes_it_worse(record: _Record, step: _Step) -> bool:
    """Check that NaN or infinity comes out and no such number goes in."""
    given = [record.values[i] for i in step.inputs]
    made = [record.values[i] for i in step.outputs]
    if any(map(_has_nan, given)):
        return False
    return any(map(_has_nan, made)) or (any(map(is_bad, made)) and not any(map(is_bad, given)))


def is_bad(value: Any) -> bool:
    """Check for NaN or infinity in an array of real numbers."""
    return jnp.issubdtype(value.dtype, jnp.inexact) and not bool(jnp.all(jnp.isfinite(value)))


def _has_nan(value: Any) -> bool:
    return jnp.issubdtype(value.dtype, jnp.inexact) and bool(jnp.any(jnp.isnan(value)))


# Loops --------------------------------------------------------------------------------------------


def _inside(
    record: _Record, step: _Step, reached: set[int], path: tuple[tuple[str, int, int], ...]
) -> Fault | None:
    """The fault inside a loop: a search in the step at which it began."""
    if step.eqn.primitive.name not in ("scan", "while"):
        return None
    values = [record.values[i] for i in step.inputs]
    is_wanted = [i in reached for i in step.outputs]
    walk = _scan_steps if step.eqn.primitive.name == "scan" else _while_steps
    kind = step.eqn.primitive.name
    for closed, arguments, is_new, place, count in walk(step.eqn, values, is_wanted):
        fault = _search(closed, arguments, is_new, (*path, (kind, place, count)), ())
        if fault is not None:
            return fault
    return None


def _scan_steps(eqn: Any, values: list[Any], is_wanted: list[bool]) -> Any:
    """The steps of a scan in which a wanted value turns bad, with their inputs."""
    params = eqn.params
    closed, length = params["jaxpr"], params["length"]
    # An input that is cut into steps has one more axis outside than inside. The numbers of each
    # kind are stored differently in different versions of JAX.
    num_columns = sum(
        value.ndim > inside.ndim for value, inside in zip(values, closed.in_avals, strict=True)
    )
    num_carry = sum(
        outside.aval.ndim == inside.ndim
        for outside, inside in zip(eqn.outvars, closed.out_avals, strict=True)
    )
    num_consts = len(values) - num_carry - num_columns
    consts, carry = values[:num_consts], values[num_consts : num_consts + num_carry]
    columns = values[num_consts + num_carry :]
    body = jax.jit(jaxpr_as_fun(closed))
    was_bad = [is_bad(value) for value in carry]
    for t in range(length):
        place = length - 1 - t if params["reverse"] else t
        arguments = [*consts, *carry, *(column[place] for column in columns)]
        outputs = body(*arguments)
        flags = [is_bad(value) for value in outputs]
        is_new = [
            flag and not was for flag, was in zip(flags[:num_carry], was_bad, strict=True)
        ] + [flag and want for flag, want in zip(flags[num_carry:], is_wanted[num_carry:])]
        if any(is_new):
            yield closed, arguments, is_new, place, length
        carry = outputs[:num_carry]


def _while_steps(eqn: Any, values: list[Any], is_wanted: list[bool]) -> Any:
    """Like `_scan_steps`, for a while loop."""
    del is_wanted
    params = eqn.params
    split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    tests, consts, carry = values[: split[0]], values[split[0] : split[1]], values[split[1] :]
    goes_on = jax.jit(jaxpr_as_fun(params["cond_jaxpr"]))
    body = jax.jit(jaxpr_as_fun(params["body_jaxpr"]))
    was_bad = [is_bad(value) for value in carry]
    t = 0
    while bool(goes_on(*tests, *carry)[0]):
        arguments = [*consts, *carry]
        carry = body(*arguments)
        is_new = [is_bad(value) and not was for value, was in zip(carry, was_bad, strict=True)]
        if any(is_new):
            yield params["body_jaxpr"], arguments, is_new, t, 0
        t += 1


# Words --------------------------------------------------------------------------------------------


def _fault(record: _Record, step: _Step, path: tuple[tuple[str, int, int], ...]) -> Fault:
    source, code = _source(step.eqn)
    return Fault(
        operation=step.eqn.primitive.name,
        source=source,
        code=code,
        is_backward="transpose" in str(step.eqn.source_info.name_stack),
        path=path,
        inputs=tuple(_words(record.values[i]) for i in step.inputs),
        outputs=tuple(_words(record.values[i]) for i in step.outputs),
    )


def _source(eqn: Any) -> tuple[str, str]:
    """The innermost line that is not a library's, as file:line (function), and its text."""
    traceback = eqn.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        name = Path(frame.file_name).as_posix()
        if not any(library in name for library in _LIBRARIES):
            code = linecache.getline(frame.file_name, frame.line_num).strip()
            return f"{_short(Path(name))}:{frame.line_num} ({frame.function_name})", code
    return "unknown", ""


def _short(path: Path) -> str:
    """A file's path from the package, else from the working directory, else its last two parts."""
    if path.is_relative_to(PACKAGE):
        return path.relative_to(PACKAGE.parent).as_posix()
    if path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd()).as_posix()
    return "/".join(path.parts[-2:])


def _words(value: Any) -> str:
    """Shape and contents of an array in a few words."""
    if not jnp.issubdtype(value.dtype, jnp.number):
        return f"{value.dtype}{list(value.shape)}"
    array = np.asarray(value)
    kind = f"{array.dtype}{list(array.shape)}"
    if array.ndim == 0:
        return f"{array.dtype} {array.item():g}"
    finite = array[np.isfinite(array)]
    parts = [f"{finite.min():g} to {finite.max():g}"] if finite.size else []
    for word, count in (("NaN", np.isnan(array).sum()), ("infinite", np.isinf(array).sum())):
        parts += [f"{count} of {array.size} {word}"] if count else []
    return f"{kind} {', '.join(parts)}"
