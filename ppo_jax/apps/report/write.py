"""Writing runs or a suite as one HTML file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from ppo_jax.apps.report import animation, comparison, run_data, run_page
from ppo_jax.apps.report.html import parts
from ppo_jax.apps.reproduce import specs
from ppo_jax.config.errors import InputError, nearest
from ppo_jax.config.reading import as_path
from ppo_jax.config.trust import Trust
from ppo_jax.storage.files import to_json, write_atomic
from ppo_jax.storage.run_folder import is_run

FORMAT = 1  # version of the data in a page
MAX_BYTES = 3_000_000
MAX_ANIMATIONS = 6  # limit of a page; the first runs have one
_ANIMATION_BYTES = 1_200_000  # limit of all animations together


class Sources(NamedTuple):
    """The things to report: run folders, or the word for a suite."""

    folders: tuple[Path, ...]
    suite: str | None
    groups: tuple[tuple[int, ...], ...] = ()  # places of each group's folders


def report(
    sources: Path | str | Sequence[Path | str],
    out: Path | str | None = None,
    *,
    results: Path | str | None = None,
    quick: bool = False,
    force: bool = False,
    animate: bool = True,
    trust: Trust = False,
) -> dict[str, Any]:
    """Write runs, or the stored results of a suite, as one HTML file that needs nothing else.

    Args:
        sources: one or several run folders, those of one group with commas between them; or one
            suite: its name, its FILE.toml, or a folder of results of `ppo-jax reproduce`.
        out: the file; None for report.html in the folder of a single run, else in this folder.
        results: the folder of a suite's results; None for the newest in benchmarks/results.
        quick: report a suite's results of the smaller budget.
        force: replace an existing file.
        animate: play an episode of each run's typical seed, if it can be drawn.
        trust: True to load programs that a run names, or a list of them, for its animation. Without
            it a report loads none, not even those of this user's own runs.

    Returns:
        the JSON of `ppo-jax report --json`: out, bytes, kind, sources and notes.

    Raises:
        InputError: no such run or suite, files that are missing, damaged or contradict themselves,
            or a file that exists or cannot be written; then nothing is written.
    """
    words = _words(sources)
    wanted = recognise(words)
    place = place_of(wanted, None if out is None else as_path("out", out), force)
    folder = None if results is None else as_path("results", results)
    if wanted.suite is None and (folder is not None or quick):
        raise InputError("results and quick belong to suites: leave them out for runs.")
    notes: list[str] = []
    if wanted.suite is None:
        text = run_text(wanted, animate, notes, trust)
        kind = "runs"
    else:
        text = suite_text(wanted.suite, folder, quick)
        kind = "suite"
    size = write(place, text)
    return {"out": str(place), "bytes": size, "kind": kind, "sources": words, "notes": notes}


def _words(sources: Any) -> list[str]:
    """One source or several as texts."""
    is_many = isinstance(sources, Iterable) and not isinstance(sources, str | Path)
    given = sources if is_many else [sources]
    return [word if isinstance(word, str) else str(as_path("sources", word)) for word in given]


def recognise(words: Sequence[str]) -> Sources:
    """Tell runs from a suite by their words; no file is read yet.

    Raises:
        InputError: no word, both runs and a suite, or a word that is neither.
    """
    if not words:
        raise InputError(
            "report needs a run's folder or a suite, for example: ppo-jax report runs/my-run."
        )
    parts = [comparison.members(word) for word in words]
    found = [word for part in parts for word in part if is_run(word)]
    others = [word for part in parts for word in part if word not in found]
    if not others:
        return Sources(tuple(map(Path, found)), None, tuple(comparison.places_of(parts)))
    word = others[0]
    path = Path(word)
    is_suite = word in specs.names() or word.endswith(".toml") or _holds_results(path)
    if not is_suite:
        raise InputError(_neither(word))
    more = len(found) + len(others) - 1
    if more:
        raise InputError(
            f"A page has runs or one suite: {word!r} is a suite, and {more} more were given."
        )
    return Sources((), word)


def _holds_results(path: Path) -> bool:
    return path.is_dir() and any(path.glob("*__*.json"))


def _neither(word: str) -> str:
    """Describe a word that is neither a run nor a suite."""
    path = Path(word)
    if (path / "sweep.json").is_file():
        return (
            f"{word!r} is a sweep's folder, which has its own report.md and pictures: give run "
            "folders or a suite."
        )
    beside = [each.parent.as_posix() for each in path.parent.glob("*/config.json")]
    return (
        f"{word!r} is no run's folder (there is no config.json in it) and no suite "
        f"({', '.join(specs.names())})." + nearest(path.as_posix(), [*beside, *specs.names()])
    )


def place_of(wanted: Sources, out: Path | None, force: bool) -> Path:
    """Choose the file of the page.

    Raises:
        InputError: the file exists, or cannot be written.
    """
    if out is None:
        out = (wanted.folders[0] if len(wanted.folders) == 1 else Path()) / "report.html"
    if out.is_dir():
        raise InputError(f"out={str(out)!r} is a folder: name a file in it.")
    if out.exists() and not force:
        raise InputError(f"out={str(out)!r} exists already: name a new file, or give --force.")
    parent = out.absolute().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(
            f"out={str(out)!r} cannot be written, because {str(parent)!r} is no writable folder: "
            "name a file in another one."
        )
    return out


def run_text(wanted: Sources, animate: bool, notes: list[str], trust: Trust = False) -> str:
    """Make the page of runs; `notes` receives a sentence for each run without an animation."""
    folders, data = wanted.folders, run_data.collect(wanted.folders)
    places = parts.grouped([run["env"] for run in data["runs"]])
    compared = [comparison.improvements(data["runs"], own) for own in places.values()]
    data["improvements"] = [found for found in compared if found is not None]
    beside = [comparison.by_group(data["runs"], wanted.groups, own) for own in places.values()]
    data["comparisons"] = [found for found in beside if found is not None]
    shown: dict[int, animation.Animation | str] = {}
    if animate:
        chosen = range(min(len(folders), MAX_ANIMATIONS))
        each = min(animation.MAX_BYTES, _ANIMATION_BYTES // len(chosen))
        for i in chosen:
            shown[i] = animation.of_run(folders[i], data["runs"][i], each, trust)
    for i, found in shown.items():
        if isinstance(found, str):
            notes.append(f"{data['runs'][i]['label']}: {found}")
        else:
            data["runs"][i]["animation"] = found.facts
    return run_page.page(complete(data), shown)


def suite_text(word: str, results: Path | None, quick: bool) -> str:
    """Make the page of a suite."""
    from ppo_jax.apps.report import suite_data, suite_page  # the latter loads jax

    return suite_page.page(complete(suite_data.collect(suite_data.find(word, results, quick))))


def complete(data: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the data of a page: plain JSON, with the version that wrote it."""
    try:
        own = version("ppo-jax")
    except PackageNotFoundError:
        own = "unknown"
    return to_json({"format": FORMAT, "version": own, **data})


def write(place: Path, text: str) -> int:
    """Write a page atomically and return its size in bytes.

    Raises:
        InputError: the page is too large, or the disk refuses it.
    """
    content = text.encode("utf-8", "backslashreplace")  # a folder's name may be no text
    if len(content) > MAX_BYTES:
        raise InputError(
            f"The page would have {len(content) / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:.0f}: "
            "report fewer runs, or leave the animations out (--no-animation)."
        )
    try:
        write_atomic(place, content)
    except OSError as error:
        raise InputError(
            f"out={str(place)!r} cannot be written ({error.strerror}): name another place."
        ) from error
    return len(content)
