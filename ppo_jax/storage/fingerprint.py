"""What the bits of a run depend on beside its settings, and what changed since a checkpoint."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from ppo_jax.config.data import PACKAGE
from ppo_jax.distributed.layout import Layout

_PACKAGES = ("ppo-jax", "jax", "jaxlib", "flax", "optax", "gymnax")


def fingerprint(layout: Layout) -> dict[str, Any]:
    """Two runs of equal settings and equal fingerprints have equal bits; others may differ."""
    device = layout.devices[0]
    return {
        **{package: _version(package) for package in _PACKAGES},
        "ppo-jax source": source_digest(),
        "platform": device.platform,
        "device kind": device.device_kind,
        "devices": len(layout.devices),
        "layout": layout.kind,
        "population width": layout.num_members // (1 if is_split(layout) else len(layout.devices)),
        "cores": core_count(),
        "processor": processor(),
        "XLA flags": " ".join(sorted(os.environ.get("XLA_FLAGS", "").split())),
        "64 bit": bool(jax.config.values["jax_enable_x64"]),
    }


def is_split(layout: Layout) -> bool:
    """Whether every device works on every member, on a share of its environments."""
    return layout.kind == "envs"


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """One sentence about what is no longer bit-exact, None where nothing changed."""
    changed = [
        f"{name} is {now.get(name)!r} and was {saved.get(name)!r}"
        for name in {**saved, **now}
        if saved.get(name) != now.get(name)
    ]
    if not changed:
        return None
    return (
        f"{'; '.join(changed)}: the run goes on from its checkpoint, but from here on its numbers "
        "may differ in the last bits from those of a run that was never stopped."
    )


@lru_cache(maxsize=1)
def source_digest() -> str:
    """Twelve digits that change with any line of the package: another program, other roundings."""
    digest = sha256()
    root = PACKAGE
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def core_count() -> int | None:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """The CPU's model: XLA compiles for its instructions."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
