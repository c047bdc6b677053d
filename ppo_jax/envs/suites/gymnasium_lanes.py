"""Environments of Gymnasium side by side, in this process or in workers beside it.

A worker steps several environments, so that a step costs one message each way and worker. It is
a process of its own that imports Gymnasium and NumPy, never jax or the user's main program.
Gymnasium's own vectors take a process for each environment, or collect the `info` of every step,
which nobody reads here.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ppo_jax.envs.interface import HostStep

MESSAGE_SECONDS = 1e-3  # the time that workers must save in each step, see `workers_for`
_WORKER = "from ppo_jax.envs.suites.gymnasium_lanes import serve; serve()"


class Lanes:
    """Environments that are stepped one after the other in this process."""

    def __init__(self, envs: Sequence[Any], cut_at: int | None) -> None:
        self.envs: Sequence[Any] = envs
        self.cut_at = cut_at
        self.ages = np.zeros(len(envs), int)
        self.drawn: list[Any] = []

    def reset(self, seed: int) -> Any:
        self.ages[:] = 0
        first = [env.reset(seed=seed + i)[0] for i, env in enumerate(self.envs)]
        self._draw()
        return _stacked(first)

    def step(self, action: Any) -> HostStep:
        following, final = [], []
        count = len(self.envs)
        reward = np.zeros(count, np.float32)
        terminated, truncated, cut = np.zeros((3, count), bool)
        self.ages += 1
        for i, env in enumerate(self.envs):
            found = env.step(_row(action, i))
            observation, reward[i], terminated[i], truncated[i], _ = found
            cut[i] = self.ages[i] == self.cut_at and not (terminated[i] or truncated[i])
            final.append(observation)
            if i == 0:
                self._draw()
            if terminated[i] or truncated[i] or cut[i]:
                self.ages[i] = 0
                final[i] = _copied(observation)  # the reset may write into the same array
                observation = env.reset()[0]
            following.append(observation)
        truncated &= ~terminated
        is_over = terminated.any() or truncated.any() or cut.any()
        rows = _stacked(following)
        return HostStep(
            rows, _stacked(final) if is_over else rows, reward, terminated, truncated, cut
        )

    def pictures(self) -> list[Any]:
        drawn, self.drawn = self.drawn, []
        return drawn

    def _draw(self) -> None:
        if self.envs[0].render_mode is not None:
            self.drawn.append(self.envs[0].render())

    def close(self) -> None:
        for env in self.envs:
            env.close()
        self.envs = []


class Workers:
    """The same in processes beside this one, which step at the same time."""

    def __init__(self, make: Callable[[], Any], counts: Sequence[int], cut_at: int | None) -> None:
        dumped = import_module("cloudpickle").dumps(make)
        self.counts = counts
        self.bounds = np.cumsum([0, *counts])
        self.processes, self.pipes = [], []
        for count in counts:
            ours, theirs = multiprocessing.Pipe()
            with theirs:
                command = [sys.executable, "-c", _WORKER, str(theirs.fileno())]
                self.processes.append(
                    subprocess.Popen(
                        command,
                        pass_fds=[theirs.fileno()],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,  # their prints are no answer of a command
                        start_new_session=True,  # Ctrl-C is for the program that owns them
                    )
                )
            ours.send((sys.path, count, cut_at))
            ours.send_bytes(dumped)
            self.pipes.append(ours)

    def reset(self, seed: int) -> Any:
        for pipe, first in zip(self.pipes, self.bounds):
            pipe.send(("reset", seed + int(first)))
        return _joined([_answer(pipe) for pipe in self.pipes])

    def step(self, action: Any) -> HostStep:
        for i, pipe in enumerate(self.pipes):
            pipe.send(("step", _row(action, slice(self.bounds[i], self.bounds[i + 1]))))
        found = [_answer(pipe) for pipe in self.pipes]
        return HostStep(*(_joined(list(part)) for part in zip(*found)))

    def pictures(self) -> list[Any]:
        return []  # environments that draw are in this process

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()  # a worker ends when nobody is at the other end
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.pipes, self.processes = [], []

    def __del__(self) -> None:
        self.close()


def workers_for(step_seconds: float, num_envs: int) -> int:
    """Workers to step B environments whose step takes that long; 0 for this process.

    W workers save the share 1 - 1/W of B steps, and a message to them and back costs up to a
    millisecond on a busy machine (docs/lab-notebook.md).
    """
    count = min(cores(), num_envs)
    return count if num_envs * step_seconds * (1 - 1 / count) > MESSAGE_SECONDS else 0


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else multiprocessing.cpu_count()


def made(spec: Any, settings: dict[str, Any]) -> Any:
    """The environment of a specification; a worker that makes it imports Gymnasium alone."""
    with _unwarned(spec):
        return import_module("gymnasium").make(spec, disable_env_checker=True, **settings)


@contextmanager
def _unwarned(spec: Any) -> Iterator[None]:
    """Leave out warnings such as a newer version of the id, or MuJoCo's of an old model's words.

    MuJoCo repeats its own for each environment, on the screen and in a file.
    """
    mujoco: Any = None
    if "mujoco" in str(spec.entry_point):
        with suppress(ImportError, AttributeError):
            mujoco = import_module("mujoco")
            before = mujoco.get_mju_user_warning()
            mujoco.set_mju_user_warning(lambda _: None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if mujoco is not None:
            mujoco.set_mju_user_warning(before)


def lanes(
    make: Callable[[], Any], num_envs: int, num_workers: int, cut_at: int | None
) -> Lanes | Workers:
    """`num_envs` environments; without workers in this process."""
    if num_workers < 2 or sys.platform.startswith("win"):
        return Lanes([make() for _ in range(num_envs)], cut_at)
    size, more = divmod(num_envs, num_workers)
    return Workers(make, [size + (i < more) for i in range(num_workers)], cut_at)


def serve() -> None:
    """Be a worker: obey the pipe whose number is the first argument until it is closed."""
    with Connection(int(sys.argv[1])) as pipe:
        try:
            path, count, cut_at = pipe.recv()
            sys.path[:] = path
            make = pickle.loads(pipe.recv_bytes())
            _serve(pipe, Lanes([make() for _ in range(count)], cut_at))
        except (EOFError, OSError):  # the program that owns it has gone
            return
        except Exception as error:
            pipe.send((None, f"{type(error).__name__}: {error}"))


def _serve(pipe: Connection, own: Lanes) -> None:
    while True:
        word, given = pipe.recv()
        pipe.send((getattr(own, word)(given), None))


def _answer(pipe: Connection) -> Any:
    try:
        found, failure = pipe.recv()
    except (EOFError, OSError):
        found, failure = None, "the worker was killed"
    if failure is not None:
        raise RuntimeError(f"a worker that steps environments has failed with {failure}")
    return found


def _row(tree: Any, index: Any) -> Any:
    """A row, or several, of a tree of arrays."""
    if isinstance(tree, dict):
        return {name: _row(leaf, index) for name, leaf in tree.items()}
    return tuple(_row(leaf, index) for leaf in tree) if isinstance(tree, tuple) else tree[index]


def _copied(tree: Any) -> Any:
    return _zipped(lambda leaves: np.array(leaves[0]), [tree])


def _stacked(trees: list[Any]) -> Any:
    return _zipped(np.stack, trees)


def _joined(trees: list[Any]) -> Any:
    return _zipped(np.concatenate, trees)


def _zipped(function: Callable[[list[Any]], Any], trees: list[Any]) -> Any:
    """`function` on the leaves of several trees of the same form; dicts in the order of keys."""
    first = trees[0]
    if isinstance(first, dict):
        return {name: _zipped(function, [tree[name] for tree in trees]) for name in sorted(first)}
    if isinstance(first, tuple):
        return tuple(_zipped(function, list(parts)) for parts in zip(*trees))
    return function(trees)
