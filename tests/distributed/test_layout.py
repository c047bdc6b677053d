"""The layout that a run takes, and how seeds are filled up to its devices.

`test_programs.py` compares the results of the layouts.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import pytest

from ppo_jax.config.config import Config
from ppo_jax.config.errors import InputError
from ppo_jax.distributed import hosts
from ppo_jax.distributed.layout import Layout, Wanted, choose_layout, devices_needed
from ppo_jax.envs import registration


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
BUFFERED = Config(num_envs=2048, rollout_length=128, num_minibatches=4, start_states=64)
VAST = Config(num_envs=8192, rollout_length=128, num_minibatches=4)  # of 262,144


@pytest.mark.parametrize(
    "platform, count, config, num_seeds, kind, mesh",
    [
        ("cpu", 2, SMALL, 16, "vmap", (2, 1)),
        ("cpu", 2, LARGE, 16, "map", (2, 1)),
        ("cpu", 2, LARGE, 1, "map", (1, 2)),
        ("cpu", 2, MEDIUM, 1, "map", (1, 1)),  # a minibatch too small to be worth spreading
        ("cpu", 4, LARGE, 1, "map", (1, 2)),  # over so many devices: over fewer
        ("cpu", 2, WIDE, 1, "map", (1, 2)),
        ("cpu", 2, WIDE, 2, "map", (2, 1)),
        ("cpu", 2, BUFFERED, 1, "map", (1, 1)),  # one buffer of starts for all
        ("cpu", 4, WIDE, 2, "map", (2, 2)),  # seeds before environments, and both
        ("cpu", 3, WIDE, 1, "map", (1, 2)),  # 2,048 environments cannot be split over 3 devices
        ("gpu", 1, LARGE, 32, "vmap", (1, 1)),
        ("gpu", 8, LARGE, 32, "vmap", (8, 1)),
        ("gpu", 8, LARGE, 9, "vmap", (5, 1)),  # two rounds, as on eight, with one idle place
        ("gpu", 8, WIDE, 4, "vmap", (4, 2)),
        ("gpu", 8, WIDE, 1, "vmap", (1, 2)),  # minibatches of 32,768 rows a device and no fewer
        ("gpu", 8, VAST, 1, "vmap", (1, 8)),
        ("gpu", 8, VAST, 3, "vmap", (3, 2)),
        ("gpu", 8, LARGE, 3, "vmap", (3, 1)),
    ],
)
def test_the_layout_follows_the_batch_the_seeds_and_the_devices(
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    count: int,
    config: Config,
    num_seeds: int,
    kind: str,
    mesh: tuple[int, int],
) -> None:
    machine(monkeypatch, platform, count)
    layout = choose_layout(config, num_seeds)
    assert (layout.kind, layout.num_places, layout.num_shares) == (kind, *mesh)
    assert len(layout.devices) == mesh[0] * mesh[1]
    assert layout.num_blocks == (8 if mesh[1] > 1 else 1)
    if platform == "gpu":
        assert devices_needed(config, num_seeds, count, Wanted()) == mesh[0] * mesh[1]


def test_an_environment_with_heavy_steps_is_spread_from_smaller_minibatches_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heavy = registration.make("CartPole-v1")._replace(is_heavy=True)
    for platform, num_minibatches, shares in (("cpu", 2, 2), ("cpu", 4, 1), ("gpu", 1, 1)):
        machine(monkeypatch, platform, 2)
        config = dataclasses.replace(SMALL, env=heavy, num_minibatches=num_minibatches)
        assert choose_layout(config, 1).num_shares == shares
        assert choose_layout(config, 2).num_shares == 1  # seeds before environments


def test_fewer_devices_may_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "gpu", 8)
    assert choose_layout(LARGE, 32, 3).devices == (Device("gpu", 0), Device("gpu", 1), ("gpu", 2))


def test_a_mesh_may_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "gpu", 8)
    layout = choose_layout(SMALL, 3, wanted=Wanted(mesh=(2, 4)))
    assert (layout.mesh_words, layout.num_members, layout.num_blocks) == ("seed=2,env=4", 4, 8)
    for mesh, words in (((3, 4), "takes 12 devices, and there are 8"), ((1, 3), "cannot divide")):
        with pytest.raises(InputError, match=words):
            choose_layout(SMALL, 3, wanted=Wanted(mesh=mesh))
    with pytest.raises(InputError, match="start_states=64 makes one buffer"):
        choose_layout(BUFFERED, 1, wanted=Wanted(mesh=(1, 2)))


@pytest.mark.parametrize(
    "count, mesh, num_blocks, shares, blocks",
    [
        (1, None, 8, 1, 8),
        (4, None, 8, 4, 8),
        (2, None, 1, 1, 1),  # it began on one device: its draws are those of one block
        (4, None, 2, 2, 2),
        (2, (1, 2), 1, 2, 8),  # by hand: other draws from here on
    ],
)
def test_a_run_goes_on_with_its_blocks_of_environments_on_other_devices(
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    mesh: tuple[int, int] | None,
    num_blocks: int,
    shares: int,
    blocks: int,
) -> None:
    machine(monkeypatch, "cpu", count)
    layout = choose_layout(WIDE, 1, wanted=Wanted(None, mesh, num_blocks))
    assert (layout.num_shares, layout.num_blocks) == (shares, blocks)


@pytest.mark.parametrize(
    "kind, num_devices, shares, num_seeds, num_members",
    [
        *[("map", 2, 1, 3, 4), ("vmap", 2, 1, 4, 4), ("vmap", 8, 1, 9, 16), ("map", 1, 1, 5, 5)],
        *[("map", 2, 2, 1, 1), ("map", 8, 2, 5, 8)],
    ],
)
def test_seeds_are_filled_up_to_the_places_that_the_mesh_has_for_them(
    kind: str, num_devices: int, shares: int, num_seeds: int, num_members: int
) -> None:
    layout = Layout(kind, tuple(range(num_devices)), num_seeds, shares)
    assert layout.num_members == num_members


class Remote(NamedTuple):
    platform: str
    id: int
    process_index: int


@pytest.mark.parametrize(
    "config, num_seeds, mesh, taken",
    [
        (LARGE, 1, (1, 2), [0, 4]),  # one device of each host
        (SMALL, 3, (4, 1), [0, 1, 4, 5]),  # a fourth member fills up
        (SMALL, 8, (8, 1), list(range(8))),
        (WIDE, 2, (2, 4), list(range(8))),
        (MEDIUM, 1, None, []),
    ],
)
def test_of_each_host_as_many_devices_are_taken(
    monkeypatch: pytest.MonkeyPatch,
    config: Config,
    num_seeds: int,
    mesh: tuple[int, int] | None,
    taken: list[int],
) -> None:
    devices = [Remote("cpu", i, i // 4) for i in (0, 4, 1, 5, 2, 6, 3, 7)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(hosts, "count", lambda: 2)
    monkeypatch.setattr(hosts, "index", lambda: 1)
    if mesh is None:
        with pytest.raises(InputError, match="do not keep 2 hosts busy"):
            choose_layout(config, num_seeds)
        return
    layout = choose_layout(config, num_seeds)
    assert (layout.num_places, layout.num_shares) == mesh
    assert sorted(device.id for device in layout.devices) == taken
    assert [device.process_index for device in layout.devices] == sorted(
        device.process_index for device in layout.devices
    )
    assert layout.own_device.process_index == 1
    with pytest.raises(InputError, match="2 hosts cannot share"):
        choose_layout(config, num_seeds, wanted=Wanted(mesh=(3, 1)))
