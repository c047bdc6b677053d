"""Compile groups, packs, and how many members a device is forecast to hold."""

from __future__ import annotations

import pytest

from ppo_jax.apps.sweep import groups
from ppo_jax.apps.sweep.groups import Group, Member, Memory
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError

CONFIG = Config(total_env_steps=10_000)


def test_numbers_share_a_program_and_shapes_do_not() -> None:
    settings = [
        {"gamma": 0.9, "num_envs": 8},
        {"gamma": 0.9, "num_envs": 16},
        {"gamma": 0.8, "num_envs": 8},
    ]
    found = groups.compile_groups(CONFIG, Hyper(), settings)
    assert [(group.config.num_envs, group.settings) for group in found] == [
        (8, (0, 2)),
        (16, (1,)),
    ]
    assert found[1].words == "num_envs=16"


def test_a_combination_that_cannot_run_is_named() -> None:
    with pytest.raises(
        InputError, match=r"setting num_minibatches=3, gamma=0.9: .*does not divide"
    ):
        groups.compile_groups(CONFIG, Hyper(), [{"num_minibatches": 3, "gamma": 0.9}])


def test_seeds_of_a_setting_are_neighbours() -> None:
    found = groups.members_of(Group(CONFIG, (4, 7), ""), seed=10, num_seeds=2)
    assert found == [Member(4, 10), Member(4, 11), Member(7, 10), Member(7, 11)]


@pytest.mark.parametrize(
    "count, width, sizes", [(10, 10, [10]), (10, 4, [4, 4, 2]), (9, 5, [5, 4])]
)
def test_packs_are_few_and_nearly_equal(count: int, width: int, sizes: list[int]) -> None:
    members = [Member(i, 0) for i in range(count)]
    packs = groups.packs_of(members, width)
    assert [len(pack) for pack in packs] == sizes
    assert [member for pack in packs for member in pack] == members


class Device:
    """A program that needs 100 bytes and 10 a member of each of `count` devices."""

    def __init__(self, count: int) -> None:
        self.count, self.asked = count, []

    def need(self, members: int) -> Memory:
        self.asked.append(members)
        return Memory(10 * -(-members // self.count), 0, 100)


def test_everything_that_fits_is_one_pack_and_one_compilation() -> None:
    device = Device(2)
    assert groups.largest_pack(device.need, 40, 2, 300, "it") == 40  # 20 a device: 300 bytes
    assert device.asked == [40]


def test_the_largest_pack_fits_and_one_more_would_not() -> None:
    device = Device(2)
    assert groups.largest_pack(device.need, 1000, 2, 299, "it") == 2 * 19  # 290 bytes a device
    assert device.need(2 * 20).total > 299


def test_a_device_too_small_for_one_member_says_the_arithmetic() -> None:
    with pytest.raises(InputError, match=r"state 10 B \+ metrics 0 B \+ .* 100 B.*offers 109 B"):
        groups.largest_pack(Device(1).need, 5, 1, 109, "num_envs=8")


def test_bytes_are_shown_with_three_digits() -> None:
    assert [groups.show_bytes(n) for n in (812, 2048, 1_600_000, 43 * 2**30)] == [
        *("812 B", "2 KiB", "1.53 MiB", "43 GiB")
    ]
