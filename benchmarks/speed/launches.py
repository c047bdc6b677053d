"""Number of operations that an iteration launches on an H100, counted without one.

`JAX_PLATFORMS=cpu python benchmarks/speed/launches.py [ENV] [--seeds 16] [--list]`. XLA compiles
for a described GPU (h100_sxm.txtpb) and dumps the list of thunks that its runtime would execute. A
launch is a kernel, a copy or a library call; a loop's body counts as often as the loop runs. The
compiled program is the one that `ppo-jax train` runs on a GPU, `programs.make_chunk`.

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

from ppo_jax.distributed import population

TARGET = Path(__file__).with_name("h100_sxm.txtpb")

# Thunks of control flow only; each of the others is a launch.
CONTROL = ("kWhile", "kConditional", "kSequential", "kCommandBuffer", "kDynamicSliceFusion")

# XLA's default contents of a CUDA graph, and loops: with these a whole iteration can be one graph.
# Collectives stay out.
# A graph may be small: a program that is one loop is a short list, for which XLA would make none.
GRAPHS_WITH_LOOPS = (
    "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE"
)


class Thunk(NamedTuple):
    """One step of a GPU program, with the thunks inside it."""

    kind: str  # kCustomKernel, kCopy, kWhile, kCommandBuffer, ...
    name: str  # of the HLO instruction, "" if XLA gives none
    sections: dict[str, list[Thunk]]  # "" (in sequence), "condition", "body", "branch_0", ...

    @property
    def is_launch(self) -> bool:
        return self.kind not in CONTROL


class Instruction(NamedTuple):
    """Data of one instruction in the compiled HLO."""

    op_name: str
    source: str  # file:line function
    trip_count: int | None  # of a loop whose length is known


class Program(NamedTuple):
    """A compiled program, read from its dump."""

    thunks: list[Thunk]
    instructions: dict[str, Instruction]

    def find(self, thunk: Thunk) -> Instruction:
        return self.instructions.get(thunk.name, Instruction("", "", None))


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


def parse_instructions(hlo: str) -> dict[str, Instruction]:
    """Names, sources and trip counts of an HLO text with its tables of stack frames."""
    files = {
        number: Path(name).name for number, name in re.findall(r'^(\d+) "(.*\.py)"', hlo, re.M)
    }
    functions = _table(hlo, "FunctionNames", r'^(\d+) "(.*)"')
    places = {
        number: f"{files.get(file, '?')}:{line} {functions.get(function, '')}"
        for number, file, function, line in re.findall(
            r"^(\d+) \{file_name_id=(\d+) function_name_id=(\d+) line=(\d+)", hlo, re.M
        )
    }
    frames = {
        frame: places.get(place, "")
        for frame, place in re.findall(r"^(\d+) \{file_location_id=(\d+)", hlo, re.M)
    }
    found = {}
    for name, rest in re.findall(r"^ *(?:ROOT )?%([\w.\-]+) = (.*)", hlo, re.M):
        op_name = re.search(r'op_name="([^"]*)"', rest)
        frame = re.search(r"stack_frame_id=(\d+)", rest)
        trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', rest)
        found[name] = Instruction(
            op_name[1] if op_name else "",
            frames.get(frame[1], "") if frame else "",
            int(trips[1]) if trips else None,
        )
    return found


def _table(hlo: str, title: str, row: str) -> dict[str, str]:
    block = re.search(rf"^{title}\n(.*?)\n\n", hlo, re.M | re.S)
    return dict(re.findall(row, block[1], re.M)) if block else {}


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
    return Program(
        parse_thunks(thunks, names), parse_instructions(text("_after_optimizations.txt"))
    )


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


def iteration_of(program: Program) -> tuple[list[Thunk], bool]:
    """The body of the chunk's loop over iterations, and whether a graph holds that loop too."""

    def search(thunks: list[Thunk], in_graph: bool) -> tuple[list[Thunk], bool] | None:
        for thunk in thunks:
            if thunk.kind == "kWhile":
                return thunk.sections["body"], in_graph
            inner = [child for part in thunk.sections.values() for child in part]
            if found := search(inner, in_graph or thunk.kind == "kCommandBuffer"):
                return found
        return None

    found = search(program.thunks, False)
    if found is None:
        raise ValueError("The program has no loop over iterations.")
    return found


def loops_of(program: Program, thunks: list[Thunk], times: int = 1) -> list[dict[str, Any]]:
    """Every loop in `thunks`, outer ones first: its source, length and launches."""
    rows = []
    for thunk in thunks:
        inner_times = times
        if thunk.kind == "kWhile":
            trips, body = program.find(thunk).trip_count, thunk.sections["body"]
            direct = count(program, without_loops(body)).launches
            inner_times = times * (1 if trips is None else trips)
            rows.append(
                {
                    "loop": thunk.name,
                    "source": program.find(thunk).source,
                    "trips": trips,
                    "launches_per_pass": direct,
                    "launches": direct * inner_times,
                }
            )
        for part in thunk.sections.values():
            rows += loops_of(program, part, inner_times)
    return rows


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
    """The thunks as lines: kind, instruction, operation, source."""
    lines = []
    for thunk in thunks:
        told = program.find(thunk)
        trips = f" x {told.trip_count or '?'}" if thunk.kind == "kWhile" else ""
        op = re.sub(r"jit\(chunk\)/vmap\(\)/while/body/jit\(iterate\)/", "", told.op_name)
        head = f"{indent}{thunk.kind[1:]}{trips} {thunk.name}"
        lines.append(f"{head:<60} {told.source:<46} {op}".rstrip())
        for name, part in thunk.sections.items():
            if name:
                lines.append(f"{indent}  {name}:")
            lines += listing(program, part, indent + "    ")
    return lines


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Trace with the kernels' forms for a GPU."""
    import jax

    from ppo_jax.kernels import backend

    original = jax.default_backend
    jax.default_backend = lambda: "gpu"  # leaves out XLA's options for a CPU
    try:
        with backend.use("gpu"):
            yield
    finally:
        jax.default_backend = original


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
    if with_graphs:
        options |= {
            "xla_gpu_enable_command_buffer": GRAPHS_WITH_LOOPS,
            "xla_gpu_graph_min_graph_size": 1,
        }
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
    config: Any, seeds: int = 1, with_graphs: bool = True, with_rows: bool = True
) -> tuple[dict[str, Any], list[str]]:
    """Launches of one training iteration on the described GPU, and the list of them as lines."""
    with tempfile.TemporaryDirectory() as folder:
        program = compile_for_target(config, seeds, with_graphs, with_rows, Path(folder))
    body, in_graph = iteration_of(program)
    total = count(program, body)
    record = {
        "env": config.env,
        "num_envs": config.num_envs,
        "seeds": seeds,
        "with_graphs": with_graphs,
        "with_rows": with_rows,
        "launches": total.launches,
        "is_one_graph": is_one_graph(body, in_graph),
        "top_level": [thunk.kind for thunk in body],
        "unknown_lengths": [
            f"{name} ({program.instructions[name].source})"
            if name in program.instructions
            else name
            for name in total.unknown_loops
        ],
        "outside_loops": count(program, without_loops(body)).launches,
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
    parser.add_argument("--seeds", type=int, default=1)
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
        total_env_steps=arguments.num_envs * arguments.rollout_length,
    )
    record, lines = census(config, arguments.seeds, not arguments.no_graphs, not arguments.no_rows)
    if arguments.list:
        print("\n".join(lines) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
