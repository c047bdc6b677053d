"""Comparison of measured results of a suite with stored ones of a machine of the same class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ppo_jax.apps.reproduce import records, scoring, store, tables
from ppo_jax.apps.reproduce.specs import Suite
from ppo_jax.config.errors import InputError
from ppo_jax.kernels import backend


def measured_rows(
    folder: Path, suite: Suite
) -> tuple[list[scoring.Measured], list[str], list[str]]:
    """Stored rows, the names of the cells without one, and the machines in words."""
    found = [(cell, store.read_result(folder, cell).content) for cell in suite.cells]
    rows = [scoring.measured(cell, content) for cell, content in found if content]
    lacking = [cell.name for cell, content in found if not content]
    return rows, lacking, records.machines(content for _, content in found if content)


def stored_folder(suite: Suite, folder: Path, is_quick: bool) -> Path | None:
    """Find the newest other results of this suite from a machine of the same class."""
    there = store.folders(suite.name, backend.platform(), is_quick, store.RESULTS)
    usable = [each for each in there if each != folder and store.has_results(each)]
    return next((each for each in usable if is_of_here(each)), None)


def check(
    suite: Suite, rows: Sequence[scoring.Measured], against: Path | None
) -> tuple[list[scoring.Compared], list[str]]:
    """Compare new rows with the stored ones; return the comparisons and the lines to print.

    Raises:
        InputError: there are no stored results to compare with.
    """
    if against is None:
        raise InputError(
            f"There are no stored results of {suite.name} from a machine like this one to check "
            "against: run `ppo-jax reproduce` here first, with a trusted version."
        )
    stored = {row.cell.name: row for row in measured_rows(against, suite)[0]}
    compared = [
        each
        for row in rows
        if row.cell.name in stored
        and (each := scoring.compare(row, stored[row.cell.name])) is not None
    ]
    lines = [tables.check_line(each) for each in compared if each.is_regression]
    worse = len(lines)
    omitted = not_compared(suite, compared)
    if omitted:
        lines.append(
            f"not compared: {len(omitted)} cells ({tables.listed(omitted)}), because new or stored "
            "results lack them or have fewer than two seeds with a score"
        )
    lines.append(
        f"check: {len(compared)} of {len(suite.cells)} cells compared with {against}, "
        f"{worse or 'none'} worse than chance explains (99% interval of the difference) or with "
        "more failed seeds."
    )
    return compared, lines


def not_compared(suite: Suite, compared: Sequence[scoring.Compared]) -> list[str]:
    """Names of the cells that were asked for and are not among those compared."""
    there = {each.cell.name for each in compared}
    return [cell.name for cell in suite.cells if cell.name not in there]


def is_of_here(folder: Path) -> bool:
    """Check whether all of a folder's results come from a machine like this one."""
    return records.machine_of(folder) == records.machine_here()
