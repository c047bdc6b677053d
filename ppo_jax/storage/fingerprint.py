"""The fingerprint: all that the bits of a run depend on beside its settings."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax

from ppo_jax.config.config import Config
from ppo_jax.config.data import PACKAGE
from ppo_jax.config.loading import load_attribute, require_own
from ppo_jax.distributed import hosts
from ppo_jax.distributed.layout import Layout
from ppo_jax.envs.interface import Box, Environment
from ppo_jax.envs.registration import describe_space
from ppo_jax.envs.suite_table import is_suite_name
from ppo_jax.models.agent import assemble
from ppo_jax.storage.manifest import core_count, package_versions, processor

# Fields of `Config` that may name a program of the user's own, with its noun.
OWN = {"env": "environment", "network": "network", "drift": "drift", "optimizer": "optimiser"}
BLOCKS = "environment blocks"  # on which the random draws depend
# Packages whose versions are recorded, or that no environment takes its rules from.
_KNOWN = {"ppo_jax", "jax", "jaxlib", "flax", "optax", "gymnax", "chex", "numpy"}


def fingerprint(layout: Layout, config: Config | None = None) -> dict[str, Any]:
    """Versions, device and processor: runs of equal settings and fingerprints have equal bits.

    Args:
        config: of the run, for the sources of the user's own programs.
    """
    device = layout.devices[0]
    return {
        **({} if config is None else own_sources(config)),
        **package_versions(),
        "ppo-jax source": source_digest(),
        "platform": device.platform,
        "device kind": device.device_kind,
        "devices": len(layout.devices),
        "layout": layout.kind,
        **({"mesh": layout.mesh_words} if layout.num_shares > 1 else {}),
        **({"hosts": hosts.count()} if hosts.count() > 1 else {}),
        **({BLOCKS: layout.num_blocks} if layout.num_blocks > 1 else {}),
        "population width": layout.num_members // layout.num_places,
        "cores": core_count(),
        "processor": processor(),
        "XLA flags": " ".join(sorted(os.environ.get("XLA_FLAGS", "").split())),
        "64 bit": bool(jax.config.values["jax_enable_x64"]),
    }


def recorded_blocks(recorded: Mapping[str, Any]) -> int:
    """Blocks of each seed's environments, by a fingerprint; once there were as many as devices."""
    was_spread = recorded.get("layout") == "envs"  # the word of earlier versions
    return recorded.get(BLOCKS, recorded.get("devices", 1) if was_spread else 1)


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """One sentence about what is no longer bit-exact, None if nothing changed."""
    own = {f"{field} source" for field in OWN}  # see `other_programs`
    saved, now = ({k: v for k, v in each.items() if k not in own} for each in (saved, now))
    changed = list_changes(saved, now)
    if not changed:
        return None
    how = "may differ in the last bits from"
    if recorded_blocks(saved) != recorded_blocks(now):
        how = "follow other random draws than"
    return (
        f"{'; '.join(changed)}: the run goes on from its checkpoint, but from here on its numbers "
        f"{how} those of a run that was never stopped."
    )


def list_changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Each entry that is not as it was saved, in words."""
    return [
        f"{name} is {now.get(name)!r} and was "
        + (repr(saved[name]) if name in saved else "not recorded")
        for name in {**saved, **now}
        if saved.get(name) != now.get(name)
    ]


def other_programs(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """One sentence if a program of the user's own has changed since a run was saved.

    Args:
        saved, now: fingerprints, or `own_sources` alone.
    """
    changed = [
        noun
        for field, noun in OWN.items()
        if saved.get(name := f"{field} source") is not None and saved[name] != now.get(name)
    ]
    if not changed:
        return None
    return (
        f"The source of the run's own {' and '.join(changed)} is not the one that it was trained "
        "with: from here on another program answers; bring the old source back for the old numbers."
    )


def own_sources(config: Config) -> dict[str, str]:
    """A digest of the source of each program of the user's own that a run takes."""
    found = {}
    for field in OWN:
        name = getattr(config, field)
        given = _given(name)
        modules = _modules(given)
        if field == "env" and inspect.isroutine(given):  # a factory
            with suppress(Exception):  # the run itself reports why it cannot be called
                if isinstance(name, str):
                    require_own(name, given, "environment")
                modules |= _modules(given())
        texts = sorted(source for source in map(_source, modules) if source is not None)
        if texts:
            found[f"{field} source"] = sha256(b"".join(texts)).hexdigest()[:12]
    return found


def program_words(config: Config) -> dict[str, str]:
    """The programs that all hosts of a run must have, in words."""
    found = {**package_versions(), "ppo-jax source": source_digest(), **own_sources(config)}
    return {name: str(value) for name, value in found.items()}


def _given(value: Any) -> Any:
    """The object that a setting names as `module:attribute`, or the object that it is."""
    if not isinstance(value, str):
        return value
    is_own = ":" in value and not value.startswith("probe:") and not is_suite_name(value)
    return load_attribute(value) if is_own else None


def _modules(value: Any) -> set[str]:
    """Modules that define an object: its own, those of its class and of its class's bases."""
    if isinstance(value, partial):
        return _modules(value.func)
    if not isinstance(value, type) and callable(value):
        value = inspect.unwrap(value)  # the function within jax.jit
    if type(value) is tuple or isinstance(value, Environment):
        return {name for part in value for name in _modules(part)}
    kind = value if isinstance(value, type) else type(value)
    homes = [base.__module__ for base in kind.__mro__]
    if inspect.isroutine(value):
        homes = [value.__module__ or ""]
    known = _KNOWN | sys.stdlib_module_names
    return {name for name in homes if name == "__main__" or name.partition(".")[0] not in known}


def _source(module: str) -> bytes | None:
    """The source of a module; None if it has no file that can be read."""
    try:
        return Path(getattr(sys.modules[module], "__file__", None) or "").read_bytes()
    except (KeyError, OSError):
        return None


def spaces(config: Config) -> dict[str, str]:
    """The spaces of a run's environment in words, without the bounds of actions."""
    environment = assemble(config).environment
    space = environment.action_space
    shown = [
        f"{leaf.dtype.name} {list(leaf.shape)}" for leaf in jax.tree.leaves(environment.observation)
    ]
    shape = f"box {list(space.shape)}" if isinstance(space, Box) else describe_space(space)
    return {"action": shape, "observation": ", ".join(shown)}


@lru_cache(maxsize=1)
def source_digest() -> str:
    """Twelve digits that change with any line of the package: another program, other roundings."""
    digest = sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        digest.update(f"{name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
