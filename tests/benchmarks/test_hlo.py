"""Bytes of a compiled program, on HLO written by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "speed"))

import hlo

# A loop of 3 passes with a loop of unknown length and a branch, and fusions that read and write
# parts. Arrays of 8 x 4 float32 have 128 bytes.
TEXT = """\
HloModule jit_chunk, entry_computation_layout={(f32[8,4]{1,0})->f32[8,4]{1,0}}

FileNames
1 "/somewhere/rollout.py"

FunctionNames
1 "rollout"

FileLocations
1 {file_name_id=1 function_name_id=1 line=227 end_line=227 column=8 end_column=40}

StackFrames
1 {file_location_id=1 parent_frame_id=1}

%fused_row (p.0: f32[8,4], p.1: s32[]) -> f32[1,4] {
  %p.0 = f32[8,4]{1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %c.0 = s32[] constant(0)
  %dynamic-slice.0 = f32[1,4]{1,0} dynamic-slice(%p.0, %p.1, %c.0), dynamic_slice_sizes={1,4}
  ROOT %exp.0 = f32[1,4]{1,0} exponential(%dynamic-slice.0)
}

%fused_put (q.0: f32[8,4], q.1: f32[1,4], q.2: s32[]) -> (f32[8,4], f32[1,4]) {
  %q.0 = f32[8,4]{1,0} parameter(0)
  %q.1 = f32[1,4]{1,0} parameter(1)
  %q.2 = s32[] parameter(2)
  %c.1 = s32[] constant(0)
  %tanh.0 = f32[1,4]{1,0} tanh(%q.1)
  %put.0 = f32[8,4]{1,0} dynamic-update-slice(%q.0, %tanh.0, %q.2, %c.1)
  ROOT %tuple.0 = (f32[8,4]{1,0}, /*index=1*/f32[1,4]{1,0}) tuple(%put.0, %tanh.0)
}

%inner (i.0: (f32[8,4])) -> (f32[8,4]) {
  %i.0 = (f32[8,4]{1,0}) parameter(0)
  %i.1 = f32[8,4]{1,0} get-tuple-element(%i.0), index=0
  %copy.0 = f32[8,4]{1,0} copy(%i.1)
  ROOT %i.2 = (f32[8,4]{1,0}) tuple(%copy.0)
}

%go (g.0: (f32[8,4])) -> pred[] {
  %g.0 = (f32[8,4]{1,0}) parameter(0)
  ROOT %compare.0 = pred[] custom-call(), custom_call_target="there"
}

%small (s.0: f32[8,4]) -> f32[8,4] {
  ROOT %s.0 = f32[8,4]{1,0} parameter(0)
}

%large (l.0: f32[8,4]) -> f32[8,4] {
  %l.0 = f32[8,4]{1,0} parameter(0)
  ROOT %l.1 = f32[8,4]{0,1} copy(%l.0)
}

%body (b.0: (f32[8,4], s32[])) -> (f32[8,4], s32[]) {
  %b.0 = (f32[8,4]{1,0}, s32[]) parameter(0)
  %x = f32[8,4]{1,0} get-tuple-element(%b.0), index=0
  %i = s32[] get-tuple-element(%b.0), index=1
  %row = f32[1,4]{1,0} fusion(%x, %i), kind=kLoop, calls=%fused_row, \
metadata={op_name="a/exp" stack_frame_id=1}
  %put = (f32[8,4]{1,0}, f32[1,4]{1,0}) fusion(%x, %row, %i), kind=kLoop, calls=%fused_put
  %y = f32[8,4]{1,0} get-tuple-element(%put), index=0
  %t = (f32[8,4]{1,0}) tuple(%y)
  %again = (f32[8,4]{1,0}) while(%t), condition=%go, body=%inner
  %z = f32[8,4]{1,0} get-tuple-element(%again), index=0
  %w = f32[8,4]{1,0} conditional(%i, %z, %z), branch_computations={%small, %large}
  %gemm = (f32[8,8]{1,0}, s8[4096]{0}) custom-call(%w, %w), custom_call_target="__cublas$gemm"
  ROOT %end = (f32[8,4]{1,0}, s32[]) tuple(%w, %i)
}

%more (m.0: (f32[8,4], s32[])) -> pred[] {
  %m.0 = (f32[8,4]{1,0}, s32[]) parameter(0)
  ROOT %m.1 = pred[] constant(true)
}

ENTRY %main (a.0: f32[8,4]) -> (f32[8,4], s32[]) {
  %a.0 = f32[8,4]{1,0} parameter(0)
  %a.1 = s32[] constant(0)
  %a.2 = (f32[8,4]{1,0}, s32[]) tuple(%a.0, %a.1)
  ROOT %loop = (f32[8,4]{1,0}, s32[]) while(%a.2), condition=%more, body=%body, \
metadata={op_name="a/while" stack_frame_id=1}, backend_config={"known_trip_count":{"n":"3"}}
}
"""
WHOLE, ROW, NUMBER = 8 * 4 * 4, 4 * 4, 4


@pytest.fixture(scope="module")
def module() -> hlo.Module:
    return hlo.parse(TEXT)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("row", ROW + NUMBER + ROW),  # of the array it reads a row only
        ("put", ROW + NUMBER + 2 * ROW),  # it writes a row in place, and the row itself
        ("copy.0", 2 * WHOLE),
        ("gemm", 2 * WHOLE + 8 * 8 * 4),  # without the workspace
        ("end", 0),
        ("again", 0),  # its body counts
    ],
)
def test_bytes_of_a_kernel_are_what_it_reads_and_writes(
    module: hlo.Module, name: str, expected: int
) -> None:
    assert hlo.moved(module, module.instructions[name]) == expected


def test_a_loop_counts_as_often_as_it_runs_and_a_branch_by_its_longest(module: hlo.Module) -> None:
    names = ("row", "put", "gemm", "copy.0", "l.1", "compare.0")
    one_pass = sum(hlo.moved(module, module.instructions[name]) for name in names)
    assert hlo.traffic(module, "body") == one_pass
    assert hlo.traffic(module, "main") == 3 * one_pass
    runs = {instruction.name: times for instruction, times in hlo.each(module, "main")}
    assert (runs["loop"], runs["row"], runs["copy.0"]) == (1, 3, 3)


def test_an_instruction_has_its_source_and_its_loop_its_length(module: hlo.Module) -> None:
    loop, row = module.instructions["loop"], module.instructions["row"]
    assert (loop.trip_count, module.instructions["again"].trip_count) == (3, None)
    assert (row.source, row.op_name) == ("rollout.py:227 rollout", "a/exp")
    assert loop.called == ["more", "body"]


@pytest.mark.parametrize(
    "shape, expected",
    [
        ("f32[2,3]{1,0}", 24),
        ("(bf16[4]{0}, /*index=1*/pred[])", 9),
        ("c64[2]", 16),
        ("u8[]", 1),
        ("token[]", 0),
        ("f8e4m3fn[16]{0}", 16),
    ],
)
def test_a_shape_has_its_bytes(shape: str, expected: int) -> None:
    assert hlo.size_of(shape) == expected
