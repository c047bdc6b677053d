"""Suites as data: data/specs/NAME.toml names the cells, their scoring and the published scores.

title, about   a description of the suite
again          the command of the program that wrote the suite, if it is not `reproduce`
[defaults]     fields of every cell: seeds, protocol, episodes, preset, [defaults.config] ...
[[cell]]       one environment with one setting: task, variant and any of the fields
[[task]] and [[variant]]   each variant runs on each task, or on those of its `tasks`
[[claim]]      a published order of two variants: higher, lower, source

Later layers win: preset, defaults, task, variant, cell. Nothing here loads jax.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ppo_jax.apps.reproduce import references
from ppo_jax.apps.reproduce.cells import Cell, build
from ppo_jax.apps.reproduce.references import Reference
from ppo_jax.config.data import DATA
from ppo_jax.config.errors import InputError, nearest
from ppo_jax.config.reading import expect, read_toml
from ppo_jax.config.trust import Trust, code_names, require

FOLDER = DATA / "specs"
# The shape of a suite, see `expect`.
_SHAPE = {
    "title?": str,
    "about?": str,
    "again?": str,
    "defaults?": dict,
    "cell?": [dict],
    "task?": [{"name": str}],
    "variant?": [{"name": str, "published?": dict, "tasks?": [str]}],
    "claim?": [{"higher": str, "lower": str, "source": str, "compare?": bool}],
}
_TABLES = ("title", "about", "again", "defaults", "cell", "task", "variant", "claim")


class Claim(NamedTuple):
    """A published order of two variants, or a comparison of them without a verdict."""

    higher: str
    lower: str
    source: str
    compare: bool = True  # False: the difference is shown without a verdict


class Suite(NamedTuple):
    name: str
    title: str
    about: str
    cells: tuple[Cell, ...]
    claims: tuple[Claim, ...]
    variant_published: dict[str, Reference]  # score of a variant over all tasks
    missing: tuple[str, ...]  # cells whose preset does not exist (yet)
    file: str = ""
    again: str = ""  # command of another program that wrote the suite

    @property
    def command(self) -> str:
        """The command that repeats the suite."""
        name = self.name if Path(self.file).parent == FOLDER else shlex.quote(self.file)
        return self.again or f"ppo-jax reproduce {name}"

    @property
    def is_normalised(self) -> bool:
        """True if its cells can be averaged over tasks."""
        return bool(self.cells) and all(cell.best is not None for cell in self.cells)


def names() -> list[str]:
    """Names of the suites that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def select(wanted: Sequence[str], is_quick: bool = False, seeds: int | None = None) -> list[Suite]:
    """Load the suites asked for, each cut to the cells asked for.

    Args:
        wanted: SUITE, SUITE/TASK, SUITE/TASK/VARIANT or the path of a FILE.toml.
        is_quick: use the smaller budget. seeds: in place of each cell's own number.

    Raises:
        InputError: there is none of that name; the message names the nearest.
    """
    found: dict[str, Suite] = {}
    kept: dict[str, set[str]] = {}
    for word in wanted:
        head, _, rest = word.partition("/") if not word.endswith(".toml") else (word, "", "")
        suite = load(head, is_quick, seeds)
        # A task that carries its suite's name already, as memory/Recall-v0, needs it only once.
        chosen = [
            cell
            for cell in suite.cells
            if rest in ("", cell.task, cell.name) or word in (cell.task, cell.name)
        ]
        if not chosen:
            known = [cell.full_name for cell in suite.cells]
            known += sorted({f"{suite.name}/{cell.task}" for cell in suite.cells})
            lacking = [name for name in suite.missing if f"{suite.name}/{name}" == word]
            raise InputError(
                f"{word!r} has no setting yet: its preset does not exist."
                if lacking
                else f"There is no spec {word!r}.{_elsewhere(word) or nearest(word, known)}"
            )
        found[suite.name] = suite
        kept.setdefault(suite.name, set()).update(cell.name for cell in chosen)
    return [
        suite._replace(cells=tuple(cell for cell in suite.cells if cell.name in kept[name]))
        for name, suite in found.items()
    ]


def _elsewhere(task: str) -> str:
    """A sentence that names the cells of this task in any suite of the package; "" without one."""
    cells = [cell.full_name for name in names() for cell in load(name).cells if cell.task == task]
    return f" Another suite has this task: {', '.join(cells)}." if cells else ""


def require_trust(suites: Sequence[Suite], trust: Trust) -> None:
    """Refuse suites of a FILE.toml whose cells name a program, unless the user vouches for it.

    The package's own suites are part of the program.

    Raises:
        InputError: the sentence names the file, the program and the remedy.
    """
    for suite in suites:
        if Path(suite.file).parent == FOLDER:
            continue
        for cell in suite.cells:
            require(code_names(vars(cell.config)), suite.file, trust)


def load(name: str, is_quick: bool = False, seeds: int | None = None) -> Suite:
    """Load a suite of the package by its name, or a user's by the path of a FILE.toml.

    Raises:
        InputError: there is none, it is not TOML, or one of its entries cannot run.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not name.endswith(".toml") and name not in names():
        raise InputError(
            f"There is no suite {name!r}: name one of {', '.join(names())}, or a FILE.toml."
            f"{nearest(name, names())}"
        )
    content = _parse(path)
    suite = path.stem
    for key in content:
        if key not in _TABLES:
            raise InputError(f"{path.name}: a suite has no entry {key!r}.{nearest(key, _TABLES)}")
    entries = _entries(content, suite)
    cells, missing = [], []
    for layers in entries:
        label = "/".join(_label(layers, key, suite) for key in ("task", "variant"))
        cell = build(suite, label, layers, is_quick, seeds)
        if cell is None:
            missing.append(label)
        else:
            cells.append(cell)
    labels = [cell.name for cell in cells]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise InputError(f"{path.name}: the cell {twice[0]!r} is defined twice.")
    published = {
        str(variant["name"]): references.find(variant["published"], f"{suite}/{variant['name']}")
        for variant in content.get("variant", [])
        if "published" in variant
    }
    claims = tuple(_claim(claim, path.name) for claim in content.get("claim", []))
    known = {cell.variant for cell in cells}
    for claim in claims:
        for side in (claim.higher, claim.lower):
            if side not in known:
                raise InputError(
                    f"{path.name}: the claim names no variant {side!r}.{nearest(side, known)}"
                )
    return Suite(
        name=suite,
        title=str(content.get("title", suite)),
        about=str(content.get("about", "")),
        cells=tuple(cells),
        claims=claims,
        variant_published=published,
        missing=tuple(missing),
        file=str(path),
        again=str(content.get("again", "")),
    )


def _claim(table: Mapping[str, Any], where: str) -> Claim:
    try:
        return Claim(**table)
    except TypeError:
        raise InputError(
            f"{where}: a claim has {', '.join(table)}; it must have {', '.join(Claim._fields)} "
            "(compare is optional)."
        ) from None


def _parse(path: Path) -> dict[str, Any]:
    try:
        return expect(read_toml(path), _SHAPE)
    except OSError as error:
        raise InputError(
            f"The suite {str(path)!r} cannot be read: {error.strerror or error}. The package has "
            f"{', '.join(names())}."
        ) from None
    except ValueError as error:
        raise InputError(f"The suite {str(path)!r} is not TOML of a suite: {error}.") from None


def _entries(content: Mapping[str, Any], suite: str) -> list[list[Mapping[str, Any]]]:
    """The layers of each cell, defaults first."""
    defaults = content.get("defaults", {})
    entries = [[defaults, cell] for cell in content.get("cell", [])]
    names = [task["name"] for task in content.get("task", [])]
    for variant in content.get("variant", []):
        for name in variant.get("tasks", ()):
            if name not in names:
                raise InputError(
                    f"The variant {variant['name']!r} of the suite {suite!r} names no task "
                    f"{name!r}.{nearest(name, names)}"
                )
    for task in content.get("task", []):
        for variant in content.get("variant", []):
            if task["name"] not in variant.get("tasks", names):
                continue
            own = {k: value for k, value in variant.items() if k not in ("published", "tasks")}
            entries.append([defaults, _renamed(task, "task"), _renamed(own, "variant")])
    if not entries:
        raise InputError(f"The suite {suite!r} has no cells.")
    return entries


def _renamed(table: Mapping[str, Any], role: str) -> dict[str, Any]:
    return {(role if key == "name" else key): value for key, value in table.items()}


def _label(layers: Sequence[Mapping[str, Any]], key: str, suite: str) -> str:
    found = [layer[key] for layer in layers if key in layer]
    if not found or not isinstance(found[-1], str):
        raise InputError(f"A cell of the suite {suite!r} has no {key}.")
    if key == "variant" and "/" in found[-1]:
        raise InputError(
            f"The variant {found[-1]!r} of the suite {suite!r} has a slash in its name."
        )
    return found[-1]
