"""Settings as parameters of Optuna's trials, and the package itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ppo_jax.apps.sweep.axes import Axis, Values, show
from ppo_jax.config.errors import InputError, install


def load() -> Any:
    """The package Optuna; refuses with the way to install it."""
    try:
        import optuna  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "sampler tpe and --join need the package optuna, which is not installed: install it "
            f"with {install('sweep')}, or leave them out."
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def distributions(axes: Sequence[Axis]) -> dict[str, Any]:
    """Axes as Optuna's distributions; choices that are no numbers go by their spelling."""
    optuna = load()
    found: dict[str, Any] = {}
    for axis in axes:
        whole = [c for c in axis.choices if isinstance(c, int) and axis.is_numeric]
        is_run = bool(whole) and list(axis.choices) == [*range(whole[0], whole[0] + len(whole))]
        if axis.range is not None:
            low, high, is_log, is_whole = axis.range
            kind = "IntDistribution" if is_whole else "FloatDistribution"
            found[axis.name] = getattr(optuna.distributions, kind)(low, high, log=is_log)
        elif is_run:
            found[axis.name] = optuna.distributions.IntDistribution(whole[0], whole[-1])
        else:
            found[axis.name] = optuna.distributions.CategoricalDistribution(spelled(axis))
    return found


def spelled(axis: Axis) -> list[str]:
    """The choices as tables spell them, and in full if two would be spelt alike."""
    words = [show(choice) for choice in axis.choices]
    return words if len(set(words)) == len(words) else [repr(choice) for choice in axis.choices]


def values_of(axes: Sequence[Axis], params: Mapping[str, Any]) -> Values:
    """A trial's parameters as a setting."""
    found: Values = {}
    for axis in axes:
        value = params[axis.name]
        if axis.range is None and isinstance(value, str):
            value = axis.choices[spelled(axis).index(value)]
        found[axis.name] = value
    return found
