"""Compile groups and packs: settings that share a program, and members that fit a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ppo_jax.apps.sweep.axes import Values, apply, describe, is_numeric
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.validate import validate
from ppo_jax.distributed.memory import show_bytes
from ppo_jax.runtime import signals


class Group(NamedTuple):
    """Settings that share one compiled program."""

    config: Config
    settings: tuple[int, ...]  # places in the sweep's list of settings
    words: str  # its difference from other groups


class Member(NamedTuple):
    """One training run: a setting with a seed."""

    setting: int
    seed: int


class Memory(NamedTuple):
    """Bytes that one device needs for its share of a pack, at the peak; see `memory.Forecast`."""

    state: int  # parameters, optimiser, environments
    outputs: int  # metrics of a chunk
    working: int  # the rest: rollout, batch, gradients, copies while a checkpoint is written

    @property
    def total(self) -> int:
        return self.state + self.outputs + self.working


def compile_groups(config: Config, hyper: Hyper, settings: Sequence[Values]) -> list[Group]:
    """Group the settings by their compiled program; every setting is validated.

    Raises:
        InputError: a setting cannot run; the message begins with it.
    """
    found: list[tuple[Config, list[int]]] = []
    for place, values in enumerate(settings):
        signals.check()
        one, numbers = apply(config, hyper, values)
        try:
            validate(one, numbers)
        except InputError as error:
            raise InputError(f"setting {describe(values)}: {error}") from None
        for other, places in found:  # a Config may hold objects that have no hash
            if other == one:
                places.append(place)
                break
        else:
            found.append((one, [place]))
    return [Group(one, tuple(places), group_words(settings[places[0]])) for one, places in found]


def group_words(values: Values) -> str:
    """Describe a group by one of its settings: the values that shape the program."""
    shapes = {name: value for name, value in values.items() if not is_numeric(name)}
    return describe(shapes) or "all settings"


def members_of(group: Group, seed: int, num_seeds: int) -> list[Member]:
    """List all runs of a group, the seeds of a setting side by side."""
    return [Member(setting, seed + i) for setting in group.settings for i in range(num_seeds)]


def packs_of(members: Sequence[Member], width: int) -> list[list[Member]]:
    """Split `members` into the fewest packs of at most `width`, of nearly equal size."""
    count = -(-len(members) // width)
    even = -(-len(members) // count)
    return [list(members[i : i + even]) for i in range(0, len(members), even)]


def largest_pack(
    need: Callable[[int], Memory], num_members: int, num_devices: int, limit: int, what: str
) -> int:
    """Find the most members, at most `num_members`, whose program fits `limit` bytes per device.

    Args:
        need: members -> memory of one device, found by compiling. It is called once if everything
            fits. Otherwise it is called for one member per device, too, as memory grows linearly.
        what: the program in words, for the error message.

    Raises:
        InputError: not even one member fits; the message shows the arithmetic.
    """
    full = need(num_members).total
    if full <= limit:
        return num_members
    one = need(min(num_devices, num_members))
    if one.total > limit:
        raise InputError(
            f"One member of {what} needs {show_bytes(one.total)} on a device (state "
            f"{show_bytes(one.state)} + metrics {show_bytes(one.outputs)} + rollout, gradients and "
            f"copies {show_bytes(one.working)}), and the device offers {show_bytes(limit)}: lower "
            "num_envs, rollout_length or hidden_sizes, or raise --device-memory if it has more."
        )
    per_device = -(-num_members // num_devices)
    slope = max((full - one.total) / max(per_device - 1, 1), 1.0)
    width = (1 + int((limit - one.total) / slope)) * num_devices
    while width > num_devices and need(min(width, num_members)).total > limit:
        width = max(num_devices, int(0.9 * width / num_devices) * num_devices)
    return min(width, num_members)
