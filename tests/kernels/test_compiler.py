"""The compiling thread has low priority if no other thread waits for a core."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import jax
import pytest

from ppo_jax.kernels import compiler

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="a thread's own priority is Linux's"
)


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


class Lowered:
    """A program whose compilation returns the priority of its thread."""

    def compile(self) -> int:
        return priority()


def says(running: int):
    return lambda *_, **__: f"0.00 0.00 0.00 {running}/99 1234\n"


def test_a_program_is_compiled_as_before():
    lowered = jax.jit(lambda x: 2.0 * x + 1.0).lower(0.0)
    assert float(compiler.compiled(lowered)(3.0)) == 7.0


def test_a_quiet_machine_compiles_on_a_thread_that_gives_way(monkeypatch):
    before = priority()
    monkeypatch.setattr(Path, "read_text", says(running=1))
    assert compiler.compiled(Lowered()) == min(before + compiler.NICE, 19)
    assert priority() == before


def test_a_busy_machine_compiles_at_the_caller_s_priority(monkeypatch):
    monkeypatch.setattr(Path, "read_text", says(running=len(os.sched_getaffinity(0)) + 1))
    assert compiler.compiled(Lowered()) == priority()


@pytest.mark.parametrize("told", ["", "0.00 0.00 0.00 many/99 1234"])
def test_what_cannot_be_known_counts_as_busy(told, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: told)
    assert compiler.compiled(Lowered()) == priority()


def test_where_priorities_are_forbidden_it_compiles_as_well(monkeypatch):
    def forbidden(*_):
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", says(running=1))
    monkeypatch.setattr(os, "nice", forbidden)
    assert compiler.compiled(Lowered()) == priority()


def test_what_does_not_compile_is_told(monkeypatch):
    class Failing:
        def compile(self):
            raise ValueError("no memory")

    monkeypatch.setattr(Path, "read_text", says(running=1))
    with pytest.raises(ValueError, match="no memory"):
        compiler.compiled(Failing())


def test_xla_s_own_threads_keep_their_priority():
    """XLA makes them at a process's first compilation, and they inherit its priority."""
    program = """
import os, time, jax
from ppo_jax.kernels import compiler
compiler._every_thread_has_a_core = lambda: True
shape = jax.ShapeDtypeStruct((64, 64), float)
compiler.compiled(jax.jit(lambda x: jax.numpy.sin(x @ x)).lower(shape))
time.sleep(1.0)  # the thread that gave way has gone by then
tasks = [int(task) for task in os.listdir("/proc/self/task")]
before = os.getpriority(os.PRIO_PROCESS, 0)
print(len(tasks) > 1 and all(os.getpriority(os.PRIO_PROCESS, task) == before for task in tasks))
"""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "True", done.stderr
