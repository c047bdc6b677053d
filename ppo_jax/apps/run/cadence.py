"""The cadence of a run: iterations between rows, evaluations and checkpoints."""

from __future__ import annotations

from typing import NamedTuple

from ppo_jax.config.config import Config
from ppo_jax.config.options import RunOptions
from ppo_jax.distributed import programs

GOAL_LOOKS = 20  # evaluations of a run with a goal and no other cadence of evaluations


class Cadence(NamedTuple):
    """Iterations between two events of a kind; 0 for never."""

    last: int  # the run's last iteration
    log: int
    evaluate: int
    save: int
    stops_at: int  # chunks end at its multiples, as a run may end there

    @staticmethod
    def of(config: Config, options: RunOptions, has_stop: bool) -> Cadence:
        """Environment steps rounded up to iterations; evaluations fall on logged points."""
        log_iterations = max(1, -(-log_steps(config, options) // config.batch_size))
        every = options.eval_every
        if not every and options.stop_at_return is not None:
            every = -(-config.trained_env_steps // GOAL_LOOKS)
        evaluate = -(-every // config.batch_size)
        evaluate = -(-evaluate // log_iterations) * log_iterations
        stops = has_stop or options.stop_at_return is not None
        return Cadence(
            last=config.num_iterations,
            log=log_iterations,
            evaluate=evaluate,
            save=-(-options.checkpoint_every // config.batch_size),
            stops_at=log_iterations if stops else 0,
        )

    def is_due(self, every: int, iteration: int) -> bool:
        return bool(every) and iteration % every == 0

    def is_logged(self, iteration: int) -> bool:
        return iteration == self.last or self.is_due(self.log, iteration)

    def next_length(self, iteration: int, wanted: int) -> int:
        """`wanted` iterations, but no further than the next point where the host must look."""
        bounds = [self.last] + [
            (iteration // every + 1) * every
            for every in (self.evaluate, self.save, self.stops_at)
            if every
        ]
        return min(wanted, programs.MAX_CHUNK, *(bound - iteration for bound in bounds))


def log_steps(config: Config, options: RunOptions) -> int:
    """Environment steps between rows: about a hundred rows a run by default."""
    return options.log_every or config.trained_env_steps // 100
