"""A request to stop that comes at a chosen moment."""

from __future__ import annotations

from ppo_jax.runtime.signals import StopRequest


class CountedStop(StopRequest):
    """Asks to stop after it has been looked at `looks` times; takes the place of `listening`."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def __bool__(self) -> bool:
        self.looks -= 1
        if self.looks < 0:
            self.request("SIGTERM", 75)
        return self.reason is not None

    def __enter__(self) -> StopRequest:
        return self

    def __exit__(self, *_: object) -> None:
        pass
