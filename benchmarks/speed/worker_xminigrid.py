"""XLand-MiniGrid's PPO (training/train_single_task.py) as it is, file unchanged.

Its training folder is no package: `compare.py --source` names a clone. Empty modules stand in for
wandb and pyrallis, which only its command line needs. It evaluates after each update; no episode is
asked for. It differs by design: cells are embedded and go through three convolutions, and a head of
`head_hidden_dim` follows the core on either side; a time limit counts as the end of the task.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from cases import Case
from pmapped import layouts, restore_replication
from spreading import xla_flags
from worker import Program, Worker, cloned, serve

PACKAGES = ("xminigrid", "jax", "jaxlib", "flax", "optax", "distrax", "numpy")
EPISODES = 0  # of each evaluation


def load() -> None:
    sys.path.insert(0, cloned("training/train_single_task.py", "XLand-MiniGrid"))
    restore_replication()
    unused: Any = types.ModuleType("pyrallis")
    unused.wrap = lambda: lambda function: function
    sys.modules |= {"pyrallis": unused, "wandb": types.ModuleType("wandb")}
    import jax.numpy as jnp
    import numpy as np
    import xminigrid.environment  # noqa: F401

    arrays = jnp.asarray
    try:  # utils.py has arrays as defaults of a dataclass, which Python 3.11 refuses
        jnp.asarray = lambda x: np.float32(x) if isinstance(x, float) else np.int32(x)
        import utils  # noqa: F401
    finally:
        jnp.asarray = arrays
    import train_single_task  # noqa: F401


def build(case: Case, layout: str, mark: Callable[[str], None]) -> Program:
    import jax
    import train_single_task as script
    from flax.jax_utils import replicate

    assert (case.memory, case.shared_torso) == ("gru", True)
    settings = script.TrainConfig(
        env_id=case.env.partition("/")[2],
        rnn_hidden_dim=case.memory_size,
        num_envs=case.num_envs,
        num_steps=case.rollout_length,
        update_epochs=case.num_epochs,
        num_minibatches=case.num_minibatches,
        total_timesteps=case.env_steps,
        lr=case.learning_rate,
        clip_eps=case.clip_epsilon,
        gamma=case.gamma,
        gae_lambda=case.gae_lambda,
        ent_coef=case.entropy_coef,
        vf_coef=case.value_coef,
        max_grad_norm=case.max_grad_norm,
        eval_episodes=EPISODES,
    )
    _, env, params, memory, state = script.make_states(settings)
    devices = jax.local_devices()
    memory, state = replicate(memory, devices), replicate(state, devices)

    def keys(seed: int) -> Any:
        return jax.random.split(jax.random.key(seed), len(devices))

    mark("trace_seconds")
    lowered = script.make_train(env, params, settings).lower(keys(0), state, memory)
    mark("trace_seconds")
    ready = lowered.compile()
    mark("compile_seconds")
    updates = case.num_epochs * case.num_minibatches
    return Program(
        run=lambda seed: jax.block_until_ready(ready(keys(seed), state, memory)),
        env_steps=lambda out: int(out["runner_state"][1].step[0]) // updates * case.batch_size,
        returns=lambda out: [],
    )


if __name__ == "__main__":
    serve(Worker(PACKAGES, layouts, xla_flags, load, build))
