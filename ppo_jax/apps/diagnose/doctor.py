"""What this machine offers, and whether an environment keeps the contract."""

from __future__ import annotations

import platform
from typing import Any

import jax

from ppo_jax.apps.diagnose import contract
from ppo_jax.config.options import RunOptions
from ppo_jax.distributed.layout import local_devices
from ppo_jax.envs import registration
from ppo_jax.envs.interface import time_limit
from ppo_jax.runtime import devices
from ppo_jax.storage.manifest import make_manifest


def report(env: Any = None) -> dict[str, Any]:
    """Devices, versions and memory; with `env` also every breach of the environment contract.

    Returns:
        a JSON-ready dict whose `text` is the same as lines for people; `ok` is False where the
        environment breaks the contract.
    """
    devices.prepare_jax(RunOptions())
    environment = None if env is None else registration.make(env)
    manifest = make_manifest(local_devices())
    memory = devices.memory_bytes()
    found: dict[str, Any] = {
        "python": manifest["python"],
        "versions": manifest["versions"],
        "devices": manifest["devices"],
        "cores": manifest["cores"],
        "memory_bytes": memory,
        "device_memory_bytes": devices.device_memory_bytes(),
        "compilation_cache": devices.cache_folder(),
        "xla_flags": manifest["xla_flags"],
    }
    text = [
        f"python    {found['python']} on {platform.system()} {manifest['machine']}",
        "packages  " + ", ".join(f"{k} {v}" for k, v in found["versions"].items() if v),
        "devices   " + ", ".join(found["devices"]),
        f"cores     {found['cores']}; memory {describe_bytes(memory)}",
        f"cache     {found['compilation_cache']}",
    ]
    if found["device_memory_bytes"] is not None:
        text.insert(4, f"device    memory {describe_bytes(found['device_memory_bytes'])}")
    if environment is None:
        return {**found, "ok": True, "text": text}
    findings = contract.check(environment, jax.random.key(0))
    is_broken = any(finding.severity == "error" for finding in findings)
    limit = time_limit(environment, environment.default_params)
    actions = registration.describe_space(environment.action_space)
    text += [
        "",
        f"{environment.name}: observation {environment.observation_shape} "
        f"{environment.observation_dtype}, action {actions}, "
        + (f"time limit {limit} steps" if limit else "no time limit"),
    ]
    for finding in findings:
        text += [f"  {finding.severity}: {finding.what}", f"    {finding.remedy}"]
    if not findings:
        text.append("  keeps the contract: nothing found.")
    return {
        **found,
        "env": environment.name,
        "findings": [finding._asdict() for finding in findings],
        "ok": not is_broken,
        "text": text,
    }


def describe_bytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**30:.1f} GiB"
