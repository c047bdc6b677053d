"""Launches and bytes of an iteration on an H100, counted without one.

`JAX_PLATFORMS=cpu python benchmarks/speed/launches.py [ENV] [--seeds 16] [--list]`. XLA compiles
for a described GPU (h100_sxm.txtpb) and dumps the list of thunks that its runtime would execute. A
launch is a kernel, a copy or a library call; a loop's body counts as often as the loop runs. Bytes
are those that the kernels read and write (hlo.py). The compiled program is the one that `ppo-jax
train` runs on a GPU, `programs.make_chunk`.

It needs `jax-cuda13-plugin` and `jax-cuda13-pjrt` of JAX's version. Without a GPU, install them
beside the environment, not into it (docs/speed.md): otherwise JAX no longer starts there by
default.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hlo

from ppo_jax.distributed import population
from ppo_jax.kernels import compiler

TARGET = Path(__file__).with_name("h100_sxm.txtpb")

# Thunks of control flow only; each of the others is a launch.
CONTROL = ("kWhile", "kConditional", "kSequential", "kCommandBuffer", "kDynamicSliceFusion")


class Thunk(NamedTuple):
    """One step of a GPU program, with the thunks inside it."""

    kind: str  # kCustomKernel, kCopy, kWhile, kCommandBuffer, ...
    name: str  # of the HLO instruction, "" if XLA gives none
    sections: dict[str, list[Thunk]]  # "" (in sequence), "condition", "body", "branch_0", ...

    @property
    def is_launch(self) -> bool:
        return self.kind not in CONTROL


class Program(NamedTuple):
    """A compiled program, read from its dump."""

    thunks: list[Thunk]
    module: hlo.Module

    def find(self, thunk: Thunk) -> hlo.Instruction:
        unknown = hlo.Instruction(thunk.name, "", "", (), "")
        return self.module.instructions.get(thunk.name, unknown)


def parse_thunks(text: str, names: dict[int, str]) -> list[Thunk]:
    """The tree of a thunk sequence as XLA prints it; `names` by thunk id."""
    line_of = re.compile(r"^( *)(\d+): (k\w+)")
    section_of = re.compile(r"^ *(condition|body|branch_\d+):\s*$")
    root = Thunk("kSequential", "", {"": []})
    open_thunks: list[tuple[int, Thunk, str]] = [(-1, root, "")]  # indent, thunk, section
    section = ""
    for line in text.splitlines():
        if found := section_of.match(line):
            section = found[1]
            continue
        if not (found := line_of.match(line)):
            continue
        indent = len(found[1])
        while open_thunks[-1][0] > indent:
            open_thunks.pop()
        if open_thunks[-1][0] == indent:
            _, _, inherited = open_thunks.pop()
        else:
            inherited = ""
        # A section's title stands before its first thunk; the next ones are of the same section.
        inside = section or inherited
        section = ""
        thunk = Thunk(found[3], names.get(int(found[2]), ""), {})
        open_thunks[-1][1].sections.setdefault(inside, []).append(thunk)
        open_thunks.append((indent, thunk, inside))
    return root.sections[""]


def parse_names(metadata: str) -> dict[int, str]:
    """HLO instruction by thunk id, from `thunk_metadata.txt`."""
    pairs = re.findall(r'profile_annotation: "([^"]*)"\s+thunk_id: (\d+)', metadata)
    return {int(number): name for name, number in pairs}


def read_dump(folder: Path) -> Program:
    """The one program that was dumped into `folder`.

    Raises:
        FileNotFoundError: no thunks were dumped.
    """

    def text(ending: str) -> str:
        return next(folder.glob(f"*{ending}")).read_text("utf-8")

    passes = list(folder.glob("*.thunk_sequence_after_thunk_passes.txt"))
    if not passes and not list(folder.glob("*.thunk_sequence.txt")):
        raise FileNotFoundError(f"XLA wrote no thunk sequence into {folder}")
    thunks = passes[0].read_text("utf-8") if passes else text(".thunk_sequence.txt")
    names = parse_names(text(".thunk_metadata.txt"))
    module = hlo.parse(text("_after_optimizations.txt"))
    return Program(parse_thunks(thunks, names), module)


class Count(NamedTuple):
    """Launches of a list of thunks, run once."""

    launches: int
    unknown_loops: tuple[str, ...]  # loops and branches whose length depends on data


def count(program: Program, thunks: list[Thunk]) -> Count:
    """Launches, with each loop's body as often as it runs.

    A loop of unknown length counts as one pass and is named. A conditional counts by its longest
    branch and is named too. Without a graph each of them makes the host wait for the device.
    """
    total, unknown = 0, []
    for thunk in thunks:
        total += thunk.is_launch
        parts = {name: count(program, inner) for name, inner in thunk.sections.items()}
        for part in parts.values():
            unknown += part.unknown_loops
        if thunk.kind == "kWhile":
            trips = program.find(thunk).trip_count
            total += parts["body"].launches * (1 if trips is None else trips)
            if trips is None:
                total += 2 * parts["condition"].launches  # before the pass and after it
                unknown.append(thunk.name)
        elif thunk.kind == "kConditional":
            total += max((part.launches for part in parts.values()), default=0)
            unknown.append(thunk.name)
        else:
            total += sum(part.launches for part in parts.values())
    return Count(total, tuple(unknown))


def iteration_of(program: Program) -> tuple[Thunk, bool]:
    """The chunk's loop over iterations, and whether a graph holds that loop too."""

    def search(thunks: list[Thunk], in_graph: bool) -> tuple[Thunk, bool] | None:
        for thunk in thunks:
            if thunk.kind == "kWhile":
                return thunk, in_graph
            inner = [child for part in thunk.sections.values() for child in part]
            if found := search(inner, in_graph or thunk.kind == "kCommandBuffer"):
                return found
        return None

    found = search(program.thunks, False)
    if found is None:
        raise ValueError("The program has no loop over iterations.")
    return found


def loops_of(program: Program, thunks: list[Thunk], times: int = 1) -> list[dict[str, Any]]:
    """Every loop in `thunks`, outer ones first: its source, length, launches and bytes."""
    rows = []
    for thunk in thunks:
        inner_times = times
        if thunk.kind == "kWhile":
            trips, body = program.find(thunk).trip_count, thunk.sections["body"]
            direct = count(program, without_loops(body)).launches
            own_bytes = bytes_outside_loops(program, thunk)
            inner_times = times * (1 if trips is None else trips)
            rows.append(
                {
                    "loop": thunk.name,
                    "source": program.find(thunk).source,
                    "trips": trips,
                    "launches_per_pass": direct,
                    "launches": direct * inner_times,
                    "bytes": own_bytes * inner_times,
                }
            )
        for part in thunk.sections.values():
            rows += loops_of(program, part, inner_times)
    return rows


def body_of(program: Program, loop: Thunk) -> str:
    """The computation that a loop repeats."""
    found = re.search(r"\bbody=%([\w.\-]+)", program.find(loop).attributes)
    if found is None:
        raise ValueError(f"{loop.name} is no loop of the program.")
    return found[1]


def bytes_outside_loops(program: Program, loop: Thunk) -> int:
    """Bytes of one pass of a loop, without those of the loops in it."""
    body = program.module.computations[body_of(program, loop)]
    inner = (one for one in body.values() if one.opcode == "while")
    within = sum(
        hlo.traffic(program.module, name) * (one.trip_count or 1)
        for one in inner
        for name in one.called
    )
    return hlo.traffic(program.module, body_of(program, loop)) - within


def without_loops(thunks: list[Thunk]) -> list[Thunk]:
    """`thunks` without the loops among them, however deep."""
    return [
        thunk._replace(
            sections={name: without_loops(part) for name, part in thunk.sections.items()}
        )
        for thunk in thunks
        if thunk.kind != "kWhile"
    ]


def is_one_graph(thunks: list[Thunk], in_graph: bool) -> bool:
    """Check that an iteration is part of a graph, or consists of one graph."""
    return in_graph or [thunk.kind for thunk in thunks] == ["kCommandBuffer"]


def listing(program: Program, thunks: list[Thunk], indent: str = "") -> list[str]:
    """The thunks as lines: bytes, kind, instruction, operation, source."""
    lines = []
    for thunk in thunks:
        told = program.find(thunk)
        trips = f" x {told.trip_count or '?'}" if thunk.kind == "kWhile" else ""
        op = re.sub(r"jit\(chunk\)/vmap\(\)/while/body/jit\(iterate\)/", "", told.op_name)
        known = program.module.instructions.get(thunk.name)
        size = hlo.moved(program.module, known) / 1e6 if known else 0.0
        head = f"{size:9.3f} MB {indent}{thunk.kind[1:]}{trips} {thunk.name}"
        lines.append(f"{head:<72} {told.source:<46} {op}".rstrip())
        for name, part in thunk.sections.items():
            if name:
                lines.append(f"{indent}  {name}:")
            lines += listing(program, part, indent + "    ")
    return lines


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Trace with the kernels' forms for a GPU, without XLA's options for a CPU or a driver."""
    import jax

    from ppo_jax.kernels import backend

    originals = jax.default_backend, compiler.driver_version
    jax.default_backend, compiler.driver_version = (lambda: "gpu"), (lambda: 0)
    try:
        with backend.use("gpu"):
            yield
    finally:
        jax.default_backend, compiler.driver_version = originals


def compile_for_target(
    config: Any, seeds: int, with_graphs: bool, with_rows: bool, folder: Path
) -> Program:
    """Compile the training chunk for the described GPU, dumping into `folder`, which is not
    emptied.

    Args:
        with_rows: False leaves out computations for the log alone.
    """
    import jax
    import jax.numpy as jnp
    from jax.experimental import topologies
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from ppo_jax.config.config import Hyper
    from ppo_jax.distributed import layout as layouts
    from ppo_jax.distributed import programs
    from ppo_jax.training.schedules import as_arrays

    topology = topologies.get_topology_desc(
        platform="cuda", target_config=TARGET.read_text("utf-8"), topology="1x1x1"
    )
    layout = layouts.Layout("vmap", tuple(topology.devices[:1]), seeds)
    everywhere = NamedSharding(layout.mesh, P())

    def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf), sharding=everywhere)

    options: dict[str, Any] = {"xla_dump_to": str(folder)}
    options |= compiler.GRAPHS if with_graphs else {}
    hyper = as_arrays(config, Hyper())
    with as_on_a_gpu():
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), seeds))
        shapes = jax.eval_shape(population.make_init(config), hyper, keys)
        state = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            population.placement(shapes, layout),
        )
        chunk = programs.make_chunk(config, layout)
        if not with_rows:
            whole = chunk
            chunk = jax.jit(lambda *given: whole(*given)[0], donate_argnums=1)
        given = (jax.tree.map(abstract, hyper), state, abstract(jnp.asarray(1)))
        chunk.lower(*given).compile(compiler_options=options)
    return read_dump(folder)


def census(
    config: Any, seeds: int, with_graphs: bool, with_rows: bool, keep: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Launches and bytes of one training iteration on the described GPU, and their list as lines.

    Args:
        keep: an empty folder for what XLA dumps.
    """
    with tempfile.TemporaryDirectory() as folder:
        program = compile_for_target(config, seeds, with_graphs, with_rows, Path(keep or folder))
    loop, in_graph = iteration_of(program)
    body = loop.sections["body"]
    total = count(program, body)
    instructions = program.module.instructions
    record = {
        "env": config.env,
        "num_envs": config.num_envs,
        "objective": config.objective,
        "precision": config.precision,
        "seeds": seeds,
        "with_graphs": with_graphs,
        "with_rows": with_rows,
        "launches": total.launches,
        "gigabytes": hlo.traffic(program.module, body_of(program, loop)) / 1e9,
        "is_one_graph": is_one_graph(body, in_graph),
        "top_level": [thunk.kind for thunk in body],
        "unknown_lengths": [
            f"{name} ({instructions[name].source})" if name in instructions else name
            for name in total.unknown_loops
        ],
        "outside_loops": count(program, without_loops(body)).launches,
        "bytes_outside_loops": bytes_outside_loops(program, loop),
        "loops": loops_of(program, body),
    }
    return record, listing(program, body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env", nargs="?", default="CartPole-v1")
    parser.add_argument("--num-envs", type=int, default=2048)
    parser.add_argument("--rollout-length", type=int, default=128)
    parser.add_argument("--num-epochs", type=int, default=4)
    parser.add_argument("--num-minibatches", type=int, default=4)
    parser.add_argument("--objective", default="clip")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--normalize-observations", action="store_true")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--one-line", action="store_true", help="the record as one line")
    parser.add_argument("--dump", help="folder that keeps what XLA wrote")
    parser.add_argument("--no-graphs", action="store_true", help="as XLA does it by default")
    parser.add_argument("--no-rows", action="store_true", help="without values for the log")
    parser.add_argument("--list", action="store_true", help="every launch with its source")
    arguments = parser.parse_args()

    from ppo_jax.config.config import Config

    config = Config(
        env=arguments.env,
        num_envs=arguments.num_envs,
        rollout_length=arguments.rollout_length,
        num_epochs=arguments.num_epochs,
        num_minibatches=arguments.num_minibatches,
        objective=arguments.objective,
        precision=arguments.precision,
        normalize_observations=arguments.normalize_observations,
        total_env_steps=arguments.num_envs * arguments.rollout_length,
    )
    choice = (not arguments.no_graphs, not arguments.no_rows)
    record, lines = census(config, arguments.seeds, *choice, arguments.dump)
    if arguments.list:
        print("\n".join(lines) + "\n")
    print(json.dumps(record, indent=None if arguments.one_line else 1))


if __name__ == "__main__":
    main()
