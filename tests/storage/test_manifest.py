"""Facts of the program for the manifest and the fingerprint, from one list of packages."""

from __future__ import annotations

from importlib.metadata import version

import jax
import pytest

from ppo_jax.distributed.layout import Layout
from ppo_jax.storage import manifest
from ppo_jax.storage.fingerprint import fingerprint


def test_manifest_and_fingerprint_name_the_same_packages() -> None:
    versions = manifest.make_manifest(jax.local_devices())["versions"]
    finger = fingerprint(Layout("vmap", tuple(jax.local_devices()[:1]), 1))
    assert set(manifest.PACKAGES) <= set(versions)
    assert {name: finger[name] for name in versions} == versions
    assert versions["numpy"] == version("numpy")


def test_a_package_that_is_not_installed_has_no_version(monkeypatch) -> None:
    monkeypatch.setattr(manifest, "PACKAGES", ("jax", "no-such-package"))
    monkeypatch.setattr(manifest, "SUITES", {})  # other tests may have imported some
    assert manifest.package_versions() == {"jax": version("jax"), "no-such-package": None}


def test_no_password_of_the_command_line_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/bin/ppo-jax", "sweep", "--storage=postgresql://me:se:c/r@et@host/db?password=too"]
    monkeypatch.setattr("sys.argv", words)
    kept = manifest.make_manifest([])["command"]
    assert kept == ["ppo-jax", "sweep", "--storage=postgresql://me:***@host/db?password=***"]


def test_no_folder_of_the_machine_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/home/me/ppo-jax", "train", "runs/a", "--out", "/home/me/b", "--file=/home/me/c.toml"]
    monkeypatch.setattr("sys.argv", words)
    kept = manifest.make_manifest([])["command"]
    assert kept == ["ppo-jax", "train", "runs/a", "--out", "b", "--file=c.toml"]


def test_the_hardware_counts_one_core_in_the_singular(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "processor", lambda: "Chip 9")
    for count, words in ((1, "Chip 9, 1 core"), (2, "Chip 9, 2 cores")):
        monkeypatch.setattr(manifest, "core_count", lambda count=count: count)
        assert manifest.hardware() == words
