"""Craftax_Baselines' ppo.py (Matthews et al.) as it is, file unchanged, without its exploration.

Its repository is no package: `compare.py --source` names a clone. An empty module stands in for
wandb, which it imports and does not use here. It differs by design: start states are drawn for a
sixteenth of the environments at every step and shared, a time limit counts as the end of the task,
and the value loss is always clipped.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from cases import Case
from spreading import compiled, layouts, xla_flags
from worker import Program, Worker, cloned, serve

PACKAGES = ("craftax", "jax", "jaxlib", "flax", "optax", "distrax", "numpy")


def load() -> None:
    sys.path.insert(0, cloned("models/actor_critic.py", "Craftax_Baselines", parents=2))
    sys.modules["wandb"] = types.ModuleType("wandb")
    import ppo  # noqa: F401


def build(case: Case, layout: str, mark: Callable[[str], None]) -> Program:
    from ppo import make_train

    assert case.hidden_sizes == 3 * case.hidden_sizes[:1]
    settings = {
        "ENV_NAME": case.env.partition("/")[2],
        "LR": case.learning_rate,
        "ANNEAL_LR": False,
        "LAYER_SIZE": case.hidden_sizes[0],
        "NUM_ENVS": case.num_envs,
        "NUM_STEPS": case.rollout_length,
        "TOTAL_TIMESTEPS": case.env_steps,
        "UPDATE_EPOCHS": case.num_epochs,
        "NUM_MINIBATCHES": case.num_minibatches,
        "GAMMA": case.gamma,
        "GAE_LAMBDA": case.gae_lambda,
        "CLIP_EPS": case.clip_epsilon,
        "ENT_COEF": case.entropy_coef,
        "VF_COEF": case.value_coef,
        "MAX_GRAD_NORM": case.max_grad_norm,
        "USE_OPTIMISTIC_RESETS": True,
        "OPTIMISTIC_RESET_RATIO": 16,
        "TRAIN_ICM": False,
        "USE_E3B": False,
        "DEBUG": False,
        "USE_WANDB": False,
    }
    train = make_train(settings)
    updates = case.num_epochs * case.num_minibatches

    def env_steps(state: Any) -> int:
        return int(state["runner_state"][0].step.sum()) // updates * case.batch_size

    run = compiled(case, train, layout, mark)
    return Program(run, env_steps, returns=lambda state: [])


if __name__ == "__main__":
    serve(Worker(PACKAGES, layouts, xla_flags, load, build))
