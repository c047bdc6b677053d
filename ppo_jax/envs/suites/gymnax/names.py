"""The names that gymnax registers, and gymnax itself, imported late and without its plotting."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from ppo_jax.config.errors import InputError

# `gymnax.registered_envs` of gymnax 1.0.1, written out so that a mistyped name is answered at once.
GYMNAX_NAMES = (
    "CartPole-v1",
    "Pendulum-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Asterix-MinAtar",
    "Breakout-MinAtar",
    "Freeway-MinAtar",
    "Seaquest-MinAtar",
    "SpaceInvaders-MinAtar",
    "Catch-bsuite",
    "DeepSea-bsuite",
    "MemoryChain-bsuite",
    "UmbrellaChain-bsuite",
    "DiscountingChain-bsuite",
    "MNISTBandit-bsuite",
    "SimpleBandit-bsuite",
    "FourRooms-misc",
    "MetaMaze-misc",
    "PointRobot-misc",
    "BernoulliBandit-misc",
    "GaussianBandit-misc",
    "Reacher-misc",
    "Swimmer-misc",
    "Pong-misc",
    "FrozenLake-misc",
)

# Construction of these reads data that has to be downloaded first.
NEEDS_DOWNLOAD = ("MNISTBandit-bsuite",)

# Whole numbers that gymnax divides by, or counts steps up to: name -> (lowest, highest or None). It
# takes 0 and less, and shows NaN or an episode that nothing ends.
LIMITS: dict[str, dict[str, tuple[int, int | None]]] = {
    "BernoulliBandit-misc": {"t_max": (1, None)},
    "MemoryChain-bsuite": {"memory_length": (1, None)},
    "Seaquest-MinAtar": {"max_oxygen": (1, None)},
    "UmbrellaChain-bsuite": {"chain_length": (1, None)},
}

# Imported by gymnax at once, needed by none of its environments unless they draw: 85 % of the time.
_ONLY_FOR_DRAWING = ("seaborn", "matplotlib.pyplot")


class _Deferred(ModuleType):
    """A module that is imported when something of it is asked for."""

    def __getattr__(self, attribute: str) -> Any:
        _withdraw(self)
        return getattr(importlib.import_module(self.__name__), attribute)


def _withdraw(module: ModuleType) -> None:
    if sys.modules.get(module.__name__) is module:
        del sys.modules[module.__name__]


def import_gymnax() -> ModuleType:
    """`import gymnax` without waiting for the plotting libraries that it loads for drawing.

    gymnax's own modules keep working: what stands for a plotting library there loads it on first
    use, and nothing of it stays in `sys.modules`.
    """
    if "gymnax" in sys.modules:
        return sys.modules["gymnax"]
    stand_ins = [_Deferred(name) for name in _ONLY_FOR_DRAWING if name not in sys.modules]
    for stand_in in stand_ins:
        sys.modules[stand_in.__name__] = stand_in
    try:
        return importlib.import_module("gymnax")
    except ImportError as error:
        raise InputError(
            f"gymnax cannot be imported ({error}): install it with pip install 'gymnax>=1.0.1'."
        ) from error
    finally:
        for stand_in in stand_ins:
            _withdraw(stand_in)


def registered_names() -> tuple[str, ...]:
    """gymnax's names and, where gymnax is already loaded, what was registered at run time."""
    registration = sys.modules.get("gymnax.registration")
    return tuple(registration.registered_envs) if registration else GYMNAX_NAMES


def construct(name: str) -> tuple[Any, Any]:
    """gymnax's own object and its default parameters."""
    import_gymnax()
    registration = importlib.import_module("gymnax.registration")
    try:
        return registration.make(name)
    except Exception as error:
        hint = (
            "it downloads its data when it is made, so it needs the network the first time"
            if name in NEEDS_DOWNLOAD
            else "mend its constructor, or choose another environment"
        )
        raise InputError(
            f"{name} could not be made ({type(error).__name__}: {error}): {hint}."
        ) from error
