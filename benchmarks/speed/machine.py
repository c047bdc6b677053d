"""Description of the machine in a stored result, and the result's path (standard library only)."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent

PACKAGES = ("ppo-jax", "jax", "jaxlib", "flax", "optax", "gymnax", "numpy")


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def describe_machine(hardware: str | None = None) -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        model = found.group(1) if found else model
    return {
        "hardware": hardware or f"{model}, {cores()} core{'' if cores() == 1 else 's'}",
        "cpu": model,
        "cores": cores(),
        "system": platform.system(),
    }


def versions(*more: str) -> dict[str, str | None]:
    """Versions of Python and of the packages that a run computes with; None if one is absent."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in (*PACKAGES, *more):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def default_out(hardware: str, kind: str = "speed") -> Path:
    """`benchmarks/results/KIND_MACHINE_DATE.json`."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"\([^)]*\)", "", hardware.lower()))
    today = datetime.datetime.now(datetime.UTC).date()
    return ROOT / "benchmarks" / "results" / f"{kind}_{'-'.join(words)}_{today}.json"


def begin(what: str, command: str, hardware: str | None) -> dict[str, Any]:
    """The head of a record: subject, date, machine, command, and the machine's load."""
    return {
        "what": what,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "machine": describe_machine(hardware),
        "load_average_before": os.getloadavg(),
    }


def store(record: dict[str, Any], out: Path) -> None:
    """Write the record; called repeatedly while it grows, so that no data is lost."""
    record["load_average_after"] = os.getloadavg()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")
