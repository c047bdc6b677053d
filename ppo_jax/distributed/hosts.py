"""Hosts: the processes of one program, each with devices of its own, and what they agree on.

All hosts run the same loop on the same numbers. A decision that depends on a clock, a signal or a
file is made by the first host, or by all, and exchanged; else the hosts' programs would part, and
each would wait for the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ppo_jax.config.errors import InputError, RunError

# Seconds without a sign of life after which a host counts as gone. A host that is short of cores
# while it compiles may be silent for long.
HEARTBEAT = 180
WIDTH = 512  # bytes of a value that hosts exchange at once, as JSON; a longer one follows


def join(coordinator: str | None, num_hosts: int | None, host_index: int | None) -> None:
    """Join the other hosts, before jax starts; with None, where the cluster shows them.

    jax's own service for preemption is off: it takes SIGTERM away from the process, and hears no
    other signal. Hosts agree on a stop once a chunk (`runtime.signals.SharedStop`).

    Raises:
        InputError: no cluster is known here, or the other hosts do not come.
    """
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            *(coordinator, num_hosts, host_index),
            heartbeat_timeout_seconds=HEARTBEAT,
            cluster_detection_method=None if coordinator is None else "deactivate",
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        if "must be called before" in reason:
            raise InputError(
                "jax has already started in this process, so it cannot join other hosts: call "
                "jax.distributed.initialize before anything else uses jax."
            ) from error
        raise InputError(
            f"The hosts of this run cannot be joined ({reason}): start every host with the same "
            "coordinator=HOST:PORT and num_hosts=N, and its own host_index."
        ) from error


def is_joined() -> bool:
    """Check whether this process has joined others."""
    return jax.distributed.is_initialized()


def leave() -> None:
    """Wait until every host is here, and part from them."""
    exchange(0)
    jax.distributed.shutdown()


def is_loss(error: BaseException) -> bool:
    """Check whether an error of jax means that another host is gone."""
    text = f"{error}".lower()
    words = ("gloo", "nccl", "unavailable", "heartbeat", "coordination", "connection", "deadline")
    kinds = (jax.errors.JaxRuntimeError, ValueError)
    return count() > 1 and isinstance(error, kinds) and any(word in text for word in words)


def count() -> int:
    """Hosts of this program, 1 without others."""
    return jax.process_count() if is_joined() else 1  # asking jax would start it


def index() -> int:
    """This host's number, from 0 on."""
    return jax.process_index()


def is_first() -> bool:
    """Check for the host that writes files and prints."""
    return count() == 1 or index() == 0


def exchange(value: Any) -> list[Any]:
    """Every host's value, by host; values are JSON. All hosts must call it."""
    if count() == 1:
        return [value]
    text = json.dumps(value).encode()
    heads = _gathered(f"{len(text):12d}".encode() + text[:WIDTH], 12 + WIDTH)
    longest = max(int(head[:12]) for head in heads)
    whole = [head[12:] for head in heads]
    if longest > WIDTH:  # few shapes, each of which is a program
        whole = _gathered(text, 1 << (longest - 1).bit_length())
    return [json.loads(each) for each in whole]


def _gathered(text: bytes, width: int) -> list[bytes]:
    """Every host's bytes, filled up with spaces."""
    every = multihost_utils.process_allgather(np.frombuffer(text.ljust(width), np.uint8))
    return [bytes(np.asarray(row, np.uint8)) for row in every]


def from_first(value: Any) -> Any:
    """The first host's value. All hosts must call it."""
    return exchange(value if is_first() else None)[0]


def on_first(work: Callable[[], Any]) -> Any:
    """Do work that needs files on the first host; all get its answer, which is JSON.

    All hosts must call it.

    Raises:
        InputError, RunError: on every host, if the work refuses or cannot write.
    """
    if count() == 1:
        return work()
    answer, failure = None, None
    try:
        answer = work() if is_first() else None
    except (InputError, RunError, OSError) as error:
        failure = error
    words = failure and [isinstance(failure, InputError), str(failure)]
    answer, words = from_first([answer, words])
    if words is None:
        return answer
    leave()  # as in `require_equal`
    if failure is not None:
        raise failure
    is_refused, sentence = words
    raise InputError(sentence) if is_refused else RunError(sentence)


def require_equal(settings: Callable[[], dict[str, str]]) -> None:
    """Refuse hosts whose settings differ.

    Args:
        settings: makes a table, name -> value in words.

    Raises:
        InputError: on every host, with the first setting that differs.
    """
    if count() == 1:
        return
    short = {name: value[:60] for name, value in settings().items()}
    every = exchange(short)
    for host, theirs in enumerate(every):
        for name in {**every[0], **theirs}:
            if theirs.get(name) != every[0].get(name):
                leave()  # each host prints the sentence, and none is ended by jax meanwhile
                raise InputError(
                    f"Host {host} has {name}={theirs.get(name)} and host 0 has "
                    f"{every[0].get(name)}: start every host with the same settings and programs."
                )
