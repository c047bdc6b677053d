"""The table of commands, in the order of the overview.

Each command has a file. It reads its flags, validates them before jax is imported, and calls one
function.
"""

from __future__ import annotations

from ppo_jax.cli.answer import Command
from ppo_jax.cli.commands import (
    bench,
    compare,
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
        compare,
        envs,
        presets,
        doctor,
        bench,
    )
}
