"""The ceiling: products of two square float32 matrices on all cores, by numpy and by jax.

It answers like a trainer, so that its runs alternate with theirs. The reported environment steps
are floating-point operations; the faster library and size counts.
"""

from __future__ import annotations

from collections.abc import Callable

from cases import Case
from worker import Program, Worker, serve

PACKAGES = ("numpy", "jax", "jaxlib")
SECONDS = 1.0  # length of one run, about


def load() -> None:
    import jax  # noqa: F401


def layouts(case: Case) -> tuple[str, ...]:
    return ("numpy-1024", "numpy-2048", "jax-1024", "jax-2048")


def xla_flags(layout: str) -> tuple[str, ...]:
    return ()


def build(case: Case, layout: str, mark: Callable[[str], None]) -> Program:
    import time

    import jax
    import numpy as np

    library, _, size = layout.partition("-")
    n = int(size)
    a, b = np.random.default_rng(0).standard_normal((2, n, n), dtype=np.float32) / n**0.5
    mark("trace_seconds")
    if library == "jax":
        left, right = jax.device_put((a, b))
        product = jax.jit(jax.numpy.matmul).lower(left, right).compile()

        def once() -> None:
            jax.block_until_ready(product(left, right))
    else:
        out = np.empty_like(a)

        def once() -> None:
            np.matmul(a, b, out=out)

    mark("compile_seconds")
    once()
    started = time.perf_counter()
    once()
    count = max(1, round(SECONDS / (time.perf_counter() - started)))

    def run(seed: int) -> int:
        for _ in range(count):
            once()
        return 2 * n**3 * count

    return Program(run=run, env_steps=lambda operations: operations, returns=lambda _: [])


if __name__ == "__main__":
    serve(Worker(PACKAGES, layouts, xla_flags, load, build))
