"""Rejax's PPO (github.com/keraJLi/rejax) for `parity.py`: task on stdin, returns on stdout."""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import one_done
import rejax
from rejax.evaluate import evaluate


def main() -> None:
    wanted = json.load(sys.stdin)
    task = wanted["task"]
    algorithm = create(task)
    keys = jax.vmap(jax.random.PRNGKey)(jnp.array(wanted["seeds"]))

    def one(key: Any) -> Any:
        state, _ = algorithm.train(key)
        act = algorithm.make_act(state)
        fresh = jax.random.fold_in(key, 1)
        return evaluate(act, fresh, algorithm.env, algorithm.env_params, wanted["episodes"])[1]

    begin = time.perf_counter()
    returns = jax.jit(lambda keys: jax.lax.map(one, keys))(keys).mean(axis=1).tolist()
    names = ("rejax", "gymnax", "jax", "flax", "optax")
    answer = {
        "returns": returns,
        "train_seconds": round(time.perf_counter() - begin, 1),
        "versions": {name: version(name) for name in names},
    }
    print(json.dumps(answer))


def create(task: dict[str, Any]) -> Any:
    env, params = one_done.make(task["env"])
    algorithm = rejax.PPO.create(
        env=env,
        env_params=params,
        agent_kwargs={
            "activation": task["activation"],
            "hidden_layer_sizes": tuple(task["hidden_sizes"]),
        },
        num_envs=task["num_envs"],
        num_steps=task["rollout_length"],
        num_epochs=task["num_epochs"],
        num_minibatches=task["num_minibatches"],
        total_timesteps=task["total_env_steps"],
        eval_freq=task["total_env_steps"],
        skip_initial_evaluation=True,
        learning_rate=task["learning_rate"],
        gamma=task["gamma"],
        gae_lambda=task["gae_lambda"],
        clip_eps=task["clip_epsilon"],
        ent_coef=task["entropy_coef"],
        vf_coef=task["value_coef"],
        max_grad_norm=jnp.inf,
    )
    return algorithm.replace(eval_callback=lambda algorithm, state, key: ())


if __name__ == "__main__":
    main()
