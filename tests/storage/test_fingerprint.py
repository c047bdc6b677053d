"""What the bits depend on, and the sentence about what changed."""

from __future__ import annotations

import json

import jax
import pytest

from ppo_jax.distributed.layout import Layout
from ppo_jax.storage.fingerprint import differences, fingerprint, source_digest


def made(kind: str = "vmap", seeds: int = 3, devices: int = 2) -> dict:
    return fingerprint(Layout(kind, tuple(jax.local_devices()[:devices]), seeds))


def test_it_names_all_that_the_bits_are_known_to_depend_on() -> None:
    found = made()
    assert found["jax"] == jax.__version__
    assert (found["platform"], found["devices"], found["layout"]) == ("cpu", 2, "vmap")
    assert "xla_force_host_platform_device_count" in found["XLA flags"]
    assert {"jaxlib", "device kind", "cores", "processor", "64 bit"} <= set(found)
    assert len(source_digest()) == 12
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    "kind, seeds, devices, width",
    [("vmap", 3, 2, 2), ("vmap", 4, 1, 4), ("map", 2, 2, 1), ("envs", 3, 2, 3)],
)
def test_the_width_is_the_members_that_a_device_has(
    kind: str, seeds: int, devices: int, width: int
) -> None:
    assert made(kind, seeds, devices)["population width"] == width


def test_nothing_is_said_where_nothing_changed() -> None:
    assert differences(made(), made()) is None


def test_what_changed_is_named_with_both_values() -> None:
    sentence = differences({**made(), "jax": "0.9.0", "cores": 64}, made())
    assert sentence is not None
    assert f"jax is {jax.__version__!r} and was '0.9.0'" in sentence
    assert "and was 64" in sentence
    assert "may differ in the last bits" in sentence
    assert differences({}, {"new": 1}) is not None
