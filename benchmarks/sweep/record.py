"""Head and path of every result of this folder."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ppo_jax.storage.fingerprint import source_digest  # noqa: E402
from ppo_jax.storage.manifest import core_count, processor  # noqa: E402


def opening(what: str) -> dict[str, Any]:
    """Subject, date, command and hardware of a measurement."""
    return {
        "what": what,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", f"benchmarks/sweep/{Path(sys.argv[0]).name}", *_asked()]),
        "machine": {
            "hardware": f"{processor()}, {core_count()} cores",
            "cores": core_count(),
            "system": platform.system(),
        },
        "load_average_before": os.getloadavg(),
        "versions": {name: version(name) for name in ("ppo-jax", "jax", "jaxlib", "gymnax")},
        "source": source_digest(),
    }


def _asked() -> list[str]:
    """The arguments, without the path of the result."""
    words = sys.argv[1:]
    if "--out" in words:
        del words[words.index("--out") : words.index("--out") + 2]
    return words


def default_out(name: str) -> Path:
    """benchmarks/results/sweep-NAME_HARDWARE_DATE.json."""
    hardware = re.sub(r"\([^)]*\)", "", f"{processor()}, {core_count()} cores".lower())
    words = "-".join(re.findall(r"[a-z0-9]+", hardware))
    file = f"sweep-{name}_{words}_{datetime.now(UTC).date()}.json"
    return ROOT / "benchmarks" / "results" / file


def write(result: dict[str, Any], out: Path) -> None:
    """Write the result to a file, and make its folder."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
