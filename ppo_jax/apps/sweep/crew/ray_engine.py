"""Parts of a sweep as tasks of Ray: each gets its CPUs and GPUs, and is retried if its node dies.

The sweep's folder is on a disk that all nodes share. So a task that is retried goes on from its
pack's checkpoint, and the rows need no way through Ray. A stop of the driver is a file in that
folder, which the tasks look for between chunks.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from ppo_jax.apps.sweep import folder as folders
from ppo_jax.apps.sweep.options import SweepOptions
from ppo_jax.apps.sweep.pack import Control
from ppo_jax.config.errors import InputError, RunError, install
from ppo_jax.runtime.signals import STOPPED, Stopped, StopRequest
from ppo_jax.runtime.text import quoted
from ppo_jax.storage.lock import STALE_SECONDS, LockedError

MAX_RETRIES = 3  # deaths of a task's process or node
CONNECT_SECONDS = 10.0
POLL_SECONDS = 0.5
STOP = "stop-request"  # file of a sweep's folder


class FileStop(StopRequest):
    """A stop that the driver requests by a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._file = folder / STOP

    def __bool__(self) -> bool:
        if self.reason is None and self._file.exists():
            self.request("the sweep's driver", STOPPED)
        return super().__bool__()


class Tasks(NamedTuple):
    """A connection to Ray, and the resources of a task."""

    ray: Any
    resources: dict[str, Any]
    folder: Path
    control: Control

    def call(self, function: Callable[..., Any], *given: Any) -> Any:
        """Run one function on some node."""
        return self.call_all(function, [given], lambda done: None)[0]

    def call_all(
        self,
        function: Callable[..., Any],
        each: Sequence[tuple[Any, ...]],
        show: Callable[[int], None],
    ) -> list[Any]:
        """Run a function for each tuple of arguments, as many at a time as there is room for.

        Args:
            function: takes the tuple, and `tell`, which takes sentences for the user.
            show: receives the number of calls that are done.

        Raises:
            Stopped: a signal; all tasks have saved and ended.
            InputError, RunError: as raised by a task, or too many nodes died.
        """
        remote = self.ray.remote(**self.resources)(told)
        waiting = {remote.remote(function, given): n for n, given in enumerate(each)}
        answers: list[Any] = [None] * len(each)
        while waiting:
            ready, _ = self.ray.wait(list(waiting), timeout=POLL_SECONDS)
            for one in ready:
                answer, sentences = self._get(one)
                answers[waiting.pop(one)] = answer
                for sentence in sentences:
                    self.control.tell(sentence)
            show(len(each) - len(waiting))
            if self.control.stop and not (self.folder / STOP).exists():
                (self.folder / STOP).touch()
        self.control.stop.check()
        return answers

    def _get(self, one: Any) -> Any:
        errors = self.ray.exceptions
        try:
            return self.ray.get(one)
        except errors.RayTaskError as error:
            if isinstance(error.cause, InputError | RunError | Stopped):
                raise error.cause from None
            raise
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            first = str(error).strip().splitlines()[0]
            raise RunError(
                f"A task of Ray ended {MAX_RETRIES + 1} times without an answer ({first}): look "
                f"into Ray's logs, then ppo-jax sweep {quoted(str(self.folder))} goes on."
            ) from error


def told(function: Callable[..., Any], given: tuple[Any, ...]) -> tuple[Any, list[str]]:
    """Call a function in a task; its answer, and its sentences for the user."""
    sentences: list[str] = []
    return function(*given, sentences.append), sentences


def load() -> Any:
    """The package Ray; refuses with the way to install it."""
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "--engine ray needs the package ray, which is not installed: install it on every node "
            f"with {install('ray')}, or leave --engine out."
        ) from None
    return ray


@contextmanager
def connected(options: SweepOptions) -> Iterator[Any]:
    """Be connected to a cluster: that of `ray_address`, of RAY_ADDRESS, or a new one of this host.

    Raises:
        InputError: Ray is not installed, or no cluster answers at the address.
    """
    ray = load()
    was_connected = ray.is_initialized()
    if not was_connected:
        connect(ray, options.ray_address)
    try:
        yield ray
    finally:
        if not was_connected:
            ray.shutdown()


@contextmanager
def tasks_of(ray: Any, options: SweepOptions, folder: Path, control: Control) -> Iterator[Tasks]:
    """The tasks of a sweep, which stop if its folder has the file STOP."""
    try:
        (folder / STOP).unlink(missing_ok=True)
        resources = {"num_cpus": options.ray_cpus, "num_gpus": gpus_of(ray, options)}
        yield Tasks(ray, resources | {"max_retries": MAX_RETRIES}, folder, control)
    finally:
        (folder / STOP).unlink(missing_ok=True)


def connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster, and keep the process's own handler of SIGTERM, which Ray replaces.

    Raises:
        InputError: no cluster answers at the address.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        host, _, port = (address or "").removeprefix("ray://").rpartition(":")
        if host and port.isdigit():  # Ray itself would try for many minutes
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, ValueError) as error:
        raise InputError(
            f"ray_address={address!r} cannot be used ({error}): name the address of a running "
            "cluster, such as auto or HOST:6379, or leave it out."
        ) from error
    finally:
        with suppress(ValueError):  # only the main thread may set it, and only there Ray does
            signal.signal(signal.SIGTERM, handler)


def gpus_of(ray: Any, options: SweepOptions) -> float:
    """GPUs of a task: as asked for, else one if the cluster has any."""
    if options.ray_gpus is not None:
        return options.ray_gpus
    return float(options.platform != "cpu" and ray.cluster_resources().get("GPU", 0) > 0)


def require_folder(folder: Path) -> None:
    """Refuse a node that does not see the sweep's folder.

    Raises:
        InputError: the sentence names the node.
    """
    if not folders.is_sweep(folder):
        raise InputError(
            f"The node {socket.gethostname()} does not see the sweep's folder {str(folder)!r}: "
            "name a folder on a disk that all nodes share with --out."
        )


def patiently(train: Callable[[], Any], control: Control) -> Any:
    """Train a unit as soon as its lock is free: a dead node's is void after a minute."""
    until = time.monotonic() + 2 * STALE_SECONDS
    while True:
        try:
            return train()
        except LockedError:
            if control.stop or time.monotonic() > until:
                raise
            time.sleep(POLL_SECONDS)
