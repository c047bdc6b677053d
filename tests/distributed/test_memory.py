"""Forecast of memory: exact bytes of the states, and phases that are added up by hand."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from tiny import CONFIG, HYPER

from ppo_jax.distributed import memory, population
from ppo_jax.distributed.layout import choose_layout
from ppo_jax.distributed.memory import Forecast, Use
from ppo_jax.training import schedules

PLAIN = Forecast(4, 2, True, 100, 10, 40, 30, 5, 0, saves_beside=False)


def test_the_states_are_counted_to_the_byte() -> None:
    arrays = schedules.as_arrays(CONFIG, HYPER)
    layout = choose_layout(CONFIG, 3)  # on two devices, so that there are four members
    shapes = population.abstract_population(CONFIG, arrays, layout)
    state = population.init_population(CONFIG, arrays, 0, layout)
    plain = state._replace(key=jax.random.key_data(state.key))
    found = memory.forecast(CONFIG, layout, shapes, Use(episodes=4))
    assert found.state == sum(leaf.nbytes for leaf in jax.tree.leaves(plain))
    assert (found.num_members, found.num_devices, found.programs) == (4, 2, memory.PROGRAM)
    more = memory.forecast(CONFIG, layout, shapes, Use(episodes=8, member_bytes=9))
    assert (more.playing, more.rows) == (2 * found.playing, found.rows + 4 * 9)
    buffered = memory.forecast(dataclasses.replace(CONFIG, start_states=5), layout, shapes)
    carry = sum(leaf.nbytes for leaf in jax.tree.leaves(plain.carry)) // (4 * CONFIG.num_envs)
    at_once = 2 if layout.kind == "map" else 4  # members that are computed at the same time
    assert buffered.working == found.working + at_once * 5 * carry


@pytest.mark.parametrize(
    "changes, peak",
    [
        ({}, 3 * 100 + 10 + 5),  # a checkpoint: the states, a snapshot, the bytes of the file
        ({"working": 400}, 100 + 400 + 2 * 10 + 5),  # the program, its table twice
        ({"working": 400, "saves_beside": True}, 300 + 400 + 2 * 10 + 5),
        ({"playing": 999}, 100 + 999 + 10 + 5),
    ],
)
def test_the_peak_of_main_memory_is_that_of_the_largest_phase(
    changes: dict[str, Any], peak: int
) -> None:
    assert PLAIN._replace(**changes).main == peak


def test_an_accelerator_and_its_host_have_their_own_peaks() -> None:
    apart = PLAIN._replace(is_cpu=False, working=400)
    assert (apart.device, apart.main) == ((100 + 400 + 10) // 2, 2 * 100 + 10 + 5)


def test_a_compiled_program_replaces_the_estimates() -> None:
    found = SimpleNamespace(output_size_in_bytes=70, alias_size_in_bytes=50, temp_size_in_bytes=300)
    known = PLAIN.with_program(SimpleNamespace(memory_analysis=lambda: found))
    assert (known.tables, known.working) == (2 * 20, 2 * 300)
    assert PLAIN.with_program(SimpleNamespace(memory_analysis=lambda: None)) == PLAIN


def test_bytes_have_a_unit_that_fits() -> None:
    sizes = (812, 3 * 2**19, 3 * 2**29, None)
    assert [memory.show_bytes(size) for size in sizes] == ["812 B", "1.5 MiB", "1.5 GiB", "unknown"]
