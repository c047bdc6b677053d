"""Peers that spread their environments over devices by `jax.pmap`: layouts, and a missing verb.

`plain` is one device, with and without XLA's own threads in matrix products; `devices` is one
device for each core.
"""

from __future__ import annotations

from typing import Any

from cases import Case


def layouts(case: Case) -> tuple[str, ...]:
    return ("plain", "plain-eigen-off", "devices")


def restore_replication() -> None:
    """Put back `jax.device_put_replicated`, which jax 0.10 removed and these peers still call."""
    import jax

    def replicated(tree: Any, devices: list[Any]) -> Any:
        mesh = jax.sharding.Mesh(devices, ("devices",))
        spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("devices"))
        stacked = jax.tree.map(lambda leaf: jax.numpy.stack([leaf] * len(devices)), tree)
        return jax.device_put(stacked, spread)

    if not hasattr(jax, "device_put_replicated"):
        jax.device_put_replicated = replicated  # type: ignore[attr-defined]
