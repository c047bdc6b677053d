"""PureJaxRL's ppo.py (github.com/luchris429/purejaxrl), file unchanged, for `parity.py`.

The task comes on stdin and names the clone of its repository; the returns go to stdout. Its
`wrappers.py` imports Brax and Navix for tasks that are not run here; empty modules stand in.
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
import one_done

UNUSED = ("brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training", "navix")


def load(source: str | None) -> Any:
    """Its ppo.py as a module, with the environments of gymnax 1.x."""
    if source is None:
        raise SystemExit("PureJaxRL is no package: name a clone of its repository by --source.")
    for name in UNUSED:
        sys.modules[name] = types.ModuleType(name)
    sys.modules["brax"].envs = sys.modules["brax.envs"]  # type: ignore[attr-defined]
    training: Any = sys.modules["brax.envs.wrappers.training"]
    training.EpisodeWrapper = training.AutoResetWrapper = None
    sys.path.insert(0, f"{source}/purejaxrl")
    import ppo

    ppo.gymnax = one_done
    return ppo


def main() -> None:
    wanted = json.load(sys.stdin)
    ppo, task = load(wanted["source"]), wanted["task"]
    if task["hidden_sizes"] != [64, 64]:
        raise SystemExit("PureJaxRL's network has two layers of 64.")
    train = ppo.make_train(settings(task))
    env, params = one_done.make(task["env"])
    network = ppo.ActorCritic(env.action_space(params).n, activation=task["activation"])

    def episode(weights: Any, key: Any) -> Any:
        """The return of one episode with sampled actions."""

        def step(carry: Any) -> Any:
            key, observation, state, total, _ = carry
            key, for_action, for_env = jax.random.split(key, 3)
            policy, _ = network.apply(weights, observation.reshape(-1))
            action = policy.sample(seed=for_action)
            observation, state, reward, done, _ = env.step(for_env, state, action, params)
            return key, observation, state, total + reward, done

        key, first = jax.random.split(key)
        start = (key, *env.reset(first, params), jnp.zeros(()), jnp.zeros((), bool))
        return jax.lax.while_loop(lambda carry: ~carry[4], step, start)[3]

    def one(key: Any) -> Any:
        weights = train(key)["runner_state"][0].params
        keys = jax.random.split(jax.random.fold_in(key, 1), wanted["episodes"])
        return jax.vmap(lambda key: episode(weights, key))(keys)

    keys = jax.vmap(jax.random.PRNGKey)(jnp.array(wanted["seeds"]))
    begin = time.perf_counter()
    returns = jax.jit(lambda keys: jax.lax.map(one, keys))(keys).mean(axis=1).tolist()
    answer = {
        "returns": returns,
        "train_seconds": round(time.perf_counter() - begin, 1),
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
