"""Damages to files of sweeps and reproductions: refused, reported or harmless, never silent.

Each damage hits a file of a sweep or reproduction that was killed or is finished, which then goes
on. All of it happens in one process whose programs are compiled once.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from packs import Pack, numbers, words_of

STEPS = 2560
# Files that nothing reads back.
_WRITTEN_ONLY = ("manifest.json", "summary.json", "report.md", "README.md", "best.toml", "run.lock")
_REPORTS = ("damaged", "Falling back", "set-aside", "another run", "begins anew")

Damage = Callable[[Path, Path, random.Random], None]  # of a file, and the same one of another


class Killed(BaseException):
    """An end that no code catches."""


def flip(path: Path, other: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    position = chance.randrange(8 * len(data))
    data[position // 8] ^= 1 << position % 8
    path.write_bytes(data)


def truncate(path: Path, other: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def lengthen(path: Path, other: Path, chance: random.Random) -> None:
    with path.open("ab") as file:
        file.write(chance.randbytes(chance.randrange(1, 500)))


def zero_a_block(path: Path, other: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start = chance.randrange(len(data))
    length = min(chance.randrange(1, 513), len(data) - start)
    data[start : start + length] = bytes(255 * (byte == 0) for byte in data[start : start + length])
    path.write_bytes(data)


def edit_a_digit(path: Path, other: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    places = [i for i, byte in enumerate(data) if 48 <= byte <= 57]
    place = chance.choice(places or range(len(data)))
    data[place] = chance.choice([byte for byte in range(48, 58) if byte != data[place]])
    path.write_bytes(data)


def delete(path: Path, other: Path, chance: random.Random) -> None:
    path.unlink()


def take_file_of_another(path: Path, other: Path, chance: random.Random) -> None:
    if other.is_file() and other.read_bytes() != path.read_bytes():
        shutil.copy(other, path)
    else:
        path.unlink()


def take_folder_of_another(path: Path, other: Path, chance: random.Random) -> None:
    if (path.parent / "sweep.json").is_file():  # all of another sweep is that sweep, undamaged
        take_file_of_another(path, other, chance)
    elif other.is_file():
        shutil.copytree(other.parent, path.parent, dirs_exist_ok=True)
    else:
        path.unlink()


COMMON: tuple[Damage, ...] = (flip, truncate, edit_a_digit)
OTHERS: tuple[Damage, ...] = (
    *(lengthen, zero_a_block, delete, take_file_of_another, take_folder_of_another),
)


def command(words: list[str]) -> tuple[int, str]:
    """Run a command in this process: exit code, and all that it printed."""
    from ppo_jax.cli import main

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = main.main(words)
    return code, out.getvalue()


def keep_programs() -> None:
    """Compile each program once; make no pictures; let a chunk be one iteration."""
    from ppo_jax.apps.reproduce import training
    from ppo_jax.apps.sweep import engine
    from ppo_jax.apps.sweep.results import pictures
    from ppo_jax.distributed import population
    from ppo_jax.runtime import chunk_loop
    from ppo_jax.runtime.startup import Beginning

    engines: dict[Any, Any] = {}
    begun: dict[Any, Any] = {}
    build, begin = engine.build, training.begin
    compile_chunk = training.compile_chunk

    def build_once(config: Any, hyper: Any, members: int, options: Any, what: str) -> Any:
        if (config, members) not in engines:
            engines[config, members] = build(config, hyper, members, options, what)
        return engines[config, members]

    def begin_once(config: Any, hyper: Any, seeds: Any, layout: Any, use: Any) -> Any:
        if (config, layout) not in begun:
            first = begin(config, hyper, seeds, layout, use)
            chunk = compile_chunk(config, layout, first.state, first.chunk, use)
            begun[config, layout] = chunk, first.start
        chunk, start = begun[config, layout]
        state = start(hyper, population.member_keys(seeds, layout))
        return Beginning(population.place(state, layout), chunk, start)

    engine.build = build_once
    engine.seconds_per_iteration = lambda *_: 0.1
    pictures.draw_all = lambda *_: []
    training.begin = begin_once
    training.compile_chunk = lambda config, layout, state, program, use: program
    chunk_loop.CHUNK_SECONDS = training.CHUNK_SECONDS = 1e-9


def begin_and_die(words: list[str], saves: int) -> None:
    """A command that dies when it is about to save again after some checkpoints."""
    from ppo_jax.storage import resume_point

    inner, count = resume_point.save_pack, [0]

    def dying(*given: Any) -> None:
        count[0] += 1
        if count[0] > saves:
            raise Killed
        inner(*given)

    resume_point.save_pack = dying
    try:
        with contextlib.suppress(Killed):
            command(words)
    finally:
        resume_point.save_pack = inner


def files_of(folder: Path) -> list[Path]:
    """Files that are read when the work goes on, relative to its folder."""
    return [
        path.relative_to(folder)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.stat().st_size
        and (path.suffix in (".json", ".jsonl", ".safetensors"))
        and (path.name not in _WRITTEN_ONLY or path.parent.name.startswith("step_"))
    ]


def prepare(pack: Pack, place: Path) -> tuple[dict[str, Path], bytes, list[str]]:
    """Copies of a killed, a finished and another piece of work; the numbers at the end."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    out, kept = place / "a", {}
    other = ("--seed", "9") if pack.is_sweep else ("--seeds", "1")
    begin_and_die([*words_of(pack, out, STEPS, "training"), *other], 4)
    kept["another"] = out.rename(place / "another")
    begin_and_die(words_of(pack, out, STEPS, "training"), 4)
    kept["killed"] = Path(shutil.copytree(out, place / "killed"))
    words = words_of(pack, out, STEPS, "training")
    code, told = command(words)
    assert code == 0, told
    kept["finished"] = Path(shutil.copytree(out, place / "finished"))
    return kept, numbers(out), words_of(pack, out, STEPS, "training")


def outcome(pack: Pack, out: Path, words: list[str], expected: bytes) -> str:
    """Go on after a damage and name the outcome."""
    try:
        code, told = command(words)
    except Exception as error:
        return f"error: {type(error).__name__}"
    if code == 2 and told.count('{"error"') == 1 and "Traceback" not in told:
        return "refused"
    if code != 0:
        return f"error: exit code {code}: {told[-200:]}"
    is_told = any(word in told for word in _REPORTS)
    if numbers(out) == expected:
        return "reported" if is_told else "harmless"
    # Cells without a result train again, in a program of another width, which rounds otherwise.
    is_again = not pack.is_sweep and widths(out) != widths(out.with_name("finished"))
    return "trained again at another width" if is_again else "silent, other numbers"


def widths(out: Path) -> list[Any]:
    """The seeds of each batch of a reproduction's results, and the runs of its program."""
    contents = [json.loads(path.read_text("utf-8")) for path in sorted(out.glob("*__*.json"))]
    return [
        (batch["seeds"], batch["runs_side_by_side"])
        for content in contents
        for batch in content["batches"]
    ]


def results(
    folder: Path, number: int, seed: int, chosen: tuple[Pack, ...]
) -> Iterator[dict[str, Any]]:
    """`number` damages in all, the same number to every kind of work."""
    chance = random.Random(seed)
    counts: dict[str, dict[str, int]] = {}
    strange: list[dict[str, str]] = []
    harmless: dict[str, int] = {}
    keep_programs()
    each = -(-number // len(chosen))
    for pack in chosen:
        kept, expected, words = prepare(pack, folder / pack.name)
        out = folder / pack.name / "a"
        for i in range(each):
            was = chance.choice(("killed", "finished"))
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(kept[was], out)
            path = chance.choice(files_of(out))
            kind = chance.choice(OTHERS if i % 3 == 0 else COMMON)
            kind(out / path, twin(kept["another"], path), chance)
            found = outcome(pack, out, words, expected)
            count = counts.setdefault(pack.name, {})
            count[found.partition(":")[0]] = count.get(found.partition(":")[0], 0) + 1
            if found == "harmless":
                name = f"{kind.__name__} {path.name} of {was}"
                harmless[name] = harmless.get(name, 0) + 1
            if found.startswith(("silent", "error")):
                entry = {"work": f"{was} {pack.name}", "file": str(path), "damage": kind.__name__}
                strange.append({**entry, "outcome": found})
        names = sorted({name for count in counts.values() for name in count})
        totals = {name: sum(count.get(name, 0) for count in counts.values()) for name in names}
        damages = sum(totals.values())
        yield {
            **{"damages": damages, **totals, "by_work": counts},
            **{"harmless_by_file": harmless, "not_as_wanted": strange},
        }


def twin(another: Path, path: Path) -> Path:
    """The file of another work that stands where `path` stands; folders may have other names."""
    pattern = "/".join(
        "*" if part.startswith(("step_", "CartPole-v1-")) else part for part in path.parts
    )
    found = sorted(another.glob(pattern))
    return found[-1] if found else another / path


def in_process(
    folder: Path, number: int, seed: int, chosen: tuple[Pack, ...]
) -> Iterator[dict[str, Any]]:
    """`results` in a forked process: JAX must not have started in a process that forks again."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            with os.fdopen(writer, "w") as file:
                for found in results(folder / "pack_damages", number, seed, chosen):
                    file.write(json.dumps(found) + "\n")
                    file.flush()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as file:
        yield from map(json.loads, file)
    if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise RuntimeError(f"the damages ended with {code}")
