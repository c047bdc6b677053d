"""Settings that a run does not read, because of its objective, optimiser, policy or memory."""

from __future__ import annotations

from typing import Any

from ppo_jax.config.config import MEMORIES, OBJECTIVES, TRUST_REGION, Config, Hyper

# Settings that only some objectives, optimisers or networks read: field -> (their field, words).
_MINIBATCHED = tuple(name for name in OBJECTIVES if name not in TRUST_REGION)
_READ_BY: dict[str, tuple[str, tuple[str, ...]]] = {
    "clip_epsilon": ("objective", ("clip", "spo")),
    "clip_epsilon_high": ("objective", ("clip",)),
    "dual_clip": ("objective", ("clip",)),
    "kl_coef": ("objective", ("kl",)),
    "kl_target": ("objective", ("kl",)),
    "kl_direction": ("objective", ("kl",)),
    "trust_region_kl": ("objective", TRUST_REGION),
    "fisher_damping": ("objective", TRUST_REGION),
    "num_cg_iterations": ("objective", TRUST_REGION),
    "kl_stop": ("objective", _MINIBATCHED),
    "kl_lr_target": ("objective", _MINIBATCHED),
    "measure_gradient_cosine": ("objective", _MINIBATCHED),
    "weight_decay": ("optimizer", ("adamw", "muon")),
    "momentum": ("optimizer", ("sgd", "muon")),
    "rmsprop_decay": ("optimizer", ("rmsprop", "rmsprop_torch")),
    "adam_epsilon": ("optimizer", ("adam", "adamw", "rmsprop", "rmsprop_torch")),
    "gsde_resample_steps": ("policy", ("gsde",)),
    "memory_size": ("memory", MEMORIES[1:]),
    "memory_layers": ("memory", MEMORIES[1:]),
    "memory_start": ("memory", MEMORIES[1:]),
    "memory_window": ("memory", ("attention",)),
}


def without_effect(config: Config, hyper: Hyper) -> list[str]:
    """Name the settings that differ from their defaults and that this run does not read.

    Returns:
        a sentence for each choice that leaves them unread.
    """
    values, defaults = {**vars(config), **vars(hyper)}, {**vars(Config()), **vars(Hyper())}
    unread: dict[str, list[str]] = {}
    for name, (field, words) in _READ_BY.items():
        chosen = values[field]
        is_own = not isinstance(chosen, str) or ":" in chosen  # the user's own may read anything
        if not is_own and chosen not in words and _differs(values[name], defaults[name]):
            unread.setdefault(field, []).append(name)
    return [
        f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} no effect with {field} "
        f"{values[field]}"
        for field, names in unread.items()
    ]


def _differs(value: Any, default: Any) -> bool:
    """Check whether a setting is another one; an array of a population counts as one."""
    return bool(getattr(value, "shape", ())) or value != default
