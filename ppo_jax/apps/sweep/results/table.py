"""Results of a sweep: a tidy table, a score for each setting, and the best one as a preset."""

from __future__ import annotations

import csv
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ppo_jax.analysis import ranges, stats
from ppo_jax.apps.sweep import pack_files
from ppo_jax.apps.sweep.axes import Values
from ppo_jax.config.errors import InputError, install
from ppo_jax.config.layers import toml_value
from ppo_jax.storage import jsonl
from ppo_jax.storage.files import replacing, to_json

CLOCK = "env_steps"
# Memory of a row: some 40 columns, joined and sorted, and the texts of one line.
ROW_BYTES = 2 * 40 * 8
PIECE = 10_000  # rows that are Python objects at a time


@dataclass(frozen=True)
class Table:
    """A sweep's results: one row for each logged point of each seed of each setting.

    Columns are numpy arrays of one length: setting, seed, the axes, env_steps (of one seed), and
    every metric of docs/design.md, NaN if unknown. `table["episode_return"]` is one. Metrics with
    the name of an axis end in _now (learning_rate, kl_coef: as scheduled and adapted).
    """

    columns: dict[str, np.ndarray]
    settings: list[dict[str, Any]]  # best first: setting, values, final_return (stats.summarise)
    summary: dict[str, Any]  # the content of summary.json
    folder: Path
    exit_code: int = 0  # 0 done, 1 every member failed, 75 or 130 stopped by a signal

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.columns.get("setting", ()))

    def to_arrow(self) -> Any:
        """Convert the columns to a pyarrow.Table (extra: sweep).

        Raises:
            InputError: pyarrow is not installed.
        """
        return _arrow(self.columns)


def pack_folders(folder: Path) -> list[Path]:
    """Folders of the packs that have been started, in their order."""
    return sorted(path.parent for path in (folder / "packs").glob("*/pack.json"))


def read_columns(
    folders: Iterable[Path], held: Mapping[Path, Container[int]] | None = None
) -> dict[str, np.ndarray]:
    """Read the tidy table of some packs, in the order of settings, seeds and steps.

    A line of a pack's metrics.jsonl holds, for each metric, a list with one number per member. If
    members change (halving, pbt), the line names its settings, seeds, steps and axis values. The
    table has no columns before the first line is written.

    Args:
        held: pack -> the settings whose rows are read there; None for all of them.
    """
    blocks: dict[str, list[np.ndarray]] = {}
    done = 0
    every = (_kept(b, held and held[path]) for path in folders for b in _checked(path))
    for block in every:
        length = len(block["seed"])
        for name in [name for name in block if name not in blocks]:
            blocks[name] = [np.full(done, math.nan)] if done else []
        for name, parts in blocks.items():
            parts.append(block[name] if name in block else np.full(length, math.nan))
        done += length
    if not done:
        return {}
    keys = [_joined(blocks[name]) for name in (CLOCK, "seed", "setting")]
    order = np.lexsort(keys)
    # Each column's blocks are freed before the next column is joined.
    return {name: _joined(blocks.pop(name))[order] for name in list(blocks)}


def _kept(block: dict[str, np.ndarray], held: Container[int] | None) -> dict[str, np.ndarray]:
    """The rows of some settings; None for all of them."""
    if held is None:
        return block
    kept = np.array([int(setting) in held for setting in block["setting"]])
    return {name: column[kept] for name, column in block.items()}


def _checked(folder: Path) -> Iterator[dict[str, np.ndarray]]:
    """The blocks of a pack, or a sentence if its files do not go together."""
    try:
        yield from _blocks(folder)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"The rows of {str(folder)!r} do not fit its pack.json ({type(error).__name__}: "
            f"{error}), so one of them is damaged: restore it."
        ) from error


def _blocks(folder: Path) -> Iterator[dict[str, np.ndarray]]:
    """Columns of one logged line after the other: setting, seed, axes, steps, metrics."""
    pack = pack_files.read_pack(folder)
    rows = folder / "metrics.jsonl"
    for line in jsonl.stream_jsonl(rows) if rows.exists() else ():
        clock = line.pop(CLOCK)
        settings = line.pop("setting", None) or [member[0] for member in pack["members"]]
        seeds = line.pop("seed", None) or [member[1] for member in pack["members"]]
        clocks = line.pop("member_env_steps", None) or [clock] * len(seeds)
        axes = line.pop("values", None) or [pack["settings"][str(place)] for place in settings]
        if not seeds:
            continue
        names = list(dict.fromkeys(name for values in axes for name in values))
        columns: dict[str, list[Any]] = {"setting": settings, "seed": seeds}
        columns |= {name: [_plain(values.get(name)) for values in axes] for name in names}
        columns[CLOCK] = clocks
        for name, values in line.items():
            columns[f"{name}_now" if name in names else name] = [_number(x) for x in values]
        if any(len(values) != len(seeds) for values in columns.values()):
            raise ValueError(f"a line has not a number for each of {len(seeds)} members")
        yield {name: _column(values) for name, values in columns.items()}


def _joined(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Join blocks of a column; a column with words holds words only, empty where unknown."""
    if not any(block.dtype == object for block in blocks):
        return np.concatenate(blocks)
    words = [
        block if block.dtype == object else np.array(_words(block.tolist()), object)
        for block in blocks
    ]
    return np.concatenate(words)


def _words(values: Sequence[Any]) -> list[str]:
    return ["" if value is None or value != value else str(value) for value in values]


def _number(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError(f"{value!r} is no number")
    return value


def _plain(value: Any) -> Any:
    """Convert a value of an axis to a table's cell."""
    if isinstance(value, dict):
        raise TypeError(f"{value!r} is no value of an axis")
    if value in ("inf", "-inf"):
        return float(value)
    return "x".join(map(str, value)) if isinstance(value, list) else value


def _column(values: Sequence[Any]) -> np.ndarray:
    if any(isinstance(value, str) for value in values):
        return np.array(_words(values), object)
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return np.array(values, np.int64)
    return np.array([math.nan if value is None else value for value in values], np.float64)


def write(columns: Mapping[str, np.ndarray], folder: Path) -> list[str]:
    """Write table.csv, and table.parquet if pyarrow is installed; return the paths written."""
    path = folder / "table.csv"
    with replacing(path) as new, new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        length = len(next(iter(columns.values())))
        for first in range(0, length, PIECE):
            lists = [column[first : first + PIECE].tolist() for column in columns.values()]
            for row in zip(*lists, strict=True):
                writer.writerow(["" if value != value else value for value in row])
    written = [str(path)]
    if find_spec("pyarrow") is not None:
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]

        with replacing(folder / "table.parquet") as new:
            parquet.write_table(_arrow(columns), str(new))
        written.append(str(folder / "table.parquet"))
    return written


def _arrow(columns: Mapping[str, np.ndarray]) -> Any:
    try:
        import pyarrow  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "a Parquet table needs the package pyarrow, which is not installed: install it with "
            f"{install('sweep')}, or use table.csv, which holds the same."
        ) from None
    return pyarrow.table(
        {
            name: pyarrow.array(column.tolist() if column.dtype == object else column)
            for name, column in columns.items()
        }
    )


def scores(
    settings: Mapping[int, Values],
    returns: Mapping[int, Sequence[float | None]],
    limits: tuple[float, float] = ranges.UNLIMITED,
) -> list[dict[str, Any]]:
    """Each setting's mean over its seeds with a 95% interval, best first; see `rules.score`.

    A setting with a failed seed comes after all settings without one, and one with more of them
    later still. Its mean covers only the remaining seeds.
    """
    found = []
    for setting, per_seed in returns.items():
        summary = stats.summarise(per_seed, statistic=np.mean, limits=limits)
        found.append({"setting": setting, "values": settings[setting], "final_return": summary})
    return sorted(found, key=_rank)


def _rank(row: Mapping[str, Any]) -> tuple[Any, ...]:
    final = row["final_return"]
    mean = -math.inf if final["mean"] is None else final["mean"]
    return (final["num_failed"], -mean, row["setting"])


def write_scores(rows: Sequence[Mapping[str, Any]], axes: Sequence[str], path: Path) -> None:
    """Write one line per setting: rank, values, mean, interval, failed seeds."""
    with replacing(path) as new, new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", "setting", *axes, "mean", "ci95_low", "ci95_high", "num_failed"])
        for rank, row in enumerate(rows, 1):
            final = row["final_return"]
            values = [_plain(to_json(row["values"].get(axis))) for axis in axes]
            ends = final["ci95"] or ("", "")
            mean = "" if final["mean"] is None else final["mean"]
            writer.writerow([rank, row["setting"], *values, mean, *ends, final["num_failed"]])


def best_toml(
    head: Mapping[str, str],
    objective: str,
    config: Mapping[str, Any],
    hyper: Mapping[str, Any],
    result: Mapping[str, Any],
    source: str,
) -> str:
    """Make the text of a preset file from the best setting.

    Args:
        head: the environment, and the signature of its programs if there are any.
        config, hyper: fields by name; `env` in hyper holds the environment's own parameters.
        result: score, ci95, seeds, env_steps, ... of the winner.
    """
    env_params = hyper.get("env") or {}
    numbers = {name: value for name, value in hyper.items() if name != "env"}
    tables = [
        ("", head),
        (objective, {"source": source}),
        (f"{objective}.config", config),
        (f"{objective}.hyper", numbers),
        *([(f"{objective}.hyper.env", env_params)] if env_params else []),
        (f"{objective}.result", result),
    ]
    lines: list[str] = []
    for name, content in tables:
        lines += ["", f"[{name}]"] if name else []
        lines += [
            f"{key} = {toml_value(value)}" for key, value in content.items() if value is not None
        ]
    return "\n".join(lines) + "\n"
