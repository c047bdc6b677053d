"""Memory of this machine and of its devices."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from ppo_jax.runtime import devices


def device(stats: dict[str, int] | None) -> Any:
    return SimpleNamespace(memory_stats=lambda: stats)


def test_free_memory_is_what_the_kernel_calls_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    monkeypatch.setattr(devices, "_MEMINFO", meminfo)
    meminfo.write_text("MemTotal: 99 kB\nMemAvailable:   12 kB\n")
    assert devices.free_memory_bytes() == 12 * 1024
    for text in ("MemTotal: 99 kB\n", "MemAvailable: much\n", "MemAvailable:\n"):
        meminfo.write_text(text)
        assert devices.free_memory_bytes() == devices.memory_bytes()
    meminfo.unlink()
    assert devices.free_memory_bytes() == devices.memory_bytes()
    monkeypatch.setattr(devices, "memory_bytes", lambda: None)
    assert devices.free_memory_bytes() == 8 * 2**30


def test_an_accelerator_has_its_limit_less_what_is_in_use() -> None:
    assert devices.free_device_bytes(device({"bytes_limit": 100, "bytes_in_use": 30}), 4) == 70
    assert devices.free_device_bytes(device({"bytes_limit": 100}), 4) == 100


def test_the_devices_of_a_cpu_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "free_memory_bytes", lambda: 1000)
    assert devices.free_device_bytes(device(None), 4) == 250
    assert devices.free_device_bytes(jax.local_devices()[0], 2) == 500
    assert devices.device_memory_bytes() is None
