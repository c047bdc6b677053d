"""Settings without effect are named."""

from __future__ import annotations

import numpy as np

from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.config.unread import without_effect


def test_settings_that_nothing_reads_are_named() -> None:
    assert without_effect(Config(), Hyper()) == []
    config = Config(memory_size=64, kl_direction="new-old")
    assert without_effect(config, Hyper(kl_coef=50.0, kl_target=Schedule(1.0, 2.0))) == [
        "kl_coef, kl_target, kl_direction have no effect with objective clip",
        "memory_size has no effect with memory none",
    ]
    assert without_effect(Config(objective="ppo-kl"), Hyper(kl_coef=50.0)) == []
    assert without_effect(Config(optimizer="my:adam"), Hyper(momentum=0.5)) == []
    torch = Config(optimizer="rmsprop_torch")
    assert without_effect(torch, Hyper(adam_epsilon=1e-3, rmsprop_decay=0.9)) == []
    config = Config(objective="trpo", measure_gradient_cosine=True)
    assert without_effect(config, Hyper(kl_stop=0.1, kl_lr_target=0.1)) == [
        "kl_stop, kl_lr_target, measure_gradient_cosine have no effect with objective trpo"
    ]
    assert without_effect(Config(), Hyper(momentum=np.ones(3))) == [
        "momentum has no effect with optimizer adam"
    ]
