"""A trained policy as a plain function, from a run folder or from what `export` made of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ppo_jax.apps.export import numpy_policy
from ppo_jax.config.errors import InputError
from ppo_jax.config.trust import Trust


def load_policy(
    path: Path | str,
    *,
    seed_index: int = 0,
    env: Any = None,
    network: Any = None,
    trust: Trust = False,
) -> Callable[..., Any]:
    """A trained policy as a plain function observation -> action.

    Args:
        path: a run folder, or an artefact of `ppo-jax export`: a folder of the numpy format (read
            without jax), a .stablehlo or an .onnx file. No code in it is run.
        seed_index: which of a run's seeds, counted from 0; an artefact holds one.
        env, network: the same Python objects again, if the run was trained with objects.
        trust: True to load the programs that the run names, or a list of them; a run of this user
            on this machine needs none.

    Returns:
        `policy(observation) -> action` for one raw observation [*O] or a batch [n, *O]. The
        observation is normalised as in training, the action is what the environment takes: clipped
        or squashed. The policy of a run is `policy(observation, key=None)`, deterministic without
        a key and sampled with one, and can be jitted and vmapped; an artefact is deterministic and
        takes and gives NumPy arrays. A wrong shape raises InputError.

    Raises:
        InputError: there is no policy at `path`, it cannot be read, or no such seed is in it.
    """
    path = Path(path)
    if (path / "config.json").is_file():
        from ppo_jax.apps.export.run_policy import run_policy

        return run_policy(path, seed_index=seed_index, env=env, network=network, trust=trust)
    if seed_index != 0:
        raise InputError(
            f"seed_index={seed_index} needs a run folder, and {str(path)!r} is none: an exported "
            "policy holds one seed."
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


def _numpy(file: Path) -> Callable[[Any], np.ndarray]:
    try:
        act = numpy_policy.load(file)
    except ValueError as error:
        raise InputError(str(error)) from error

    def policy(observation: Any) -> np.ndarray:
        try:
            return act(observation)
        except ValueError as error:
            raise InputError(str(error)) from error

    policy.__doc__ = act.__doc__
    return policy


def _batched(
    run: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]
) -> Callable[[Any], np.ndarray]:
    """`run` of a batch [n, *O] as a function of one observation or a batch."""

    def policy(observation: Any) -> np.ndarray:
        rows = np.asarray(observation, np.float32)
        if rows.shape == shape:
            return run(rows[None])[0]
        if rows.shape[1:] == shape and rows.ndim == len(shape) + 1:
            return run(rows)
        raise InputError(
            f"An observation of shape {rows.shape} does not fit: this policy takes one of shape "
            f"{shape}, or a batch [n, ...] of them."
        )

    return policy
