"""Mutated files and random command lines: each ends in a result, or in a sentence and exit code 2.

Everything runs in this process, up to the point where a program would be compiled. A traceback is
an exception that is no sentence, or exit code 1; a hang is a call of more than five seconds of the
processor, which other work does not lengthen, or of a minute by the clock.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from fuzz_inputs import ARRAYS, make_inputs, make_run, write_policy
from mutations import NASTY, mutated

from ppo_jax.apps.diagnose import bench, doctor, explain
from ppo_jax.apps.export.load_policy import load_policy
from ppo_jax.apps.report import run_data, run_page, write
from ppo_jax.apps.report.html import charts
from ppo_jax.apps.report.html.markup import Html
from ppo_jax.apps.reproduce import running
from ppo_jax.apps.run import resume, runner
from ppo_jax.apps.sweep import pack, plan
from ppo_jax.apps.sweep.results import table
from ppo_jax.cli import main
from ppo_jax.config import layers
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.runtime.text import summary_lines
from ppo_jax.storage import checkpoint, checkpoint_files, checkpoint_list, jsonl, lock
from ppo_jax.storage.sealed import checksum

HANG_SECONDS = 5.0  # of the processor
WAIT_SECONDS = 60.0  # by the clock


class Reached(BaseException):
    """All checks passed: the next step would compile a program."""


class Hang(BaseException):
    """A call took too long."""


def reached(*_: Any, **__: Any) -> Any:
    raise Reached


def prepared(*given: Any, **named: Any) -> Any:
    """Prepare a run up to the choice of its layout."""
    prepare(*given, **named)
    raise Reached


prepare = runner.prepare


# --- doors ----------------------------------------------------------------------------------------


def command(words: str) -> Callable[[], None]:
    """A door: a command line, which must end in exit code 0 or 2."""

    def run() -> None:
        code, output = spoken(words.split())
        if "\x1b" in output:
            raise RuntimeError(f"{words} prints a command of the terminal")
        if code not in (0, 2):
            raise RuntimeError(f"exit code {code} of {words}: {output.strip()[:300]}")
        if code == 2:
            raise InputError(output)

    return run


def spoken(words: Sequence[str]) -> tuple[int, str]:
    """The exit code of a command in this process, and all that it printed."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        return main.main(list(words)), output.getvalue()


def page_of_runs() -> None:
    data = {"runs": [run_data.read(Path("run"), "run")], "improvements": [], "comparisons": []}
    data["defaults"] = {"config": vars(Config()), "hyper": vars(Hyper())}
    run_page.page(write.complete({"kind": "runs", **data}), {})


def checkpoints() -> None:
    newest, _ = checkpoint_list.latest(Path("run"))
    checkpoint_list.best(Path("run"))
    if newest is not None:
        checkpoint.load(newest, ARRAYS)


def restored() -> None:
    """Go back to the checkpoint, as a resumed run does; its arrays are those of no run."""
    saved = resume.read_run(Path("run"), {})
    with mock.patch.object(resume, "load_checkpoint", return_value=(None, {})):
        point = resume.find_point(Path("run"), saved)
        resume.restore_run(Path("run"), saved, point, {})


def summary() -> None:
    found = resume.finished_summary(Path("run"), 1280)
    if found is not None:
        summary_lines(found)


def sweep_tables() -> None:
    table.read_columns(table.pack_folders(Path("swept")))
    if pack.is_finished(Path("swept/packs/000-000")):
        pack.read_result(Path("swept/packs/000-000"))


def lock_file() -> None:
    found = lock.holder(Path("run"))
    if found is not None:
        lock._sentence(Path("run/run.lock"), found)
    lock.refuse_if_held(Path("run"))


def policy() -> None:
    write_policy(Path("policy"))
    load_policy("policy")(np.zeros(3, np.float32))


def logs() -> None:
    jsonl.rewind_jsonl(Path("run/metrics.jsonl"), 640)
    jsonl.read_jsonl(Path("run/metrics.jsonl"))


READERS = ("runs . --all", "diff run other", "compare run other", "watch run --out new.gif")
_TRAINED = ("eval run", "resume run", "train --config run/config.json", "export run --out new")
RUN_COMMANDS = (*READERS, *_TRAINED)
DOORS: dict[str, tuple[Callable[[], Any], ...]] = {
    "run/config.json": (*map(command, RUN_COMMANDS), page_of_runs, restored),
    "run/manifest.json": (
        page_of_runs,
        *map(command, READERS[:1]),
        lambda: resume.record_resume(Path("run"), resume.read_run(Path("run"), {}), {}, 0),
    ),
    "run/summary.json": (page_of_runs, summary, *map(command, READERS)),
    "run/metrics.jsonl": (page_of_runs, logs, restored, *map(command, READERS[:2])),
    "run/timing.jsonl": (page_of_runs, *map(command, READERS[:2])),
    "run/run.lock": (lock_file,),
    "run/checkpoints/step_000000001280/manifest.json": (
        *(restored, restored, checkpoints, command("eval run")),
    ),
    "preset.toml": (
        command("train CartPole-v1 --preset preset.toml"),
        command("sweep CartPole-v1 gamma=0.9,0.99 --preset preset.toml"),
    ),
    "settings.toml": (command("train CartPole-v1 --config settings.toml"),),
    "settings.yaml": (
        command("train CartPole-v1 --config settings.yaml"),
        command("train CartPole-v1 --config settings.yaml --print-config"),
    ),
    "settings.json": (command("train CartPole-v1 --config settings.json"),),
    "suite.toml": (
        command("reproduce suite.toml"),
        command("report suite.toml --results results --out page.html --force"),
    ),
    "results/CartPole-v1__clip.json": (
        command("report suite.toml --results results --out page.html --force"),
    ),
    "swept/sweep.json": (command("sweep swept"), command("sweep swept --trust")),
    "swept/plan.json": (lambda: plan.read_plan(Path("swept")),),
    "swept/packs/000-000/pack.json": (sweep_tables,),
    "swept/packs/000-000/result.json": (sweep_tables,),
    "swept/packs/000-000/metrics.jsonl": (sweep_tables,),
    "policy/description.json": (policy,),
    "policy/policy.npz": (lambda: load_policy("policy")(np.zeros(3, np.float32)),),
}


def resealed(name: str, data: bytes) -> bytes:
    """The file with hashes that fit its content, as a careful forger makes it."""
    try:
        content = json.loads(data)
        if "checkpoints" in name:
            del content["manifest_sha256"]
            return checkpoint_files.seal(content)
        if "sha256" in content:  # a stored result, or a file of a sweep
            content["sha256"] = checksum(content)
            indent = None if "results" in name else 2
            return (json.dumps(content, indent=indent) + "\n").encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return data


def changed(before: bytes, path: Path) -> str:
    """The first bytes that differ."""
    after = path.read_bytes()
    pairs = zip(before, after, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(before), len(after)))
    return repr(after[max(0, place - 30) : place + 60])


@contextlib.contextmanager
def nothing_compiles(draws: bool) -> Iterator[None]:
    """Replace what trains, compiles or draws by stand-ins."""
    stand_ins = [
        *(("plan_all", plan), ("one_suite", running), ("report", bench), ("surrogate", explain)),
        ("report", doctor),
    ]
    with contextlib.ExitStack() as stack:
        for name, module in stand_ins:
            stack.enter_context(mock.patch.object(module, name, reached))
        stack.enter_context(mock.patch.object(runner, "prepare", prepared))
        if not draws:
            stack.enter_context(mock.patch.object(charts, "lines", return_value=Html("")))
        yield


class Counts(NamedTuple):
    """Calls by their outcome, and examples of what went wrong."""

    counts: dict[str, int]
    examples: list[str]


def tried(call: Callable[[], Any], what: str, found: Counts) -> None:
    """Call it, and count a result, a sentence, a traceback or a hang."""

    def late(*_: Any) -> None:
        raise Hang

    timers = {
        signal.SIGPROF: (signal.ITIMER_PROF, HANG_SECONDS),
        signal.SIGALRM: (signal.ITIMER_REAL, WAIT_SECONDS),
    }
    before = {number: signal.signal(number, late) for number in timers}
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    try:
        call()
        outcome = "results"
    except InputError:
        outcome = "sentences"
    except Reached:
        outcome = "results"
    except Hang:
        outcome = "hangs"
        found.examples.append(f"hang: {what}")
    except Exception as error:
        outcome = "tracebacks"
        found.examples.append(f"{type(error).__name__}: {str(error)[:400]}: {what}")
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])
    found.counts[outcome] = found.counts.get(outcome, 0) + 1


def mutated_files(root: Path, number: int, seed: int, draws: float = 0.02) -> Counts:
    """Mutate `number` files, one at a time, and give each to its doors."""
    chance = random.Random(seed)
    found = Counts({}, [])
    with contextlib.chdir(root):
        entries = sorted(Path("run").iterdir())
        for i in range(number):
            name = chance.choice(list(DOORS))
            path = Path(name)
            keep = path.read_bytes()
            data = mutated(keep, chance)
            path.write_bytes(resealed(name, data) if chance.random() < 0.5 else data)
            doors = DOORS[name]
            with nothing_compiles(chance.random() < draws):
                door = chance.choice(doors)
                tried(door, f"file {i} of seed {seed}, {name}: {changed(keep, path)}", found)
            path.write_bytes(keep)
            os.utime(path, (0, 0))  # a lock that was just written would hold
            shutil.rmtree("new", ignore_errors=True)
            if sorted(Path("run").iterdir()) != entries:  # a lock is gone, a log is set aside
                shutil.rmtree("run")
                make_run(Path("run"))
    return found


# --- command lines --------------------------------------------------------------------------------

WORDS = (
    *("CartPole-v1", "run", "other", "swept", "nowhere", "preset.toml", "suite.toml", "results"),
    *("policy", "settings.yaml", "brax/ant", "brax/aunt", "gymnasium/CartPole-v1", "memory/x"),
    *("", "-", "--", "--=", "-1", "0", "1", "1e6", "1e400", "nan", "inf", "-inf", "a:b", "1:2"),
    *("64,64", "1,,2", "µ", "n" * 300, "9" * 400, "\ud800", "\udcff", "\0", "gamma=0.9,0.99"),
    *("learning_rate=1e-4..1e-2:log", "gamma=", "=", "x=1", "num_envs=8,16", "env.length=0.1..1:3"),
    *("gamma=1..0", "gamma=0..1:1000000", "os:abort", "probe:reward-lag", "clip", "true", "[1,2]"),
    *("1e-3:0:cosine", "a/b/c", ".", "/", "/dev/null", "auto", "none", "cpu", "tpe", "random"),
)


def command_lines(root: Path, number: int, seed: int) -> Counts:
    """Give `number` random command lines to the program."""
    chance = random.Random(seed)
    found = Counts({}, [])
    flags = {name: each.parser([]).names for name, each in main.COMMANDS.items()}
    quick = [name for name in main.COMMANDS if name not in ("envs", "presets")]
    with contextlib.chdir(root), nothing_compiles(draws=False):
        for _ in range(number):
            words = random_words(flags, quick, chance)
            tried(command_of(words), repr([word[:60] for word in words]), found)
            for made in ("report.html", "explain", "runs"):
                remove(Path(made))
    return found


def command_of(words: Sequence[str]) -> Callable[[], None]:
    def run() -> None:
        code, output = spoken(words)
        if code not in (0, 2):
            raise RuntimeError(f"exit code {code}: {output.strip()[:300]}")
        if code == 2 and ("Traceback" in output) != ("--debug" in words):
            raise RuntimeError(f"a traceback: {output.strip()[:300]}")
        if code == 2:
            raise InputError(output)

    return run


def random_words(
    flags: dict[str, list[str]], commands: Sequence[str], chance: random.Random
) -> list[str]:
    name = chance.choice(commands)
    words = [chance.choice(WORDS[:8]) for _ in range(chance.choice((0, 1, 1, 1, 2)))]
    for _ in range(chance.randrange(5)):
        kind = chance.random()
        if kind < 0.35:
            flag = chance.choice(flags[name])
            words += [flag, plausible(flag, chance)]
        elif kind < 0.6:
            words += [chance.choice(flags[name]), chance.choice((*WORDS, *NASTY[:28]))]
        elif kind < 0.75:
            words.append(f"{chance.choice(flags[name])}={chance.choice(WORDS)}")
        elif kind < 0.85:
            words += [f"--env.{chance.choice(WORDS)}", chance.choice(WORDS)]
        else:
            words.append(chance.choice((*WORDS, "--json", "--debug", "--help")))
    chance.shuffle(words) if chance.random() < 0.1 else None
    return words if chance.random() < 0.02 else [name, *words]


def plausible(flag: str, chance: random.Random) -> str:
    """A value that the flag may well take, so that more words pass the first checks."""
    spec = layers.FIELDS.get(flag.removeprefix("--").replace("-", "_"), (None, None))[1]
    choices = (spec.metadata.get("choices") if spec else None) or ()
    return chance.choice((*choices, *("1", "2", "8", "16", "0.5", "1e-3:0") * (not choices)))


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def results(folder: Path, files: int, lines: int, seed: int) -> dict[str, Any]:
    """Counts of both parts, with the slowest second of neither hidden."""
    root = folder / "fuzz"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    found: dict[str, Any] = {}
    with contextlib.chdir(root):
        make_inputs(Path())
    for name, count, part in (
        ("mutated_files", files, mutated_files),
        ("command_lines", lines, command_lines),
    ):
        begin = time.monotonic()
        counted = part(root, count, seed)
        found[name] = {
            "calls": count,
            **{kind: counted.counts.get(kind, 0) for kind in KINDS},
            "seconds": round(time.monotonic() - begin),
            "examples": counted.examples[:40],
        }
    return found


KINDS = ("results", "sentences", "tracebacks", "hangs")

if __name__ == "__main__":
    import sys
    import tempfile

    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    numbers = [int(word) for word in sys.argv[1:4]]
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(results(Path(name), *numbers), indent=1))
