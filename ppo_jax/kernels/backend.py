"""What programs are compiled for."""

from __future__ import annotations

import jax


def is_cpu() -> bool:
    """Whether that is a CPU, which pays for what it computes and moves.

    A GPU pays for every kernel that it starts and for every time that it waits for the host, so at
    some places it is given another program with equal results.
    """
    return jax.default_backend() == "cpu"
