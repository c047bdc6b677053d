"""PureJaxRL's ppo_rnn.py (Lu et al., github.com/luchris429/purejaxrl) as it is, file unchanged.

Its repository is no package: `compare.py --source` names a clone. `wrappers.py` imports Brax and
Navix for environments that this task does not use; empty modules stand in for them. It differs by
design: the value loss is always clipped, a time limit counts as the end of the task, a reset is
computed at every step, and the result holds every step's `info`.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from cases import Case
from spreading import compiled, layouts, xla_flags
from worker import Program, Worker, cloned, serve

PACKAGES = ("gymnax", "jax", "jaxlib", "flax", "optax", "distrax", "numpy")
UNUSED = ("brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training", "navix")


def load() -> None:
    sys.path.insert(0, cloned("purejaxrl/ppo_rnn.py", "PureJaxRL"))
    for name in UNUSED:
        sys.modules[name] = types.ModuleType(name)
    sys.modules["brax"].envs = sys.modules["brax.envs"]  # type: ignore[attr-defined]
    training: Any = sys.modules["brax.envs.wrappers.training"]
    training.EpisodeWrapper = training.AutoResetWrapper = None
    import ppo_rnn  # noqa: F401


def build(case: Case, layout: str, mark: Callable[[str], None]) -> Program:
    from ppo_rnn import make_train

    assert (case.memory, case.memory_size, case.shared_torso) == ("gru", 128, True)
    settings = {
        "ENV_NAME": case.env,
        "LR": case.learning_rate,
        "ANNEAL_LR": False,
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
        "DEBUG": False,
    }
    train = make_train(settings)
    updates = case.num_epochs * case.num_minibatches

    def env_steps(state: Any) -> int:
        return int(state["runner_state"][0].step.sum()) // updates * case.batch_size

    def returns(state: Any) -> list[float]:
        """Training returns of each seed's last iteration."""
        return state["metric"]["returned_episode_returns"][:, -1].mean(axis=(1, 2)).tolist()

    return Program(compiled(case, train, layout, mark), env_steps, returns)


if __name__ == "__main__":
    serve(Worker(PACKAGES, layouts, xla_flags, load, build))
