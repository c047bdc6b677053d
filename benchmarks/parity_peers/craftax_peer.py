"""Craftax_Baselines' ppo.py, file unchanged, for `parity.py`: task on stdin, returns on stdout.

Its repository is no package: `--source` names a clone. An empty module stands in for wandb.
"""

from __future__ import annotations

import json
import sys
import time
import types
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp


def main() -> None:
    wanted = json.load(sys.stdin)
    sys.path.insert(0, wanted["source"])
    sys.modules["wandb"] = types.ModuleType("wandb")
    begin = time.perf_counter()
    keys = jnp.stack([jax.random.PRNGKey(seed) for seed in wanted["seeds"]])
    train = trainer(wanted["task"])
    params = jax.jit(lambda keys: jax.lax.map(lambda key: train(key).params, keys))(keys)
    play = player(wanted["task"], wanted["episodes"])
    returns = jax.jit(lambda *given: jax.lax.map(lambda one: play(*one), given))(params, keys)
    names = ("craftax", "jax", "flax", "optax")
    answer = {
        "returns": returns.tolist(),
        "train_seconds": round(time.perf_counter() - begin, 1),
        "versions": {name: version(name) for name in names},
    }
    print(json.dumps(answer))


def trainer(task: dict[str, Any]) -> Any:
    """A key -> the state of the trained networks."""
    from ppo import make_train

    settings = {
        "ENV_NAME": task["env"].partition("/")[2],
        "LR": task["learning_rate"],
        "ANNEAL_LR": False,
        "LAYER_SIZE": task["hidden_sizes"][0],
        "NUM_ENVS": task["num_envs"],
        "NUM_STEPS": task["rollout_length"],
        "TOTAL_TIMESTEPS": task["total_env_steps"],
        "UPDATE_EPOCHS": task["num_epochs"],
        "NUM_MINIBATCHES": task["num_minibatches"],
        "GAMMA": task["gamma"],
        "GAE_LAMBDA": task["gae_lambda"],
        "CLIP_EPS": task["clip_epsilon"],
        "ENT_COEF": task["entropy_coef"],
        "VF_COEF": task["value_coef"],
        "MAX_GRAD_NORM": 1.0,
        "USE_OPTIMISTIC_RESETS": True,
        "OPTIMISTIC_RESET_RATIO": 16,
        "TRAIN_ICM": False,
        "USE_E3B": False,
        "DEBUG": False,
        "USE_WANDB": False,
    }
    train = make_train(settings)
    return lambda key: train(key)["runner_state"][0]


def player(task: dict[str, Any], episodes: int) -> Any:
    """Parameters and a key -> mean return of whole episodes with the sampled policy."""
    from craftax.craftax_env import make_craftax_env_from_name
    from models.actor_critic import ActorCritic

    env = make_craftax_env_from_name(task["env"].partition("/")[2], auto_reset=False)
    network = ActorCritic(env.action_space(env.default_params).n, task["hidden_sizes"][0])

    def play(params: Any, key: Any) -> Any:
        def step(loop: Any) -> Any:
            seen, state, total, is_over, key = loop
            key, key_action, key_env = jax.random.split(key, 3)
            action = network.apply(params, seen)[0].sample(seed=key_action)
            move = jax.vmap(env.step, (0, 0, 0, None))
            keys = jax.random.split(key_env, episodes)
            seen, state, reward, done, _ = move(keys, state, action, env.default_params)
            return seen, state, total + jnp.where(is_over, 0.0, reward), is_over | done, key

        key, key_reset = jax.random.split(key)
        reset = jax.vmap(env.reset, (0, None))
        start = reset(jax.random.split(key_reset, episodes), env.default_params)
        loop = (*start, jnp.zeros(episodes), jnp.zeros(episodes, bool), key)
        return jax.lax.while_loop(lambda loop: ~loop[3].all(), step, loop)[2].mean()

    return play


if __name__ == "__main__":
    main()
