"""The first operation to blame, in programs whose fault is known."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.apps.diagnose.nan_trace import first_fault


def line_of(function, text):
    """The line of a text in this file, as the fault names it."""
    lines, first = inspect.getsourcelines(function)
    number = next(i for i, line in enumerate(lines) if text in line)
    return f"tests/apps/diagnose/test_nan_trace.py:{first + number}"


def test_a_program_that_stays_finite_has_no_fault():
    assert first_fault(lambda x: jnp.sqrt(x), x=jnp.ones(3)) is None


def test_the_line_and_the_operation_are_named():
    def program(x):
        doubled = 2.0 * x
        root = jnp.sqrt(doubled - 1.0)
        return root + 1.0

    fault = first_fault(program, x=jnp.array([0.0, 1.0]))
    assert fault.operation == "sqrt"
    assert fault.source.startswith(line_of(program, "root = "))
    assert fault.code == "root = jnp.sqrt(doubled - 1.0)"
    assert fault.inputs == ("float32[2] -1 to 1",)
    assert fault.outputs == ("float32[2] 1 to 1, 1 of 2 NaN",)
    assert (fault.path, fault.is_backward) == ((), False)


def test_an_overflow_is_blamed_and_not_the_nan_that_it_leads_to():
    def program(x):
        large = jnp.exp(x)
        return large - large

    assert first_fault(program, x=jnp.float32(100.0)).operation == "exp"


def test_the_gradient_of_a_line_is_told_from_the_line():
    def loss(x):
        return jnp.sum(jnp.sqrt(x))

    fault = first_fault(lambda x: jax.jit(jax.grad(loss))(x), x=jnp.array([1.0, 0.0]))
    assert fault.operation in ("div", "rsqrt", "mul")
    assert fault.code == "return jnp.sum(jnp.sqrt(x))"
    assert "1 of 2 infinite" in fault.outputs[0]


def test_what_is_infinite_on_purpose_or_not_chosen_is_not_blamed():
    """The logarithm is NaN and comes first, but `where` does not take it."""

    def program(x, bound):
        unused = jnp.log(-x)
        safe = jnp.where(x > 0.0, x, unused)
        return jnp.arccos(jnp.minimum(safe, bound))

    fault = first_fault(program, x=jnp.float32(2.0), bound=jnp.float32(jnp.inf))
    assert fault.operation == "acos"


def test_an_infinite_setting_that_is_multiplied_by_zero_is_blamed_there():
    def program(x, rate):
        return x - rate * (x - x)

    fault = first_fault(program, x=jnp.ones(2), rate=jnp.float32(jnp.inf))
    assert fault.operation == "mul"
    assert "float32 inf" in fault.inputs


def test_the_step_of_a_loop_is_named_through_loops_within_loops():
    def program(x):
        def inner(carry, step):
            return carry + jnp.log(4.0 - step), carry

        def outer(carry, start):
            return jax.lax.scan(inner, carry, start + jnp.arange(3.0))[0], None

        return jax.lax.scan(outer, x, jnp.array([0.0, 3.0]))[0]

    fault = first_fault(jax.jit(program), x=jnp.float32(1.0))
    assert fault.operation == "log"
    assert fault.path == (("scan", 1, 2), ("scan", 1, 3))  # 3 + 1: log(0)
    assert fault.inputs == ("float32 0",)


def test_a_loop_that_runs_backwards_is_counted_by_its_data():
    def program(x):
        steps = jnp.arange(5.0)
        return jax.lax.scan(lambda c, t: (c + 1.0 / (t - 2.0), None), x, steps, reverse=True)[0]

    fault = first_fault(program, x=jnp.float32(1.0))
    assert (fault.operation, fault.path) == ("div", (("scan", 2, 5),))


def test_what_a_loop_hands_out_and_does_not_carry_is_searched_too():
    def program(x):
        return jax.lax.scan(lambda c, t: (c, jnp.log(t - 1.0)), x, 3.0 - jnp.arange(3.0))[1]

    fault = first_fault(program, x=jnp.float32(1.0))
    assert (fault.operation, fault.path) == ("log", (("scan", 2, 3),))


def test_while_loops_and_branches_are_entered():
    def program(x):
        def body(carry):
            t, y = carry
            return t + 1, jax.lax.cond(t == 2, lambda v: jnp.log(v - v), jnp.sin, y)

        return jax.lax.while_loop(lambda carry: carry[0] < 4, body, (0, x))[1]

    fault = first_fault(program, x=jnp.float32(1.0))
    assert fault.operation == "log"
    assert fault.path[0][:2] == ("while", 2)


def test_a_value_that_came_in_non_finite_is_named():
    state = {"speed": np.array([1.0, np.nan], np.float32), "place": np.zeros(2, np.float32)}
    fault = first_fault(lambda state: 2.0 * (state["speed"] + state["place"]), state=state)
    assert (fault.operation, fault.source) == ("input", "state.speed")
    assert fault.outputs == ("float32[2] 1 to 1, 1 of 2 NaN",)
