"""XLA's options by platform and driver."""

from __future__ import annotations

import jax
import pytest

from ppo_jax.kernels import compiler


@pytest.mark.parametrize(
    ("platform", "driver", "flags", "expected"),
    [
        ("gpu", 12_080, "", compiler.GRAPHS),
        ("gpu", 12_040, "", None),  # an older driver
        ("gpu", 0, "", None),  # no driver, or not NVIDIA's
        ("gpu", 13_000, "--xla_gpu_enable_command_buffer=", None),  # the user's own choice
        ("tpu", 13_000, "", None),
    ],
)
def test_a_gpus_graphs_hold_loops_if_its_driver_can_and_the_user_chose_nothing_else(
    monkeypatch, platform, driver, flags, expected
):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(compiler, "driver_version", lambda: driver)
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert compiler.compiler_options(1) == expected


def test_a_machine_without_a_driver_has_version_0(monkeypatch):
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(compiler.ctypes, "CDLL", missing)
    assert compiler.driver_version.__wrapped__() == 0
