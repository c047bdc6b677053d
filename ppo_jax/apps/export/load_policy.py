"""A trained policy as a plain function, from a run folder or from what `export` made of it."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

from ppo_jax.apps.export import numpy_policy
from ppo_jax.apps.export.predict import LoadedPolicy
from ppo_jax.config.config import whole
from ppo_jax.config.errors import InputError
from ppo_jax.config.reading import as_path
from ppo_jax.config.trust import Trust
from ppo_jax.config.values import short


def load_policy(
    path: Path | str,
    *,
    seed_index: int = 0,
    checkpoint: str | int = "newest",
    env: Any = None,
    network: Any = None,
    trust: Trust = False,
) -> LoadedPolicy:
    """A trained policy as a function observation -> action.

    Args:
        path: a run folder, or an artefact of `ppo-jax export`: a folder of the numpy format (read
            without jax), a .stablehlo or an .onnx file. No code in it is run.
        seed_index: which of a run's seeds, counted from 0; an artefact holds one.
        checkpoint: of a run: "newest"; "best" for the one with the best evaluation in training (IQM
            over the seeds); or the environment steps of one that is kept.
        env, network: the same Python objects again, if the run was trained with objects.
        trust: True to load the programs that the run names, or a list of them; a run of this user
            on this machine needs none.

    Returns:
        `policy(observation, legal=None) -> action` for one raw observation [*O] or a batch
        [n, *O]: an array, or a dict or tuple of arrays as the environment shows them. The
        observation is normalised as in training. The action is what the environment takes: clipped
        or squashed, and in its own form. `legal` is the action mask; it may be left out if the
        observation has a leaf `action_mask`. The policy of a run is `policy(observation, key=None,
        legal=None)`, deterministic without a key and sampled with one, and can be jitted and
        vmapped. It gives NumPy arrays unless an input is jax's own. An artefact is deterministic
        and takes and gives NumPy arrays. A wrong shape or a missing leaf raises InputError.

        A policy with a memory is `policy(observation, memory, ...) -> (action, memory)`, and
        `policy.start()` is the memory of a new episode, `policy.start(n)` that of n episodes.

        `policy.predict(observation, state=None, episode_start=None, deterministic=True)` is the
        same call as in Stable-Baselines3, and returns the action and the next state.

    Raises:
        InputError: there is no policy at `path`, it cannot be read, or no such seed or checkpoint
            is in it.
    """
    path = as_path("path", path)
    if (path / "config.json").is_file():
        from ppo_jax.apps.export.run_policy import run_policy

        return run_policy(
            path,
            seed_index=seed_index,
            checkpoint=checkpoint,
            env=env,
            network=network,
            trust=trust,
        )
    for name, value, usual in (("seed_index", seed_index, 0), ("checkpoint", checkpoint, "newest")):
        if type(whole(value)) is not type(usual) or value != usual:
            raise InputError(
                f"{name}={short(value)} needs a run folder, and {str(path)!r} is none: an exported "
                f"policy holds one seed of one checkpoint; leave {name} out."
            )
    numbers = path / "policy.npz" if path.is_dir() else path
    if numbers.suffix == ".npz" and numbers.is_file():
        return _numpy(numbers)
    if path.suffix.lower() == ".onnx" and path.is_file():
        from ppo_jax.apps.export import onnx_policy

        return _batched(*onnx_policy.load(path.read_bytes()))
    if path.suffix.lower() == ".stablehlo" and path.is_file():
        from ppo_jax.apps.export import stablehlo_policy

        return _batched(*stablehlo_policy.load(path.read_bytes()))
    raise InputError(
        f"{str(path)!r} holds no policy: name a run folder (with a config.json) or what "
        "`ppo-jax export` made: a folder with policy.npz, a .stablehlo or an .onnx file."
    )


def _numpy(file: Path) -> LoadedPolicy:
    try:
        act = numpy_policy.load(file)
    except ValueError as error:
        raise InputError(str(error)) from error
    return _refusing(act)


def _batched(*artefact: Any) -> LoadedPolicy:
    """A policy from the parts that a format's `load` returns; its refusals are InputErrors."""
    return _refusing(numpy_policy.as_policy(*artefact))


def _refusing(act: numpy_policy.Policy) -> LoadedPolicy:
    """`act` with `predict`; its ValueErrors become InputErrors."""

    @wraps(act)
    def refusing(*given: Any, **named: Any) -> Any:
        try:
            return act(*given, **named)
        except ValueError as error:
            raise InputError(str(error)) from error

    return LoadedPolicy(refusing, act.start, act.description)
