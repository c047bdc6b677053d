"""Brax's own PPO (brax.training.agents.ppo), without evaluations, unchanged.

Its `train` is no function that compiles once: it makes its programs and runs them. So it runs in a
thread of its own and waits after each of its epochs, which is a timed run; all continue one
training. It differs by design: a reset returns to the environment's first state; advantages are
computed again for each minibatch; minibatches hold whole windows; actions are squashed by tanh.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from cases import Case
from pmapped import layouts, restore_replication
from spreading import xla_flags
from worker import Program, Worker, serve

PACKAGES = ("brax", "mujoco-mjx", "jax", "jaxlib", "flax", "optax", "numpy")
EPOCHS = 10_000  # more than are ever run


def load() -> None:
    restore_replication()
    import brax.training.agents.ppo.train  # noqa: F401


def build(case: Case, layout: str, mark: Callable[[str], None]) -> Program:
    turns: queue.Queue[None] = queue.Queue()
    steps: queue.Queue[Any] = queue.Queue()

    def pause(step: int, *_: Any) -> None:
        steps.put(step)
        turns.get()

    def work() -> None:
        try:
            train(case, pause)
        except BaseException as error:  # shown by the thread that waits
            steps.put(error)

    def next_epoch() -> int:
        step = steps.get()
        if isinstance(step, BaseException):
            raise step
        return step

    threading.Thread(target=work, daemon=True).start()
    reached = [next_epoch()]
    mark("trace_seconds")

    def run(seed: int) -> int:
        turns.put(None)
        reached.append(next_epoch())
        return reached[-1] - reached[-2]

    run(0)
    mark("compile_seconds")
    return Program(run=run, env_steps=lambda steps: steps, returns=lambda steps: [])


def train(case: Case, pause: Callable[..., None]) -> None:
    from brax import envs
    from brax.training.agents.ppo import networks, train
    from flax import linen

    assert (case.seeds, case.clips_value, case.objective) == (1, False, "clip")
    train.train(
        envs.get_environment(case.env.partition("/")[2]),
        num_timesteps=EPOCHS * case.env_steps,
        num_evals=EPOCHS + 1,
        run_evals=False,
        policy_params_fn=pause,
        episode_length=1000,
        num_envs=case.num_envs,
        unroll_length=case.rollout_length,
        batch_size=case.num_envs // case.num_minibatches,
        num_minibatches=case.num_minibatches,
        num_updates_per_batch=case.num_epochs,
        learning_rate=case.learning_rate,
        entropy_cost=case.entropy_coef,
        discounting=case.gamma,
        gae_lambda=case.gae_lambda,
        clipping_epsilon=case.clip_epsilon,
        vf_loss_coefficient=case.value_coef,
        max_grad_norm=case.max_grad_norm,
        normalize_observations=case.normalize_observations,
        network_factory=partial(
            networks.make_ppo_networks,
            policy_hidden_layer_sizes=case.hidden_sizes,
            value_hidden_layer_sizes=case.hidden_sizes,
            activation=getattr(linen, case.activation),
        ),
    )


if __name__ == "__main__":
    serve(Worker(PACKAGES, layouts, xla_flags, load, build))
