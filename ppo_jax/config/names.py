"""Names that other programs and papers use for the settings of this one.

They only give a hint, so that a setting has one name in every record. The few words that are taken
are in `config.SAME_WORDS`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

_ONE_STEP = "is objective pg with one step on each batch: --preset a2c has these settings"
# Words of others that mean a whole setting, by field.
WHOLE_SETTINGS = {
    "objective": {
        "a2c": f"A2C {_ONE_STEP}.",
        "vpg": f"The vanilla policy gradient {_ONE_STEP}.",
        "reinforce": f"REINFORCE {_ONE_STEP}, and --gae-lambda 1 takes whole returns.",
        "rppo": "Recurrent PPO is objective clip with a memory: --memory gru.",
        "appo": "There is no asynchronous PPO here: objective clip trains on one device or many.",
        "dqn": "There are no off-policy methods with a replay buffer here.",
        "sac": "There are no off-policy methods with a replay buffer here.",
        "td3": "There are no off-policy methods with a replay buffer here.",
    },
}

# Their name -> ours, from Stable-Baselines3, rl-zoo, CleanRL, PureJaxRL, Brax, Spinning Up, rejax.
OTHER_NAMES = {
    "algo": "objective",
    "algorithm": "objective",
    "loss": "objective",
    "lr": "learning_rate",
    "policy_lr": "learning_rate",
    "step_size": "learning_rate",
    "optim": "optimizer",
    "opt": "optimizer",
    "ent_coef": "entropy_coef",
    "entropy_cost": "entropy_coef",
    "entropy_coeff": "entropy_coef",
    "entropy_bonus": "entropy_coef",
    "vf_coef": "value_coef",
    "vf_cost": "value_coef",
    "critic_coef": "value_coef",
    "value_cost": "value_coef",
    "clip_range": "clip_epsilon",
    "clip_eps": "clip_epsilon",
    "clip_coef": "clip_epsilon",
    "clip_ratio": "clip_epsilon",
    "clip_param": "clip_epsilon",
    "clipping_epsilon": "clip_epsilon",
    "epsilon": "clip_epsilon",
    "clip_range_vf": "value_clip_epsilon",
    "clip_vloss": "value_clip_epsilon",
    "max_kl": "trust_region_kl",
    "delta": "trust_region_kl",
    "target_kl": "kl_stop",
    "desired_kl": "kl_lr_target",
    "kl_coeff": "kl_coef",
    "beta": "kl_coef",
    "cg_iters": "num_cg_iterations",
    "cg_max_steps": "num_cg_iterations",
    "cg_damping": "fisher_damping",
    "damping": "fisher_damping",
    "discount": "gamma",
    "discounting": "gamma",
    "lam": "gae_lambda",
    "lambda": "gae_lambda",
    "lmbda": "gae_lambda",
    "max_norm": "max_grad_norm",
    "grad_clip": "max_grad_norm",
    "max_gradient_norm": "max_grad_norm",
    "eps": "adam_epsilon",
    "adam_eps": "adam_epsilon",
    "n_steps": "rollout_length",
    "num_steps": "rollout_length",
    "unroll_length": "rollout_length",
    "horizon": "rollout_length",
    "rollout_steps": "rollout_length",
    "n_envs": "num_envs",
    "num_actors": "num_envs",
    "num_workers": "num_envs",
    "vec_envs": "num_envs",
    "n_epochs": "num_epochs",
    "epochs": "num_epochs",
    "update_epochs": "num_epochs",
    "k_epochs": "num_epochs",
    "num_updates_per_batch": "num_epochs",
    "num_sgd_iter": "num_epochs",
    "nminibatches": "num_minibatches",
    "n_minibatch": "num_minibatches",
    "num_mini_batch": "num_minibatches",
    "num_mini_batches": "num_minibatches",
    "total_timesteps": "total_env_steps",
    "n_timesteps": "total_env_steps",
    "num_timesteps": "total_env_steps",
    "timesteps": "total_env_steps",
    "total_steps": "total_env_steps",
    "max_steps": "total_env_steps",
    "num_env_steps": "total_env_steps",
    "budget": "total_env_steps",
    "norm_adv": "normalize_advantages",
    "normalize_advantage": "normalize_advantages",
    "norm_obs": "normalize_observations",
    "normalize_obs": "normalize_observations",
    "normalize": "normalize_observations",
    "norm_reward": "normalize_rewards",
    "normalize_reward": "normalize_rewards",
    "net_arch": "hidden_sizes",
    "layers": "hidden_sizes",
    "hidden_dim": "hidden_sizes",
    "hidden_size": "hidden_sizes",
    "hidden_layer_sizes": "hidden_sizes",
    "activation_fn": "activation",
    "ortho_init": "orthogonal_init",
    "log_std": "log_std_init",
    "lstm": "memory",
    "rnn": "memory",
    "recurrent": "memory",
    "lstm_hidden_size": "memory_size",
    "rnn_hidden_dim": "memory_size",
    "use_sde": "policy",
    "sde_sample_freq": "gsde_resample_steps",
    "env_id": "env",
    "env_name": "env",
    "gym_id": "env",
    "num_seeds": "seeds",
    "n_seeds": "seeds",
    "random_seed": "seed",
    "eval_freq": "eval_every",
    "eval_interval": "eval_every",
    "n_eval_episodes": "eval_episodes",
    "num_eval_episodes": "eval_episodes",
    "num_eval_envs": "eval_episodes",
    "log_interval": "log_every",
    "log_freq": "log_every",
    "save_freq": "checkpoint_every",
    "save_interval": "checkpoint_every",
    "checkpoint_freq": "checkpoint_every",
    "tensorboard_log": "tensorboard",
    "track": "wandb",
    "wandb_project": "wandb",
    "wandb_project_name": "wandb",
    "device": "platform",
    "backend": "platform",
    "cuda": "platform",
    "gpu": "platform",
    "num_devices": "devices",
    "logdir": "out",
    "log_dir": "out",
    "log_folder": "out",
    "output": "out",
    "output_dir": "out",
    "save_path": "out",
    "save_dir": "out",
    "run_dir": "out",
    "exp_name": "out",
    "name": "out",
    "pretrained": "init_from",
    "load": "init_from",
    "load_model": "init_from",
    "trained_agent": "init_from",
    "finetune": "init_from",
    "reward_threshold": "stop_at_return",
    "time_limit": "max_seconds",
    "max_time": "max_seconds",
    "silent": "quiet",
    "conf": "config",
    "conf_file": "config",
    "hyperparams": "config",
    "yaml_file": "config",
}

_NO_FLAG = "The environment has no flag: ppo-jax train CartPole-v1."
# Names of others that no single setting has, with the way to the same effect here.
OTHER_WAYS = {
    "anneal_lr": "A schedule anneals: --learning-rate 3e-4:0 falls to 0 over the budget.",
    "lr_schedule": "A schedule is a value: --learning-rate 3e-4:0, or 3e-4:0:cosine.",
    "learning_rate_schedule": "A schedule is a value: --learning-rate 3e-4:0, or 3e-4:0:cosine.",
    "env": _NO_FLAG,
    "env_id": _NO_FLAG,
    "env_name": _NO_FLAG,
    "gym_id": _NO_FLAG,
    "verbose": "Progress is shown unless --quiet is given; --debug shows tracebacks.",
    "render": "ppo-jax watch RUN shows an episode of a trained policy.",
    "capture_video": "ppo-jax watch RUN makes a GIF of a trained policy.",
    "num_updates": "The budget is counted in environment steps: --total-env-steps.",
    "num_iterations": "The budget is counted in environment steps: --total-env-steps.",
}
# Sizes of a minibatch, from which the number of minibatches follows.
SIZES = ("batch_size", "minibatch_size", "sgd_minibatch_size", "mini_batch_size")


def whole_setting(field: str, word: object) -> str:
    """Return a sentence if `word` names a whole setting elsewhere, else an empty text."""
    text = WHOLE_SETTINGS.get(field, {}).get(word.lower(), "") if isinstance(word, str) else ""
    return f" {text}" if text else ""


def exact_hint(name: str, words: Collection[str]) -> str:
    """Return the end of a sentence if `name` is another program's for one of `words`."""
    wanted = name.lower()
    our_name = OTHER_NAMES.get(wanted)
    if our_name in words:
        return f" Its name here: {our_name}."
    if wanted in OTHER_WAYS:
        return f" {OTHER_WAYS[wanted]}"
    if wanted in SIZES and "num_minibatches" in words:
        return " Its number is given here: num_minibatches = num_envs x rollout_length / size."
    return ""


def distant_hint(name: str, words: Collection[str]) -> str:
    """Return the end of a sentence if `name` is nearly another program's for one of `words`."""
    theirs = [other for other, ours in OTHER_NAMES.items() if ours in words]
    close = difflib.get_close_matches(name.lower(), theirs, n=3, cutoff=0.7)
    ours = dict.fromkeys(OTHER_NAMES[other] for other in close)
    return f" Nearest: {', '.join(ours)}." if ours else ""
