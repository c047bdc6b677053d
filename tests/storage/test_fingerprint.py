"""Facts that the bits depend on, and the sentence about those that changed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from ppo_jax.config.config import Config
from ppo_jax.distributed.layout import Layout
from ppo_jax.storage.fingerprint import (
    differences,
    fingerprint,
    other_programs,
    own_sources,
    recorded_blocks,
    source_digest,
    spaces,
)


def made(kind: str = "vmap", seeds: int = 3, devices: int = 2, shares: int = 1) -> dict:
    return fingerprint(Layout(kind, tuple(jax.local_devices()[:devices]), seeds, shares, 4))


def test_it_names_all_that_the_bits_are_known_to_depend_on() -> None:
    found = made()
    assert found["jax"] == jax.__version__
    assert (found["platform"], found["devices"], found["layout"]) == ("cpu", 2, "vmap")
    assert "xla_force_host_platform_device_count" in found["XLA flags"]
    assert {"jaxlib", "device kind", "cores", "processor", "64 bit"} <= set(found)
    assert len(source_digest()) == 12
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    "kind, seeds, devices, shares, width",
    [("vmap", 3, 2, 1, 2), ("vmap", 4, 1, 1, 4), ("map", 2, 2, 1, 1), ("map", 3, 2, 2, 3)],
)
def test_the_width_is_the_members_that_a_device_has(
    kind: str, seeds: int, devices: int, shares: int, width: int
) -> None:
    found = made(kind, seeds, devices, shares)
    assert found["population width"] == width
    assert found.get("mesh") == ("seed=1,env=2" if shares == 2 else None)


def test_nothing_is_said_where_nothing_changed() -> None:
    assert differences(made(), made()) is None


def test_what_changed_is_named_with_both_values() -> None:
    sentence = differences({**made(), "jax": "0.9.0", "cores": 64}, made())
    assert sentence is not None
    assert f"jax is {jax.__version__!r} and was '0.9.0'" in sentence
    assert "and was 64" in sentence
    assert "may differ in the last bits" in sentence
    assert differences({}, {"new": 1}) is not None


@pytest.mark.parametrize(
    "recorded, blocks",
    [
        ({"layout": "map", "devices": 4}, 1),
        ({"layout": "envs", "devices": 4}, 4),  # as earlier versions recorded it
        ({"layout": "map", "devices": 1, "environment blocks": 8}, 8),
    ],
)
def test_the_blocks_that_decide_the_draws_are_recorded(recorded: dict, blocks: int) -> None:
    assert recorded_blocks(recorded) == blocks
    other = differences(recorded, {**recorded, "layout": "map", "environment blocks": 2})
    assert other is not None
    assert "follow other random draws" in other
    alike = {**recorded, "layout": "map", "devices": 2, "environment blocks": blocks}
    assert "may differ in the last bits" in str(differences(recorded, alike))


MODULES = {
    "base_of_mine": "class Base:\n    pass\n",
    "mine": "from base_of_mine import Base\nclass Mine(Base):\n    pass\n"
    "def drift(ratio, advantage):\n    return ratio\n"
    "def make():\n    return Mine(), None\n",
}


@pytest.fixture
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("env", ["mine:Mine", "mine:make"])
def test_an_environment_whose_source_has_changed_is_told(own_modules: Path, env: str) -> None:
    """Its own module counts, and that of a base class; a drift has an entry of its own."""
    config = Config(env=env)
    saved = own_sources(config)
    assert list(saved) == ["env source"]
    assert other_programs(saved, own_sources(config)) is None
    for name, text in MODULES.items():
        (own_modules / f"{name}.py").write_text(text + "x = 1\n")
        sentence = other_programs(saved, own_sources(config))
        assert sentence is not None
        assert "the run's own environment is not the one" in sentence
        (own_modules / f"{name}.py").write_text(text)
    assert differences({**made(), **saved}, made()) is None  # a sentence of its own says it
    given = own_sources(Config(drift="mine:drift"))
    assert list(given) == ["drift source"]
    assert other_programs({}, saved) is None  # an earlier version recorded nothing


def test_what_is_not_the_users_own_has_no_source() -> None:
    config = Config(env="CartPole-v1")
    assert own_sources(config) == {}
    assert own_sources(Config(env="probe:action-choice")) == {}
    assert spaces(config) == {"action": "discrete 2", "observation": "float32 [4]"}
    assert spaces(Config(env="Pendulum-v1"))["action"] == "box [1]"


def test_an_object_that_a_module_only_imported_is_not_called(own_modules: Path) -> None:
    (own_modules / "borrows.py").write_text("from lends import leave\n")
    (own_modules / "lends.py").write_text("called = []\ndef leave(): called.append(1)\n")
    own_sources(Config(env="borrows:leave"))
    assert sys.modules["lends"].called == []
    own_sources(Config(env="lends:leave"))
    assert sys.modules["lends"].called == [1]
