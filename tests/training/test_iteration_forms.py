"""Two iterations of every objective: equal in all forms of `kernels`.

The plain form is the definition. The forms of a CPU and of a GPU are traced, and both run on this
machine.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drifts import clip_drift
from forms import TUNED, assert_close, traced
from jax.extend.core import subjaxprs
from lane import lane
from objective_cases import POLICIES

from ppo_jax.config.config import OBJECTIVES, Config, Hyper, Schedule
from ppo_jax.config.config import POLICIES as POLICY_WORDS
from ppo_jax.kernels import backend
from ppo_jax.training import trainer


def own_drift(ratio: jax.Array, advantage: jax.Array) -> jax.Array:
    return clip_drift(ratio, advantage, 0.2)


CASES: dict[str, dict[str, Any]] = {
    "clip, categorical, normalised, cosine": {
        "objective": "clip",
        "normalize_observations": True,
        "normalize_rewards": True,
        "measure_gradient_cosine": True,
    },
    "pg, gaussian": {"objective": "pg", "policy": "gaussian"},
    # 8 permuted environments, and minibatches of 640 rows, which a CPU takes in two chunks.
    "is, multi-categorical, env-rows, chunks": {
        "objective": "is",
        "policy": "multi-categorical",
        "shuffle": "env-rows",
        "rollout_length": 160,
    },
    "kl, gaussian-state-std": {"objective": "kl", "policy": "gaussian-state-std"},
    "kl new-old, hybrid, batch": {
        "objective": "kl",
        "policy": "hybrid",
        "kl_direction": "new-old",
        "normalize_advantages": "batch",
    },
    "dpo, gsde": {"objective": "dpo", "policy": "gsde", "gsde_resample_steps": 3},
    "spo, tanh-gaussian": {
        "objective": "spo",
        "policy": "tanh-gaussian",
        "normalize_observations": True,
    },
    "drift, shared torso, muon": {
        "objective": "drift",
        "drift": own_drift,
        "shared_torso": True,
        "optimizer": "muon",
    },
    # Long conjugate gradients amplify rounding to a thousandth of a step.
    "trpo, gaussian": {"objective": "trpo", "policy": "gaussian", "num_cg_iterations": 4},
    "npg, hybrid, memory": {
        "objective": "npg",
        "policy": "hybrid",
        "num_cg_iterations": 4,
        "memory": "gru",
        "memory_size": 4,
    },
    "clip, memory": {"objective": "clip", "memory": "gru", "memory_size": 4},
}
HYPER = Hyper(
    learning_rate=Schedule(0.02, 0.01),
    kl_target=0.01,
    kl_lr_target=0.02,
    entropy_coef=0.01,
    log_std_init=-0.5,
    schedule_env_steps=256.0,
)


def test_every_objective_and_every_policy_is_among_the_cases() -> None:
    for field, words in (("objective", OBJECTIVES), ("policy", POLICY_WORDS)):
        named = {POLICIES.get(case.get(field), (case.get(field),))[0] for case in CASES.values()}
        assert set(words) - {"auto", "categorical"} <= named


@cache
def start(name: str) -> tuple[Config, trainer.TrainState]:
    """The common initial state of a case: the forms would draw other orthogonal matrices."""
    fields = {"num_envs": 8, "rollout_length": 8, "num_epochs": 2, "num_minibatches": 2}
    fields |= {"policy": "categorical", "hidden_sizes": (8,), **CASES[name]}
    word, space = POLICIES[fields["policy"]]
    config = Config(env=lane(space), **{**fields, "policy": word})
    with backend.use("plain"):
        state = trainer.init(config, HYPER, jax.random.key(0))
    # Larger logits than the first policy's, so that actions depend on observations.
    return config, state._replace(params=jax.tree.map(lambda leaf: 1.5 * leaf, state.params))


@cache
def two_iterations(name: str, form: str) -> Any:
    """State and metrics after each of two iterations in one form."""
    config, state = start(name)
    program = traced(lambda state: trainer.iterate(config, HYPER, state), form, state)
    iterate, found = program.compile({"xla_backend_optimization_level": 0}), []
    for _ in range(2):
        state, metrics = iterate(state)
        found.append((state._replace(key=()), metrics))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("form", TUNED)
@pytest.mark.parametrize("name", CASES)
def test_two_iterations_of_a_tuned_form_are_those_of_the_plain_one(name: str, form: str) -> None:
    plain, tuned = two_iterations(name, "plain"), two_iterations(name, form)
    for (state, metrics), (expected, rows) in zip(tuned, plain, strict=True):
        assert metrics.keys() == rows.keys()
        for key, value in rows.items():
            np.testing.assert_allclose(metrics[key], value, rtol=1e-5, atol=1e-5, err_msg=key)
        assert_close(state, expected, 1e-5)
    (state, metrics), first = tuned[-1], start(name)[1]
    moved = [
        jnp.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (state.params, first.params)))
    ]
    assert max(moved) > 1e-3
    assert metrics["alive"] == 1.0
    assert metrics["num_episodes"] > 0.0


def products(jaxpr: Any) -> list[Any]:
    """The matrix products of a traced program, at any depth."""
    inner = [e for e in jaxpr.eqns if e.primitive.name == "dot_general"]
    return inner + [e for part in subjaxprs(jaxpr) for e in products(part)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip, categorical, normalised, cosine", "trpo, gaussian"])
def test_every_product_of_an_accelerator_names_its_precision(name: str) -> None:
    """Otherwise a GPU may round factors to TF32, and a TPU to bfloat16."""
    config, state = start(name)
    with backend.use("gpu"):
        program = jax.make_jaxpr(lambda state: trainer.iterate(config, HYPER, state))(state)
    found = products(program.jaxpr)
    assert len(found) > 5
    highest = (jax.lax.Precision.HIGHEST,) * 2
    assert [str(each.source_info) for each in found if each.params["precision"] != highest] == []
