"""PureJaxRL's ppo.py (github.com/luchris429/purejaxrl) for `parity.py`.

The task comes on stdin and names the clone of its repository; the returns go to stdout.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any


def main() -> None:
    wanted = json.load(sys.stdin)
    if wanted["source"] is None:
        raise SystemExit("PureJaxRL is no package: name a clone of its repository by --source.")
    sys.path.insert(0, wanted["source"])
    import gymnax
    import jax
    import jax.numpy as jnp
    from purejaxrl.ppo import ActorCritic, make_train

    task = wanted["task"]
    if task["hidden_sizes"] != [64, 64]:
        raise SystemExit("PureJaxRL's network has two layers of 64.")
    train = make_train(settings(task))
    env, params = gymnax.make(task["env"])
    network = ActorCritic(env.action_space(params).n, activation=task["activation"])
    limit = int(getattr(params, "max_steps_in_episode", 1000)) + 1

    def episode(weights: Any, key: Any) -> Any:
        key, first = jax.random.split(key)
        observation, state = env.reset(first, params)

        def step(carry: Any, key: Any) -> tuple[Any, None]:
            observation, state, total, is_over = carry
            for_action, for_env = jax.random.split(key)
            policy, _ = network.apply(weights, observation.reshape(-1))
            action = policy.sample(seed=for_action)
            observation, state, reward, done, _ = env.step(for_env, state, action, params)
            total = total + jnp.where(is_over, 0.0, reward)
            return (observation, state, total, is_over | done), None

        start = (observation, state, jnp.zeros(()), jnp.zeros((), bool))
        return jax.lax.scan(step, start, jax.random.split(key, limit))[0][2]

    def one(key: Any) -> Any:
        weights = train(key)["runner_state"][0].params
        keys = jax.random.split(jax.random.fold_in(key, 1), wanted["episodes"])
        return jax.vmap(lambda key: episode(weights, key))(keys)

    keys = jax.vmap(jax.random.PRNGKey)(jnp.array(wanted["seeds"]))
    begin = time.perf_counter()
    returns = jax.jit(lambda keys: jax.lax.map(one, keys))(keys).mean(axis=1).tolist()
    answer = {
        "returns": returns,
        "seconds": round(time.perf_counter() - begin, 1),
        "versions": {name: version(name) for name in ("gymnax", "jax", "flax", "optax")},
    }
    print(json.dumps(answer))


def settings(task: dict[str, Any]) -> dict[str, Any]:
    return {
        "ENV_NAME": task["env"],
        "LR": task["learning_rate"],
        "ANNEAL_LR": False,
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
        "MAX_GRAD_NORM": 0.5,
        "ACTIVATION": task["activation"],
        "DEBUG": False,
    }


if __name__ == "__main__":
    main()
