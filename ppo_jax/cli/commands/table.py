"""The commands of the command line, a file each, in the order in which the overview lists them.

A command reads its flags and calls one function; what can be told without jax is told before jax is
imported.
"""

from __future__ import annotations

from ppo_jax.cli.answer import Command
from ppo_jax.cli.commands import (
    bench,
    debug,
    doctor,
    envs,
    evaluate,
    explain,
    export,
    presets,
    replay,
    report,
    reproduce,
    resume,
    sweep,
    train,
)

COMMANDS: dict[str, Command] = {
    module.COMMAND.name: module.COMMAND
    for module in (
        train,
        sweep,
        resume,
        evaluate,
        replay,
        debug,
        export,
        explain,
        reproduce,
        report,
        envs,
        presets,
        doctor,
        bench,
    )
}
