"""The fingerprint: all that the bits of a run depend on beside its settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any

import jax

from ppo_jax.config.data import PACKAGE
from ppo_jax.distributed.layout import Layout
from ppo_jax.storage.manifest import core_count, package_versions, processor


def fingerprint(layout: Layout) -> dict[str, Any]:
    """Versions, device and processor: runs of equal settings and fingerprints have equal bits."""
    device = layout.devices[0]
    return {
        **package_versions(),
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
    """Check whether every device works on every member, on a share of its environments."""
    return layout.kind == "envs"


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """One sentence about what is no longer bit-exact, None if nothing changed."""
    changed = list_changes(saved, now)
    if not changed:
        return None
    return (
        f"{'; '.join(changed)}: the run goes on from its checkpoint, but from here on its numbers "
        "may differ in the last bits from those of a run that was never stopped."
    )


def list_changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Each entry that is not as it was saved, in words."""
    return [
        f"{name} is {now.get(name)!r} and was "
        + (repr(saved[name]) if name in saved else "not recorded")
        for name in {**saved, **now}
        if saved.get(name) != now.get(name)
    ]


@lru_cache(maxsize=1)
def source_digest() -> str:
    """Twelve digits that change with any line of the package: another program, other roundings."""
    digest = sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        digest.update(f"{name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
