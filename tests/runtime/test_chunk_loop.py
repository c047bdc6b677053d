"""The one chunk loop: every iteration once, at the caller's bounds, in chunks of adapted length."""

from __future__ import annotations

import ast
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.data import PACKAGE
from ppo_jax.distributed import programs
from ppo_jax.runtime import chunk_loop
from ppo_jax.runtime.chunk_loop import advance_by, chunks, run_chunk, until


class Clock:
    """A training whose state counts iterations, and whose chunks take a known time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds_each: float = 0.1) -> None:
        self.now, self.seconds_each = 0.0, seconds_each
        monkeypatch.setattr(chunk_loop, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def advance(self, state: Any, length: int) -> Any:
        self.now += length * self.seconds_each
        return state + length, {"iteration": np.arange(state, state + length)[None]}


@pytest.mark.parametrize("seconds", [1e-9, 0.5, 1e9])
@pytest.mark.parametrize("start", [0, 5])
def test_every_iteration_is_trained_exactly_once_in_order(
    monkeypatch: pytest.MonkeyPatch, seconds: float, start: int
) -> None:
    clock = Clock(monkeypatch)
    state: Any = start
    found = list(chunks(clock.advance, state, until(1000), start=start, seconds=seconds))
    rows = np.concatenate([chunk.rows["iteration"] for chunk in found], axis=1)
    np.testing.assert_array_equal(rows, np.arange(start, 1000)[None])
    assert sum(chunk.length for chunk in found) == 1000 - start
    assert found[-1].state == 1000
    assert max(chunk.length for chunk in found) <= programs.MAX_CHUNK


def test_chunks_end_at_the_callers_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    def to_the_next_ten(done: int, wanted: int) -> int:
        return min(wanted, (done // 10 + 1) * 10 - done, 42 - done)

    clock, state = Clock(monkeypatch), jnp.int32(0)
    lengths = [c.length for c in chunks(clock.advance, state, to_the_next_ten, seconds=1e9)]  # pyright: ignore
    ends = np.cumsum(lengths).tolist()
    assert {10, 20, 30, 40} <= set(ends)
    assert ends[-1] == 42


def test_lengths_double_up_to_the_time_that_a_chunk_should_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock: Any = Clock(monkeypatch, seconds_each=0.1)
    loop = chunks(clock.advance, 0, until(10**6), seconds=2.0)  # pyright: ignore
    assert [next(loop).length for _ in range(7)] == [1, 2, 4, 8, 16, 20, 20]


def test_lengths_shrink_at_once_when_chunks_become_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = Clock(monkeypatch, seconds_each=0.1)
    loop = chunks(clock.advance, 0, until(10**6), first=20, seconds=2.0)  # pyright: ignore
    assert next(loop).length == 20
    clock.seconds_each = 1.0  # known after the next chunk, of 20 seconds
    assert [next(loop).length for _ in range(3)] == [20, 2, 2]
    clock.seconds_each = 100.0
    assert [next(loop).length for _ in range(3)] == [2, 1, 1]  # never none


def test_a_chunk_that_takes_no_time_only_doubles_the_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock: Any = Clock(monkeypatch, seconds_each=0.0)
    loop = chunks(clock.advance, 0, until(10**6))  # pyright: ignore
    assert [next(loop).length for _ in range(10)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]


def test_the_usual_time_is_read_when_the_loop_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = Clock(monkeypatch)
    monkeypatch.setattr(chunk_loop, "CHUNK_SECONDS", 1e-9)
    found = list(chunks(clock.advance, 0, until(5)))  # pyright: ignore
    assert [chunk.length for chunk in found] == [1] * 5


class Stop:
    """Becomes true when it is looked at for the last time of some."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def __bool__(self) -> bool:
        self.looks -= 1
        return self.looks <= 0


def test_a_stop_is_looked_at_once_before_each_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = Clock(monkeypatch)
    stop = Stop(3)
    assert len(list(chunks(clock.advance, 0, until(1000), stop=stop))) == 2  # pyright: ignore
    assert stop.looks == 0
    whole = Stop(10**6)
    found = list(chunks(clock.advance, 0, until(3), stop=whole))  # pyright: ignore
    assert 10**6 - whole.looks == len(found)  # not at the end, where nothing is left


def test_nothing_is_trained_at_the_end_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = Clock(monkeypatch)
    assert list(chunks(clock.advance, 7, until(7), start=7)) == []  # pyright: ignore
    assert clock.now == 0.0


def test_a_chunk_is_timed_until_its_rows_are_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = Clock(monkeypatch, seconds_each=0.25)
    chunk = run_chunk(clock.advance, 3, 4)  # pyright: ignore
    assert (chunk.state, chunk.length, chunk.seconds) == (7, 4, 1.0)


def test_rows_of_padding_and_of_iterations_that_were_not_trained_are_cut_off() -> None:
    def program(hyper: Any, state: Any, n: Any) -> Any:
        assert n.dtype == np.int32
        return state + n, {"x": jnp.arange(12.0).reshape(4, 3)}

    state, rows = advance_by(program, None, 3)(1, 2)  # pyright: ignore
    assert state == 3
    assert isinstance(rows["x"], np.ndarray)
    np.testing.assert_array_equal(rows["x"], [[0, 1], [3, 4], [6, 7]])


def test_no_other_module_adapts_the_length_of_chunks() -> None:
    """The expression is a product with `min(2.0, ... / ...)`, under whatever names."""

    def adapts(node: ast.AST) -> bool:
        return (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", "") == "min"
            and any(isinstance(arg, ast.Constant) and arg.value == 2.0 for arg in node.args)
            and any(isinstance(arg, ast.BinOp) and isinstance(arg.op, ast.Div) for arg in node.args)
        )

    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(map(adapts, ast.walk(ast.parse(path.read_text("utf-8")))))
    }
    assert found == {"runtime/chunk_loop.py"}
