"""The choice of the kernels' forms."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest

from ppo_jax.kernels import backend
from ppo_jax.kernels.backend import Backend


@pytest.mark.parametrize(
    ("platform", "expected"),
    [("cpu", Backend.CPU), ("tpu", Backend.TPU), ("gpu", Backend.GPU), ("cuda", Backend.GPU)],
)
def test_the_form_follows_the_platform(monkeypatch, platform, expected):
    monkeypatch.setattr(backend, "_forced", None)  # whatever the environment asks for
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert backend.current() is expected
    with backend.on(SimpleNamespace(platform=platform)):
        monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
        assert backend.current() is expected
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert backend.is_cpu() == (platform == "cpu")
    assert backend.is_accelerator() == (platform != "cpu")


def test_a_form_is_used_within_a_block_and_no_longer():
    before = backend.current()
    with backend.use("gpu"):
        assert backend.current() is Backend.GPU
        with backend.use(Backend.CPU):
            assert backend.is_cpu()
        assert backend.is_accelerator()
    assert backend.current() is before
    with pytest.raises(RuntimeError, match="within"), backend.use("plain"):
        raise RuntimeError("within")
    assert backend.current() is before


def test_the_plain_form_is_neither_a_cpus_nor_an_accelerators():
    with backend.use("plain"):
        assert not backend.is_cpu()
        assert not backend.is_accelerator()
        for name in ("cpu", "gpu", "tpu"):
            with backend.on(SimpleNamespace(platform=name)):
                assert backend.current() is Backend.PLAIN


def test_a_form_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="vulkan"), backend.use("vulkan"):
        pass


@pytest.mark.parametrize(
    ("given", "expected"), [("plain", "plain"), ("auto", "cpu"), (None, "cpu")]
)
def test_the_environment_may_ask_for_the_plain_forms(given, expected):
    program = "from ppo_jax.kernels import backend; print(backend.current().value)"
    environment = {name: x for name, x in os.environ.items() if name != backend.VARIABLE}
    environment |= {"JAX_PLATFORMS": "cpu"} | ({backend.VARIABLE: given} if given else {})
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_an_unknown_choice_in_the_environment_is_refused_with_the_words():
    command = [sys.executable, "-m", "ppo_jax", "train", "CartPole-v1", "--total-env-steps", "1024"]
    environment = os.environ | {backend.VARIABLE: "fast"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    sentence = "PPO_JAX_KERNELS='fast' is not one of auto, plain. Unset it."
    assert done.stderr.strip().endswith(sentence)
