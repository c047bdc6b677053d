"""Memory of this machine and of its devices."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions
from ppo_jax.distributed.memory import Forecast
from ppo_jax.runtime import devices


def device(stats: dict[str, int] | None) -> Any:
    return SimpleNamespace(memory_stats=lambda: stats)


def test_free_memory_is_what_the_kernel_calls_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    monkeypatch.setattr(devices, "_MEMINFO", meminfo)
    monkeypatch.setattr(devices, "_CGROUP", tmp_path)
    meminfo.write_text("MemTotal: 99 kB\nMemAvailable:   12 kB\n")
    assert devices.free_memory_bytes() == 12 * 1024
    for text in ("MemTotal: 99 kB\n", "MemAvailable: much\n", "MemAvailable:\n"):
        meminfo.write_text(text)
        assert devices.free_memory_bytes() == devices.memory_bytes()
    meminfo.unlink()
    assert devices.free_memory_bytes() == devices.memory_bytes()
    monkeypatch.setattr(devices, "memory_bytes", lambda: None)
    assert devices.free_memory_bytes() == 8 * 2**30


def test_the_limit_of_a_container_counts_if_it_leaves_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemAvailable:   12 kB\n")
    monkeypatch.setattr(devices, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(devices, "_CGROUP", tmp_path)
    (tmp_path / "memory.current").write_text("9000\n")
    for limit, free in (("10000", 1000), ("99999", 12 * 1024), ("8000", 0), ("max", 12 * 1024)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert devices.free_memory_bytes() == free


NEEDED = Forecast(7, 2, True, 100, 0, 50, 0, 0, 0, saves_beside=False)


def test_what_does_not_fit_is_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert NEEDED.main == 300  # the states, their snapshot and the file's bytes
    monkeypatch.setattr(devices, "free_memory_bytes", lambda: 299)
    with pytest.raises(InputError, match=r"7 members need about 300 B .* 299 B are free: take"):
        devices.require_memory(NEEDED, device(None))
    devices.require_memory(NEEDED, device(None), held=100)
    other = NEEDED._replace(is_cpu=False)
    assert (other.main, other.device) == (200, 100)
    devices.require_memory(other, device({"bytes_limit": 100}))
    with pytest.raises(InputError, match=r"need about 100 B on each of 2 devices, and 99 B"):
        devices.require_memory(other, device({"bytes_limit": 99}))


def test_jax_without_compilation_is_refused() -> None:
    with jax.disable_jit(), pytest.raises(InputError, match="unset JAX_DISABLE_JIT"):
        devices.prepare_jax(RunOptions())


def test_an_accelerator_has_its_limit_less_what_is_in_use() -> None:
    assert devices.free_device_bytes(device({"bytes_limit": 100, "bytes_in_use": 30}), 4) == 70
    assert devices.free_device_bytes(device({"bytes_limit": 100}), 4) == 100


def test_the_devices_of_a_cpu_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "free_memory_bytes", lambda: 1000)
    assert devices.free_device_bytes(device(None), 4) == 250
    assert devices.free_device_bytes(jax.local_devices()[0], 2) == 500
    assert devices.device_memory_bytes() is None


@pytest.mark.parametrize(
    "given, there, used, left",
    [
        (None, 4, 2, "0,1"),
        (None, 2, 2, None),
        ("3, GPU-7f,1", 4, 2, "3,GPU-7f"),
        ("MIG-1/2/0", 4, 1, "MIG-1/2/0"),
        ("", 4, 1, ""),  # no GPU at all
    ],
)
def test_gpus_that_are_not_used_are_hidden_before_jax_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: str | None,
    there: int,
    used: int,
    left: str | None,
) -> None:
    for i in range(there):
        (tmp_path / f"0000:0{i}:00.0").mkdir()
    monkeypatch.setattr(devices, "_GPUS", tmp_path)
    monkeypatch.delenv(devices.VISIBLE, raising=False)
    if given is not None:
        monkeypatch.setenv(devices.VISIBLE, given)
    devices.leave_unused(lambda count: min(count, used))
    assert os.environ.get(devices.VISIBLE) == left
