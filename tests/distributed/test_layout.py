"""The layout that a run takes, and how seeds are filled up to its devices.

What the layouts compute is compared in test_programs.py.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import pytest

from ppo_jax.config.config import Config
from ppo_jax.distributed.layout import Layout, choose_layout


class Device(NamedTuple):
    platform: str
    id: int


def machine(monkeypatch: pytest.MonkeyPatch, platform: str, count: int) -> None:
    devices = [Device(platform, i) for i in range(count)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)


SMALL = Config(num_envs=8, rollout_length=32, num_minibatches=1)  # minibatches of 256
MEDIUM = Config(num_envs=8, rollout_length=64, num_minibatches=1)  # of 512
LARGE = Config(num_envs=8, rollout_length=128, num_minibatches=1)  # of 1,024
WIDE = Config(num_envs=2048, rollout_length=128, num_minibatches=4)  # of 65,536


@pytest.mark.parametrize(
    "platform, count, config, num_seeds, kind, num_devices",
    [
        ("cpu", 2, SMALL, 16, "vmap", 2),
        ("cpu", 2, LARGE, 16, "map", 2),
        ("cpu", 2, LARGE, 1, "envs", 2),
        ("cpu", 2, MEDIUM, 1, "map", 1),  # a minibatch too small to be worth spreading
        ("cpu", 4, LARGE, 1, "map", 1),  # over so many devices
        ("cpu", 2, WIDE, 1, "envs", 2),
        ("cpu", 2, WIDE, 2, "map", 2),
        ("cpu", 3, WIDE, 1, "map", 1),  # 2,048 environments on 3 devices do not come out even
        ("gpu", 1, LARGE, 32, "vmap", 1),
        ("gpu", 8, LARGE, 32, "vmap", 8),
        ("gpu", 8, WIDE, 4, "envs", 8),
        ("gpu", 8, LARGE, 3, "vmap", 3),
    ],
)
def test_the_layout_follows_the_batch_the_seeds_and_the_devices(
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    count: int,
    config: Config,
    num_seeds: int,
    kind: str,
    num_devices: int,
) -> None:
    machine(monkeypatch, platform, count)
    layout = choose_layout(config, num_seeds)
    assert (layout.kind, len(layout.devices), layout.num_seeds) == (kind, num_devices, num_seeds)


def test_fewer_devices_may_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "gpu", 8)
    assert choose_layout(LARGE, 32, 3).devices == (Device("gpu", 0), Device("gpu", 1), ("gpu", 2))


@pytest.mark.parametrize(
    "kind, num_devices, num_seeds, num_members",
    [("map", 2, 3, 4), ("vmap", 2, 4, 4), ("vmap", 8, 9, 16), ("map", 1, 5, 5), ("envs", 2, 1, 1)],
)
def test_seeds_are_filled_up_to_the_devices_unless_these_share_each_seed(
    kind: str, num_devices: int, num_seeds: int, num_members: int
) -> None:
    layout = Layout(kind, tuple(range(num_devices)), num_seeds)
    assert layout.num_members == num_members
