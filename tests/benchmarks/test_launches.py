"""The launch census: its arithmetic on a program written by hand, and what an iteration launches.

The second part compiles for an H100 that is not there. It needs XLA's CUDA plugin, which must not
stand in the environment itself (jax would try to start it): see docs/speed.md and .ci/run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import pytest

SPEED = Path(__file__).resolve().parents[2] / "benchmarks" / "speed"
sys.path.insert(0, str(SPEED))

import launches  # noqa: E402

from ppo_jax.kernels.packing import UNROLLED_STEPS  # noqa: E402

# As XLA prints it: a chunk's loop whose body holds a graph (a kernel and a copy), a loop of 5 with
# a kernel and a loop of unknown length within, and a branch of 1 or 2 kernels.
SEQUENCE = """\
001: kCopy          [source       | next=003 (2)] kCopy
003: kWhile         [prev=002 (1) | next=000 (1)]
condition:
    004: kCustomKernel [source | sink] wrapped_compare grid: [1, 1, 1] threads: [1, 1, 1]
  body:
    000: kCommandBuffer [source       | next=060 (1)]
        005: kCustomKernel [source        | sink         ] loop_add_fusion grid: [1, 1, 1]
        006: kDynamicSliceFusion [source        | next=077 (13)] params=1, results=1
            007: kCopy [source | sink] kCopy
    008: kWhile         [prev=000 (1) | next=000 (1)]
condition:
        009: kCustomKernel [source | sink] loop_compare_fusion grid: [1, 1, 1]
      body:
        010: kCustomKernel [source | sink] gemm_fusion_dot grid: [1, 1, 1]
        011: kWhile         [prev=000 (1) | next=000 (1)]
condition:
            012: kCustomKernel [source | sink] loop_compare_fusion grid: [1, 1, 1]
          body:
            013: kCustomKernel [source | sink] fusion grid: [1, 1, 1]
            014: kCustomKernel [source | sink] fusion grid: [1, 1, 1]
    015: kConditional  [prev=002 (1) | next=009 (1)]
      branch_0:
        016: kCopy         [source       | next=004 (1)] kCopy
        017: kCustomKernel [prev=003 (1) | sink        ] sort grid: [1, 1, 1]
      branch_1:
        018: kCustomKernel [source | sink] loop_multiply_fusion grid: [8, 1, 1]
000: kCommandBuffer [prev=003 (1) | sink        ]
    019: kCustomKernel [source | sink] wrapped_slice grid: [2, 1, 1]
"""
METADATA = "\n".join(
    f'thunk_metadata {{\n  thunk_info {{\n    profile_annotation: "{name}"\n    thunk_id: {number}'
    for number, name in ((3, "while.1"), (8, "while.2"), (11, "while.3"), (15, "conditional"))
)
HLO = """\
HloModule jit_chunk

FileNames
1 "/somewhere/rollout.py"

FunctionNames
1 "rollout"

FileLocations
1 {file_name_id=1 function_name_id=1 line=227 end_line=227 column=8 end_column=40}

StackFrames
1 {file_location_id=1 parent_frame_id=1}

%go (g: s32[]) -> pred[] {
  ROOT %compare = pred[] compare(%g, %g), direction=LT
}

%last (y: s32[]) -> s32[] {
  ROOT %fusion = f32[10]{0} exponential(%y.1)
}

%middle (y: s32[]) -> s32[] {
  %y.1 = f32[10]{0} parameter(0)
  %gemm_fusion_dot = f32[20]{0} negate(%y.1)
  ROOT %while.3 = (s32[]) while(%t), condition=%go, body=%last, metadata={stack_frame_id=1}
}

%body (x: s32[]) -> s32[] {
  %g = s32[] parameter(0)
  %while.2 = (s32[]) while(%t), condition=%go, body=%middle, \
metadata={op_name="a/while" stack_frame_id=1}, \
backend_config={"known_trip_count":{"n":"5"},"dynamic_variables":[]}
  ROOT %conditional = (s32[]) conditional(%t), metadata={op_name="a/cond" stack_frame_id=1}
}
"""


@pytest.fixture(scope="module")
def program() -> launches.Program:
    names = launches.parse_names(METADATA)
    return launches.Program(launches.parse_thunks(SEQUENCE, names), launches.hlo.parse(HLO))


def test_thunks_are_read_as_a_tree(program: launches.Program) -> None:
    assert [thunk.kind for thunk in program.thunks] == ["kCopy", "kWhile", "kCommandBuffer"]
    loop, in_graph = launches.iteration_of(program)
    body = loop.sections["body"]
    assert [t.kind for t in body] == ["kCommandBuffer", "kWhile", "kConditional"]
    assert not in_graph
    assert [t.kind for t in body[1].sections["body"]] == ["kCustomKernel", "kWhile"]
    assert {name: len(part) for name, part in body[2].sections.items()} == {
        "branch_0": 2,
        "branch_1": 1,
    }


def test_loops_count_as_often_as_they_run(program: launches.Program) -> None:
    loop, _ = launches.iteration_of(program)
    found = launches.count(program, loop.sections["body"])
    graph, unknown_loop, branch = 2, 2 + 2 * 1, 2  # the loop's condition before and after its pass
    assert found.launches == graph + 5 * (1 + unknown_loop) + branch
    assert found.unknown_loops == ("while.3", "conditional")


def test_loops_are_told_with_their_sources(program: launches.Program) -> None:
    rows = launches.loops_of(program, launches.iteration_of(program)[0].sections["body"])
    found = [tuple(row[key] for key in ("trips", "launches_per_pass", "launches")) for row in rows]
    assert found == [(5, 1, 5), (None, 2, 10)]
    assert [row["bytes"] for row in rows] == [5 * (40 + 80), 5 * (40 + 40)]
    assert rows[0]["source"] == "rollout.py:227 rollout"


def test_one_graph_is_nothing_but_a_graph(program: launches.Program) -> None:
    body = launches.iteration_of(program)[0].sections["body"]
    assert not launches.is_one_graph(body, False)
    assert launches.is_one_graph(body[:1], False)
    assert launches.is_one_graph(body, True)


# --- the training program, compiled for an H100 ---------------------------------------------------

needs_plugin = pytest.mark.skipif(
    find_spec("jax_plugins") is None or find_spec("jax_plugins.xla_cuda13") is None,
    reason="jax-cuda13-plugin is not there: it compiles for a GPU (docs/speed.md)",
)

# Launches of an iteration of 2,048 environments x 128 steps, 4 epochs x 4 minibatches, at most: by
# seeds, and whether what only the log reads is computed.
# XLA's own choices move by a percent from version to version: limits are a few above what each has.
LIMITS = (
    {(1, True): 1_400, (1, False): 1_400, (16, True): 1_615, (16, False): 1_615}
    if jax.__version_info__ < (0, 11)
    else {(1, True): 1_530, (1, False): 1_490, (16, True): 1_745, (16, False): 1_700}
)
# Gigabytes by seeds, at most.
GIGABYTES = {1: 9.9, 16: 175.0}


@lru_cache
def census(seeds: int, with_rows: bool, *more: str) -> dict[str, Any]:
    """In a process of its own, which starts on the CPU and knows no flag of the tests'."""
    command = [sys.executable, str(SPEED / "launches.py"), *more, "--seeds", str(seeds)]
    clean = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [*command, *([] if with_rows else ["--no-rows"])],
        env={**clean, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_plugin
@pytest.mark.parametrize("seeds, with_rows", LIMITS)
def test_iteration_launches_at_most_so_often(seeds: int, with_rows: bool) -> None:
    found = census(seeds, with_rows)
    assert found["loops"], "an iteration has loops"
    assert 0 < found["launches"] <= LIMITS[seeds, with_rows]


@needs_plugin
@pytest.mark.parametrize("seeds", GIGABYTES)
def test_iteration_moves_at_most_so_many_bytes(seeds: int) -> None:
    assert 1.0 < census(seeds, True)["gigabytes"] <= GIGABYTES[seeds]


@needs_plugin
@pytest.mark.parametrize(
    "words, gigabytes",
    [
        ("Breakout-MinAtar --num-envs 1024 --num-epochs 1", 22.8),
        ("CartPole-v1 --objective trpo --num-epochs 1", 26.1),
    ],
)
def test_a_convolution_and_a_natural_gradient_are_one_graph_each(
    words: str, gigabytes: float
) -> None:
    found = census(1, True, *words.split())
    assert found["is_one_graph"]
    assert 1.0 < found["gigabytes"] <= gigabytes


@needs_plugin
@pytest.mark.parametrize("seeds", [1, 16])
def test_update_runs_all_epochs_and_minibatches(seeds: int) -> None:
    """The census sees the loops that it should: 128 steps, 4 epochs, 4 minibatches in each."""
    trips = [loop["trips"] for loop in census(seeds, True)["loops"]]
    assert 128 // UNROLLED_STEPS in trips
    assert trips.count(4) >= 2


@needs_plugin
@pytest.mark.parametrize("seeds", [1, 16])
def test_iteration_is_one_graph_where_graphs_may_hold_loops(seeds: int) -> None:
    assert census(seeds, True)["is_one_graph"]
