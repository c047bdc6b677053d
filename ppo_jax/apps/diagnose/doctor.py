"""Report on this machine, and on an environment's breaches of the contract."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import jax

from ppo_jax.apps.diagnose import contract
from ppo_jax.apps.diagnose.contract_play import Finding
from ppo_jax.apps.diagnose.random_play import NUM_ENVS
from ppo_jax.config.options import RunOptions
from ppo_jax.distributed.layout import local_devices
from ppo_jax.distributed.memory import num_bytes, show_bytes
from ppo_jax.envs import leaves, registration
from ppo_jax.envs.interface import Environment, time_limit
from ppo_jax.runtime import devices
from ppo_jax.storage.manifest import make_manifest

MANY = 4096  # environments, for a sum that people compare with their memory


def report(env: Any = None, num_envs: int = MANY) -> dict[str, Any]:
    """Devices, versions and memory; with `env` also every breach of the environment contract.

    Args:
        num_envs: environments whose memory is added up.

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
        f"cores     {found['cores']}; memory {show_bytes(memory)}",
        f"cache     {found['compilation_cache']}",
    ]
    if found["device_memory_bytes"] is not None:
        text.insert(4, f"device    memory {show_bytes(found['device_memory_bytes'])}")
    if environment is None:
        return {**found, "ok": True, "text": text}
    findings, speed = contract.examine(environment, jax.random.key(0))
    is_sound = all(finding.severity != "error" for finding in findings)
    return {
        **found,
        "env": environment.name,
        **(facts := environment_facts(environment, num_envs)),
        "steps_per_second": speed,
        "findings": [finding._asdict() for finding in findings],
        "ok": is_sound,
        "text": [*text, "", *environment_lines(environment, findings, facts, speed)],
    }


def environment_facts(environment: Environment, num_envs: int) -> dict[str, Any]:
    """Sizes and abilities of an environment that `registration.make` accepts, by tracing alone."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    _, state = jax.eval_shape(environment.reset, key, environment.default_params)
    state_bytes = None if environment.host else num_bytes(state)  # a host's state is Python's
    observation_bytes = num_bytes(environment.observation)
    return {
        "state_bytes": state_bytes,
        "observation_bytes": observation_bytes,
        "num_envs": num_envs,
        "num_envs_bytes": num_envs * ((state_bytes or 0) + observation_bytes),
        "can_be_drawn": environment.render is not None,
        "evaluation_mode": environment.evaluation_mode,
        "metrics": leaves.metric_names(environment),
    }


def fact_lines(facts: dict[str, Any]) -> list[str]:
    """Sizes and abilities of an environment, for people."""
    state, observation = facts["state_bytes"], facts["observation_bytes"]
    held = "its state is outside jax" if state is None else f"state {state:,} bytes"
    metrics = facts["metrics"]
    more = f" and {len(metrics) - 3} more" if len(metrics) > 3 else ""
    return [
        f"  one environment: {held}, observation {observation:,} bytes; "
        f"{facts['num_envs']:,} of them: {show_bytes(facts['num_envs_bytes'])}",
        f"  evaluation: {facts['evaluation_mode']} actions; "
        f"{'can' if facts['can_be_drawn'] else 'cannot'} be drawn (eval --video); metrics of its "
        f"own: {', '.join(metrics[:3]) + more if metrics else 'none'}",
    ]


def environment_lines(
    environment: Environment,
    findings: Sequence[Finding],
    facts: dict[str, Any],
    speed: float | None = None,
) -> list[str]:
    """An environment and what was found, for people.

    Args:
        facts: of `environment_facts`.
        speed: of a random play, in steps a second.
    """
    limit = time_limit(environment, environment.default_params)
    actions = registration.describe_space(environment.action_space)
    lines = [
        f"{environment.name}: observation {environment.observation_shape} "
        f"{environment.observation_dtype}, action {actions}, "
        + (f"time limit {limit} steps" if limit else "no time limit"),
    ]
    lines += fact_lines(facts)
    if speed is not None:
        rate = f"{float(f'{speed:.3g}'):,.0f} steps/s"
        lines.append(f"  random play of {NUM_ENVS} environments here: {rate}")
    for finding in findings:
        lines += [f"  {finding.severity}: {finding.what}", f"    {finding.remedy}"]
    return lines if findings else [*lines, "  keeps the contract: nothing found."]
