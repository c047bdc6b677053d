"""Every function of `kernels`: equal in all forms.

The plain form is the definition. The forms of a CPU and of a GPU are traced, and both run on this
machine.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forms import TUNED, assert_close, traced
from jax.flatten_util import ravel_pytree

from ppo_jax import kernels
from ppo_jax.config.config import Schedule
from ppo_jax.kernels import (
    chunks,
    matmul,
    orthogonal,
    packing,
    permutation,
    recurrence,
    reductions,
    select,
)
from ppo_jax.kernels.adam import adam

ROWS = 24


def inputs() -> dict[str, jax.Array]:
    """Numbers of many kinds; `rows` and `wide` have the leading axis [N]."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "rows": normal(ROWS, 3),
        "wide": normal(ROWS, packing.MAX_WIDTH + 1),
        "kernel": normal(3, 12),
        "narrow": normal(3, 2),
        "weight": normal(ROWS),
    }


def adam_steps(x: dict) -> Any:
    """Steps by gradients away from 0, where a step hardly changes with its gradient."""
    optimizer = adam(0.1, 1e-3)
    state = optimizer.init(x)
    first, state = optimizer.update(jax.tree.map(lambda leaf: 2.0 + jnp.sin(leaf), x), state)
    return first, optimizer.update(jax.tree.map(lambda leaf: jnp.cos(leaf) - 3.0, x), state)[0]


def chunked(x: dict) -> Any:
    """640 rows, which a CPU takes in two chunks."""
    rows = jnp.concatenate([x["rows"] + i for i in range(27)])[:640]
    values = chunks.map_chunks(lambda r: jnp.sin(r).sum(1), rows)
    means = chunks.mean_over_chunks(
        lambda r: ({"mean": jnp.mean(r, 0), "square": jnp.mean(r**2)}, jnp.cos(r)), rows
    )
    return values, means


def layers(x: dict) -> Any:
    hidden = jnp.tanh(matmul.dot_general(x["rows"], x["kernel"], matmul.LAST_BY_FIRST))
    return hidden, matmul.dot_general(x["rows"], x["narrow"], matmul.LAST_BY_FIRST)


def affine_layers(x: dict) -> Any:
    """A layer of few inputs, one of many of both, and one of few outputs."""
    first = matmul.tanh(matmul.affine(x["rows"], 0.2 * x["kernel"], x["weight"][:12]))
    wide = matmul.affine(first, 0.1 * x["wide"][:12, :10], x["weight"][:10])
    return first, wide, matmul.affine(wide, 0.1 * x["wide"][:10, :2], x["weight"][:2])


def convolved(x: dict) -> Any:
    grids, kernel = x["wide"][:2, :60].reshape(2, 5, 4, 3), x["wide"][:12, :5].reshape(2, 2, 3, 5)
    inputs = (grids, grids > 0.0, grids[0])  # real numbers, booleans, and one grid alone
    return [matmul.convolution(each, kernel, x["weight"][:5]) for each in inputs]


def looped(x: dict) -> Any:
    """21 passes: an accelerator computes 32 and drops eleven."""
    start = (jnp.int32(0), x["rows"])
    count, rows = packing.while_running(
        lambda loop: loop[0] < 21, lambda loop: (loop[0] + 1, jnp.cos(loop[1])), start
    )
    return count * 1.0, rows, chunks.map_members(jnp.sin, rows)


def prepared(x: dict) -> Any:
    def mean(function: Callable) -> jax.Array:
        return chunks.mean_over_chunks(lambda rows: (function(rows), ()), x["rows"])[0]

    def prepare(rows: jax.Array) -> Callable:
        square = rows**2
        return lambda v: jnp.mean(square @ v)

    product = chunks.mean_of_prepared(prepare, mean, x["rows"])
    return product(x["kernel"][:, 0]), product(x["kernel"][:, 1])


def gathered(x: dict) -> Any:
    batch = {"rows": x["rows"], "wide": x["wide"], "whole": jnp.arange(ROWS), "weight": x["weight"]}
    found = packing.gather_rows(batch)(jnp.array([5, 0, 5, 17]))
    return {**found, "whole": found["whole"] * 1.0}


def unpacked(x: dict) -> Any:
    packed, unpack = packing.pack({"rows": x["rows"], "weight": x["weight"], "wide": x["wide"]})
    return unpack(jax.tree.map(lambda leaf: leaf[::2], packed))


def rows_scanned(x: dict) -> Any:
    """The key and the count of a carry keep their bits; the carry's real numbers move."""

    def body(carry: dict, t: jax.Array) -> tuple:
        moved = jnp.tanh(carry["rows"] + 0.1 * t)
        after = {"rows": moved, "count": carry["count"] + 1, "wide": carry["wide"] * 0.9}
        return after, (moved[:, 0] * carry["count"], carry["wide"][:, :2])

    start = {"rows": x["rows"], "count": jnp.arange(ROWS), "wide": x["wide"]}
    end, records = packing.scan_rows(body, start, jnp.arange(6.0))
    return {**end, "count": end["count"] * 1.0}, records


def outer_scanned(x: dict) -> Any:
    def body(total: jax.Array, row: jax.Array) -> tuple:
        inner, _ = jax.lax.scan(lambda y, _: (jnp.sin(y + row), None), total, length=3)
        metrics = packing.as_row({"total": inner.sum(), "row": row.sum()})
        return inner, metrics

    end, metrics = packing.scan_outer(body, jnp.zeros(3), x["rows"][:5])
    return end, dict(metrics)


def reduced(x: dict) -> Any:
    rows = x["rows"]
    return {
        "sum": reductions.sum_last(rows),
        "wide sum": reductions.sum_last(x["wide"]),
        "maximum": reductions.max_last(rows),
        "wide maximum": reductions.max_last(x["wide"]),
        "each": reductions.mean_of_each({"a": rows[:, 0], "b": x["weight"]}),
        "mean": reductions.mean(x["weight"]),
        "weighted": reductions.weighted_sums([rows[:, 0], rows[:, 1]], x["weight"]),
        "stacked": reductions.stack_scalars([x["weight"][i] for i in range(19)]),
    }


def scalars(x: dict) -> Any:
    trees = [Schedule(x["weight"][i], 2.0 * i, x["rows"][i, 0]) for i in range(5)]
    return reductions.map_scalars(lambda s: s.start * jnp.cos(s.end) + s.cosine, trees)


def is_finite(x: dict) -> Any:
    spoilt = {**x, "weight": x["weight"].at[3].set(jnp.inf)}
    return reductions.all_finite(x) * 1.0, reductions.all_finite(spoilt) * 1.0


def selected(x: dict) -> Any:
    mask = x["weight"] > 0.3
    return select.map_where(lambda r: jnp.sin(r["rows"]).sum(1), x, mask, 16)


def refilled(x: dict) -> Any:
    """Draws that do not depend on the key: forms differ in drawn values, never in rows."""
    xs, refill = select.make_refill(jax.random.key(1), 2, ROWS)
    old = (x["rows"], x["weight"])
    step = jax.tree.map(lambda leaf: leaf[1], xs)
    return refill(step, 1, x["weight"] > 0.3, lambda key: (jnp.arange(3.0), jnp.float32(7.0)), old)


def few_permuted(x: dict) -> Any:
    return permutation.permutations(jax.random.key(2), 3, permutation.SMALLEST - 1) * 1.0


def recurred(x: dict) -> Any:
    decay = jnp.abs(jnp.sin(x["rows"]))
    both = [recurrence.linear_recurrence(decay, x["rows"], reverse=way) for way in (False, True)]
    return both, packing.materialise(x["weight"]), packing.materialise_gradient(x)


class Verb(NamedTuple):
    """A computation with functions of `kernels`."""

    compute: Callable[[dict], Any]
    names: set[str]  # of the functions
    has_gradient: bool = True


VERBS = {
    "adam": Verb(adam_steps, {"adam"}),
    "chunks": Verb(chunked, {"chunk_size", "map_chunks", "mean_over_chunks"}),
    "layers": Verb(layers, {"dot_general"}),
    "affine layers": Verb(affine_layers, {"affine", "tanh"}),
    "convolution": Verb(convolved, {"convolution"}),
    "loop": Verb(looped, {"while_running", "map_members"}, has_gradient=False),
    "prepared": Verb(prepared, {"mean_of_prepared"}),
    "gather": Verb(gathered, {"gather_rows"}),
    "pack": Verb(unpacked, {"pack"}),
    "scan of rows": Verb(rows_scanned, {"scan_rows"}),
    "outer scan": Verb(outer_scanned, {"scan_outer", "as_row"}),
    "reductions": Verb(
        reduced,
        {"sum_last", "max_last", "mean_of_each", "mean", "weighted_sums", "stack_scalars"},
    ),
    "scalars": Verb(scalars, {"map_scalars"}),
    "finite": Verb(is_finite, {"all_finite"}, has_gradient=False),
    "map where": Verb(selected, {"map_where"}, has_gradient=False),
    "refill": Verb(refilled, {"make_refill"}, has_gradient=False),
    "permutations": Verb(few_permuted, {"permutations"}, has_gradient=False),
    "recurrence": Verb(recurred, {"linear_recurrence", "materialise", "materialise_gradient"}),
}


def asks(function: ast.FunctionDef) -> bool:
    """Check whether a function chooses its form by itself."""
    names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    return bool(names & {"is_cpu", "is_accelerator", "current", "_is_unrolled"})


def test_every_verb_that_has_forms_is_compared_here() -> None:
    found = set()
    for path in Path(kernels.__path__[0]).glob("*.py"):
        if path.stem not in ("backend", "compiler"):
            tree = ast.parse(path.read_text("utf-8"))
            functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
            found |= {f.name for f in functions if asks(f) and not f.name.startswith("_")}
    covered = set().union(*(verb.names for verb in VERBS.values()))
    assert found - {"orthogonal", "polar_factors"} <= covered
    assert len(found) > 12


def slope(compute: Callable[[dict], Any]) -> Callable[[dict], Any]:
    """The gradient of a sum of all outputs, each with its own weight."""

    def total(x: dict) -> jax.Array:
        flat, _ = ravel_pytree(compute(x))
        return jnp.sum(flat * np.cos(np.arange(flat.size)))

    return jax.grad(total)


@pytest.mark.parametrize("form", TUNED)
@pytest.mark.parametrize("name", VERBS)
def test_a_tuned_form_has_the_values_and_gradients_of_the_plain_one(name: str, form: str) -> None:
    verb, x = VERBS[name], inputs()
    for function in [verb.compute] + [slope(verb.compute)] * verb.has_gradient:
        plain, tuned = (traced(function, each, x).compile()(x) for each in ("plain", form))
        assert jax.tree.structure(tuned) == jax.tree.structure(plain)
        assert_close(tuned, plain, 1e-6)


@pytest.mark.parametrize("name", sorted(set(VERBS) - {"permutations"}))
def test_some_tuned_form_is_another_program(name: str) -> None:
    """Otherwise the comparison would compare a program with itself."""
    texts = [traced(VERBS[name].compute, form, inputs()).as_text() for form in ("plain", *TUNED)]
    assert len(set(texts)) > 1


@pytest.mark.parametrize("n", [256, 200, 211])
def test_long_permutations_are_exact_in_every_form(n: int) -> None:
    """A power of two, which is equal in the tuned forms, a product, and a prime number."""

    def long() -> jax.Array:
        return permutation.permutations(jax.random.key(3), 2, n)

    programs = [traced(long, form) for form in ("plain", *TUNED)]
    plain, cpu, gpu = (program.compile()() for program in programs)
    for found in (plain, cpu, gpu):
        np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(n), (2, 1)))
    assert np.array_equal(cpu, gpu) == (n == 256)
    assert np.array_equal(plain, gpu) == (n == 211)  # it sorts
    if n == 200:  # no walk
        loops = [program.as_text().count("stablehlo.while") for program in programs]
        assert loops[2] == loops[1] - 1


def test_orthogonal_matrices_are_equal_in_the_tuned_forms() -> None:
    """The plain form has other draws; `test_orthogonal.py` checks both."""

    def draw() -> list[jax.Array]:
        return orthogonal.orthogonal(jax.random.key(4), [(8, 8), (8, 3), (3, 8)])

    programs = [traced(draw, form) for form in TUNED]
    cpu, gpu = (program.compile()() for program in programs)
    assert_close(cpu, gpu, 1e-6)
    assert f"dense<{orthogonal.TURNS}>" in programs[1].as_text()  # a loop of known length
