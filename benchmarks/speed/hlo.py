"""Instructions of a compiled program, read from its HLO text, and the bytes that they move.

The bytes of a kernel are those of its operands and results. A slice, a gather or an update in place
counts as the part that it reads or writes. Caches are ignored, so the sum is an upper bound of the
traffic with the device's memory. A loop's body counts as often as the loop runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from math import prod
from pathlib import Path
from typing import NamedTuple

# Instructions that run no kernel; those of control flow count by what they call.
FREE = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("partition-id", "replica-id", "opt-barrier", "while", "conditional", "call"),
)
PARTS = ("slice", "dynamic-slice", "gather")  # read a part of their first operand
UPDATES = {"dynamic-update-slice": 1, "scatter": 2}  # the operand that is written in place
ARRAY = re.compile(r"([a-z]+\d*)(?:e\dm\d\w*)?\[([\d,]*)\]")


class Instruction(NamedTuple):
    """One instruction of a compiled program."""

    name: str
    shape: str  # of the result, as HLO writes it
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    source: str = ""  # file:line function
    is_root: bool = False

    @property
    def op_name(self) -> str:
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def trip_count(self) -> int | None:
        """The number of a loop's passes, None if it is not known."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"', self.attributes)
        return int(found[1]) if found else None

    @property
    def called(self) -> list[str]:
        """Names of the computations that it runs: a loop's condition and body, branches, ..."""
        found = re.findall(r"\b(?:condition|body|calls|to_apply)=%([\w.\-]+)", self.attributes)
        branches = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        found += re.findall(r"(?:true|false)_computation=%([\w.\-]+)", self.attributes)
        return found + (re.findall(r"%([\w.\-]+)", branches[1]) if branches else [])


Computation = dict[str, Instruction]


class Module(NamedTuple):
    """The computations of a program by name, and all of their instructions."""

    computations: dict[str, Computation]
    instructions: Computation


def parse(hlo: str) -> Module:
    """Read an HLO text with its tables of stack frames."""
    places = _places(hlo)
    computations: dict[str, Computation] = {}
    current: Computation = {}
    for line in hlo.splitlines():
        if header := re.match(r"(?:ENTRY )?%([\w.\-]+) \(.*\{$", line):
            current = computations.setdefault(header[1], {})
        elif found := re.match(r" +(ROOT )?%([\w.\-]+) = (.*)", line):
            one = _instruction(found[2], found[3], places)
            current[found[2]] = one._replace(is_root=bool(found[1]))
    everything = {name: one for part in computations.values() for name, one in part.items()}
    return Module(computations, everything)


def _instruction(name: str, text: str, places: dict[str, str]) -> Instruction:
    shape, rest = _split(text)
    opcode, _, rest = rest.partition("(")
    inside, attributes = _split("(" + rest)
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    frame = re.search(r"stack_frame_id=(\d+)", attributes)
    source = places.get(frame[1], "") if frame else ""
    return Instruction(name, shape, opcode.strip(), operands, attributes, source)


def _split(text: str) -> tuple[str, str]:
    """Split before the first space, or behind the parenthesis that closes the first one."""
    if not text.startswith("("):
        first, _, rest = text.partition(" ")
        return first, rest
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return text[: i + 1], text[i + 1 :].lstrip()
    return text, ""


def _places(hlo: str) -> dict[str, str]:
    """`file:line function` by the number of a stack frame."""

    def table(title: str, row: str) -> list[tuple[str, ...]]:
        block = re.search(rf"^{title}\n(.*?)\n\n", hlo, re.M | re.S)
        return re.findall(row, block[1], re.M) if block else []

    files = {n: Path(name).name for n, name in table("FileNames", r'^(\d+) "(.*\.py)"')}
    functions = dict(table("FunctionNames", r'^(\d+) "(.*)"'))
    row = r"^(\d+) \{file_name_id=(\d+) function_name_id=(\d+) line=(\d+)"
    places = {
        number: f"{files.get(file, '?')}:{line} {functions.get(function, '')}"
        for number, file, function, line in table("FileLocations", row)
    }
    frames = table("StackFrames", r"^(\d+) \{file_location_id=(\d+)")
    return {frame: places.get(place, "") for frame, place in frames}


# Bytes --------------------------------------------------------------------------------------------


@cache
def size_of(shape: str) -> int:
    """Bytes of an array, or of all arrays of a tuple."""
    total = 0
    for dtype, dimensions in ARRAY.findall(shape):
        bits = re.search(r"\d+", dtype)
        width = max(1, int(bits[0]) // 8) if bits else int(dtype == "pred")
        total += width * prod(int(n) for n in dimensions.split(",") if n)
    return total


def traffic(module: Module, computation: str) -> int:
    """Bytes that one run of a computation moves; a loop of unknown length counts as one pass."""
    total = 0
    for instruction in module.computations[computation].values():
        inner = [traffic(module, name) for name in _run(instruction)]
        if instruction.opcode == "while":
            total += sum(inner) * (instruction.trip_count or 1)
        elif instruction.opcode == "conditional":
            total += max(inner, default=0)
        else:
            total += sum(inner) + moved(module, instruction)
    return total


def each(module: Module, computation: str, times: int = 1) -> Iterator[tuple[Instruction, int]]:
    """Every instruction that a computation runs, with the number of its runs."""
    for instruction in module.computations[computation].values():
        yield instruction, times
        passes = (instruction.trip_count or 1) if instruction.opcode == "while" else 1
        for name in _run(instruction):
            yield from each(module, name, times * passes)


def _run(instruction: Instruction) -> list[str]:
    """Computations of an instruction of control flow, whose instructions are kernels."""
    return instruction.called if instruction.opcode in ("while", "conditional", "call") else []


def moved(module: Module, instruction: Instruction) -> int:
    """Bytes that one run of one instruction reads and writes."""
    opcode = instruction.opcode
    if opcode in FREE or opcode.endswith("-done"):
        return 0
    if opcode == "fusion":
        return _fused(module.computations[instruction.called[0]])

    def operand(i: int) -> int:
        return size_of(module.instructions[instruction.operands[i]].shape)

    result, given = size_of(instruction.shape), range(len(instruction.operands))
    if opcode in UPDATES:
        written = UPDATES[opcode]
        return operand(written) + sum(operand(i) for i in given if i > 0)
    if opcode in PARTS:
        return 2 * result + sum(operand(i) for i in given if i > 0)
    if opcode == "custom-call":  # the last result of a library call is its workspace
        arrays = ARRAY.findall(instruction.shape)
        if len(arrays) > 1 and arrays[-1][0] in ("s8", "u8"):
            result -= size_of("{}[{}]".format(*arrays[-1]))
    if opcode.endswith("-start"):  # its result repeats the operand
        return 2 * sum(map(operand, given))
    return result + sum(map(operand, given))


def _fused(computation: Computation) -> int:
    """Bytes that a fusion moves: of each parameter what is read, of each result what is written."""
    users: dict[str, list[Instruction]] = {}
    for instruction in computation.values():
        for name in dict.fromkeys(instruction.operands):
            users.setdefault(name, []).append(instruction)

    def read(name: str) -> int:
        whole, parts = size_of(computation[name].shape), 0
        for user in users.get(name, []):
            is_first = user.operands[0] == name and name not in user.operands[1:]
            if user.opcode == "bitcast":
                parts += read(user.name)
            elif is_first and user.opcode in PARTS:
                parts += size_of(user.shape)
            elif not (is_first and user.opcode in UPDATES):
                return whole
        return min(whole, parts)

    def written(name: str) -> int:
        instruction = computation[name]
        if instruction.opcode == "tuple":
            return sum(map(written, instruction.operands))
        if instruction.opcode == "bitcast":
            return min(written(instruction.operands[0]), size_of(instruction.shape))
        if instruction.opcode == "parameter":
            return 0
        if instruction.opcode in UPDATES:
            return size_of(computation[instruction.operands[UPDATES[instruction.opcode]]].shape)
        return size_of(instruction.shape)

    parameters = [one.name for one in computation.values() if one.opcode == "parameter"]
    root = next(one.name for one in computation.values() if one.is_root)
    return sum(map(read, parameters)) + written(root)
