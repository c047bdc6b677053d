"""The speed on a GPU: `python benchmarks/speed/gpu.py`, or all of it by `scripts/gpu_hour.sh`.

It compares with Rejax on the same GPU in the same run, each trainer in its own process, with
alternating calls. `gpu_cases.py` is that process, and lists the cases: environments of one agent,
many agents, normalised observations, a convolution, TRPO. Ours runs in float32 and in TF32, which
is what Rejax's products are. CUDA graphs are used as a run asks for them, as XLA makes them, and
not at all. The shares of the GPU's limits use ceilings measured in the same run. The result is
written after each case; a case that does not end in time is marked, and the rest continues.

Rejax is installed as in `compare.py`, with JAX's CUDA plugin. Without a network, `--wheels FOLDER`
takes wheels of Rejax and its requirements besides JAX; otherwise Rejax is left out. `--small` runs
everything at small size on a CPU. See docs/speed.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cases import Case
from gpu_cases import (
    DEFAULTS,
    LOOPS,
    NONE,
    OURS,
    OWN,
    PEER,
    VARIANTS,
    Variant,
    against,
    gpu_cases,
    roofline,
)
from machine import ROOT, begin, default_out, store

from ppo_jax.kernels.compiler import GRAPHS as OPTIONS

HERE = Path(__file__).resolve().parent
COMPILE_SECONDS = 150.0  # a program that compiles for longer is abandoned
RUN_SECONDS = 200.0  # a call that takes longer hangs
ROUNDS = 5
CASE_SECONDS = 25.0  # time of calls in a case, all trainers together

# XLA's flags for the kinds of CUDA graphs.
CONTENTS = str(OPTIONS["xla_gpu_enable_command_buffer"])
GRAPHS = {
    "": "",
    LOOPS: " ".join(f"--{name}={value}" for name, value in OPTIONS.items()),
    OWN: f"--xla_gpu_enable_command_buffer={CONTENTS.removesuffix(',WHILE')}",
    NONE: "--xla_gpu_enable_command_buffer=",
}


class Late(RuntimeError):
    """A process did not answer in time, or ended."""


class Process:
    """A trainer that answers commands in lines of JSON, within a time (worker.py)."""

    def __init__(self, variant: Variant, case: str, setup: Setup) -> None:
        trainer = variant.trainer
        script, more = HERE / "gpu_cases.py", ["--precision", variant.precision]
        if case == "ceilings":
            script, more = HERE / "gpu.py", []
        environment = dict(os.environ)
        environment |= {
            "PYTHONPATH": setup.paths[trainer],
            "JAX_ENABLE_COMPILATION_CACHE": "false",
            "JAX_TRACEBACK_FILTERING": "off",  # the last line of the log is the error then
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {GRAPHS[variant.graphs]}".strip(),
        }
        self.name = variant.label
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed with the process
        self._process = subprocess.Popen(
            [
                *(setup.pythons[trainer], str(script), "--worker", trainer, "--case", case),
                *(*more, *(["--small"] if setup.is_small else [])),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )
        self._buffer = b""

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `hear` reports the reason
            self._process.stdin.write(command.encode() + b"\n")
            self._process.stdin.flush()

    def hear(self, seconds: float) -> dict[str, Any]:
        """The next answer.

        Raises:
            Late: none came within `seconds`, or the process has ended.
        """
        assert self._process.stdout is not None
        if seconds <= 0:
            raise Late("the time was up")
        until = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            left = until - time.monotonic()
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, left))
            if not ready:
                raise Late(f"no answer within {seconds:.0f} s")
            piece = os.read(self._process.stdout.fileno(), 65536)
            if not piece:
                raise Late(f"ended: {self._last_words()}")
            self._buffer += piece
        line, self._buffer = self._buffer.split(b"\n", 1)
        answer = json.loads(line)
        if "error" in answer:
            raise Late(str(answer["error"]))
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _last_words(self) -> str:
        self._process.wait()
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        return lines[-1][:300] if lines else f"exit code {self._process.returncode}"


class Setup:
    """Interpreters and import paths of the trainers, and why one is missing."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.is_small: bool = arguments.small
        own_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self.pythons: dict[str, str] = {OURS: sys.executable}
        self.paths: dict[str, str] = {OURS: own_path}
        self.missing: dict[str, str] = {}
        try:
            self.pythons[PEER], self.paths[PEER] = peer_python(arguments)
        except (OSError, subprocess.SubprocessError, ImportError) as error:
            code = getattr(error, "returncode", None)  # pip's words name folders of this machine
            reason = type(error).__name__ if code is None else f"exit code {code} of pip"
            self.missing[PEER] = (
                f"Rejax could not be installed ({reason}): give --wheels FOLDER, or --peer-python."
            )


def peer_python(arguments: argparse.Namespace) -> tuple[str, str]:
    """Rejax's interpreter and PYTHONPATH."""
    if arguments.peer_python:
        return arguments.peer_python, ""
    folder = Path(arguments.venvs).expanduser()
    if arguments.wheels:  # beside this Python's own jax
        site = folder / "rejax-wheels"
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        wheels = sorted(str(path) for path in Path(arguments.wheels).glob("*.whl"))
        command = [*install, "--upgrade", "--target", str(site), *wheels]
        subprocess.run(command, check=True, timeout=120)
        return sys.executable, str(site)
    import jax
    from peers import PEERS, ensure_venv

    python = ensure_venv(PEERS[PEER], folder / "gpu", sys.executable)
    if not arguments.small:
        wanted = f"jax[cuda{cuda_version()}]=={jax.__version__}"
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", wanted], check=True, timeout=180
        )
    return str(python), ""


def cuda_version() -> int:
    """The CUDA that this Python's jax was installed with."""
    from importlib.util import find_spec

    return 12 if find_spec("jax_cuda12_plugin") else 13


def run_case(name: str, case: Case, setup: Setup, until: float) -> dict[str, Any]:
    """Start all variants, compile one after the other, then time them in turns.

    They do not compile at once, because XLA times kernels on the GPU while it compiles.
    """
    found: dict[str, Any] = {"settings": vars(case), "trainers": {}}
    processes: dict[str, Process] = {}
    for variant in VARIANTS.get(name, DEFAULTS):
        if variant.trainer in setup.missing:
            found["trainers"][variant.trainer] = {"error": setup.missing[variant.trainer]}
            continue
        process = Process(variant, name, setup)
        processes[process.name] = process
    try:
        for label, process in list(processes.items()):
            _try(found, processes, label, lambda process=process: _compiled(process, until))
        limit = min(until, time.monotonic() + CASE_SECONDS)
        for _ in range(ROUNDS if name != "curve" else 1):
            for label, process in list(processes.items()):
                left = (until if name == "curve" else limit) - time.monotonic()
                if left > 0:
                    _try(found, processes, label, lambda process=process: _timed(process, until))
    finally:
        for process in processes.values():
            process.close()
    for trainer in found["trainers"].values():
        if trainer.get("runs"):
            speeds = [run["env_steps"] / run["wall_seconds"] for run in trainer["runs"]]
            trainer["env_steps_per_second"] = statistics.median(speeds)
            trainer["env_steps_per_second_range"] = [min(speeds), max(speeds)]
    return found


def _compiled(process: Process, until: float) -> dict[str, Any]:
    limit = min(until, time.monotonic() + COMPILE_SECONDS)
    process.tell("compile")
    about = process.hear(limit - time.monotonic())
    return {**about, "compile": process.hear(limit - time.monotonic()), "runs": []}


def _timed(process: Process, until: float) -> dict[str, Any]:
    process.tell("run")
    limit = min(until, time.monotonic() + RUN_SECONDS)
    return {"runs": [process.hear(limit - time.monotonic())]}


def _try(found: dict[str, Any], processes: dict[str, Process], label: str, ask: Any) -> None:
    """Add what a process answers; one that fails is closed and its reason kept."""
    trainer = found["trainers"].setdefault(label, {})
    try:
        answer = ask()
        runs = trainer.get("runs", []) + answer.pop("runs")
        trainer |= {**answer, "runs": runs}
    except Late as error:
        trainer["error"] = str(error)
        processes.pop(label).close()


def measure_ceilings(is_small: bool) -> dict[str, Any]:
    """Operations a second of a large float32 product at jax's default precision and at the
    highest, and bytes a second of a copy, counting reads and writes."""
    import jax
    import jax.numpy as jnp

    size, count = (512, 2**22) if is_small else (8192, 2**28)

    def best(function: Any, *given: Any) -> float:
        jax.block_until_ready(function(*given))
        taken = []
        for _ in range(5):
            started = time.perf_counter()
            jax.block_until_ready([function(*given) for _ in range(4)])
            taken.append((time.perf_counter() - started) / 4)
        return min(taken)

    a = jax.random.normal(jax.random.key(0), (size, size))
    products = {
        name: jax.jit(lambda a, b, precision=precision: jnp.dot(a, b, precision=precision))
        for name, precision in (("", None), ("highest_", jax.lax.Precision.HIGHEST))
    }
    found: dict[str, Any] = {
        f"matmul_{name}flops_per_second": 2 * size**3 / best(product, a, a)
        for name, product in products.items()
    }
    x = jnp.zeros(count)
    found["copy_bytes_per_second"] = 8 * count / best(jax.jit(lambda x: x + 1.0), x)
    device = jax.local_devices()[0]
    found |= {"device": device.device_kind, "platform": device.platform, "jax": jax.__version__}
    return found


def ask_ceilings(setup: Setup, until: float) -> dict[str, Any]:
    process = Process(Variant(OURS), "ceilings", setup)
    try:
        return process.hear(min(90.0, until - time.monotonic()))
    finally:
        process.close()


def driver() -> str | None:
    """Name, driver and memory of the GPUs, from nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def main() -> None:
    arguments = parse()
    if arguments.worker:
        print(json.dumps(measure_ceilings(arguments.small)), flush=True)
        return
    started = time.monotonic()
    until = started + arguments.seconds
    setup = Setup(arguments)
    command = " ".join(["python", "benchmarks/speed/gpu.py", *sys.argv[1:]])
    record = begin("speed on one GPU, trainers in turns", command, None)
    record |= {"gpu": driver(), "left_out": dict(setup.missing), "cases": {}}
    out = Path(arguments.out) if arguments.out else None

    def keep() -> None:
        record["seconds"] = round(time.monotonic() - started, 1)
        if out is not None:
            store(record, out)

    try:
        record["ceilings"] = ask_ceilings(setup, until)
    except Late as error:
        raise SystemExit(f"ppo_jax does not run here: {error}") from None
    if record["ceilings"]["platform"] == "cpu" and not arguments.small:
        raise SystemExit("jax finds no GPU here: --small tries this script on a CPU.")
    if out is None and not arguments.small:
        out = default_out(record["ceilings"]["device"], "gpu")
    keep()
    wanted = gpu_cases(arguments.small)
    if unknown := set(arguments.only or ()) - set(wanted):
        raise SystemExit(f"there is no case {', '.join(sorted(unknown))}: {', '.join(wanted)}")
    for name in arguments.only or wanted:
        case = wanted[name]
        if until - time.monotonic() < 20:
            record["cases"][name] = {"error": "not started: the time was up"}
            continue
        found = record["cases"][name] = run_case(name, case, setup, until)
        found["against_rejax"] = against(found)
        found["roofline"] = {
            label: roofline(case, trainer["env_steps_per_second"], record["ceilings"])
            for label, trainer in found["trainers"].items()
            if "env_steps_per_second" in trainer
        }
        keep()
        print("\n".join(told(case, found)), flush=True)
    keep()
    print(json.dumps(record, indent=1) if out is None else out)
    if not any("env_steps_per_second" in trainer for trainer in own_trainers(record)):
        raise SystemExit("no case was timed: its errors are above; if the time was up, give more.")


def own_trainers(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Our rows of all cases."""
    for case in record["cases"].values():
        for label, trainer in case.get("trainers", {}).items():
            if label.startswith(OURS):
                yield trainer


def told(case: Case, found: dict[str, Any]) -> list[str]:
    """A case as lines."""
    rows = [case.title]
    for label, trainer in found["trainers"].items():
        if "env_steps_per_second" not in trainer:
            rows.append(f"  {label:<28} {trainer.get('error', 'no timed call: the time was up')}")
            continue
        share = found["roofline"][label]
        times = trainer["compile"]
        rows.append(
            f"  {label:<28} {trainer['env_steps_per_second']:>14,.0f} steps/s"
            f"   {100 * share['fraction_of_flops']:.1f}% of products,"
            f" {100 * share['fraction_of_bytes']:.1f}% of memory"
            f"   run {trainer['runs'][-1]['wall_seconds']:.2f} s,"
            f" compile {times['trace_seconds'] + times['compile_seconds']:.1f} s"
        )
    words = {"default": "times Rejax, both by default", "best": "times Rejax, each at its best"}
    rows += [f"  {ratio:.2f} {words[name]}" for name, ratio in found["against_rejax"].items()]
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="small sizes, on any device")
    parser.add_argument("--seconds", type=float, default=470.0, help="of the whole script")
    parser.add_argument("--wheels", help="folder with wheels of Rejax and its requirements")
    parser.add_argument("--peer-python", help="an interpreter that has Rejax")
    parser.add_argument(
        "--venvs", default="~/.cache/ppo_jax_bench", help="folder of the installed Rejax"
    )
    parser.add_argument("--out", help="result file (default: benchmarks/results/gpu_...json)")
    parser.add_argument("--worker", choices=(OURS,), help=argparse.SUPPRESS)  # its ceilings
    parser.add_argument("--case", choices=("ceilings",), help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", metavar="CASE", help="some of the cases")
    return parser.parse_args()


if __name__ == "__main__":
    main()
