"""Hints for mistyped words."""

from __future__ import annotations

from ppo_jax.config.errors import nearest


def test_nearest_ignores_case_and_says_nothing_of_strangers() -> None:
    assert nearest("cartpole-V1", ["CartPole-v1", "Catch-bsuite"]).startswith(
        " Nearest: CartPole-v1"
    )
    assert nearest("xyz", ["CartPole-v1"]) == ""
