"""Launches and bytes of a peer's iteration on an H100, counted as `launches.py` counts ours.

`python benchmarks/speed/launches_peers.py rejax --python VENV/bin/python [ENV]`. The peer's whole
`train` is compiled in a process of its own environment, which has jax of our version. The largest
loop is the one over its iterations. PureJaxRL is no package: `--source` names a clone of its
repository. Its network has two layers of 64, and so has Rejax's here.

Both need XLA's CUDA plugin on PYTHONPATH, and JAX_PLATFORMS=cpu (docs/speed.md).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
ITERATIONS = 4  # of the compiled run; one is counted


def rejax_train(case: Any, source: str | None) -> Callable[[Any], Any]:
    """Rejax's run, without evaluation."""
    del source
    import worker_rejax

    algorithm = worker_rejax.create(case)
    return lambda key: algorithm.train(key)[0]


def purejaxrl_train(case: Any, source: str | None) -> Callable[[Any], Any]:
    """PureJaxRL's run. Its wrappers import brax and navix; gymnax' tasks never use the latter."""
    if source is None:
        raise SystemExit("PureJaxRL is no package: name a clone of its repository by --source.")
    sys.path[:0] = [source, str(Path(source) / "purejaxrl"), str(HERE.parent / "parity_peers")]
    sys.modules.setdefault("navix", ModuleType("navix"))
    from purejaxrl.ppo import make_train  # pyright: ignore[reportMissingImports]
    from purejaxrl_peer import settings  # pyright: ignore[reportMissingImports]

    train = make_train(settings({**vars(case), "total_env_steps": case.env_steps}))
    return lambda key: train(key)["runner_state"]


PEERS = {"rejax": rejax_train, "purejaxrl": purejaxrl_train}


def compile_peer(given: dict[str, Any]) -> None:
    """Compile a peer's run for the described GPU; XLA writes it into a folder."""
    import jax
    from cases import Case
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    case = Case(**given["case"])
    train = PEERS[given["peer"]](case, given["source"])
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=given["target"], topology="1x1x1"
    )
    place = SingleDeviceSharding(topology.devices[0])
    key = jax.eval_shape(lambda: jax.random.PRNGKey(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=place)
    jax.default_backend = lambda: "gpu"
    options = {**given["options"], "xla_dump_to": given["folder"]}
    jax.jit(train).lower(key).compile(compiler_options=options)


def census(given: dict[str, Any], python: str) -> dict[str, Any]:
    """Launches and bytes of one iteration of a peer."""
    import launches

    from ppo_jax.kernels import compiler

    with tempfile.TemporaryDirectory() as folder:
        given |= {"folder": folder, "target": launches.TARGET.read_text("utf-8")}
        given |= {"options": compiler.GRAPHS}
        command = [python, __file__, "--compile"]
        subprocess.run(command, input=json.dumps(given), text=True, check=True)
        program = launches.read_dump(Path(folder))
    loop = max(loops(program.thunks), key=lambda one: launches.hlo.traffic(*body(program, one)))
    found = launches.count(program, loop.sections["body"])
    return {
        "peer": given["peer"],
        **{name: given["case"][name] for name in ("env", "num_envs", "normalize_observations")},
        "launches": found.launches,
        "gigabytes": launches.hlo.traffic(*body(program, loop)) / 1e9,
        "is_one_graph": launches.is_one_graph(loop.sections["body"], False),
        "unknown_lengths": len(found.unknown_loops),
        "iterations": program.find(loop).trip_count,
    }


def loops(thunks: list[Any]) -> list[Any]:
    """The outermost loops."""
    found = []
    for thunk in thunks:
        inner = [one for part in thunk.sections.values() for one in part]
        found += [thunk] if thunk.kind == "kWhile" else loops(inner)
    return found


def body(program: Any, loop: Any) -> tuple[Any, str]:
    """The module, and the computation that a loop repeats."""
    import launches

    return program.module, launches.body_of(program, loop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("env", nargs="?", default="CartPole-v1")
    parser.add_argument("--python", required=True, help="interpreter of the peer's environment")
    parser.add_argument("--source", help="a clone of the peer's repository")
    parser.add_argument("--num-envs", type=int, default=2048)
    parser.add_argument("--normalize-observations", action="store_true")
    arguments = parser.parse_args()
    case = {
        **{"name": "census", "title": "", "env": arguments.env, "num_envs": arguments.num_envs},
        "env_steps": ITERATIONS * arguments.num_envs * 128,
        "normalize_observations": arguments.normalize_observations,
    }
    given = {"peer": arguments.peer, "source": arguments.source, "case": case}
    print(json.dumps(census(given, arguments.python)))


if __name__ == "__main__":
    if sys.argv[1:] == ["--compile"]:
        compile_peer(json.load(sys.stdin))
    else:
        main()
