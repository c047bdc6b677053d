"""Checks of settings before anything is compiled: each refusal is one sentence with a remedy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from ppo_jax.config.config import (
    MEMORIES,
    OBJECTIVES,
    OPTIMIZERS,
    TRUST_REGION,
    Config,
    Hyper,
    Schedule,
    hint,
)
from ppo_jax.config.errors import InputError, nearest
from ppo_jax.config.names import whole_setting
from ppo_jax.config.reading import MAX_INT
from ppo_jax.config.values import short

INT32 = 2**31 - 1  # samples, and the steps of an episode, are numbered by int32 on the device
# Each iteration folds five numbers of its own below KEYS into the seed's random key. One more would
# repeat the draws of another iteration, or those of an evaluation: the last four numbers below 2^32
# are of evaluations, and of environments outside jax.
KEYS, KEYS_PER_ITERATION = 2**32 - 4, 5

# name: (lowest, highest whole number)
_COUNTS = {
    "total_env_steps": (1, 2**53),  # exact as a float
    "num_envs": (1, 2**24),
    "rollout_length": (1, 2**24),
    "start_states": (0, 2**24),
    "num_epochs": (1, 2**16),
    "num_minibatches": (1, 2**24),
    "num_cg_iterations": (1, 2**16),
    "memory_size": (1, 2**16),
    "memory_layers": (1, 2**8),
    "memory_window": (1, 2**16),
}
MAX_WIDTH = 2**16  # limit of a hidden layer
MAX_LAYERS = 64  # each makes the program longer; a thousand take hours to compile

# name: (lowest, highest, whether the lowest itself is allowed)
_RANGES: dict[str, tuple[float, float, bool]] = {
    "learning_rate": (0.0, math.inf, True),
    "gamma": (0.0, 1.0, True),
    "gae_lambda": (0.0, 1.0, True),
    "clip_epsilon": (0.0, math.inf, True),
    "clip_epsilon_high": (0.0, math.inf, True),
    "dual_clip": (1.0, math.inf, False),
    "value_clip_epsilon": (0.0, math.inf, False),
    "value_coef": (0.0, math.inf, True),
    "max_grad_norm": (0.0, math.inf, False),
    "adam_epsilon": (0.0, math.inf, False),
    "weight_decay": (0.0, math.inf, True),
    "momentum": (0.0, 1.0, True),
    "rmsprop_decay": (0.0, 1.0, True),
    "kl_coef": (0.0, math.inf, True),
    "kl_stop": (0.0, math.inf, False),
    "kl_target": (0.0, math.inf, False),
    "kl_lr_target": (0.0, math.inf, False),
    "trust_region_kl": (0.0, math.inf, False),
    "fisher_damping": (0.0, math.inf, True),
    "max_failures": (1.0, math.inf, True),
    "schedule_env_steps": (0.0, math.inf, True),
    "log_std_init": (-20.0, 2.0, True),
}

# Infinity switches these off. No other number may be infinite.
_MAY_BE_INFINITE = (
    *("clip_epsilon", "clip_epsilon_high", "dual_clip", "value_clip_epsilon", "max_grad_norm"),
    *("kl_target", "kl_lr_target", "kl_stop", "max_failures"),
)


def validate(config: Config, hyper: Hyper) -> None:
    """Refuse what cannot run, before anything is compiled.

    Raises:
        InputError: a sentence that names the value, the rule and the remedy.
    """
    check_order(config, hyper)
    check_fields(config, _COUNTS)
    _check_network_sizes(config)
    _check_optimizer(config.optimizer)
    if config.memory != "none" and config.network is not None:
        raise InputError(
            f"memory={config.memory!r} is a part of the built-in network and cannot be put into a "
            "network of your own; leave --memory or --network out."
        )
    if config.memory == "attention" and config.memory_start == "learned":
        raise InputError(
            "memory_start='learned' does not fit memory 'attention', which starts with nothing "
            "seen; leave --memory-start out, or take a recurrent memory such as gru."
        )
    _check_division(config)
    _check_standardised(config)
    _check_budget(config)
    if (config.drift is None) == (config.objective == "drift"):
        raise InputError(
            f"objective={config.objective!r} with drift={config.drift!r}: objective drift needs a "
            "drift (module:function), and no other objective takes one."
        )
    for spec in dataclasses.fields(Hyper):
        if spec.name != "env":
            _check_number(spec.name, getattr(hyper, spec.name))
    if not isinstance(hyper.env, Mapping):
        raise InputError(f"env={short(hyper.env)} must be a dict of the environment's parameters.")
    if isinstance(hyper.schedule_env_steps, Schedule):
        raise InputError(
            f"schedule_env_steps={hyper.schedule_env_steps} is the length of the schedules and "
            "takes none itself: give one number of environment steps."
        )
    if config.objective == "spo" and any(_is_zero(end) for end in _ends(hyper.clip_epsilon)):
        raise InputError(
            f"clip_epsilon={hyper.clip_epsilon} must be more than 0 with objective spo, whose "
            "drift divides by it."
        )


def check_order(config: Any, hyper: Any) -> None:
    """Refuse other objects than a Config and a Hyper, in this order."""
    if not (isinstance(config, Config) and isinstance(hyper, Hyper)):
        raise InputError(
            f"A Config and a Hyper are wanted in this order, and given are {short(type(config))} "
            f"and {short(type(hyper))}: write config, hyper."
        )


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


def check_fields(record: Any, counts: Mapping[str, tuple[int, int]]) -> None:
    """Refuse a dataclass with an unknown word, an empty text or a count out of its limits.

    Args:
        record: an instance of a dataclass whose fields were made by `option`.
        counts: the lowest and the highest whole number of each field that is a count.

    Raises:
        InputError: the first such field.
    """
    for spec in dataclasses.fields(record):
        value = getattr(record, spec.name)
        if value is None and str(spec.type).endswith(" | None"):
            continue
        if spec.name in counts:
            check_count(spec.name, value, *counts[spec.name])
        check_choice(spec, value)
        _check_type(spec.name, str(spec.type).removesuffix(" | None"), value)


def _check_type(name: str, kind: str, value: Any) -> None:
    """Refuse a value of another type than its field's, as only Python can give it."""
    is_truth = type(value).__name__ in ("bool", "bool_")  # Python's or numpy's
    fits, words = {
        "float": (isinstance(value, Real) and not is_truth, "a number"),
        "bool": (is_truth, "True or False"),
        "str": (isinstance(value, str) or hasattr(value, "__fspath__"), "a word"),
    }.get(kind, (True, ""))
    if not fits:
        raise InputError(f"{name}={short(value)} must be {words}.")
    if kind == "str" and value == "":
        raise InputError(f"{name} is empty: give it a value or leave it out.")


def check_names(owner: type, changes: Iterable[str], what: str) -> None:
    """Refuse names that are no fields of the dataclass `owner`, the options of `what`."""
    known = [spec.name for spec in dataclasses.fields(owner)]
    for name in changes:
        if name not in known:
            others = [table for table in (Config, Hyper) if name in table.__dataclass_fields__]
            way = f" It is a field of {others[0].__name__}." if others else hint(name, known)
            raise InputError(f"{name!r} is no option of {what}.{way}")


def check_count(name: str, value: Any, low: int, high: int) -> None:
    """Refuse what is not a whole number between `low` and `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise InputError(f"{name}={short(value)} must be a whole number of at least {low}.")
    if value > high:
        raise InputError(f"{name}={short(value)} must be at most {high}.")


def check_choice(spec: dataclasses.Field, value: Any) -> None:
    """Refuse a word that is not among the field's choices, if the field has any."""
    choices = spec.metadata.get("choices")
    if choices and value not in choices:
        raise InputError(
            f"{spec.name}={short(value)} is not one of {', '.join(choices)}."
            + (whole_setting(spec.name, value) or nearest(str(value)[:80], choices))
        )


def check_seconds(seconds: float) -> float:
    """Return `seconds` if they are a duration.

    Raises:
        InputError: not finite, or not above 0.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"seconds={seconds:g} must be a number of more than 0, for example 30.")
    return seconds


def with_one_iteration(config: Config) -> Config:
    """Raise the budget to one iteration: a timing does not depend on the budget."""
    sizes = (config.num_envs, config.rollout_length)
    if any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
        return config  # `validate` raises the error
    enough = max(config.total_env_steps, config.batch_size)
    return dataclasses.replace(config, total_env_steps=enough)


def _check_network_sizes(config: Config) -> None:
    sizes = config.hidden_sizes
    is_list = isinstance(sizes, tuple | list) and len(sizes) > 0
    if not is_list or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise InputError(
            f"hidden_sizes={sizes!r} must name at least one width, each a whole number of at "
            "least 1, for example 64,64."
        )
    if max(sizes) > MAX_WIDTH:
        raise InputError(f"hidden_sizes={sizes!r} must have widths of at most {MAX_WIDTH}.")
    if len(sizes) > MAX_LAYERS:
        raise InputError(f"hidden_sizes has {len(sizes)} layers, and takes at most {MAX_LAYERS}.")
    steps = config.gsde_resample_steps
    if isinstance(steps, bool) or not isinstance(steps, int) or steps == 0 or steps < -1:
        raise InputError(
            f"gsde_resample_steps={steps!r} must be a whole number of at least 1, or -1 for one "
            "draw a rollout."
        )


def _check_optimizer(optimizer: Any) -> None:
    """Refuse an unknown word; a callable and `module:function` are the user's own."""
    is_own = callable(optimizer) or (isinstance(optimizer, str) and ":" in optimizer)
    if not is_own and optimizer not in OPTIMIZERS:
        raise InputError(
            f"optimizer={optimizer!r} is not one of {', '.join(OPTIMIZERS)}, nor module:function."
            + nearest(str(optimizer), OPTIMIZERS)
        )


def _check_division(config: Config) -> None:
    rows, word = config.batch_size, "num_envs x rollout_length"
    if rows > INT32:
        raise InputError(
            f"{word} = {rows} is too large for one iteration: at most {INT32} samples; lower "
            "num_envs or rollout_length."
        )
    if config.shuffle == "env-rows":
        rows, word = config.num_envs, "num_envs (with shuffle env-rows)"
    if config.memory != "none":
        check_whole_envs(config, f"memory {config.memory}")
    _check_minibatches(config, rows, word)


def check_whole_envs(config: Config, feature: str) -> None:
    """Refuse minibatches that are no sets of whole environments, which `feature` needs.

    Raises:
        InputError: their number does not divide that of the environments.
    """
    _check_minibatches(config, config.num_envs, f"num_envs (with {feature})")


def _check_minibatches(config: Config, rows: int, word: str) -> None:
    if rows % config.num_minibatches:
        raise InputError(
            f"num_minibatches={config.num_minibatches} does not divide {word} = {rows}; "
            f"the nearest number that does is {nearest_divisor(rows, config.num_minibatches)}."
        )


def nearest_divisor(number: int, wanted: int) -> int:
    """Return the divisor of `number` closest to `wanted`; the smaller of two as close."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    divisors = small + [number // d for d in small]
    return min(divisors, key=lambda d: (abs(d - wanted), d))


def _check_standardised(config: Config) -> None:
    """Refuse minibatches of one sample: its advantage less its mean is 0, so nothing is learned."""
    is_whole = config.normalize_advantages == "batch" or config.objective in TRUST_REGION
    rows = config.batch_size if is_whole else config.minibatch_size
    if config.normalize_advantages != "none" and rows < 2:
        word = "batch" if is_whole else "minibatch"
        remedy = "take more environments or a longer rollout"
        if not is_whole:
            remedy = "take fewer num_minibatches, normalize_advantages batch"
        raise InputError(
            f"normalize_advantages={config.normalize_advantages!r} would make the only advantage "
            f"of each {word} 0, so that the policy learns nothing: {remedy}, or "
            "normalize_advantages none."
        )


def _check_budget(config: Config) -> None:
    if config.total_env_steps < config.batch_size:
        raise InputError(
            f"total_env_steps={config.total_env_steps} is less than one iteration of num_envs x "
            f"rollout_length = {config.batch_size} steps: raise it to {config.batch_size} or "
            "lower num_envs or rollout_length."
        )
    most = KEYS // KEYS_PER_ITERATION
    if config.num_iterations > most:
        raise InputError(
            f"total_env_steps={config.total_env_steps} would take {config.num_iterations} "
            f"iterations, and random numbers repeat after {most}: lower it, or raise num_envs or "
            "rollout_length."
        )
    steps = config.num_iterations * config.rollout_length
    if steps > INT32:
        raise InputError(
            f"total_env_steps={config.total_env_steps} would take {steps} steps of each "
            f"environment, and an episode's are counted up to {INT32}: lower it, or raise num_envs."
        )


def _check_number(name: str, value: Any) -> None:
    ends = _ends(value)
    for end in ends:
        if isinstance(end, int) and abs(end) > MAX_INT:
            raise InputError(f"{name}={short(end)} must be a number of fewer digits.")
    plain = [end for end in ends if isinstance(end, int | float)]
    has_nan = any(end != end for end in plain)
    if not has_nan and len({math.isinf(end) for end in plain}) > 1:
        raise InputError(
            f"{name}={value} has no values between a finite and an infinite end: write a large "
            "number in place of inf."
        )
    for end in ends:
        if _is_known(end):
            _check_end(name, end)
    if isinstance(value, Schedule) and _is_known(value.cosine):
        _check_end(f"cosine of {name}", value.cosine)


def _is_known(end: Any) -> bool:
    """False of an array on a vmap axis, or of a tracer: its values are not known here."""
    return not hasattr(end, "aval") and getattr(end, "shape", ()) == ()


def _check_end(name: str, end: Any) -> None:
    """Refuse one number that is out of its field's range."""
    try:
        if isinstance(end, bool | str) or str(getattr(end, "dtype", "")) == "bool":
            raise TypeError
        number = float(end)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name}={end!r} must be a number.") from None
    if math.isnan(number):
        raise InputError(f"{name}={end!r} must be a number.")
    low, high, closed = _RANGES.get(name, (-math.inf, math.inf, True))
    if not (low <= number <= high) or (number == low and not closed):
        bound = f"at least {low:g}" if closed else f"more than {low:g}"
        upper = "" if high == math.inf else f" and at most {high:g}"
        raise InputError(f"{name}={end!r} must be {bound}{upper}.")
    if math.isinf(number) and name not in _MAY_BE_INFINITE:
        raise InputError(f"{name}={end!r} must be finite.")


def _ends(value: Any) -> tuple[Any, ...]:
    return (value.start, value.end) if isinstance(value, Schedule) else (value,)


def _is_zero(end: Any) -> bool:
    return isinstance(end, int | float) and end == 0.0
